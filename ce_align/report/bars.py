"""Figures 3 and 8: predictivity by recording, bars from light to dark by λ."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ce_align.report.drawing import completed, weight_legend
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.scores import predictivity_points
from ce_align.report.selection import (
    Selection,
    average,
    main_recipe,
    missing_weights,
)
from ce_align.report.style import (
    INK,
    NEUTRAL,
    letter,
    new_figure,
    objective_colour,
    objective_label,
    objective_order,
    shade,
    style,
    weight_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure_3", "figure_8", "predictivity_groups"]

#: The axis, what it is in words, what error bars and lines are, by the number drawn.
NUMBERS = {
    "raw": (
        "Predictivity, Pearson r",
        "Pearson r between predicted and recorded responses (mean over splits of the "
        "median neuroid)",
        "standard error over splits, or sd over networks where several share objective "
        "and λ. Lines: square root of the ceiling, which a perfect model reaches.",
    ),
    "score": (
        "Score, raw² / ceiling",
        "Imported scores (raw² / ceiling)",
        "sd over networks where several share objective and λ.",
    ),
}
#: Share of a group's width that its bars take.
FILLED = 0.84
#: And the width of one bar at most.
WIDEST = 0.2


def predictivity_groups(
    points: "pd.DataFrame", ax: "Axes", recordings: Sequence[str], colour: str
) -> "Axes":
    """A group of bars for each recording, from light to dark by λ, with ceilings.

    Parameters
    ----------
    points : of one objective: ``recording``, ``weight``, ``place`` and ``n_places`` of
        the weight among those of the figure, ``value``, ``low``, ``high``, ``ceiling``
    ax : axes to draw into
    recordings : groups from left to right
    colour : of the objective
    """
    for k, recording in enumerate(recordings):
        group = points[points["recording"] == recording]
        if group.empty:
            continue
        n = int(group["n_places"].iloc[0])
        width = min(FILLED / n, WIDEST)
        x = k + (group["place"] - (n - 1) / 2) * width
        ax.bar(
            x,
            group["value"],
            width,
            color=[shade(colour, int(place), n) for place in group["place"]],
            edgecolor="white",
            linewidth=0.25,
        )
        ax.vlines(x, group["low"], group["high"], color=INK, linewidth=0.6)
        ceiling = group["ceiling"][group["ceiling"] > 0]
        if len(ceiling):
            # A perfect model reaches raw² = ceiling.
            best = float(ceiling.iloc[0]) ** 0.5
            half = n * width / 2
            ax.hlines(best, k - half, k + half, color=INK, linewidth=1.1)
    ax.set_xticks(range(len(recordings)), [_broken(name) for name in recordings])
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.5, len(recordings) - 0.5)
    ax.set_ylim(min(0.0, 1.1 * float(np.nanmin(points["low"].fillna(0)))), 1)
    if points["value"].min() < 0:
        ax.axhline(0, color=NEUTRAL, linewidth=0.6)
    return ax


def _broken(name: str) -> str:
    """A name in lines of about ten letters, broken where its parts begin."""
    name = name.rpartition("/")[2]
    lines = [""]
    for k, character in enumerate(name):
        begins = k and (
            character in "-_ " or (character.isdigit() and not name[k - 1].isdigit())
        )
        if begins and len(lines[-1]) >= 6:
            lines.append("")
        lines[-1] += character
    return "\n".join(line.strip() for line in lines)


def figure_3(material: Material, columns: int = 2) -> Drawn:
    """Predictivity by recording and λ, a panel for each objective."""
    found = _points(material)
    recipe = main_recipe(found.rows)
    if recipe.rows.empty:
        raise NothingToDraw(
            "Figure 3 needs rows of `ce-align score` (or `import-scores`) for networks "
            "of known λ; run `ce-align score --model paper`"
        )
    rows = recipe.rows.assign(panel=recipe.rows["objective"])
    panels = {
        name: (name, objective_label(name))
        for name in objective_order(rows["objective"])
    }
    return _bars(
        material,
        rows,
        panels,
        [*found.notes, *recipe.notes],
        columns,
        title="Predictivity of the equivariant networks",
        complete=True,
    )


def _points(material: Material) -> Selection:
    """Raw correlations; scores if there are only imported ones without a ceiling."""
    found = predictivity_points(material)
    if found.rows.empty:
        return predictivity_points(material, "score")
    return found


def figure_8(material: Material, columns: int = 2) -> Drawn:
    """Predictivity of networks that were trained otherwise than most."""
    found = _points(material)
    most = main_recipe(found.rows)
    others = found.rows
    if len(others):
        others = others[~others["model"].isin(most.rows["model"])]
    if others.empty:
        raise NothingToDraw(
            "Figure 8 needs rows of `ce-align score` for networks of another backbone "
            "or training; train them with `ce-align train --backbone resnet34` and "
            "score them"
        )
    rows = others.assign(panel=others["recipe"] + "|" + others["objective"])
    panels = {}
    for objective in objective_order(rows["objective"]):
        for recipe in sorted(set(rows["recipe"][rows["objective"] == objective])):
            title = f"{objective_label(objective)}\n{recipe}"
            panels[f"{recipe}|{objective}"] = objective, title
    return _bars(
        material,
        rows,
        panels,
        list(found.notes),
        columns,
        title="Predictivity of other backbones and trainings",
        complete=False,
    )


def _bars(
    material: Material,
    rows: "pd.DataFrame",
    panels: dict[str, tuple[str, str]],
    notes: list[str],
    columns: int,
    *,
    title: str,
    complete: bool,
) -> Drawn:
    """Panels of bars; `panels` gives the objective and the title of each."""
    points = _averaged(rows)
    number = "raw" if rows["raw"].notna().any() else "score"
    axis, what, drawn = NUMBERS[number]
    recordings = list(dict.fromkeys(rows.sort_values("recording")["recording"]))
    figure = _bar_figure(points, panels, recordings, columns, axis)
    if complete:
        notes += missing_weights(points, "Networks")
    notes += _gaps(points, panels, recordings)
    for name, (_, heading) in panels.items():
        there = set(points["recording"][points["panel"] == name])
        if absent := [r for r in recordings if r not in there]:
            named = heading.replace("\n", ", ")
            notes.append(f"{named}: no scores against {', '.join(absent)}.")
    without = [
        r
        for r in recordings
        if points["ceiling"][points["recording"] == r].isna().all()
    ]
    if without and number == "raw":
        notes.append(f"No repetitions, hence no ceiling: {', '.join(without)}.")
    best = points.iloc[int(points["value"].argmax())]
    return completed(
        figure,
        points,
        material,
        notes,
        title=title,
        caption=f"{what} by recording; bars from light to dark by equivariance weight "
        f"λ; error bars: {drawn}",
        alt=f"Bar charts of predictivity for {len(recordings)} recordings and "
        f"{len(panels)} panels. The highest bar is {best['value']:.3f}: "
        f"{objective_label(str(best['objective']))} at λ {best['weight']:g} for "
        f"{best['recording']}.",
    )


def _gaps(
    points: "pd.DataFrame",
    panels: dict[str, tuple[str, str]],
    recordings: Sequence[str],
) -> list[str]:
    """Weights that have a bar for some recordings and none for others."""
    notes = []
    for name, (_, heading) in panels.items():
        own = points[points["panel"] == name]
        weights = set(own["weight"])
        for recording in recordings:
            there = set(own["weight"][own["recording"] == recording])
            if there and weights - there:
                absent = ", ".join(weight_label(w) for w in sorted(weights - there))
                named = heading.replace("\n", ", ")
                notes.append(f"{named}, {recording}: no scores for λ = {absent}.")
    return notes


def _averaged(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Means over networks, with ceiling and normalised score, in order."""
    keys = ["panel", "recording"]
    points = average(rows, keys)
    group = rows.groupby(["objective", "weight", *keys])[["ceiling", "score"]]
    points = points.join(group.mean(), on=["objective", "weight", *keys])
    one = points["spread"] == "95 % interval"
    points.loc[one, "spread"] = "standard error over splits"
    weights = sorted(set(points["weight"]))
    return points.assign(
        place=points["weight"].map({w: k for k, w in enumerate(weights)}),
        n_places=len(weights),
    )


def _bar_figure(
    points: "pd.DataFrame",
    panels: dict[str, tuple[str, str]],
    recordings: Sequence[str],
    columns: int,
    axis: str,
) -> "Figure":
    weights = sorted(set(points["weight"]))
    across = min(len(panels), 3) if columns == 2 else 1
    down = -(-len(panels) // across)
    with style():
        figure = new_figure(columns, (1.9 if columns == 2 else 1.45) * down + 0.3)
        grid = figure.subplots(down, across, squeeze=False, sharey=True)
        axes = list(grid.ravel())
        for k, (name, (objective, heading)) in enumerate(panels.items()):
            ax = axes[k]
            own = points[points["panel"] == name]
            colour = objective_colour(objective, [o for o, _ in panels.values()])
            predictivity_groups(own, ax, recordings, colour)
            letter(ax, "ABCDEFGHIJKL"[k] if len(panels) > 1 else "", heading)
        for ax in axes[len(panels) :]:
            ax.axis("off")
        for ax in grid[:, 0]:
            ax.set_ylabel(axis)
        line = "√ceiling" if points["ceiling"].notna().any() else None
        weight_legend(figure, weights, columns, line)
    return figure
