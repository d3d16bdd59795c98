"""The ceiling: how much of the averaged responses repeats from showing to showing.

Responses are (n_stimuli, n_repetitions, n_neuroids), repetitions in ascending order of
their label; NaN where a stimulus was not shown or a neuroid not recorded. A repetition
of NaN alone is none.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import Array
from ce_align.metrics.held_out import shuffled_splits
from ce_align.metrics.pearson import columnwise_pearson_r

__all__ = [
    *("Ceiling", "chance_of_ceiling", "equally_halved", "predictor_ceiling"),
    *("repeated_ceiling", "split_half_ceiling", "stated_ceiling", "variance_ceiling"),
]

CeilingKind = Literal["split-half", "variance"]

#: Stimuli shown twice below which Brain-Score's `predictor_consistency` has no number.
LEAST_REPEATED = 10

#: Neuroids that are looked at together where many stimuli were shown once.
BLOCK = 64

#: Reliability this many standard errors (as of noise) above zero needs no test.
CLEARLY = 5.0
#: Shuffles of the test, and hence the least p: 1 / 200.
N_SHUFFLES = 199
#: As many shuffles that do as well end the test: p is near their share then.
ENOUGH = 10


@dataclass(frozen=True)
class Ceiling:
    """Reliability of a recording's averages.

    Attributes
    ----------
    kind : how it was estimated: a `CeilingKind`, ``predictor-consistency``, or
        ``stated`` by who recorded it
    value : mean over splits of the median over neuroids; it may be zero or below
    per_split_neuroid : (n_splits, n_neuroids), of ``variance`` one split; NaN where
        undefined
    n_stimuli : stimuli whose repetitions entered, of any neuroid
    """

    kind: str
    value: float
    per_split_neuroid: Array
    n_stimuli: int


def split_half_ceiling(
    responses: ArrayLike, *, n_splits: int = 10, seed: int = 1
) -> Ceiling:
    """Split-half reliability with Brain-Score's own halves.

    Brain-Score's splits and seed are the defaults.

    Raises
    ------
    ConfigError
        If `n_splits` is below 1.
    DataError
        If there are fewer than two repetitions or stimuli, a value is infinite, or in
        some split no neuroid has responses that vary in both halves.

    Notes
    -----
    Repetitions (not presentations) are divided in two; each half is averaged over what
    it has, the halves are correlated over stimuli for each neuroid, and r becomes
    2r / (1 + r). A stimulus without any repetition in one of the halves is left out of
    that split; Brain-Score's `internal_consistency`, equal otherwise, fails there or
    drops the neuroid.

    It is the reliability of all averages only if every stimulus was shown equally
    often: else see `variance_ceiling`.

    Reference: Spearman (1910); Brown (1910), both on the correlation of halves.
    """
    if n_splits < 1:
        raise ConfigError(f"n_splits must be at least 1, not {n_splits}")
    values = _checked_repetitions(responses)
    n = values.shape[1]
    corrected, used = [], np.zeros(len(values), dtype=bool)
    for first, second in shuffled_splits(n, n // 2, n_splits=n_splits, seed=seed):
        means = [_mean_of_shown(values[:, half])[0] for half in (first, second)]
        r = columnwise_pearson_r(*means)
        with np.errstate(divide="ignore", invalid="ignore"):
            corrected.append(2 * r / (1 + r))
        used |= ~np.isnan(means[0] + means[1]).all(axis=1)
    for split, row in enumerate(corrected):
        if np.isnan(row).all():
            raise DataError(
                f"no neuroid has varying responses in both halves of split {split}, so "
                "there is no ceiling; check the repetitions of each stimulus"
            )
    stacked = np.stack(corrected)
    value = float(np.nanmedian(stacked, axis=1).mean())
    return Ceiling("split-half", value, stacked, int(used.sum()))


def predictor_ceiling(
    responses: ArrayLike, order: ArrayLike, *, n_splits: int = 10, seed: int = 0
) -> Ceiling:
    """Reliability of neuroids that predict, as Brain-Score halves their repetitions.

    Like `split_half_ceiling`, but each stimulus has halves of its own, of those
    repetitions that it has.

    Parameters
    ----------
    responses : (n_stimuli, n_repetitions, n_neuroids)
    order : (n_stimuli,), names that stimuli are sorted by, on which random halves
        depend: their ``image_id``
    n_splits, seed : Brain-Score's are the defaults

    Raises
    ------
    DataError
        If fewer than ten stimuli were shown twice.

    Reference: Muzellec & Kar (2025), Reverse predictivity.
    """
    values = _checked_repetitions(responses)
    shown = ~np.isnan(values).all(axis=2)
    rows = [row for row in np.argsort(order, kind="stable") if shown[row].sum() > 1]
    if len(rows) < LEAST_REPEATED:
        raise DataError(
            f"{len(rows)} stimuli were shown twice; the ceiling needs {LEAST_REPEATED}"
        )
    rng, corrected = np.random.default_rng(seed), []
    for _ in range(n_splits):
        halves = np.full((2, len(rows), values.shape[2]), np.nan)
        for place, row in enumerate(rows):
            drawn = rng.permutation(np.flatnonzero(shown[row]))
            for half, kept in enumerate(np.split(drawn, [len(drawn) // 2])):
                halves[half, place] = _mean_of_shown(values[row, kept][np.newaxis])[0]
        r = columnwise_pearson_r(*halves)
        with np.errstate(divide="ignore", invalid="ignore"):
            corrected.append(2 * r / (1 + r))
    stacked = np.stack(corrected)
    value = float(np.nanmedian(stacked, axis=1).mean())
    return Ceiling("predictor-consistency", value, stacked, len(rows))


def variance_ceiling(responses: ArrayLike, once: ArrayLike | None = None) -> Ceiling:
    """Reliability of the averages, whatever the number of repetitions of each.

    `once`, (m, n_neuroids), are further stimuli that were shown once.

    Raises
    ------
    DataError
        If there are fewer than two repetitions or stimuli, a value is infinite, or no
        neuroid has varying averages and a stimulus that it was shown twice.

    Notes
    -----
    For each neuroid 1 − V / T. T is the variance over stimuli of the averages that a
    network has to predict, V the part of it that is noise: the mean over stimuli of
    s² / n, where n is how often the stimulus was shown and s² the variance of its
    repetitions. Of a stimulus shown once, s² is the pooled variance within all
    repeated ones, which must then be like the others. V and T are unbiased, and are
    divided by the median of an estimate of their degrees of freedom (of true value 1),
    so that the median of 1 − V / T over neuroids, which is the value, is what r² of a
    perfect prediction comes to.

    Reference: one-way analysis of variance, as in Sahani & Linden (2003), with unequal
    numbers of repetitions.
    """
    values = _checked_repetitions(responses)
    if once is None:
        reliability = _reliability(values)
    else:
        single = np.asanyarray(once)  # may be large: no copy of it is made
        blocks = [slice(at, at + BLOCK) for at in range(0, values.shape[2], BLOCK)]
        parts = [_reliability(values[:, :, some], single[:, some]) for some in blocks]
        reliability = np.concatenate(parts)
    if np.isnan(reliability).all():
        raise DataError(
            "no neuroid has varying averages and a stimulus shown twice, so there is "
            "no ceiling"
        )
    repeated = ((~np.isnan(values)).sum(axis=1) > 1).any(axis=1)
    value = float(np.nanmedian(reliability))
    return Ceiling("variance", value, reliability[np.newaxis], int(repeated.sum()))


def stated_ceiling(reliability: ArrayLike) -> Ceiling:
    """Median of the reliability that is stated of each neuroid, (n_neuroids,).

    Raises
    ------
    DataError
        If none is a number.
    """
    stated = np.asarray(reliability, dtype=np.float64)
    if not np.isfinite(stated).any():
        raise DataError("no neuroid has a stated reliability that is a number")
    return Ceiling("stated", float(np.nanmedian(stated)), stated[np.newaxis], 0)


def equally_halved(responses: ArrayLike) -> bool:
    """Whether all averages are of one even number of repetitions (NaN are none)."""
    shown = ~np.isnan(np.asarray(responses, dtype=np.float64))
    some, every = shown.any(axis=(0, 2)), shown.all(axis=(0, 2))
    return bool((some == every).all() and every.sum() % 2 == 0)


def repeated_ceiling(
    responses: ArrayLike,
    once: ArrayLike | None = None,
    *,
    kind: CeilingKind | Literal["auto"] = "auto",
    n_splits: int = 10,
    seed: int = 1,
) -> Ceiling:
    """The ceiling of a kind; ``auto`` is split-half where it is right.

    Where repetitions are unequal (some stimuli were shown `once`, say) or cannot be
    divided in two equal halves, it takes `variance_ceiling`: of three repetitions,
    Spearman–Brown is 5 % off.

    Raises
    ------
    ConfigError
        If there is no such kind.
    DataError
        If there is no ceiling.
    """
    if kind == "auto":
        equal = once is None and equally_halved(responses)
        kind = "split-half" if equal else "variance"
    if kind == "variance":
        return variance_ceiling(responses, once)
    if kind == "split-half":
        return split_half_ceiling(responses, n_splits=n_splits, seed=seed)
    known = ["auto", *get_args(CeilingKind)]
    raise ConfigError(f"unknown ceiling {kind!r}; choose from {known}")


def chance_of_ceiling(responses: ArrayLike, seed: int = 1) -> float | None:
    """How often responses that know nothing of the stimuli would repeat as well.

    Returns
    -------
    p of the median reliability of `variance_ceiling`; None if it is so far above chance
    (5 standard errors of noise) that no test is needed.

    Notes
    -----
    Stimuli are shuffled within each repetition, all neuroids alike, so that drifts
    over repetitions and noise that neuroids share stay as they are.

    Reference: Besag & Clifford (1991) on tests that end early.
    """
    values = _checked_repetitions(responses)
    shown = ~np.isnan(values)
    n_shown = shown.sum(axis=1)
    degrees = np.maximum(n_shown - 1, 0).sum(axis=0)
    n_stimuli = (n_shown > 0).sum(axis=0)
    with np.errstate(divide="ignore"):
        error = np.sqrt(2 / np.maximum(n_stimuli - 1, 1) + 2 / degrees)
    found = float(np.nanmedian(_reliability(values)))
    if found > CLEARLY * float(np.median(error)):
        return None
    rng = np.random.default_rng(seed)
    as_good = 0
    for done in range(1, N_SHUFFLES + 1):
        shuffled = _reliability(_shuffled(values, shown, rng))
        as_good += not float(np.nanmedian(shuffled)) < found
        if as_good == ENOUGH:
            return as_good / done
    return (1 + as_good) / (1 + N_SHUFFLES)


def _shuffled(
    values: Array, shown: NDArray[np.bool_], rng: np.random.Generator
) -> Array:
    """Responses with stimuli shuffled within each repetition; NaN stay in place."""
    shuffled = np.full_like(values, np.nan)
    for repetition in range(values.shape[1]):
        here, key = shown[:, repetition], rng.random((len(values), 1))
        if (here == here[:, :1]).all():  # quicker, and the same
            rows = np.flatnonzero(here[:, 0])
            order = rows[np.argsort(key[rows, 0])]
            shuffled[rows, repetition] = values[order, repetition]
            continue
        source = np.argsort(np.where(here, key, np.inf), axis=0)
        place = np.argsort(~here, axis=0, kind="stable")
        moved = np.take_along_axis(values[:, repetition], source, axis=0)
        np.put_along_axis(shuffled[:, repetition], place, moved, axis=0)
    return shuffled


def _reliability(values: Array, once: ArrayLike | None = None) -> Array:
    """Share of the averages' variance that is no noise, (n_neuroids,)."""
    mean, n_shown = _mean_of_shown(values)
    squares = np.nansum((values - mean[:, np.newaxis]) ** 2, axis=1)
    if once is not None:
        single = np.asarray(once, dtype=np.float64)
        mean = np.concatenate([mean, single])
        n_shown = np.concatenate([n_shown, (~np.isnan(single)).astype(n_shown.dtype)])
        squares = np.concatenate([squares, np.zeros_like(single)])
    freedom = np.maximum(n_shown - 1, 0)
    seen = n_shown > 0
    # A neuroid that missed a stimulus is measured on the others.
    n_seen = seen.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(seen, 1 / n_shown, 0.0) / n_seen
        # Stimuli shown once lend their share to the others, by degrees of freedom.
        lent = np.where(freedom == 0, share, 0.0).sum(axis=0) / freedom.sum(axis=0)
        weight = np.where(freedom > 0, share / freedom + lent, 0.0)
        noise = (weight * squares).sum(axis=0)
        # Satterthwaite's degrees of freedom of that sum.
        scale = weight * freedom
        effective = scale.sum(axis=0) ** 2 / (scale * weight).sum(axis=0)
        centre = np.where(seen, mean, 0.0).sum(axis=0) / n_seen
        spread = np.where(seen, mean - centre, 0.0)
        total = (spread**2).sum(axis=0) / (n_seen - 1)
        ratio = noise / _median_share(effective) * _median_share(n_seen - 1.0) / total
        reliability: Array = np.where(total > 0, 1 - ratio, np.nan)
    return reliability


def _median_share(freedom: Array) -> Array:
    """Median of an estimated variance of unit truth: .93 with ten degrees of freedom.

    The median over neuroids meets such typical estimates, which are too small.
    """
    from scipy.special import gammaincinv

    median: Array = 2 * gammaincinv(freedom / 2, 0.5) / freedom
    return median


def _checked_repetitions(responses: ArrayLike) -> Array:
    """Responses as float64, once they are stimuli × repetitions × neuroids."""
    values = np.asarray(responses, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[2] < 1:
        raise DataError(
            "responses must be stimuli × repetitions × neuroids with at least two "
            f"stimuli and a neuroid, but have shape {values.shape}"
        )
    if np.isinf(values).any():
        raise DataError("responses have infinite values; use NaN for what is missing")
    empty = np.isnan(values).all(axis=(0, 2))
    values = values[:, ~empty] if empty.any() else values
    if values.shape[1] < 2:
        raise DataError(
            f"a ceiling needs at least 2 repetitions, but there is {values.shape[1]}; "
            "score without a ceiling"
        )
    return values


def _mean_of_shown(half: Array) -> tuple[Array, NDArray[np.int64]]:
    """Mean over the repetitions that are not NaN, NaN without any, and their number."""
    shown = ~np.isnan(half)
    n_shown = shown.sum(axis=1)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(shown, half, 0.0).sum(axis=1) / n_shown
    return mean, n_shown
