"""Pearson correlation of columns, whatever is missing, constant or of odd size."""

import numpy as np
from numpy.typing import NDArray

from ce_align.metrics.gram import Array

__all__ = ["columnwise_pearson_r"]


def columnwise_pearson_r(a: Array, b: Array) -> Array:
    """Pearson correlation of each column of `a` with that of `b`.

    Parameters
    ----------
    a, b : (n_stimuli, n_neuroids), NaN where a value is missing; each column is
        correlated over the rows that both have

    Returns
    -------
    (n_neuroids,), NaN where a column is constant or fewer than two rows are shared
    """
    shared = np.isfinite(a) & np.isfinite(b)
    n_shared = np.maximum(shared.sum(axis=0), 1)
    a, b = _centred(a, shared, n_shared), _centred(b, shared, n_shared)
    norms = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    with np.errstate(invalid="ignore"):
        r: Array = (a * b).sum(axis=0) / norms
    return np.clip(r, -1.0, 1.0)


def _centred(values: Array, shared: NDArray[np.bool_], n_shared: Array) -> Array:
    """Columns about their mean over the shared rows, of unit size; zero elsewhere."""
    kept = np.where(shared, values, 0.0)
    centred = np.where(shared, kept - kept.sum(axis=0) / n_shared, 0.0)
    # A column of one value is exactly zero: its computed mean may miss it by rounding.
    highest = np.where(shared, values, -np.inf).max(axis=0)
    lowest = np.where(shared, values, np.inf).min(axis=0)
    centred[:, highest <= lowest] = 0.0
    # Unit scale, so that squares neither overflow nor vanish.
    largest = np.abs(centred).max(axis=0)
    largest[largest == 0] = 1.0
    return np.asarray(centred / largest)
