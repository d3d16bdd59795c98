"""Significance: permutation within groups, and correction for many tests."""

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import DataError

__all__ = ["benjamini_hochberg", "checked_vector", "within_group_permutation_p"]

FloatArray = NDArray[np.float64]


def within_group_permutation_p(
    statistic: Callable[[FloatArray, FloatArray], FloatArray],
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    rng: np.random.Generator,
    n_permutations: int = 10_000,
) -> float:
    """Two-sided p-value of a statistic when `y` is exchanged within groups only.

    Parameters
    ----------
    statistic : function of x (n,) and of permuted y (n_permutations, n) that returns
        one value a row
    x, y : (n,)
    groups : (n,), labels; values of different groups are never exchanged
    rng : random generator
    n_permutations : random permutations, beside the data themselves

    Returns
    -------
    float
        Share of the permutations, with the data counted as one, whose statistic lies at
        least as far from their common mean. Never zero.

    Raises
    ------
    DataError
        For NaN, unequal lengths, or groups of one member only.
    """
    left, right = checked_vector(x, "x", 2), checked_vector(y, "y", 2)
    labels = np.asarray(groups)
    if not len(left) == len(right) == len(labels):
        raise DataError(
            "x, y and groups must be equally long, found "
            f"{len(left)}, {len(right)} and {len(labels)}"
        )
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if max(len(member) for member in members) < 2:
        raise DataError(
            f"no group of the {len(members)} has two members, so nothing can be "
            "exchanged; merge groups"
        )
    permuted = np.tile(right, (n_permutations + 1, 1))
    for member in members:  # the first row stays as it is
        permuted[1:, member] = rng.permuted(permuted[1:, member], axis=1)
    values = statistic(left, permuted)
    if not np.isfinite(values).all():
        raise DataError("the statistic is undefined on permuted data; check constants")
    far = np.abs(values - values.mean())
    # Permutations that leave the statistic as it is differ by rounding only.
    rounding = 1e-12 * np.abs(values).max()
    return float(np.mean(far >= far[0] - rounding))


def benjamini_hochberg(p: ArrayLike) -> FloatArray:
    """False discovery rates at which each p-value would just be accepted.

    Parameters
    ----------
    p : any shape, in [0, 1]

    Returns
    -------
    q-values in the shape of `p`.

    Raises
    ------
    DataError
        For values outside [0, 1] or NaN.

    Notes
    -----
    Reference: Benjamini and Hochberg (1995), J. R. Statist. Soc. B 57.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.5, 0.04]).round(3).tolist()
    [0.03, 0.5, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError("p-values must lie in [0, 1]; remove NaN first")
    flat = values.ravel()
    order = np.argsort(flat)[::-1]
    ranks = np.arange(len(flat), 0, -1)
    q = np.empty_like(flat)
    q[order] = np.minimum.accumulate(flat[order] * len(flat) / ranks)
    return q.reshape(values.shape)


def checked_vector(values: ArrayLike, name: str, at_least: int) -> FloatArray:
    """Return `values` as a finite vector of floats.

    Raises
    ------
    DataError
        For another shape, too few values, or NaN.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or len(data) < at_least:
        raise DataError(
            f"{name} must be a vector of {at_least} or more, found {data.shape}"
        )
    check_finite(data, name)
    return data
