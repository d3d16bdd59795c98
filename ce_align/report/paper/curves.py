"""Figures 2, 5, 7 and the training curves: lines against λ or against the step."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from ce_align.data.scenes import SIMULATED_IMAGES
from ce_align.models.catalogue import trained_label
from ce_align.report.inputs import Inputs
from ce_align.report.paper.distances import differences
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import average, main_recipe, missing_weights, with_networks
from ce_align.report.style import (
    GUIDE,
    INK,
    LETTERS,
    NEUTRAL,
    legend_entries,
    letter,
    objective_colour,
    objective_label,
    objective_marker,
    objective_order,
    panel_grid,
    shade,
    style,
    weight_label,
)
from ce_align.stages.comparable import MEASURE_SETTINGS, Selection, comparable
from ce_align.stages.measures import COMPARISON_TITLES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    *(
        "NO_ONLINE",
        "figure_2",
        "figure_5",
        "figure_7",
        "figure_time",
        "figure_training",
    ),
    "online_points",
]

#: Accuracy of the probe that was trained along: on validation images, else on views.
ONLINE_METRICS = ("probe_top1", "probe_train_top1")
#: What Figure 5 and Table 3 lack where there is none.
NO_ONLINE = (
    "needs the accuracy of the online probe of networks that were trained here; run "
    "`ce-align train` on labelled images, then `ce-align transfer --online --model "
    "FOLDER`"
)
#: Size of titles of panels beside each other in one column, in points.
NARROW = 6.0

#: Both parts of the loss, and the style of their lines.
LOSSES: Mapping[str, Literal["-", "--"]] = {
    "loss_invariant": "-",
    "loss_equivariant": "--",
}
#: What else is drawn of a training: its title, and its scale (shares in percent).
CURVES = {
    "effective_rank": ("Effective rank", 1),
    "knn_top1": ("Neighbours, top-1 (%)", 100),
    "probe_top1": ("Online probe, top-1 (%)", 100),
    "probe_train_top1": ("Probe on views, top-1 (%)", 100),
}
#: Lines of fewer points have marks.
MARKED = 20


class Panel(NamedTuple):
    """A panel: its title, the label of its vertical axis, and its points.

    Points have columns ``objective``, ``weight``, ``value``, ``low``, ``high`` and
    perhaps ``views``: networks of ``weak`` views have dashed lines.
    """

    title: str
    label: str
    found: Selection
    zero: bool = False  # whether 0 is a reference


def figure_2(inputs: Inputs, columns: int = 2) -> Drawn:
    """ΔD_B against λ for the four comparisons, and decoding R² against λ."""
    panels = {}
    for comparison, title in COMPARISON_TITLES.items():
        found = differences(inputs, comparison)
        points = average(found.rows) if len(found.rows) else found.rows
        found = Selection(points, found.notes)
        panels[comparison] = Panel(title, "$\\Delta D_B$", found, zero=True)
    method, kind = _decoding(inputs)
    found = _decoding_points(inputs, method, "Decoding")
    panels[method] = Panel(f"Decoding, {kind}", "Held-out $R^2$", found)
    shown, data, notes = _filled(panels)
    if not shown:
        raise NothingToDraw(
            "Figure 2 needs rows of `ce-align analyze --metric bures` and `--metric "
            "decoding` for networks of known λ; run `ce-align analyze --model paper`"
        )
    n_compared = sum(panel.zero for panel in shown)
    return completed(
        _curve_figure(shown, columns),
        data,
        inputs,
        notes,
        title="Equivariant training changes the shape of variability",
        caption=_parts_of_figure_2(n_compared, len(shown)) + _bands(data),
        alt=f"{len(shown)} line plots against the equivariance weight, a line for each "
        f"objective. {_ends(data, 'panel')}",
    )


def _parts_of_figure_2(n_compared: int, n_panels: int) -> str:
    """What its panels show, by their letters; those without rows have none."""
    compared, decoded = LETTERS[:n_compared], LETTERS[n_compared:n_panels]
    parts = ""
    if compared:
        ends = "–".join(dict.fromkeys((compared[0], compared[-1])))
        parts += (
            f"{ends}: expected difference of squared Bures distance from the network "
            "of the same objective at λ = 0, ΔD_B = D_B(λ = 0) − D_B(λ), on identical "
            "images and augmentation draws. "
        )
    if decoded:
        parts += (
            f"{decoded}: held-out R² of decoding augmentation parameters, mean over "
            "parameters. "
        )
    # A single panel has no letter.
    alone = parts.partition(": ")[2]
    return parts if n_panels > 1 else alone[0].upper() + alone[1:]


def figure_5(inputs: Inputs, columns: int = 2) -> Drawn:
    """Accuracy of the online probe against λ."""
    found = online_points(inputs)
    if found.rows.empty:
        raise NothingToDraw(f"Figure 5 {NO_ONLINE}")
    on = "validation images" if set(found.rows["metric"]) == {"probe_top1"} else "views"
    percent = {name: 100 * found.rows[name] for name in ("value", "low", "high")}
    points = found.rows.assign(**percent)
    panel = Panel(f"Online probe, {on}", "Top-1 accuracy (%)", Selection(points))
    return completed(
        _curve_figure([panel], columns),
        points,
        inputs,
        [*found.notes, *missing_weights(points, "Online probe")],
        title="In-distribution accuracy against the equivariance weight",
        caption=f"Top-1 accuracy, on {on}, of a linear classifier that was trained "
        f"along on detached features. {_bands(points)}",
        alt="Line plot of top-1 accuracy in percent against the equivariance weight. "
        + _ends(points, "metric"),
    )


def figure_7(inputs: Inputs, columns: int = 2) -> Drawn:
    """Decoding R² of weak views, and of views beyond the weak range."""
    method, kind = _decoding(inputs)
    panels = {}
    for part, title in (("weak", "Weak views"), ("strong_only", "Strong views")):
        metric = f"{method}_{part}"
        found = _decoding_points(inputs, metric, title, views=True)
        panels[metric] = Panel(title, "Held-out $R^2$", found)
    shown, data, notes = _filled(panels)
    if not shown:
        raise NothingToDraw(
            "Figure 7 needs rows of `ce-align analyze --metric decoding` for networks "
            "of known λ; run `ce-align analyze --metric decoding --model paper`"
        )
    return completed(
        _curve_figure(shown, columns),
        data,
        inputs,
        notes,
        title="Decoding of weak and of strong augmentations",
        caption=f"Held-out R² of decoding augmentation parameters ({kind}), mean over "
        "parameters: among views whose parameters are within the weak range, and among "
        f"those with a parameter beyond it. {_bands(data)}",
        alt=f"{len(shown)} line plots of R² against the equivariance weight. "
        + _ends(data, "panel"),
    )


def online_points(inputs: Inputs) -> Selection:
    """Accuracy of the online probe, averaged over networks; a column ``metric``."""
    found = inputs.stage(
        "train", where=lambda rows: rows["metric"].isin(ONLINE_METRICS)
    )
    found = found.then(with_networks).then(main_recipe)
    for metric in ONLINE_METRICS if len(found.rows) else ():
        own = Selection(found.rows[found.rows["metric"] == metric], found.notes)
        same = own.then(comparable, ("data_digest",), "Online probe")
        if len(same.rows):
            return Selection(average(same.rows).assign(metric=metric), same.notes)
    return Selection(found.rows.iloc[:0], found.notes)


def _bands(points: "pd.DataFrame") -> str:
    """What the bands are, and that λ is no scale."""
    kinds = sorted(set(points["spread"]) - {"none"})
    words = f"Bands: {'; '.join(kinds)}. " if kinds else ""
    return words.replace("sd over", "mean ± sd over") + "Weights λ are spaced evenly."


def _filled(
    panels: dict[str, Panel],
) -> "tuple[list[Panel], pd.DataFrame, list[str]]":
    """Panels that have points, all points with their panel, and what is missing."""
    import pandas as pd

    notes: list[str] = []
    shown, points = [], []
    for name, panel in panels.items():
        notes += panel.found.notes
        if panel.found.rows.empty:
            notes.append(f"{panel.title}: no rows.")
            continue
        notes += missing_weights(panel.found.rows, panel.title)
        shown.append(panel)
        points.append(panel.found.rows.assign(panel=name))
    data = pd.concat(points, ignore_index=True) if points else pd.DataFrame()
    return shown, data, notes


def _decoding(inputs: Inputs) -> tuple[str, str]:
    """Ridge if it was computed, else least squares."""
    rows = inputs.stage("analyze").rows
    ols = len(rows) and "decoding_ridge" not in set(rows["metric"])
    return ("decoding_ols", "OLS") if ols else ("decoding_ridge", "ridge")


def _decoding_points(
    inputs: Inputs, metric: str, what: str, *, views: bool = False
) -> Selection:
    """Points of one measure of decoding, of strong views where there are any.

    With `views`, networks trained on weak views are apart, in a column ``views``.
    """
    import pandas as pd

    found = inputs.stage("analyze", where=lambda rows: rows["metric"] == metric)
    if found.rows.empty:
        return found
    # Weak views have nothing beyond the weak range.
    beyond = inputs.stage(
        "analyze",
        where=lambda rows: (
            rows["metric"].str.endswith("_strong_only") & rows["value"].notna()
        ),
    )
    strong = found.rows["config_id"].isin(beyond.rows["config_id"])
    known = with_networks(found.rows[strong] if strong.any() else found.rows)
    if known.rows.empty:
        return known
    weak = known.rows["augmentation"] == "weak"
    parts: Sequence[tuple[str, pd.DataFrame]] = [("", known.rows)]
    if views:
        parts = [("strong", known.rows[~weak]), ("weak", known.rows[weak])]
    points_of, notes = [], [*found.notes, *known.notes]
    for kind, part in parts:
        same = main_recipe(part).then(comparable, MEASURE_SETTINGS, what)
        notes += same.notes
        if len(same.rows):
            points = average(same.rows)
            points_of.append(points.assign(views=kind) if views else points)
    rows = pd.concat(points_of, ignore_index=True) if points_of else known.rows.iloc[:0]
    return Selection(rows, tuple(notes))


def _curve_figure(panels: Sequence[Panel], columns: int) -> "Figure":
    """Panels with letters, and the legend in the place after them."""
    among = objective_order(o for p in panels for o in p.found.rows["objective"])
    weights = sorted({w for p in panels for w in p.found.rows["weight"]})
    n = len(panels)
    across = min(3 if columns == 2 else 2, n + 1)
    # Without a free place the legend is a line above the panels.
    above = 0.0 if n % across else 0.25
    with style():
        height = 1.75 if columns == 2 else 1.5
        # A single panel may be wide.
        ratios = [2, 1] if n == 1 else [1] * across
        figure, shown, free = panel_grid(
            columns, n, across, height, above, width_ratios=ratios
        )
        for k, (panel, ax) in enumerate(zip(panels, shown, strict=True)):
            if panel.zero:
                ax.axhline(0, color=GUIDE, linewidth=0.6, zorder=0)
            _lines(panel.found.rows, ax, weights, among)
            letter(ax, LETTERS[k] if n > 1 else "", panel.title)
            if columns == 1:  # where the longest title would touch the next letter
                ax.title.set_fontsize(NARROW)
            ax.set(xlabel="Equivariance weight λ", ylabel=panel.label)
        entries = legend_entries(shown)
        if free:
            free[0].legend(*entries, loc="center", title="Objective")
        else:
            figure.legend(*entries, loc="outside upper left", ncols=3)
    return figure


def _lines(
    points: "pd.DataFrame", ax: "Axes", weights: Sequence[float], among: Sequence[str]
) -> None:
    """A line for each objective through its points, with its band."""
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


def _ends(data: "pd.DataFrame", key: str) -> str:
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


def figure_training(inputs: Inputs, columns: int = 2) -> Drawn:
    """Curves of every training whose history is at hand."""
    data = _recorded(inputs)
    if data.empty:
        raise NothingToDraw(
            "training curves need the folder of a training with its log; name it with "
            "`ce-align figures --which training --run FOLDER`"
        )
    networks = _colours_and_labels(data, inputs.labels)
    panels = _training_panels(data)
    across, height = (3, 1.6) if columns == 2 else (2, 1.35)
    with style():
        figure, axes, _ = panel_grid(columns, len(panels), across, height, 0.3)
        for k, (title, points) in enumerate(panels):
            ax = axes[k]
            for model, (colour, label) in networks.items():
                own = points[points["model"] == model]
                for curve, line in own.groupby("curve", sort=False):
                    ax.plot(
                        line["step"],
                        line["value"],
                        LOSSES.get(str(curve), "-"),
                        color=colour,
                        marker="o" if len(line) < MARKED else "",
                        ms=2,
                        label=label,
                    )
            ax.set_xlabel("Step")
            letter(ax, LETTERS[k], title)
            if columns == 1:
                ax.title.set_fontsize(NARROW)
        _training_legend(figure, legend_entries(axes), data, columns)
    there = set(data["curve"])
    absent = {name: title for name, (title, _) in CURVES.items() if name not in there}
    # Views stand in for validation images where there are none.
    if "probe_top1" not in absent:
        absent.pop("probe_train_top1", None)
    return completed(
        figure,
        data,
        inputs,
        [f"Not recorded: {', '.join(absent.values())}."] if absent else [],
        title="Training curves",
        caption="Numbers that were recorded during training; darker lines have a "
        "larger equivariance weight λ. Losses of different objectives have different "
        "scales.",
        alt=f"{len(panels)} line plots against the step, for {len(networks)} "
        "trainings.",
    )


def _training_panels(data: "pd.DataFrame") -> "list[tuple[str, pd.DataFrame]]":
    """Title and points: losses, a panel for each objective, then every other curve."""
    losses = data[data["curve"].isin([*LOSSES, "loss"])]
    unknown = losses["objective"].isna()
    panels = [
        (f"Loss, {objective_label(name)}", losses[losses["objective"] == name])
        for name in objective_order(losses["objective"][~unknown])
    ]
    if unknown.any():
        panels.append(("Loss", losses[unknown]))
    parts = [(title, data[data["curve"] == n]) for n, (title, _) in CURVES.items()]
    return [*panels, *(part for part in parts if len(part[1]))]


def _training_legend(
    figure: "Figure",
    entries: "tuple[list[Artist], list[str]]",
    data: "pd.DataFrame",
    columns: int,
) -> None:
    """Networks, and what a dashed line is, above all panels."""
    from matplotlib.lines import Line2D

    handles, labels = entries
    if "loss_equivariant" in set(data["curve"]):
        for name, line in LOSSES.items():
            handles.append(Line2D([], [], color=INK, linestyle=line))
            labels.append(f"{name.removeprefix('loss_')} loss")
    # As many columns as fit: names of trainings are as long as their folders'.
    for n in range(4 if columns == 2 else 2, 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper left", ncols=n)
        if n == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def _recorded(inputs: Inputs) -> "pd.DataFrame":
    """All points of all curves."""
    import pandas as pd

    stored: dict[tuple[str, str], object] = {}
    if len(inputs.rows) and "source" in inputs.rows:
        rows = inputs.rows[inputs.rows["stage"] == "train"]
        names = zip(rows["model"], rows["metric"], strict=True)
        stored = dict(zip(names, rows["source"], strict=True))
    parts = []
    for model, table in inputs.histories.items():
        facts = inputs.facts(model)
        simulated = facts.pretraining == SIMULATED_IMAGES
        # The whole loss, their weighted mean, only where its parts are not there.
        losses = [name for name in LOSSES if name in table] or ["loss"]
        for name in (*losses, *CURVES):
            values = pd.to_numeric(table.get(name, pd.Series(dtype=float)))
            values = values[np.isfinite(values)]
            if len(values):
                part = pd.DataFrame({"curve": name, "model": model}, values.index)
                weight = facts.equivariance_weight
                part = part.assign(objective=facts.objective, weight=weight)
                part["step"] = table["step"]
                part["value"] = CURVES.get(name, ("", 1))[1] * values
                part["origin"] = "simulated" if simulated else "files"
                # What a training ended with is a row.
                end = [None] * (len(part) - 1) + [stored.get((model, name))]
                part["source"] = pd.Series(end, part.index, dtype=object)
                parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


#: What scores at two moments must agree in; the responses are others in each bin.
TIME_SETTINGS = ("region", "regression", "n_splits", "seed")


def figure_time(inputs: Inputs, columns: int = 2) -> Drawn:
    """Raw predictivity against time after stimulus onset, a panel for each region."""
    import pandas as pd

    found = inputs.stage("score", where=_is_bin)
    data, notes = _moments(found.rows), list(found.notes)
    parts = []
    for (name, region), group in data.groupby(["recording", "region"], sort=False):
        chosen = comparable(
            group, TIME_SETTINGS, f"{name}, {region}", keys=("time_start", "time_end")
        )
        notes += chosen.notes
        parts.append((f"{name}, {region}", chosen.rows))
    if not parts:
        raise NothingToDraw(
            "the figure against time needs scores of several time bins; run `ce-align "
            "score --time all` for a recording that has them"
        )
    networks = _colours_and_labels(data, inputs.labels)
    across, height = (2, 1.9) if columns == 2 else (1, 1.7)
    with style():
        figure, axes, _ = panel_grid(columns, len(parts), across, height, 0.3)
        for ax, (title, points) in zip(axes, parts, strict=True):
            for model, (colour, label) in networks.items():
                own = points[points["model"] == model].sort_values("time")
                raw, error = own["value"], own["error"].astype(float).fillna(0)
                ax.plot(own["time"], raw, color=colour, label=label)
                ax.fill_between(
                    *(own["time"], raw - error, raw + error),
                    color=colour,
                    alpha=0.2,
                    linewidth=0,
                )
            ax.set(xlabel="Time after onset (ms)", ylabel="Predictivity, Pearson r")
            ax.set_title(title, loc="left")
        handles, labels = legend_entries(axes)
        figure.legend(handles, labels, loc="outside upper left", ncols=columns)
    drawn = pd.concat([points for _, points in parts])
    best = drawn.iloc[int(drawn["value"].argmax())]
    kept = ["model", "recording", "region", "time_start", "time_end", "value", "error"]
    return completed(
        figure,
        drawn[[*kept, *(n for n in ("origin", "source") if n in drawn)]],
        inputs,
        notes,
        title="Predictivity against time",
        caption="Raw predictivity (Pearson r) of the responses in each time bin, at "
        "its middle. Bands: standard error over splits.",
        alt=f"Line plots against time for {len(networks)} networks. The highest is "
        f"{best['value']:.3f}, {inputs.labels[best['model']]} at {best['time']:g} ms.",
    )


def _is_bin(rows: "pd.DataFrame") -> "pd.Series[bool]":
    """Rows of a time window, of all animals together."""
    if "time_start" not in rows:
        return rows["stage"].isna()
    pooled = rows["animal"].isna() if "animal" in rows else rows["stage"].notna()
    return rows["time_start"].notna() & pooled


def _moments(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of bins, which are as wide as most, of recordings with several."""
    if rows.empty:
        return rows.assign(recording=[], region=[])
    start = rows["time_start"].to_numpy(np.float64)
    end = rows["time_end"].to_numpy(np.float64)
    rows = rows.assign(
        value=rows["raw"].astype(float),
        time=(start + end) / 2,
        width=(end - start).round(6),
        weight=rows["equivariance_weight"],
    )
    by_part = rows.groupby(["recording", "region"])
    usual = by_part["width"].transform(lambda widths: widths.mode().iloc[0])
    rows = rows[rows["width"] == usual]
    several = rows.groupby(["recording", "region"])["time"].transform("nunique") > 1
    return rows[several]


def _colours_and_labels(
    data: "pd.DataFrame", labels: Mapping[str, str]
) -> dict[str, tuple[object, str]]:
    """Colour by objective and λ, and a label of each colour, by network."""
    every = data.drop_duplicates("model")
    named = every.dropna(subset=["objective", "weight"])
    objectives = objective_order(named["objective"])
    weights = sorted(set(named["weight"]))
    found: dict[str, tuple[object, str]] = {}
    for objective in objectives:
        own = named[named["objective"] == objective].sort_values(["weight", "model"])
        for row in own.to_dict("records"):
            label = labels[row["model"]]
            n_alike = int((own["weight"] == row["weight"]).sum())
            if n_alike > 1:  # they share a colour, and so a place in the legend
                label = trained_label(objective, row["weight"])
                label += f" ({n_alike} trainings)"
            # The lightest shade is too pale for a line.
            place = weights.index(row["weight"]) + 1
            colour = objective_colour(objective, objectives)
            found[row["model"]] = shade(colour, place, len(weights) + 1), label
    for model in every["model"]:
        found.setdefault(model, (NEUTRAL, labels[model]))
    return found
