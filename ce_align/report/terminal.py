"""Which columns rows and registries have in the terminal; `Sheet` lays them out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ce_align.checks import named_some
from ce_align.config import NETWORKS
from ce_align.data.named import Entry
from ce_align.metrics.correlation import least_r
from ce_align.models.catalogue import Published, is_cached
from ce_align.names import BRAIN
from ce_align.report.columns import (
    LAYER,
    MODEL,
    NEUROIDS,
    ORIGIN,
    STIMULI,
    Record,
    interval_column,
    named,
    notes_of,
    probability,
    split,
)
from ce_align.report.pairs import compare_sheets, overlap_sheets, unique_sheets
from ce_align.report.paper.files import to_the_right
from ce_align.report.select import labels_of
from ce_align.report.sheet import Column, Sheet, facts_sheet
from ce_align.report.standing import beside_others
from ce_align.results import FACTS, LABELLED
from ce_align.stages.comparable import interval_over

if TYPE_CHECKING:
    from ce_align.brainscore.plugin import Severity
    from ce_align.brainscore.plugin.check import PluginCheck
    from ce_align.report.paper.items import BuiltTable
    from ce_align.results import Row
    from ce_align.stages.official import OfficialRow
    from ce_align.stages.scores import ScoreRow

__all__ = [
    *("built_sheet", "citations_sheet", "comparison_sheets", "identity_sheet"),
    *("models_sheet", "plugins_sheet", "recordings_sheet"),
    *("row_sheets", "sheets_of"),
]


#: Why the ceilings of both paths differ.
VARIANCE = (
    "repetitions are unequal: our ceiling is from their variance; --ceiling split-half "
    "is Brain-Score's"
)
#: How a convention of accuracy is called where a person reads it.
CONVENTIONS = {"top1": "top-1", "mean_per_class": "mean per class"}
#: Fields of any rows that are left to --full.
HIDDEN = {"model_digest", "recording_digest", "version", "created", "config_id"}
HIDDEN |= {*FACTS[2:]}

#: By its label; the name by which it is asked for is the column model.
#: The numbers that both paths to a score give.
SCORED = (
    Column("value", "score", ".4f", keep=True, kind="number"),
    Column("raw", "raw r", ".4f", keep=True, kind="number"),
    Column("error", "± error", ".4f", keep=True, kind="number"),
    Column("ceiling", form=".4f", kind="number"),
)


def _percent(value: float) -> str:
    return f"{100 * value:.2f}"


def _window(record: Record) -> str | None:
    start, end = record.get("time_start"), record.get("time_end")
    if start is None or end is None or start != start:
        return None
    return f"{start:g} to {end:g}"


def _animal(record: Record) -> str:
    """Whose neuroids; of other animals' score the one that they predict."""
    own = (
        record["model"].rpartition(":")[2] if record["model"].startswith(BRAIN) else ""
    )
    return record.get("animal") or own or "all"


def _partly(record: Record) -> int | None:
    """Stimuli behind a ceiling, where they are not all."""
    n = record.get("n_ceiling_stimuli")
    return None if n is None or n != n or n == record.get("n_stimuli") else int(n)


SCORE = (
    *(MODEL, LAYER),
    Column("untrained", "untrained: raw r", kind="number", known=True),
    Column("brain", "brain: raw r", ".4f", kind="number", known=True),
    Column("share", "to the brain", ".2f", kind="number", known=True),
    Column("animal", of=_animal),
    Column("ms", of=_window, fact="{value} ms after onset"),
    *SCORED,
    Column("ceiling_kind", "ceiling by"),
    Column(
        "ceiling_stimuli", "ceiling from", of=_partly, fact="{title} {value} stimuli"
    ),
    *(STIMULI, NEUROIDS),
    *(Column("regression"), Column("n_splits", "splits", fact="{value} splits")),
    *(ORIGIN, Column("seed", extra=True)),
)


def _score_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """A table for each recording, region and regression, as others are others."""
    keys = ("recording", "region", "regression")
    for (recording, region, _), group in split(records, *keys):
        notes = []
        if any(record.get("value") is not None for record in group):
            notes = ["score = raw² / ceiling; ± error of raw r over splits"]
        elif not any(map(notes_of, group)):
            notes = ["no repetitions: no ceiling, hence no score"]
        group, told = beside_others(group)
        notes += told
        animals = len(named("animal", group)) > 1
        parts = animals or len({*map(_window, group)}) > 1
        columns = [
            c for c in SCORE if c.name != "animal" or animals or group[0].get("animal")
        ]
        yield Sheet(
            *(group, columns, f"{recording}: {region}"),
            by=("label", "layer") if parts else (),
            effect=("value", "raw"),
            in_order=parts,
            notes=notes,
            notes_of=notes_of,
        )


OFFICIAL = (MODEL, LAYER, *SCORED, Column("region"), ORIGIN)


def _benchmark(record: Record) -> str:
    return (
        f"{record['recording']}: {record['benchmark']} of brainscore-vision "
        f"{record['brainscore']}"
    )


def _official_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """A table of Brain-Score's own numbers for each recording."""
    for _, group in split(records, "recording", "benchmark", "brainscore"):
        yield Sheet(
            *(group, OFFICIAL, _benchmark(group[0])),
            effect=("value", "raw"),
            notes_of=notes_of,
        )


def _imported_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """A table of scores that others measured for each of their benchmarks."""
    for (recording, benchmark), group in split(records, "recording", "benchmark"):
        yield Sheet(
            *(group, (*OFFICIAL, Column("imported_from", "from"))),
            f"{recording}: {benchmark}, imported",
            effect=("value", "raw"),
            notes_of=notes_of,
        )


def comparison_sheets(
    ours: "Sequence[ScoreRow]", official: "Sequence[OfficialRow]"
) -> Iterator[Sheet]:
    """A table for each recording: our numbers, Brain-Score's, and the difference."""
    by_name = {(row.model, row.recording, row.layer): row for row in ours}
    columns = [
        Column(c.name, c.title, _scientific, keep=True, kind="number") for c in SCORED
    ]
    theirs = _labelled([row.model_dump() for row in official])
    for _, group in split(theirs, "recording"):
        records: list[dict[str, Any]] = []
        notes = []
        for record in group:
            key = (record["model"], record["recording"], record["layer"])
            own = by_name[key].model_dump()
            if own["ceiling_kind"] == "variance":
                notes = [VARIANCE]
            names = {name: record[name] for name in ("model", "label", "layer")}
            both = {c.name: (own[c.name], record[c.name]) for c in columns}
            of_each = {
                "ce-align": {name: pair[0] for name, pair in both.items()},
                "Brain-Score": {name: pair[1] for name, pair in both.items()},
                "difference": {
                    name: None if None in pair else (pair[0] - pair[1],)
                    for name, pair in both.items()
                },
            }
            records += [
                {**names, "by": by, **numbers} for by, numbers in of_each.items()
            ]
        yield Sheet(
            *(records, (MODEL, LAYER, Column("by"), *columns), _benchmark(group[0])),
            by=("label", "layer"),
            notes=notes,
        )


def _scientific(value: float | tuple[float]) -> str:
    """A number, or a difference of two."""
    return f"{value[0]:.1e}" if isinstance(value, tuple) else f"{value:.6f}"


MEASURE = (
    Column("metric", "measure", kind="text", keep=True),
    MODEL,
    Column("value", form=".4f", kind="number", keep=True),
    interval_column("ci", "95 % interval", "low", "high"),
    Column("n_points", "n", fact="n {value} points"),
    Column("interval", "over", extra=True),
    Column("n_comparisons", "comparisons", extra=True, fact="{value} comparisons"),
    Column("n_units", "units", extra=True),
    Column("baseline_label", "baseline", extra=True),
    *(LAYER, Column("images"), ORIGIN, Column("seed", extra=True)),
)


def _measure_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """Measures with intervals, networks of one measure beside each other."""
    kinds = [kind for kind in named("interval", records) if isinstance(kind, str)]
    names = [str(record["metric"]) for record in records]
    words = {
        "_excess": "excess: distance between halves of two clouds minus the floor, "
        "both of half as many points, so not the distance minus the floor",
        "_delta": "delta (Δ): the baseline's value minus the network's",
    }
    yield Sheet(
        *(records, MEASURE, "Measures"),
        by=("metric",),
        effect=("value",),
        notes=[
            *(told for end, told in words.items() if any(end in n for n in names)),
            *(
                f"over {kind}: {interval_over(kind)}"
                for kind in kinds
                if interval_over(kind) != kind
            ),
        ],
        notes_of=notes_of,
    )


SIMILARITY = (
    Column("metric", "similarity", kind="text", keep=True),
    *(MODEL, LAYER),
    Column("animal", of=lambda record: record.get("animal") or "all"),
    Column("ms", of=_window, fact="{value} ms after onset"),
    Column("value", form=".4f", kind="number", keep=True),
    interval_column("ci", "95 % interval", "low", "high"),
    Column("floor", form=".4f", kind="number"),
    interval_column("reach", "ceiling", "ceiling_low", "ceiling_high"),
    *(Column("ceiling_kind", "ceiling by"), Column("method"), STIMULI, NEUROIDS),
    *(ORIGIN, Column("interval", "over"), Column("seed", extra=True)),
)


def _similarity_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """A table for each recording and region, networks of one similarity together."""
    for (recording, region), group in split(records, "recording", "region"):
        several = len(named("animal", group)) > 1
        columns = [c for c in SIMILARITY if c.name != "animal" or several]
        yield Sheet(
            *(group, columns, f"{recording}: {region}, similarity"),
            by=("metric",),
            effect=("value",),
            notes=[
                "floor: stimuli exchanged; ceiling: what a network of the true "
                "responses would reach, at least and at most"
            ],
            notes_of=notes_of,
        )


CORRELATION = (
    Column("measure", keep=True),
    Column("value", "r", ".2f", kind="number", keep=True),
    interval_column("ci", "95 %", "low", "high", ".2f"),
    Column("within", form=".2f", kind="number", known=True),
    interval_column("within_ci", "95 % (within)", "within_low", "within_high", ".2f"),
    Column("held_out_r2", "R² left out", ".2f", kind="number", known=True),
    Column("n_networks", "n", fact="n {value} networks"),
    Column("p", form=probability, kind="number", keep=True),
    Column("q", form=probability, kind="number", keep=True),
    Column("origin", "data"),
    Column("imported_from", "scores from"),
)
PARTIAL = (
    Column("measure", keep=True),
    Column("partial", "r", ".2f", kind="number", keep=True),
    interval_column("partial_ci", "95 %", "partial_low", "partial_high", ".2f"),
    Column("n_partial", "n", fact="n {value} networks"),
    Column("partial_p", "p", probability, kind="number", keep=True),
    Column("partial_q", "q", probability, kind="number", keep=True),
    Column("given", kind="text"),
)


#: What columns of correlations say.
WITHIN = (
    "within: each objective's mean removed; R² left out: of each objective's networks, "
    "by a line through all others; p: networks exchanged within objectives; q: false "
    "discovery rate over all tests of the run, those of the mean of recordings apart"
)


def _correlation_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """For each recording r of each measure, within objectives, and given λ."""
    several = len(named("config_id", records)) > 1
    for (recording, run), group in split(records, "recording", "config_id"):
        title = f"Pearson r across networks with {recording}"
        if several:  # each has its own family of tests
            title += f" (config_id {run[:8]})"
        intervals = [f"95 %: over {kind}" for kind in named("interval", group) if kind]
        least = min(record["n_networks"] for record in group)
        power = (
            f"with {least} networks, |r| below {least_r(least):.2f} cannot be told "
            "from 0, by a single test"
        )
        notes = [*intervals, WITHIN, power]
        if any(r.get("low") is None and r.get("within_low") is not None for r in group):
            notes.append(
                "r: no interval, few objectives do not say how objectives vary"
            )
        yield Sheet(
            *(group, CORRELATION, title),
            effect=("abs_r",),
            notes=notes,
            notes_of=notes_of,
        )
        given = [
            {**record, "abs_partial": abs(record["partial"])}
            for record in group
            if record.get("partial") is not None
        ]
        if given:
            yield Sheet(
                *(given, PARTIAL, f"{title}, given λ"),
                effect=("abs_partial",),
                notes=intervals,
            )


TRANSFER = (
    *(Column("dataset", "data set", keep=True), MODEL),
    Column("value", "accuracy, %", _percent, kind="number", keep=True),
    Column("sd", "± sd of runs", _percent, kind="number", known=True),
    Column("error", "± test error", _percent, kind="number", known=True),
    Column("convention", "accuracy", lambda name: CONVENTIONS.get(name, name)),
    Column("strength", "L2", ".2g"),
    Column(
        *("images", "train/val/test"),
        of=lambda r: f"{r['n_train']}/{r['n_validation']}/{r['n_test']}",
        kind="number",
    ),
    Column("size", fact="images of {value} pixels"),
    *(LAYER, Column("n_runs", "runs", extra=True), Column("seed", extra=True)),
)


def _transfer_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """Accuracy in percent, with its spread over runs and its error over test images."""
    yield Sheet(
        *(records, TRANSFER, "Linear evaluation"),
        by=("dataset",),
        effect=("value",),
        notes_of=_transfer_notes,
    )


def _transfer_notes(record: Record) -> list[str]:
    missed = record.get("n_unconverged")
    told = f"{missed} fits ended before their tolerance was met"
    return [*notes_of(record), told] if missed else notes_of(record)


TRAINED = (
    *(Column("metric", keep=True), MODEL),
    Column("value", keep=True, kind="number"),
    *(Column("objective"), Column("equivariance_weight", "λ", "g")),
    *(Column("backbone"), Column("epochs"), Column("pretraining", "images")),
    *(Column("augmentation", extra=True), Column("network_seed", "seed")),
)


def _trained_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """Numbers at the end of trainings."""
    yield Sheet(
        *(records, TRAINED, "Trainings"),
        by=("metric",),
        effect=("value",),
        notes_of=notes_of,
    )


#: The tables of each stage's rows.
STAGES: Mapping[str, Callable[[Sequence[Record]], Iterator[Sheet]]] = {
    "score": _score_sheets,
    "official": _official_sheets,
    "imported": _imported_sheets,
    "analyze": _measure_sheets,
    "similarity": _similarity_sheets,
    "correlate": _correlation_sheets,
    "compare": compare_sheets,
    "overlap": overlap_sheets,
    "unique": unique_sheets,
    "transfer": _transfer_sheets,
    "train": _trained_sheets,
    "online": _trained_sheets,
}


def row_sheets(rows: "Sequence[Row]") -> Iterator[Sheet]:
    """The tables of rows, as their stages show them."""
    return sheets_of([row.model_dump() for row in rows])


def sheets_of(records: Sequence[Record]) -> Iterator[Sheet]:
    """The tables of rows of any stages, which say their stage."""
    for (stage,), group in split(_labelled(records), "stage"):
        if stage in STAGES:
            yield from STAGES[stage](group)
            continue
        names = dict.fromkeys(name for record in group for name in record)
        columns = [Column(name) for name in names if name not in HIDDEN]
        yield Sheet(group, columns, str(stage))


def _labelled(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Records with the labels of their networks, each of one network only."""
    labels = labels_of(records)
    return [
        {
            **record,
            **{c: labels.get(record.get(r, "")) for c, r in LABELLED.items()},
        }
        for record in records
    ]


def models_sheet(entries: Sequence[Published]) -> Sheet:
    """The published networks."""
    records = [
        {
            "name": entry.name,
            "objective": entry.objective,
            "equivariance_weight": entry.equivariance_weight,
            "epochs": entry.epochs,
            "brainscore_id": entry.brainscore_id or None,
            "cached": is_cached(entry),
        }
        for entry in entries
    ]
    columns = (
        *(Column("name", kind="whole", keep=True), Column("objective")),
        *(Column("equivariance_weight", "λ", "g"), Column("epochs")),
        *(Column("brainscore_id", "Brain-Score id", kind="whole"), Column("cached")),
    )
    return Sheet(records, columns)


def recordings_sheet(entries: Sequence[Entry]) -> Sheet:
    """Recordings, their sizes, how they are scored, and their access."""
    records = [
        {
            "name": entry.name,
            "region": entry.region,
            "images": entry.images,
            "neuroids": entry.neuroids,
            "repetitions": entry.repetitions,
            "metric": entry.metric or None,
            "licence": entry.licence or None,
            "access": entry.access,
            "origin": entry.origin,
            "citation": entry.citation or None,
            "remark": entry.remark or None,
        }
        for entry in entries
    ]
    columns = (
        Column("name", kind="whole", keep=True),
        Column("region", "area", kind="whole"),
        *(Column("images"), Column("neuroids"), Column("repetitions", "reps")),
        Column("metric", kind="whole", extra=True),
        Column("licence", kind="whole", extra=True),
        Column("access", form=_in_a_word, kind="whole", keep=True),
    )
    return Sheet(records, columns, notes_of=_access)


def _in_a_word(access: str) -> str:
    return access.split()[0].strip(":,")


def _access(record: Record) -> list[str]:
    access = record["access"]
    return [access] if access != _in_a_word(access) else []


def citations_sheet(entries: Sequence[Entry]) -> Sheet:
    """How recordings are cited, and what else is to know of getting them."""
    cited: dict[str, list[str]] = {}
    for entry in entries:
        if entry.citation:
            told = f"{entry.citation}. {entry.remark}".removesuffix(". ")
            cited.setdefault(told, []).append(entry.name)
    told_of = {", ".join(names): told for told, names in cited.items()}
    return facts_sheet(told_of, "How to cite them, and what to know of getting them")


def identity_sheet(document: Mapping[str, Any]) -> Sheet:
    """What a stored result was computed from, and what its networks are made of."""
    parts = [("", document.get("content", {}))]
    names = [document["config"].get(name) for name in NETWORKS]
    named = [str(name) for name in names if name]
    parts += zip(named, document.get("identities", []), strict=False)
    records = [
        {"of": name, "part": part, "digest": digest}
        for name, digests in parts
        for part, digest in sorted(digests.items())
    ]
    columns = [
        Column(name, kind="text", keep=True) for name in ("of", "part", "digest")
    ]
    return Sheet(records, columns, f"Result {document['config_id']}", by=("of",))


def built_sheet(table: "BuiltTable") -> Sheet:
    """A table of the paper, as it is printed."""
    records = [
        {str(name): cell for name, cell in row.items()}
        for row in table.shown.to_dict("records")
    ]
    columns = [
        Column(str(name), str(name), keep=True, kind="number" if right else "text")
        for name, right in zip(table.shown, to_the_right(table), strict=True)
    ]
    return Sheet(records, columns, table.title, notes=[table.caption, *table.notes])


def plugins_sheet(checked: "Sequence[PluginCheck]") -> Sheet:
    """Each different finding once, with the plugins that have it; faults first."""
    found: dict[tuple[Severity, str, str], list[tuple[str, str]]] = {}
    for result in checked:
        for finding in result.findings:
            key = (finding.severity, finding.check, finding.message)
            line = f":{finding.line}" if finding.line else ""
            place = f"{finding.file or ''}{line}"
            found.setdefault(key, []).append((result.plugin, place))
    n_ran = sum(result.ran for result in checked)
    n_sound = sum(result.n_faults == 0 for result in checked)
    order = ("fault", "warning", "note")
    records = []
    for key in sorted(found, key=lambda key: (order.index(key[0]), key[1])):
        severity, check, message = key
        plugins, places = zip(*found[key], strict=True)
        which = named_some(plugins)
        if len(plugins) == len(checked) > 1:
            which = "all"
        # A place is shown where it is the same in all plugins.
        place = f" ({places[0]})" if len({*places}) == 1 and places[0] else ""
        records.append(
            {
                "severity": severity,
                "check": check,
                "plugins": len(plugins),
                "which": which,
                "finding": message + place,
            }
        )
    columns = (
        *(Column("severity", keep=True), Column("check", keep=True)),
        *(Column("plugins", keep=True), Column("which", kind="text", keep=True)),
        Column("finding", kind="text", keep=True),
    )
    title = f"{len(checked)} plugins, {n_ran} run: {n_sound} without faults"
    return Sheet(records, columns, title)
