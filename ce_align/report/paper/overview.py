"""Figures lambda and networks: everything against λ, and measures against scores."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.report.inputs import Inputs, predictivity_points
from ce_align.report.paper.accuracy import DATASETS
from ce_align.report.paper.curves import (
    Panel,
    bands,
    curve_lines,
    decoding_method,
    decoding_points,
    filled,
    online_points,
)
from ce_align.report.paper.distances import differences
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import (
    average,
    colours_and_labels,
    main_recipe,
    with_networks,
)
from ce_align.report.style import (
    GUIDE,
    INK,
    broken,
    legend_above,
    measure_name,
    minus,
    objective_colour,
    objective_label,
    objective_marker,
    objective_order,
    panel_grid,
    style,
    weight_label,
    wrapped,
)
from ce_align.stages.comparable import (
    MEASURE_SETTINGS,
    MEASURING,
    TRANSFER_SETTINGS,
    Selection,
    comparable,
)
from ce_align.stages.measures import COMPARISON_TITLES
from ce_align.stages.quantities import quantities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["NetworkPoints", "figure_lambda", "figure_networks", "network_points"]

#: Up to so many networks have a name each in a legend.
NAMED = 8
#: As many recordings have room in one column and in two.
MOST_RECORDINGS = {1: 4, 2: 7}


def figure_lambda(inputs: Inputs, columns: int = 2) -> Drawn:
    """Every measure, score and accuracy against λ, on one page of small panels."""
    panels = {**_scores(inputs), **_measures(inputs), **_accuracies(inputs)}
    shown, data, notes = filled({k: p for k, p in panels.items() if len(p.found.rows)})
    if not shown:
        raise NothingToDraw(
            "the page of everything against λ needs rows of `ce-align score`, "
            "`analyze` or `transfer` for networks of known λ; run `ce-align score "
            "--model paper`"
        )
    among = objective_order(data["objective"])
    weights = sorted(set(data["weight"]))
    across, height = (6, 1.08) if columns == 2 else (3, 1.0)
    with style():
        figure, axes, _ = panel_grid(columns, len(shown), across, height, 0.55)
        for k, (panel, ax) in enumerate(zip(shown, axes, strict=True)):
            curve_lines(panel.found.rows, ax, weights, among)
            low, high = ax.get_ylim()
            if low < 0 < high:
                ax.axhline(0, color=GUIDE, linewidth=0.8, zorder=0)
            ax.set_title(wrapped(panel.title, 17), fontsize=5.6)
            ax.set_ylabel(panel.label, fontsize=5.2, labelpad=1)
            ax.tick_params(labelsize=5, pad=1.5)
            ax.locator_params(axis="y", nbins=4)
            if k + across < len(shown):  # the same axis stands further below
                ax.tick_params(axis="x", labelbottom=False)
            else:
                ax.set_xlabel("λ", fontsize=5.6, labelpad=1)
                for text in ax.get_xticklabels()[1::2]:
                    text.set_visible(len(weights) <= 4)
        legend_above(figure, axes, columns)
    return completed(
        figure,
        data,
        inputs,
        notes,
        title="Scores, measures and accuracies against λ",
        caption="A panel for each number that rows have, every one on its own axis, "
        "which begins where the data do. Predictivity: raw Pearson r, not divided by "
        "a ceiling. ΔD_B: squared Bures distance at λ = 0 − at λ. Excess: D_B − its "
        "floor, both of halves of the clouds of responses; the floor is the mean "
        "distance between two halves of one cloud, which is not 0 because clouds are "
        "finite. R²: share of the variance of augmentation "
        "parameters that is decoded, of held-out images. Transfer to other data sets "
        "and online probe: share of images that are classified rightly. Grey line: 0. "
        f"{bands(data)} Nothing is corrected for the number of panels.",
        alt=f"{counted(len(shown), 'small line plot')} against the equivariance "
        f"weight: {', '.join(panel.title.replace(chr(10), ' ') for panel in shown)}.",
    )


def _scores(inputs: Inputs) -> dict[str, Panel]:
    found = predictivity_points(inputs).then(main_recipe)
    panels = {}
    for name, rows in found.rows.groupby("recording") if len(found.rows) else ():
        region = str(rows["region"].iloc[0]) if "region" in rows else ""
        title = str(name) if region in str(name) else f"{broken(str(name))} ({region})"
        points = average(rows)
        # Of a single network low and high are of its splits.
        one = points["spread"].str.startswith("95 %")
        points.loc[one, "spread"] = "± one standard error over splits"
        panels[f"predictivity, {name}"] = Panel(
            title, "Pearson r", Selection(points, found.notes)
        )
    return panels


def _measures(inputs: Inputs) -> dict[str, Panel]:
    panels = {}
    for comparison, title in COMPARISON_TITLES.items():
        found = differences(inputs, comparison)
        points = average(found.rows) if len(found.rows) else found.rows
        found = Selection(points, found.notes)
        name = f"{comparison}_delta"
        panels[name] = Panel(f"{title}, Δ", "$\\Delta D_B$", found)
    method, _ = decoding_method(inputs)
    for name, quantity in quantities().items():
        decoding = name.startswith("decoding_")
        other = decoding and not name.startswith(method)
        if quantity.place == "rows" or name in COMPARISON_TITLES or other:
            continue
        found = decoding_points(inputs, name, quantity.title)
        label = quantity.panel.axis if quantity.panel else ""
        label = "held-out $R^2$" if decoding else label
        panels[name] = Panel(quantity.title, label, found)
    return panels


def _accuracies(inputs: Inputs) -> dict[str, Panel]:
    online = online_points(inputs)
    panels = {"online probe": Panel("Online probe", "top-1 (share)", online)}
    known = inputs.stage("transfer").then(with_networks).then(main_recipe)
    for name, rows in known.rows.groupby("dataset") if len(known.rows) else ():
        same = comparable(rows, TRANSFER_SETTINGS, str(name))
        if len(same.rows):
            points = Selection(average(same.rows), (*known.notes, *same.notes))
            title = DATASETS.get(str(name), str(name))
            panels[f"transfer, {name}"] = Panel(title, "accuracy", points)
    return panels


class NetworkPoints(NamedTuple):
    """A point for each network, on any two axes.

    Attributes
    ----------
    frame : a row a network: ``model``, ``label``, ``objective`` and ``weight`` (None
        where unknown), ``colour``, ``origin``, and a column for each axis, NaN where
        there is no value
    measures, scores : axes of measures and of raw predictivity: column to title
    notes : what was left out
    """

    frame: "pd.DataFrame"
    measures: Mapping[str, str]
    scores: Mapping[str, str]
    notes: tuple[str, ...]


def network_points(inputs: Inputs) -> NetworkPoints:
    """Measures and raw predictivity of every network, of any objective or none."""
    import pandas as pd
    from matplotlib.colors import to_hex

    notes: list[str] = []
    columns: dict[str, pd.Series[float]] = {}
    origins: dict[str, set[str]] = {}

    def take(name: str, found: Selection) -> bool:
        notes.extend(found.notes)
        if len(found.rows):
            rows = found.rows.drop_duplicates("model", keep="last")
            values: Any = rows.set_index("model")["value"]
            columns[name] = values.astype(float)
            for model, origin in zip(rows["model"], rows["origin"], strict=True):
                origins.setdefault(model, set()).update(str(origin).split("+"))
        return len(found.rows) > 0

    measures, scores = {}, {}
    measured = inputs.stage(*MEASURING)
    if len(measured.rows):
        for metric, rows in measured.rows.groupby("metric", sort=False):
            known = quantities().get(str(metric))
            title = measure_name(str(metric))
            if known is not None and known.place == "rows":
                continue
            if take(str(metric), comparable(rows, MEASURE_SETTINGS, title)):
                measures[str(metric)] = title
    predicted = predictivity_points(inputs, every=True)
    notes += [*measured.notes, *predicted.notes, *_layers(measured, predicted)]
    for name, rows in (
        predicted.rows.groupby("recording") if len(predicted.rows) else ()
    ):
        column = f"predictivity, {name}"
        if take(column, Selection(rows)):
            scores[column] = str(name)
    frame = pd.DataFrame(columns).rename_axis("model").reset_index()
    facts = {name: inputs.facts(name) for name in frame["model"]}
    about = pd.DataFrame(
        {
            "model": frame["model"],
            "label": frame["model"].map(inputs.labels),
            "objective": [facts[name].objective for name in frame["model"]],
            "weight": [facts[name].equivariance_weight for name in frame["model"]],
            "origin": ["+".join(sorted(origins[name])) for name in frame["model"]],
        }
    )
    epochs = frame["model"].map({name: facts[name].epochs for name in frame["model"]})
    looks = colours_and_labels(about.assign(epochs=epochs), inputs.labels)
    about["colour"] = [to_hex(looks[name][0]) for name in frame["model"]]
    whole = pd.concat([about, frame.drop(columns="model")], axis=1)
    order = {name: k for k, name in enumerate(quantities())}
    measures = dict(sorted(measures.items(), key=lambda one: order.get(one[0], 999)))
    return NetworkPoints(whole, measures, scores, tuple(dict.fromkeys(notes)))


def _layers(measured: Selection, predicted: Selection) -> list[str]:
    """That measures and scores of networks are of different layers, where they are."""
    if measured.rows.empty or predicted.rows.empty:
        return []
    both = set(measured.rows["model"]) & set(predicted.rows["model"])
    of_measures, of_scores = (
        sorted({str(x) for x in rows[rows["model"].isin(both)].get("layer", ())})
        for rows in (measured.rows, predicted.rows)
    )
    if not of_measures or not of_scores or of_measures == of_scores:
        return []
    return [
        f"Different layers: measures are of {named_some(of_measures)}, predictivity of "
        f"{named_some(of_scores)}."
    ]


def figure_networks(inputs: Inputs, columns: int = 2) -> Drawn:
    """Measures of Table 1 against predictivity, a point for each network."""
    found = network_points(inputs)
    method, _ = decoding_method(inputs)
    table = [name for name, one in quantities().items() if one.place == "table"]
    measures = [
        name
        for name in found.measures
        if name in table and (name.startswith(method) or "decoding" not in name)
    ]
    if not measures or not found.scores:
        raise NothingToDraw(
            "the scatter of networks needs rows of `ce-align score` and of `ce-align "
            "analyze` for the same networks; run both"
        )
    frame = found.frame.dropna(subset=list(found.scores), how="all")
    frame = frame.dropna(subset=measures, how="all")
    long = frame.melt(
        ["model", "label", "objective", "weight", "origin", "colour", *measures],
        list(found.scores),
        "score",
        "y",
    ).melt(
        ["model", "label", "objective", "weight", "origin", "colour", "score", "y"],
        measures,
        "measure",
        "x",
    )
    data = long.dropna(subset=["x", "y"]).reset_index(drop=True)
    if data.empty:
        raise NothingToDraw(
            "no network has both a score and a measure; run `ce-align score` and "
            "`ce-align analyze` for the same networks"
        )
    measures = [name for name in measures if name in set(data["measure"])]
    scores = [name for name in found.scores if name in set(data["score"])]
    notes = list(found.notes)
    if len(scores) > (most := MOST_RECORDINGS[columns]):
        notes.append(f"The first {most} of {len(scores)} recordings are shown.")
        scores = scores[:most]
        data = data[data["score"].isin(scores)].reset_index(drop=True)
    across, down = (measures, scores) if columns == 2 else (scores, measures)
    height = 1.2 if columns == 2 else 0.95
    with style():
        figure, axes, _ = panel_grid(
            columns, len(across) * len(down), len(across), height, 0.45
        )
        for k, ax in enumerate(axes):
            i, j = divmod(k, len(across))
            pair = (across[j], down[i]) if columns == 2 else (down[i], across[j])
            own = data[(data["measure"] == pair[0]) & (data["score"] == pair[1])]
            _points(own, ax, narrow=columns == 1)
            ax.tick_params(labelsize=5, pad=1.5)
            ax.locator_params(axis="x", nbins=4 if columns == 2 else 2)
            ax.xaxis.set_major_formatter(lambda x, _: minus(weight_label(x)))
            ax.locator_params(axis="y", nbins=4)
            # The measure is across in either width: of one column it changes by row.
            name, score = measure_name(pair[0]), broken(found.scores[pair[1]])
            if columns == 1 or i == len(down) - 1:
                ax.set_xlabel(
                    wrapped(name, 16), fontsize=5.6 if columns == 2 else 5, labelpad=1
                )
            if j == 0:
                ax.set_ylabel("Pearson r" if columns == 1 else f"{score}\nPearson r")
                ax.yaxis.label.set_fontsize(5.6)
            if columns == 1 and i == 0:
                ax.set_title(score, fontsize=5.6)
        legend_above(figure, axes, columns)
    n = "/".join(map(str, sorted(set(data.groupby(["measure", "score"]).size()))))
    stronger = "; stronger colour: larger λ" if data["weight"].nunique() > 1 else ""
    return completed(
        figure,
        data,
        inputs,
        notes,
        title="Measures against predictivity, network by network",
        caption=f"Each point is a network (n = {n} in a panel{stronger}): a "
        "measure of its representation against its raw predictivity (Pearson r, not "
        "divided by a ceiling). r in a panel: Pearson correlation across its networks; "
        "neither tested nor corrected for the number of panels. Table 1 has both, with "
        "the score (raw² / ceiling), so that its r differs slightly.",
        alt=f"{counted(len(axes), 'scatter plot')} of "
        f"{counted(data['model'].nunique(), 'network')}: "
        f"{', '.join(map(measure_name, measures))} against {', '.join(scores)}.",
    )


def _points(points: "pd.DataFrame", ax: "Axes", *, narrow: bool) -> None:
    """Networks by colour and mark, and their correlation."""
    few = points["model"].nunique() <= NAMED
    named = points.assign(kind=points["objective"].fillna("").astype(str))
    among = objective_order(named["kind"])
    look: Any = {"linestyle": "none", "markersize": 3.6}
    # Other networks have no kind, and come last.
    for kind in [*(name for name in among if name), *({""} & set(among))]:
        own = named[named["kind"] == kind]
        mark = objective_marker(kind) if kind else "X"
        edge: Any = {"linewidths": 0.3, "edgecolor": "white", "marker": mark}
        ax.scatter(own["x"], own["y"], 13, own["colour"], **edge)
        colour = objective_colour(kind, among) if kind else INK
        entries = {objective_label(kind) if kind else "Other networks": colour}
        if few:
            entries = dict(zip(own["label"], own["colour"], strict=True))
        for label, colour in entries.items():
            ax.plot([], [], mark, color=colour, label=label, **look)
    n = len(points)
    text = f"n = {n}"
    if n > 2 and points["x"].std() > 0 and points["y"].std() > 0:
        r = float(np.corrcoef(points["x"], points["y"])[0, 1])
        text = minus(f"r {r:.2f}" if narrow else f"r = {r:.2f}, n = {n}")
    ax.margins(0.12)
    low, high = ax.get_ylim()
    # Room above all points for what is written there.
    ax.set_ylim(low, high + 0.22 * (high - low))
    ax.text(0.04, 0.97, text, transform=ax.transAxes, va="top", fontsize=5.2)
