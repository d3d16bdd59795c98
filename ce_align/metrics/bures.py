"""Squared Bures distance between the shapes of two clouds of responses.

D_B(C1, C2) = tr C1 + tr C2 − 2 tr (C2^½ C1 C2^½)^½ with each covariance divided by its
trace and no outer square root: 0 for equal shapes, 2 for orthogonal supports. For
centred clouds X1, X2 it equals 2 − 2 ‖X1 X2ᵀ‖_* / (‖X1‖_F ‖X2‖_F), where ‖·‖_* is the
sum of the singular values, so no covariance is ever formed.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import DataError

__all__ = [
    "ConstantCloudError",
    "squared_bures_distance",
    "squared_bures_distances",
    "squared_bures_distances_to_reference",
]

FloatArray = NDArray[np.float64]
#: (n_clouds, n_points, n_features), or one array (n_points, n_features) for each cloud.
Clouds = NDArray[Any] | Sequence[NDArray[Any]]

#: Below this the difference 2 − 2F has lost ten digits: the residual takes over.
RESIDUAL_BELOW = 1e-6
#: A spread of fewer rounding steps of the data's own type than this is no spread.
CONSTANT_STEPS = 8
#: Clouds whose products with one other are formed at once; more gain no more speed.
LONGEST_RUN = 16


class ConstantCloudError(DataError):
    """A cloud whose points do not differ, and so has no shape to compare."""


def squared_bures_distance(cloud_1: ArrayLike, cloud_2: ArrayLike) -> float:
    """Squared Bures distance between the trace-normalised covariances of two clouds.

    Parameters
    ----------
    cloud_1 : (n_points_1, n_features)
    cloud_2 : (n_points_2, n_features)

    Returns
    -------
    float
        In [0, 2]. Near zero it keeps its digits down to about 1e-22.

    Raises
    ------
    DataError
        For NaN, fewer than two points, unequal numbers of features or a constant cloud.

    Notes
    -----
    Two samples of one source are not at distance zero: the value falls with the number
    of points. Compare values of equal numbers of points only.

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
) -> FloatArray:
    """Squared Bures distances of many pairs of clouds; each is prepared once.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features), or as many arrays (n_points, n_features)
    pairs : (n_pairs, 2), indices into `clouds`
    leave_out : give NaN for pairs with a constant cloud instead of refusing all

    Returns
    -------
    (n_pairs,)

    Raises
    ------
    DataError
        As for one pair, and for indices that are out of range.
    """
    index = check_pairs(pairs, len(clouds))
    used, renumbered = np.unique(index, return_inverse=True)
    varied = np.ones(len(used), bool)
    prepared = []
    for k, i in enumerate(used):
        try:
            prepared.append(unit_factor(clouds[int(i)], f"cloud {i}"))
        except ConstantCloudError:
            if not leave_out:
                raise
            varied[k] = False
            prepared.append(np.zeros((1, np.shape(clouds[int(i)])[1])))
    factors = _StackedFactors(prepared)
    first, second = renumbered.reshape(index.shape).T
    distances = np.empty(len(index))
    for run in _consecutive_runs(first, second):
        factor = factors[first[run[0]]]
        partners = second[run]
        for k, product in zip(run, factors.products(factor, partners), strict=True):
            distances[k] = _squared_distance(factor, factors[second[k]], product)
    distances[~(varied[first] & varied[second])] = np.nan
    return distances


def squared_bures_distances_to_reference(
    clouds: Clouds, reference: ArrayLike, *, leave_out: bool = False
) -> FloatArray:
    """Squared Bures distance of every cloud to one fixed cloud.

    A reference of more points than features is reduced once to a triangular factor of
    its covariance, so its number of points costs nothing afterwards.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features), or as many arrays (n_points, n_features)
    reference : (n_reference_points, n_features)
    leave_out : give NaN for constant clouds instead of refusing all

    Returns
    -------
    (n_clouds,)

    Raises
    ------
    DataError
        As for one pair.
    """
    fixed = unit_factor(reference, "reference")
    distances = np.empty(len(clouds))
    for i, cloud in enumerate(clouds):
        try:
            factor = unit_factor(cloud, f"cloud {i}")
        except ConstantCloudError:
            if not leave_out:
                raise
            distances[i] = np.nan
            continue
        _check_same_features([fixed, factor])
        distances[i] = _squared_distance(fixed, factor, fixed @ factor.T)
    return distances


def check_pairs(pairs: ArrayLike, n_items: int) -> NDArray[np.intp]:
    """Return `pairs` as indices (n_pairs, 2), all within range.

    Raises
    ------
    DataError
        For another shape, no pair at all, numbers that are no integers, or an index out
        of range.
    """
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


def unit_factor(cloud: ArrayLike, name: str) -> FloatArray:
    """Rows X with XᵀX equal to the cloud's covariance divided by its trace.

    Raises
    ------
    DataError
        For NaN, fewer than two points, or (`ConstantCloudError`) a constant cloud.
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
    step = np.finfo(given.dtype if given.dtype.kind == "f" else np.float64).eps
    points = given.astype(np.float64)  # a copy: the caller's array is not changed
    # The largest value first, so that no square overflows or vanishes.
    points /= max(np.abs(points).max(), np.finfo(np.float64).tiny)
    size = np.linalg.norm(points)
    points -= points.mean(axis=0)
    spread = np.linalg.norm(points)
    if spread <= CONSTANT_STEPS * step * size:
        raise ConstantCloudError(
            f"{name} is constant: its {len(points)} points differ by no more than the "
            f"rounding of {given.dtype}; a constant response has no covariance to "
            "compare, so check the views and the layer"
        )
    points /= spread
    if len(points) > points.shape[1]:
        return np.asarray(np.linalg.qr(points, mode="r"), dtype=np.float64)
    return points


def _check_same_features(factors: Sequence[FloatArray]) -> None:
    widths = sorted({factor.shape[1] for factor in factors})
    if len(widths) > 1:
        raise DataError(
            f"clouds must share their features, found {widths} features; compare "
            "responses of one layer of one network"
        )


class _StackedFactors:
    """Unit factors one below the other: a run of them is one matrix without a copy."""

    def __init__(self, factors: list[FloatArray]) -> None:
        _check_same_features(factors)
        self._ends = np.cumsum([0, *(len(factor) for factor in factors)])
        self._rows = np.concatenate(factors)

    def __getitem__(self, k: int) -> FloatArray:
        return self._rows[self._ends[k] : self._ends[k + 1]]

    def products(self, factor: FloatArray, run: NDArray[np.intp]) -> list[FloatArray]:
        """Products of one factor with each of a run of consecutive ones, transposed."""
        start, stop = self._ends[run[0]], self._ends[run[-1] + 1]
        both = factor @ self._rows[start:stop].T
        return np.split(both, self._ends[run[1:]] - start, axis=1)


def _consecutive_runs(
    first: NDArray[np.intp], second: NDArray[np.intp]
) -> Iterator[NDArray[np.intp]]:
    """Rows of pairs that share their first item and count up through their second."""
    order = np.lexsort((second, first))
    breaks = np.diff(first[order]).astype(bool) | (np.diff(second[order]) != 1)
    for stretch in np.split(order, np.flatnonzero(breaks) + 1):
        for start in range(0, len(stretch), LONGEST_RUN):
            yield stretch[start : start + LONGEST_RUN]


def _squared_distance(
    factor_1: FloatArray, factor_2: FloatArray, product: FloatArray
) -> float:
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
