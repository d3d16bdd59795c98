"""Tables of the page: numbers with the place that each of them comes from."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ce_align.report.html_sources import Finder, Source, StoredRow, is_telling
from ce_align.stages.same_network import identity

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "Cell",
    "PageTable",
    "data_table",
    "printed_table",
    "rows_table",
    "setting_text",
]

#: Columns that provenance shows, not the table of rows.
PROVENANCE = {"config_id", "version", "created"}

#: Columns that a table keeps where all its rows agree.
KEPT = ("model", "value")

#: Lines of a figure's data that the page shows at most.
MOST_LINES = 300

NUMBER = re.compile(r"[-−+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?")


@dataclass(frozen=True)
class Cell:
    """One cell: its text, what it is sorted by, and the anchor of its origin."""

    text: str
    key: str = ""
    anchor: str | None = None
    number: bool = False


@dataclass(frozen=True)
class PageTable:
    """A table.

    Attributes
    ----------
    columns : headings, and whether the column holds numbers
    lines : anchor of each line (or None) and its cells
    shared : what is the same in every line and has no column
    n_more : lines that are not shown
    """

    columns: tuple[tuple[str, bool], ...]
    lines: tuple[tuple[str | None, tuple[Cell, ...]], ...]
    shared: tuple[tuple[str, str], ...] = ()
    n_more: int = 0


def rows_table(
    sources: Sequence[Source], left_out: Mapping[tuple[str, ...], str] | None = None
) -> PageTable:
    """All rows of one stage; each value leads to its provenance.

    Parameters
    ----------
    sources : of the stage
    left_out : why a row does not count, by its `identity`
    """
    rows = [
        (source, _with_reason(row, left_out or {}))
        for source in sources
        for row in source.rows
    ]
    names = [
        name
        for name in dict.fromkeys(name for _, row in rows for name in row.values)
        if name not in PROVENANCE
        and not name.endswith("_digest")
        and not any(isinstance(row.values.get(name), list) for _, row in rows)
    ]
    first = ("model", "metric", "value")
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    texts = {n: {_text(row.values.get(n)) for _, row in rows} for n in names}
    alike = [n for n in names if n not in KEPT and len(texts[n]) == 1 and len(rows) > 1]
    shared = tuple((n, setting_text(rows[0][1].values.get(n))) for n in alike)
    names = [name for name in names if name not in alike]
    lines = tuple(
        (
            row.anchor,
            tuple(
                _cell(row.values.get(n), source.anchor if n == "value" else None)
                for n in names
            ),
        )
        for source, row in rows
    )
    return PageTable(_columns(names, lines), lines, shared)


def _with_reason(row: StoredRow, left_out: Mapping[tuple[str, ...], str]) -> StoredRow:
    key = identity(row.values)
    if key not in left_out:
        return row
    return replace(row, values={**row.values, "left_out": left_out[key]})


def data_table(frame: "pd.DataFrame", finder: Finder) -> PageTable:
    """Numbers behind a table or figure; those that are stored lead to their rows."""
    names = list(map(str, frame.columns))
    lines = []
    for values in frame.head(MOST_LINES).itertuples(index=False, name=None):
        cells = tuple(_cell(value, finder.anchor(value, values)) for value in values)
        lines.append((None, cells))
    shown = tuple(lines)
    return PageTable(
        _columns(names, shown), shown, n_more=max(0, len(frame) - MOST_LINES)
    )


def printed_table(
    shown: "pd.DataFrame", frame: "pd.DataFrame", finder: Finder, fallback: str
) -> PageTable:
    """A table as it is printed.

    Parameters
    ----------
    shown : text
    frame : the numbers behind
    finder : of stored rows
    fallback : anchor for a number whose row is not unique
    """
    names = list(map(str, shown.columns))
    numbers = list(frame.itertuples(index=False, name=None))
    lines = []
    for values in shown.itertuples(index=False, name=None):
        cells = []
        for name, value in zip(names, values, strict=True):
            text = _text(value)
            found = NUMBER.match(text)
            anchor = None
            measured = "." in text[1:] or " of " in text
            if found and measured and name != names[0]:
                told = (name, *map(str, values))
                anchor = _rounded(found[0], told, numbers, finder) or fallback
            key = found[0].replace("−", "-") if found else text
            cells.append(Cell(text, key, anchor, bool(found)))
        lines.append((None, tuple(cells)))
    return PageTable(_columns(names, lines), tuple(lines))


def _rounded(
    text: str,
    names: Sequence[str],
    numbers: Iterable[tuple[Any, ...]],
    finder: Finder,
) -> str | None:
    """Row of the one number that is printed as `text` beside these names."""
    digits = len(text.partition(".")[2])
    wanted = {_plain(name) for name in names}
    found: dict[int, set[str]] = {}
    for line in numbers:
        shared = len(wanted & {_plain(v) for v in line if isinstance(v, str)})
        for value in line:
            if not is_telling(value):
                continue
            # Shares of 1 may be printed in percent.
            printed = {f"{scale * value:.{digits}f}" for scale in (1, 100)}
            if text.replace("−", "-") in printed:
                anchor = finder.anchor(value, line)
                if anchor:
                    found.setdefault(shared, set()).add(anchor)
    best = found[max(found)] if found else set()
    return best.pop() if len(best) == 1 else None


def _plain(name: str) -> str:
    """A name without what distinguishes how it is written from how it is stored."""
    return re.sub(r"\W+|_+", "_", name.lower())


def _columns(
    names: Sequence[str], lines: "Sequence[tuple[str | None, tuple[Cell, ...]]]"
) -> tuple[tuple[str, bool], ...]:
    """Headings; a column holds numbers if any cell does and none is other text."""
    found = []
    for place, name in enumerate(names):
        cells = [cells[place] for _, cells in lines if cells[place].text != "–"]
        found.append((name, bool(cells) and all(cell.number for cell in cells)))
    return tuple(found)


def _cell(value: object, anchor: str | None = None) -> Cell:
    text = _text(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and text != "–":
        return Cell(text, repr(float(value)), anchor, True)
    return Cell(text, "" if text == "–" else text, anchor)


def _text(value: object) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        text = str(int(value)) if value.is_integer() else _significant(value)
        return f"−{text[1:]}" if text.startswith("-") else text
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def _significant(value: float) -> str:
    """Four digits after the point, or four that count for small numbers."""
    return f"{value:.4f}" if 0.001 <= abs(value) < 1e5 else f"{value:.3g}"


def setting_text(value: object) -> str:
    """A setting, without the digits that measurements have."""
    return f"{value:g}" if isinstance(value, float) else _text(value)
