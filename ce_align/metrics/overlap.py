"""Which part of the responses do two networks explain alike, and which alone?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import Array

__all__ = [
    *("STRENGTHS", "centred_blocks", "check_regression", "least_left_out"),
    *("unit_kernel", "variance_overlap"),
]

#: Shares of the first network in the joint kernel. The ends are the networks alone, so
#: that the joint model may leave out either.
SHARES = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)
#: Ridge strengths, relative to the mean eigenvalue of the training kernel.
STRENGTHS = tuple(np.logspace(-5, 4, 19))


@dataclass(frozen=True)
class VarianceOverlap:
    """Held-out explained variance of two networks, alone and together.

    Attributes
    ----------
    r2_a, r2_b, r2_joint : (n_neuroids,), pooled over the held-out folds

    The joint model is fitted, so on held-out stimuli it may fall short of one network:
    then the other's unique part is slightly negative. Nothing is clipped.
    """

    r2_a: Array
    r2_b: Array
    r2_joint: Array

    @property
    def unique_a(self) -> Array:
        """Explained by the first network only: joint minus the second."""
        return self.r2_joint - self.r2_b

    @property
    def unique_b(self) -> Array:
        """Explained by the second network only: joint minus the first."""
        return self.r2_joint - self.r2_a

    @property
    def shared(self) -> Array:
        """Explained by either: the sum of both minus the joint."""
        return self.r2_a + self.r2_b - self.r2_joint


def variance_overlap(
    features_a: NDArray[Any],
    features_b: NDArray[Any],
    responses: ArrayLike,
    folds: ArrayLike,
    *,
    shares: ArrayLike = SHARES,
    strengths: ArrayLike = STRENGTHS,
) -> VarianceOverlap:
    """Unique and shared explained variance from nested ridge regressions.

    Parameters
    ----------
    features_a, features_b : (n_stimuli, n_features_a), (n_stimuli, n_features_b)
    responses : (n_stimuli, n_neuroids), trial-averaged
    folds : (n_stimuli,), fold in which each stimulus is held out
    shares : weights of the first network in the joint kernel to choose from, including
        0 and 1
    strengths : positive ridge strengths, relative to the mean eigenvalue

    Raises
    ------
    DataError
        For unequal numbers of stimuli, NaN, fewer than two folds, features or responses
        that do not vary.
    ConfigError
        For shares without 0 and 1, or strengths that are not positive.

    Notes
    -----
    The joint model is banded ridge regression on [A, B]: its kernel is w K_A +
    (1 − w) K_B, each K of centred features and of unit mean diagonal. For each neuroid,
    w and the strength minimise the leave-one-out error of the training stimuli. Only
    stimulus × stimulus matrices are formed.

    Reference: Dupré la Tour, Eickenberg, Nunez-Elizalde and Gallant (2022), NeuroImage
    264.
    """
    rates, labels = np.asarray(responses, dtype=np.float64), np.asarray(folds)
    named = {"features_a": features_a, "features_b": features_b}
    check_regression(named, rates, labels)
    weights, relative = np.unique(np.asarray(shares, float)), np.asarray(strengths)
    if weights.min() != 0 or weights.max() != 1:
        raise ConfigError("shares must lie in [0, 1] and include 0 and 1")
    if relative.ndim != 1 or not relative.size or not (relative > 0).all():
        raise ConfigError("strengths must be positive numbers, one or more")
    kernel_a = unit_kernel(features_a, "features_a")
    kernel_b = unit_kernel(features_b, "features_b")
    # Of B alone, A alone and both together.
    predicted = np.empty((3, *rates.shape))
    for label in np.unique(labels):
        test = labels == label
        mean = rates[~test].mean(axis=0)
        least = np.full(rates.shape[1], np.inf)
        of_fold = np.empty((3, int(test.sum()), rates.shape[1]))
        for share in weights:
            kernel = share * kernel_a + (1 - share) * kernel_b
            errors, found = _ridge(kernel, rates - mean, ~test, test, relative)
            better = errors < least
            least = np.where(better, errors, least)
            of_fold[2][:, better] = found[:, better]
            if share in (0, 1):
                of_fold[int(share)] = found
        predicted[:, test] = of_fold + mean
    total = np.sum((rates - rates.mean(axis=0)) ** 2, axis=0)
    b, a, joint = 1.0 - np.sum((rates - predicted) ** 2, axis=1) / total
    return VarianceOverlap(r2_a=a, r2_b=b, r2_joint=joint)


def check_regression(
    features: Mapping[str, NDArray[Any]], rates: Array, folds: NDArray[Any]
) -> None:
    """Raise DataError unless these are of the same stimuli, finite, and vary."""
    shapes = [*(one.shape for one in features.values()), rates.shape]
    if any(len(shape) != 2 for shape in shapes) or len({s[0] for s in shapes}) > 1:
        raise DataError(
            f"features and responses must be matrices of the same stimuli, found "
            f"{shapes}; align all on stimulus_id"
        )
    if folds.shape != (len(rates),) or len(np.unique(folds)) < 2:
        raise DataError(
            f"folds must name one of two or more folds for each of the {len(rates)} "
            f"stimuli, found {len(np.unique(folds))} in the shape {folds.shape}"
        )
    if min(np.sum(folds != label) for label in np.unique(folds)) < 3:
        raise DataError("every fold must leave three stimuli or more for training")
    for name, one in features.items():
        check_finite(one, name)
    check_finite(rates, "responses")
    still = np.ptp(rates, axis=0) == 0
    if still.any():
        raise DataError(f"{still.sum()} neuroids never vary; leave them out")


def unit_kernel(features: NDArray[Any], name: str) -> Array:
    """Gram matrix of centred features with unit mean diagonal."""
    centred = features - features.mean(axis=0, dtype=np.float64)
    kernel = centred @ centred.T
    size = np.trace(kernel) / len(kernel)
    if size == 0:
        raise DataError(f"{name} are the same for all stimuli; check the layer")
    return np.asarray(kernel / size, dtype=np.float64)


def _ridge(
    kernel: Array,
    rates: Array,
    train: NDArray[np.bool_],
    test: NDArray[np.bool_],
    strengths: NDArray[Any],
) -> tuple[Array, Array]:
    """Least leave-one-out error of each neuroid and its held-out predictions."""
    inner, outer = centred_blocks(kernel, train, test)
    least, dual = least_left_out(inner, rates[train], strengths)
    return least, outer @ dual


def centred_blocks(
    kernel: Array, train: NDArray[np.bool_], test: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Kernel of train × train and test × train, centred as training features would be.

    A sum of kernels has the sum of their blocks.
    """
    inner, outer = kernel[np.ix_(train, train)], kernel[np.ix_(test, train)]
    column = inner.mean(axis=0)
    outer = outer - outer.mean(axis=1, keepdims=True) - column + column.mean()
    return inner - column - column[:, None] + column.mean(), outer


def least_left_out(
    inner: Array, rates: Array, strengths: NDArray[Any]
) -> tuple[Array, Array]:
    """Ridge regressions of the strengths that have the least leave-one-out error.

    Parameters
    ----------
    inner : (n_train, n_train), centred kernel
    rates : (n_train, n_neuroids), centred
    strengths : relative to the mean eigenvalue

    Returns
    -------
    errors : (n_neuroids,), mean squares
    dual : (n_train, n_neuroids); test × train blocks times these are predictions
    """
    from scipy import linalg

    values, vectors = linalg.eigh(inner, driver="evd")
    values = values.clip(min=0.0)
    along, n = vectors.T @ rates, len(inner)
    least = np.full(rates.shape[1], np.inf)
    dual = np.zeros_like(along)
    for strength in strengths * values.mean():
        shrink = values / (values + strength)
        # The intercept takes 1 / n of every leverage.
        kept = 1.0 - 1.0 / n - vectors**2 @ shrink
        residual = rates - vectors @ (shrink[:, None] * along)
        errors = np.mean((residual / kept[:, None]) ** 2, axis=0)
        better = errors < least
        least = np.where(better, errors, least)
        dual[:, better] = along[:, better] / (values + strength)[:, None]
    return least, vectors @ dual
