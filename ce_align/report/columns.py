"""Columns and words that tables of several stages share."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from ce_align.report.sheet import Column

__all__ = [
    *("LAYER", "MODEL", "NEUROIDS", "ORIGIN", "STIMULI", "Record"),
    *("interval_column", "named", "notes_of", "probability", "split"),
]

Record = Mapping[str, Any]

MODEL = Column("label", "network", keep=True)
LAYER = Column("layer")
ORIGIN = Column("origin", "data", fact="{title} {value}")
STIMULI = Column("n_stimuli", "stimuli", fact="{value} stimuli")
NEUROIDS = Column("n_neuroids", "neuroids", fact="{value} neuroids")


def interval_column(
    name: str, title: str, low: str, high: str, form: str = ".4f"
) -> Column:
    """The column of an interval between two fields."""

    def shown(record: Record) -> str | None:
        bounds = [record.get(low), record.get(high)]
        if any(bound is None or bound != bound for bound in bounds):
            return None
        return f"[{bounds[0]:{form}}, {bounds[1]:{form}}]"

    return Column(name, title, of=shown, kind="number", known=True)


def probability(value: float) -> str:
    """A p or q: one that four digits cannot tell from 0 is not 0."""
    return "<0.0001" if 0 <= value < 5e-5 else f"{value:.4f}"


def notes_of(record: Record) -> list[str]:
    """What a row says of itself, and why it is left out of tables and figures."""
    note, left_out = record.get("note"), record.get("left_out")
    found = note.split("; ") if isinstance(note, str) and note else []
    return [*found, f"not in tables and figures: {left_out}"] if left_out else found


def named(field: str, records: Iterable[Record]) -> list[Any]:
    """Different values of a field, in order."""
    return list(dict.fromkeys(record.get(field) for record in records))


def split(
    records: Sequence[Record], *fields: str
) -> Iterator[tuple[tuple[Any, ...], list[Record]]]:
    """Records of each combination of values, in order of the first of each."""
    found: dict[tuple[Any, ...], list[Record]] = {}
    for record in records:
        found.setdefault(tuple(map(record.get, fields)), []).append(record)
    yield from found.items()
