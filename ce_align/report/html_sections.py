"""Tables and figures as parts of the page."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ce_align.errors import CeAlignError
from ce_align.progress import Progress, silent
from ce_align.report.html_sources import Finder
from ce_align.report.html_svg import inline_svg
from ce_align.report.html_tables import PageTable, data_table, printed_table
from ce_align.report.material import Material
from ce_align.report.origins import mark_of
from ce_align.report.paper import FIGURES, TABLES, build_table, draw
from ce_align.report.style import svg_text

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Section", "make_sections"]


@dataclass(frozen=True)
class Section:
    """A figure (with `svg`) or a table (with `printed`) of the page.

    A figure is there twice, `narrow` of one column for the screen of a phone.
    """

    anchor: str
    name: str
    title: str
    mark: str
    caption: str
    notes: Sequence[str]
    data: PageTable
    svg: str = ""
    narrow: str = ""
    printed: PageTable | None = None


def make_sections(
    material: Material, finder: Finder, progress: Progress = silent
) -> tuple[list[Section], list[tuple[str, str]]]:
    """Figures and tables, and the reasons of those that there are not."""
    total = len(FIGURES) + len(TABLES)
    found: list[Section] = []
    missing: list[tuple[str, str]] = []
    kinds = (("Figure", FIGURES, _figure), ("Table", TABLES, _table))
    for what, names, make in kinds:
        for key in names:
            progress("tables and figures", len(found) + len(missing), total)
            name = f"{what} {key}" if key.isdigit() else key.capitalize()
            try:
                found.append(make(key, name, material, finder))
            except CeAlignError as reason:
                missing.append((name, str(reason)))
    progress("tables and figures", total, total)
    return found, missing


def _figure(key: str, name: str, material: Material, finder: Finder) -> Section:
    drawn, narrow = draw(key, material), draw(key, material, columns=1)
    # The page says them in letters that can be read on any screen.
    for figure in (drawn.figure, narrow.figure):
        _remove_notes(figure)
    anchor = f"figure-{key}"
    words = drawn.title, drawn.alt
    return Section(
        anchor,
        name,
        drawn.title,
        _mark(drawn.data, material),
        drawn.caption,
        drawn.notes,
        svg=inline_svg(svg_text(drawn.figure), anchor, *words),
        narrow=inline_svg(svg_text(narrow.figure), f"{anchor}-narrow", *words),
        data=data_table(drawn.data, finder),
    )


def _table(key: str, name: str, material: Material, finder: Finder) -> Section:
    built = build_table(key, material)
    anchor = f"table-{key}"
    return Section(
        anchor,
        name,
        built.title,
        _mark(built.frame, material),
        built.caption,
        built.notes,
        printed=printed_table(built.shown, built.frame, finder, f"{anchor}-data"),
        data=data_table(built.frame, finder),
    )


def _mark(data: "pd.DataFrame", material: Material) -> str:
    """Such as SIMULATED DATA; empty if all was measured."""
    origins = {o for cell in data.get("origin", ()) for o in str(cell).split("+")}
    return mark_of(origins, material.remark)


def _remove_notes(figure: "Figure") -> None:
    """Take away what `ce_align.report.style.finish` writes below the axes."""
    layout: Any = figure.get_layout_engine()
    _, bottom, _, share = layout.get()["rect"] if layout else (0, 0, 1, 1)
    if not bottom:
        return
    for text in list(figure.texts):
        if text.get_position()[1] <= bottom:
            text.remove()
    width, height = figure.get_size_inches()
    figure.set_size_inches(width, height * share)
    layout.set(rect=(0, 0, 1, 1))
