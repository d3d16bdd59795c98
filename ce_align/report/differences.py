"""Distances of networks beside those of their invariant sibling, on the same views."""

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.report.material import Material
from ce_align.report.selection import (
    MEASURE_SETTINGS,
    Selection,
    comparable,
    describe,
    main_recipe,
    with_networks,
)
from ce_align.report.style import objective_label
from ce_align.stages.measures import (
    Estimate,
    IntervalKind,
    mean_over_pairs,
    mean_over_units,
    without_interval,
)

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["COMPARISON_TITLES", "differences", "joint_distances"]

#: The paper's comparisons A–D, as figures call them.
COMPARISON_TITLES = {
    "augmentation_augmentation": "Augmentation–augmentation",
    "augmentation_centroid": "Augmentation–centroid",
    "spatial_photometric": "Spatial–photometric",
    "class_class": "Class–class",
}


def _chosen(material: Material, comparison: str) -> Selection:
    """One row of distances a network, of the recipe that most share."""
    of_network = material.stage(
        "analyze", where=lambda rows: rows["metric"] == comparison
    )
    known = with_networks(of_network.rows)
    recipe = main_recipe(known.rows)
    title = COMPARISON_TITLES[comparison]
    found = comparable(recipe.rows, MEASURE_SETTINGS, title)
    notes = (*of_network.notes, *known.notes, *recipe.notes, *found.notes)
    return Selection(found.rows, notes)


def joint_distances(
    material: Material, comparison: str, without: Collection[str] = ()
) -> Selection:
    """D_B of every comparison for a network and for λ = 0 of its objective.

    Parameters
    ----------
    material : rows and arrays
    comparison : a key of `COMPARISON_TITLES`
    without : networks that are not asked for

    Returns
    -------
    Selection
        A row for each network and comparison: ``objective``, ``weight``, ``model``,
        ``baseline``, ``comparison``, ``baseline_distance``, ``distance``, ``origin``.
        Both distances are of the same images and the same draws.
    """
    import pandas as pd

    chosen = _chosen(material, comparison)
    notes, parts, absent = list(chosen.notes), [], []
    for objective, group in chosen.rows.groupby("objective", sort=True):
        wanted = group[(group["weight"] > 0) & ~group["model"].isin(without)]
        if wanted.empty:
            continue
        baseline, own, found = _baseline(material, group, comparison)
        if baseline is None:
            notes.append(
                f"{COMPARISON_TITLES[comparison]}: {objective_label(str(objective))} "
                "has no network with λ = 0 to compare with."
            )
            continue
        notes += found
        for row in wanted.itertuples():
            arrays = material.arrays("analyze", str(row.config_id))
            if arrays is None or comparison not in arrays:
                absent.append(row.model)
                continue
            values = arrays[comparison].values
            parts.append(
                pd.DataFrame(
                    {
                        "objective": objective,
                        "weight": row.weight,
                        "model": row.model,
                        "baseline": baseline,
                        "comparison": np.arange(len(values)),
                        "baseline_distance": own[comparison].values,
                        "distance": values,
                        "origin": row.origin,
                    }
                )
            )
    if absent:
        notes.append(f"No arrays of single comparisons for {named_some(absent)}.")
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return Selection(rows, tuple(notes))


def _baseline(
    material: Material, group: "pd.DataFrame", comparison: str
) -> "tuple[str | None, xr.Dataset, list[str]]":
    """The first network at λ = 0 with its arrays, and a note if there are several."""
    candidates = group[group["weight"] == 0]
    for row in candidates.itertuples():
        arrays = material.arrays("analyze", str(row.config_id))
        if arrays is not None and comparison in arrays:
            several = len(candidates) > 1
            note = f"{len(candidates)} networks have λ = 0; {row.model} is compared."
            return str(row.model), arrays, [note] if several else []
    return None, {}, []


def differences(material: Material, comparison: str) -> Selection:
    """ΔD_B = D_B(λ = 0) − D_B(λ) of each network, its objective's λ = 0 at 0.

    Stored differences are preferred; where there are none they are computed from the
    stored comparisons.

    Parameters
    ----------
    material : rows and arrays
    comparison : a key of `COMPARISON_TITLES`
    """
    import pandas as pd

    title = COMPARISON_TITLES[comparison]
    chosen = _chosen(material, comparison)
    stored = _stored(material, comparison, chosen.rows)
    reference = chosen.rows[chosen.rows["weight"] == 0]
    joint = joint_distances(material, comparison, list(stored.rows["model"]))
    computed = [
        _computed(material, own, chosen.rows)
        for _, own in (joint.rows.groupby("model") if len(joint.rows) else ())
    ]
    notes = [*stored.notes, *joint.notes]
    if computed:
        notes.append(
            f"{title}: ΔD_B of {len(computed)} networks computed from stored "
            "comparisons."
        )
    parts = [stored.rows, pd.DataFrame(computed)]
    if len(stored.rows):
        # One may be compared with another of λ = 0, as of another seed.
        reference = reference[~reference["model"].isin(stored.rows["model"])]
    if len(reference):
        # By definition, hence without uncertainty.
        parts.append(reference.assign(value=0.0, low=0.0, high=0.0))
    parts = [part for part in parts if len(part)]
    rows = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
    return Selection(rows, tuple(dict.fromkeys(notes)))


def _stored(material: Material, comparison: str, chosen: "pd.DataFrame") -> Selection:
    """Stored differences from λ = 0 of the same objective."""
    if chosen.empty:
        return Selection(chosen)
    of_network = material.stage(
        "analyze", where=lambda rows: rows["metric"] == f"{comparison}_delta"
    )
    known = with_networks(of_network.rows).rows
    known = known[known["model"].isin(chosen["model"])]
    # A baseline that has no row of its own is known by its name.
    invariant = {
        name: about["objective"]
        for name in known["baseline"].dropna().unique()
        if (about := describe(str(name)))["weight"] == 0
    }
    own = chosen[chosen["weight"] == 0]
    invariant |= dict(zip(own["model"], own["objective"], strict=True))
    right = known["baseline"].map(invariant) == known["objective"]
    title = f"{COMPARISON_TITLES[comparison]}, ΔD_B"
    found = comparable(known[right], MEASURE_SETTINGS, title)
    others = sorted(set(known["model"]) - set(known["model"][right]))
    note = f"{title}: {named_some(others)} measured against another baseline."
    noted = [*of_network.notes, *([note] if others else []), *found.notes]
    return Selection(found.rows, tuple(noted))


def _computed(
    material: Material, joint: "pd.DataFrame", chosen: "pd.DataFrame"
) -> "dict[str, object]":
    """The mean difference of one network, with its interval."""
    row = chosen[chosen["model"] == joint["model"].iloc[0]].iloc[0]
    values = (joint["baseline_distance"] - joint["distance"]).to_numpy(np.float64)
    baseline = chosen[chosen["model"] == joint["baseline"].iloc[0]].iloc[0]
    found = _estimate(material, row, baseline, values)
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
    material: Material,
    row: "pd.Series[Any]",
    baseline: "pd.Series[Any]",
    values: NDArray[np.float64],
) -> Estimate:
    """Mean of the differences, as `measure_shapes` has it."""
    name = str(row["metric"])
    own, theirs = (
        material.arrays("analyze", str(one["config_id"])) or {}
        for one in (row, baseline)
    )
    kind: IntervalKind = "population"
    if row["interval"] == "comparisons":
        kind = "comparisons"
    seed = int(row["seed"])
    if f"{name}_pairs" in own:
        pairs = own[f"{name}_pairs"]
        units = "classes" if "class_pair" in pairs.dims else "images"
        return mean_over_pairs(values, pairs.values, kind, seed, units)
    effects = None
    if name == "augmentation_centroid":
        if f"{name}_effects" not in own or f"{name}_effects" not in theirs:
            why = "the stored distances do not say what each centroid adds"
            return without_interval(float(values.mean()), len(values), why)
        effects = theirs[f"{name}_effects"].values - own[f"{name}_effects"].values
    return mean_over_units(values, kind, seed, effects)
