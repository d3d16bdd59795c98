"""Figures 3, 4 and 8: how well networks predict recordings."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.models.catalogue import OBJECTIVE_NAMES
from ce_align.report.inputs import Inputs, predictivity_points
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import average, main_recipe, missing_weights, only
from ce_align.report.style import (
    LETTERS,
    NEUTRAL,
    broken,
    letter,
    new_figure,
    objective_colour,
    objective_label,
    objective_marker,
    objective_order,
    panel_grid,
    shade,
    style,
    weight_label,
    weight_legend,
)
from ce_align.stages.comparable import Selection

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["figure_3", "figure_4", "figure_8"]

#: The axis, what it is in words, what error bars and ticks say, by the number drawn.
NUMBERS = {
    "raw": (
        "Predictivity, r",
        "Pearson r between predicted and recorded responses (median over neuroids, "
        "mean over splits)",
        "± one standard error over splits, or ± sd over networks where several share "
        "objective and λ. Below a name: √ceiling, the r that a perfect model would "
        "reach. The axis begins where the data do.",
    ),
    "score": (
        "Score, raw² / ceiling",
        "Imported scores (raw² / ceiling)",
        "± sd over networks where several share objective and λ. The axis begins "
        "where the data do.",
    ),
}
#: Share of a group's width that its marks take, and from one mark to the next at most.
FILLED, WIDEST = 0.72, 0.2

#: The paper's recordings: their mean is a network's score.
IT_SETS = ("majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020")
#: Between names of recordings, which may have spaces.
TOGETHER = "; "

#: Objective and title of each panel, by its name.
Panels = Mapping[str, tuple[str, str]]


def figure_3(inputs: Inputs, columns: int = 2) -> Drawn:
    """Predictivity by recording and λ, a panel for each objective."""
    found = _points(inputs).then(main_recipe)
    if found.rows.empty:
        raise NothingToDraw(
            "Figure 3 needs rows of `ce-align score` (or `import-scores`) for networks "
            "of known λ; run `ce-align score --model paper`"
        )
    rows = found.rows.assign(panel=found.rows["objective"])
    objectives = objective_order(rows["objective"])
    return _dots(
        inputs,
        rows,
        {name: (name, objective_label(name)) for name in objectives},
        list(found.notes),
        columns,
        title="Predictivity by recording and λ",
        complete=True,
    )


def _points(inputs: Inputs) -> Selection:
    """Raw correlations; scores if there are only imported ones without a ceiling."""
    found = predictivity_points(inputs)
    return found if len(found.rows) else predictivity_points(inputs, "score")


def figure_8(inputs: Inputs, columns: int = 2) -> Drawn:
    """Predictivity of networks that were trained otherwise than most."""
    found = _points(inputs)
    others = found.rows
    if len(others):
        others = others[~others["model"].isin(main_recipe(others).rows["model"])]
    if others.empty:
        raise NothingToDraw(
            "Figure 8 needs rows of `ce-align score` for networks of another backbone "
            "or training; train them with `ce-align train --backbone resnet34` and "
            "score them"
        )
    rows = others.assign(panel=others["recipe"] + "|" + others["objective"])
    panels = {
        f"{recipe}|{objective}": (objective, f"{objective_label(objective)}\n{recipe}")
        for objective in objective_order(rows["objective"])
        for recipe in sorted(set(rows["recipe"][rows["objective"] == objective]))
    }
    return _dots(
        inputs,
        rows,
        panels,
        list(found.notes),
        columns,
        title="Predictivity by recording and λ, other backbones and trainings",
        complete=False,
    )


def _averaged(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Means over networks, with ceiling, normalised score, and the place of each λ."""
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


def _dots(
    inputs: Inputs,
    rows: "pd.DataFrame",
    panels: Panels,
    notes: list[str],
    columns: int,
    *,
    title: str,
    complete: bool,
) -> Drawn:
    """Panels of dots from light to dark by λ, a group for each recording.

    If the figure should be `complete`, networks of the grid that are missing are named.
    """
    points = _averaged(rows)
    number = "raw" if rows["raw"].notna().any() else "score"
    axis, what, drawn = NUMBERS[number]
    recordings = sorted(set(points["recording"]))
    if complete:
        notes += missing_weights(points, "Networks")
    notes += _gaps(points, panels, recordings)
    ceilings = points["ceiling"].notna().groupby(points["recording"]).any()
    without = list(ceilings.index[~ceilings])
    if without and number == "raw":
        notes.append(f"No repetitions, hence no ceiling: {', '.join(without)}.")
    across = 3 if columns == 2 else 1
    # The paper's panels keep their letters when another is missing.
    own_ones = [name for name in panels if name not in OBJECTIVE_NAMES]
    every = [*OBJECTIVE_NAMES, *own_ones]
    letters = [LETTERS[every.index(name)] for name in panels]
    # A single panel is not stretched over a page.
    across = min(across, max(len(panels), 2))
    height = 1.9 if columns == 2 else 1.45
    with style():
        figure, axes, _ = panel_grid(
            columns, len(panels), across, height, 0.3, sharey=True
        )
        for k, (name, (objective, heading)) in enumerate(panels.items()):
            own = points[points["panel"] == name]
            colour = objective_colour(objective, [o for o, _ in panels.values()])
            _groups_of_dots(own, axes[k], recordings, colour)
            known = letters[k] if complete else LETTERS[k]
            letter(axes[k], known if len(panels) > 1 else "", heading)
        for ax in axes[::across]:
            ax.set_ylabel(axis)
        weight_legend(figure, sorted(set(points["weight"])), columns, None)
    best = points.iloc[int(points["value"].argmax())]
    return completed(
        figure,
        points,
        inputs,
        notes,
        title=title,
        caption=f"{what} by recording, the stronger the colour, the larger the "
        f"equivariance weight λ; vertical lines: {drawn}",
        alt=f"Dot plots of predictivity for {counted(len(recordings), 'recording')}, "
        f"{counted(len(panels), 'panel')}. The highest is {best['value']:.3f}: "
        f"{objective_label(str(best['objective']))} at λ {best['weight']:g} for "
        f"{best['recording']}.",
    )


def _gaps(
    points: "pd.DataFrame", panels: Panels, recordings: Sequence[str]
) -> list[str]:
    """Weights that have a dot for some recordings only, and recordings without."""
    gaps, empty = [], []
    for name, (_, heading) in panels.items():
        own, named = points[points["panel"] == name], heading.replace("\n", ", ")
        weights = set(own["weight"])
        absent = []
        for recording in recordings:
            there = set(own["weight"][own["recording"] == recording])
            if not there:
                absent.append(recording)
            elif weights - there:
                lost = ", ".join(weight_label(w) for w in sorted(weights - there))
                gaps.append(f"{named}, {recording}: no scores for λ = {lost}.")
        if absent:
            empty.append(f"{named}: no scores against {', '.join(absent)}.")
    return [*gaps, *empty]


def _groups_of_dots(
    points: "pd.DataFrame", ax: "Axes", recordings: Sequence[str], colour: str
) -> None:
    """Dots of one objective, with the ceiling of each recording below its name."""
    n = int(points["n_places"].iloc[0])
    width = min(FILLED / n, WIDEST)
    names = []
    for k, recording in enumerate(recordings):
        group = points[points["recording"] == recording].sort_values("place")
        names.append(broken(recording))
        if k:
            ax.axvline(k - 0.5, color="#ececec", linewidth=0.5, zorder=0)
        if group.empty:
            continue
        x = k + (group["place"] - (n - 1) / 2) * width
        shades = [shade(colour, int(place), n) for place in group["place"]]
        ax.plot(x, group["value"], color=shade(colour, 0, 2), linewidth=0.7, zorder=1)
        ax.vlines(x, group["low"], group["high"], color=shades, linewidth=1)
        ax.scatter(x, group["value"], c=shades, s=11, linewidths=0, zorder=3)
        ceiling = group["ceiling"][group["ceiling"] > 0]
        if len(ceiling):
            # A perfect model reaches raw² = ceiling.
            names[-1] += f"\n√c {float(ceiling.iloc[0]) ** 0.5:.2f}"
    ax.set_xticks(range(len(recordings)), names)
    ax.tick_params(axis="x", length=0)
    ax.set_xlim(-0.5, len(recordings) - 0.5)
    ax.margins(y=0.06)
    if points["value"].min() < 0:
        ax.axhline(0, color=NEUTRAL, linewidth=0.6)


def figure_4(inputs: Inputs, columns: int = 2) -> Drawn:
    """Scores of our networks among those of others."""
    import pandas as pd

    if inputs.others is None:
        raise NothingToDraw(
            "Figure 4 needs scores of other networks: a CSV with columns model and "
            "score; give it with `ce-align figures --others FILE`"
        )
    others = inputs.others.dropna(subset=["score"])
    n_empty = len(inputs.others) - len(others)
    wanted = None
    if "recording" in others and others["recording"].notna().any():
        wanted = str(others["recording"].dropna().iloc[0])
    own = _own_scores(inputs, wanted)
    if own.rows.empty or others.empty:
        raise NothingToDraw(
            f"Figure 4 needs scores against {wanted or 'recordings with a ceiling'} of "
            "networks of known λ, and others to compare with; run `ce-align score "
            "--model paper`"
        )
    rest = others[["model", "score"]].assign(objective="other", origin="imported")
    points = pd.concat([own.rows, rest], ignore_index=True)
    ranks = points["score"].rank(ascending=False, method="first").astype(int)
    points = points.assign(rank=ranks).sort_values("rank", ignore_index=True)
    with style():
        figure = new_figure(columns, 2.6 if columns == 2 else 2.3)
        _ranked(points, figure.subplots())
    notes = list(own.notes)
    if n_empty:
        notes.append(f"Other networks: {n_empty} without a score.")
    of = str(own.rows["recordings"].iloc[0])
    score = f"mean over {of}" if TOGETHER in of else of
    best = points[points["objective"] != "other"].iloc[0]
    return completed(
        figure,
        points,
        inputs,
        notes,
        title="Score by rank, among other networks",
        caption=f"Score (raw² / ceiling; {score}) of each network by rank, "
        f"among {counted(len(rest), 'other network')} whose scores come from a "
        "file. Nothing in the file says whether they are of the same benchmark.",
        alt=f"Scores of {counted(len(points), 'network')} from the best to the worst. "
        f"The best of ours, {best['model']}, has rank {best['rank']} with "
        f"{best['score']:.3f}.",
    )


def _own_scores(inputs: Inputs, wanted: str | None) -> Selection:
    """Mean score of each network over the recordings that count."""
    import pandas as pd

    found = predictivity_points(inputs, "score")
    if found.rows.empty:
        return Selection(found.rows)
    rows = found.rows[np.isfinite(found.rows["score"])]
    notes = [note for note in found.notes if "left out" in note.lower()]
    there = sorted(set(rows["recording"]))
    of_the_paper = [name for name in IT_SETS if name in there]
    names = [wanted] if wanted else of_the_paper or there
    rows = rows[rows["recording"].isin(names)]
    counts = rows.groupby("model")["recording"].nunique()
    incomplete = list(counts.index[counts < len(names)])
    if incomplete:
        notes.append(
            f"Left out, without scores against all of {', '.join(names)}: "
            f"{named_some(incomplete)}."
        )
        rows = rows[~rows["model"].isin(incomplete)]
    absent = [name for name in IT_SETS if name not in there]
    if absent and of_the_paper and not wanted:
        notes.append(f"No scores against {', '.join(absent)}.")
    keys = ["model", "objective", "weight", "recipe"]
    groups = rows.groupby(keys, sort=True)
    about = {"score": groups["score"].mean()}
    about["origin"] = groups["origin"].agg(lambda o: "+".join(sorted(set(o))))
    if "source" in rows:
        about["source"] = groups["source"].agg(only)
    scores = pd.DataFrame(about).reset_index()
    return Selection(scores.assign(recordings=TOGETHER.join(names)), tuple(notes))


def _ranked(points: "pd.DataFrame", ax: "Axes") -> None:
    """Scores from the best to the worst, those of known objective in colour."""
    rest = points["objective"] == "other"
    ax.plot(
        points["rank"][rest],
        points["score"][rest],
        "o",
        color="#b5b5b5",
        markersize=2.2,
        markeredgewidth=0,
        label=f"Other networks ({rest.sum()})",
    )
    known = objective_order(points["objective"][~rest])
    for objective in known:
        own = points[points["objective"] == objective]
        ax.plot(
            own["rank"],
            own["score"],
            objective_marker(objective),
            color=objective_colour(objective, known),
            markersize=4,
            markeredgecolor="white",
            markeredgewidth=0.4,
            label=f"{objective_label(objective)} ({len(own)})",
        )
    first = points[~rest].sort_values("rank").iloc[0]
    # Above a falling curve there is room to the right.
    late = first["rank"] > 0.6 * len(points)
    ax.annotate(
        f"{objective_label(first['objective'])}, λ = {weight_label(first['weight'])}: "
        f"rank {first['rank']:.0f}",
        (first["rank"], first["score"]),
        (1, 0.93) if late else (14, 16),
        textcoords="axes fraction" if late else "offset points",
        ha="right" if late else "left",
        fontsize=6.2,
        arrowprops={"arrowstyle": "-", "linewidth": 0.5},
    )
    ax.set_xlim(-0.015 * len(points), 1.02 * len(points))
    ax.set(xlabel=f"Rank among {len(points)} networks", ylabel="Score, raw² / ceiling")
    ax.legend(loc="lower left")
