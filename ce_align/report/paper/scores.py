"""Figure scores: every network between an untrained one and another brain."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import counted
from ce_align.names import BRAIN, network_behind
from ce_align.report.fitting import shortened
from ce_align.report.inputs import Inputs, predictivity_points
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import colours_and_labels
from ce_align.report.standing import standings
from ce_align.report.style import (
    GUIDE,
    INK,
    LETTERS,
    NEUTRAL,
    legend_above,
    letter,
    minus,
    panel_grid,
    style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["figure_scores"]

#: As many recordings and networks at most, and letters of their names.
MOST_PANELS, MOST_NETWORKS, LONGEST = 6, 30, 26
#: The brain's colour, which no objective has.
BRAINS = "#8c2d5a"


def figure_scores(inputs: Inputs, columns: int = 2) -> Drawn:
    """Raw predictivity of every network, beside untrained ones and the brain."""
    found = predictivity_points(_with_standings(inputs), every=True)
    data, notes = _ranked(found.rows), list(found.notes)
    if data.empty:
        raise NothingToDraw(
            "the figure of scores needs rows of `ce-align score`; --nulls 5 adds "
            "untrained networks, --brain how animals predict each other"
        )
    recordings = list(dict.fromkeys(data["recording"]))
    if len(recordings) > MOST_PANELS:
        notes.append(f"The first {MOST_PANELS} of {len(recordings)} recordings.")
        recordings = recordings[:MOST_PANELS]
        data = data[data["recording"].isin(recordings)]
    if (n := int(data["rank"].max()) + 1) > MOST_NETWORKS:
        notes.append(f"The best {MOST_NETWORKS} of {n} networks are shown.")
        data = data[data["rank"] < MOST_NETWORKS]
    data = data.reset_index(drop=True)
    n_nulls = sorted(set(data["n_nulls"]) - {0})
    if n_nulls:
        notes.append(f"Untrained: n = {'/'.join(map(str, n_nulls))} a network.")
    looks = colours_and_labels(data, inputs.labels)
    labels = [inputs.labels[model] for model in dict.fromkeys(data["model"])]
    names = shortened(labels, LONGEST) or {}
    across = min(columns, len(recordings))
    tallest = int(data["rank"].max()) + 1
    with style():
        figure, axes, _ = panel_grid(
            columns, len(recordings), across, 0.6 + 0.15 * tallest, 0.25
        )
        for k, (ax, recording) in enumerate(zip(axes, recordings, strict=True)):
            own = data[data["recording"] == recording]
            told = [inputs.labels[model] for model in own["model"]]
            # A colour is an objective's; the names tell the other networks apart.
            known = zip(own["model"], own["objective"].notna(), strict=True)
            colours = [looks[model][0] if ours else INK for model, ours in known]
            _panel(own, ax, [names.get(label, label) for label in told], colours)
            letter(ax, LETTERS[k] if len(recordings) > 1 else "", recording)
        legend_above(figure, axes, columns)
    best = data.iloc[int(data["value"].argmax())]
    shares, of = data["share"].dropna(), ""
    if len(shares):
        of = f" On the way to the brain they are {shares.min():.2f} to "
        of += f"{shares.max():.2f} (n = {len(shares)})."
    return completed(
        figure,
        data.drop(columns="rank"),
        inputs,
        notes,
        title="Predictivity between untrained networks and the brain",
        caption="Raw predictivity of each network (Pearson r between predicted and "
        "recorded responses, median over neuroids, mean over splits; not divided by a "
        "ceiling) ± one standard error. A line leads to it from the mean of networks "
        "of its architecture with random weights (ticks). Brain: each animal predicted "
        "from all others by the same regression and splits, mean and range over "
        "animals; networks beside it are means over animals, too, with the standard "
        "error over animals. At the right, (r − untrained) / (brain − untrained): 0 is "
        "what the architecture gives for nothing, 1 what other animals tell, which is "
        "less the fewer their neuroids and repetitions. √ceiling: the r that a perfect "
        "model would reach.",
        alt=f"Dot plots of {counted(data['model'].nunique(), 'network')} for "
        f"{counted(len(recordings), 'recording')}. The highest is "
        f"{best['value']:.3f}: {inputs.labels[best['model']]} for "
        f"{best['recording']}.{of}",
    )


def _with_standings(inputs: Inputs) -> Inputs:
    """Scores with where they stand; of recordings with a brain, means over animals."""
    import pandas as pd

    rows = inputs.rows
    if rows.empty or not (scored := rows["stage"] == "score").any():
        return inputs
    own = rows[scored]
    found = standings(own.to_dict("records"))
    own = own.assign(
        share=[np.nan if one.share is None else one.share for one in found],
        nulls=pd.Series([one.nulls for one in found], own.index, dtype=object),
        brains=pd.Series([one.brains for one in found], own.index, dtype=object),
    )
    own = own[~own["model"].str.startswith(BRAIN)]
    if "animal" in own:
        beside = (own["animal"] == "mean") & own["brains"].map(bool)
        whole = own["animal"].isna()
        whole &= ~own["recording"].isin(set(own["recording"][beside]))
        own = own.assign(animal=own["animal"].where(~beside))[beside | whole]
    return replace(inputs, rows=pd.concat([rows[~scored], own], ignore_index=True))


def _ranked(rows: "pd.DataFrame") -> "pd.DataFrame":
    """What is drawn, the best network of each recording first."""
    import pandas as pd

    if rows.empty or "nulls" not in rows:
        return pd.DataFrame()
    rows = rows[rows["nulls"].notna()]
    shown = set(rows["model"])
    rows = rows[[network_behind(model) not in shown for model in rows["model"]]]
    rows = rows.sort_values(["recording", "value"], ascending=[True, False])
    kept = ["model", "recording", "region", "layer", "value", "error", "low", "high"]
    kept += ["ceiling", "objective", "equivariance_weight", "origin", "source"]
    data = rows[[name for name in kept if name in rows]]
    several = {name: rows[name].map(list) for name in ("nulls", "brains")}
    return data.assign(
        rank=rows.groupby("recording").cumcount(),
        **{name: cells.map(_mean) for name, cells in several.items()},
        **{f"n_{name}": cells.map(len) for name, cells in several.items()},
        share=rows["share"],
        **{f"each_{name}": c.map(_joined) for name, c in several.items()},
    )


def _mean(values: list[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _joined(values: list[float]) -> str:
    return " ".join(map(repr, values))


def _panel(
    points: "pd.DataFrame", ax: "Axes", names: list[str], colours: list[Any]
) -> None:
    """Networks of a recording below each other, with what they stand between."""
    y = points["rank"].to_numpy()
    ax.hlines(y, points["nulls"], points["value"], color=GUIDE, linewidth=0.8, zorder=1)
    ticks = [
        (float(null), place)
        for place, cell in zip(y, points["each_nulls"], strict=True)
        for null in cell.split()
    ]
    if ticks:
        x, at = zip(*ticks, strict=True)
        ax.plot(x, at, "|", color=NEUTRAL, markersize=5, label="untrained")
    ax.hlines(y, points["low"], points["high"], color=colours, linewidth=1)
    ax.scatter(points["value"], y, c=colours, s=13, linewidths=0, zorder=3)
    told = [cell for cell in points["each_brains"] if cell]
    if told:
        brains = [float(r) for r in told[0].split()]
        ax.axvline(float(np.mean(brains)), color=BRAINS, linewidth=1, label="brain")
        ax.axvspan(min(brains), max(brains), color=BRAINS, alpha=0.1, linewidth=0)
    elif (ceilings := points["ceiling"].astype(float).dropna()).gt(0).any():
        top = float(ceilings[ceilings > 0].iloc[0]) ** 0.5
        ax.axvline(top, color=INK, linestyle=":", linewidth=0.8, label="√ceiling")
    shares = dict(zip(y, points["share"], strict=True))
    texts = {place: minus(f"{x:.2f}") for place, x in shares.items() if np.isfinite(x)}
    if texts:
        texts = {-1: "to the brain", **texts}
    for place, text in texts.items():
        where = ax.get_yaxis_transform()
        ax.text(1.01, place, text, transform=where, va="center", fontsize=5.6)
    ax.set_yticks(y, names)
    ax.set_ylim(len(points) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.margins(x=0.05)
    ax.set_xlabel("Predictivity, r")
