"""Regressions that single units of a network enter: reverse PLS and the best unit.

Units are read block by block, so that features in a memory map stay there.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import DataError
from ce_align.metrics.gram import Array, Indices, Splits
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.pls import MAX_ITER, TOLERANCE, check_components

__all__ = ["neuron_to_neuron", "reverse_pls_r"]

#: Units that are in memory at once.
BLOCK = 4096


def reverse_pls_r(
    features: NDArray[Any],
    gram: Array,
    responses: Array,
    splits: Splits,
    *,
    n_components: int = 25,
) -> Array:
    """Correlation of each unit with what PLS predicts of it from the neuroids.

    Parameters
    ----------
    features : (n_stimuli, n_units)
    gram : (n_stimuli, n_stimuli), of the centred features
    responses : (n_stimuli, n_neuroids), finite
    splits : (train, test), disjoint row numbers
    n_components : at most the number of neuroids

    Returns
    -------
    (n_splits, n_units), NaN where a unit is constant

    Raises
    ------
    DataError
        If there are fewer neuroids or training stimuli than components need.

    Notes
    -----
    The power iteration of scikit-learn's `PLSRegression` sees the units only through
    their Gram matrix, but for the one that it starts from.

    Reference: Muzellec & Kar (2025), Reverse predictivity.
    """
    check_components(n_components, splits)
    if n_components > responses.shape[1]:
        raise DataError(
            "reverse PLS predicts from neuroids, of which there must be at least "
            f"n_components, but {responses.shape[1]} are fewer than {n_components}"
        )
    scores = [
        _neuroid_scores(features, gram, responses, train, n_components)
        for train, _ in splits
    ]
    r = np.empty((len(splits), features.shape[1]))
    for units, block in _blocks(features):
        for split, (train, test) in enumerate(splits):
            t = scores[split]
            centre = block[train].mean(axis=0)
            along = t[train].T @ (block[train] - centre)
            predicted = t[test] @ along + centre
            r[split, units] = columnwise_pearson_r(predicted, block[test])
            r[split, units][np.ptp(block[train], axis=0) == 0] = np.nan
    return r


def _neuroid_scores(
    features: NDArray[Any], gram: Array, responses: Array, train: Indices, n: int
) -> Array:
    """Scores of all stimuli, (n_stimuli, n_components), orthonormal over `train`."""
    kept = gram[np.ix_(train, train)]
    kept = kept - kept.mean(axis=0)
    kept -= kept.mean(axis=1, keepdims=True)
    left = responses - responses[train].mean(axis=0)
    scores = np.zeros((len(responses), n))
    for k in range(n):
        start = _first_left(features, train, scores[train, :k])
        if start is None:
            return scores[:, :k]
        cross = left[train].T @ kept @ left[train]
        weights = left[train].T @ start
        previous = np.full(len(weights), np.inf)
        for _ in range(MAX_ITER):
            weights = weights / np.linalg.norm(weights)
            change = weights - previous
            if features.shape[1] == 1 or change @ change < TOLERANCE:
                break
            previous, weights = weights, cross @ weights
        else:
            weights = previous
        score = left @ weights
        score /= np.linalg.norm(score[train])
        left = left - np.outer(score, score[train] @ left[train])
        scores[:, k] = score
    return scores


def _first_left(
    features: NDArray[Any], train: Indices, scores: Array
) -> NDArray[np.float64] | None:
    """First unit that the scores leave anything of, (n_train,), where NIPALS starts."""
    # scikit-learn takes smaller numbers for zero.
    least = 10 * float(np.finfo(np.float64).eps)
    for _, block in _blocks(features, 64):
        left = block[train] - block[train].mean(axis=0)
        left -= scores @ (scores.T @ left)
        varying = np.flatnonzero((np.abs(left) >= least).any(axis=0))
        if len(varying):
            return np.asarray(left[:, varying[0]])
    return None


def neuron_to_neuron(
    features: NDArray[Any], responses: Array, splits: Splits
) -> list[Array]:
    """For each neuroid, the unit that is most like it over the training stimuli.

    Parameters
    ----------
    features : (n_stimuli, n_units)
    responses : (n_stimuli, n_neuroids), finite
    splits : (train, test), disjoint row numbers

    Returns
    -------
    (n_test, n_neuroids) of each split, what these units do for the test stimuli

    Reference: Arend et al. (2018), Single units in a deep neural network functionally
    correspond with neurons in the brain.
    """
    shape = (len(splits), responses.shape[1])
    best = np.full(shape, -np.inf)
    unit = np.zeros(shape, dtype=np.intp)
    wanted = [_standardised(responses[train]) for train, _ in splits]
    for units, block in _blocks(features):
        for split, (train, _) in enumerate(splits):
            alike = np.nan_to_num(
                _standardised(block[train]).T @ wanted[split], nan=-np.inf
            )
            first = alike.argmax(axis=0)
            found = alike[first, np.arange(shape[1])]
            better = found > best[split]
            best[split, better] = found[better]
            unit[split, better] = units.start + first[better]
    return [
        features[np.ix_(test, unit[split])].astype(np.float64)
        for split, (_, test) in enumerate(splits)
    ]


def _standardised(values: Array) -> Array:
    """Columns about their mean and of unit length; NaN where constant."""
    centred = values - values.mean(axis=0)
    centred[:, np.ptp(values, axis=0) == 0] = np.nan
    return np.asarray(centred / np.linalg.norm(centred, axis=0))


def _blocks(
    features: NDArray[Any], width: int = BLOCK
) -> Iterator[tuple[slice, Array]]:
    for start in range(0, features.shape[1], width):
        units = slice(start, min(start + width, features.shape[1]))
        yield units, np.asarray(features[:, units], dtype=np.float64)
