"""Intervals: their coverage, agreement with scipy, and what they refuse."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.metrics.inference import (
    _variance_of_mean,
    benjamini_hochberg,
    crossed_interval,
    mean_interval,
    pair_interval,
    sign_flip_p,
    unit_interval,
    within_group_permutation_p,
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
    monkeypatch.setattr("ce_align.metrics.inference.BATCH_INDICES", 400)
    again = unit_interval(values, np.random.default_rng(1))
    assert first.low == pytest.approx(again.low, abs=1e-12)
    assert first.high == pytest.approx(again.high, abs=1e-12)


def test_mean_interval_is_mean_and_196_standard_errors(rng):
    values = rng.normal(size=800)
    interval = mean_interval(values)
    low, high = scipy.stats.norm.interval(0.95, values.mean(), scipy.stats.sem(values))
    assert (interval.low, interval.high) == (pytest.approx(low), pytest.approx(high))
    assert (interval.level, interval.n_units) == (0.95, 800)
    narrow = mean_interval(values, 0.5)
    low, high = scipy.stats.norm.interval(0.5, values.mean(), scipy.stats.sem(values))
    assert (narrow.low, narrow.high) == (pytest.approx(low), pytest.approx(high))
    assert narrow.level == 0.5


FEW_CLASSES = np.array([(i, j) for i in range(8) for j in range(i)])


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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


#: So high that no resample lies as far as Student's quantile.
FAR = 1 - 1e-9


def student(estimate, error, freedom, level=FAR):
    half = scipy.stats.t.ppf((1 + level) / 2, freedom) * error
    return pytest.approx((estimate - half, estimate + half), rel=1e-6)


def test_bounds_that_no_resample_reaches_are_students(rng):
    values = 3 + rng.normal(size=40)
    found = unit_interval(values, rng, n_resamples=9, level=FAR)
    assert (found.estimate, found.level) == (pytest.approx(values.mean()), FAR)
    assert found.n_units == 40
    error = scipy.stats.sem(values)
    assert (found.low, found.high) == student(values.mean(), error, 39)


def test_pairs_that_share_nothing_have_the_interval_of_units(rng):
    values = 3 + rng.normal(size=len(SEPARATE))
    found = pair_interval(values, SEPARATE, rng, n_resamples=9, level=FAR)
    assert (found.level, found.n_units) == (FAR, 160)
    error = scipy.stats.sem(values)
    assert (found.low, found.high) == student(values.mean(), error, 79)


def test_pairs_to_which_units_add_have_the_interval_of_twice_their_mean(rng):
    units = 3 + rng.normal(size=30)
    values = units[ALL_PAIRS].sum(axis=1)
    found = pair_interval(values, ALL_PAIRS, rng, n_resamples=9, level=FAR)
    assert found.n_units == 30
    error = 2 * scipy.stats.sem(units)
    assert (found.low, found.high) == student(2 * units.mean(), error, 29)


def test_combinations_have_the_variances_of_rows_and_of_columns(rng):
    rows, columns = rng.normal(size=20), rng.normal(size=10)
    rows, columns = rows - rows.mean(), columns - columns.mean()
    found = crossed_interval(
        3.0,
        (rows[:, None] + columns) / 200,
        rng,
        n_resamples=9,
        level=FAR,
    )
    assert (found.estimate, found.level, found.n_units) == (3.0, FAR, 20)
    parts = np.array([rows.var(ddof=1) / 20, columns.var(ddof=1) / 10])
    # What both count is taken off: the mean square of all that is in the table.
    both = (rows.var() + columns.var()) / 200
    freedom = parts.sum() ** 2 / (parts**2 / [19, 9]).sum()
    error = np.sqrt(parts.sum() - both)
    assert (found.low, found.high) == student(3.0, error, freedom)


def test_equal_values_have_an_interval_of_no_width(rng):
    found = unit_interval(np.full(12, 0.3), rng)
    assert found.low == pytest.approx(found.high) == pytest.approx(0.3)
    found = pair_interval(np.full(len(ALL_PAIRS), 0.3), ALL_PAIRS, rng)
    assert found.low == pytest.approx(found.high) == pytest.approx(0.3)


@pytest.mark.slow
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


def test_combinations_whose_columns_add_up_to_nothing_have_an_interval_of_rows(rng):
    effects = np.repeat(np.where(np.arange(10) % 2, 0.01, -0.01), 9).reshape(10, 9)
    found = crossed_interval(1.0, effects, rng)
    assert found.low < 1.0 < found.high
    assert found.high - 1.0 > np.sqrt(np.sum(effects.sum(axis=1) ** 2))


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


GROUPS = np.repeat(["mmcr", "barlow", "simclr"], 7)


def covariance(x, permuted):
    return (permuted - permuted.mean(axis=1, keepdims=True)) @ (x - x.mean())


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_false_discovery_rates_agree_with_scipy(p):
    expected = scipy.stats.false_discovery_control(p)
    np.testing.assert_allclose(benjamini_hochberg(p), expected, atol=1e-12)


def test_false_discovery_rates_keep_the_shape_of_a_table():
    p = np.array([[0.01, 0.2], [0.03, 0.9]])
    expected = scipy.stats.false_discovery_control(p, axis=None)
    np.testing.assert_allclose(benjamini_hochberg(p), expected.reshape(2, 2))


@pytest.mark.parametrize("p", [[0.1, np.nan], [-0.1], [1.1]])
def test_impossible_p_values_are_refused(p):
    with pytest.raises(DataError, match=r"\[0, 1\]"):
        benjamini_hochberg(p)


def test_permutation_p_agrees_with_scipy_for_one_group(rng):
    x, y = rng.normal(size=(2, 12))
    ours = within_group_permutation_p(covariance, x, y, np.zeros(12), rng, 50_000)
    theirs = scipy.stats.permutation_test(
        (y,),
        lambda order: np.abs(np.cov(order, x)[0, 1]),
        permutation_type="pairings",
        n_resamples=20_000,
        alternative="greater",
        random_state=rng,
    ).pvalue
    assert ours == pytest.approx(theirs, abs=0.015)


def test_difference_between_groups_alone_is_not_significant(rng):
    shift = np.repeat([0.0, 10.0, 20.0], 7)
    x, y = shift + rng.normal(size=(2, 21))
    assert np.corrcoef(x, y)[0, 1] > 0.95
    assert within_group_permutation_p(covariance, x, y, GROUPS, rng) > 0.05


def test_effect_within_groups_is_found_below_differences_between_them(rng):
    effect = np.tile(np.linspace(-1, 1, 7), 3)
    shift = np.repeat([0.0, 5.0, 10.0], 7)
    x = effect + shift
    y = (
        effect - shift + 0.3 * rng.normal(size=21)
    )  # between groups the sign is opposite
    p = within_group_permutation_p(covariance, x, y, GROUPS, rng, 4999)
    assert p < 0.001


def test_p_is_uniform_without_an_effect(rng):
    p = np.array(
        [
            within_group_permutation_p(
                covariance, *rng.normal(size=(2, 21)), GROUPS, rng, 199
            )
            for _ in range(1000)
        ]
    )
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01
    assert 0.03 <= np.mean(p <= 0.05) <= 0.07


def test_p_is_never_zero_and_counts_ties(rng):
    x, y = np.arange(6.0), np.array([0.0, 0, 0, 1, 1, 1])
    assert within_group_permutation_p(covariance, x, y, np.arange(6) // 5, rng, 9) > 0
    tied = within_group_permutation_p(covariance, x, 0 * y + 1, np.zeros(6), rng, 99)
    assert tied == 1


def test_pairs_are_exchanged_within_themselves(rng):
    x, y = rng.normal(size=(2, 8))
    found = within_group_permutation_p(covariance, x, y, np.arange(8) // 2, rng, 9999)
    # All 16 exchanges within four pairs, counted.
    swaps = [[k >> i & 1 for i in range(4)] for k in range(16)]
    all_y = np.stack(
        [
            np.concatenate([y[2 * i : 2 * i + 2][:: 1 - 2 * s[i]] for i in range(4)])
            for s in swaps
        ]
    )
    far = np.abs(covariance(x, all_y) - covariance(x, all_y).mean())
    assert found == pytest.approx(np.mean(far >= far[0] - 1e-12), abs=0.02)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_signs_are_flipped_in_every_way_where_values_are_few(rng, n, monkeypatch):
    values = rng.normal(size=n) + 0.5
    signs = np.array([[1 - 2 * (k >> i & 1) for i in range(n)] for k in range(2**n)])
    far = np.abs((signs * values).mean(axis=1)) >= abs(values.mean()) - 1e-12
    assert sign_flip_p(values, rng) == pytest.approx(far.mean())
    monkeypatch.setattr("ce_align.metrics.inference.BATCH_INDICES", 4)
    assert sign_flip_p(values, rng) == pytest.approx(far.mean())


def test_signs_of_many_values_are_flipped_at_random(rng, monkeypatch):
    values = rng.normal(size=60) + 0.25
    expected = scipy.stats.ttest_1samp(values, 0).pvalue
    for indices in (2_000_000, 6000):
        monkeypatch.setattr("ce_align.metrics.inference.BATCH_INDICES", indices)
        found = sign_flip_p(values, np.random.default_rng(1))
        assert found == pytest.approx(expected, abs=0.02)
    assert 1e-5 < sign_flip_p(values + 10, rng) < 1e-3
    with pytest.raises(DataError, match="values must be a vector of 2 or more"):
        sign_flip_p([1.0], rng)


def test_permutation_refuses_what_it_cannot_exchange(rng):
    x, y = rng.normal(size=(2, 6))
    with pytest.raises(DataError, match="equally long, found 6, 5 and 6"):
        within_group_permutation_p(covariance, x, y[:5], np.zeros(6), rng)
    with pytest.raises(DataError, match="nothing can be exchanged"):
        within_group_permutation_p(covariance, x, y, np.arange(6), rng)
    with pytest.raises(DataError, match="NaN"):
        within_group_permutation_p(covariance, x, y * np.nan, np.zeros(6), rng)
