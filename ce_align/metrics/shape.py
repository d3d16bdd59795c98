"""Shape distance: what is left between two representations once one is rotated."""

import numpy as np
from numpy.typing import ArrayLike

from ce_align.checks import check_finite
from ce_align.errors import DataError
from ce_align.metrics.cka import checked_square
from ce_align.metrics.gram import Array

__all__ = ["gram_factor", "shape_distance", "shape_similarity"]


def shape_similarity(a: ArrayLike, b: ArrayLike) -> float:
    """Cosine of the angle between two representations after the best rotation.

    Parameters
    ----------
    a, b : (n_stimuli, n_features) of any widths, or factors of their Gram matrices

    Returns
    -------
    ‖Aᵀ B‖* / (‖A‖ ‖B‖) of centred A and B, from 0 to 1. Unlike CKA it is high for any
    two representations that are wide for the number of stimuli

    Raises
    ------
    DataError
        For unequal numbers of stimuli, NaN, or features that never vary.

    Notes
    -----
    It is the Bures similarity of the two centred Gram matrices, of trace 1.

    References: Williams, Kunz, Kornblith and Linderman (2021), NeurIPS; Harvey,
    Larsen and Williams (2024), Duality of Bures and shape distances.
    """
    from scipy.linalg import svdvals

    left, right = _centred(a), _centred(b)
    if len(left) != len(right):
        raise DataError(
            f"both must be of the same stimuli, found {len(left)} and {len(right)}"
        )
    nuclear = svdvals(left.T @ right, check_finite=False).sum()
    return float(nuclear / (np.linalg.norm(left) * np.linalg.norm(right)))


def shape_distance(a: ArrayLike, b: ArrayLike) -> float:
    """Angle between two representations after the best rotation, in radians.

    From 0 to π / 2; a metric: see `shape_similarity`, whose arguments these are.
    """
    return float(np.arccos(min(shape_similarity(a, b), 1.0)))


def gram_factor(gram: ArrayLike) -> Array:
    """A matrix F with F Fᵀ = the Gram matrix: few features with the same geometry."""
    from scipy.linalg import eigh

    values, vectors = eigh(checked_square(gram), check_finite=False)
    return np.asarray(vectors * np.sqrt(values.clip(0)))


def _centred(features: ArrayLike) -> Array:
    values = np.asarray(features, dtype=np.float64)
    if values.ndim != 2:
        raise DataError(f"expected stimuli × features, found the shape {values.shape}")
    check_finite(values, "features")
    centred = values - values.mean(axis=0)
    if not np.linalg.norm(centred) > 1e-13 * np.linalg.norm(values):
        raise DataError("features are the same for every stimulus; check the layer")
    return np.asarray(centred)
