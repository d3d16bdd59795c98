"""Figures 3, 4, 8, layers and overlap: how well networks predict recordings."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.report.inputs import Inputs, predictivity_points
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import (
    average,
    main_recipe,
    missing_weights,
    only,
)
from ce_align.report.style import (
    INK,
    LETTERS,
    NEUTRAL,
    letter,
    minus,
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
from ce_align.stages.comparable import RAW_SETTINGS, Selection, comparable, pooled

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["figure_3", "figure_4", "figure_8", "figure_layers", "figure_overlap"]

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
#: Share of a group's width that its bars take, and the width of one bar at most.
FILLED, WIDEST = 0.84, 0.2

#: The paper's recordings: their mean is a network's score.
IT_SETS = ("majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020")
#: Between names of recordings, which may have spaces.
TOGETHER = "; "

#: Regions along the ventral stream, in this order.
REGIONS = ("V1", "V2", "V4", "IT")
#: As many heat maps of layers at most.
MOST_MAPS = 9

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
    return _bars(
        inputs,
        rows,
        {name: (name, objective_label(name)) for name in objectives},
        list(found.notes),
        columns,
        title="Predictivity of the equivariant networks",
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
    return _bars(
        inputs,
        rows,
        panels,
        list(found.notes),
        columns,
        title="Predictivity of other backbones and trainings",
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


def _bars(
    inputs: Inputs,
    rows: "pd.DataFrame",
    panels: Panels,
    notes: list[str],
    columns: int,
    *,
    title: str,
    complete: bool,
) -> Drawn:
    """Panels of bars from light to dark by λ, a group for each recording.

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
    across = min(len(panels), 3) if columns == 2 else 1
    height = 1.9 if columns == 2 else 1.45
    with style():
        figure, axes, _ = panel_grid(
            columns, len(panels), across, height, 0.3, sharey=True
        )
        for k, (name, (objective, heading)) in enumerate(panels.items()):
            own = points[points["panel"] == name]
            colour = objective_colour(objective, [o for o, _ in panels.values()])
            _groups_of_bars(own, axes[k], recordings, colour)
            letter(axes[k], LETTERS[k] if len(panels) > 1 else "", heading)
        for ax in axes[::across]:
            ax.set_ylabel(axis)
        line = "√ceiling" if points["ceiling"].notna().any() else None
        weight_legend(figure, sorted(set(points["weight"])), columns, line)
    best = points.iloc[int(points["value"].argmax())]
    return completed(
        figure,
        points,
        inputs,
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
    points: "pd.DataFrame", panels: Panels, recordings: Sequence[str]
) -> list[str]:
    """Weights that have a bar for some recordings only, and recordings without bars."""
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


def _groups_of_bars(
    points: "pd.DataFrame", ax: "Axes", recordings: Sequence[str], colour: str
) -> None:
    """Bars of one objective, with the ceiling of each recording."""
    n = int(points["n_places"].iloc[0])
    width = min(FILLED / n, WIDEST)
    for k, recording in enumerate(recordings):
        group = points[points["recording"] == recording]
        if group.empty:
            continue
        x = k + (group["place"] - (n - 1) / 2) * width
        shades = [shade(colour, int(place), n) for place in group["place"]]
        values = group["value"]
        ax.bar(x, values, width, color=shades, edgecolor="white", linewidth=0.25)
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


def _broken(name: str) -> str:
    """A name in lines of about ten letters, broken where its parts begin."""
    lines = [""]
    for part in re.split(r"(?=[-_ ])|(?<=\D)(?=\d)", name.rpartition("/")[2]):
        if len(lines[-1]) >= 6:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


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
        title="The networks among others",
        caption=f"Score (raw² / ceiling; {score}) of each network by rank, "
        f"among {len(rest)} other networks whose scores were given in a file. Whether "
        "both are of the same benchmark is for who gives the file to know.",
        alt=f"Scores of {len(points)} networks from the best to the worst. The best of "
        f"ours, {best['model']}, has rank {best['rank']} with {best['score']:.3f}.",
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


def figure_layers(inputs: Inputs, columns: int = 2) -> Drawn:
    """Raw predictivity by layer and area, a panel for each network."""
    import pandas as pd

    scored = inputs.stage("score").then(pooled)
    rows, notes = scored.rows, list(scored.notes)
    parts = [rows.iloc[:0]]
    if len(rows):
        rows = rows.assign(value=rows["raw"])
        for recording, group in rows.groupby("recording", sort=True):
            found = comparable(group, RAW_SETTINGS, str(recording), keys=("layer",))
            notes += found.notes
            parts.append(found.rows)
    data = pd.concat(parts, ignore_index=True)
    if len(data):
        several = data.groupby("model")["layer"].nunique()
        single = list(several.index[several == 1])
        if single:
            notes.append(f"Left out, scored at one layer only: {named_some(single)}.")
        data = data[~data["model"].isin(single)]
    if data.empty:
        raise NothingToDraw(
            "the heat map of layers needs scores of several layers of a network; run "
            "`ce-align score --model NAME --layer all --recording ...`"
        )
    models = list(dict.fromkeys(data["model"]))
    if len(models) > MOST_MAPS:
        notes.append(f"The first {MOST_MAPS} of {len(models)} networks are shown.")
        models = models[:MOST_MAPS]
    kept = ["model", "region", "recording", "layer", "value", "origin", "source"]
    data = data[data["model"].isin(models)].reset_index(drop=True)
    data = data[[name for name in kept if name in data]]
    tables = {model: _layer_table(data[data["model"] == model]) for model in models}
    n_empty = sum(int(table.isna().to_numpy().sum()) for table in tables.values())
    if n_empty:
        notes.append(f"Empty: layers without a score for a recording, {n_empty}.")
    labels = inputs.labels
    low, high = float(data["value"].min()), float(data["value"].max())
    across = min(len(models), 2 if columns == 2 else 1)
    tallest = max(len(table) for table in tables.values())
    with style():
        figure, axes, free = panel_grid(
            columns, len(models), across, 0.75 + 0.17 * tallest
        )
        for ax, (model, table) in zip(axes, tables.items(), strict=True):
            _heat_map(table, ax, low, high)
            ax.set_title(labels[model])
            ax.set_ylabel("Layer, from the input up")
        every = [*axes, *free]
        bar = figure.colorbar(axes[0].images[0], ax=every, pad=0.02, aspect=30)
        bar.set_label("Predictivity, Pearson r")
        bar.outline.set_visible(False)
    best = data.iloc[int(data["value"].argmax())]
    return completed(
        figure,
        data,
        inputs,
        notes,
        title="Predictivity by layer and area",
        caption="Raw predictivity (Pearson r) of each layer for each recording.",
        alt=f"Heat maps of predictivity, layers by areas. The highest is "
        f"{best['value']:.3f}: {best['layer']} of {best['model']} for "
        f"{best['recording']}.",
    )


def _layer_table(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Layers by recordings, recordings along the stream of areas."""
    order = {region: k for k, region in enumerate(REGIONS)}
    by_area = rows.assign(order=rows["region"].map(order).fillna(len(order)))
    by_area = by_area.sort_values(["order", "recording"])
    regions = dict(zip(by_area["recording"], by_area["region"], strict=True))
    table = rows.pivot_table(index="layer", columns="recording", values="value")
    table = table.loc[list(dict.fromkeys(rows["layer"])), list(regions)]
    names = [r if area in r else f"{r}\n{area}" for r, area in regions.items()]
    return table.set_axis(names, axis=1)


def _heat_map(table: "pd.DataFrame", ax: "Axes", low: float, high: float) -> None:
    """Values of a table as colours between `low` and `high`, each in its cell."""
    values: NDArray[np.float64] = table.to_numpy(np.float64)
    # Two digits that differ, also among small shares of variance.
    digits = 2 if high >= 0.1 else 3
    ax.imshow(values, vmin=low, vmax=high, cmap="viridis", aspect="auto")
    size = 6.2 if values.shape[1] <= 6 else 5
    for i, k in np.ndindex(*values.shape):
        value = float(values[i, k])
        if np.isfinite(value):
            bright = (value - low) > 0.6 * (high - low)
            ax.text(
                k,
                i,
                minus(f"{round(value, digits) + 0.0:.{digits}f}"),
                ha="center",
                va="center",
                fontsize=size,
                color="black" if bright else "white",
            )
    ax.set_xticks(range(values.shape[1]), [str(name) for name in table.columns])
    ax.set_yticks(range(values.shape[0]), [str(name) for name in table.index])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)


def figure_overlap(inputs: Inputs, columns: int = 2) -> Drawn:
    """Shared and unique parts of the explained variance, network by network."""
    import pandas as pd

    found = inputs.stage("overlap")
    rows, notes = found.rows, list(found.notes)
    if rows.empty:
        raise NothingToDraw(
            "the overlap matrix needs rows of `ce-align overlap`; run it for pairs of "
            "networks and one recording"
        )
    counts = rows.groupby("recording")["config_id"].nunique()
    recording = str(counts.idxmax())
    if len(counts) > 1:
        others = [str(name) for name in counts.index if name != recording]
        notes.append(f"{recording} is shown; there are rows for {named_some(others)}.")
    rows = rows[rows["recording"] == recording].sort_values("created", kind="stable")
    rows = rows.drop_duplicates(["model", "other", "metric"], keep="last")
    gone = rows[pd.to_numeric(rows["value"], errors="coerce").isna()]
    if len(gone):
        names = zip(gone["model"], gone["other"], strict=True)
        undefined = dict.fromkeys(f"{a} and {b}" for a, b in names)
        notes.append(f"Without a value: {named_some(list(undefined))}.")
    order = ["part", "network", "beside"]
    data = pd.DataFrame(_overlap_cells(rows)).drop_duplicates(order)
    data = data.sort_values(order, ignore_index=True)
    models = list(dict.fromkeys([*rows["model"], *rows["other"]]))
    labels = inputs.labels
    n_pairs = len(models) * (len(models) - 1)
    n_absent = (n_pairs - int((data["part"] == "shared").sum())) // 2
    if n_absent:
        notes.append(f"{n_absent} pairs of networks were not compared.")
    words = {"shared": "explained by both", "unique": "explained by row alone"}
    with style():
        figure, axes, _ = panel_grid(columns, 2, columns, 1.0 + 0.27 * len(models))
        for ax, name, (kind, what) in zip(axes, LETTERS, words.items(), strict=False):
            own = data[data["part"] == kind]
            table = own.pivot_table(index="network", columns="beside", values="value")
            table = table.reindex(index=models, columns=models)
            table = table.rename(index=labels, columns=labels)
            high = float(own["value"].max())
            _heat_map(table, ax, min(0.0, float(own["value"].min())), high or 1.0)
            ax.tick_params(axis="x", rotation=40)
            for label in ax.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
            letter(ax, name, f"$R^2$ {what}")
    return completed(
        figure,
        data,
        inputs,
        notes,
        title=f"Overlap of explained variance, {recording}",
        caption="Held-out R², mean over neuroids: A, explained by either network of a "
        "pair; B, what the network of the row adds to that of the column.",
        alt=f"Two matrices of {len(models)} networks: shared R² and unique R².",
    )


def _overlap_cells(rows: "pd.DataFrame") -> list[dict[Any, Any]]:
    """A cell for each ordered pair of networks and each part."""
    kept = ["value", "recording", "n_neuroids", "origin", "source"]
    cells = []
    for row in rows.to_dict("records"):
        pair = row["model"], row["other"]
        places = {
            "overlap_shared": [("shared", *pair), ("shared", *pair[::-1])],
            "overlap_unique_a": [("unique", *pair)],
            "overlap_unique_b": [("unique", *pair[::-1])],
        }
        for part, network, beside in places.get(row["metric"], ()):
            cell = {"part": part, "network": network, "beside": beside}
            cells.append(cell | {name: row[name] for name in kept if name in row})
    return cells
