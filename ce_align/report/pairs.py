"""Tables of networks in pairs: what each explains, and which predicts better."""

from collections.abc import Iterator, Sequence

from ce_align.checks import counted
from ce_align.report.columns import (
    NEUROIDS,
    ORIGIN,
    STIMULI,
    Record,
    interval_column,
    notes_of,
    probability,
    split,
)
from ce_align.report.sheet import Column, Sheet

__all__ = ["compare_sheets", "overlap_sheets", "unique_sheets"]

PARTS = {"overlap_difference": "difference, a − b"}
OVERLAP = (
    Column("a", fact="a: {value}", head="a: {value}"),
    Column("b", fact="b: {value}", head="b: {value}"),
    Column("metric", "part", lambda part: PARTS.get(part, part[8:]), keep=True),
    Column("value", "R²", ".4f", kind="number", keep=True),
    interval_column("ci", "95 % interval", "low", "high"),
    Column("p", form=probability, kind="number", known=True),
    *(Column("interval", "over"), NEUROIDS, STIMULI),
    *(Column("region"), ORIGIN, Column("seed", extra=True)),
)


def overlap_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """Parts of the explained variance, mean over neuroids, of pairs of networks."""
    for (recording,), group in split(records, "recording"):
        named = [
            {
                **record,
                "a": f"{record['label']} {record['layer']}",
                "b": f"{record['other_label']} {record['other_layer']}",
            }
            for record in group
        ]
        title = f"{recording}: explained variance, mean over neuroids"
        yield Sheet(named, OVERLAP, title, by=("a", "b"), notes_of=notes_of)


UNIQUE = (
    Column("label", "network", keep=True),
    Column("layer"),
    Column("value", "unique R²", ".4f", kind="number", keep=True),
    interval_column("ci", "95 % interval", "low", "high"),
    Column("p", form=probability, kind="number", known=True),
    Column("part", "part of joint", ".4f", kind="number"),
    Column("alone", "alone", ".4f", kind="number"),
    Column("joint", "joint R²", ".4f", fact="all together {value}"),
    *(Column("interval", "over"), NEUROIDS, STIMULI),
    *(Column("region"), ORIGIN, Column("seed", extra=True)),
)


def unique_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """What each network adds to all others, of those that were regressed together."""
    for (recording, _), group in split(records, "recording", "among"):
        n = group[0]["n_networks"]
        title = f"{recording}: what each of {n} networks adds, mean over neuroids"
        note = "unique: R² of all networks minus that of all others; parts sum to joint"
        yield Sheet(group, UNIQUE, title, notes=[note], notes_of=notes_of)


#: A pair with a smaller false discovery rate is told apart.
LEVEL = 0.05
#: Of what a comparison is the difference.
COMPARED = {"difference_raw": "raw r", "difference_score": "score"}
COMPARE = (
    Column("a", fact="a: {value}", head="a: {value}"),
    Column("b", keep=True),
    Column("model_value", "of a", ".4f", kind="number", keep=True),
    Column("other_value", "of b", ".4f", kind="number", keep=True),
    Column("value", "a − b", "+.4f", kind="number", keep=True),
    interval_column("ci", "95 % interval", "low", "high", "+.4f"),
    Column("p", form=probability, kind="number", known=True),
    Column("q", form=probability, kind="number", known=True),
    Column("verdict", "apart", keep=True),
    *(Column("interval", "over", fact="over {value}"), NEUROIDS, STIMULI),
    *(Column("regression"), Column("region"), ORIGIN, Column("seed", extra=True)),
)


def compare_sheets(records: Sequence[Record]) -> Iterator[Sheet]:
    """Differences of networks in pairs, with what is sure of them."""
    for (recording, metric), group in split(records, "recording", "metric"):
        named = [
            {
                **record,
                "a": f"{record['label']} {record['layer']}",
                "b": f"{record['other_label']} {record['other_layer']}",
                "verdict": "yes" if record["q"] < LEVEL else "no",
            }
            for record in group
        ]
        n = named[0]["n_pairs"]
        title = f"{recording}: difference of {COMPARED.get(metric, metric)}, a − b"
        family = [f"q: false discovery rate over {counted(n, 'pair')}"]
        n_apart = sum(record["verdict"] == "yes" for record in named)
        notes = [
            *family,
            f"{n_apart or 'none'} of {counted(n, 'pair')} told apart by these stimuli "
            f"and neuroids (q < {LEVEL:g})",
        ]
        yield Sheet(named, COMPARE, title, by=("a",), notes=notes, notes_of=notes_of)
