"""Tables and figures of the page, as data for its template."""

import base64
import re
from collections.abc import Mapping, Sequence
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple
from xml.etree import ElementTree

from ce_align.errors import CeAlignError
from ce_align.progress import Progress, silent
from ce_align.report.inputs import Inputs
from ce_align.report.page.stored import Source
from ce_align.report.paper import FIGURES, TABLES, build_table, draw
from ce_align.report.paper.overview import network_points
from ce_align.report.style import in_formats
from ce_align.stages.same_network import identity

if TYPE_CHECKING:
    import pandas as pd

    from ce_align.report.paper.items import BuiltTable

__all__ = ["make_parts", "rows_table", "scatter_data", "setting_text"]

#: Where a stored row stands in the page, by the row's `identity`.
Anchors = Mapping[tuple[str, ...], str]

#: Columns that provenance shows, not the table of rows.
PROVENANCE = {"config_id", "version", "created"}
#: Columns of a figure's data that were asked for, not found.
SETTINGS = {"weight", "equivariance_weight", "source"}
#: Columns that a table keeps where all its rows agree.
KEPT = ("model", "value")
#: Lines of a figure's data that the page shows at most.
MOST_LINES = 300

NUMBER = re.compile(r"[-−+]?(?:\d+(?:\.\d+)?|\.\d+)(?:e[-+]?\d+)?")


class Cell(NamedTuple):
    """The text of a cell, what it is sorted by, and the anchor of its origin."""

    text: str
    key: str = ""
    anchor: str | None = None
    number: bool = False


class PageTable(NamedTuple):
    """A table as the template takes it.

    Attributes
    ----------
    columns : headings, and whether the column holds numbers
    lines : anchor of each line (or None) and its cells
    shared : what is the same in every line and has no column
    n_more : lines that are not shown
    """

    columns: list[tuple[str, bool]]
    lines: list[tuple[str | None, list[Cell]]]
    shared: Sequence[tuple[str, str]] = ()
    n_more: int = 0


def make_parts(
    inputs: Inputs, anchors: Anchors, progress: Progress = silent
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[tuple[str, str]]]:
    """Figures, tables, and the reasons of those that there are not.

    A figure is there twice, `narrow` of one column for the screen of a phone.
    """
    figures: list[dict[str, Any]] = []
    tables: list[dict[str, Any]] = []
    missing: list[tuple[str, str]] = []
    # Figure 1 is the schematic of a training.
    trained = inputs.networks.rows["objective"].notna().any()
    figures_of = [key for key in FIGURES if trained or key != "1"]
    keys = [
        *(("figure", key) for key in figures_of),
        *(("table", key) for key in TABLES),
    ]
    for done, (kind, key) in enumerate(keys):
        progress("tables and figures", done, len(keys))
        name = f"{kind.capitalize()} {key}" if key.isdigit() else key.capitalize()
        part: dict[str, Any] = {"anchor": f"{kind}-{key}", "name": name}
        try:
            if kind == "figure":
                figures.append(part | _figure(key, part["anchor"], inputs, anchors))
            else:
                made = build_table(key, inputs)
                printed = _printed_table(made, anchors, f"{part['anchor']}-data")
                data = _data_table(made.frame, anchors)
                tables.append(part | {"made": made, "printed": printed, "data": data})
        except CeAlignError as reason:
            missing.append((name, str(reason)))
    progress("tables and figures", len(keys), len(keys))
    return figures, tables, missing


def _figure(key: str, anchor: str, inputs: Inputs, anchors: Anchors) -> dict[str, Any]:
    # The page itself says the notes, in letters that can be read on any screen.
    made, narrow = (draw(key, inputs, n, notes_below=False) for n in (2, 1))
    words = made.title, made.alt
    svg, pdf = in_formats(made.figure, "svg", "pdf")
    (narrow_svg,) = in_formats(narrow.figure, "svg")
    return {
        "made": made,
        "svg": _inline_svg(svg, anchor, *words),
        "narrow": _inline_svg(narrow_svg, f"{anchor}-narrow", *words),
        "pdf": base64.b64encode(pdf).decode(),
        "data": _data_table(made.data, anchors),
    }


def scatter_data(inputs: Inputs) -> dict[str, Any] | None:
    """Axes and points of the scatter of networks; None if it would have no point."""
    found = network_points(inputs)
    axes = {
        **{key: f"{title}, raw r" for key, title in found.scores.items()},
        **found.measures,
    }
    points = [
        {
            "label": row["label"],
            "model": row["model"],
            "colour": row["colour"],
            "values": {key: row[key] for key in axes if row[key] == row[key]},
        }
        for row in found.frame.to_dict("records")
    ]
    if not any(len(point["values"]) > 1 for point in points):
        return None
    # To begin with, the two axes that most networks share.
    x, y = max(
        product(found.measures or axes, found.scores or axes),
        key=lambda pair: (
            pair[0] != pair[1],
            sum(set(pair) <= set(point["values"]) for point in points),
        ),
    )
    return {"axes": axes, "x": x, "y": y, "points": points}


def rows_table(
    sources: Sequence[Source], left_out: Mapping[tuple[str, ...], str]
) -> PageTable:
    """All rows of one stage; each value leads to its provenance.

    Parameters
    ----------
    sources : of the stage
    left_out : why a row does not count, by its `identity`
    """
    rows = []
    for source in sources:
        for row in source.rows:
            why = left_out.get(identity(row.values))
            values = {**row.values, "left_out": why} if why else row.values
            rows.append((source.anchor, row.anchor, values))
    names = [
        name
        for name in dict.fromkeys(name for *_, values in rows for name in values)
        if name not in PROVENANCE
        and not name.endswith("_digest")
        and not any(isinstance(values.get(name), list) for *_, values in rows)
    ]
    first = ("model", "metric", "value")
    names.sort(key=lambda name: first.index(name) if name in first else len(first))
    shared = []
    for name in [n for n in names if n not in KEPT and len(rows) > 1]:
        if len({_text(values.get(name)) for *_, values in rows}) == 1:
            shared.append((name, setting_text(rows[0][2].get(name))))
            names.remove(name)
    lines: list[tuple[str | None, list[Cell]]] = [
        (line, [_cell(v.get(n), origin if n == "value" else None) for n in names])
        for origin, line, v in rows
    ]
    return _page_table(names, lines, shared)


def _data_table(frame: "pd.DataFrame", anchors: Anchors) -> PageTable:
    """Numbers behind a table or figure; those that are stored lead to their rows."""
    names = [name for name in map(str, frame.columns) if name != "source"]
    lines: list[tuple[str | None, list[Cell]]] = []
    for values in frame.head(MOST_LINES).to_dict("records"):
        anchor = anchors.get(values.get("source", ()))
        cells = [
            _cell(values[n], anchor if _is_measured(n, values[n]) else None)
            for n in names
        ]
        lines.append((None, cells))
    return _page_table(names, lines, n_more=max(0, len(frame) - MOST_LINES))


def _is_measured(name: str, value: object) -> bool:
    """Whether a cell holds a number that was measured, neither a count nor a λ."""
    if not isinstance(value, float) or value != value:
        return False
    return not value.is_integer() and name not in SETTINGS


def _printed_table(made: "BuiltTable", anchors: Anchors, fallback: str) -> PageTable:
    """A table as it is printed.

    Its numbers lead to their stored rows, or to the `fallback` if they are of several.
    """
    names = list(map(str, made.shown.columns))
    sources = made.frame.get("source")
    lines: list[tuple[str | None, list[Cell]]] = []
    for values, behind in zip(
        made.shown.itertuples(index=False, name=None), made.behind, strict=True
    ):
        cells = []
        for name, text in zip(names, values, strict=True):
            found = NUMBER.match(text)
            anchor = None
            if found and name in behind:
                source = () if sources is None else sources.iloc[behind[name]]
                anchor = anchors.get(source, fallback)
            key = found[0].replace("−", "-") if found else text
            cells.append(Cell(text, key, anchor, bool(found)))
        lines.append((None, cells))
    return _page_table(names, lines)


def _page_table(
    names: Sequence[str],
    lines: list[tuple[str | None, list[Cell]]],
    shared: Sequence[tuple[str, str]] = (),
    n_more: int = 0,
) -> PageTable:
    """A column holds numbers if any of its cells does and none is other text."""
    columns = []
    for place, name in enumerate(names):
        cells = [cells[place] for _, cells in lines if cells[place].text != "–"]
        columns.append((name, bool(cells) and all(cell.number for cell in cells)))
    return PageTable(columns, lines, shared, n_more)


def _cell(value: object, anchor: str | None = None) -> Cell:
    text = _text(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and text != "–":
        return Cell(text, repr(float(value)), anchor, True)
    return Cell(text, "" if text == "–" else text, anchor)


def _text(value: object) -> str:
    if value is None or value != value:
        return "–"
    if isinstance(value, float):
        # Four digits after the point, or three that count for small numbers.
        form = ".4f" if 0.001 <= abs(value) < 1e5 else ".3g"
        text = str(int(value)) if value.is_integer() else format(value, form)
        return f"−{text[1:]}" if text.startswith("-") else text
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return str(value)


def setting_text(value: object) -> str:
    """A setting, without the digits that measurements have."""
    return f"{value:g}" if isinstance(value, float) else _text(value)


SVG = "http://www.w3.org/2000/svg"
LINK = "{http://www.w3.org/1999/xlink}href"

#: Two digits are a hundredth of a point; matplotlib writes six.
LONG = re.compile(r"(\.\d\d)\d+")

REFERENCE = re.compile(r"url\(#([^)]+)\)")


def _inline_svg(text: bytes, prefix: str, title: str, description: str) -> str:
    """An SVG document of matplotlib as an element that can stand beside others.

    Identifiers get a prefix that is unique in the page, for several figures use the
    same ones; the style sheet and the metadata of the document go, for they would be
    the page's. Assistive technology reads title and description.
    """
    ElementTree.register_namespace("", SVG)
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{SVG}}}metadata", f"{{{SVG}}}style"):
                parent.remove(child)
    glyphs = {id(e) for defs in root.iter(f"{{{SVG}}}defs") for e in defs.iter()}
    for element in root.iter():
        for name, value in list(element.attrib.items()):
            if name == "id":
                element.set("id", f"{prefix}-{value}")
            elif name == LINK:
                del element.attrib[LINK]
                own = value.startswith("#")
                element.set("href", f"#{prefix}-{value[1:]}" if own else value)
            elif "url(#" in value:
                element.set(name, REFERENCE.sub(rf"url(#{prefix}-\1)", value))
            elif name in ("d", "x", "y") and id(element) not in glyphs:
                element.set(name, LONG.sub(r"\1", value))
    width = float(root.attrib["width"].removesuffix("pt"))
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "plot")
    root.set("style", f"--natural-width: {width:.0f}pt")
    root.set("role", "img")
    root.set("aria-labelledby", f"{prefix}-title {prefix}-desc")
    for place, (tag, words) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(f"{{{SVG}}}{tag}", {"id": f"{prefix}-{tag}"})
        element.text = words
        root.insert(place, element)
    return ElementTree.tostring(root, encoding="unicode")
