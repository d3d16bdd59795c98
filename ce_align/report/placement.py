"""Figure 4: where networks stand among other networks."""

from typing import TYPE_CHECKING

import numpy as np

from ce_align.checks import named_some
from ce_align.report.drawing import completed
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.scores import predictivity_points
from ce_align.report.selection import Selection, only
from ce_align.report.style import (
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

__all__ = ["figure_4", "placement"]

#: The paper's recordings: their mean is a network's score.
IT_SETS = ("majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020")
#: Between names of recordings, which may have spaces.
TOGETHER = "; "


def placement(points: "pd.DataFrame", ax: "Axes") -> "Axes":
    """Scores from the best to the worst, those of known objective in colour.

    Parameters
    ----------
    points : columns ``rank``, ``score``, ``objective`` (``other`` for the rest)
    ax : axes to draw into
    """
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
    return ax


def figure_4(material: Material, columns: int = 2) -> Drawn:
    """Scores of our networks among those of others."""
    import pandas as pd

    if material.others is None:
        raise NothingToDraw(
            "Figure 4 needs scores of other networks: a CSV with columns model and "
            "score; give it with `ce-align figures --others FILE`"
        )
    others = material.others.dropna(subset=["score"])
    n_empty = len(material.others) - len(others)
    wanted = None
    if "recording" in others and others["recording"].notna().any():
        wanted = str(others["recording"].dropna().iloc[0])
    own = _own_scores(material, wanted)
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
        placement(points, figure.subplots())
    notes = list(own.notes)
    if n_empty:
        notes.append(f"Other networks: {n_empty} without a score.")
    of = str(own.rows["recordings"].iloc[0])
    score = f"mean over {of}" if TOGETHER in of else of
    best = points[points["objective"] != "other"].iloc[0]
    return completed(
        figure,
        points,
        material,
        notes,
        title="The networks among others",
        caption=f"Score (raw² / ceiling; {score}) of each network by rank, "
        f"among {len(rest)} other networks whose scores were given in a file. Whether "
        "both are of the same benchmark is for who gives the file to know.",
        alt=f"Scores of {len(points)} networks from the best to the worst. The best of "
        f"ours, {best['model']}, has rank {best['rank']} with {best['score']:.3f}.",
    )


def _own_scores(material: Material, wanted: str | None) -> Selection:
    """Mean score of each network over the recordings that count."""
    found = predictivity_points(material, "score")
    rows = found.rows
    if rows.empty:
        return Selection(rows)
    rows = rows[np.isfinite(rows["score"])]
    notes = [note for note in found.notes if "left out" in note.lower()]
    names = (
        [wanted]
        if wanted
        else [name for name in IT_SETS if name in set(rows["recording"])]
    )
    if not names:
        names = sorted(set(rows["recording"]))
    rows = rows[rows["recording"].isin(names)]
    counts = rows.groupby("model")["recording"].nunique()
    incomplete = list(counts.index[counts < len(names)])
    if incomplete:
        notes.append(
            f"Left out, without scores against all of {', '.join(names)}: "
            f"{named_some(incomplete)}."
        )
        rows = rows[~rows["model"].isin(incomplete)]
    if not wanted and len(names) < len(IT_SETS) and set(names) <= set(IT_SETS):
        absent = [name for name in IT_SETS if name not in names]
        notes.append(f"No scores against {', '.join(absent)}.")
    keys = ["model", "objective", "weight", "recipe"]
    scores = rows.groupby(keys, sort=True)["score"].mean().reset_index()
    origins = rows.groupby("model")["origin"].agg(lambda o: "+".join(sorted(set(o))))
    scores = scores.join(origins, on="model")
    if "source" in rows:
        scores = scores.join(rows.groupby("model")["source"].agg(only), on="model")
    return Selection(scores.assign(recordings=TOGETHER.join(names)), tuple(notes))
