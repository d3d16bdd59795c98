"""Bures distances A–D: how variability is shared, and separate from content."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import DataError
from ce_align.metrics.bures import (
    squared_bures_distance,
    squared_bures_distances_to_reference,
)
from ce_align.metrics.clouds import (
    BuresSample,
    bures_excess,
    bures_sample,
    half_split,
)
from ce_align.metrics.left_out import reference_effects
from ce_align.stages.measures import (
    AnalysisConfig,
    Estimate,
    Measured,
    mean_over_pairs,
    mean_over_units,
)

__all__ = [
    *("COMPARISONS", "Answers", "Comparison", "Effects"),
    *("choose_pairs", "compare", "measure_shapes", "units_in_pairs"),
]

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Answers:
    """Responses of one network that the comparisons need.

    Attributes
    ----------
    strong : (n_images, n_views, n_features), alternating view A and view B
    crossed : (n_images, 2 × photometrics + 2 × crops, n_features), block means
    by_class : (n_classes, n_images_per_class, n_features), clean images
    """

    strong: FloatArray
    crossed: FloatArray
    by_class: FloatArray | None


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

    Attributes
    ----------
    distance : D_B of the whole clouds
    between, floor : D_B of half clouds that have no view in common: of different
        sources, and of one source with itself
    axis : what the values belong to: ``image``, or else pairs of images or classes
    pairs : (n, 2) images or classes compared; None if each image stands alone
    effects : of the images on a cloud that all are compared with; None without one
    """

    distance: BuresSample
    between: BuresSample
    floor: BuresSample
    axis: str = "image"
    pairs: NDArray[np.intp] | None = None
    effects: Effects | None = None

    @property
    def excess(self) -> BuresSample:
        """What is above the floor; its expectation is 0 for one and the same source."""
        return BuresSample(self.between - self.floor, self.floor.n_points)


def augmentation_augmentation(answers: Answers, config: AnalysisConfig) -> Comparison:
    """Augmentations of one image against those of another."""
    n_images = min(len(answers.strong), units_in_pairs(config.comparisons))
    pairs = choose_pairs(n_images, config.comparisons, config.seed)
    strata = np.arange(answers.strong.shape[1]) % 2
    return _of_pairs(answers.strong, pairs, config.seed, "image_pair", strata)


def augmentation_centroid(answers: Answers, config: AnalysisConfig) -> Comparison:
    """Mean responses of all images against the augmentations of each."""
    clouds = answers.strong
    centroids = clouds.mean(axis=1, dtype=np.float64)
    distance = squared_bures_distances_to_reference(clouds, centroids)
    # Floor and excess need clouds of one size: as many centroids as views, and of the
    # views that the other cloud does not have.
    rng = np.random.default_rng([config.seed, 1])
    halves = half_split(clouds.shape[1], rng, np.arange(clouds.shape[1]) % 2)
    n = min(len(halves[0]), len(centroids) // 2)
    chosen = rng.permutation(len(centroids))
    views = [clouds[:, rng.permutation(half)[:n]] for half in halves]
    content = [
        clouds[chosen[k * n : (k + 1) * n]][:, half].mean(axis=1, dtype=np.float64)
        for k, half in enumerate(halves)
    ]
    between = [
        squared_bures_distances_to_reference(views[1 - k], content[k]) for k in (0, 1)
    ]
    own = [squared_bures_distance(*pair) for pair in zip(*views, strict=True)]
    floor = (np.array(own) + squared_bures_distance(*content)) / 2
    on_between, on_floor = np.zeros((2, len(centroids)))
    for k in (0, 1):
        members, both = chosen[k * n : (k + 1) * n], content[k]
        # An image of these few stands for many that might be in its place.
        share = len(centroids) / n / 2
        on_between[members] = share * reference_effects(views[1 - k], both)
        on_floor[members] = share * reference_effects([content[1 - k]], both)
    return Comparison(
        BuresSample(distance, (len(centroids), clouds.shape[1])),
        between=BuresSample(np.mean(between, axis=0), (n, n)),
        floor=BuresSample(floor, (n, n)),
        effects=Effects(reference_effects(clouds, centroids), on_between, on_floor),
    )


def spatial_photometric(answers: Answers, config: AnalysisConfig) -> Comparison:
    """Photometric against spatial variability of the same image."""
    n_p, n_c = config.photometrics, config.crops
    half_p, half_c = n_p // 2, n_c // 2
    n = min(half_p, half_c)
    found = []
    for blocks in answers.crossed.astype(np.float64):
        parts = np.split(blocks, [n_p, 2 * n_p, 2 * n_p + n_c])
        photometric, spatial = np.stack(parts[:2]), np.stack(parts[2:])
        # Halves of unequal size count by their size.
        whole_p = np.average(photometric, axis=0, weights=[half_c, n_c - half_c])
        whole_c = np.average(spatial, axis=0, weights=[half_p, n_p - half_p])
        # The first photometrics over the first crops, and so on.
        p = photometric[0][:half_p][:n], photometric[1][half_p:][:n]
        c = spatial[0][:half_c][:n], spatial[1][half_c:][:n]
        between = squared_bures_distance(p[0], c[1]), squared_bures_distance(p[1], c[0])
        floor = squared_bures_distance(*p), squared_bures_distance(*c)
        found.append(
            (
                squared_bures_distance(whole_p, whole_c),
                sum(between) / 2,
                sum(floor) / 2,
            )
        )
    distances, betweens, floors = np.array(found).T
    return Comparison(
        BuresSample(distances, (n_p, n_c)),
        between=BuresSample(betweens, (n, n)),
        floor=BuresSample(floors, (n, n)),
    )


def class_class(answers: Answers, config: AnalysisConfig) -> Comparison | None:
    """Clean images of one class against those of another; None without classes."""
    if answers.by_class is None:
        return None
    pairs = choose_pairs(len(answers.by_class), config.comparisons, config.seed)
    return _of_pairs(answers.by_class, pairs, config.seed, "class_pair")


#: The paper's comparisons A–D.
COMPARISONS: dict[str, Callable[[Answers, AnalysisConfig], Comparison | None]] = {
    "augmentation_augmentation": augmentation_augmentation,
    "augmentation_centroid": augmentation_centroid,
    "spatial_photometric": spatial_photometric,
    "class_class": class_class,
}


def compare(answers: Answers, config: AnalysisConfig) -> dict[str, Comparison]:
    """Every comparison that the answers allow.

    Raises
    ------
    DataError
        Naming the comparison, if a cloud is constant.
    """
    found = {}
    for name, run in COMPARISONS.items():
        try:
            comparison = run(answers, config)
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
        if comparison is not None:
            found[name] = comparison
    return found


def measure_shapes(
    own: dict[str, Comparison],
    baseline: dict[str, Comparison] | None,
    config: AnalysisConfig,
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
            found = _estimate(sample.values, comparison, effect, config)
            measured.add(
                name + suffix,
                found.interval,
                found.over,
                # The smaller cloud sets the finite-sample bias.
                n_points=min(sample.n_points),
                n_comparisons=len(sample.values),
                relative=suffix.endswith("_delta"),
                note=found.note,
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
    config: AnalysisConfig,
) -> Estimate:
    if found.pairs is None:
        return mean_over_units(values, config.interval, config.seed, effects)
    units = "classes" if found.axis == "class_pair" else "images"
    return mean_over_pairs(values, found.pairs, config.interval, config.seed, units)


def _of_pairs(
    clouds: FloatArray,
    pairs: NDArray[np.intp],
    seed: int,
    axis: str,
    strata: NDArray[np.intp] | None = None,
) -> Comparison:
    halves = half_split(clouds.shape[1], np.random.default_rng([seed, 2]), strata)
    excess = bures_excess(clouds, pairs, halves)
    return Comparison(
        bures_sample(clouds, pairs), excess.between, excess.floor, axis, pairs
    )


def units_in_pairs(comparisons: int) -> int:
    """Images or classes whose pairs are compared: each in about 16 pairs.

    A bootstrap over images needs images that take part in many pairs.
    """
    enough = int(np.ceil((1 + np.sqrt(1 + 8 * comparisons)) / 2))
    return max(enough, comparisons // 8)


def choose_pairs(n: int, comparisons: int, seed: int) -> NDArray[np.intp]:
    """Different pairs (i < j) of `n` units at random, at most `comparisons`."""
    every = np.stack(np.triu_indices(n, 1), axis=1)
    if len(every) <= comparisons:
        return every
    rng = np.random.default_rng([seed, 3])
    return every[np.sort(rng.choice(len(every), comparisons, replace=False))]
