"""Intervals over units, pairs and combinations; permutation; many tests at once."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ce_align.checks import check_finite
from ce_align.errors import DataError
from ce_align.metrics.bures import check_pairs
from ce_align.metrics.gram import Array, Indices

__all__ = [
    *("MIN_PAIRED", "MIN_UNITS", "Interval", "benjamini_hochberg", "checked_vector"),
    *("crossed_interval", "mean_interval", "pair_interval"),
    *("sign_flip_p", "unit_interval", "within_group_permutation_p"),
]

#: With fewer units the resamples are too few different ones to speak of a spread.
MIN_UNITS = 5
#: With fewer units in pairs, no interval was found that covers what it should.
MIN_PAIRED = 8
#: A spread below this share of the values is rounding.
ROUNDING = 1e-12
#: Indices that are in memory at once.
BATCH_INDICES = 2_000_000


@dataclass(frozen=True)
class Interval:
    """An estimate, its bounds, their confidence level and the independent units."""

    estimate: float
    low: float
    high: float
    level: float
    n_units: int


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of independent values ± the normal quantile times its standard error.

    Comparisons that share images are not independent: see `pair_interval`.

    Raises
    ------
    DataError
        For NaN or fewer than two values.
    """
    from scipy import special

    data = checked_vector(values, "values", 2)
    half = special.ndtri((1 + level) / 2) * data.std(ddof=1) / np.sqrt(len(data))
    mean = float(data.mean())
    return Interval(mean, mean - float(half), mean + float(half), level, len(data))


def unit_interval(
    values: ArrayLike,
    rng: np.random.Generator,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean of one value for each unit, with an interval that knows of skewness.

    Each bound is the farther one of Student's interval and of the studentised
    bootstrap: the first misses the long side of skewed values, the second trusts
    outliers too little.

    Parameters
    ----------
    values : (n_units,), one for each independent unit
    rng, n_resamples : of the bootstrap
    level : confidence level

    Raises
    ------
    DataError
        For NaN or fewer than five units.

    Notes
    -----
    At 95 % and 20 units or more, normal, uniform and exponential values are covered to
    95–97 %, lognormal ones of σ = 1 to 93–96 % (by Student's alone: 88 %). It fails
    where the units do not show the tail: lognormal values of σ = 1 are covered to
    88–90 % by 6 to 12 units, and a rare large value that none of them has not at all.

    Reference: Efron and Tibshirani (1993), An Introduction to the Bootstrap, ch. 12.
    """
    data = checked_vector(values, "values", MIN_UNITS)
    mean, n = float(data.mean()), len(data)
    error = float(data.std(ddof=1)) / np.sqrt(n)
    below, above = _multiples(data, n - 1, rng, n_resamples, level)
    return Interval(mean, mean - below * error, mean + above * error, level, n)


def pair_interval(
    values: ArrayLike,
    pairs: ArrayLike,
    rng: np.random.Generator,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Mean over pairs of units, with an interval that knows that pairs share units.

    Values of pairs that have a unit in common covary; the covariance and the variance
    of a single pair are estimated without bias whatever the choice of pairs, so that
    few pairs of many images are treated as rightly as all pairs of few classes. Bounds
    are moved apart for skewness as those of `unit_interval`.

    Parameters
    ----------
    values : (n_pairs,)
    pairs : (n_pairs, 2), two different units each; no pair is there twice
    rng, n_resamples, level : as in `unit_interval`

    Raises
    ------
    DataError
        For NaN, other shapes, a unit paired with itself, a pair that is there twice, or
        fewer than eight units.

    Notes
    -----
    The mean of h(X_i, X_j) over pairs of independent X has the variance
    (P ζ₂ + b ζ₁) / P² with ζ₂ = Var h(X, Y), ζ₁ = Cov [h(X, Y), h(X, Z)], P pairs and b
    ordered pairs of pairs that share a unit. ζ₁ and ζ₂ solve two equations: what is
    expected of the residuals' sum of squares, and of the sum of their products over
    pairs that share a unit. The degrees of freedom are Satterthwaite's: those of units
    where units matter, of pairs where pairs do.

    With eight units 95 % are 93–98 % where their effects add up and are normal or
    exponential, and 87–90 % where they multiply or are lognormal.

    Reference: Hoeffding (1948), Annals of Mathematical Statistics 19.
    """
    data, index, n_units = _paired(values, pairs)
    mean, n = float(data.mean()), len(data)
    residual = data - mean
    shared, alone = _variance_of_mean(residual, index, n_units)
    variance = shared + alone
    if variance == 0:
        return Interval(mean, mean, mean, level, n_units)
    freedom = variance**2 / (shared**2 / (n_units - 1) + alone**2 / (n - 1))
    of_unit = _sums_by_unit(residual, index, n_units)
    below, above = _multiples(of_unit, freedom, rng, n_resamples, level)
    error = float(np.sqrt(variance))
    return Interval(mean, mean - below * error, mean + above * error, level, n_units)


def crossed_interval(
    estimate: float,
    effects: ArrayLike,
    rng: np.random.Generator,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Interval:
    """Interval of a number whose units are combinations, as images × transformations.

    Parameters
    ----------
    estimate : the number
    effects : (n_rows, n_columns), what each combination adds to the estimate, to first
        order; zero where it is not there. Their sum is zero
    rng, n_resamples, level : as in `unit_interval`

    Raises
    ------
    DataError
        For NaN or fewer than eight rows or columns with an effect.

    Notes
    -----
    The variance is Σ (row sums)² + Σ (column sums)² − Σ effects²: rows and columns are
    both drawn from a population. The degrees of freedom are Satterthwaite's.

    Reference: Cameron, Gelbach and Miller (2011), Journal of Business & Economic
    Statistics 29.
    """
    table = np.asarray(effects, dtype=np.float64)
    if table.ndim != 2 or not np.isfinite(table).all() or not np.isfinite(estimate):
        raise DataError(
            f"effects must be a finite matrix, found the shape {table.shape}; leave "
            "out what is undefined"
        )
    n = [int((table != 0).any(axis=axis).sum()) for axis in (1, 0)]
    if min(n) < MIN_PAIRED:
        raise DataError(
            f"an interval over combinations needs {MIN_PAIRED} rows and columns or "
            f"more, found {n[0]} × {n[1]}"
        )
    sums = [table.sum(axis=1), table.sum(axis=0)]
    sums = [found[found != 0] for found in sums]
    parts = [
        float(found @ found) * k / (k - 1) for found, k in zip(sums, n, strict=True)
    ]
    # Never below what rows or columns alone would have.
    variance = max(sum(parts) - float(np.sum(table**2)), *parts)
    if not variance:
        return Interval(estimate, estimate, estimate, level, n[0])
    squares = [part**2 / (k - 1) for part, k in zip(parts, n, strict=True)]
    freedom = sum(parts) ** 2 / sum(squares)
    sides = [_multiples(found, freedom, rng, n_resamples, level) for found in sums]
    below, above = np.average(sides, axis=0, weights=parts) * np.sqrt(variance)
    low, high = estimate - float(below), estimate + float(above)
    return Interval(estimate, low, high, level, n[0])


def _multiples(
    data: Array,
    freedom: float,
    rng: np.random.Generator,
    n_resamples: int,
    level: float,
) -> tuple[float, float]:
    """Standard errors that bounds lie below and above: Student's quantile or more."""
    from scipy import special

    quantile = float(special.stdtrit(freedom, (1 + level) / 2))
    rounding = ROUNDING * np.abs(data).max(initial=0.0)
    if not len(data) or np.ptp(data) <= rounding:
        return quantile, quantile
    n = len(data)
    step = max(1, BATCH_INDICES // n)
    studentised = []
    for k in range(0, n_resamples, step):
        values = data[rng.integers(n, size=(min(step, n_resamples - k), n))]
        error = values.std(axis=1, ddof=1) / np.sqrt(n)
        away = values.mean(axis=1) - data.mean()
        varied = error > rounding
        studentised.append(away[varied] / error[varied])
    shares = (1 - level) / 2, (1 + level) / 2
    low, high = np.quantile(np.concatenate(studentised), shares)
    # A mean that is too high by many of its errors speaks for a value far below.
    return max(quantile, float(high)), max(quantile, float(-low))


def _sums_by_unit(values: Array, index: Indices, n_units: int) -> Array:
    """Sum over all pairs of each unit."""
    both = np.bincount(index[:, 0], values, n_units)
    return np.asarray(both + np.bincount(index[:, 1], values, n_units))


def _variance_of_mean(
    residual: Array, index: Indices, n_units: int
) -> tuple[float, float]:
    """Variance of the mean over pairs: what units bring in, and what pairs do."""
    n = len(residual)
    degree = _sums_by_unit(np.ones(n), index, n_units)
    neighbours = degree[index].sum(axis=1) - 2
    b = float(neighbours.sum())
    squares = float(np.sum(residual**2))
    sums = _sums_by_unit(residual, index, n_units)
    products = float(np.sum(sums**2)) - 2 * squares
    # Expectations in terms of ζ₂ and ζ₁, for residuals from the mean of all pairs.
    table = np.array(
        [
            [n - 1, -b / n],
            [-b / n, b - 2 * float(np.sum(neighbours**2)) / n + (b / n) ** 2],
        ]
    )
    of_pair, of_unit = np.linalg.lstsq(table, [squares, products], rcond=None)[0]
    # ζ₂ ≥ 2 ζ₁ ≥ 0 holds for every h; by chance the estimates may not.
    of_unit = max(float(of_unit), 0.0)
    rest = max(float(of_pair) - 2 * of_unit, 0.0)
    shared = of_unit * (2 * n + b) / n**2
    floor = squares / n**2 if not of_unit else 0.0
    return shared, max(rest / n, floor)


def _paired(values: ArrayLike, pairs: ArrayLike) -> tuple[Array, Indices, int]:
    """Values, pairs of images renumbered from zero, and the number of images."""
    data = checked_vector(values, "values", 2)
    index = check_pairs(pairs, np.iinfo(np.intp).max)
    if len(index) != len(data):
        raise DataError(f"expected one pair a value, found {len(index)}, {len(data)}")
    if (index[:, 0] == index[:, 1]).any():
        raise DataError("an image is paired with itself; give pairs of two images")
    if len(np.unique(np.sort(index, axis=1), axis=0)) < len(index):
        raise DataError("a pair is there twice; average its values")
    images, renumbered = np.unique(index, return_inverse=True)
    if len(images) < MIN_PAIRED:
        raise DataError(
            f"an interval over pairs needs {MIN_PAIRED} images or more, found "
            f"{len(images)}; compare more images"
        )
    return data, renumbered.reshape(index.shape), len(images)


def within_group_permutation_p(
    statistic: Callable[[Array, Array], Array],
    x: ArrayLike,
    y: ArrayLike,
    groups: ArrayLike,
    rng: np.random.Generator,
    n_permutations: int = 10_000,
) -> float:
    """Two-sided p-value of a statistic when `y` is exchanged within groups only.

    Parameters
    ----------
    statistic : function of x (n,) and of permuted y (n_permutations, n) that returns
        one value a row
    x, y, groups : (n,); values of different groups are never exchanged
    n_permutations : random permutations, beside the data themselves

    Returns
    -------
    Share of the permutations, with the data counted as one, whose statistic lies at
    least as far from their common mean. Never zero.

    Raises
    ------
    DataError
        For NaN, unequal lengths, or groups of one member only.
    """
    left, right = checked_vector(x, "x", 2), checked_vector(y, "y", 2)
    labels = np.asarray(groups)
    if not len(left) == len(right) == len(labels):
        raise DataError(
            "x, y and groups must be equally long, found "
            f"{len(left)}, {len(right)} and {len(labels)}"
        )
    members = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    if max(len(member) for member in members) < 2:
        raise DataError(
            f"no group of the {len(members)} has two members, so nothing can be "
            "exchanged; merge groups"
        )
    permuted = np.tile(right, (n_permutations + 1, 1))
    for member in members:  # the first row stays as it is
        permuted[1:, member] = rng.permuted(permuted[1:, member], axis=1)
    values = statistic(left, permuted)
    if not np.isfinite(values).all():
        raise DataError("the statistic is undefined on permuted data; check constants")
    far = np.abs(values - values.mean())
    # Permutations that leave the statistic as it is differ by rounding only.
    rounding = 1e-12 * np.abs(values).max()
    return float(np.mean(far >= far[0] - rounding))


def sign_flip_p(values: ArrayLike, rng: np.random.Generator) -> float:
    """Two-sided p of a mean, if each value might as well have the other sign.

    Exact for 13 values or fewer; else of 9999 random choices of signs.

    Parameters
    ----------
    values : (n,), one for each independent unit, as a difference of two networks is

    Raises
    ------
    DataError
        For NaN or fewer than two values.
    """
    from scipy.stats import permutation_test

    data = checked_vector(values, "values", 2)
    found = permutation_test(
        (data,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        batch=max(1, BATCH_INDICES // len(data)),
        random_state=rng,
    )
    return float(found.pvalue)


def benjamini_hochberg(p: ArrayLike) -> Array:
    """False discovery rates, in the shape of `p`, at which each would be accepted.

    Raises
    ------
    DataError
        For values outside [0, 1] or NaN.

    Reference: Benjamini and Hochberg (1995), J. R. Statist. Soc. B 57.

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.5, 0.04]).round(3).tolist()
    [0.03, 0.5, 0.06]
    """
    values = np.asarray(p, dtype=np.float64)
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError("p-values must lie in [0, 1]; remove NaN first")
    flat = values.ravel()
    order = np.argsort(flat)[::-1]
    ranks = np.arange(len(flat), 0, -1)
    q = np.empty_like(flat)
    q[order] = np.minimum.accumulate(flat[order] * len(flat) / ranks)
    return q.reshape(values.shape)


def checked_vector(values: ArrayLike, name: str, at_least: int) -> Array:
    """Return `values` as a finite vector of floats, or raise DataError."""
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 1 or len(data) < at_least:
        raise DataError(
            f"{name} must be a vector of {at_least} or more, found {data.shape}"
        )
    check_finite(data, name)
    return data
