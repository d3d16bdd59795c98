"""Correlation of measures with predictivity across networks: r, intervals, p and q."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import DataError
from ce_align.metrics.gram import Array
from ce_align.metrics.inference import (
    benjamini_hochberg,
    checked_vector,
    within_group_permutation_p,
)

__all__ = [
    *("MIN_NETWORKS", "Association", "correlate", "least_r", "one_family"),
    "residual_r",
]

#: Fewer networks have no correlation worth a number.
MIN_NETWORKS = 5
#: An interval needs deviations that are worth so many independent networks: with fewer
#: it spans nearly all of [−1, 1], and none of those we tried covers what it says.
MIN_INDEPENDENT = 6
#: A jackknife over few networks misses the rarest of them. With this factor intervals
#: of skewed quantities cover 92 % or more: ``benchmarks/coverage/correlation.py``.
JACKKNIFE_FACTOR = 1.05
#: A partial correlation takes the first model that leaves so many degrees of freedom.
MIN_FREEDOM = 3
#: A line is fitted to so many networks at least.
MIN_FITTED = 4
#: Leverage above which a network has a mean or a slope of its own.
ALONE = 1 - 1e-9


@dataclass(frozen=True)
class Coefficient:
    """Correlation of what a linear model leaves of two quantities.

    Attributes
    ----------
    r : Pearson correlation of the residuals; NaN where a side has none
    low, high : its interval over networks drawn anew at the same model; NaN where there
        is none
    p : of Student's t with the degrees of freedom that the model leaves
    n_independent : networks minus the dimensions of the model beside the constant
    """

    r: float
    low: float
    high: float
    p: float
    n_independent: int


@dataclass(frozen=True)
class Association:
    """Correlation of one measure with one predictivity across networks.

    Attributes
    ----------
    pearson : correlation across all networks
    low, high : its interval over networks, if all are of one group; else NaN, for the
        few groups that there are cannot say how groups vary
    abs_pearson, r_squared : size and square of the same r
    within : correlation after subtracting the mean of each group (objective) from both
        sides, with its interval over networks within groups
    p : of the permutation test that exchanges networks within their group only
    held_out_r2 : R² of predicting each group by a line through all others, see
        `held_out_r2`; NaN where it is not defined
    partial : correlation given the group and the covariate (λ)
    n_partial : networks behind `partial`, those of known λ; 0 where it is not defined
    given : in words, what `partial` is given; empty where it is not defined
    q, partial_q : false discovery rates (Benjamini–Hochberg) of `p` and of
        ``partial.p`` over one family of tests, see `one_family`; `partial_q` is NaN
        where `partial` is not defined
    """

    measure: str
    target: str
    n_networks: int
    pearson: float
    low: float
    high: float
    abs_pearson: float
    r_squared: float
    spearman: float
    within: Coefficient
    p: float
    held_out_r2: float
    partial: Coefficient
    n_partial: int
    given: str
    q: float
    partial_q: float


UNDEFINED = Coefficient(np.nan, np.nan, np.nan, np.nan, 0)


def correlate(
    measures: Mapping[str, ArrayLike],
    targets: Mapping[str, ArrayLike],
    groups: ArrayLike,
    rng: np.random.Generator,
    *,
    covariate: ArrayLike | None = None,
    n_permutations: int = 10_000,
    level: float = 0.95,
) -> tuple[Association, ...]:
    """Correlate every measure with every target across networks.

    Parameters
    ----------
    measures : name -> (n_networks,), a number for each network
    targets : name -> (n_networks,), predictivity of the same networks in the same order
    groups : (n_networks,), training objective of each network
    rng : random generator of the permutations
    covariate : (n_networks,), λ of each network, NaN where it is unknown: such networks
        do not enter the partial correlation; None for no partial correlation
    n_permutations : of the test within groups
    level : of the intervals

    Returns
    -------
    One record for each measure and target, measures outermost; all are one family.

    Raises
    ------
    DataError
        For fewer than five networks, unequal lengths, NaN, values that do not vary, or
        groups of one network only.

    Notes
    -----
    Objectives that differ in both quantities make networks of one objective alike. An
    interval that takes all networks for independent covers 91, 83 and 42 % where the
    objectives' offsets have a standard deviation of 0.5, 1 and 3 times that of networks
    within them; three objectives are too few for one that draws objectives anew.
    Intervals are therefore of the correlation within objectives.

    λ may drive both quantities for unrelated reasons, each along a curve of its own.
    The partial correlation compares networks of equal λ: both sides lose the mean of
    every objective, that of every λ, and a slope along λ for each objective. Smaller
    designs have a simpler model, see `given`.
    """
    from scipy import stats

    labels = np.asarray(groups)
    left = {name: _checked(values, name, labels) for name, values in measures.items()}
    right = {name: _checked(values, name, labels) for name, values in targets.items()}
    records = []
    for measure, x in left.items():
        for target, y in right.items():
            within = residual_r(x, y, _indicators(labels), level)
            p = within_group_permutation_p(_pearson, x, y, labels, rng, n_permutations)
            # Without a correlation every permutation is the data again, up to rounding.
            p = 1.0 if np.isnan(within.r) else p
            of_r = within if len(np.unique(labels)) == 1 else UNDEFINED
            partial, n_partial, given = _partial(x, y, labels, covariate, level)
            pearson = float(_pearson(x, y))
            record = Association(
                measure=measure,
                target=target,
                n_networks=len(x),
                pearson=pearson,
                low=of_r.low,
                high=of_r.high,
                abs_pearson=abs(pearson),
                r_squared=pearson**2,
                spearman=float(_pearson(stats.rankdata(x), stats.rankdata(y))),
                within=within,
                p=p,
                held_out_r2=held_out_r2(x, y, labels),
                partial=partial,
                n_partial=n_partial,
                given=given,
                q=p,
                partial_q=partial.p,
            )
            records.append(record)
    return one_family(records)


def one_family(records: Sequence[Association]) -> tuple[Association, ...]:
    """The same correlations, with `q` and `partial_q` of all of them as one family.

    The permutation tests are a family, and so are those of `partial`, where it is
    defined.
    """
    q = benjamini_hochberg([record.p for record in records])
    partial_q = np.array([record.partial.p for record in records])
    defined = np.isfinite(partial_q)
    partial_q[defined] = benjamini_hochberg(partial_q[defined])
    return tuple(
        replace(record, q=float(one), partial_q=float(other))
        for record, one, other in zip(records, q, partial_q, strict=True)
    )


def held_out_r2(x: Array, y: Array, groups: NDArray[np.generic]) -> float:
    """How well a line through the networks of all other groups predicts those of one.

    Parameters
    ----------
    x, y : (n_networks,), measure and predictivity
    groups : (n_networks,), training objective of each network

    Returns
    -------
    1 − squared error of that line / squared error of the mean of the other groups, both
    summed over all networks: 1 if one line holds for all groups, 0 if it tells no more
    than their mean, below 0 if it misleads. NaN for fewer than two groups, or where
    `x` does not vary, or too few are left, without one of them.
    """
    names = np.unique(groups)
    errors = np.zeros(2)
    for name in names:
        rest, own = groups != name, groups == name
        if rest.sum() < MIN_FITTED or np.ptp(x[rest]) == 0:
            return float("nan")
        centre, mean = x[rest].mean(), y[rest].mean()
        slope = (x[rest] - centre) @ y[rest] / ((x[rest] - centre) ** 2).sum()
        missed = y[own] - mean
        errors += [((missed - slope * (x[own] - centre)) ** 2).sum(), missed @ missed]
    return float(1 - errors[0] / errors[1]) if len(names) > 1 else float("nan")


def least_r(n: int, level: float = 0.95) -> float:
    """Size of r below which a single test over n networks cannot tell it from 0.

    One of twenty samples of unrelated numbers reaches it. Correction for several tests
    asks for more.

    >>> round(least_r(21), 2), least_r(2)
    (0.43, 1.0)
    """
    from scipy import special

    if n < 3:
        return 1.0
    quantile = float(special.stdtrit(n - 2, (1 + level) / 2))
    return float(quantile / np.sqrt(n - 2 + quantile**2))


def residual_r(x: Array, y: Array, model: Array, level: float = 0.95) -> Coefficient:
    """Correlation of two quantities beyond a linear model, with p and interval.

    Parameters
    ----------
    x, y : (n,)
    model : (n, n_columns), whose span contains the constant; columns may depend on each
        other
    level : of the interval

    Notes
    -----
    The interval is on Fisher's scale: ± the normal quantile times the larger of
    Fisher's standard error, 1 / √(n_independent − 3), and that of the jackknife over
    networks. The first is right for normal residuals of so few networks, where a
    jackknife or bootstrap alone is not; the second for long tails.
    """
    from scipy import special, stats

    left, _, _ = np.linalg.svd(model, full_matrices=False)
    basis = left[:, : np.linalg.matrix_rank(model)]
    n_independent = len(x) - basis.shape[1] + 1
    if n_independent < 3:
        return UNDEFINED
    e, f = _beyond(basis, x), _beyond(basis, y)
    r = float(_pearson(e, f))
    if np.isnan(r):
        return replace(UNDEFINED, n_independent=n_independent)
    freedom = n_independent - 2
    with np.errstate(divide="ignore"):  # of r = 1
        t = abs(r) * np.sqrt(freedom / np.float64(1 - r**2))
    p = float(2 * stats.t.sf(t, freedom))
    if n_independent < MIN_INDEPENDENT:
        return Coefficient(r, np.nan, np.nan, p, n_independent)
    if abs(r) == 1:
        return Coefficient(r, r, r, p, n_independent)
    error = max(
        1 / np.sqrt(n_independent - 3), JACKKNIFE_FACTOR * _jackknife(e, f, basis, r)
    )
    half = float(special.ndtri((1 + level) / 2)) * error
    z = np.arctanh(r)
    low, high = float(np.tanh(z - half)), float(np.tanh(z + half))
    return Coefficient(r, low, high, p, n_independent)


def _beyond(basis: Array, values: Array) -> Array:
    """Residuals, exactly zero where nothing is left but rounding."""
    residuals = values - basis @ (basis.T @ values)
    rounding = 1e-12 * np.abs(values - values.mean()).max()
    return np.zeros_like(values) if np.abs(residuals).max() <= rounding else residuals


def _jackknife(e: Array, f: Array, basis: Array, r: float) -> float:
    """Standard error of Fisher's z, leaving out one network after the other.

    Without refitting: a sum over residuals loses e f / (1 − leverage).
    """
    leverage = np.sum(basis**2, axis=1)
    kept = leverage < ALONE  # the others are fitted exactly
    e, f, share = e[kept], f[kept], 1 - leverage[kept]
    ef, ee, ff = (np.sum(a * b) - a * b / share for a, b in ((e, f), (e, e), (f, f)))
    with np.errstate(invalid="ignore", divide="ignore"):
        z = np.arctanh(ef / np.sqrt(ee * ff))
    change = z - np.arctanh(r)
    change = change[np.isfinite(change)]
    freedom = share.sum()  # networks minus dimensions of the model
    return float(np.sqrt(np.sum(change**2) * freedom / len(share)))


def _partial(
    x: Array,
    y: Array,
    groups: NDArray[np.generic],
    covariate: ArrayLike | None,
    level: float,
) -> tuple[Coefficient, int, str]:
    """Correlation given group and covariate, n of networks, what is given in words."""
    undefined = UNDEFINED, 0, ""
    if covariate is None:
        return undefined
    weights = np.asarray(covariate, dtype=np.float64)
    if weights.shape != x.shape:
        raise DataError(
            f"there are {len(x)} networks but the covariate has the shape "
            f"{weights.shape}; give one value for each network, NaN where it is unknown"
        )
    known = np.isfinite(weights)
    if known.sum() < MIN_NETWORKS or np.ptp(weights[known]) == 0:
        return undefined
    x, y = x[known], y[known]
    for model, given in _models(groups[known], weights[known]):
        if len(x) - np.linalg.matrix_rank(model) - 1 >= MIN_FREEDOM:
            return residual_r(x, y, model, level), len(x), given
    return undefined


def _models(groups: NDArray[np.generic], weights: Array) -> Iterator[tuple[Array, str]]:
    """Models of group and λ, from that which assumes least, and what each is given.

    A straight line is none of them: where λ drives both quantities along a curve, what
    it leaves over correlates in up to half of all cases.
    """
    group, scaled = _indicators(groups), weights[:, None] / np.abs(weights).max()
    curve = np.hstack([group, scaled, scaled**2])
    if group.shape[1] == 1:
        yield curve, "λ and λ²"
        return
    each = np.hstack([group, _indicators(weights)])
    slopes = np.hstack([each, group * scaled])
    yield slopes, "objective, each λ and its slope by objective"
    yield each, "objective and each λ"
    yield curve, "objective, λ and λ²"


def _indicators(labels: NDArray[np.generic]) -> Array:
    """(n, n_labels), 1 where a label is a network's own."""
    return np.asarray(labels[:, None] == np.unique(labels), dtype=np.float64)


def _pearson(x: Array, y: Array) -> Array:
    """Pearson correlation along the last axis; NaN where one side is constant."""
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2, axis=-1))
    r = np.divide(
        np.sum(x * y, axis=-1), scale, out=np.full_like(scale, np.nan), where=scale > 0
    )
    return np.asarray(np.clip(r, -1.0, 1.0), dtype=np.float64)


def _checked(values: ArrayLike, name: str, groups: NDArray[np.generic]) -> Array:
    data = checked_vector(values, name, MIN_NETWORKS)
    if groups.shape != data.shape:
        raise DataError(
            f"{name} has {len(data)} networks but groups has the shape {groups.shape}; "
            "give one value and one objective for each network, in one order"
        )
    if np.ptp(data) == 0:
        raise DataError(f"{name} is the same for all networks; it has no correlation")
    return data
