"""How transformations are represented: apart from content, and alike for all images?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite, rounding_step
from ce_align.errors import DataError
from ce_align.metrics.bures import unit_factor
from ce_align.metrics.gram import Array
from ce_align.metrics.paired_design import (
    ROUNDING_STEPS,
    PairedDesign,
    check_varied,
    fit_ridge,
    is_constant,
    split_views,
)

__all__ = ["expand_parameters", "factorization", "participation_ratio", "steerability"]


@dataclass(frozen=True)
class Factorization:
    """Where the variance that a transformation induces lies, see `factorization`.

    Attributes
    ----------
    factorization : 0 … 1; NaN for a network that the transformation leaves unchanged
    invariance : at most 1
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
    means = data.mean(axis=1, dtype=np.float64)
    content = means - means.mean(axis=0)
    _, values, axes = np.linalg.svd(content, full_matrices=False)
    content_sum = float(np.sum(values**2))
    step = ROUNDING_STEPS * rounding_step(data)
    rounding = step**2 * float(np.sum(means**2))
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
    From 1 (a line) to n_features or n_points − 1 (equal spread along all axes); it
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


@dataclass(frozen=True)
class Steerability:
    """How much of the displacement f(view) − f(clean) other images predict.

    Attributes
    ----------
    by_parameters : explained variance on held-out images, from the parameters alone
    by_transformation : the same, from the mean displacement by the same transformation
        of the training images
    displacement_share : variance of the held-out displacements over that of the clean
        responses
    strength : ridge strength of the regression on parameters
    n_train_views, n_test_views : views that were fitted and held out
    effects : for each of the first three, (n_images, n_transformations), what each
        combination adds to it, to first order, where the predictions stay as they are;
        sums to zero. NaN where the number is

    Explained variances are at most 1 and negative where the mean displacement of the
    training views predicts better; NaN where displacements do not vary.
    """

    by_parameters: float
    by_transformation: float
    displacement_share: float
    strength: float
    n_train_views: int
    n_test_views: int
    effects: Mapping[str, Array]


def steerability(
    clean: NDArray[Any],
    views: NDArray[Any],
    image_index: ArrayLike,
    parameters: ArrayLike,
    transformation: ArrayLike,
    *,
    train_images: ArrayLike,
    test_images: ArrayLike,
) -> Steerability:
    """Predict displacements of held-out images without looking at those images.

    Parameters
    ----------
    clean, views, image_index, parameters, train_images, test_images : as for
        `decode_parameters`
    transformation : (n_views,), identifier of the draw; views of different images that
        share it were transformed alike

    Raises
    ------
    DataError
        For shapes that do not agree, NaN, equal responses to all images, images in both
        sets, or held-out transformations that no training image went through.

    Notes
    -----
    With Δ the displacement and Δ̄ its mean over the training views, the explained
    variance is 1 − Σ‖Δ − Δ̂‖² / Σ‖Δ − Δ̄‖² over the held-out views. A network whose
    displacements depend on the transformation only reaches 1 by transformation, and by
    parameters as far as they are quadratic in them (see `expand_parameters`). The mean
    over m training images adds 1 / m of the variance between images to the error.
    """
    index, draw = np.asarray(image_index), np.asarray(transformation)
    given = np.asarray(parameters, dtype=np.float64)
    train, test = split_views(clean, views, index, train_images, test_images)
    check_varied(clean)
    if given.ndim != 2 or len(given) != len(views) or draw.shape != (len(views),):
        raise DataError(
            f"parameters and transformation must have {len(views)} rows, one a view, "
            f"found {given.shape} and {draw.shape}"
        )
    check_finite(given, "parameters")
    unseen = np.setdiff1d(draw[test], draw[train])
    if unseen.size:
        raise DataError(
            f"{unseen.size} transformations of held-out images were not applied to "
            "training images; draw one set of transformations for all images"
        )
    moved = views.astype(np.float64) - clean[index]
    mean = moved[train].mean(axis=0)
    spread = np.sum((moved[test] - mean) ** 2, axis=1)
    total = float(spread.sum())
    from_mean = np.sum((clean - clean.mean(axis=0, dtype=np.float64)) ** 2, axis=1)
    clean_sum = float(from_mean.sum())
    share = total / test.sum() / (clean_sum / len(clean))
    _, column = np.unique(draw, return_inverse=True)

    def by_combination(values: Array) -> Array:
        table = np.zeros((len(clean), int(column.max()) + 1))
        np.add.at(table, (index[test], column[test]), values)
        return table

    explained = {
        name: (float("nan"), np.full(len(spread), np.nan))
        for name in ("by_parameters", "by_transformation")
    }
    strength = float("nan")
    # Displacements are differences of responses: below their rounding nothing moved.
    step = ROUNDING_STEPS * rounding_step(views)
    if total > step**2 * float(np.sum(np.square(views[test], dtype=float))):
        predicted, strength = _from_parameters(given, moved, train, test)
        steered = _mean_by(draw[train], moved[train], draw[test])
        for name, found in zip(explained, (predicted, steered), strict=True):
            errors = np.sum((moved[test] - found) ** 2, axis=1)
            lost = float(errors.sum()) / total
            explained[name] = 1.0 - lost, (lost * spread - errors) / total
    of_content = 1 / len(clean) - from_mean / clean_sum
    of_views = spread / total - 1 / len(spread) if total else np.zeros_like(spread)
    of_share = by_combination(of_views) + of_content[:, None] / (column.max() + 1)
    return Steerability(
        explained["by_parameters"][0],
        explained["by_transformation"][0],
        float(share),
        strength,
        int(train.sum()),
        int(test.sum()),
        {name: by_combination(effects) for name, (_, effects) in explained.items()}
        | {"displacement_share": share * of_share},
    )


def expand_parameters(parameters: Array, reference: Array | None = None) -> Array:
    """Parameters, their squares and their pairwise products, all z-scored.

    Parameters
    ----------
    parameters : (n_views, n_parameters)
    reference : (n_reference_views, n_parameters), whose means and standard deviations
        are used, `parameters` itself by default; columns that are constant there become
        zero

    Returns
    -------
    (n_views, n_parameters (n_parameters + 3) / 2)
    """
    base = parameters if reference is None else reference
    first = _z_scored(parameters, base), _z_scored(base, base)
    i, j = np.triu_indices(parameters.shape[1])
    both = [np.hstack([z, z[:, i] * z[:, j]]) for z in first]
    return _z_scored(both[0], both[1])


def _z_scored(values: Array, reference: Array) -> Array:
    scale = np.where(is_constant(reference), np.inf, reference.std(axis=0))
    return np.asarray((values - reference.mean(axis=0)) / scale, dtype=np.float64)


def _mean_by(labels: NDArray[Any], values: Array, wanted: NDArray[Any]) -> Array:
    """Mean of the rows of each label, for every wanted label."""
    names, inverse = np.unique(labels, return_inverse=True)
    sums = np.zeros((len(names), values.shape[1]))
    np.add.at(sums, inverse, values)
    means = sums / np.bincount(inverse)[:, None]
    return np.asarray(means[np.searchsorted(names, wanted)], dtype=np.float64)


def _from_parameters(
    parameters: Array, moved: Array, train: NDArray[np.bool_], test: NDArray[np.bool_]
) -> tuple[Array, float]:
    """Ridge predictions of the held-out displacements and the ridge strength."""

    def design(rows: NDArray[np.bool_]) -> PairedDesign:
        terms = expand_parameters(parameters[rows], parameters[train])
        return PairedDesign(np.zeros((1, 0)), terms, np.zeros(len(terms), np.intp))

    if is_constant(parameters[train]).all():
        return np.broadcast_to(moved[train].mean(axis=0), moved[test].shape), 0.0
    fit = fit_ridge(design(train), moved[train])
    return fit.predict(design(test)), float(fit.strengths[0])
