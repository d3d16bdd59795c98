"""Are transformations represented apart from content, or not at all?"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import DataError
from ce_align.metrics.bures import unit_factor

__all__ = ["Factorization", "factorization", "participation_ratio"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Factorization:
    """Where the variance that a transformation induces lies.

    Attributes
    ----------
    factorization : share of the transformation variance that avoids the content
        subspace, 0 … 1; NaN for a network that the transformation leaves unchanged
    invariance : one minus transformation variance over content variance, ≤ 1
    content_dimension : principal components that span the content subspace
    transformation_variance, content_variance : summed over features
    """

    factorization: float
    invariance: float
    content_dimension: int
    transformation_variance: float
    content_variance: float


def factorization(responses: NDArray[Any], share: float = 0.9) -> Factorization:
    """Factorization of a transformation from image content, and invariance to it.

    Parameters
    ----------
    responses : (n_images, n_views, n_features), responses to the views of each image
    share : of the content variance that the content subspace must hold

    Raises
    ------
    DataError
        For fewer than two images or views, NaN, or images with equal responses.

    Notes
    -----
    Content is the mean response of each image over its views; the content subspace is
    spanned by its leading principal components with at least `share` of its variance.
    The transformation variance is that of the views around the mean of their image:

    - factorization = 1 − (transformation variance within the subspace) / (all of it)
    - invariance = 1 − (transformation variance) / (content variance)

    Means over finite views keep 1 / n_views of the transformation variance, which
    lowers factorization and raises content variance: compare equal numbers of views.

    Reference: Lindsey and Issa (2024), eLife 13:RP91685.
    """
    data = np.asarray(responses)
    if data.ndim != 3 or min(data.shape[:2]) < 2 or not data.shape[2]:
        raise DataError(
            "responses must have the shape (n_images ≥ 2, n_views ≥ 2, n_features), "
            f"found {data.shape}"
        )
    if not 0 < share < 1:
        raise DataError(f"share must lie between 0 and 1, found {share}")
    check_finite(data, "responses")
    step = np.finfo(data.dtype if data.dtype.kind == "f" else np.float64).eps
    means = data.mean(axis=1, dtype=np.float64)
    content = means - means.mean(axis=0)
    _, values, axes = np.linalg.svd(content, full_matrices=False)
    content_sum = float(np.sum(values**2))
    rounding = (8 * step) ** 2 * float(np.sum(means**2))
    if content_sum <= rounding:
        raise DataError(
            f"the {len(data)} images have equal mean responses, so there is no content "
            "to factorize from: the network has collapsed, so leave it out"
        )
    held = np.cumsum(values**2) / content_sum
    dimension = int(np.searchsorted(held, share * (1 - 1e-12)) + 1)
    total = within = 0.0
    for image, mean in zip(data, means, strict=True):
        change = image - mean
        total += float(np.sum(change**2))
        within += float(np.sum((change @ axes[:dimension].T) ** 2))
    n_images, n_views = data.shape[:2]
    transformation = total / (n_images * (n_views - 1))
    content_variance = content_sum / (n_images - 1)
    unchanged = total <= n_views * rounding
    return Factorization(
        factorization=float("nan") if unchanged else 1.0 - within / total,
        invariance=1.0 - transformation / content_variance,
        content_dimension=dimension,
        transformation_variance=transformation,
        content_variance=content_variance,
    )


def participation_ratio(cloud: ArrayLike) -> float:
    """Effective dimension of a cloud: (tr C)² / tr C² of its covariance.

    Parameters
    ----------
    cloud : (n_points, n_features)

    Returns
    -------
    float
        From 1 (a line) to n_features or n_points − 1 (equal spread along all axes). It
        grows with the number of points: compare equal numbers.

    Raises
    ------
    DataError
        For NaN, fewer than two points or a constant cloud.

    Examples
    --------
    >>> round(participation_ratio([[1, 0], [-1, 0], [0, 1], [0, -1]]), 12)
    2.0
    """
    factor = unit_factor(cloud, "cloud")
    narrow = len(factor) < factor.shape[1]
    gram = factor @ factor.T if narrow else factor.T @ factor
    return float(1.0 / np.sum(gram**2))
