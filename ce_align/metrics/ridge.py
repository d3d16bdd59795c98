"""Ridge regression from one Gram matrix, for all splits and strengths at once.

The dual coefficients of a fit without some rows follow from those with all rows: with
W = (K + αI)⁻¹ and the left-out rows R, they are W Y less W_R (W_RR)⁻¹ (W Y)_R, and the
diagonal of the smaller inverse follows the same way. So each strength costs one inverse
for all splits, and each split only its left-out rows, a tenth of them. Leave-one-out
errors then are the dual coefficients over that diagonal. Many strengths of a single
split come from an eigendecomposition instead.

The intercept of a split is not penalised: its column of ones goes along with the
responses.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import (
    Array,
    Indices,
    Splits,
    mirror_upper,
    narrowed,
    restored,
)

__all__ = ["RidgeFit", "check_alphas", "kernel_ridge", "leave_one_out_alphas"]

#: Strengths that leave-one-out chooses from, as shares of the total variation of the
#: features: three a decade, so that the choice does not depend on the features' scale.
LEAVE_ONE_OUT_SHARES = np.logspace(-6, 1, 22)

#: Inverses that cost about as much as an eigendecomposition.
INVERSES = 8


@dataclass(frozen=True)
class RidgeFit:
    """Held-out predictions of every split, and the strengths that gave them.

    Attributes
    ----------
    predictions : (n_test, n_neuroids) of each split, in the unit of the responses
    alphas : (n_splits, n_groups), the strength of each split, shared by the neuroids of
        a group
    squared_errors : (n_splits, n_groups, n_alphas), mean squared leave-one-out error of
        the training stimuli over the neuroids of a group
    """

    predictions: tuple[Array, ...]
    alphas: Array
    squared_errors: Array


def leave_one_out_alphas(gram: Array) -> Array:
    """Strengths to choose from: `LEAVE_ONE_OUT_SHARES` of the Gram matrix's trace."""
    return LEAVE_ONE_OUT_SHARES * float(np.trace(gram))


def kernel_ridge(
    gram: Array,
    responses: Array,
    splits: Splits,
    *,
    alphas: ArrayLike,
    groups: Sequence[Indices] | None = None,
) -> RidgeFit:
    """Predict the responses to held-out stimuli by ridge regression.

    Parameters
    ----------
    gram : (n_stimuli, n_stimuli), of features centred over these stimuli or more
    responses : (n_stimuli, n_neuroids), finite
    splits : (train, test), disjoint row numbers
    alphas : (n_alphas,), positive strengths in squared units of the features. Of
        several, each split takes the one with the least mean squared leave-one-out
        error over its training stimuli and all neuroids (the first of equals), as
        scikit-learn's `RidgeCV` does
    groups : places of the neuroids of each group, together all of them. Each group
        takes a strength of its own, as if it were fitted by itself, at the cost of one

    Raises
    ------
    ConfigError
        If `alphas` is empty or has a strength that is not positive and finite.
    DataError
        If every strength is lost in the rounding of the Gram matrix. Of several, those
        that are lost are not chosen.

    Notes
    -----
    With ``alphas=[1.0]`` these are the predictions of Brain-Score's `ridge` metric.

    Reference: Hoerl & Kennard (1970); Golub, Heath & Wahba (1979).
    """
    strengths = check_alphas(alphas)
    members = [np.arange(responses.shape[1])] if groups is None else list(groups)
    offset = responses.mean(axis=0)
    centred = responses - offset
    narrow = [narrowed(centred[:, places]) for places in members]
    # The column of ones is the intercept's.
    targets = np.column_stack([*(part for part, _ in narrow), np.ones(len(gram))])
    ends = np.cumsum([0, *(part.shape[1] for part, _ in narrow)])
    parts = [slice(*pair) for pair in pairwise(ends.tolist())]
    sets = [
        (train, np.setdiff1d(np.arange(len(gram)), train), test)
        for train, test in splits
    ]
    errors = np.full((len(splits), len(members), len(strengths)), np.inf)
    best: list[_Dual | None] = [None] * len(splits)
    fits: Callable[[float], Iterable[_Dual]]
    if len(sets) == 1 and len(strengths) > INVERSES:
        fits = _fits_of_one(gram, targets, sets[0][0])
    else:
        fits = partial(_fits_of_all, gram, targets, sets)
    for position, alpha in enumerate(strengths):
        for split, dual in enumerate(fits(float(alpha))):
            found, held = errors[split], best[split]
            found[:, position] = [np.mean(dual.squared[part]) for part in parts]
            better = found.argmin(axis=1) == position
            if held is None or better.all():
                best[split] = dual
                continue
            for part in (parts[place] for place in np.flatnonzero(better)):
                held.coefficients[:, part] = dual.coefficients[:, part]
                held.intercept[part] = dual.intercept[part]
    chosen = [dual for dual in best if dual is not None]
    if not chosen:
        raise DataError(
            f"ridge strength {strengths.max():.3g} is lost in the rounding of features "
            f"of total variation {np.trace(gram):.3g}; use a larger one"
        )
    predictions = []
    for dual, (train, _, test) in zip(chosen, sets, strict=True):
        targeted = gram[np.ix_(test, train)] @ dual.coefficients + dual.intercept
        predicted = np.empty((len(test), responses.shape[1]))
        for places, part, (_, basis) in zip(members, parts, narrow, strict=True):
            predicted[:, places] = restored(targeted[:, part], basis)
        predictions.append(predicted + offset)
    # Of targets that stand for more neuroids, the mean is over these.
    sizes = [len(places) for places in members]
    errors *= (np.diff(ends) / sizes)[:, np.newaxis]
    return RidgeFit(tuple(predictions), strengths[errors.argmin(axis=2)], errors)


@dataclass(frozen=True)
class _Dual:
    """One split's fit: dual coefficients (n_train, n_targets) and intercept.

    `squared`, (n_targets,), are the mean squared leave-one-out errors.
    """

    coefficients: Array
    intercept: Array
    squared: Array


def _fits_of_all(
    gram: Array, targets: Array, sets: Sequence[tuple[Indices, ...]], alpha: float
) -> Iterator[_Dual]:
    """Fits of every split from one inverse; none if rounding loses the strength."""
    inverse = _regularised_inverse(gram, alpha)
    if inverse is not None:
        solved = inverse @ targets
        for train, rest, _ in sets:
            yield _dual_without(inverse, solved, train, rest)


def _fits_of_one(
    gram: Array, targets: Array, train: Indices
) -> Callable[[float], Iterable[_Dual]]:
    """Fits of a single split at any strength, from one eigendecomposition."""
    from scipy.linalg import eigh

    centred = gram[np.ix_(train, train)]
    means: Array = centred.mean(axis=0)
    centred -= means
    centred -= centred.mean(axis=1, keepdims=True)
    values, vectors = eigh(centred, overwrite_a=True, check_finite=False)
    offset = targets[train, :-1].mean(axis=0)
    along = vectors.T @ (targets[train, :-1] - offset)

    def fits(alpha: float) -> Iterable[_Dual]:
        if values[0] + alpha <= 0:
            return []
        shrunk = 1 / (values + alpha)
        coefficients = vectors @ (shrunk[:, np.newaxis] * along)
        # Residuals are alpha times the coefficients; the intercept takes 1 / n.
        left = np.einsum("ij,ij,j->i", vectors, vectors, alpha * shrunk)
        held_out = alpha * coefficients / (left - 1 / len(train))[:, np.newaxis]
        intercept = offset - means @ coefficients
        return [_Dual(coefficients, intercept, np.mean(held_out**2, axis=0))]

    return fits


def check_alphas(alphas: ArrayLike) -> Array:
    """Strengths as an array; ConfigError unless all are positive and finite."""
    checked = np.asarray(alphas, dtype=np.float64)
    if checked.ndim != 1 or not len(checked):
        raise ConfigError(
            f"ridge strengths must be a list of at least one, not of shape "
            f"{checked.shape}"
        )
    if not ((checked > 0) & np.isfinite(checked)).all():
        raise ConfigError(
            f"ridge strengths must be positive and finite, but are {checked.tolist()}"
        )
    return checked


def _regularised_inverse(gram: Array, alpha: float) -> Array | None:
    """Inverse of the Gram matrix plus `alpha` on its diagonal; None if that is lost."""
    from scipy.linalg import lapack

    matrix = np.array(gram.T, order="F")  # symmetric, and quicker than transposing
    matrix[np.diag_indices_from(matrix)] += alpha
    factor, info = lapack.dpotrf(matrix, lower=0, clean=0, overwrite_a=1)
    if info:
        return None
    inverse, _ = lapack.dpotri(factor, lower=0, overwrite_c=1)
    return mirror_upper(inverse)


def _dual_without(
    inverse: Array, solved: Array, train: Indices, rest: Indices
) -> _Dual:
    """The fit to `train`, from the inverse and its product with responses and ones."""
    from scipy.linalg import blas, cholesky

    # inverse[rest] is L crossᵀ with L Lᵀ = inverse[rest, rest]; transposes are in
    # Fortran order, which the triangular solver takes without copying.
    rows = inverse[rest]
    factor = cholesky(rows[:, rest], lower=True)
    cross = blas.dtrsm(1.0, factor, rows.T, side=1, lower=1, trans_a=1, overwrite_b=1)
    shared = blas.dtrsm(1.0, factor, solved[rest], lower=1)
    dual = (solved - cross @ shared)[train]
    diagonal = (inverse.diagonal() - np.einsum("ij,ij->i", cross, cross))[train]
    # The intercept makes the coefficients sum to zero.
    ones = dual[:, -1]
    intercept = dual[:, :-1].sum(axis=0) / ones.sum()
    coefficients = dual[:, :-1] - np.outer(ones, intercept)
    diagonal -= ones**2 / ones.sum()
    held_out = coefficients / diagonal[:, None]
    return _Dual(coefficients, intercept, np.mean(held_out**2, axis=0))
