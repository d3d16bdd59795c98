"""Intervals: their coverage, agreement with scipy, and what they refuse."""

import numpy as np
import pytest
import scipy.stats

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.resampling import (
    bootstrap_interval,
    mean_interval,
    pair_bootstrap_interval,
    pair_interval,
)


def mean_of(values):
    return lambda index: values[index].mean(axis=1)


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


def test_bootstrap_of_a_mean_has_its_standard_error(rng):
    values = rng.normal(size=50)
    interval = bootstrap_interval(mean_of(values), 50, rng, n_resamples=20_000)
    error = values.std() / np.sqrt(50)
    half = scipy.stats.t.ppf(0.975, 48) * error
    assert interval.estimate == pytest.approx(values.mean())
    assert interval.high - interval.estimate == pytest.approx(half, rel=0.02)
    assert interval.estimate - interval.low == pytest.approx(half, rel=0.02)
    assert (interval.level, interval.n_units) == (0.95, 50)


def test_bca_interval_agrees_with_scipy(rng):
    values = rng.gamma(1.5, size=60)
    ours = bootstrap_interval(
        mean_of(values), 60, rng, n_resamples=20_000, method="bca", level=0.9
    )
    theirs = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, random_state=rng
    ).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01)
    assert ours.high == pytest.approx(theirs.high, abs=0.01)
    assert ours.high - values.mean() > values.mean() - ours.low  # skewed to the right


def test_transformed_interval_stays_on_its_scale(rng):
    x = rng.normal(size=8)
    y = x + 0.05 * rng.normal(size=8)

    def correlation(index):
        return np.array([np.corrcoef(x[i], y[i])[0, 1] for i in index])

    interval = bootstrap_interval(
        correlation, 8, rng, n_resamples=200, transform=(np.arctanh, np.tanh)
    )
    assert interval.low < interval.estimate < interval.high < 1


def test_same_generator_gives_the_same_interval_for_any_batch(rng, monkeypatch):
    values = rng.normal(size=40)
    first = bootstrap_interval(mean_of(values), 40, np.random.default_rng(1))
    monkeypatch.setattr("ce_align.metrics.resampling.BATCH_INDICES", 400)
    again = bootstrap_interval(mean_of(values), 40, np.random.default_rng(1))
    assert first.low == pytest.approx(again.low, abs=1e-12)
    assert first.high == pytest.approx(again.high, abs=1e-12)


def test_bootstrap_refuses_what_it_cannot_do(rng):
    values = rng.normal(size=6)
    with pytest.raises(DataError, match="5 units or more, found 4"):
        bootstrap_interval(mean_of(values), 4, rng)
    with pytest.raises(DataError, match="undefined on the data"):
        bootstrap_interval(lambda i: np.full(len(i), np.nan), 6, rng)

    def often_undefined(index):
        return np.where((index == 0).any(axis=1), values[index].mean(axis=1), np.nan)

    with pytest.raises(DataError, match="of 2000 resamples of 6 units"):
        bootstrap_interval(often_undefined, 6, rng)
    with pytest.raises(ConfigError, match="unknown method"):
        bootstrap_interval(mean_of(values), 6, rng, method="percentile")


def test_mean_interval_is_mean_and_196_standard_errors(rng):
    values = rng.normal(size=800)
    interval = mean_interval(values)
    low, high = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))


@pytest.mark.parametrize("pairs", [ALL_PAIRS, RING, SEPARATE])
@pytest.mark.parametrize("image_effect", [0.0, 1.0])
def test_interval_over_pairs_covers_the_mean_whatever_the_design(
    rng, pairs, image_effect
):
    def draw():
        return pair_values(rng, pairs, image_effect)

    share = coverage(lambda values: pair_interval(values, pairs), draw, 1500)
    assert 0.925 <= share <= 0.975


def test_interval_that_ignores_shared_images_is_too_narrow(rng):
    share = coverage(mean_interval, lambda: pair_values(rng, ALL_PAIRS, 1.0), 300)
    assert share < 0.5


def test_bootstrap_over_images_covers_the_mean_of_all_pairs(rng):
    def interval(values):
        return pair_bootstrap_interval(values, ALL_PAIRS, rng, n_resamples=300)

    share = coverage(interval, lambda: pair_values(rng, ALL_PAIRS, 1.0), 400)
    assert 0.91 <= share <= 0.975


def test_bootstrap_over_images_is_wide_by_root_three_for_separate_pairs(rng):
    values = pair_values(rng, SEPARATE, 0.0)
    wide = pair_bootstrap_interval(values, SEPARATE, rng)
    right = pair_interval(values, SEPARATE)
    ratio = (wide.high - wide.low) / (right.high - right.low)
    assert ratio == pytest.approx(np.sqrt(3), rel=0.1)


def test_pair_bootstrap_weighs_by_the_product_of_multiplicities(rng):
    pairs = np.array([(i, j) for i in (0, 1, 2, 3, 4, 7) for j in range(i) if j < 5])
    values = rng.normal(size=len(pairs))
    seen = pair_bootstrap_interval(values, pairs, np.random.default_rng(3))
    images, draws = np.unique(pairs), np.random.default_rng(3)
    means = []
    for drawn in draws.integers(6, size=(2000, 6)):
        count = {image: np.sum(images[drawn] == image) for image in images}
        weights = [count[a] * count[b] for a, b in pairs]
        means.append(np.average(values, weights=weights) if sum(weights) else np.nan)
    half = scipy.stats.t.ppf(0.975, 4) * np.nanstd(means, ddof=1)
    assert seen.high - seen.estimate == pytest.approx(half)
    assert seen.n_units == 6


def test_intervals_over_pairs_refuse_impossible_pairs(rng):
    values = rng.normal(size=6)
    ring = [(k, (k + 1) % 6) for k in range(6)]
    bad = [
        (values, [*ring[:5], (2, 2)], "paired with itself"),
        (values[:3], [(0, 1), (1, 2), (2, 0)], "5 images or more, found 3"),
        (values[:5], ring, "one pair a value"),
        (np.where(np.arange(6) == 2, np.nan, values), ring, "1 NaN"),
    ]
    for data, pairs, message in bad:
        with pytest.raises(DataError, match=message):
            pair_interval(data, pairs)
        with pytest.raises(DataError, match=message):
            pair_bootstrap_interval(data, pairs, rng)
