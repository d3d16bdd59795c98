"""Squared Bures distance between the shapes of two clouds of responses.

D_B(C1, C2) = tr C1 + tr C2 − 2 tr (C2^½ C1 C2^½)^½ with each covariance divided by its
trace and no outer square root: 0 for equal shapes, 2 for orthogonal supports. For
centred clouds X1, X2 it equals 2 − 2 ‖X1 X2ᵀ‖_* / (‖X1‖_F ‖X2‖_F), where ‖·‖_* is the
sum of the singular values, so no covariance is ever formed.

Two samples of one source lie apart, and the further the fewer points they have. A
distance therefore means something only beside another of equal numbers of points, or
above the distance between two halves of one and the same cloud.

How certain a distance from the cloud of all images' centroids is, depends on what it
would be without each of those images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite, rounding_step
from ce_align.errors import DataError
from ce_align.metrics.gram import Array, Indices

__all__ = [
    *("BuresSample", "ConstantCloudError", "between_and_floor", "bures_sample"),
    *("check_pairs", "excess_over_splits", "half_effects", "half_split"),
    *("reference_effects", "squared_bures_distance", "squared_bures_distances"),
    *("squared_bures_distances_to_reference", "unit_factor"),
]

#: (n_clouds, n_points, n_features), or one array (n_points, n_features) for each cloud.
Clouds = NDArray[Any] | Sequence[NDArray[Any]]
#: Points of either half of a cloud.
Halves = tuple[Indices, Indices]
#: Those points, (n_points, n_features) each.
HalfClouds = tuple[NDArray[Any], NDArray[Any]]

#: Below this the difference 2 − 2F has lost ten digits: the residual takes over.
RESIDUAL_BELOW = 1e-6
#: A spread of fewer rounding steps of the data's own type than this is no spread.
CONSTANT_STEPS = 8
#: Clouds whose products with one other are formed at once; more gain no more speed.
LONGEST_RUN = 16
#: Fewer points of a reference leave too few when one is left out.
MIN_REFERENCE = 4
#: Spacing of the nodes, in units of log τ: the error is about exp(−π² / spacing).
SPACING = 0.6
#: The nodes reach so far beyond the singular values, as a factor.
REACH = 30.0
#: Singular values below this share of the largest are rounding.
CUTOFF = 1e-7


class ConstantCloudError(DataError):
    """A cloud whose points do not differ, and so has no shape to compare."""


def squared_bures_distance(cloud_1: ArrayLike, cloud_2: ArrayLike) -> float:
    """Squared Bures distance between the trace-normalised covariances of two clouds.

    Parameters
    ----------
    cloud_1, cloud_2 : (n_points_1, n_features) and (n_points_2, n_features)

    Returns
    -------
    In [0, 2]. Near zero it keeps its digits down to about 1e-22.

    Raises
    ------
    DataError
        For NaN, fewer than two points, unequal numbers of features or a constant cloud.

    Reference: Yerxa, Feather, Simoncelli and Chung (2024), NeurIPS.

    Examples
    --------
    >>> round(squared_bures_distance([[0, 1], [0, -1]], [[3, 0], [-3, 0]]), 12)
    2.0
    """
    factor_1 = unit_factor(cloud_1, "cloud_1")
    factor_2 = unit_factor(cloud_2, "cloud_2")
    _check_same_features([factor_1, factor_2])
    return _squared_distance(factor_1, factor_2, factor_1 @ factor_2.T)


def squared_bures_distances(
    clouds: Clouds, pairs: ArrayLike, *, leave_out: bool = False
) -> Array:
    """Squared Bures distances of many pairs of clouds, (n_pairs,); each prepared once.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features), or as many arrays (n_points, n_features)
    pairs : (n_pairs, 2), indices into `clouds`
    leave_out : give NaN for pairs with a constant cloud instead of refusing all

    Raises
    ------
    DataError
        As for one pair, and for indices that are out of range.
    """
    index = check_pairs(pairs, len(clouds))
    used, renumbered = np.unique(index, return_inverse=True)
    found = [_factor_if_varied(clouds[i], f"cloud {i}", leave_out) for i in used]
    varied = np.array([factor is not None for factor in found])
    factors = _StackedFactors(
        [
            np.zeros((1, np.shape(clouds[i])[1])) if factor is None else factor
            for i, factor in zip(used, found, strict=True)
        ]
    )
    first, second = renumbered.reshape(index.shape).T
    distances = np.empty(len(index))
    for run in _consecutive_runs(first, second):
        factor = factors[first[run[0]]]
        for k, product in zip(run, factors.products(factor, second[run]), strict=True):
            distances[k] = _squared_distance(factor, factors[second[k]], product)
    distances[~(varied[first] & varied[second])] = np.nan
    return distances


def squared_bures_distances_to_reference(
    clouds: Clouds, reference: ArrayLike, *, leave_out: bool = False
) -> Array:
    """Squared Bures distance of every cloud to one fixed cloud, (n_clouds,).

    A reference of more points than features is reduced once to a triangular factor of
    its covariance, so its number of points costs nothing afterwards.

    Parameters
    ----------
    clouds, leave_out : as for `squared_bures_distances`
    reference : (n_reference_points, n_features)
    """
    fixed = unit_factor(reference, "reference")
    distances = np.full(len(clouds), np.nan)
    for i, cloud in enumerate(clouds):
        factor = _factor_if_varied(cloud, f"cloud {i}", leave_out)
        if factor is not None:
            _check_same_features([fixed, factor])
            distances[i] = _squared_distance(fixed, factor, fixed @ factor.T)
    return distances


def check_pairs(pairs: ArrayLike, n_items: int) -> Indices:
    """Return `pairs` as indices (n_pairs, 2), all within range, or raise DataError."""
    index = np.asarray(pairs)
    if index.ndim != 2 or index.shape[1] != 2 or not len(index):
        raise DataError(
            f"pairs must have the shape (n_pairs, 2) with n_pairs ≥ 1, found "
            f"{index.shape}; give one row of two indices for each comparison"
        )
    if index.dtype.kind not in "iu":
        raise DataError(f"pairs must be integers, found {index.dtype}; convert them")
    if index.min() < 0 or index.max() >= n_items:
        raise DataError(
            f"pairs must lie in 0 … {n_items - 1}, found {index.min()} … "
            f"{index.max()}; count from zero"
        )
    return index.astype(np.intp, copy=False)


def unit_factor(cloud: ArrayLike, name: str) -> Array:
    """Rows X with XᵀX equal to the cloud's covariance divided by its trace.

    Raises DataError for NaN or fewer than two points, ConstantCloudError for equal
    points.
    """
    given = np.asarray(cloud)
    if given.dtype.kind not in "fiu":
        raise DataError(f"{name} must be real numbers, found {given.dtype}; convert it")
    if given.ndim != 2 or given.shape[0] < 2 or given.shape[1] < 1:
        raise DataError(
            f"{name} must have the shape (n_points ≥ 2, n_features ≥ 1), found "
            f"{given.shape}; give one response vector a row"
        )
    check_finite(given, name)
    points = given.astype(np.float64)  # a copy: the caller's array is not changed
    # The largest value first, so that no square overflows or vanishes.
    points /= max(np.abs(points).max(), np.finfo(np.float64).tiny)
    size = np.linalg.norm(points)
    points -= points.mean(axis=0)
    spread = np.linalg.norm(points)
    if spread <= CONSTANT_STEPS * rounding_step(given) * size:
        raise ConstantCloudError(
            f"{name} is constant: its {len(points)} points differ by no more than the "
            f"rounding of {given.dtype}; a constant response has no covariance to "
            "compare, so check the views and the layer"
        )
    points /= spread
    if len(points) > points.shape[1]:
        return np.asarray(np.linalg.qr(points, mode="r"), dtype=np.float64)
    return points


def _factor_if_varied(cloud: ArrayLike, name: str, leave_out: bool) -> Array | None:
    """Unit factor of a cloud; None for a constant one that may be left out."""
    try:
        return unit_factor(cloud, name)
    except ConstantCloudError:
        if leave_out:
            return None
        raise


def _check_same_features(factors: Sequence[Array]) -> None:
    widths = sorted({factor.shape[1] for factor in factors})
    if len(widths) > 1:
        raise DataError(
            f"clouds must share their features, found {widths} features; compare "
            "responses of one layer of one network"
        )


class _StackedFactors:
    """Unit factors one below the other: a run of them is one matrix without a copy."""

    def __init__(self, factors: list[Array]) -> None:
        _check_same_features(factors)
        self._ends = np.cumsum([0, *(len(factor) for factor in factors)])
        self._rows = np.concatenate(factors)

    def __getitem__(self, k: int) -> Array:
        return self._rows[self._ends[k] : self._ends[k + 1]]

    def products(self, factor: Array, run: Indices) -> list[Array]:
        """Products of one factor with each of a run of consecutive ones, transposed."""
        start, stop = self._ends[run[0]], self._ends[run[-1] + 1]
        both = factor @ self._rows[start:stop].T
        return np.split(both, self._ends[run[1:]] - start, axis=1)


def _consecutive_runs(first: Indices, second: Indices) -> Iterator[Indices]:
    """Rows of pairs that share their first item and count up through their second."""
    order = np.lexsort((second, first))
    breaks = np.diff(first[order]).astype(bool) | (np.diff(second[order]) != 1)
    for stretch in np.split(order, np.flatnonzero(breaks) + 1):
        for start in range(0, len(stretch), LONGEST_RUN):
            yield stretch[start : start + LONGEST_RUN]


def _squared_distance(factor_1: Array, factor_2: Array, product: Array) -> float:
    """Squared Bures distance of two unit factors, given factor_1 @ factor_2.T."""
    fidelity = np.linalg.svd(product, compute_uv=False).sum()
    distance = 2.0 - 2.0 * float(fidelity)
    if distance >= RESIDUAL_BELOW:
        return min(distance, 2.0)
    # The same number as a sum of squares: what is left of one factor after the best
    # rotation of the other (Procrustes). It needs the longer factor first, so that the
    # rotation keeps the length of the shorter one.
    if len(factor_1) < len(factor_2):
        factor_1, factor_2, product = factor_2, factor_1, product.T
    left, _, right = np.linalg.svd(product, full_matrices=False)
    return float(np.sum((factor_1 - (left @ right) @ factor_2) ** 2))


@dataclass(frozen=True)
class BuresSample:
    """Squared Bures distances of one set of comparisons at one cloud size.

    ``baseline - network`` is ΔD_B, (n_comparisons,); it raises DataError where the
    numbers of points differ, because the finite-sample bias would not cancel, or those
    of the comparisons.

    Attributes
    ----------
    values : (n_comparisons,); NaN for a comparison of a constant cloud
    n_points : points in each of the two clouds of a comparison
    """

    values: Array
    n_points: tuple[int, int]

    def __sub__(self, other: "BuresSample") -> Array:
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
    """`squared_bures_distances`, with the size of the clouds that they hold for.

    Raises
    ------
    DataError
        Also if the comparisons do not all have the same numbers of points.
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
    strata : (n_points,), kind of every point (for example view A or view B): each half
        gets as many of each kind. The odd point of a kind is left out

    Returns
    -------
    Two arrays of indices, disjoint and equally long. Use one split for all networks.
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


def between_and_floor(first: HalfClouds, second: HalfClouds) -> tuple[float, float]:
    """Distance between two clouds given by their halves, and between their own halves.

    Parameters
    ----------
    first, second : A, A′ and B, B′, each (n_points, n_features)

    Returns
    -------
    between : ½ [D_B(A, B′) + D_B(A′, B)]
    floor : ½ [D_B(A, A′) + D_B(B, B′)]
        Both are NaN if one of the four is constant. Their difference is zero on average
        if both clouds are samples of one source. Only different halves meet, so that
        this also holds where point k of both clouds is the same draw of augmentations.
    """
    pairs = [(0, 3), (1, 2), (0, 1), (2, 3)]
    found = squared_bures_distances([*first, *second], pairs, leave_out=True)
    return float(found[:2].mean()), float(found[2:].mean())


def excess_over_splits(
    clouds: NDArray[Any], pairs: ArrayLike, splits: Sequence[Halves]
) -> tuple[BuresSample, BuresSample]:
    """Means over splits of `between_and_floor` for pairs of clouds.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features)
    pairs : (n_pairs, 2), indices into `clouds`
    splits : two disjoint arrays of point indices each, all equally long

    Returns
    -------
    between, floor
        A split is left out of the mean of a pair in which one of its four halves is
        constant; a pair without a split has NaN.

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
            _distances(
                _submatrices(product, halves[:, k], halves[:, 1 - k]),
                own[i].lengths[k] * own[j].lengths[1 - k],
            )
            for k in (0, 1)
        ]
        betweens[row] = (crossed[0] + crossed[1]) / 2
        floors[row] = (own[i].floors + own[j].floors) / 2
    defined = np.isfinite(betweens) & np.isfinite(floors)
    n = defined.sum(axis=1)
    means = [
        np.divide(total, n, out=np.full(len(n), np.nan), where=n > 0)
        for total in (np.where(defined, x, 0.0).sum(axis=1) for x in (betweens, floors))
    ]
    sizes = halves.shape[2], halves.shape[2]
    return BuresSample(means[0], sizes), BuresSample(means[1], sizes)


@dataclass(frozen=True)
class _Split:
    """A cloud around its mean, and its halves in every split.

    `lengths` are the norms of either half around its own mean, (2, n_splits), NaN if
    constant; `floors` the squared Bures distances of the two halves, (n_splits,).
    """

    points: Array
    lengths: Array
    floors: Array

    @classmethod
    def of(cls, cloud: NDArray[Any], halves: Indices) -> "_Split":
        check_finite(cloud, "cloud")
        given = cloud.astype(np.float64)
        points = given - given.mean(axis=0)
        product = points @ points.T
        steps = CONSTANT_STEPS * rounding_step(cloud)
        least = steps * np.sqrt(np.sum(given**2, axis=1)[halves].sum(axis=2)).T
        lengths = np.empty(least.shape)
        for k in (0, 1):
            part = _submatrices(product, halves[:, k], halves[:, k])
            lengths[k] = np.sqrt(np.trace(part, axis1=1, axis2=2).clip(min=0.0))
        lengths[lengths <= least] = np.nan
        between = _submatrices(product, halves[:, 0], halves[:, 1])
        return cls(points, lengths, _distances(between, lengths[0] * lengths[1]))


def _submatrices(product: Array, rows: Indices, columns: Indices) -> Array:
    """Products of centred halves, (n_splits, n, n), from those of all points."""
    part: Array = product[rows[:, :, None], columns[:, None, :]]
    part -= part.mean(axis=1, keepdims=True)
    part -= part.mean(axis=2, keepdims=True)
    return part


def _distances(products: Array, lengths: Array) -> Array:
    """Squared Bures distances from products of centred clouds and their lengths."""
    sums = np.linalg.svd(products, compute_uv=False).sum(axis=-1)
    return np.asarray((2.0 - 2.0 * sums / lengths).clip(min=0.0), dtype=np.float64)


def reference_effects(clouds: Clouds, reference: ArrayLike) -> Array:
    """Effect of every reference point on the mean squared Bures distance of clouds.

    Parameters
    ----------
    clouds, reference : as for `squared_bures_distances_to_reference`

    Returns
    -------
    (n_reference_points,)
        (n − 1) [mean of D_k − D_k], where D_k is the mean distance without point k: the
        jackknife's pseudo-values of the mean distance, minus their mean. All NaN for
        fewer than four points, or if without one of them the others are constant.

    Notes
    -----
    Without point k the product M of reference and cloud loses a row z (scaled by
    √(n / (n − 1)), for the mean moves, too), so the sum of singular values falls by

        −(1 / π) ∫₀^∞ log[1 − zᵀ (τ² + MᵀM)⁻¹ z] dτ,

    which one matrix product gives for all points at once, by the trapezoidal rule in
    log τ, to about 1e-4 of the largest effect. No singular value is computed anew.
    """
    unit_factor(reference, "reference")  # refuses what is no cloud
    points, kept = _centred(np.asarray(reference))
    if kept is None:
        return np.full(len(points), np.nan)
    fidelity = np.zeros(len(points))
    for i, cloud in enumerate(clouds):
        factor = unit_factor(cloud, f"cloud {i}")
        fidelity += _fidelities_without(points @ factor.T)
    return _effects(fidelity / len(clouds), kept)


def half_effects(first: HalfClouds, second: HalfClouds) -> Array:
    """Effects of the points of B and of B′ on what `between_and_floor` gives.

    Parameters
    ----------
    first, second : A, A′ and B, B′, each (n_points, n_features)

    Returns
    -------
    (2, 2, n_points)
        For B and for B′: effects on D_B with the other half of A, and on D_B(B, B′), as
        `reference_effects` has them.
    """
    own = [unit_factor(half, "cloud") for half in first]
    for half in second:
        unit_factor(half, "reference")
    points, kept = zip(*(_centred(half) for half in second), strict=True)
    if kept[0] is None or kept[1] is None:
        return np.full((2, 2, len(points[0])), np.nan)
    both = points[0] @ points[1].T
    products = (points[0] @ own[1].T, both), (points[1] @ own[0].T, both.T)
    return np.array(
        [
            [_effects(_fidelities_without(product), kept[k]) for product in products[k]]
            for k in (0, 1)
        ]
    )


def _centred(cloud: NDArray[Any]) -> tuple[Array, Array | None]:
    """Points of unit total spread, and what of it is left without each, if any is."""
    points = cloud.astype(np.float64)
    points -= points.mean(axis=0)
    points /= np.linalg.norm(points)
    n = len(points)
    kept = 1.0 - n / (n - 1) * np.sum(points**2, axis=1)
    enough = n >= MIN_REFERENCE and kept.min() > n * np.finfo(np.float64).eps
    return points, kept if enough else None


def _effects(fidelity: Array, kept: Array) -> Array:
    without = 2.0 - 2.0 * fidelity / np.sqrt(kept)
    return np.asarray((len(kept) - 1) * (without.mean() - without), dtype=np.float64)


def _fidelities_without(product: Array) -> Array:
    """Sum of singular values of M without each row, recentred, (n_rows,)."""
    squares, axes = np.linalg.eigh(product.T @ product)
    values = np.sqrt(squares.clip(min=0.0))
    there = values > CUTOFF * values[-1]
    values = values[there]
    if not values.size:
        return np.zeros(len(product))
    n = len(product)
    rows = n / (n - 1) * (product @ axes[:, there]) ** 2
    low, high = np.log(values[0] / REACH), np.log(values[-1] * REACH)
    n_nodes = int(np.ceil((high - low) / SPACING)) + 1
    nodes, step = np.exp(np.linspace(low, high, n_nodes)), (high - low) / (n_nodes - 1)
    inverse = 1.0 / (nodes**2 + values[:, None] ** 2)
    logs = np.log((1.0 - rows @ inverse).clip(min=np.finfo(np.float64).tiny))
    weights = step * nodes
    # Beyond the nodes the integrand is flat or falls as 1 / τ²: geometric series.
    weights[[0, -1]] /= 1.0 - np.exp(-step)
    return np.asarray(values.sum() + logs @ weights / np.pi, dtype=np.float64)
