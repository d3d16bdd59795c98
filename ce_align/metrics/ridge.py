"""Ridge regression from one Gram matrix, for all splits and strengths at once.

The dual coefficients of a fit without some rows follow from those with all rows: with
W = (K + αI)⁻¹ and the left-out rows R, they are W Y less W_R (W_RR)⁻¹ (W Y)_R, and the
diagonal of the smaller inverse follows the same way. So each strength costs one inverse
for all splits, and each split only its left-out rows, a tenth of them. Leave-one-out
errors then are the dual coefficients over that diagonal. Many strengths of a single
split come from an eigendecomposition instead.

Strengths are tried from the weakest on. An error left out is never below the residual
of the same stimulus when it is fitted, and residuals only grow with the strength: once
they exceed the least error, in every split and group, no stronger penalty is the best.

The intercept of a split is not penalised: its column of ones goes along with the
responses.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike
from threadpoolctl import threadpool_limits

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

#: Share of the least error that ends the search, so that rounding does not.
BEYOND = 1 + 1e-6

#: Groups of fewer neuroids are fitted by one thread.
SMALL = 1024


@dataclass(frozen=True)
class RidgeFit:
    """Held-out predictions of every split, and the strengths that gave them.

    Attributes
    ----------
    predictions : (n_test, n_neuroids) of each split, in the unit of the responses
    alphas : (n_splits, n_groups), the strength of each split, shared by the neuroids of
        a group
    squared_errors : (n_splits, n_groups, n_alphas), mean squared leave-one-out error of
        the training stimuli over the neuroids of a group; infinite for strengths that
        are lost in rounding, and for those that were not tried, for they are too strong
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
    # The last column of each group is the intercept's.
    ones = np.ones((len(gram), 1))
    targets = np.hstack([block for part, _ in narrow for block in (part, ones)])
    ends = np.cumsum([0, *(part.shape[1] + 1 for part, _ in narrow)])
    parts = [slice(*pair) for pair in pairwise(ends.tolist())]
    sets = [
        (train, np.setdiff1d(np.arange(len(gram)), train), test)
        for train, test in splits
    ]
    errors = np.full((len(splits), len(members), len(strengths)), np.inf)
    fitted = np.zeros(errors.shape[:2])
    best: dict[tuple[int, int], _Dual] = {}
    fits: Callable[[float], Iterable[Iterable[_Dual]]]
    if len(sets) == 1 and len(strengths) > INVERSES:
        fits = _fits_of_one(gram, targets, sets[0][0], parts)
    else:
        fits = partial(_fits_of_all, gram, targets, sets, parts)
    # Threads wait for one another longer than a product of a small group takes.
    small = len(members) > 1 and max(map(len, members)) < SMALL
    with threadpool_limits(1 if small else None, user_api="blas"):
        for position in np.argsort(strengths, kind="stable").tolist():
            for split, duals in enumerate(fits(float(strengths[position]))):
                for group, dual in enumerate(duals):
                    place = split, group
                    errors[*place, position] = dual.squared_error
                    fitted[place] = dual.fitted_error
                    if errors[place].argmin() == position or place not in best:
                        best[place] = dual
            # Then no stronger penalty is the best (see above).
            if (fitted > BEYOND * errors.min(axis=2)).all():
                break
    if not best:
        raise DataError(
            f"ridge strength {strengths.max():.3g} is lost in the rounding of features "
            f"of total variation {np.trace(gram):.3g}; use a larger one"
        )
    predictions = []
    for split, (train, _, test) in enumerate(sets):
        across = gram[np.ix_(test, train)]
        predicted = np.empty((len(test), responses.shape[1]))
        for group, (places, (_, basis)) in enumerate(zip(members, narrow, strict=True)):
            dual = best[split, group]
            targeted = across @ dual.coefficients + dual.intercept
            predicted[:, places] = restored(targeted, basis)
        predictions.append(predicted + offset)
    # Of targets that stand for more neuroids, the mean is over these.
    sizes = np.array([len(places) for places in members])
    errors *= ((np.diff(ends) - 1) / sizes)[:, np.newaxis]
    return RidgeFit(tuple(predictions), strengths[errors.argmin(axis=2)], errors)


@dataclass(frozen=True)
class _Dual:
    """A group's fit in one split: dual coefficients (n_train, n_targets), intercept.

    `squared_error` is the mean squared leave-one-out error, `fitted_error` that of the
    stimuli which are fitted.
    """

    coefficients: Array
    intercept: Array
    squared_error: float
    fitted_error: float


def _dual(
    coefficients: Array, intercept: Array, diagonal: Array, alpha: float
) -> _Dual:
    """Fit whose errors left out are coefficients over the inverse's diagonal.

    Residuals of what is fitted are the coefficients times `alpha`.
    """
    squares = np.einsum("ij,ij->i", coefficients, coefficients)
    n_targets = coefficients.shape[1]
    left_out = float(np.mean(squares / diagonal**2)) / n_targets
    fitted = alpha**2 * float(np.mean(squares)) / n_targets
    return _Dual(coefficients, intercept, left_out, fitted)


def _fits_of_all(
    gram: Array,
    targets: Array,
    sets: Sequence[tuple[Indices, ...]],
    parts: Sequence[slice],
    alpha: float,
) -> Iterator[Iterator[_Dual]]:
    """Fits of every split, each of every group, from one inverse.

    There are none if rounding loses the strength.
    """
    inverse = _regularised_inverse(gram, alpha)
    if inverse is not None:
        solved = inverse @ targets
        for train, rest, _ in sets:
            yield _duals_without(inverse, solved, train, rest, parts, alpha)


def _fits_of_one(
    gram: Array, targets: Array, train: Indices, parts: Sequence[slice]
) -> Callable[[float], Iterable[Iterable[_Dual]]]:
    """Fits of a single split at any strength, from one eigendecomposition."""
    from scipy.linalg import eigh

    centred = gram[np.ix_(train, train)]
    means: Array = centred.mean(axis=0)
    centred -= means
    centred -= centred.mean(axis=1, keepdims=True)
    values, vectors = eigh(centred, overwrite_a=True, check_finite=False)
    own = [targets[train, part.start : part.stop - 1] for part in parts]
    offsets = [part.mean(axis=0) for part in own]
    along = [
        vectors.T @ (part - offset) for part, offset in zip(own, offsets, strict=True)
    ]

    def fits(alpha: float) -> Iterable[Iterable[_Dual]]:
        if values[0] + alpha <= 0:
            return
        shrunk = 1 / (values + alpha)
        left = np.einsum("ij,ij,j->i", vectors, vectors, alpha * shrunk)
        # The intercept takes 1 / n.
        diagonal = (left - 1 / len(train)) / alpha

        def of_group(along: Array, offset: Array) -> _Dual:
            coefficients = vectors @ (shrunk[:, np.newaxis] * along)
            return _dual(coefficients, offset - means @ coefficients, diagonal, alpha)

        yield map(of_group, along, offsets)

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


def _duals_without(
    inverse: Array,
    solved: Array,
    train: Indices,
    rest: Indices,
    parts: Sequence[slice],
    alpha: float,
) -> Iterator[_Dual]:
    """Fits to `train`, from the inverse and its product with responses and ones."""
    from scipy.linalg import blas, cholesky, lapack

    # inverse[rest] is L crossᵀ with L Lᵀ = inverse[rest, rest]. A product with the
    # inverse of L takes half the time of solving; transposes are in Fortran order.
    rows = inverse[rest]
    factor = cholesky(rows[:, rest], lower=True)
    small, _ = lapack.dtrtri(factor, lower=1)
    cross = blas.dtrmm(1.0, small, rows.T, side=1, lower=1, trans_a=1, overwrite_b=1)
    left = (inverse.diagonal() - np.einsum("ij,ij->i", cross, cross))[train]
    # A group at a time, so that its arrays stay in the processor's cache.
    for part in parts:
        shared = blas.dtrsm(1.0, factor, solved[rest, part], lower=1)
        dual = (solved[:, part] - blas.dgemm(1.0, cross, shared))[train]
        # The intercept makes the coefficients sum to zero.
        ones = dual[:, -1]
        intercept = dual[:, :-1].sum(axis=0) / ones.sum()
        coefficients = dual[:, :-1] - np.outer(ones, intercept)
        yield _dual(coefficients, intercept, left - ones**2 / ones.sum(), alpha)
