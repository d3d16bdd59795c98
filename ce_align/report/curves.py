"""Lines against the equivariance weight, one for each objective."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ce_align.report.drawing import legend_entries
from ce_align.report.style import (
    GUIDE,
    letter,
    new_figure,
    objective_colour,
    objective_label,
    objective_marker,
    objective_order,
    style,
    weight_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["CurvePanel", "curve_figure", "describe_curves", "weight_curves"]

WEIGHT_AXIS = "Equivariance weight λ"
#: Size of titles of panels beside each other in one column, in points.
NARROW = 6.0


@dataclass(frozen=True, eq=False)
class CurvePanel:
    """One panel.

    Attributes
    ----------
    title, label : above it, and beside its vertical axis
    points : as `weight_curves` takes them
    zero : whether 0 is a reference
    """

    title: str
    label: str
    points: "pd.DataFrame"
    zero: bool = False


def weight_curves(
    points: "pd.DataFrame", ax: "Axes", weights: Sequence[float], among: Sequence[str]
) -> "Axes":
    """A line for each objective through its points, with its band.

    Parameters
    ----------
    points : columns ``objective``, ``weight``, ``value``, ``low``, ``high`` and perhaps
        ``views``: networks of ``weak`` views have dashed lines
    ax : axes to draw into
    weights : places on the axis, evenly spaced, in order
    among : objectives of the whole figure, which decide the colours
    """
    place = {weight: k for k, weight in enumerate(weights)}
    views = points["views"] if "views" in points else points["objective"].map(str)
    for objective in objective_order(points["objective"]):
        own = points["objective"] == objective
        for kind in sorted(set(views[own])):
            line = points[own & (views == kind)].sort_values("weight")
            x = [place[weight] for weight in line["weight"]]
            colour = objective_colour(objective, among)
            low, high, weak = line["low"], line["high"], kind == "weak"
            ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
            if len(x) == 1:  # a band needs two points
                ax.vlines(x, low, high, color=colour, alpha=0.5)
            ax.plot(
                x,
                line["value"],
                color=colour,
                linestyle="--" if weak else "-",
                marker=objective_marker(objective),
                markerfacecolor="white" if weak else colour,
                markeredgecolor=colour if weak else "white",
                markeredgewidth=0.6 if weak else 0.3,
                label=objective_label(objective) + (", weak views" if weak else ""),
            )
    ax.set_xticks(range(len(weights)), [weight_label(w) for w in weights])
    ax.set_xlim(-0.35, len(weights) - 0.65)
    ax.margins(y=0.08)
    return ax


def curve_figure(panels: Sequence[CurvePanel], columns: int) -> "Figure":
    """Panels with letters, and the legend in the place after them.

    Parameters
    ----------
    panels : with at least one point each
    columns : 1 or 2
    """
    among = objective_order(o for panel in panels for o in panel.points["objective"])
    weights = sorted({w for panel in panels for w in panel.points["weight"]})
    across = min(3 if columns == 2 else 2, len(panels) + 1)
    down = -(-len(panels) // across)
    with style():
        # Without a free place the legend is a line above the panels.
        above = 0.0 if len(panels) % across else 0.25
        height = (1.75 if columns == 2 else 1.5) * down + above
        figure = new_figure(columns, height)
        # A single panel may be wide.
        ratios = [2, 1] if len(panels) == 1 else [1] * across
        axes = figure.subplots(down, across, squeeze=False, width_ratios=ratios)
        shown, free = list(axes.ravel()[: len(panels)]), axes.ravel()[len(panels) :]
        for k, (panel, ax) in enumerate(zip(panels, shown, strict=True)):
            if panel.zero:
                ax.axhline(0, color=GUIDE, linewidth=0.6, zorder=0)
            weight_curves(panel.points, ax, weights, among)
            letter(ax, "ABCDEFGH"[k] if len(panels) > 1 else "", panel.title)
            if columns == 1:  # where the longest title would touch the next letter
                ax.title.set_fontsize(NARROW)
            ax.set(xlabel=WEIGHT_AXIS, ylabel=panel.label)
        entries = legend_entries(shown)
        if len(free):
            free[0].legend(*entries, loc="center", title="Objective")
        else:
            figure.legend(*entries, loc="outside upper left", ncols=3)
        for ax in free:
            ax.axis("off")
    return figure


def describe_curves(data: "pd.DataFrame", key: str) -> str:
    """First and last value of every line, in words."""
    parts = []
    for (panel, objective), line in data.groupby([key, "objective"], sort=False):
        line = line.sort_values("weight")
        ends = [
            f"{value:.3g} at λ {weight:g}"
            for value, weight in line[["value", "weight"]].iloc[[0, -1]].to_numpy()
        ]
        name = str(panel).replace("_", " ")
        words = " to ".join(dict.fromkeys(ends))
        parts.append(f"{name}, {objective_label(str(objective))}: {words}.")
    return " ".join(parts)
