"""Responses to held-out stimuli beside what was predicted of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ce_align.metrics.gram import Array, Indices, Splits
from ce_align.metrics.pearson import columnwise_pearson_r

__all__ = ["HeldOut", "shuffled_splits"]

#: A variance below this share of the values' size is rounding.
ROUNDING = 1e-12


def shuffled_splits(
    n: int, n_train: int, *, n_splits: int, seed: int
) -> list[tuple[Indices, Indices]]:
    """Random rows to train on, and all others, of each split.

    They are those of scikit-learn's `ShuffleSplit`, whose import takes longer than many
    a score.
    """
    rng = np.random.RandomState(seed)
    orders = [rng.permutation(n) for _ in range(n_splits)]
    return [(order[n - n_train :], order[: n - n_train]) for order in orders]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What regressions predict of stimuli that they were not fitted to.

    Attributes
    ----------
    predictions : (n_test, n_neuroids) of each split
    rates : (n_stimuli, n_neuroids), recorded
    splits : (train, test), row numbers
    """

    predictions: Sequence[Array]
    rates: Array
    splits: Splits

    @cached_property
    def r(self) -> Array:
        """Pearson r over the test stimuli; see `cross_validated_r`."""
        r = np.empty((len(self.splits), self.rates.shape[1]))
        for split, (train, test) in enumerate(self.splits):
            r[split] = columnwise_pearson_r(self.predictions[split], self.rates[test])
            # A regression on a constant predicts it with rounding errors, whose
            # correlation means nothing.
            r[split, np.ptp(self.rates[train], axis=0) == 0] = np.nan
        return r

    def raw(
        self,
        stimuli: NDArray[np.int64],
        neuroids: NDArray[np.int64],
        of: NDArray[np.intp] | slice = slice(None),
    ) -> Array:
        """Raw scores as `summarise` gives them, of stimuli and neuroids drawn anew.

        Parameters
        ----------
        stimuli : (b, n_stimuli), how often each is there in a draw; the regressions
            stay as they were fitted
        neuroids : (b, n_neuroids), the same; either may have one line for all draws
        of : neuroids that count, such as those of one animal

        Returns
        -------
        (b,), NaN where a split is left with no correlation
        """
        if (stimuli == 1).all():
            r = self.r[:, None]
        else:
            r = np.stack([self._weighted_r(k, stimuli) for k in range(len(self.r))])
        return np.asarray(_weighted_median(r[..., of], neuroids[:, of]).mean(axis=0))

    def _weighted_r(self, split: int, counts: NDArray[np.int64]) -> Array:
        """Correlations of a split, each stimulus counted so often, (b, n_neuroids)."""
        test = self.splits[split][1]
        weights = counts[:, test].astype(np.float64)
        x, y = (_scaled(part) for part in (self.predictions[split], self.rates[test]))
        n = weights.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            x_mean, y_mean = weights @ x / n, weights @ y / n
            x_square, y_square = weights @ x**2 / n, weights @ y**2 / n
            x_variance, y_variance = x_square - x_mean**2, y_square - y_mean**2
            r = (weights @ (x * y) / n - x_mean * y_mean) / np.sqrt(
                x_variance * y_variance
            )
        constant = (x_variance <= ROUNDING * x_square) | (
            y_variance <= ROUNDING * y_square
        )
        r[constant | np.isnan(self.r[split])] = np.nan
        return np.asarray(np.clip(r, -1.0, 1.0))


def _scaled(values: Array) -> Array:
    """Columns about their mean, of unit size, so that squares lose no digits."""
    centred = values - values.mean(axis=0)
    largest = np.abs(centred).max(axis=0)
    return np.asarray(centred / np.where(largest > 0, largest, 1.0))


def _weighted_median(values: Array, counts: NDArray[np.int64]) -> Array:
    """Median over the last axis, of defined values, each counted so often.

    values : (..., b, n), counts : (b, n), either with b = 1. NaN if nothing is left
    """
    shape = np.broadcast_shapes(values.shape, counts.shape)
    order = np.argsort(values, axis=-1)
    ordered = np.broadcast_to(np.take_along_axis(values, order, axis=-1), shape)
    weights = np.where(np.isnan(values), 0, counts)
    weights = np.take_along_axis(weights, np.broadcast_to(order, shape), axis=-1)
    reached = np.cumsum(weights, axis=-1)
    n = reached[..., -1:]
    middle = [
        np.take_along_axis(ordered, (reached < k).argmin(axis=-1)[..., None], axis=-1)
        for k in ((n + 1) // 2, n // 2 + 1)
    ]
    median = (middle[0] + middle[1]) / 2
    return np.where(n > 0, median, np.nan)[..., 0]
