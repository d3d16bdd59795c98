"""Representational dissimilarity: how differently pairs of stimuli are represented."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import DataError
from ce_align.metrics.cka import checked_square, cosine, double_centred
from ce_align.metrics.gram import Array, Indices, centred_gram

__all__ = [
    *("Comparator", "Distance", "compare_rdms", "dissimilarities", "mean_rdm"),
    *("noise_ceiling", "squared_distances", "unbiased_gram"),
]

Distance = Literal["euclidean", "correlation", "cosine"]
Comparator = Literal["whitened", "cosine", "correlation", "spearman", "rho-a"]

#: Features that are in memory at once.
BLOCK = 4096


def dissimilarities(features: ArrayLike, distance: Distance = "euclidean") -> Array:
    """Dissimilarity of every two stimuli.

    Parameters
    ----------
    features : (n_stimuli, n_features)
    distance : ``euclidean`` is the mean over features of the squared difference;
        ``correlation`` 1 − Pearson r over features, ``cosine`` 1 − their cosine

    Returns
    -------
    (n_stimuli, n_stimuli), zero on the diagonal

    Raises
    ------
    DataError
        If features are not finite, the same for every stimulus, or, of an angle, some
        stimulus has none.
    """
    values = np.asanyarray(features)
    gram = centred_gram(values)  # refuses what is not finite
    if distance == "euclidean":
        return squared_distances(gram) / values.shape[1]
    gram, means = np.zeros_like(gram), np.zeros(len(gram))
    for start in range(0, values.shape[1], BLOCK):
        block = values[:, start : start + BLOCK].astype(np.float64)
        gram += block @ block.T
        means += block.sum(axis=1) / values.shape[1]
    lengths = np.diag(gram).copy()
    if distance == "correlation":
        gram -= values.shape[1] * np.outer(means, means)
    # What is left of a constant row is rounding.
    if not (np.diag(gram) > 1e-13 * lengths).all():
        what = "differ between features" if distance == "correlation" else "not be zero"
        raise DataError(
            f"the features of a stimulus must {what}, to have a {distance} distance; "
            "take the distance euclidean"
        )
    norms = np.sqrt(np.diag(gram))
    found = 1 - gram / np.outer(norms, norms)
    np.fill_diagonal(found, 0)
    return np.asarray(found)


def squared_distances(gram: ArrayLike) -> Array:
    """Squared Euclidean distances of stimuli, from the products of their features.

    Unbiased distances from an unbiased Gram matrix; they may be negative.
    """
    values = checked_square(gram)
    own = np.diag(values)
    found = own + own[:, None] - 2 * values
    np.fill_diagonal(found, 0)
    return np.asarray(found)


def unbiased_gram(responses: ArrayLike) -> Array:
    """Products of stimuli's responses that noise of single presentations does not bias.

    Parameters
    ----------
    responses : (n_stimuli, n_repetitions, n_neuroids), NaN where there is none

    Returns
    -------
    (n_stimuli, n_stimuli), mean over neuroids of products between all pairs of
    different repetitions; `squared_distances` of it are crossvalidated

    Raises
    ------
    DataError
        If a neuroid has not two repetitions of every stimulus, or an infinite response.

    Notes
    -----
    Of complete repetitions the distances are those of leave-one-out crossvalidation.
    Noise that is common to a repetition, as of a session, cancels, too.

    Reference: Walther, Nili, Ejaz, Alink, Kriegeskorte and Diedrichsen (2016),
    NeuroImage 137.
    """
    values = np.asarray(responses, dtype=np.float64)
    if values.ndim != 3 or np.isinf(values).any():
        raise DataError(
            "responses must be finite (stimulus, repetition, neuroid), found the shape "
            f"{values.shape}"
        )
    there = ~np.isnan(values)
    if not (there.sum(axis=1) > 1).all():
        raise DataError(
            "crossvalidated distances need two repetitions or more of every stimulus; "
            "take the distance euclidean"
        )
    n, _, n_neuroids = values.shape
    values = np.where(there, values, 0)
    total = np.zeros((n, n))
    for some in _alike(there):
        shown = there[:, :, some[0]].astype(np.float64)
        own, counts = values[:, :, some], shown.sum(axis=1)
        sums, every = own.sum(axis=1), own.reshape(n, -1)
        # Of repetitions with themselves, summed over these and neuroids at once.
        products = sums @ sums.T - every @ every.T
        pairs = np.outer(counts, counts) - shown @ shown.T
        total += products / pairs
    return total / n_neuroids


def _alike(there: NDArray[np.bool_]) -> list[Indices]:
    """Neuroids in groups that have responses to the same presentations."""
    flat = np.packbits(there.reshape(-1, there.shape[2]), axis=0).T
    _, group = np.unique(flat, axis=0, return_inverse=True)
    return [np.flatnonzero(group == k) for k in range(group.max() + 1)]


def compare_rdms(
    a: ArrayLike, b: ArrayLike, comparator: Comparator = "whitened"
) -> float:
    """Similarity of two matrices of dissimilarities, at most 1.

    Parameters
    ----------
    a, b : (n_stimuli, n_stimuli), of the same stimuli; the diagonal does not count
    comparator : ``cosine`` and ``correlation`` of the entries; ``spearman`` of ranks,
        ``rho-a`` of ranks, whose ties count as if broken at random; ``whitened``, the
        cosine once entries that share a stimulus are no longer correlated by noise

    Raises
    ------
    DataError
        For other shapes, NaN, or dissimilarities that are all equal.

    Notes
    -----
    The whitened cosine is that of the doubly centred Gram matrices behind the
    distances, so that no covariance of pairs is formed. Of crossvalidated distances it
    is unbiased.

    References: Nili et al. (2014), PLoS Computational Biology 10; Diedrichsen et al.
    (2021), Neurons, Behavior, Data analysis, and Theory; Schütt et al. (2023), eLife.
    """
    left, right = _vector(a, comparator), _vector(b, comparator)
    if comparator != "rho-a":
        return cosine(left, right)
    n = len(left)
    if right.shape != left.shape:
        raise DataError(
            f"both must be of the same stimuli, found {n} and {len(right)} pairs"
        )
    return float(left @ right) * 12 / (n**3 - n)


def mean_rdm(rdms: Sequence[ArrayLike], comparator: Comparator = "whitened") -> Array:
    """Mean of matrices of dissimilarities, that which is most like all of them.

    Each is ranked or normalised before, in the way of the comparator.
    """
    from scipy.spatial.distance import squareform

    vectors = [_vector(rdm, comparator) for rdm in rdms]
    if comparator not in ("spearman", "rho-a"):  # means of ranks have ties, to the bit
        vectors = [one / np.linalg.norm(one) for one in vectors]
    mean = np.mean(vectors, axis=0)
    if comparator == "whitened":
        return squared_distances(mean)
    return np.asarray(squareform(mean, checks=False))


def noise_ceiling(
    rdms: Sequence[ArrayLike], comparator: Comparator = "whitened"
) -> tuple[float, float]:
    """What the best model could reach, on average over animals: at least, at most.

    Parameters
    ----------
    rdms : of each animal, (n_stimuli, n_stimuli), two or more
    comparator : as in `compare_rdms`

    Returns
    -------
    Mean similarity of each animal with the mean of the others, and with that of all.

    Raises
    ------
    DataError
        If there is one animal only.

    Reference: Nili et al. (2014), PLoS Computational Biology 10.
    """
    if len(rdms) < 2:
        raise DataError(f"a noise ceiling needs two animals or more, found {len(rdms)}")
    whole = mean_rdm(rdms, comparator)
    low, high = [], []
    for place, own in enumerate(rdms):
        others = [rdm for k, rdm in enumerate(rdms) if k != place]
        low.append(compare_rdms(mean_rdm(others, comparator), own, comparator))
        high.append(compare_rdms(whole, own, comparator))
    return float(np.mean(low)), float(np.mean(high))


def _vector(rdm: ArrayLike, comparator: Comparator) -> NDArray[Any]:
    """Dissimilarities such that a comparator is the cosine of two of them."""
    values = checked_square(rdm)
    if comparator == "whitened":
        return double_centred(-values / 2)
    entries = values[np.triu_indices(len(values), 1)]
    if comparator == "cosine":
        return entries
    if comparator != "correlation":
        from scipy.stats import rankdata

        entries = rankdata(entries)
    return np.asarray(entries - entries.mean())
