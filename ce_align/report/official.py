"""Scores of Brain-Score's own benchmark objects as tables for the terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from ce_align.stages.official import OfficialRow
    from ce_align.stages.score import ScoreRow

__all__ = ["comparison_tables", "official_tables"]

#: The numbers that both paths give, and how tables call them.
NUMBERS = {"value": "score", "raw": "raw r", "error": "± error", "ceiling": "ceiling"}

#: Why ceilings differ.
VARIANCE = (
    "repetitions are unequal: our ceiling is from their variance; --ceiling split-half "
    "is Brain-Score's"
)


def _tables(
    rows: "Sequence[OfficialRow]", columns: Sequence[str]
) -> "Iterator[tuple[Table, list[OfficialRow]]]":
    """An empty table for each recording, and its rows."""
    for recording in dict.fromkeys(row.recording for row in rows):
        group = [row for row in rows if row.recording == recording]
        title = (
            f"{recording}: {group[0].benchmark} of brainscore-vision "
            f"{group[0].brainscore}"
        )
        table = Table(title=title, title_justify="left")
        for name in columns:
            table.add_column(name, overflow="fold")
        for name in NUMBERS.values():
            table.add_column(name, justify="right", no_wrap=True)
        yield table, group


def _shown(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def official_tables(rows: "Sequence[OfficialRow]") -> Iterator[Table]:
    """A table of Brain-Score's numbers for each recording."""
    for table, group in _tables(rows, ("model", "layer")):
        for row in group:
            numbers = (_shown(getattr(row, name), ".4f") for name in NUMBERS)
            table.add_row(row.model, row.layer, *numbers)
        _caption(table, [f"{r.model} {r.layer}: {r.note}" for r in group if r.note])
        yield table


def _caption(table: Table, lines: Sequence[str]) -> None:
    """Write what a reader must know below a table, each thing once."""
    if lines:
        table.caption = Text("\n".join(dict.fromkeys(lines)))
        table.caption_justify = "left"


def comparison_tables(
    ours: "Sequence[ScoreRow]", official: "Sequence[OfficialRow]"
) -> Iterator[Table]:
    """A table for each recording: our numbers, Brain-Score's, and the difference."""
    by_name = {(row.model, row.recording, row.layer): row for row in ours}
    for table, group in _tables(official, ("model", "layer", "by")):
        for row in group:
            own = by_name[row.model, row.recording, row.layer]
            pairs = [(getattr(own, name), getattr(row, name)) for name in NUMBERS]
            table.add_row(
                *(row.model, row.layer, "ce-align"),
                *(_shown(a, ".6f") for a, _ in pairs),
            )
            table.add_row("", "", "Brain-Score", *(_shown(b, ".6f") for _, b in pairs))
            differences = [None if a is None or b is None else a - b for a, b in pairs]
            table.add_row(
                *("", "", "difference"),
                *(_shown(d, ".1e") for d in differences),
                end_section=True,
            )
        kinds = {
            by_name[row.model, row.recording, row.layer].ceiling_kind for row in group
        }
        _caption(table, [VARIANCE] if "variance" in kinds else [])
        yield table
