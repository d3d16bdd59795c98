"""Figure geometry: every measure of every network, whatever it was trained on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.errors import DataError
from ce_align.models.catalogue import label_of
from ce_align.report.inputs import Inputs
from ce_align.report.paper.correlations import (
    FRAME,
    forest_axes,
    mark_estimate,
)
from ce_align.report.paper.items import Drawn, NothingToDraw, because, completed
from ce_align.report.select import network_colours
from ce_align.report.style import (
    finish,
    legend_above,
    minus,
    new_figure,
    save_figure,
    style,
    wrapped,
)
from ce_align.stages.comparable import (
    MEASURE_SETTINGS,
    MEASURING,
    comparable,
    interval_over,
)
from ce_align.stages.measures import COMPARISON_TITLES
from ce_align.stages.quantities import Panel, Quantity, quantities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

    from ce_align.stages.measures import MeasureRow

__all__ = ["figure_geometry", "measure_forest", "save_measures"]

#: Height of a network's mark, in inches.
MARK = 0.08
#: So many networks can be told apart in a panel.
MOST = 12
#: What a number is, by what its name has in it.
DEFINED = {
    **dict.fromkeys(
        COMPARISON_TITLES,
        "D_B: squared Bures distance of covariances divided by their traces, from 0 "
        "(the same shape) to 2 (no direction in common).",
    ),
    "_excess": "Excess: D_B − its floor, both of halves of the clouds of responses; "
    "the floor is the mean distance between two halves of one cloud.",
    "_delta": "ΔD_B: the baseline's value − the network's, on the same images and "
    "draws; above 0 if the network's clouds are more alike. Its interval does not "
    "cover other seeds of training.",
    "decoding": "R²: share of the variance of augmentation parameters that is decoded "
    "of held-out images; below 0, guessing their mean is better.",
}
#: Smaller shares of variance are drawn at this edge.
LEAST = -0.5


def figure_geometry(inputs: Inputs, columns: int = 2, *, most: float = MOST) -> Drawn:
    """A panel for each kind of measure, networks by colour.

    Of more networks than `most` those of known λ, which other figures show, are left
    out.
    """
    import pandas as pd

    found = inputs.stage(*MEASURING)
    notes = list(found.notes)
    if found.rows.empty:
        raise NothingToDraw(
            "the geometry of networks needs rows of `ce-align analyze`; run it for "
            f"one network or more{because(notes)}"
        )
    rows, further = _so_many(found.rows, inputs, most)
    notes += further
    present = set(rows["metric"])
    panels: dict[Panel, list[Quantity]] = {}
    parts = []
    for name, quantity in quantities().items():
        if quantity.panel is not None and name in present:
            own = rows[rows["metric"] == name]
            same = comparable(own, MEASURE_SETTINGS, quantity.title, intervals=False)
            notes += same.notes
            if len(same.rows):
                panels.setdefault(quantity.panel, []).append(quantity)
                parts.append(same.rows)
    if not panels:
        raise NothingToDraw(
            f"no panel shows {named_some(sorted(present))}; draw the rows of `ce-align "
            f"analyze`{because(notes)}"
        )
    kept = ["model", "metric", "value", "low", "high", "interval", "baseline", "layer"]
    kept += ["n_points", "n_comparisons", "recording", "origin", "source"]
    whole = pd.concat(parts, ignore_index=True)
    models = sorted(set(whole["model"]))
    colours = network_colours({model: inputs.facts(model) for model in models})
    data = whole[[name for name in kept if name in whole]]
    n = len(colours)
    heights = {
        panel: FRAME + len(own) * max(MARK * (n + 1), 0.2)
        for panel, own in panels.items()
    }
    beside: list[list[Panel]] = [[] for _ in range(min(columns, len(panels)))]
    # The longest first, each where there is most room: about equally long columns.
    for panel in sorted(panels, key=heights.__getitem__, reverse=True):
        min(beside, key=lambda own: sum(map(heights.__getitem__, own))).append(panel)
    order = list(panels)
    beside.sort(key=lambda own: min(map(order.index, own)))
    tallest = max(sum(map(heights.__getitem__, own)) for own in beside)
    with style():
        figure = new_figure(columns, tallest + 0.2)
        places: list[Any] = [figure]
        if len(beside) > 1:
            halves = figure.add_gridspec(1, len(beside))
            places = [figure.add_subfigure(halves[k]) for k in range(len(beside))]
        for among, place in zip(beside, places, strict=True):
            shown = sorted(among, key=order.index)
            ratios = [heights[panel] for panel in shown]
            # What is missing below a shorter column stays empty.
            if (rest := tallest - sum(ratios)) > 0:
                ratios.append(rest)
            grid = place.add_gridspec(len(ratios), 1, height_ratios=ratios)
            for k, panel in enumerate(shown):
                ax, drawn = place.add_subplot(grid[k]), panels[panel]
                # One share far below zero would hide all others.
                bounded = all(np.isfinite(one.least) for one in drawn)
                words = {one.name: wrapped(one.beside_mark, 24) for one in drawn}
                least = -np.inf if bounded else LEAST
                measure_forest(data, ax, words, least, colours)
                ax.locator_params(axis="x", nbins=6)
                ax.set_title(panel.title, loc="left", fontweight="bold")
                clipped = bool(
                    (data["value"][data["metric"].isin(words)] < least).any()
                )
                ax.set_xlabel(panel.axis + minus(f" (◂ below {least})" * clipped))
        ax = figure.axes[0]
        for model, colour in colours.items():
            label = inputs.labels[model]
            ax.plot([], [], "o-", color=colour, markersize=3, linewidth=1, label=label)
        legend_above(figure, figure.axes, columns)
    names = " ".join(data["metric"])
    defined = dict.fromkeys(words for name, words in DEFINED.items() if name in names)
    over = dict.fromkeys(map(interval_over, data["interval"].dropna()))
    lines = [f"Lines: 95 % intervals over {'; '.join(over)}."] if over else []
    lines += _against(whole, inputs)
    return completed(
        figure,
        data,
        inputs,
        notes,
        title="Measures of each network",
        caption=" ".join(
            ["A mark for each network and measure.", *defined, *lines, "Grey line: 0."]
        ),
        alt=f"{len(panels)} forest plots of {counted(n, 'network')}: "
        f"{', '.join(panel.title.lower() for panel in panels)}.",
    )


def _against(rows: "pd.DataFrame", inputs: Inputs) -> list[str]:
    """What networks are compared with, and what all were shown."""
    found = {
        name: sorted(set(rows[name].dropna())) if name in rows else []
        for name in ("baseline", "layer", "images", "recording")
    }
    labels = [inputs.labels.get(name, label_of(name)) for name in found["baseline"]]
    lines = [f"Baseline: {named_some(labels)}."] if labels else []
    if found["layer"] and found["images"]:
        shown = (
            f"{named_some(found['layer'])} to views of {named_some(found['images'])}"
        )
        lines.append(f"Responses of {shown}.")
    if found["recording"]:
        lines.append(f"Similarity to {named_some(found['recording'])}.")
    return lines


def _so_many(
    rows: "pd.DataFrame", inputs: Inputs, most: float
) -> "tuple[pd.DataFrame, list[str]]":
    """Rows of at most so many networks, those without λ first, and who is left out."""
    models = sorted(set(rows["model"]))
    if len(models) <= most:
        return rows, []
    without = [m for m in models if inputs.facts(m).equivariance_weight is None]
    notes = []
    if len(without) < len(models):
        notes.append(
            f"Left out: {counted(len(models) - len(without), 'network')} of known λ; "
            "figures 2, 6, 7 and lambda show them."
        )
    if not without:
        raise NothingToDraw(
            f"the geometry of networks shows at most {most} at once, and all "
            f"{len(models)} have a known λ, which figures 2, 6, 7 and lambda show; "
            "draw some of them by `ce-align analyze --model … --figure …`"
        )
    if len(without) > most:
        notes.append(
            f"The first {most} of {len(without)} networks by name are shown; `ce-align "
            "analyze --model … --figure …` draws others."
        )
    return rows[rows["model"].isin(without[: int(most)])], notes


def save_measures(rows: "Sequence[MeasureRow]", path: Path) -> Path:
    """Draw rows as PDF, SVG and PNG; the path of the PNG returns.

    Raises
    ------
    DataError
        If no row is of a measure that has a panel.
    """
    import pandas as pd

    if not rows:
        raise DataError("no rows to draw; draw the rows of `ce-align analyze`")
    inputs = Inputs(pd.DataFrame([row.model_dump() for row in rows]))
    made = figure_geometry(inputs, most=np.inf)
    with style():
        finish(made.figure, [made.caption, *made.notes], made.mark)
    return save_figure(made.figure, path.with_suffix(""))[-1]


def measure_forest(
    rows: "pd.DataFrame",
    ax: "Axes",
    labels: Mapping[str, str],
    least: float,
    colours: Mapping[str, object],
) -> "Axes":
    """Measures from top to bottom with their intervals, networks by colour.

    Parameters
    ----------
    rows : one for each network and measure
    ax : axes to draw into
    labels : measures to show, from top to bottom, and what they are called
    least : values below it are drawn at the left edge as triangles
    colours : of networks by name, from top to bottom
    """
    row: Any
    order = list(colours)
    for i, metric in enumerate(labels):
        for row in rows[rows["metric"] == metric].itertuples():
            place = i + (order.index(row.model) + 1) / (len(order) + 1) - 0.5
            mark_estimate(ax, row, place, colours[row.model], least)
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    forest_axes(ax, list(labels.values()))
    return ax
