"""Intervals: their coverage, agreement with scipy, and what they refuse."""

import numpy as np
import pytest
import scipy.stats

from ce_align.errors import DataError
from ce_align.metrics.resampling import (
    _variance_of_mean,
    crossed_interval,
    mean_interval,
    pair_interval,
    unit_interval,
)


def pair_values(rng, pairs, image_effect):
    """Values with mean zero that share the effects of their two images."""
    effects = image_effect * rng.normal(size=pairs.max() + 1)
    return effects[pairs].sum(axis=1) + rng.normal(size=len(pairs))


ALL_PAIRS = np.array([(i, j) for i in range(30) for j in range(i)])
RING = np.array([(i, (i + step) % 100) for i in range(100) for step in (1, 5, 17)])
SEPARATE = np.arange(160).reshape(-1, 2)


def coverage(interval, draw, n_repeats):
    hits = [i.low <= 0 <= i.high for i in (interval(draw()) for _ in range(n_repeats))]
    return np.mean(hits)


def test_same_generator_gives_the_same_interval_for_any_batch(rng, monkeypatch):
    values = rng.lognormal(size=40)
    first = unit_interval(values, np.random.default_rng(1))
    monkeypatch.setattr("ce_align.metrics.resampling.BATCH_INDICES", 400)
    again = unit_interval(values, np.random.default_rng(1))
    assert first.low == pytest.approx(again.low, abs=1e-12)
    assert first.high == pytest.approx(again.high, abs=1e-12)


def test_mean_interval_is_mean_and_196_standard_errors(rng):
    values = rng.normal(size=800)
    interval = mean_interval(values)
    low, high = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


FEW_CLASSES = np.array([(i, j) for i in range(8) for j in range(i)])


@pytest.mark.parametrize("pairs", [ALL_PAIRS, RING, SEPARATE, FEW_CLASSES])
@pytest.mark.parametrize("image_effect", [0.0, 0.5, 2.0])
def test_interval_over_pairs_covers_the_mean_whatever_the_design(
    rng, pairs, image_effect
):
    def interval(values):
        return pair_interval(values, pairs, rng, n_resamples=200)

    share = coverage(interval, lambda: pair_values(rng, pairs, image_effect), 600)
    # Four binomial errors around 92–98 %.
    assert 0.92 - 4 * 0.011 <= share <= 0.98 + 4 * 0.006


@pytest.mark.parametrize("pairs", [ALL_PAIRS, RING, FEW_CLASSES])
def test_the_variance_over_pairs_is_unbiased(rng, pairs):
    means, variances = [], []
    for _ in range(3000):
        values = pair_values(rng, pairs, 1.0)
        means.append(values.mean())
        residual = values - values.mean()
        variances.append(sum(_variance_of_mean(residual, pairs, pairs.max() + 1)))
    # The variance of 3000 means is known to 2.6 %, the mean of 3000 estimates better.
    assert np.mean(variances) == pytest.approx(np.var(means), rel=0.1)


def test_interval_that_ignores_shared_images_is_too_narrow(rng):
    share = coverage(mean_interval, lambda: pair_values(rng, ALL_PAIRS, 1.0), 300)
    assert share < 0.5


@pytest.mark.parametrize(
    ("draw", "mean"),
    [
        (lambda rng, n: rng.normal(size=n), 0.0),
        (lambda rng, n: rng.lognormal(size=n), np.exp(0.5)),
        (lambda rng, n: -rng.exponential(size=n), -1.0),
    ],
    ids=["normal", "lognormal", "exponential"],
)
@pytest.mark.parametrize("n", [20, 60])
def test_interval_over_units_covers_skewed_values_as_well(rng, draw, mean, n):
    def interval():
        return unit_interval(draw(rng, n) - mean, rng, n_resamples=300)

    share = coverage(lambda found: found, interval, 600)
    assert 0.92 - 4 * 0.011 <= share <= 0.98 + 4 * 0.006


def test_interval_over_units_is_students_for_symmetric_values(rng):
    values = rng.normal(size=400)
    values = np.concatenate([values, -values])
    found = unit_interval(values, rng, n_resamples=20_000)
    half = scipy.stats.t.ppf(0.975, 799) * scipy.stats.sem(values)
    assert found.estimate == pytest.approx(0, abs=1e-12)
    assert found.high == pytest.approx(half, rel=0.03)
    assert found.low == pytest.approx(-half, rel=0.03)
    assert min(found.high, -found.low) >= half * (1 - 1e-9)


def test_equal_values_have_an_interval_of_no_width(rng):
    found = unit_interval(np.full(12, 0.3), rng)
    assert found.low == pytest.approx(found.high) == pytest.approx(0.3)
    found = pair_interval(np.full(len(ALL_PAIRS), 0.3), ALL_PAIRS, rng)
    assert found.low == pytest.approx(found.high) == pytest.approx(0.3)


@pytest.mark.parametrize("scales", [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.0, 0.0)])
def test_interval_over_combinations_covers_effects_of_rows_and_columns(rng, scales):
    n = 30, 12

    def interval():
        rows, columns = (s * rng.normal(size=k) for s, k in zip(scales, n, strict=True))
        values = rows[:, None] + columns + rng.normal(size=n)
        estimate = values.mean()
        return crossed_interval(
            estimate, (values - estimate) / values.size, rng, n_resamples=200
        )

    share = coverage(lambda found: found, interval, 600)
    # Where neither matters, rows alone have the whole variance, and so have columns.
    most = 1.0 if not any(scales) else 0.98 + 4 * 0.006
    assert 0.92 - 4 * 0.011 <= share <= most


def test_intervals_over_pairs_refuse_impossible_pairs(rng):
    values = rng.normal(size=9)
    ring = [(k, (k + 1) % 9) for k in range(9)]
    bad = [
        (values, [*ring[:8], (2, 2)], "paired with itself"),
        (values, [*ring[:8], (1, 0)], "a pair is there twice"),
        (values[:3], [(0, 1), (1, 2), (2, 0)], "8 images or more, found 3"),
        (values[:5], ring, "one pair a value"),
        (np.where(np.arange(9) == 2, np.nan, values), ring, "1 NaN"),
    ]
    for data, pairs, message in bad:
        with pytest.raises(DataError, match=message):
            pair_interval(data, pairs, rng)
    with pytest.raises(DataError, match="8 rows and columns"):
        crossed_interval(0.0, rng.normal(size=(20, 7)), rng)
    with pytest.raises(DataError, match="finite matrix"):
        crossed_interval(np.nan, rng.normal(size=(20, 9)), rng)
