"""Figure 6: distances of single comparisons at λ = 0 and at other weights."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ce_align.report.differences import COMPARISON_TITLES, joint_distances
from ce_align.report.drawing import completed, weight_legend
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.selection import missing_weights
from ce_align.report.style import (
    INK,
    new_figure,
    objective_colour,
    objective_label,
    objective_order,
    shade,
    style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure_6", "joint_scatter"]

#: More points than these are drawn as pixels: a PDF of them would be slow to open.
VECTOR_POINTS = 2000
#: Up to so many points are drawn larger.
FEW_POINTS = 300


def joint_scatter(
    points: "pd.DataFrame", ax: "Axes", weights: Sequence[float], colour: str
) -> "Axes":
    """D_B at λ against D_B at λ = 0 for every comparison, with the line of unity.

    Parameters
    ----------
    points : columns ``weight``, ``baseline_distance``, ``distance``
    ax : axes to draw into
    weights : that have a shade, from the lightest to the darkest
    colour : of the objective
    """
    place = {weight: k for k, weight in enumerate(weights)}
    # Mixed at random, lest the last weight hide the others.
    order = np.random.default_rng(0).permutation(len(points))
    mixed = points.iloc[order]
    shades = [shade(colour, place[w], len(weights)) for w in mixed["weight"]]
    ax.scatter(
        mixed["baseline_distance"],
        mixed["distance"],
        s=3 if len(points) > FEW_POINTS else 6,
        c=shades,
        linewidths=0,
        alpha=0.75,
        rasterized=len(points) > VECTOR_POINTS,
    )
    both = mixed[["baseline_distance", "distance"]].to_numpy()
    low, high = float(both.min()), float(both.max())
    pad = 0.05 * (high - low or 1)
    ends = (low - pad, high + pad)
    ax.plot(ends, ends, color=INK, linewidth=0.7, zorder=3)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.locator_params(nbins=3)
    return ax


def figure_6(material: Material, columns: int = 2) -> Drawn:
    """Joint distributions of D_B at λ = 0 and at λ, objective × comparison."""
    import pandas as pd

    notes: list[str] = []
    parts = []
    for comparison, title in COMPARISON_TITLES.items():
        found = joint_distances(material, comparison)
        notes += found.notes
        if found.rows.empty:
            notes.append(f"{title}: no comparisons.")
        else:
            parts.append(found.rows.assign(measure=comparison))
            # λ = 0 is on the horizontal axis.
            baselines = found.rows.assign(weight=0.0, model=found.rows["baseline"])
            there = pd.concat([found.rows, baselines])
            notes += missing_weights(there.assign(networks=there["model"]), title)
    if not parts:
        raise NothingToDraw(
            "Figure 6 needs the arrays of `ce-align analyze --metric bures` for "
            "networks of one objective, λ = 0 among them; run `ce-align analyze "
            "--metric bures --model paper`"
        )
    data = pd.concat(parts, ignore_index=True)
    order = ["measure", "objective", "weight", "model", "comparison"]
    data = data[[*order, "baseline", "baseline_distance", "distance", "origin"]]
    closer = data.assign(below=data["distance"] < data["baseline_distance"])
    shares = [
        f"{str(measure).replace('_', ' ')}, {objective_label(str(objective))}: "
        f"{100 * group['below'].mean():.0f} %"
        for (measure, objective), group in closer.groupby(order[:2], sort=False)
    ]
    return completed(
        _grid(data, columns),
        data,
        material,
        notes,
        title="Distances before and after, comparison by comparison",
        caption="Squared Bures distance D_B of each comparison for a network with "
        "equivariance weight λ > 0 against that for λ = 0 of the same objective, on "
        "identical images and draws; darker is larger λ. Below the line the network's "
        "shapes are closer than those of the invariant one.",
        alt="Grid of scatter plots, objectives by comparisons. Share of comparisons "
        f"below the line of unity: {'; '.join(shares)}.",
    )


def _grid(data: "pd.DataFrame", columns: int) -> "Figure":
    objectives = objective_order(data["objective"])
    measures = [m for m in COMPARISON_TITLES if m in set(data["measure"])]
    # The same shades as where λ = 0 is drawn.
    weights = sorted({0.0, *data["weight"]})
    # One column has no room for four panels side by side.
    across, down = (measures, objectives) if columns == 2 else (objectives, measures)
    share = 0.97 if columns == 2 else 0.86
    size = (7.2 if columns == 2 else 3.5) / max(len(across), 2)
    with style():
        figure = new_figure(columns, share * size * len(down) + 0.5)
        axes = figure.subplots(len(down), len(across), squeeze=False)
        for i, row in enumerate(down):
            for k, column in enumerate(across):
                measure, objective = (column, row) if columns == 2 else (row, column)
                ax = axes[i, k]
                own = (data["measure"] == measure) & (data["objective"] == objective)
                if not own.any():
                    ax.axis("off")
                    continue
                colour = objective_colour(objective, objectives)
                joint_scatter(data[own], ax, weights, colour)
        titles = {**COMPARISON_TITLES, **{o: objective_label(o) for o in objectives}}
        for k, column in enumerate(across):
            axes[0, k].set_title(titles[column])
        for i, row in enumerate(down):
            name = titles[row].replace("–", "–\n") if columns == 1 else titles[row]
            axes[i, 0].set_ylabel(f"{name}\n$D_B(\\lambda)$")
        for k in range(len(across)):
            axes[-1, k].set_xlabel("$D_B(\\lambda = 0)$")
        weight_legend(figure, weights, columns, "equal", hidden=[0.0])
    return figure
