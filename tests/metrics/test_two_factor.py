"""Two-factor intervals: their variance, coverage, and what they refuse."""

import numpy as np
import pytest
import scipy.stats

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.held_out import HeldOut
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    held_out,
    summarise,
)
from ce_align.metrics.two_factor import Resamples, resample


def mean_of(*tables):
    """Mean of each table, its rows and columns counted as often as they are drawn."""

    def statistic(rows, columns):
        n = rows.sum(axis=1) * columns.sum(axis=1)
        return np.stack([((rows @ x) * columns).sum(axis=1) / n for x in tables], 1)

    return statistic


def table(rng, row, column, cell, shape=(40, 12)):
    """Effects of rows, columns and cells, of these standard deviations."""
    return (
        row * rng.normal(size=(shape[0], 1))
        + column * rng.normal(size=(1, shape[1]))
        + cell * rng.normal(size=shape)
    )


def test_drawing_rows_alone_has_the_interval_of_a_mean_over_rows(rng):
    values = table(rng, 1.0, 1.0, 1.0)
    rows = values.mean(axis=1)
    found = resample(mean_of(values), 40, 12, rng, over="rows", n_resamples=4000)
    low, high = scipy.stats.t.interval(0.95, 39, rows.mean(), scipy.stats.sem(rows))
    interval = found.interval([1.0])
    assert interval.estimate == pytest.approx(values.mean(), abs=1e-12)
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.05)
    p = scipy.stats.ttest_1samp(rows, 0).pvalue
    assert found.p([1.0]) == pytest.approx(p, rel=0.3)


@pytest.mark.parametrize("effects", [(1, 1, 0), (0, 0, 5), (1, 0, 1), (0.2, 1, 2)])
def test_interval_over_both_covers_whatever_varies(rng, effects):
    hits = []
    for _ in range(150):
        values = table(rng, *effects, shape=(25, 10))
        found = resample(mean_of(values), 25, 10, rng, n_resamples=100).interval([1])
        hits.append(found.low <= 0 <= found.high)
    assert 0.88 < np.mean(hits) <= 1


def test_both_factors_at_once_are_not_counted_three_times(rng):
    values = table(rng, 0.0, 0.0, 1.0, shape=(60, 60))
    half = []
    for over in ("rows", "columns", "both"):
        found = resample(mean_of(values), 60, 60, rng, over=over, n_resamples=2000)
        interval = found.interval([1])
        half.append((interval.high - interval.low) / 2)
    # Of cells alone, each way has the same truth: uncorrected, it were √3 of it.
    assert half[2] < 1.25 * max(half[:2])


def test_a_difference_of_what_is_resampled_together_is_paired(rng):
    shared, small = table(rng, 3, 3, 0), table(rng, 0, 0, 0.1)
    found = resample(mean_of(shared, shared + small + 0.5), 40, 12, rng)
    alone, paired = found.interval([1, 0]), found.interval([-1, 1])
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)
    assert paired.low <= 0.5 <= paired.high
    assert found.p([-1, 1]) < 1e-6


def test_p_is_the_level_at_which_the_interval_reaches_zero(rng):
    found = resample(mean_of(table(rng, 1, 1, 1)), 40, 12, rng)
    interval = found.interval([1], level=1 - found.p([1]))
    assert min(abs(interval.low), abs(interval.high)) == pytest.approx(0, abs=1e-9)


def test_animals_are_drawn_as_wholes(rng):
    animal = np.arange(12) % 3
    values = np.tile(np.array([0.0, 1.0, 5.0])[animal], (40, 1))
    found = resample(
        mean_of(values), 40, 12, rng, over="columns", groups=animal, n_resamples=4000
    )
    low, high = scipy.stats.t.interval(0.95, 2, 2.0, scipy.stats.sem([0, 1, 5]))
    interval = found.interval([1])
    assert interval.n_units == 3
    assert interval.high - interval.low == pytest.approx(high - low, rel=0.05)


def test_same_generator_gives_the_same_interval_for_any_batch(rng, monkeypatch):
    values = table(rng, 1, 1, 1)
    first = resample(mean_of(values), 40, 12, np.random.default_rng(1), over="rows")
    monkeypatch.setattr("ce_align.metrics.two_factor.BATCH", 1000)
    again = resample(mean_of(values), 40, 12, np.random.default_rng(1), over="rows")
    np.testing.assert_allclose(first.covariance, again.covariance, rtol=1e-12)


@pytest.mark.parametrize("over", ["rows", "columns", "both"])
def test_few_units_have_the_variance_of_their_mean(rng, over):
    """Of five and six the draws alone would have a fifth less."""
    rows, columns = rng.normal(size=5), rng.normal(size=6)
    table = rows[:, None] + columns
    found = resample(mean_of(table), 5, 6, rng, over=over, n_resamples=20_000)
    of_rows, of_columns = rows.var(ddof=1) / 5, columns.var(ddof=1) / 6
    expected = {"rows": of_rows, "columns": of_columns, "both": of_rows + of_columns}
    assert found.covariance[0, 0] == pytest.approx(expected[over], rel=0.06)
    assert found.n_units == (6 if over == "columns" else 5)


@pytest.mark.parametrize(
    ("covariance", "variance"),
    [(2.5, 2.5), (0.1, 2.0), (9.0, 3.0)],
    ids=["as it is", "not below one factor's", "not above their sum"],
)
def test_bounds_are_students_with_satterthwaites_freedom(covariance, variance):
    one = np.ones((1, 1))
    found = Resamples(np.array([4.0]), covariance * one, ((one, 9), (2 * one, 4)), 5)
    freedom = 3**2 / (1**2 / 9 + 2**2 / 4)
    low, high = scipy.stats.t.interval(0.8, freedom, 8, 2 * np.sqrt(variance))
    interval = found.interval([2.0], level=0.8)
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert (interval.estimate, interval.level, interval.n_units) == (8, 0.8, 5)
    p = 2 * scipy.stats.t.sf(4 / np.sqrt(variance), freedom)
    assert found.p([1.0]) == found.p([-1.0]) == pytest.approx(p)


def test_what_never_varies_is_surely_not_zero():
    nothing = np.zeros((1, 1))
    found = Resamples(np.array([4.0]), nothing, ((nothing, 9),), 10)
    assert found.p([1.0]) == 0
    assert found.interval([1.0]).low == found.interval([1.0]).high == 4


def test_no_difference_at_all_has_p_one(rng):
    values = table(rng, 1, 1, 1)
    found = resample(mean_of(values, values), 40, 12, rng, n_resamples=50)
    assert found.p([1, -1]) == 1
    assert found.interval([1, -1]).low == found.interval([1, -1]).high == 0


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4, 9), {}, r"rows \(stimuli\) needs 5 or more, found 4"),
        ((9, 4), {}, r"columns \(neuroids\) needs 5 or more, found 4"),
        ((9, 6), {"groups": np.zeros(6)}, "groups needs 2 or more, found 1"),
    ],
)
def test_too_few_units_are_refused(rng, shape, options, message):
    with pytest.raises(DataError, match=message):
        resample(mean_of(np.zeros(shape)), *shape, rng, **options)


def test_a_statistic_that_draws_leave_undefined_is_refused(rng):
    def mostly_undefined(rows, columns):
        return np.where(rows[:, :1] == 1, 1.0, np.nan)

    with pytest.raises(DataError, match=r"undefined for \d+ of"):
        resample(mostly_undefined, 9, 9, rng, n_resamples=50)


def test_a_tenth_of_the_draws_may_be_undefined(rng):
    def statistic(undefined):
        drawn = iter([True, *[k >= undefined for k in range(10)]])

        def one_by_one(rows, columns):
            values = mean_of(np.arange(81.0).reshape(9, 9))(rows, columns)
            return np.where([[next(drawn)] for _ in rows], values, np.nan)

        return one_by_one

    found = resample(statistic(1), 9, 9, rng, over="rows", n_resamples=10)
    assert found.covariance[0, 0] > 0
    with pytest.raises(DataError, match="undefined for 2 of 10"):
        resample(statistic(2), 9, 9, rng, over="rows", n_resamples=10)


# -- Of predictivity ------------------------------------------------------------------


@pytest.fixture
def planted(rng):
    latents = rng.normal(size=(60, 5))
    features = latents @ rng.normal(size=(5, 30))
    rates = latents @ rng.normal(size=(5, 8)) + 2 * rng.normal(size=(60, 8))
    return features, rates, brainscore_splits(60, n_splits=4)


@pytest.mark.parametrize("regression", ["pls", "ridge", "ridgecv", "neuron_to_neuron"])
def test_held_out_predictions_have_the_correlations_of_the_score(planted, regression):
    options = {"regression": regression, "n_components": 3}
    found = held_out(*planted, **options)
    r = cross_validated_r(*planted, **options)
    np.testing.assert_array_equal(found.r, r)
    once = np.ones((1, 60), int), np.ones((1, 8), int)
    assert found.raw(*once)[0] == summarise(r)[0]


def test_raw_of_drawn_stimuli_is_that_of_a_recording_with_these_repeats(planted, rng):
    features, rates, splits = planted
    rates[splits[0][0], 2] = 1.0  # no variation in training: no r
    found = held_out(features, rates, splits[:2], regression="ridge")
    stimuli = rng.multinomial(60, np.full(60, 1 / 60), 5)
    neuroids = rng.multinomial(8, np.full(8, 1 / 8), 5)
    raw = found.raw(stimuli, neuroids)
    for n_stimuli, n_neuroids, value in zip(stimuli, neuroids, raw, strict=True):
        r = np.full((2, 8), np.nan)
        for k, (_, test) in enumerate(found.splits):
            drawn = test[np.repeat(np.arange(len(test)), n_stimuli[test])]
            whole = np.full_like(rates, np.nan)
            whole[test] = found.predictions[k]
            for j in np.flatnonzero(~np.isnan(found.r[k])):
                r[k, j] = scipy.stats.pearsonr(whole[drawn, j], rates[drawn, j])[0]
        drawn = np.repeat(r, n_neuroids, axis=1)
        assert value == pytest.approx(summarise(drawn)[0], abs=1e-9)


def test_raw_of_one_animal_is_undefined_where_it_is_not_drawn(planted):
    found = held_out(*planted, regression="ridge")
    animal = np.arange(3)
    counts = np.array([[1] * 8, [2] * 3 + [0] * 5, [0] * 3 + [2] * 5])
    raw = found.raw(np.ones((1, 60), int), counts, animal)
    alone = summarise(found.r[:, animal])[0]
    np.testing.assert_allclose(raw, [alone, alone, np.nan], atol=1e-12)


def test_raw_does_not_depend_on_the_size_of_responses(planted, rng):
    found = held_out(*planted, regression="ridge")
    counts = [rng.multinomial(n, np.full(n, 1 / n), 3) for n in (60, 8)]
    predictions = [1e200 * one for one in found.predictions]
    far = HeldOut(predictions, 1e-200 * found.rates, found.splits)
    np.testing.assert_allclose(far.raw(*counts), found.raw(*counts))


def test_predictions_of_units_are_not_those_of_neuroids(planted):
    with pytest.raises(ConfigError, match="reverse_pls predicts units"):
        held_out(*planted, regression="reverse_pls")
