"""Permutation within groups and the false discovery rate."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.metrics.significance import (
    benjamini_hochberg,
    within_group_permutation_p,
)

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


def test_permutation_refuses_what_it_cannot_exchange(rng):
    x, y = rng.normal(size=(2, 6))
    with pytest.raises(DataError, match="equally long, found 6, 5 and 6"):
        within_group_permutation_p(covariance, x, y[:5], np.zeros(6), rng)
    with pytest.raises(DataError, match="nothing can be exchanged"):
        within_group_permutation_p(covariance, x, y, np.arange(6), rng)
    with pytest.raises(DataError, match="NaN"):
        within_group_permutation_p(covariance, x, y * np.nan, np.zeros(6), rng)
