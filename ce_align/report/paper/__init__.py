"""Every table and figure by its name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from ce_align.errors import ConfigError
from ce_align.report.inputs import Inputs
from ce_align.report.paper.accuracy import table_2, table_3, table_4
from ce_align.report.paper.correlations import figure_forest, table_1
from ce_align.report.paper.curves import (
    figure_2,
    figure_5,
    figure_7,
    figure_time,
    figure_training,
)
from ce_align.report.paper.distances import figure_6, table_5
from ce_align.report.paper.items import BuiltTable, Drawn
from ce_align.report.paper.predictivity import (
    figure_3,
    figure_4,
    figure_8,
    figure_layers,
    figure_overlap,
)
from ce_align.report.paper.schematic import figure_1
from ce_align.report.style import finish, style

__all__ = ["FIGURES", "TABLES", "build_table", "draw", "known_name"]

#: The paper's figures by number, and further ones by name: (inputs, columns) → Drawn.
FIGURES: Mapping[str, Callable[[Inputs, int], Drawn]] = MappingProxyType(
    {
        "1": figure_1,
        "2": figure_2,
        "3": figure_3,
        "4": figure_4,
        "5": figure_5,
        "6": figure_6,
        "7": figure_7,
        "8": figure_8,
        "forest": figure_forest,
        "layers": figure_layers,
        "overlap": figure_overlap,
        "time": figure_time,
        "training": figure_training,
    }
)

#: The paper's tables by number.
TABLES: Mapping[str, Callable[[Inputs], BuiltTable]] = MappingProxyType(
    {"1": table_1, "2": table_2, "3": table_3, "4": table_4, "5": table_5}
)


def known_name(kind: str, name: str) -> str:
    """The name of a figure or table (the `kind`); ConfigError if there is none."""
    names = FIGURES if kind == "figure" else TABLES
    if name not in names:
        raise ConfigError(f"no {kind} {name!r}; choose from {', '.join(names)}")
    return name


def draw(
    name: str, inputs: Inputs, columns: int = 2, *, notes_below: bool = True
) -> Drawn:
    """Draw one figure.

    Parameters
    ----------
    name : a key of `FIGURES`
    inputs : what it is drawn from
    columns : width in columns of a page, 1 or 2
    notes_below : write mark and notes below the axes

    Raises
    ------
    ConfigError
        If there is no such figure or width.
    NothingToDraw
        If there are no rows of what it shows; it says which rows, and how to get them.
    """
    drawn = FIGURES[known_name("figure", name)](inputs, columns)
    if notes_below:
        with style():
            finish(drawn.figure, drawn.notes, drawn.mark)
    return drawn


def build_table(name: str, inputs: Inputs) -> BuiltTable:
    """Build one table, a key of `TABLES`; raises as `draw` does."""
    return TABLES[known_name("table", name)](inputs)
