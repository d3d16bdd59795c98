"""What each of several networks explains of the responses beside all the others."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import counted
from ce_align.errors import ConfigError
from ce_align.metrics.gram import Array
from ce_align.metrics.overlap import (
    STRENGTHS,
    centred_blocks,
    check_regression,
    least_left_out,
    unit_kernel,
)

__all__ = ["BandedRidge", "banded_ridge", "weights_of_bands"]


@dataclass(frozen=True)
class BandedRidge:
    """Held-out explained variance of several networks, together and one by one.

    Attributes
    ----------
    r2 : (n_neuroids,), of all networks together
    alone : (n_networks, n_neuroids), R² of each network
    without : (n_networks, n_neuroids), R² of all others together
    parts : (n_networks, n_neuroids), share of each in the joint prediction, by the
        product measure; they sum to `r2`

    Nothing is clipped; see `VarianceOverlap`.
    """

    r2: Array
    alone: Array
    without: Array
    parts: Array

    @property
    def unique(self) -> Array:
        """Explained by one network only, (n_networks, n_neuroids)."""
        return self.r2 - self.without


def weights_of_bands(n_bands: int, steps: int = 5) -> Array:
    """Every way to share `steps` equal weights among bands, (n_ways, n_bands).

    All subsets of the bands are among them. Raises ConfigError for fewer than two
    bands, or fewer steps than bands, with which they would never be all together.
    """
    if not 2 <= n_bands <= steps:
        raise ConfigError(
            f"expected two networks or more and as many steps, found {n_bands} and "
            f"{counted(steps, 'step')}"
        )
    bars = combinations(range(steps + n_bands - 1), n_bands - 1)
    ends = [(-1, *one, steps + n_bands - 1) for one in bars]
    return np.asarray((np.diff(ends) - 1) / steps, dtype=np.float64)


def banded_ridge(
    features: Mapping[str, NDArray[Any]],
    responses: ArrayLike,
    folds: ArrayLike,
    *,
    weights: Array | None = None,
    strengths: ArrayLike = STRENGTHS,
) -> BandedRidge:
    """Explained variance of ridge regressions with a penalty for each network.

    Parameters
    ----------
    features : (n_stimuli, n_features) of each network or layer, by its name
    responses : (n_stimuli, n_neuroids), trial-averaged
    folds : (n_stimuli,), fold in which each stimulus is held out
    weights : (n_ways, n_networks), of the networks' kernels, to choose from; those of
        `weights_of_bands` if None. Each network must be alone in one, and left out
    strengths : positive ridge strengths, relative to the mean eigenvalue

    Raises
    ------
    DataError
        For unequal numbers of stimuli, NaN, fewer than two folds, features or responses
        that do not vary.
    ConfigError
        For weights without each network alone, or strengths that are not positive.

    Notes
    -----
    The kernel is Σ w K, each K of centred features and of unit mean diagonal, which is
    ridge regression on all features with a penalty for each network. For each neuroid w
    and the strength minimise the leave-one-out error of the training stimuli; without
    a network, among the w that are 0 for it. One eigendecomposition serves all.

    Reference: Dupré la Tour, Eickenberg, Nunez-Elizalde and Gallant (2022), NeuroImage
    264, with the product measure (equation 19) for `BandedRidge.parts`.
    """
    rates, labels = np.asarray(responses, dtype=np.float64), np.asarray(folds)
    check_regression(features, rates, labels)
    n_bands, relative = len(features), np.asarray(strengths)
    ways = weights_of_bands(n_bands, max(5, n_bands)) if weights is None else weights
    ends = [np.flatnonzero(np.all(ways == one, axis=1)) for one in np.eye(n_bands)]
    if ways.shape[1] != n_bands or not all(map(len, ends)) or (ways < 0).any():
        raise ConfigError(
            "weights must have a column for each network, none negative, and a row in "
            "which each is alone with the weight 1"
        )
    if relative.ndim != 1 or not relative.size or not (relative > 0).all():
        raise ConfigError("strengths must be positive numbers, one or more")
    kernels = np.array([unit_kernel(one, name) for name, one in features.items()])
    # Models: all networks; all but each; each alone.
    models = [np.full(len(ways), True), *(ways == 0).T]
    models += [np.isin(np.arange(len(ways)), end) for end in ends]
    predicted = np.empty((len(models), *rates.shape))
    split = np.empty((n_bands, *rates.shape))
    for label in np.unique(labels):
        test = labels == label
        mean = rates[~test].mean(axis=0)
        blocks = [centred_blocks(kernel, ~test, test) for kernel in kernels]
        inner, outer = (np.array(side) for side in zip(*blocks, strict=True))
        least = np.full((len(models), rates.shape[1]), np.inf)
        of_fold = np.empty((len(models), int(test.sum()), rates.shape[1]))
        for place, way in enumerate(ways):
            kernel = np.tensordot(way, inner, 1)
            errors, dual = least_left_out(kernel, rates[~test] - mean, relative)
            each = way[:, None, None] * (outer @ dual)
            for model, allowed in enumerate(models):
                if allowed[place]:
                    better = errors < least[model]
                    least[model, better] = errors[better]
                    of_fold[model][:, better] = each.sum(axis=0)[:, better]
                    if model == 0:
                        split[:, test] = np.where(better, each, split[:, test])
        predicted[:, test] = of_fold + mean
        split[:, test] += (mean - rates.mean(axis=0)) / n_bands
    centred = rates - rates.mean(axis=0)
    total = np.sum(centred**2, axis=0)
    r2 = 1.0 - np.sum((rates - predicted) ** 2, axis=1) / total
    joint = split.sum(axis=0)
    return BandedRidge(
        r2=r2[0],
        without=r2[1 : n_bands + 1],
        alone=r2[n_bands + 1 :],
        parts=np.sum(split * (2 * centred - joint), axis=1) / total,
    )
