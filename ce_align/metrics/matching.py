"""Matching of single units: whether neuroids have counterparts in a network."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from ce_align.checks import check_finite
from ce_align.errors import DataError
from ce_align.metrics.gram import Array

__all__ = ["matching_score"]


def matching_score(
    features: ArrayLike,
    responses: ArrayLike,
    kind: Literal["soft", "one-to-one"] = "soft",
    *,
    folds: ArrayLike | None = None,
) -> float:
    """Mean correlation of units with those that they are matched to.

    Parameters
    ----------
    features : (n_stimuli, n_features)
    responses : (n_stimuli, n_neuroids)
    kind : ``one-to-one`` matches each unit of the narrower side with one of the other;
        ``soft`` spreads each feature and each neuroid evenly over the other side, by
        optimal transport, so that every feature counts
    folds : (n_stimuli,), part in which each stimulus is held out: units are matched by
        the others, and correlated over these. None matches and correlates over all,
        which finds counterparts by chance

    Returns
    -------
    Mean over folds; −1 to 1, in expectation 0 for unrelated units if `folds` are given.
    A unit that never varies correlates with none

    Raises
    ------
    DataError
        For unequal numbers of stimuli, NaN, or fewer than three stimuli in a fold.

    Notes
    -----
    The soft matching distance of standardised units is √(2 − 2 × the score over all).

    Reference: Khosla and Williams (2024), Soft matching distance, PMLR 243.
    """
    a, b = (np.asarray(one, dtype=np.float64) for one in (features, responses))
    if a.ndim != 2 or b.ndim != 2 or len(a) != len(b):
        raise DataError(
            "expected stimuli × features and the same stimuli × neuroids, found "
            f"{a.shape} and {b.shape}"
        )
    check_finite(a, "features")
    check_finite(b, "responses")
    if folds is None:
        r = _correlations(a, b)
        return _of_pairs(r, r, kind)
    part = np.asarray(folds)
    found = []
    for fold in np.unique(part):
        test = part == fold
        if test.sum() < 3:
            raise DataError(
                f"a fold has {test.sum()} stimuli, 3 are needed; take fewer folds"
            )
        r = _correlations(a[~test], b[~test])
        found.append(_of_pairs(r, _correlations(a[test], b[test]), kind))
    return float(np.mean(found))


def _of_pairs(chosen_by: Array, r: Array, kind: str) -> float:
    """Mean of r, (n_features, n_neuroids), over pairs that match best by another."""
    if kind == "one-to-one":
        from scipy.optimize import linear_sum_assignment

        pairs = linear_sum_assignment(chosen_by, maximize=True)
        return float(r[pairs].mean())
    from ot.lp import emd

    shares = [np.full(n, 1 / n) for n in r.shape]
    plan = emd(*shares, 1 - chosen_by, numItermax=10_000_000)
    return float(np.vdot(plan, r))


def _correlations(a: Array, b: Array) -> Array:
    """Pearson r of every feature with every neuroid; 0 of those that never vary."""
    return np.asarray(_standardised(a).T @ _standardised(b))


def _standardised(values: Array) -> Array:
    centred = values - values.mean(axis=0)
    norms = np.linalg.norm(centred, axis=0)
    varies = norms > 1e-13 * np.linalg.norm(values, axis=0)
    return np.asarray(np.divide(centred, norms, where=varies, out=centred * 0))
