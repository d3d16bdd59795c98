"""The Gram matrix of centred features: all that linear regressions need of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import ConfigError, DataError

__all__ = ["GRAM_DTYPES", "centred_gram", "mirror_upper"]

#: Precisions in which the products of features may be formed.
GRAM_DTYPES = ("float64", "float32")


def centred_gram(
    features: ArrayLike,
    *,
    dtype: str = "float64",
    block: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float64]:
    """Gram matrix of features centred by their mean over stimuli.

    Parameters
    ----------
    features : (n_stimuli, n_features)
        Real numbers of any precision; a memory map is read block by block and never
        copied as a whole.
    dtype : {"float64", "float32"}
        Precision of the products. Centring and the sum over blocks are always float64.
        With "float32" an entry errs by about 1e-7 of the geometric mean of its two
        diagonal entries, in half the time; predictivity moves by less than 1e-5.
    block : int
        Features per block; the working memory is one block in `dtype` and one more
        Gram matrix.
    progress : callable, optional
        Called after each block with the numbers of features done and in all.

    Returns
    -------
    (n_stimuli, n_stimuli) float64 array
        Symmetric to the last bit, in squared units of the features.

    Raises
    ------
    ConfigError
        If `dtype` or `block` is none of the above.
    DataError
        If features are not a matrix of finite real numbers, are too large to be
        multiplied in `dtype`, or are the same for every stimulus.
    """
    from scipy.linalg import blas

    if dtype not in GRAM_DTYPES:
        raise ConfigError(
            f"unknown Gram precision {dtype!r}; choose from {list(GRAM_DTYPES)}"
        )
    if block < 1:
        raise ConfigError(f"block must be at least 1 feature, not {block}")
    values = _checked_features(features)
    n_stimuli, n_features = values.shape
    single = dtype == "float32"
    gram = np.zeros((n_stimuli, n_stimuli), order="F")
    mean_energy = 0.0
    for start in range(0, n_features, block):
        centred, mean = _centred_block(values[:, start : start + block])
        mean_energy += float(mean @ mean)
        # Only the upper triangle is formed: half the work. Float32 products are
        # summed over blocks in float64, so that their error does not grow with them.
        if single:
            gram += blas.ssyrk(1.0, centred.astype(np.float32).T, trans=1)
        else:
            gram = blas.dsyrk(
                1.0, centred.T, trans=1, beta=1.0, c=gram, overwrite_c=True
            )
        if progress is not None:
            progress(min(start + block, n_features), n_features)
    _check_gram(gram, n_stimuli * mean_energy, dtype)
    return mirror_upper(gram)


def _checked_features(features: ArrayLike) -> NDArray[Any]:
    """The features as they are, once they are a matrix of real numbers."""
    values = np.asanyarray(features)
    if values.ndim != 2 or values.dtype.kind not in "fiub":
        raise DataError(
            "features must be a matrix of real numbers, stimuli by features, not "
            f"{values.dtype} of shape {values.shape}; flatten each stimulus"
        )
    if values.shape[0] < 2 or values.shape[1] < 1:
        raise DataError(
            "features must have at least 2 stimuli and 1 feature, not shape "
            f"{values.shape}"
        )
    return values


def _centred_block(
    values: NDArray[Any],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """One block of features without their mean, and the mean, in float64."""
    centred = np.array(values, dtype=np.float64, order="C")
    mean: NDArray[np.float64] = centred.mean(axis=0)
    # A mean is finite only if every value is; the count is needed for the message.
    if not np.isfinite(mean).all():
        n_bad = int(np.count_nonzero(~np.isfinite(centred)))
        raise DataError(
            f"features have NaN, infinite or overflowing values ({n_bad} in one block "
            "alone); check the network's outputs"
        )
    centred -= mean
    return centred, mean


def _check_gram(gram: NDArray[np.float64], mean_energy: float, dtype: str) -> None:
    """Raise DataError if the products overflowed or nothing varies over stimuli."""
    variation = float(np.trace(gram))
    if not np.isfinite(variation):
        raise DataError(f"products of features overflow {dtype}; rescale the features")
    # The mean of n equal numbers may miss them by n roundings.
    rounding = len(gram) * np.finfo(np.float64).eps
    if variation <= rounding**2 * mean_energy:
        raise DataError(
            "features are the same for every stimulus; predictivity needs features "
            "that vary: check the layer and the weights"
        )


def mirror_upper(matrix: NDArray[np.float64], tile: int = 512) -> NDArray[np.float64]:
    """Copy the upper triangle of a Fortran-ordered matrix to the lower, in place.

    Parameters
    ----------
    matrix : (n, n)
        Overwritten.
    tile : int
        Goes by tiles of this many rows, which fit the cache.

    Returns
    -------
    (n, n) array
        The same memory, symmetric, seen in C order.
    """
    n = len(matrix)
    for row in range(0, n, tile):
        rows = slice(row, row + tile)
        corner = np.triu(matrix[rows, rows])
        matrix[rows, rows] = corner + np.triu(corner, 1).T
        matrix[row + tile :, rows] = matrix[rows, row + tile :].T
    return matrix.T
