"""Figure 6 and Table 5: Bures distances of networks beside those of λ = 0."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.report.inputs import Inputs
from ce_align.report.paper.items import (
    BuiltTable,
    Drawn,
    NothingToDraw,
    Numbered,
    built,
    completed,
)
from ce_align.report.select import main_recipe, missing_weights, with_networks
from ce_align.report.style import (
    INK,
    new_figure,
    objective_colour,
    objective_label,
    objective_order,
    shade,
    style,
    weight_legend,
)
from ce_align.stages.comparable import (
    MEASURE_SETTINGS,
    Selection,
    comparable,
    one_interval,
)
from ce_align.stages.estimates import (
    Estimate,
    IntervalKind,
    mean_over_pairs,
    mean_over_units,
    without_interval,
)
from ce_align.stages.measures import COMPARISON_TITLES

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["differences", "figure_6", "table_5"]

#: More points than these are drawn as pixels: a PDF of them would be slow to open.
VECTOR_POINTS = 2000
#: Up to so many points are drawn larger.
FEW_POINTS = 300

#: Columns of Table 5 and their headings: both clouds of a comparison, what the mean is
#: over, and the paper's sign of ΔD_B.
ABOUT = {
    "first_cloud": "First cloud",
    "second_cloud": "Second cloud",
    "mean_over": "Mean over",
    "sign_in_paper": "Sign of ΔD_B in the paper",
}
TABLE_5 = {
    "augmentation_augmentation": (
        *("augmentations of image i", "augmentations of image j"),
        *("image pairs", "+"),
    ),
    "augmentation_centroid": (
        "mean responses to every image, over its augmentations",
        *("augmentations of one image", "images", "−"),
    ),
    "spatial_photometric": (
        "photometric variability, averaged over crops",
        "spatial variability, averaged over photometrics",
        *("images", "−"),
    ),
    "class_class": ("images of class a", "images of class b", "class pairs", "+"),
}


def _chosen(inputs: Inputs, comparison: str) -> Selection:
    """One row of distances a network, of the recipe that most share."""
    measured = inputs.stage("analyze", where=lambda rows: rows["metric"] == comparison)
    of_one_recipe = measured.then(with_networks).then(main_recipe)
    return of_one_recipe.then(
        comparable, MEASURE_SETTINGS, COMPARISON_TITLES[comparison]
    )


def _distances(
    inputs: Inputs, row: "pd.Series[Any]", comparison: str
) -> "xr.Dataset | None":
    """Arrays behind a row, if the comparison is among them."""
    arrays = inputs.arrays("analyze", str(row["config_id"]))
    return arrays if arrays is not None and comparison in arrays else None


def _joint(inputs: Inputs, comparison: str, without: Collection[str] = ()) -> Selection:
    """D_B of every comparison for a network and for λ = 0 of its objective.

    Returns
    -------
    Selection
        A row for each network and comparison: ``objective``, ``weight``, ``model``,
        ``baseline``, ``comparison``, ``baseline_distance``, ``distance``, ``origin``.
        Both distances are of the same images and the same draws. Networks of `without`
        are left out.
    """
    import pandas as pd

    chosen = _chosen(inputs, comparison)
    notes, parts, absent = list(chosen.notes), [], []
    for objective, group in chosen.rows.groupby("objective", sort=True):
        wanted = group[(group["weight"] > 0) & ~group["model"].isin(without)]
        if wanted.empty:
            continue
        at_zero = group[group["weight"] == 0]
        stored = [
            (str(row["model"]), arrays)
            for _, row in at_zero.iterrows()
            if (arrays := _distances(inputs, row, comparison)) is not None
        ]
        if not stored:
            notes.append(
                f"{COMPARISON_TITLES[comparison]}: {objective_label(str(objective))} "
                "has no network with λ = 0 to compare with."
            )
            continue
        baseline, theirs = stored[0]
        if len(at_zero) > 1:
            notes.append(f"{len(at_zero)} networks have λ = 0; {baseline} is compared.")
        for _, row in wanted.iterrows():
            own = _distances(inputs, row, comparison)
            if own is None:
                absent.append(row["model"])
                continue
            part = {
                "objective": objective,
                "weight": row["weight"],
                "model": row["model"],
                "baseline": baseline,
                "comparison": np.arange(own[comparison].size),
                "baseline_distance": theirs[comparison].values,
                "distance": own[comparison].values,
                "origin": row["origin"],
            }
            parts.append(pd.DataFrame(part))
    if absent:
        notes.append(f"No arrays of single comparisons for {named_some(absent)}.")
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return Selection(rows, tuple(notes))


def differences(inputs: Inputs, comparison: str) -> Selection:
    """ΔD_B = D_B(λ = 0) − D_B(λ) of each network, its objective's λ = 0 at 0.

    Stored differences are preferred; where there are none they are computed from the
    stored comparisons.

    Parameters
    ----------
    inputs : rows and arrays
    comparison : a key of `ce_align.stages.measures.COMPARISON_TITLES`
    """
    import pandas as pd

    chosen = _chosen(inputs, comparison).rows
    stored = _stored(inputs, comparison, chosen)
    reference = chosen[chosen["weight"] == 0]
    joint = _joint(inputs, comparison, list(stored.rows["model"]))
    computed = [
        _computed(inputs, own, chosen)
        for _, own in (joint.rows.groupby("model") if len(joint.rows) else ())
    ]
    notes = [*stored.notes, *joint.notes]
    if computed:
        notes.append(
            f"{COMPARISON_TITLES[comparison]}: ΔD_B of "
            f"{counted(len(computed), 'network')} "
            "computed from stored comparisons."
        )
    parts = [stored.rows, pd.DataFrame(computed)]
    if len(stored.rows):
        # One may be compared with another of λ = 0, as of another seed.
        reference = reference[~reference["model"].isin(stored.rows["model"])]
    # By definition, hence without uncertainty.
    parts.append(reference.assign(value=0.0, low=0.0, high=0.0))
    parts = [part for part in parts if len(part)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    found = one_interval(rows, f"{COMPARISON_TITLES[comparison]}, ΔD_B")
    return Selection(found.rows, tuple(dict.fromkeys((*notes, *found.notes))))


def _stored(inputs: Inputs, comparison: str, chosen: "pd.DataFrame") -> Selection:
    """Stored differences from λ = 0 of the same objective."""
    if chosen.empty:
        return Selection(chosen)
    measured = inputs.stage(
        "analyze", where=lambda rows: rows["metric"] == f"{comparison}_delta"
    )
    known = with_networks(measured.rows).rows
    known = known[known["model"].isin(chosen["model"])]
    invariant = {
        name: facts.objective
        for name in known["baseline"].dropna().unique()
        if (facts := inputs.facts(str(name))).equivariance_weight == 0
    }
    own = chosen[chosen["weight"] == 0]
    invariant |= dict(zip(own["model"], own["objective"], strict=True))
    right = known["baseline"].map(invariant) == known["objective"]
    title = f"{COMPARISON_TITLES[comparison]}, ΔD_B"
    found = comparable(known[right], MEASURE_SETTINGS, title)
    others = sorted(set(known["model"]) - set(known["model"][right]))
    note = f"{title}: {named_some(others)} measured against another baseline."
    noted = [*measured.notes, *([note] if others else []), *found.notes]
    return Selection(found.rows, tuple(noted))


def _computed(
    inputs: Inputs, joint: "pd.DataFrame", chosen: "pd.DataFrame"
) -> "dict[str, object]":
    """The mean difference of one network, with its interval."""
    row, baseline = (
        chosen[chosen["model"] == joint[name].iloc[0]].iloc[0]
        for name in ("model", "baseline")
    )
    found = _estimate(inputs, row, baseline, joint)
    return {
        **{str(name): value for name, value in row.items()},
        "value": found.interval.estimate,
        "low": found.interval.low,
        "high": found.interval.high,
        "interval": found.over,
        "note": found.note,
        "baseline": baseline["model"],
    }


def _estimate(
    inputs: Inputs,
    row: "pd.Series[Any]",
    baseline: "pd.Series[Any]",
    joint: "pd.DataFrame",
) -> Estimate:
    """Mean of the differences, as `measure_shapes` has it."""
    values = (joint["baseline_distance"] - joint["distance"]).to_numpy(np.float64)
    name, seed = str(row["metric"]), int(row["seed"])
    own, theirs = (_distances(inputs, one, name) or {} for one in (row, baseline))
    over: IntervalKind = "population"
    if row["interval"] == "comparisons":
        over = "comparisons"
    if f"{name}_pairs" in own:
        pairs = own[f"{name}_pairs"]
        units = "classes" if "class_pair" in pairs.dims else "images"
        return mean_over_pairs(values, pairs.values, over, seed, units)
    effects = None
    if name == "augmentation_centroid":
        if f"{name}_effects" not in own or f"{name}_effects" not in theirs:
            why = "the stored distances do not say what each centroid adds"
            return without_interval(float(values.mean()), len(values), why)
        effects = theirs[f"{name}_effects"].values - own[f"{name}_effects"].values
    return mean_over_units(values, over, seed, effects)


def figure_6(inputs: Inputs, columns: int = 2) -> Drawn:
    """Joint distributions of D_B at λ = 0 and at λ, objective × comparison."""
    import pandas as pd

    notes: list[str] = []
    parts = []
    for comparison, title in COMPARISON_TITLES.items():
        found = _joint(inputs, comparison)
        notes += found.notes
        if found.rows.empty:
            notes.append(f"{title}: no comparisons.")
            continue
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
    counts = data.groupby(["measure", "objective", "model"]).size()
    n = "/".join(map(str, sorted(set(counts))))
    shares = [
        f"{str(measure).replace('_', ' ')}, {objective_label(str(objective))}: "
        f"{100 * group['below'].mean():.0f} %"
        for (measure, objective), group in closer.groupby(order[:2], sort=False)
    ]
    return completed(
        _grid(data, columns),
        data,
        inputs,
        notes,
        title="Distances of single comparisons at λ and at λ = 0",
        caption="Squared Bures distance D_B of each comparison (n in a panel: "
        f"comparisons × networks; {n} comparisons a network) for a network with "
        "equivariance weight λ > 0 against that for λ = 0 of the same objective, on "
        "the same images and draws; the stronger the colour, the larger λ. On the line "
        "both are equal; below it the network's shapes are closer than those at λ = 0. "
        "Panels of one comparison have one scale.",
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
    size = (7.2 if columns == 2 else 3.5) / max(len(across), 3 if columns == 2 else 2)
    titles = {**COMPARISON_TITLES, **{o: objective_label(o) for o in objectives}}
    with style():
        figure = new_figure(columns, share * size * len(down) + 0.5)
        axes = figure.subplots(
            len(down), max(len(across), 2 if columns == 2 else 1), squeeze=False
        )
        for spare in axes[:, len(across) :].flat:
            spare.axis("off")
        for i, row in enumerate(down):
            for k, column in enumerate(across):
                measure, objective = (column, row) if columns == 2 else (row, column)
                alike = data[data["measure"] == measure]
                own = alike[alike["objective"] == objective]
                if own.empty:
                    axes[i, k].axis("off")
                    continue
                colour = objective_colour(objective, objectives)
                both = alike[["baseline_distance", "distance"]].to_numpy()
                _scatter(own, axes[i, k], weights, colour, (both.min(), both.max()))
            name = titles[row].replace("–", "–\n") if columns == 1 else titles[row]
            axes[i, 0].set_ylabel(f"{name}\n$D_B(\\lambda)$")
        for k, column in enumerate(across):
            axes[0, k].set_title(titles[column])
            axes[-1, k].set_xlabel("$D_B(\\lambda = 0)$")
        weight_legend(figure, weights, columns, "equal at λ and λ = 0", hidden=[0.0])
    return figure


def _scatter(
    points: "pd.DataFrame",
    ax: "Axes",
    weights: Sequence[float],
    colour: str,
    limits: tuple[float, float],
) -> None:
    """D_B at λ against D_B at λ = 0 for every comparison, with the line of unity."""
    place = {weight: k for k, weight in enumerate(weights)}
    # Mixed at random, lest the last weight hide the others.
    mixed = points.iloc[np.random.default_rng(0).permutation(len(points))]
    ax.scatter(
        mixed["baseline_distance"],
        mixed["distance"],
        s=3 if len(points) > FEW_POINTS else 6,
        c=[shade(colour, place[w], len(weights)) for w in mixed["weight"]],
        linewidths=0,
        alpha=0.75,
        rasterized=len(points) > VECTOR_POINTS,
    )
    low, high = limits
    pad = 0.05 * (high - low or 1)
    ends = (low - pad, high + pad)
    ax.plot(ends, ends, color=INK, linewidth=0.7, zorder=3)
    n_networks = points["model"].nunique()
    n = f"n = {len(points) // n_networks} × {n_networks}"
    ax.text(0.04, 0.97, n, transform=ax.transAxes, va="top", fontsize=5.6)
    ax.set(xlim=ends, ylim=ends, aspect="equal")
    ax.locator_params(nbins=3)


def table_5(inputs: Inputs) -> BuiltTable:
    """What each comparison compares, and the sign of its difference."""
    import pandas as pd

    rows: list[dict[str, object]] = []
    lines: list[dict[str, str | Numbered]] = []
    notes: list[str] = []
    for name, words in TABLE_5.items():
        found = differences(inputs, name)
        points = found.rows[found.rows["weight"] > 0] if len(found.rows) else found.rows
        n, n_positive, origin, text = len(points), 0, "none", "–"
        if n:
            n_positive = int((points["value"] > 0).sum())
            origin = "+".join(sorted(set(points["origin"])))
            text = f"{n_positive} of {n}"
            notes += found.notes
        else:
            notes.append(f"{COMPARISON_TITLES[name]}: no rows.")
        line: dict[str, str | Numbered] = {"Comparison": COMPARISON_TITLES[name]}
        line |= zip(ABOUT.values(), words, strict=True)
        line["Networks here with ΔD_B > 0"] = Numbered(text, len(rows))
        row = {"comparison": name, **dict(zip(ABOUT, words, strict=True))}
        counts = {"n_networks": n, "n_positive": n_positive, "origin": origin}
        lines.append(line)
        rows.append(row | counts)
    return built(
        pd.DataFrame(rows),
        lines,
        inputs,
        notes,
        title="The four comparisons of variability",
        caption="Clouds of responses whose covariances, each divided by its trace, are "
        "compared by squared Bures distance D_B; ΔD_B = D_B(λ = 0) − D_B(λ).",
    )
