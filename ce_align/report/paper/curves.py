"""Figures 2, 5, 7 and effective: measures and accuracy against a weight."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from ce_align.checks import counted
from ce_align.report.inputs import Inputs
from ce_align.report.paper.distances import differences
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import average, main_recipe, missing_weights, with_networks
from ce_align.report.style import (
    GUIDE,
    LETTERS,
    legend_above,
    legend_entries,
    letter,
    objective_colour,
    objective_label,
    objective_marker,
    objective_order,
    panel_grid,
    style,
    weight_label,
)
from ce_align.stages.comparable import (
    MEASURE_SETTINGS,
    MEASURING,
    Selection,
    comparable,
)
from ce_align.stages.measures import COMPARISON_TITLES

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    *("NO_ONLINE", "Panel", "bands", "curve_lines", "decoding_method"),
    *("decoding_points", "figure_2", "figure_5", "figure_7", "figure_effective"),
    *("filled", "online_points", "online_words"),
]

#: Accuracy of the probe that was trained along, the first that there is: on validation
#: images; on the views of the last epoch, each before the probe learned from it; on the
#: views of one step, which is all that ce_align 0.1 recorded.
ONLINE_METRICS = {
    "probe_top1": "held-out validation images",
    "probe_epoch_top1": "views of the last epoch, each before the classifier learned "
    "from it",
    "probe_train_top1": "views of a single training step",
}
#: What Figure 5 and Table 3 lack where there is none.
NO_ONLINE = (
    "needs the accuracy of the online probe of networks that were trained here; run "
    "`ce-align train` on labelled images, then `ce-align transfer --online --model "
    "FOLDER`"
)
#: Size of titles of panels beside each other in one column, in points.
NARROW = 5.6


class Panel(NamedTuple):
    """A panel: its title, the label of its vertical axis, its points and its letter.

    Points have columns ``objective``, ``weight``, ``value``, ``low``, ``high`` and
    perhaps ``views``: networks of ``weak`` views have dashed lines.
    """

    title: str
    label: str
    found: Selection
    letter: str = ""
    zero: bool = False  # whether 0 is a reference


def figure_2(inputs: Inputs, columns: int = 2) -> Drawn:
    """ΔD_B against λ for the four comparisons, and decoding R² against λ."""
    panels = _panels_of_figure_2(inputs)
    shown, data, notes = filled(panels)
    if not shown:
        raise NothingToDraw(
            "Figure 2 needs rows of `ce-align analyze --metric bures` and `--metric "
            "decoding` for networks of known λ; run `ce-align analyze --model paper`, "
            "or draw networks of any kind with `ce-align analyze ... --figure FILE`"
        )
    return completed(
        _curve_figure(shown, columns),
        data,
        inputs,
        notes,
        title="Shape of variability and decoding of augmentations against λ",
        caption=_parts_of_figure_2(shown) + bands(data),
        alt=f"{counted(len(shown), 'line plot')} against the equivariance weight, a "
        f"line for each objective. {_ends(data, 'panel')}",
    )


def _panels_of_figure_2(inputs: Inputs) -> dict[str, Panel]:
    panels = {}
    for name, (comparison, title) in zip(
        LETTERS, COMPARISON_TITLES.items(), strict=False
    ):
        found = differences(inputs, comparison)
        points = average(found.rows) if len(found.rows) else found.rows
        found = Selection(points, found.notes)
        panels[comparison] = Panel(title, "$\\Delta D_B$", found, name, zero=True)
    method, kind = decoding_method(inputs)
    found = decoding_points(inputs, method, "Decoding")
    title, name = f"Decoding, {kind}", LETTERS[len(panels)]
    panels[method] = Panel(title, "Held-out $R^2$", found, name)
    return panels


def figure_effective(inputs: Inputs, columns: int = 2) -> Drawn:
    """Figure 2 against the λ that acted: the equivariant share of the gradient."""
    found = inputs.stage(
        "train", where=lambda rows: rows["metric"] == "effective_weight"
    )
    found = found.then(with_networks).then(main_recipe)
    panels = {}
    if len(found.rows):
        acted = found.rows.groupby(["objective", "weight"])["value"].mean()
        acted = acted.rename("effective")
        for name, panel in _panels_of_figure_2(inputs).items():
            points = panel.found.rows
            if len(points):
                points = points.join(acted, on=["objective", "weight"])
                # Where one term is all there is, nothing was measured.
                alone = points["weight"].where(points["weight"].isin([0, 1]))
                points["effective"] = alone.fillna(points["effective"])
                points = points[points["effective"].notna()]
            panels[name] = panel._replace(found=Selection(points, panel.found.notes))
    shown, data, notes = filled(panels)
    if not shown:
        raise NothingToDraw(
            "Figure effective needs rows of networks that were trained here, "
            "`ce-align transfer --online --model FOLDER`, and those of Figure 2"
        )
    return completed(
        _curve_figure(shown, columns),
        data,
        inputs,
        [*found.notes, *notes],
        title="Shape of variability and decoding against the λ that acted",
        caption="As Figure 2, but against the share that the equivariant term had of "
        "the lengths of both gradients of the backbone, each weighted, towards the end "
        "of training (mean over networks): a weight λ of losses acts as more or less "
        "where one gradient is longer. " + _parts_of_figure_2(shown) + _spread(data),
        alt=f"{counted(len(shown), 'line plot')} against the equivariant share of the "
        f"gradient, a line for each objective. {_ends(data, 'panel')}",
    )


def _parts_of_figure_2(shown: Sequence[Panel]) -> str:
    """What its panels show, by their letters, which they keep when others are missing.

    A single panel has no letter.
    """
    compared = [panel.letter for panel in shown if panel.zero]
    decoded = [panel.letter for panel in shown if not panel.zero]
    parts = {
        ", ".join(compared): "expected difference of squared Bures distance from the "
        "network of the same objective at λ = 0, ΔD_B = D_B(λ = 0) − D_B(λ), on the "
        "same images and augmentation draws; D_B is between covariances that are "
        "divided by their traces, from 0 (the same shape) to 2 (no direction in "
        "common). Above the grey line (0) shapes are closer than at λ = 0.",
        ", ".join(decoded): "held-out R² of decoding augmentation parameters, mean "
        "over parameters; 0 is as good as their mean.",
    }
    if len(shown) == 1:
        (words,) = (words for names, words in parts.items() if names)
        return words[0].upper() + words[1:] + " "
    return "".join(f"{names}: {words} " for names, words in parts.items() if names)


def figure_5(inputs: Inputs, columns: int = 2) -> Drawn:
    """Accuracy of the online probe against λ."""
    found = online_points(inputs)
    if found.rows.empty:
        raise NothingToDraw(f"Figure 5 {NO_ONLINE}")
    percent = {name: 100 * found.rows[name] for name in ("value", "low", "high")}
    points = found.rows.assign(**percent)
    panel = Panel("Online probe", "Top-1 accuracy (%)", Selection(points))
    return completed(
        _curve_figure([panel], columns),
        points,
        inputs,
        [*found.notes, *missing_weights(points, "Online probe")],
        title="Accuracy of the online probe against λ",
        caption=f"Top-1 accuracy on {online_words(points)}, of a linear classifier "
        f"that was trained along on detached features. {bands(points)}",
        alt="Line plot of top-1 accuracy in percent against the equivariance weight. "
        + _ends(points, "metric"),
    )


def figure_7(inputs: Inputs, columns: int = 2) -> Drawn:
    """Decoding R² of weak views, and of views beyond the weak range."""
    method, kind = decoding_method(inputs)
    panels = {}
    parts = {"weak": "Within the weak range", "strong_only": "Beyond the weak range"}
    for name, (part, title) in zip(LETTERS, parts.items(), strict=False):
        metric = f"{method}_{part}"
        found = decoding_points(inputs, metric, title, views=True)
        panels[metric] = Panel(title, "Held-out $R^2$", found, name)
    shown, data, notes = filled(panels)
    if not shown:
        raise NothingToDraw(
            "Figure 7 needs rows of `ce-align analyze --metric decoding` for networks "
            "of known λ; run `ce-align analyze --metric decoding --model paper`"
        )
    below = " Below the grey line (0) decoding is worse than guessing the mean."
    negative = bool((data[["value", "low"]] < 0).any(axis=None))
    return completed(
        _curve_figure(
            [panel._replace(zero=negative) for panel in shown], columns, one_scale=True
        ),
        data,
        inputs,
        notes,
        title="Decoding of weak and of strong augmentations against λ",
        caption=f"Held-out R² of decoding augmentation parameters ({kind}), mean over "
        "parameters: A, among views whose parameters are all within the range of weak "
        "augmentations; B, among those with a parameter beyond it. Both on one scale."
        f"{below if negative else ''} {bands(data)}",
        alt=f"{counted(len(shown), 'line plot')} of R² against the equivariance "
        f"weight. {_ends(data, 'panel')}",
    )


def online_points(inputs: Inputs) -> Selection:
    """Accuracy of the online probe, averaged over networks; a column ``metric``.

    The interval of one network is Wilson's over the images that were classified, whose
    views count as one: they are no more independent than that.
    """
    found = inputs.stage(
        "train", where=lambda rows: rows["metric"].isin(ONLINE_METRICS)
    )
    found = found.then(with_networks).then(main_recipe)
    for metric in ONLINE_METRICS if len(found.rows) else ():
        own = Selection(found.rows[found.rows["metric"] == metric], found.notes)
        same = own.then(comparable, ("data_digest",), "Online probe")
        if len(same.rows):
            rows = _with_wilson(same.rows, metric)
            return Selection(average(rows).assign(metric=metric), same.notes)
    return Selection(found.rows.iloc[:0], found.notes)


def _with_wilson(rows: "pd.DataFrame", metric: str) -> "pd.DataFrame":
    """Rows of an accuracy with its interval, where it is known of how many images."""
    from scipy.stats import binomtest

    counted = {"probe_top1": "n_validation", "probe_epoch_top1": "n_images"}
    number = counted.get(metric, "")
    if number not in rows or rows[number].isna().any():
        return rows
    ends = []
    for value, n in rows[["value", number]].astype(float).to_numpy():
        found = binomtest(round(value * n), int(n)).proportion_ci(method="wilson")
        ends.append((found.low, found.high))
    low, high = zip(*ends, strict=True)
    return rows.assign(low=low, high=high, interval="images", n_classified=rows[number])


def online_words(points: "pd.DataFrame") -> str:
    """What the online probe was asked about."""
    return ONLINE_METRICS[str(points["metric"].iloc[0])]


def bands(points: "pd.DataFrame") -> str:
    """What the bands are, and that λ is no scale."""
    return f"{_spread(points)}Weights λ are spaced evenly."


def _spread(points: "pd.DataFrame") -> str:
    """What the bands are."""
    kinds = sorted(set(points["spread"]) - {"none"})
    none = "No bands: the spread is not known. "
    words = f"Bands: {'; '.join(kinds)}. " if kinds else none
    return words.replace("sd over", "mean ± standard deviation (sd) over")


def filled(
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


def decoding_method(inputs: Inputs) -> tuple[str, str]:
    """Ridge if it was computed, else least squares."""
    rows = inputs.stage("analyze").rows
    ols = len(rows) and "decoding_ridge" not in set(rows["metric"])
    return ("decoding_ols", "OLS") if ols else ("decoding_ridge", "ridge")


def decoding_points(
    inputs: Inputs, metric: str, what: str, *, views: bool = False
) -> Selection:
    """Points of one measure of decoding, of strong views where there are any.

    With `views`, networks trained on weak views are apart, in a column ``views``.
    """
    import pandas as pd

    found = inputs.stage(*MEASURING, where=lambda rows: rows["metric"] == metric)
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


def _curve_figure(
    panels: Sequence[Panel],
    columns: int,
    *,
    one_scale: bool = False,
) -> "Figure":
    """Panels with letters, and the legend in the place after them or above.

    Parameters
    ----------
    panels : in their order
    columns : width of the figure
    one_scale : the same vertical axis for all
    """
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
            columns, n, across, height, above, width_ratios=ratios, sharey=one_scale
        )
        for k, (panel, ax) in enumerate(zip(panels, shown, strict=True)):
            if panel.zero:
                ax.axhline(0, color=GUIDE, linewidth=0.8, zorder=0)
            curve_lines(panel.found.rows, ax, weights, among)
            # In one column the longest title would touch the next letter.
            size = NARROW if columns == 1 else None
            letter(ax, panel.letter if n > 1 else "", panel.title, size)
            acted = "effective" in panel.found.rows
            ax.set_xlabel("Effective weight" if acted else "Equivariance weight λ")
            if not (one_scale and k % across):
                ax.set_ylabel(panel.label)
        if free:
            free[0].legend(*legend_entries(shown), loc="center", title="Objective")
        else:
            legend_above(figure, shown, columns)
    return figure


def curve_lines(
    points: "pd.DataFrame", ax: "Axes", weights: Sequence[float], among: Sequence[str]
) -> None:
    """A line for each objective through its points, with its band.

    Against the column ``effective`` if there is one, to scale; else against the places
    of λ among `weights`.
    """
    place = {weight: k for k, weight in enumerate(weights)}
    views = points["views"] if "views" in points else points["objective"].map(str)
    for objective in objective_order(points["objective"]):
        own = points["objective"] == objective
        for kind in sorted(set(views[own])):
            line = points[own & (views == kind)].sort_values("weight")
            x = [place[weight] for weight in line["weight"]]
            if "effective" in line:
                x = line["effective"].tolist()
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
    if "effective" not in points:
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
