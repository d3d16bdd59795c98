"""Intervals by leaving out stimuli and neuroids."""

import numpy as np
import pytest

from ce_align.errors import DataError
from ce_align.metrics.jackknife import jackknife_interval


def mean_of(table):
    return lambda stimuli, neuroids: table[np.ix_(stimuli, neuroids)].mean()


def error_of(found):
    """Standard error of an interval, but for the quantile, which is 2.0 to 2.3."""
    return (found.high - found.low) / 2


def test_of_a_mean_it_is_students_interval(rng):
    """Each unit is left out alone where there are no more than groups."""
    from scipy.stats import t

    table = rng.normal(size=(20, 1)) + np.zeros((20, 6))
    found = jackknife_interval(mean_of(table), 20, 6, rng, over="stimuli")
    expected = t.interval(0.95, 19, table.mean(), table[:, 0].std(ddof=1) / np.sqrt(20))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.estimate, found.n_units) == (table.mean(), 20)


def test_of_a_mean_to_which_both_add_it_has_the_sum_of_both_variances(rng):
    from scipy.stats import sem, t

    rows, columns = rng.normal(size=12), rng.normal(size=8)
    table = rows[:, None] + columns
    found = jackknife_interval(mean_of(table), 12, 8, rng, level=0.8)
    parts = np.array([sem(rows) ** 2, sem(columns) ** 2])
    freedom = parts.sum() ** 2 / (parts**2 / [11, 7]).sum()
    expected = t.interval(0.8, freedom, table.mean(), np.sqrt(parts.sum()))
    assert (found.low, found.high) == pytest.approx(expected)
    assert (found.level, found.n_units) == (0.8, 8)


def test_what_single_cells_have_is_subtracted_once(rng):
    """Of one size in every cell, so that it does not matter which are looked at."""
    rows, columns = rng.normal(size=12), rng.normal(size=8)
    cells = np.outer(np.tile([0.4, -0.4], 6), np.tile([1, -1], 4))
    table = rows[:, None] + columns + cells
    found = jackknife_interval(mean_of(table), 12, 8, rng, level=0.8)
    additive = jackknife_interval(mean_of(table - cells), 12, 8, rng, level=0.8)
    squared = (error_of(additive) ** 2, error_of(found) ** 2)
    quantile = (squared[0] / (rows.var(ddof=1) / 12 + columns.var(ddof=1) / 8)) ** 0.5
    assert np.sqrt(squared[0] - squared[1]) / quantile == pytest.approx(
        0.4 / np.sqrt(11 * 7)
    )


def test_more_units_than_groups_are_left_out_in_groups_of_one_size(rng):
    """Every unit in one group, the sizes of groups as equal as they can be."""
    left_out = []

    def statistic(stimuli, neuroids):
        left_out.append(np.setdiff1d(np.arange(45), stimuli))
        return float(stimuli.sum())

    jackknife_interval(statistic, 45, 6, rng, over="stimuli")
    assert sorted(np.concatenate(left_out[1:])) == list(range(45))
    assert sorted(map(len, left_out[1:])) == [2] * 15 + [3] * 5


@pytest.mark.parametrize("over", ["stimuli", "neuroids", "both"])
def test_what_it_is_over_varies_as_draws_do(over):
    """Against the spread of a hundred tables whose rows, columns or both are new."""
    rng = np.random.default_rng(1)
    rows, columns = rng.normal(size=(60, 1)), rng.normal(size=20)

    def draw():
        new_rows = rng.normal(size=(60, 1)) if over != "neuroids" else rows
        new_columns = rng.normal(size=20) if over != "stimuli" else columns
        return new_rows + new_columns + 3 * rng.normal(size=(60, 20))

    values = [draw().mean() for _ in range(300)]
    tables = [draw() for _ in range(30)]
    halves = [
        error_of(jackknife_interval(mean_of(one), 60, 20, rng, over=over))
        for one in tables
    ]
    assert np.mean(halves) == pytest.approx(2.15 * np.std(values), rel=0.15)


def test_noise_of_single_cells_counts_once(rng):
    noise = [rng.normal(size=(60, 40)) for _ in range(30)]
    halves = [error_of(jackknife_interval(mean_of(one), 60, 40, rng)) for one in noise]
    # Twice in the sum of both factors; never below what one of them has.
    assert np.mean(halves) < 2.2 * np.sqrt(1.5 / (60 * 40))


def test_what_does_not_vary_has_no_width(rng):
    found = jackknife_interval(lambda s, n: 2.0, 30, 30, rng)
    assert (found.low, found.high) == (2, 2)


def test_few_units_are_refused(rng):
    with pytest.raises(DataError, match="over stimuli needs 10 or more, found 9"):
        jackknife_interval(lambda s, n: 0.0, 9, 30, rng)
    with pytest.raises(DataError, match="over neuroids needs 5 or more, found 4"):
        jackknife_interval(lambda s, n: 0.0, 30, 4, rng)
    jackknife_interval(lambda s, n: 0.0, 30, 4, rng, over="stimuli")
