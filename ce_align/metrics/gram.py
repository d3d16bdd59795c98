"""The Gram matrix of centred features: all that linear regressions need of them."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import ConfigError, DataError

__all__ = [
    *("GRAM_DTYPES", "Array", "Indices", "Splits", "centred_gram", "mirror_upper"),
    *("narrowed", "restored"),
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
#: Row numbers to train on and to test with, of each split.
Splits = Sequence[tuple[Indices, Indices]]

#: Precisions in which the products of features may be formed.
GRAM_DTYPES = ("float64", "float32")


def centred_gram(
    features: ArrayLike,
    *,
    dtype: str = "float64",
    block: int = 4096,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Gram matrix of features centred by their mean over stimuli.

    Parameters
    ----------
    features : (n_stimuli, n_features), real numbers of any precision; a memory map is
        read block by block and never copied as a whole
    dtype : precision of the products, one of `GRAM_DTYPES`; centring and sums over
        blocks are always float64. In float32 an entry errs by about 1e-7 of the
        geometric mean of its two diagonal entries, in half the time; predictivity moves
        by less than 1e-5
    block : features that are in memory at once
    progress : told of features done, and of all

    Returns
    -------
    (n_stimuli, n_stimuli), float64 and symmetric to the last bit

    Raises
    ------
    ConfigError
        For an unknown `dtype` or a `block` below one feature.
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
    gram = np.zeros((n_stimuli, n_stimuli), order="F")
    mean_energy = 0.0
    for start in range(0, n_features, block):
        centred, mean = _centred_block(values[:, start : start + block])
        mean_energy += float(mean @ mean)
        # Only the upper triangle is formed: half the work. Float32 products are
        # summed over blocks in float64, so that their error does not grow with them.
        if dtype == "float32":
            gram += blas.ssyrk(1.0, centred.astype(np.float32).T, trans=1)
        else:
            gram = blas.dsyrk(
                1.0, centred.T, trans=1, beta=1.0, c=gram, overwrite_c=True
            )
        if progress is not None:
            progress(min(start + block, n_features), n_features)
    variation = float(np.trace(gram))
    if not np.isfinite(variation):
        raise DataError(f"products of features overflow {dtype}; rescale the features")
    # The mean of n equal numbers may miss them by n roundings.
    rounding = n_stimuli * np.finfo(np.float64).eps
    if variation <= rounding**2 * n_stimuli * mean_energy:
        raise DataError(
            "features are the same for every stimulus; predictivity needs features "
            "that vary: check the layer and the weights"
        )
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


def _centred_block(values: NDArray[Any]) -> tuple[Array, Array]:
    """One block of features without their mean, and the mean, in float64."""
    centred = np.array(values, dtype=np.float64, order="C")
    mean: Array = centred.mean(axis=0)
    # A mean is finite only if every value is; the count is needed for the message.
    if not np.isfinite(mean).all():
        n_bad = int(np.count_nonzero(~np.isfinite(centred)))
        raise DataError(
            f"features have NaN, infinite or overflowing values ({n_bad} in one block "
            "alone); check the network's outputs"
        )
    centred -= mean
    return centred, mean


def mirror_upper(matrix: Array, tile: int = 512) -> Array:
    """Copy the upper triangle of a Fortran-ordered matrix to the lower, in place.

    It goes by `tile` rows, which fit the cache, and returns the same memory in C order.
    """
    for row in range(0, len(matrix), tile):
        rows = slice(row, row + tile)
        corner = np.triu(matrix[rows, rows])
        matrix[rows, rows] = corner + np.triu(corner, 1).T
        matrix[row + tile :, rows] = matrix[rows, row + tile :].T
    return matrix.T


def narrowed(responses: Array) -> tuple[Array, Array | None]:
    """Responses without the directions that no stimulus drives.

    Linear regressions with shared settings do not notice a rotation of their targets,
    so that 20,000 neuroids need no more work than there are stimuli.

    Parameters
    ----------
    responses : (n_stimuli, n_neuroids)

    Returns
    -------
    targets : (n_stimuli, n_targets), with no more targets than stimuli
    basis : (n_neuroids, n_targets), orthonormal; ``targets @ basis.T`` are the
        responses. None if they are the targets themselves
    """
    from scipy.linalg import qr

    if responses.shape[1] <= len(responses):
        return responses, None
    basis, triangle = qr(responses.T, mode="economic", check_finite=False)
    return np.ascontiguousarray(triangle.T), basis


def restored(targets: Array, basis: Array | None) -> Array:
    """Responses, (n, n_neuroids), of targets that `narrowed` made, (n, n_targets)."""
    return targets if basis is None else targets @ basis.T
