"""Centred kernel alignment: whether two representations find the same stimuli alike."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from ce_align.checks import check_finite
from ce_align.errors import DataError
from ce_align.metrics.gram import Array

__all__ = ["checked_square", "cosine", "double_centred", "linear_cka", "mean_gram"]


def linear_cka(gram_a: ArrayLike, gram_b: ArrayLike, *, unbiased: bool = True) -> float:
    """Linear centred kernel alignment of two representations, from their Gram matrices.

    Parameters
    ----------
    gram_a, gram_b : (n_stimuli, n_stimuli), products of features or neuroids, centred
        or not
    unbiased : leave out each stimulus' product with itself. Else few stimuli make any
        two wide representations alike, and noise of responses counts as signal

    Returns
    -------
    1 for equal geometries. In expectation 0 for unrelated ones, if `unbiased`; then
    single values may be negative

    Raises
    ------
    DataError
        For other shapes, NaN, fewer than four stimuli, or a representation that is the
        same for every stimulus.

    Notes
    -----
    References: Kornblith, Norouzi, Lee and Hinton (2019), ICML; Song, Smola, Gretton,
    Bedo and Borgwardt (2012), JMLR 13, for the unbiased products; Murphy, Zylberberg
    and Fyshe (2024), Correcting biased centered kernel alignment measures.
    """
    centre = u_centred if unbiased else double_centred
    return cosine(centre(gram_a), centre(gram_b))


def mean_gram(grams: Sequence[ArrayLike]) -> Array:
    """Mean of unbiasedly centred Gram matrices of norm 1, so that each counts alike."""
    centred = [u_centred(gram) for gram in grams]
    return np.asarray(np.mean([g / np.linalg.norm(g) for g in centred], axis=0))


def double_centred(gram: ArrayLike) -> Array:
    """Gram matrix of the features without their means over stimuli."""
    values = checked_square(gram)
    means = values.mean(axis=0)
    return np.asarray(values - means - means[:, None] + means.mean())


def u_centred(gram: ArrayLike) -> Array:
    """Centred without the diagonal, which is zero: products of two are unbiased."""
    values = checked_square(gram).copy()
    n = len(values)
    np.fill_diagonal(values, 0)
    sums = values.sum(axis=0)
    values += sums.sum() / ((n - 1) * (n - 2))
    values -= sums / (n - 2)
    values -= sums[:, None] / (n - 2)
    np.fill_diagonal(values, 0)
    return values


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two arrays of one shape."""
    if a.shape != b.shape:
        raise DataError(
            f"both must be of the same stimuli, found shapes {a.shape} and {b.shape}"
        )
    norms = float(np.linalg.norm(a) * np.linalg.norm(b))
    if norms == 0:
        raise DataError(
            "a representation is the same for every stimulus, so that it is like no "
            "other; check the layer, or leave out the neuroids"
        )
    return float(np.vdot(a, b)) / norms


def checked_square(matrix: ArrayLike) -> Array:
    """A finite matrix of stimuli × stimuli, or DataError."""
    values = np.asarray(matrix, dtype=np.float64)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or len(values) < 4:
        raise DataError(
            "expected a matrix of stimuli × stimuli, of four stimuli or more, found "
            f"the shape {values.shape}"
        )
    check_finite(values, "the matrix of stimuli × stimuli")
    return values
