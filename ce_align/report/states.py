"""What a store holds: rows, what failed, and what was never run."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from ce_align.checks import named_some
from ce_align.config import StageConfig
from ce_align.report.sheet import Column, Sheet
from ce_align.report.terminal import sheets_of
from ce_align.results import NAMING, ResultStore, joined_notes
from ce_align.stages.comparable import algorithm_of
from ce_align.stages.earlier import stored_documents
from ce_align.stages.same_network import identity, load_rows, reasons_left_out

__all__ = ["DONE", "FAILED", "NEVER_RUN", "Wanted", "state_sheets", "states"]

#: The three states of what is asked for.
DONE, FAILED, NEVER_RUN = "done", "failed", "never run"
#: What a stage measures networks on: networks are expected to share it.
TARGETS = {
    "score": ("recording",),
    "official": ("recording",),
    "analyze": ("metric", "images"),
    "similarity": ("metric", "recording"),
    "transfer": ("dataset",),
}
#: Stages that leave files in place of rows.
DRAWN = ("figure", "table")

Record = dict[str, Any]


@dataclass(frozen=True)
class Wanted:
    """Which rows somebody wants to see; every pattern is a name or a glob."""

    stage: str | None = None
    models: Sequence[str] = ()
    recordings: Sequence[str] = ()

    def has(self, record: Mapping[str, Any]) -> bool:
        """Whether a record, or the settings of what failed, is among them."""
        roles = ("model", "label", "other", "other_label", "model_a", "model_b")
        networks = [record.get(role) for role in roles]
        networks += record.get("models") or ()
        recordings = [record.get("recording"), *(record.get("recordings") or ())]
        return (
            self.stage in (None, record.get("stage"))
            and _matches(networks, self.models)
            and _matches(recordings, self.recordings)
        )


def _matches(names: Iterable[Any], patterns: Sequence[str]) -> bool:
    """Whether a name is as one of the patterns says; names may hold brackets."""
    return not patterns or any(
        isinstance(name, str) and (name == pattern or fnmatchcase(name, pattern))
        for name in names
        for pattern in patterns
    )


def states(
    store: ResultStore, wanted: Wanted, unrun: Iterable[StageConfig] | None = None
) -> list[Record]:
    """Rows of a store, what failed, and what was never run, each with its state.

    Parameters
    ----------
    store : results
    wanted : which of them
    unrun : configurations of recipes that nobody has run; without recipes every network
        of the store is expected to have what any other one has
    """
    documents = list(stored_documents(store, sound=True))
    # Rows of any stage, and a training, may tell that a network is an older one.
    reasons = reasons_left_out(load_rows(store, sound=True)) if documents else {}
    # Of each measure, the versions that computed rows of it.
    versions: dict[tuple[str, str], set[str | None]] = {}
    for document in documents:
        for row in document["rows"]:
            measure = row["stage"], row["metric"]
            versions.setdefault(measure, set()).add(algorithm_of(document))
    done = []
    for document in documents:
        by = f"computed by {algorithm_of(document) or 'an algorithm that is not known'}"
        for row in document["rows"]:
            record = {"state": DONE, **row, "left_out": reasons.get(identity(row))}
            if len(versions[row["stage"], row["metric"]]) > 1:
                record["note"] = joined_notes(row.get("note"), by)
            done.append(record)
    if not any(row["left_out"] for row in done):
        done = [{k: v for k, v in row.items() if k != "left_out"} for row in done]
    failed = [
        {
            "state": FAILED,
            "stage": one.stage,
            **{name: one.config[name] for name in NAMING if one.config.get(name)},
            "value": None,
            "created": one.created,
            "note": one.message,
        }
        for one in store.failures()
    ]
    if unrun is not None:
        never = [_unrun(config) for config in unrun if config.stage not in DRAWN]
    else:
        settings = [{**d["config"], "stage": d["stage"]} for d in documents]
        never = _of_others(settings, failed)
    return [record for record in (*done, *failed, *never) if wanted.has(record)]


def _unrun(config: StageConfig) -> Record:
    settings = config.model_dump(mode="json")
    named = {name: settings[name] for name in NAMING if settings.get(name)}
    return {"state": NEVER_RUN, "stage": config.stage, **named}


def _of_others(done: Sequence[Record], failed: Sequence[Record]) -> list[Record]:
    """What other networks of the store have, and a network has not."""
    models = dict.fromkeys(one["model"] for one in done if one.get("model"))
    found = []
    for stage, names in TARGETS.items():

        def key(one: Record, names: tuple[str, ...] = names) -> tuple[Any, ...]:
            return tuple(one.get(name) for name in names)

        of_stage = [one for one in done if one["stage"] == stage]
        targets = dict.fromkeys(map(key, of_stage))
        there = {
            (one.get("model"), key(one))
            for one in (*of_stage, *failed)
            if one["stage"] == stage
        }
        found += [
            {"state": NEVER_RUN, "stage": stage, "model": model}
            | dict(zip(names, target, strict=True))
            for model in models
            for target in targets
            if (model, target) not in there
        ]
    return found


def state_sheets(records: Sequence[Record], title: str) -> list[Sheet]:
    """Tables of every stage's rows, of what failed, of what was never run; a sum."""
    done = [record for record in records if record["state"] == DONE]
    sheets = list(sheets_of(done))
    failed = [_told(one) for one in records if one["state"] == FAILED]
    if failed:
        columns = (
            *(Column("stage", keep=True), Column("failed", kind="text", keep=True)),
            Column("note", "reason", kind="text", keep=True),
            Column("created", "when", _minute, extra=True),
        )
        sheets.append(Sheet(failed, columns, "Failed"))
    never = [one for one in records if one["state"] == NEVER_RUN]
    if never:
        by_network: dict[tuple[str, str], list[str]] = {}
        for one in never:
            what = _named(
                {k: v for k, v in one.items() if k not in ("model", "images")}
            )
            names = by_network.setdefault((one["stage"], one.get("model", "–")), [])
            names.append(what)
        rows = [
            {"stage": stage, "model": model, "n": len(names), "on": named_some(names)}
            for (stage, model), names in by_network.items()
        ]
        shown = (
            *(Column("stage", keep=True), Column("model", keep=True)),
            *(Column("n", keep=True), Column("on", kind="text", keep=True)),
        )
        sheets.append(Sheet(rows, shown, "Never run", by=("stage",)))
    counted = []
    for stage in dict.fromkeys(one["stage"] for one in records):
        of_stage = [one for one in records if one["stage"] == stage]
        ids = {one["config_id"] for one in of_stage if one["state"] == DONE}
        counted.append(
            {
                "stage": stage,
                "rows": sum(one["state"] == DONE for one in of_stage),
                "done": len(ids),
                "failed": sum(one["state"] == FAILED for one in of_stage),
                "never_run": sum(one["state"] == NEVER_RUN for one in of_stage),
            }
        )
    sums = ("stage", "rows", "done", "failed", "never_run")
    return [*sheets, Sheet(counted, [Column(n, keep=True) for n in sums], title)]


def _told(record: Record) -> Record:
    return {**record, "failed": _named(record)}


def _named(record: Mapping[str, Any]) -> str:
    """What something is of, by the names in its settings."""
    return " · ".join(str(record[name]) for name in NAMING if record.get(name))


def _minute(time: str) -> str:
    return time[:16].replace("T", " ")
