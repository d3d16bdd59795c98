"""Bures distances of finite clouds: values that know their size, and their floor.

Two samples of one source lie apart, and the further the fewer points they have. A
distance therefore means something only beside another of equal numbers of points, or
above the distance between two halves of one and the same cloud.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import DataError
from ce_align.metrics.bures import (
    CONSTANT_STEPS,
    Clouds,
    ConstantCloudError,
    check_pairs,
    squared_bures_distances,
)

__all__ = [
    "BuresSample",
    "between_and_floor",
    "bures_sample",
    "excess_over_splits",
    "half_split",
]

Halves = tuple[NDArray[np.intp], NDArray[np.intp]]


@dataclass(frozen=True)
class BuresSample:
    """Squared Bures distances of one set of comparisons at one cloud size.

    ``baseline - network`` is ΔD_B, comparison by comparison; it is refused where the
    numbers of points differ, because the finite-sample bias would not cancel.

    Attributes
    ----------
    values : (n_comparisons,); NaN for a comparison of a constant cloud
    n_points : points in each of the two clouds of a comparison
    """

    values: NDArray[np.float64]
    n_points: tuple[int, int]

    def __sub__(self, other: "BuresSample") -> NDArray[np.float64]:
        """Differences, comparison by comparison.

        Raises
        ------
        DataError
            If the cloud sizes or the numbers of comparisons differ.
        """
        if self.n_points != other.n_points:
            raise DataError(
                f"Bures distances of clouds of {self.n_points} and {other.n_points} "
                "points cannot be compared, for their finite-sample bias differs; "
                "measure both with the same number of points"
            )
        if len(self.values) != len(other.values):
            raise DataError(
                f"expected the same comparisons on both sides, found "
                f"{len(self.values)} and {len(other.values)}; use the same pairs"
            )
        return self.values - other.values


def bures_sample(
    clouds: Clouds, pairs: ArrayLike, *, leave_out: bool = False
) -> BuresSample:
    """Squared Bures distances of pairs of clouds, with the size that they hold for.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features), or as many arrays (n_points, n_features)
    pairs : (n_pairs, 2), indices into `clouds`
    leave_out : as in `squared_bures_distances`

    Raises
    ------
    DataError
        If the comparisons do not all have the same numbers of points, and as
        `squared_bures_distances`.
    """
    index = check_pairs(pairs, len(clouds))
    sizes = sorted({(len(clouds[i]), len(clouds[j])) for i, j in index.tolist()})
    if len(sizes) > 1:
        raise DataError(
            f"all comparisons must have equal numbers of points, found {sizes}; draw "
            "the same number of points for every cloud"
        )
    distances = squared_bures_distances(clouds, index, leave_out=leave_out)
    return BuresSample(distances, sizes[0])


def half_split(
    n_points: int, rng: np.random.Generator, strata: ArrayLike | None = None
) -> Halves:
    """Split the points of a cloud at random into two halves of equal size.

    Parameters
    ----------
    n_points : points of the cloud
    rng : random generator
    strata : (n_points,), optional
        Kind of every point (for example view A or view B): each half gets as many of
        each kind. The odd point of a kind is left out.

    Returns
    -------
    Two arrays of indices, disjoint and equally long. Use one split for all networks.

    Raises
    ------
    DataError
        If a half would have fewer than two points, or strata have another length.
    """
    kinds = np.zeros(n_points) if strata is None else np.asarray(strata)
    if kinds.shape != (n_points,):
        raise DataError(
            f"strata must name the kind of each of the {n_points} points, found the "
            f"shape {kinds.shape}"
        )
    first, second = [], []
    for kind in np.unique(kinds):
        members = rng.permutation(np.flatnonzero(kinds == kind))
        half = len(members) // 2
        first.append(members[:half])
        second.append(members[half : 2 * half])
    halves = np.sort(np.concatenate(first)), np.sort(np.concatenate(second))
    if len(halves[0]) < 2:
        raise DataError(
            f"each half of a cloud needs 2 points, found {len(halves[0])} of "
            f"{n_points}; draw more views"
        )
    return halves


def excess_over_splits(
    clouds: NDArray[Any], pairs: ArrayLike, splits: Sequence[Halves]
) -> tuple[BuresSample, BuresSample]:
    """Distances between pairs of clouds and within them, over halves of both.

    With A, A′ the halves of one cloud and B, B′ those of the other, what is between
    them is ½ [D_B(A, B′) + D_B(A′, B)] and their floor ½ [D_B(A, A′) + D_B(B, B′)]. The
    difference is zero on average if both clouds are samples of one source. Only
    different halves meet, so that this also holds where point k of every cloud is the
    same draw of the augmentations.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features)
    pairs : (n_pairs, 2), indices into `clouds`
    splits : two disjoint arrays of point indices each, all equally long

    Returns
    -------
    between, floor
        Means over the splits. A split is left out of the mean of a pair in which one of
        its four halves is constant; a pair without a split has NaN.

    Raises
    ------
    DataError
        For NaN, indices out of range, and halves that overlap or differ in size.
    """
    index = check_pairs(pairs, len(clouds))
    for first, second in splits:
        shared = len(np.intersect1d(first, second))
        if len(first) != len(second) or shared:
            raise DataError(
                f"halves must be disjoint and equally long, found {len(first)} and "
                f"{len(second)} points, {shared} of them in both; use half_split"
            )
    halves = np.asarray(splits)
    # All comes from the inner products of the points, formed once for all splits.
    own = {int(i): _Split.of(clouds[i], halves) for i in np.unique(index)}
    betweens, floors = np.empty((2, len(index), len(halves)))
    for row, (i, j) in enumerate(index.tolist()):
        product = own[i].points @ own[j].points.T
        crossed = [
            _distances(_submatrices(product, halves[:, k], halves[:, 1 - k]), k_lengths)
            for k, k_lengths in (
                (0, own[i].lengths[0] * own[j].lengths[1]),
                (1, own[i].lengths[1] * own[j].lengths[0]),
            )
        ]
        betweens[row] = (crossed[0] + crossed[1]) / 2
        floors[row] = (own[i].floors + own[j].floors) / 2
    defined = np.isfinite(betweens) & np.isfinite(floors)
    sizes = halves.shape[2], halves.shape[2]
    between, floor = (_row_means(x, defined) for x in (betweens, floors))
    return BuresSample(between, sizes), BuresSample(floor, sizes)


@dataclass(frozen=True)
class _Split:
    """A cloud and its halves in every split.

    Attributes
    ----------
    points : (n_points, n_features) around their mean
    lengths : (2, n_splits), norm of either half around its own mean; NaN if constant
    floors : (n_splits,), squared Bures distance of the two halves
    """

    points: NDArray[Any]
    lengths: NDArray[np.float64]
    floors: NDArray[np.float64]

    @classmethod
    def of(cls, cloud: NDArray[Any], halves: NDArray[np.intp]) -> "_Split":
        check_finite(cloud, "cloud")
        given = cloud.astype(np.float64)
        points = given - given.mean(axis=0)
        product = points @ points.T
        kind = cloud.dtype if cloud.dtype.kind == "f" else np.dtype(np.float64)
        steps = CONSTANT_STEPS * np.finfo(kind).eps
        least = steps * np.sqrt(np.sum(given**2, axis=1)[halves].sum(axis=2)).T
        lengths = np.empty(least.shape)
        for k in (0, 1):
            part = _submatrices(product, halves[:, k], halves[:, k])
            lengths[k] = np.sqrt(np.trace(part, axis1=1, axis2=2).clip(min=0.0))
        lengths[lengths <= least] = np.nan
        between = _submatrices(product, halves[:, 0], halves[:, 1])
        return cls(points, lengths, _distances(between, lengths[0] * lengths[1]))


def _submatrices(
    product: NDArray[np.float64], rows: NDArray[np.intp], columns: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Products of centred halves, (n_splits, n, n), from those of all points."""
    part = product[rows[:, :, None], columns[:, None, :]]
    part -= part.mean(axis=1, keepdims=True)
    part -= part.mean(axis=2, keepdims=True)
    return np.asarray(part, dtype=np.float64)


def _distances(
    products: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Squared Bures distances from products of centred clouds and their lengths."""
    sums = np.linalg.svd(products, compute_uv=False).sum(axis=-1)
    return np.asarray((2.0 - 2.0 * sums / lengths).clip(min=0.0), dtype=np.float64)


def _row_means(
    values: NDArray[np.float64], defined: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Means of the rows over what is defined, else NaN."""
    total, n = np.where(defined, values, 0.0).sum(axis=1), defined.sum(axis=1)
    return np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)


def between_and_floor(
    first: tuple[NDArray[Any], NDArray[Any]], second: tuple[NDArray[Any], NDArray[Any]]
) -> tuple[float, float]:
    """What two clouds given by their halves are apart, and what their halves are.

    Parameters
    ----------
    first, second : A, A′ and B, B′, each (n_points, n_features)

    Returns
    -------
    ½ [D_B(A, B′) + D_B(A′, B)] and ½ [D_B(A, A′) + D_B(B, B′)]; both NaN if one of the
    four is constant.

    Raises
    ------
    DataError
        As `squared_bures_distances`.
    """
    pairs = [(0, 3), (1, 2), (0, 1), (2, 3)]
    try:
        found = squared_bures_distances([*first, *second], pairs)
    except ConstantCloudError:
        return float("nan"), float("nan")
    return float(found[:2].mean()), float(found[2:].mean())
