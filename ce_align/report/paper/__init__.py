"""Every table and figure by its name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

from ce_align.errors import ConfigError
from ce_align.report.inputs import Inputs
from ce_align.report.paper.accuracy import table_2, table_3, table_4
from ce_align.report.paper.correlations import figure_forest, table_1
from ce_align.report.paper.curves import (
    figure_2,
    figure_5,
    figure_7,
    figure_effective,
)
from ce_align.report.paper.distances import figure_6, table_5
from ce_align.report.paper.geometry import figure_geometry
from ce_align.report.paper.items import BuiltTable, Drawn
from ce_align.report.paper.layers import figure_depth, figure_layers, figure_time
from ce_align.report.paper.overlap import figure_overlap
from ce_align.report.paper.overview import figure_lambda, figure_networks
from ce_align.report.paper.predictivity import figure_3, figure_4, figure_8
from ce_align.report.paper.schematic import figure_1
from ce_align.report.paper.scores import figure_scores
from ce_align.report.paper.training import figure_training
from ce_align.report.style import finish, style

__all__ = [
    *("FIGURES", "TABLES", "KnownFigure", "KnownTable", "build_table", "draw"),
    "known_name",
]


class KnownFigure(NamedTuple):
    """What draws a figure, and what it shows in a line."""

    make: Callable[[Inputs, int], Drawn]
    about: str


class KnownTable(NamedTuple):
    """What builds a table, and what it shows in a line."""

    make: Callable[[Inputs], BuiltTable]
    about: str


#: The paper's figures by number, and further ones by name.
FIGURES: Mapping[str, KnownFigure] = MappingProxyType(
    {
        "1": KnownFigure(figure_1, "schematic of the training"),
        "2": KnownFigure(figure_2, "ΔD_B of four comparisons, and decoding, against λ"),
        "3": KnownFigure(figure_3, "predictivity by recording and λ"),
        "4": KnownFigure(figure_4, "scores by rank among other networks (--others)"),
        "5": KnownFigure(figure_5, "accuracy of the online probe against λ"),
        "6": KnownFigure(figure_6, "D_B of single comparisons at λ and at λ = 0"),
        "7": KnownFigure(figure_7, "decoding of weak and strong views against λ"),
        "8": KnownFigure(figure_8, "predictivity, other backbones and trainings"),
        "depth": KnownFigure(figure_depth, "predictivity against layer, by area"),
        "effective": KnownFigure(
            figure_effective, "figure 2 against the equivariant share of the gradient"
        ),
        "forest": KnownFigure(figure_forest, "correlations, measures × recordings"),
        "geometry": KnownFigure(
            figure_geometry, "measures of networks, known λ or not"
        ),
        "lambda": KnownFigure(figure_lambda, "everything against λ, on one page"),
        "layers": KnownFigure(figure_layers, "predictivity, layers × areas"),
        "networks": KnownFigure(figure_networks, "measures × scores, a dot a network"),
        "overlap": KnownFigure(figure_overlap, "variance explained alike and alone"),
        "scores": KnownFigure(
            figure_scores, "predictivity between untrained networks and the brain"
        ),
        "time": KnownFigure(figure_time, "predictivity against time after onset"),
        "training": KnownFigure(figure_training, "losses and accuracy while training"),
    }
)

#: The paper's tables by number.
TABLES: Mapping[str, KnownTable] = MappingProxyType(
    {
        "1": KnownTable(table_1, "correlations of measures with predictivity"),
        "2": KnownTable(table_2, "linear evaluation of the published networks"),
        "3": KnownTable(table_3, "accuracy of the online probe"),
        "4": KnownTable(table_4, "linear evaluation of your own networks"),
        "5": KnownTable(table_5, "what each comparison compares, and its sign"),
    }
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
    drawn = FIGURES[known_name("figure", name)].make(inputs, columns)
    if notes_below:
        with style():
            finish(drawn.figure, drawn.notes, drawn.mark)
    return drawn


def build_table(name: str, inputs: Inputs) -> BuiltTable:
    """Build one table, a key of `TABLES`; raises as `draw` does."""
    return TABLES[known_name("table", name)].make(inputs)
