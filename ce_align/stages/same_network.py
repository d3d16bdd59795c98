"""Which rows are of one network: its digest says so, its name does not.

A name is a place: who trains again in the same folder has another network there. Every
table, figure and correlation takes its rows from `resolve_networks`, so that the scores
of one network never meet the measures of another.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import named_some
from ce_align.models.catalogue import label_of
from ce_align.results import FACTS, LABELLED, UNKNOWN_CONTENT, NetworkFacts, ResultStore
from ce_align.stages.comparable import algorithm_of
from ce_align.stages.earlier import completed, stored_documents, stored_rows

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("Resolved", "identity", "load_rows", "reasons_left_out", "resolve_networks"),
]

#: Columns that name a network, and those that say which one it was.
IDENTITIES = (
    ("model", "model_digest"),
    ("other", "other_digest"),
    ("baseline", "baseline_digest"),
)

#: What rows of a stage are called, and what computes them.
STAGES = {
    "score": ("scores", "ce-align score"),
    "analyze": ("measures", "ce-align analyze"),
    "compare": ("comparisons", "ce-align compare"),
    "overlap": ("overlaps", "ce-align overlap"),
    "unique": ("unique parts", "ce-align unique"),
    "similarity": ("similarities", "ce-align similarity"),
    "transfer": ("accuracies", "ce-align transfer"),
    "train": ("numbers of its training", "ce-align train"),
    "official": ("scores of Brain-Score's own benchmark", "ce-align score --official"),
}

#: Why a row does not count.
OLDER, OTHER_BASELINE, UNKNOWN_BASELINE = "older", "other baseline", "unknown baseline"
OF_OLDER = "of older networks"
#: The same in a few words, beside such a row.
WORDS = {
    OLDER: "an older network of this name",
    OTHER_BASELINE: "an older baseline of this name",
    UNKNOWN_BASELINE: "which baseline is not known",
    OF_OLDER: "of older networks",
}


@dataclass(frozen=True, eq=False)
class Resolved:
    """Rows whose names of networks can be trusted.

    Attributes
    ----------
    rows : those that count; columns ``model``, ``other`` and ``baseline`` name each
        network in one way
    left_out : the rest, with columns ``why`` and ``whose``: the name at fault
    aliases : names of one network, the one that is used last
    digests : of the networks that count, by name
    ambiguous : names that several networks had
    facts : of the networks that rows are of, by name
    """

    rows: "pd.DataFrame"
    left_out: "pd.DataFrame"
    aliases: tuple[tuple[str, ...], ...]
    digests: dict[str, str]
    ambiguous: frozenset[str]
    facts: dict[str, NetworkFacts] = field(default_factory=dict)

    def notes(
        self,
        *stages: str,
        where: "Callable[[pd.DataFrame], pd.Series[bool]] | None" = None,
    ) -> list[str]:
        """What was left out or merged, in sentences.

        Parameters
        ----------
        stages : whose rows are shown
        where : which of them
        """
        kept, gone = (
            _chosen(rows, stages, where) for rows in (self.rows, self.left_out)
        )
        return [
            *_older_notes(kept, gone[gone["why"] == OLDER]),
            *_baseline_notes(gone),
            *_correlation_notes(gone[gone["why"] == OF_OLDER]),
            *_imported_notes(kept, self.ambiguous),
            *_alias_notes(self.aliases, kept),
        ]


def load_rows(
    store: ResultStore, runs: Iterable[Path] = (), *, sound: bool = False
) -> "pd.DataFrame":
    """Every row of a store, and those of the trainings that its rows name.

    Column ``algorithm`` is that of `ce_align.stages.comparable.algorithm_of`.

    Parameters
    ----------
    store : results
    runs : further folders of trainings
    sound : leave out files that cannot be read, which `store.failures` lists

    Raises
    ------
    DataError
        If a file cannot be read, unless `sound`.
    """
    import pandas as pd

    documents = stored_documents(store, sound=sound)
    rows = pd.DataFrame(
        [
            {**row, "algorithm": algorithm_of(document)}
            for document in documents
            for row in document["rows"]
        ]
    )
    named = map(Path, rows["model"].unique() if len(rows) else ())
    trained = [
        pd.DataFrame(stored_rows(ResultStore(folder), "train", sound=sound))
        for folder in dict.fromkeys([*runs, *named])
        if (folder / "train").is_dir()
    ]
    # One that is in the results as well counts once.
    rows = pd.concat([rows, *trained], ignore_index=True)
    if trained and len(rows):
        identity = ["stage", "model", "metric", "config_id"]
        again = rows["stage"].eq("train") & rows.duplicated(identity)
        rows = rows[~again]
    return rows.reset_index(drop=True)


def resolve_networks(rows: "pd.DataFrame") -> Resolved:
    """Rows that count: of each name its latest network, of each network one name.

    Of several networks that had one name, that of the latest row counts; rows of the
    others are left out, and so are differences from a baseline that no longer has its
    name. One network that had several names is counted once, by its latest. Rows
    without a digest, as of imported scores, are known by their name alone. What one row
    says of how its network came to be, all of that network say.

    Parameters
    ----------
    rows : of any stages, with the columns of `ce_align.results.Row`
    """
    import pandas as pd

    if rows.empty:
        return Resolved(rows, rows.assign(why=None, whose=None), (), {}, frozenset())
    rows = completed(rows.reset_index(drop=True).astype({"model": object}))
    rows = rows.assign(**_given_labels(rows))
    digests = {name: _digests(rows, name, digest) for name, digest in IDENTITIES}
    if "note" in rows:
        digests = _by_name_too(rows, digests)
    told = set(rows["model"][rows["objective"].notna()])
    register = _Register.of(_seen(rows, digests), told)
    why: list[str | None] = [None] * len(rows)
    whose: list[str | None] = [None] * len(rows)
    named = rows
    for column, found in digests.items():
        if column not in rows:
            continue
        names: list[object] = []
        for place, name in enumerate(rows[column]):
            known, reason = register.judge(name, found[place], column)
            names.append(known)
            if reason is not None and why[place] is None:
                why[place], whose[place] = reason, name
        named = named.assign(**{column: np.array(names, dtype=object)})
    if "networks" in rows:
        known_digests = rows.get("network_digests", pd.Series(None, rows.index))
        for place, pair in enumerate(zip(rows["networks"], known_digests, strict=True)):
            if changed := register.changed(*pair):
                why[place], whose[place] = OF_OLDER, named_some(changed)
    counts = np.array([reason is None for reason in why], dtype=bool)
    # What is left out keeps the names that it has.
    gone = rows.assign(why=np.array(why), whose=np.array(whose))[~counts]
    used = {name: _plain(digest) for digest, name in register.name_of.items()}
    kept, facts = _shared_facts(named[counts])
    return Resolved(kept, gone, register.aliases, used, register.ambiguous, facts)


def _given_labels(rows: "pd.DataFrame") -> "dict[str, pd.Series[Any]]":
    """Labels that do not follow from the names that networks had."""
    found = {}
    for column, name in LABELLED.items():
        if column in rows:
            by_rule = rows[name].map(label_of, na_action="ignore")
            found[column] = rows[column].astype(object).where(rows[column] != by_rule)
    return found


def _shared_facts(
    rows: "pd.DataFrame",
) -> "tuple[pd.DataFrame, dict[str, NetworkFacts]]":
    """Rows of which each says what any of its network says, the latest first."""
    import pandas as pd

    in_time = rows.sort_values("created", kind="stable")
    columns: dict[str, pd.Series[Any]] = {}
    known: dict[str, dict[str, Any]] = {}
    for name in FACTS:
        for role in ("other", "baseline"):
            if f"{role}_{name}" in rows:
                pairs = rows[[role, f"{role}_{name}"]].dropna()
                for model, value in pairs.itertuples(index=False):
                    known.setdefault(model, {})[name] = value
        said = in_time.dropna(subset=[name]).drop_duplicates("model", keep="last")
        by_name = dict(zip(said["model"], said[name], strict=True))
        for model, value in by_name.items():
            known.setdefault(model, {})[name] = value
        # Objects, lest a number of epochs become 8.0 where another is missing.
        columns[name] = pd.Series(
            [by_name.get(model) for model in rows["model"]], rows.index, dtype=object
        )
    for column, name in LABELLED.items():
        if name in rows:
            for model in rows[name].dropna().unique():
                known.setdefault(model, {}).setdefault("label", label_of(model))
            columns[column] = rows[name].map(
                lambda model: known[model]["label"], na_action="ignore"
            )
    return rows.assign(**columns), {k: NetworkFacts(**v) for k, v in known.items()}


@dataclass(frozen=True)
class _Register:
    """Which network has each name, and which name each network that is in use.

    Attributes
    ----------
    latest : digest by name
    name_of : name by digest
    ambiguous : names that several networks had
    aliases : names of one network, its own last
    """

    latest: dict[str, str]
    name_of: dict[str, str]
    ambiguous: frozenset[str]
    aliases: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, seen: Sequence[tuple[str, str]], told: set[str]) -> "_Register":
        """From names and digests, in the order in which they were last seen.

        Of several names of one network, those `told` how it was trained are preferred.
        """
        latest = dict(seen)
        current: dict[str, list[str]] = {}
        every: dict[str, list[str]] = {}
        for name, digest in seen:
            every.setdefault(digest, []).append(name)
            if latest[name] == digest:
                current.setdefault(digest, []).append(name)
        name_of = {digest: _preferred(names, told) for digest, names in current.items()}
        return cls(
            latest,
            name_of,
            frozenset(
                n for n, times in Counter(n for n, _ in seen).items() if times > 1
            ),
            tuple(
                (*(n for n in every[digest] if n != name), name)
                for digest, name in name_of.items()
                if len(every[digest]) > 1
            ),
        )

    def judge(
        self, name: str, digest: str | None, column: str
    ) -> tuple[str, str | None]:
        """The name of a row's network, or why the row does not count."""
        if digest is None:
            unclear = column == "baseline" and name in self.ambiguous
            known = self.name_of[self.latest[name]] if name in self.latest else name
            return known, UNKNOWN_BASELINE if unclear else None
        if digest in self.name_of:
            return self.name_of[digest], None
        return name, OTHER_BASELINE if column == "baseline" else OLDER

    def changed(self, names: object, digests: object) -> list[str]:
        """Of networks that were correlated, those whose names stand for others now.

        Without digests, as in rows of ce_align 0.1, those that several networks had.
        """
        if not isinstance(names, list | tuple):
            return []
        if not isinstance(digests, list | tuple) or not digests:
            return [name for name in names if name in self.ambiguous]
        current = {_plain(digest) for digest in self.name_of}
        pairs = zip(names, digests, strict=True)
        return [name for name, one in pairs if one and one not in current]


def identity(row: Mapping[Any, Any]) -> tuple[str, ...]:
    """What tells a stored row from all others."""
    names = ("config_id", "model", "metric", "measure", "recording", "animal")
    found = [row.get(name) for name in names]
    return tuple(value if isinstance(value, str) else "" for value in found)


def reasons_left_out(rows: "pd.DataFrame") -> dict[tuple[str, ...], str]:
    """Why rows are in no table and no figure, in a few words, by their identity."""
    left_out = resolve_networks(rows).left_out
    return {identity(row): WORDS[row["why"]] for row in left_out.to_dict("records")}


def _digests(rows: "pd.DataFrame", name: str, digest: str) -> list[str | None]:
    """Digest of each row's network, None where none is known."""
    if name not in rows or digest not in rows:
        return [None] * len(rows)
    values = rows[digest]
    if digest == "model_digest" and "stage" in rows:
        # ce_align 0.1 wrote that of the network at another size of its input.
        plain = rows["plain_digest"].eq(True) if "plain_digest" in rows else False
        values = values.where(rows["stage"].ne("transfer") | plain)
    return [
        str(value) if isinstance(value, str) and value and isinstance(of, str) else None
        for value, of in zip(values, rows[name], strict=True)
    ]


def _by_name_too(
    rows: "pd.DataFrame", digests: dict[str, list[str | None]]
) -> dict[str, list[str | None]]:
    """Digests, with the name where a digest cannot tell all that a network holds.

    Two such networks of one digest may differ, so those of two names are not merged.
    """
    pairs = zip(digests["model"], rows["note"], strict=True)
    partly = {
        d for d, note in pairs if isinstance(note, str) and UNKNOWN_CONTENT in note
    }
    return {
        column: [
            f"{digest}\n{name}" if digest is not None and digest in partly else digest
            for digest, name in zip(found, rows.get(column, found), strict=True)
        ]
        for column, found in digests.items()
    }


def _plain(digest: str) -> str:
    return digest.partition("\n")[0]


def _seen(
    rows: "pd.DataFrame", digests: dict[str, list[str | None]]
) -> list[tuple[str, str]]:
    """Every name with every network that had it, by the time of its latest row."""
    created = list(rows["created"].map(str))
    if "imported_from" in rows:  # when a file was read says nothing of the network
        imported = rows["imported_from"].notna()
        created = ["" if n else at for n, at in zip(imported, created, strict=True)]
    last: dict[tuple[str, str], str] = {}
    for column, found in digests.items():
        names = rows.get(column, ())
        for name, digest, at in zip(names, found, created, strict=False):
            if digest is not None:
                last[name, digest] = max(at, last.get((name, digest), ""))
    return sorted(last, key=lambda pair: last[pair])


def _preferred(names: Sequence[str], told: set[str]) -> str:
    """The latest name, among those whose rows say how the network was trained."""
    return ([name for name in names if name in told] or names)[-1]


def _chosen(
    rows: "pd.DataFrame",
    stages: Sequence[str],
    where: "Callable[[pd.DataFrame], pd.Series[bool]] | None",
) -> "pd.DataFrame":
    if stages and "stage" in rows:
        rows = rows[rows["stage"].isin(stages)]
    return rows[where(rows)] if where is not None and len(rows) else rows


def _older_notes(kept: "pd.DataFrame", gone: "pd.DataFrame") -> list[str]:
    notes = []
    by_count: dict[int, list[str]] = {}
    again: dict[str, list[str]] = {}
    for whose, rows in gone.groupby("whose", sort=True):
        by_count.setdefault(len(rows), []).append(str(whose))
        there = kept[kept["model"] == whose]
        for stage in dict.fromkeys(rows.get("stage", ())):
            if stage in STAGES and stage not in set(there["stage"]):
                again.setdefault(stage, []).append(str(whose))
    for n, names in by_count.items():
        of = "1 row of an older network" if n == 1 else f"{n} rows of older networks"
        notes.append(f"{named_some(names)}: {of} of this name left out.")
    for stage, names in again.items():
        what, command = STAGES[stage]
        notes.append(
            f"{named_some(names)}: the latest network of this name has no {what}; run "
            f"`{command}` for it."
        )
    return notes


def _baseline_notes(gone: "pd.DataFrame") -> list[str]:
    notes = []
    words = {
        OTHER_BASELINE: "differences from an older network of the name {} left out",
        UNKNOWN_BASELINE: "differences left out that do not say from which of several "
        "networks called {}",
    }
    for why, sentence in words.items():
        for whose, found in gone[gone["why"] == why].groupby("whose", sort=True):
            names = named_some(sorted(set(found["model"])))
            notes.append(
                f"{names}: {sentence.format(whose)}; run `ce-align analyze` again."
            )
    return notes


def _correlation_notes(gone: "pd.DataFrame") -> list[str]:
    return [
        f"{len(rows)} correlations are of older networks of the names {whose} and left "
        "out; run `ce-align correlate` again."
        for whose, rows in gone.groupby("whose", sort=True)
    ]


def _imported_notes(kept: "pd.DataFrame", ambiguous: frozenset[str]) -> list[str]:
    if "imported_from" not in kept:
        return []
    unsaid = kept["imported_from"].notna() & kept["model"].isin(list(ambiguous))
    if "model_digest" in kept:
        unsaid &= kept["model_digest"].isna()
    names = list(dict.fromkeys(kept["model"][unsaid]))
    if not names:
        return []
    return [
        f"{named_some(names)}: imported scores do not say of which network of this "
        "name; they are taken for the latest's."
    ]


def _alias_notes(aliases: Iterable[tuple[str, ...]], kept: "pd.DataFrame") -> list[str]:
    used = {
        name for name, _ in IDENTITIES if name in kept for name in kept[name].dropna()
    }
    found = []
    for *others, name in aliases:
        # A path as it is seen from another folder is no other name.
        others = [other for other in others if not _same_path(other, name)]
        if others and name in used:
            found.append([*others, name])
    if len(found) > 1:
        once = named_some([names[-1] for names in found])
        return [f"{len(found)} networks have several names, counted once as {once}."]
    return [
        f"{' and '.join(names)} are one network, counted once as {names[-1]}."
        for names in found
    ]


def _same_path(one: str, other: str) -> bool:
    """Whether one is an absolute path, and the other its end."""
    pairs = ((Path(one), Path(other)), (Path(other), Path(one)))
    return any(
        whole.is_absolute() and whole.parts[-len(end.parts) :] == end.parts
        for whole, end in pairs
    )
