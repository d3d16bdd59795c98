"""Bures distances A–D: how variability is shared, and separate from content."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import DataError
from ce_align.metrics.bures import (
    BuresSample,
    ConstantCloudError,
    between_and_floor,
    bures_sample,
    excess_over_splits,
    half_effects,
    half_split,
    reference_effects,
    squared_bures_distance,
    squared_bures_distances_to_reference,
)
from ce_align.results import joined_notes
from ce_align.stages.estimates import (
    Estimate,
    Measured,
    Measurement,
    mean_over_pairs,
    mean_over_units,
)

if TYPE_CHECKING:
    from ce_align.stages.measures import AnalysisConfig

__all__ = [
    *("COMPARISONS", "MOST_CONSTANT", "Clouds", "Comparison", "Effects"),
    *("choose_pairs", "compare", "measure_shapes", "units_in_pairs"),
]

FloatArray = NDArray[np.float32]

#: Splits over which floor and excess are averaged: of pairs, of images and centroids.
#: What their choice adds is then less than a tenth of half the interval's width: on
#: simulated responses 3–9 %, in place of 13–25 % with one split. Spatial and
#: photometric clouds have two (4–6 %), for only means over their halves are kept.
PAIR_SPLITS, CENTROID_SPLITS = 8, 5
#: Distances between clouds of fewer points say so.
FEW_POINTS = 4
#: Of so many comparisons each centroid's effect on floor and excess is the mean: fewer
#: add to its variance, and so to the interval.
MEETINGS = 40
#: Share of constant clouds above which a network has collapsed.
MOST_CONSTANT = 0.5


@dataclass(frozen=True)
class Clouds:
    """Responses of one network that the comparisons need.

    Attributes
    ----------
    strong : (n_images, n_views, n_features), alternating view A and view B
    crossed : (n_images, 2 × photometrics + 2 × crops, n_features), block means
    by_class : (n_classes, n_images_per_class, n_features), clean images
    beyond : (n_more_images, n_features), means over the views of images that are not
        compared; None if there are none
    """

    strong: FloatArray
    crossed: FloatArray
    by_class: FloatArray | None
    beyond: FloatArray | None = None

    @property
    def centroids(self) -> NDArray[np.float64]:
        """Means over the views of all images, those compared first, (n, n_features)."""
        compared = self.strong.mean(axis=1, dtype=np.float64)
        more = [] if self.beyond is None else [self.beyond.astype(np.float64)]
        return np.concatenate([compared, *more])


@dataclass(frozen=True)
class Effects:
    """What each image adds to the distances of all, mean zero, (n_centroids,) each.

    Images that have a distance of their own come first.

    Attributes
    ----------
    distance, between, floor : of the means of what `Comparison` has
    """

    distance: NDArray[np.float64]
    between: NDArray[np.float64]
    floor: NDArray[np.float64]

    def by_suffix(self) -> dict[str, NDArray[np.float64]]:
        """Effects on the measures, by what their names end with."""
        return {
            "": self.distance,
            "_floor": self.floor,
            "_excess": self.between - self.floor,
        }


@dataclass(frozen=True)
class Comparison:
    """Distances of one comparison, image by image or pair by pair.

    NaN where a cloud is constant, as that of photometric draws that change nothing is.

    Attributes
    ----------
    distance : D_B of the whole clouds
    between, floor : D_B of half clouds that have no view in common: of different
        sources, and of one source with itself; means over several splits
    axis : what the values belong to: ``image``, or else pairs of images or classes
    pairs : (n, 2) images or classes compared; None if each image stands alone
    effects : of the images on a cloud that all are compared with; None without one
    note : what a reader must know of all values
    """

    distance: BuresSample
    between: BuresSample
    floor: BuresSample
    axis: str = "image"
    pairs: NDArray[np.intp] | None = None
    effects: Effects | None = None
    note: str | None = None

    @property
    def excess(self) -> BuresSample:
        """What is above the floor; its expectation is 0 for one and the same source."""
        return BuresSample(self.between - self.floor, self.floor.n_points)


def augmentation_augmentation(clouds: Clouds, config: "AnalysisConfig") -> Comparison:
    """Augmentations of one image against those of another."""
    pairs = choose_pairs(len(clouds.strong), config.comparisons, config.seed)
    strata = np.arange(clouds.strong.shape[1]) % 2
    return _of_pairs(clouds.strong, pairs, config.seed, "image_pair", strata)


def augmentation_centroid(clouds: Clouds, config: "AnalysisConfig") -> Comparison:
    """Mean responses of all images that are given against the augmentations of each."""
    strong, centroids = clouds.strong, clouds.centroids
    distance = squared_bures_distances_to_reference(strong, centroids, leave_out=True)
    # Floor and excess need strong of one size, so as many centroids as views, and views
    # of which the centroids are not made, so those of other images. Every image meets
    # centroids of its own choice: if all met the same few, these would decide.
    strata = np.arange(strong.shape[1]) % 2
    rng = np.random.default_rng([config.seed, 1])
    betweens, floors = np.empty((2, CENTROID_SPLITS, len(strong)))
    on_between, on_floor, n_met = *np.zeros((2, len(centroids))), 0
    for split in range(CENTROID_SPLITS):
        halves = half_split(strong.shape[1], rng, strata)
        n = min(len(halves[0]), (len(centroids) - 1) // 2)
        views = [rng.permutation(half)[:n] for half in halves]
        for i, cloud in enumerate(strong):
            others = rng.choice(len(centroids) - 1, 2 * n, replace=False)
            others += others >= i
            members = others[:n], others[n:]
            own = cloud[views[0]], cloud[views[1]]
            content = centroids[members[0]], centroids[members[1]]
            betweens[split, i], floors[split, i] = between_and_floor(own, content)
            # Effects are means over the images met: enough of them is enough.
            if 2 * n * n_met >= MEETINGS * len(centroids) or np.isnan(floors[split, i]):
                continue
            n_met += 1
            for met, effects in zip(members, half_effects(own, content), strict=True):
                on_between[met] += effects[0]
                on_floor[met] += effects[1]
    varied = np.isfinite(distance)
    # Each of the few centroids that an image meets stands for many that it might have.
    # Effects are beside the mean of their own few, of which they are one in n.
    share = len(centroids) / (2 * (n - 1) * max(n_met, 1))
    on_distance = reference_effects(strong[varied], centroids)
    return Comparison(
        BuresSample(distance, (len(centroids), strong.shape[1])),
        between=BuresSample(_over_splits(betweens), (n, n)),
        floor=BuresSample(_over_splits(floors), (n, n)),
        effects=Effects(on_distance, share * on_between, share * on_floor),
        note=f"{len(centroids)} centroids",
    )


def spatial_photometric(clouds: Clouds, config: "AnalysisConfig") -> Comparison:
    """Photometric against spatial variability of the same image."""
    n_p, n_c = config.photometrics, config.crops
    half_p, half_c = n_p // 2, n_c // 2
    n = min(half_p, half_c)
    p, c = np.arange(n_p) < half_p, np.arange(n_c) < half_c
    distances = np.empty(len(clouds.crossed))
    betweens, floors = np.empty((2, 2, len(clouds.crossed)))
    for i, blocks in enumerate(clouds.crossed.astype(np.float64)):
        parts = np.split(blocks, [n_p, 2 * n_p, 2 * n_p + n_c])
        photometric, spatial = np.stack(parts[:2]), np.stack(parts[2:])
        # Halves of unequal size count by their size.
        whole_p = np.average(photometric, axis=0, weights=[half_c, n_c - half_c])
        whole_c = np.average(spatial, axis=0, weights=[half_p, n_p - half_p])
        distances[i] = _distance(whole_p, whole_c)
        # Means are over the first or the second crops, or photometrics: in two ways,
        # clouds that meet have neither a crop nor a photometric draw in common.
        ways = [
            ((photometric[0][p], photometric[1][~p]), (spatial[0][c], spatial[1][~c])),
            ((photometric[0][~p], photometric[1][p]), (spatial[1][c], spatial[0][~c])),
        ]
        for way, (of_p, of_c) in enumerate(ways):
            betweens[way, i], floors[way, i] = between_and_floor(
                (of_p[0][:n], of_p[1][:n]), (of_c[0][:n], of_c[1][:n])
            )
    return Comparison(
        BuresSample(distances, (n_p, n_c)),
        between=BuresSample(_over_splits(betweens), (n, n)),
        floor=BuresSample(_over_splits(floors), (n, n)),
    )


def class_class(clouds: Clouds, config: "AnalysisConfig") -> Comparison | None:
    """Clean images of one class against those of another; None without classes."""
    if clouds.by_class is None:
        return None
    pairs = choose_pairs(len(clouds.by_class), config.comparisons, config.seed)
    return _of_pairs(clouds.by_class, pairs, config.seed, "class_pair")


#: The paper's comparisons A–D.
COMPARISONS: dict[str, Callable[..., Comparison | None]] = {
    "augmentation_augmentation": augmentation_augmentation,
    "augmentation_centroid": augmentation_centroid,
    "spatial_photometric": spatial_photometric,
    "class_class": class_class,
}


def compare(clouds: Clouds, config: "AnalysisConfig") -> dict[str, Comparison]:
    """Every comparison that the responses allow.

    Raises
    ------
    DataError
        Naming the comparison, if more than half of its clouds are constant: the network
        has collapsed.
    """
    found = {}
    for name, run in COMPARISONS.items():
        try:
            comparison = run(clouds, config)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        if comparison is not None:
            _check_varied(name, comparison)
            found[name] = comparison
    return found


def _check_varied(name: str, comparison: Comparison) -> None:
    constant = int(np.isnan(comparison.distance.values).sum())
    n = len(comparison.distance.values)
    if constant > n * MOST_CONSTANT:
        raise DataError(
            f"{name}: {constant} of {n} comparisons are of constant responses; the "
            "network has collapsed and has no shape to compare, so leave it out"
        )


def measure_shapes(
    own: dict[str, Comparison],
    baseline: dict[str, Comparison] | None,
    config: "AnalysisConfig",
) -> Measured:
    """Distances of one network, and their differences from the baseline.

    A difference is the baseline's value minus the network's, over the same
    comparisons: positive if the network's shapes are closer.
    """
    import xarray as xr

    measured = Measured()
    for name, comparison in own.items():
        series = {
            "": comparison.distance,
            "_floor": comparison.floor,
            "_excess": comparison.excess,
        }
        effects = comparison.effects.by_suffix() if comparison.effects else {}
        if baseline is not None:
            other = baseline[name]
            theirs = other.effects.by_suffix() if other.effects else {}
            for suffix, sample in (("", other.distance), ("_excess", other.excess)):
                difference = BuresSample(
                    sample - series[suffix], series[suffix].n_points
                )
                series[f"{suffix}_delta"] = difference
                if effects:
                    effects[f"{suffix}_delta"] = theirs[suffix] - effects[suffix]
        axis = comparison.axis
        for suffix, sample in series.items():
            effect = effects.get(suffix)
            kept = np.isfinite(sample.values)
            found = _estimate(sample.values, comparison, effect, config)
            n_points = min(sample.n_points)
            few = None
            if n_points < FEW_POINTS:
                few = f"clouds of {n_points} points hardly have a shape (more views)"
            notes = (comparison.note, few, _left_out(kept, axis), found.note)
            measured.numbers.append(
                Measurement(
                    name + suffix,
                    found,
                    # The smaller cloud sets the finite-sample bias.
                    n_points=n_points,
                    n_comparisons=int(kept.sum()),
                    relative=suffix.endswith("_delta"),
                    note=joined_notes(*notes),
                )
            )
            measured.arrays[name + suffix] = xr.DataArray(sample.values, dims=axis)
            if effect is not None:
                array = xr.DataArray(effect, dims="centroid")
                measured.arrays[f"{name}{suffix}_effects"] = array
        if comparison.pairs is not None:
            pairs = xr.DataArray(comparison.pairs, dims=(comparison.axis, "member"))
            measured.arrays[f"{name}_pairs"] = pairs
    return measured


def _estimate(
    values: NDArray[np.float64],
    found: Comparison,
    effects: NDArray[np.float64] | None,
    config: "AnalysisConfig",
) -> Estimate:
    if found.pairs is None:
        return mean_over_units(values, config.interval, config.seed, effects)
    units = "classes" if found.axis == "class_pair" else "images"
    return mean_over_pairs(values, found.pairs, config.interval, config.seed, units)


def _left_out(kept: NDArray[np.bool_], axis: str) -> str | None:
    if kept.all():
        return None
    what = axis.replace("_", " ")
    return f"{(~kept).sum()} of {len(kept)} {what}s left out: constant responses"


def _of_pairs(
    clouds: FloatArray,
    pairs: NDArray[np.intp],
    seed: int,
    axis: str,
    strata: NDArray[np.intp] | None = None,
) -> Comparison:
    rng = np.random.default_rng([seed, 2])
    splits = [half_split(clouds.shape[1], rng, strata) for _ in range(PAIR_SPLITS)]
    between, floor = excess_over_splits(clouds, pairs, splits)
    whole = bures_sample(clouds, pairs, leave_out=True)
    return Comparison(whole, between, floor, axis, pairs)


def _over_splits(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Means of the columns over the splits in which they are defined, else NaN."""
    defined = np.isfinite(values)
    total = np.where(defined, values, 0.0).sum(axis=0)
    n = defined.sum(axis=0)
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def _distance(cloud_1: NDArray[np.float64], cloud_2: NDArray[np.float64]) -> float:
    """Squared Bures distance, NaN if one of the clouds is constant."""
    try:
        return squared_bures_distance(cloud_1, cloud_2)
    except ConstantCloudError:
        return float("nan")


def units_in_pairs(comparisons: int) -> int:
    """Classes whose pairs are compared: each in about 16 pairs."""
    enough = int(np.ceil((1 + np.sqrt(1 + 8 * comparisons)) / 2))
    return max(enough, comparisons // 8)


def choose_pairs(n: int, comparisons: int, seed: int) -> NDArray[np.intp]:
    """Different pairs (i < j) of `n` units at random, at most `comparisons`.

    Each unit is in equally many pairs, or in one or two more: the units stand in a
    circle in random order, and neighbours are paired, then those at distance two, and
    so on. All pairs are equally likely.
    """
    every = n * (n - 1) // 2
    if every <= comparisons:
        return np.stack(np.triu_indices(n, 1), axis=1)
    circle = np.random.default_rng([seed, 3]).permutation(n)
    distance = 1 + np.arange(comparisons) // n
    start = np.arange(comparisons) % n
    pairs = np.stack([circle[start], circle[(start + distance) % n]], axis=1)
    pairs.sort(axis=1)
    ordered: NDArray[np.intp] = pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))]
    return ordered
