"""Bures distances A–D: how variability is shared, and separate from content."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
from ce_align.metrics.resampling import Interval
from ce_align.stages.measures import (
    AnalysisConfig,
    Measured,
    interval_over_pairs,
    interval_over_units,
)

__all__ = ["COMPARISONS", "Answers", "Comparison", "compare", "measure_shapes"]

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
class Comparison:
    """Distances of one comparison, image by image or pair by pair.

    Attributes
    ----------
    distance : D_B of the whole clouds
    between, floor : of half clouds: different sources, and one source with itself
    pairs : (n, 2) images or classes compared; None if each unit stands alone
    """

    distance: BuresSample
    between: NDArray[np.float64]
    floor: NDArray[np.float64]
    pairs: NDArray[np.intp] | None = None


def augmentation_augmentation(answers: Answers, config: AnalysisConfig) -> Comparison:
    """Augmentations of one image against those of another."""
    n_images = min(len(answers.strong), images_in_pairs(config.comparisons))
    pairs = choose_pairs(n_images, config.comparisons, config.seed)
    return _of_pairs(answers.strong, pairs, config.seed, np.arange(config.views) % 2)


def augmentation_centroid(answers: Answers, config: AnalysisConfig) -> Comparison:
    """Mean responses of all images against the augmentations of each."""
    clouds = answers.strong
    centroids = clouds.mean(axis=1, dtype=np.float64)
    distance = squared_bures_distances_to_reference(clouds, centroids)
    # Floor and excess need clouds of one size: equally many centroids as views.
    rng = np.random.default_rng([config.seed, 1])
    n = min(clouds.shape[1], len(centroids)) // 2
    chosen = rng.permutation(len(centroids))
    content = [centroids[chosen[:n]], centroids[chosen[n : 2 * n]]]
    halves = half_split(clouds.shape[1], rng, np.arange(clouds.shape[1]) % 2)
    crossed = [
        squared_bures_distances_to_reference(clouds[:, halves[1 - k][:n]], content[k])
        for k in (0, 1)
    ]
    own = [
        squared_bures_distance(cloud[halves[0][:n]], cloud[halves[1][:n]])
        for cloud in clouds
    ]
    return Comparison(
        BuresSample(distance, (len(centroids), clouds.shape[1])),
        between=np.mean(crossed, axis=0),
        floor=(np.array(own) + squared_bures_distance(*content)) / 2,
    )


def spatial_photometric(answers: Answers, config: AnalysisConfig) -> Comparison:
    """Photometric against spatial variability of the same image."""
    n_p, n_c = config.photometrics, config.crops
    first, second = n_p // 2, n_c // 2
    found = []
    for blocks in answers.crossed.astype(np.float64):
        parts = np.split(blocks, [n_p, 2 * n_p, 2 * n_p + n_c])
        photometric, spatial = np.stack(parts[:2]), np.stack(parts[2:])
        # Halves of unequal size count by their size.
        whole_p = np.average(photometric, axis=0, weights=[second, n_c - second])
        whole_c = np.average(spatial, axis=0, weights=[first, n_p - first])
        n = min(first, second)
        # Disjoint views: the first photometrics over the first crops, and so on.
        p = photometric[0][:first][:n], photometric[1][first:][:n]
        c = spatial[0][:second][:n], spatial[1][second:][:n]
        found.append(
            (
                squared_bures_distance(whole_p, whole_c),
                squared_bures_distance(p[0], c[1]) / 2
                + squared_bures_distance(p[1], c[0]) / 2,
                squared_bures_distance(*p) / 2 + squared_bures_distance(*c) / 2,
            )
        )
    distance, between, floor = np.array(found).T
    return Comparison(BuresSample(distance, (n_p, n_c)), between, floor)


def class_class(answers: Answers, config: AnalysisConfig) -> Comparison | None:
    """Clean images of one class against those of another; None without classes."""
    if answers.by_class is None:
        return None
    pairs = choose_pairs(len(answers.by_class), config.comparisons, config.seed)
    return _of_pairs(answers.by_class, pairs, config.seed, None)


#: The paper's comparisons A–D.
COMPARISONS: dict[str, Callable[[Answers, AnalysisConfig], Comparison | None]] = {
    "augmentation_augmentation": augmentation_augmentation,
    "augmentation_centroid": augmentation_centroid,
    "spatial_photometric": spatial_photometric,
    "class_class": class_class,
}


def compare(answers: Answers, config: AnalysisConfig) -> dict[str, Comparison]:
    """Every comparison that the answers allow."""
    found = {name: run(answers, config) for name, run in COMPARISONS.items()}
    return {name: one for name, one in found.items() if one is not None}


def measure_shapes(
    own: dict[str, Comparison],
    baseline: dict[str, Comparison] | None,
    config: AnalysisConfig,
) -> Measured:
    """Distances of one network, and their differences from the baseline.

    A difference is the baseline's value minus the network's, over the same
    comparisons: positive if the network's shapes are closer.
    """
    measured = Measured()
    for name, comparison in own.items():
        _add(measured, name, comparison, config)
        if baseline is not None:
            _add_differences(measured, name, comparison, baseline[name], config)
    return measured


def _add(
    measured: Measured, name: str, found: Comparison, config: AnalysisConfig
) -> None:
    import xarray as xr

    series = {
        "": found.distance.values,
        "_floor": found.floor,
        "_excess": found.between - found.floor,
    }
    for suffix, values in series.items():
        measured.add(
            name + suffix,
            _interval(values, found, config),
            n_points=_n_points(found),
            n_comparisons=len(values),
        )
        measured.arrays[name + suffix] = xr.DataArray(values, dims=f"{name}_comparison")
    if found.pairs is not None:
        measured.arrays[f"{name}_pairs"] = xr.DataArray(
            found.pairs, dims=(f"{name}_comparison", "pair")
        )


def _add_differences(
    measured: Measured,
    name: str,
    own: Comparison,
    baseline: Comparison,
    config: AnalysisConfig,
) -> None:
    series = {
        "_delta": baseline.distance - own.distance,
        "_excess_delta": (baseline.between - baseline.floor)
        - (own.between - own.floor),
    }
    for suffix, values in series.items():
        measured.add(
            name + suffix,
            _interval(values, own, config),
            n_points=_n_points(own),
            n_comparisons=len(values),
            relative=True,
        )


def _interval(
    values: NDArray[np.float64], found: Comparison, config: AnalysisConfig
) -> Interval:
    if found.pairs is None:
        return interval_over_units(values, config)
    return interval_over_pairs(values, found.pairs, config)


def _n_points(found: Comparison) -> int:
    # The smaller cloud sets the finite-sample bias.
    return min(found.distance.n_points)


def _of_pairs(
    clouds: FloatArray,
    pairs: NDArray[np.intp],
    seed: int,
    strata: NDArray[np.intp] | None,
) -> Comparison:
    halves = half_split(clouds.shape[1], np.random.default_rng([seed, 2]), strata)
    excess = bures_excess(clouds, pairs, halves)
    return Comparison(
        bures_sample(clouds, pairs),
        between=excess.between.values,
        floor=excess.floor.values,
        pairs=pairs,
    )


def images_in_pairs(comparisons: int) -> int:
    """Images whose pairs are compared: each in about 16 pairs.

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
