"""Figures 2, 5 and 7: what is measured against the equivariance weight."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ce_align.report.differences import COMPARISON_TITLES, differences
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.selection import (
    MEASURE_SETTINGS,
    Selection,
    average,
    comparable,
    main_recipe,
    mark_of,
    missing_weights,
    origin_notes,
    with_networks,
)
from ce_align.report.style import (
    GUIDE,
    finish,
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

__all__ = ["figure_2", "measure_points", "weight_curves"]

WEIGHT_AXIS = "Equivariance weight λ"


def weight_curves(
    points: "pd.DataFrame", ax: "Axes", weights: Sequence[float], among: Sequence[str]
) -> "Axes":
    """A line for each objective through its points, with its band.

    Parameters
    ----------
    points : columns ``objective``, ``weight``, ``value``, ``low``, ``high``
    ax : axes to draw into
    weights : places on the axis, evenly spaced, in order
    among : objectives of the whole figure, which decide the colours
    """
    place = {weight: k for k, weight in enumerate(weights)}
    for objective in objective_order(points["objective"]):
        line = points[points["objective"] == objective].sort_values("weight")
        x = [place[weight] for weight in line["weight"]]
        colour = objective_colour(objective, among)
        low, high = line["low"], line["high"]
        ax.fill_between(x, low, high, color=colour, alpha=0.18, linewidth=0)
        if len(x) == 1:  # a band needs two points
            ax.vlines(x, low, high, color=colour, alpha=0.5)
        ax.plot(
            x,
            line["value"],
            color=colour,
            marker=objective_marker(objective),
            markeredgecolor="white",
            markeredgewidth=0.3,
            label=objective_label(objective),
        )
    ax.set_xticks(range(len(weights)), [weight_label(w) for w in weights])
    ax.set_xlim(-0.35, len(weights) - 0.65)
    ax.margins(y=0.08)
    return ax


def measure_points(material: Material, metric: str, what: str) -> Selection:
    """Points of one measure of the representation, averaged over networks."""
    rows = material.stage("analyze")
    known = with_networks(rows[rows["metric"] == metric] if len(rows) else rows)
    return _points(known, MEASURE_SETTINGS, what)


def _points(known: Selection, settings: Sequence[str], what: str) -> Selection:
    recipe = main_recipe(known.rows)
    found = comparable(recipe.rows, settings, what)
    notes = (*known.notes, *recipe.notes, *found.notes)
    if found.rows.empty:
        return Selection(found.rows, notes)
    return Selection(average(found.rows), notes)


def figure_2(material: Material, columns: int = 2) -> Drawn:
    """ΔD_B against λ for the four comparisons, and decoding R² against λ."""
    import pandas as pd

    notes: list[str] = []
    panels: dict[str, tuple[str, str, pd.DataFrame]] = {}
    points = []
    for comparison, title in COMPARISON_TITLES.items():
        found = differences(material, comparison)
        notes += found.notes
        panels[comparison] = (title, "$\\Delta D_B$", found.rows)
        if len(found.rows):
            panels[comparison] = (title, "$\\Delta D_B$", average(found.rows))
    metric, kind = _decoding(material)
    found = measure_points(material, metric, "Decoding")
    notes += found.notes
    panels[metric] = (f"Decoding, {kind}", "$R^2$, held-out images", found.rows)
    for name, (title, _, rows) in panels.items():
        if rows.empty:
            notes.append(f"{title}: no rows.")
        else:
            notes += missing_weights(rows, title)
            points.append(rows.assign(panel=name))
    if not points:
        raise NothingToDraw(
            "Figure 2 needs rows of `ce-align analyze --metric bures` and `--metric "
            "decoding` for networks of known λ; run `ce-align analyze --model paper`"
        )
    data = pd.concat(points, ignore_index=True)
    figure = _panels(list(panels.values()), columns)
    notes = [*origin_notes(data["origin"], material.remark), *_merged(notes)]
    with style():
        finish(figure, notes, mark_of(data["origin"], material.remark))
    return Drawn(
        figure,
        data,
        "Contrastive-equivariant training changes the shape of variability",
        "A–D: expected difference of squared Bures distance from the invariant network "
        "of the same objective, ΔD_B = D_B(λ = 0) − D_B(λ), on identical images and "
        "augmentation draws. E: held-out R² of decoding the augmentation parameters, "
        "mean over parameters. Bands: 95 % interval of one network, mean ± sd over "
        "networks where there are several. λ is spaced evenly.",
        f"{len(points)} line plots against the equivariance weight. "
        + _summary(data, "panel"),
        tuple(notes),
    )


def _decoding(material: Material) -> tuple[str, str]:
    """Ridge if it was computed, else least squares."""
    rows = material.stage("analyze")
    ols = len(rows) and "decoding_ridge" not in set(rows["metric"])
    return ("decoding_ols", "OLS") if ols else ("decoding_ridge", "ridge")


def _merged(notes: Sequence[str]) -> list[str]:
    """Notes that differ in their subject alone become one."""
    by_rest: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        subject, colon, rest = note.partition(": ")
        by_rest.setdefault(rest if colon else note, []).append(subject if colon else "")
    return [
        f"{', '.join(subjects)}: {rest}" if any(subjects) else rest
        for rest, subjects in by_rest.items()
    ]


def _summary(data: "pd.DataFrame", key: str) -> str:
    """First and last value of every line, in words."""
    parts = []
    for (panel, objective), line in data.groupby([key, "objective"], sort=False):
        line = line.sort_values("weight")
        ends = [
            f"{value:.3g} at λ {weight_label(weight)}"
            for value, weight in line[["value", "weight"]].iloc[[0, -1]].to_numpy()
        ]
        words = " to ".join(dict.fromkeys(ends))
        parts.append(f"{str(panel).replace('_', ' ')}, {objective}: {words}.")
    return " ".join(parts)


def _panels(
    panels: "Sequence[tuple[str, str, pd.DataFrame]]", columns: int
) -> "Figure":
    """Panels with letters, and the legend in the place after them."""
    shown = [panel for panel in panels if len(panel[2])]
    among = objective_order(o for _, _, rows in shown for o in rows["objective"])
    weights = sorted({w for _, _, rows in shown for w in rows["weight"]})
    across = min(3 if columns == 2 else 2, len(shown) + 1)
    down = -(-(len(shown) + 1) // across)
    with style():
        figure = new_figure(columns, (1.75 if columns == 2 else 1.45) * down)
        grid = figure.subplots(down, across, squeeze=False).ravel()
        for k, (title, label, rows) in enumerate(shown):
            ax = grid[k]
            if "Delta" in label:
                ax.axhline(0, color=GUIDE, linewidth=0.6, zorder=0)
            weight_curves(rows, ax, weights, among)
            letter(ax, "ABCDEFGH"[k], title)
            ax.set(xlabel=WEIGHT_AXIS, ylabel=label)
        handles, labels = _legend_of(list(grid[: len(shown)]))
        grid[len(shown)].legend(handles, labels, loc="center", title="Objective")
        for ax in grid[len(shown) :]:
            ax.axis("off")
    return figure


def _legend_of(axes: "Sequence[Axes]") -> tuple[list[object], list[str]]:
    """Every objective once, in order."""
    found: dict[str, object] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
