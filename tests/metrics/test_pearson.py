"""Correlations column by column against scipy, wherever values are missing."""

import numpy as np
import pytest
import scipy.stats

from ce_align.metrics.pearson import columnwise_pearson_r


def expected(a, b):
    found = []
    for x, y in zip(a.T, b.T, strict=True):
        shared = ~np.isnan(x) & ~np.isnan(y)
        found.append(scipy.stats.pearsonr(x[shared], y[shared]).statistic)
    return found


def test_each_column_is_correlated_over_the_rows_that_both_have(rng):
    a = rng.normal(size=(20, 6)) * np.logspace(-3, 3, 6) + 5
    b = a + rng.normal(size=(20, 6))
    np.testing.assert_allclose(columnwise_pearson_r(a, b), expected(a, b))
    a[rng.random(a.shape) < 0.2] = np.nan
    b[rng.random(b.shape) < 0.2] = np.nan
    np.testing.assert_allclose(columnwise_pearson_r(a, b), expected(a, b))


@pytest.mark.parametrize("size", [1e-200, 1e-12, 1.0, 1e200])
def test_r_does_not_depend_on_size_mean_or_sign(rng, size):
    a, b = rng.normal(size=(2, 12, 3))
    r = columnwise_pearson_r(a, b)
    np.testing.assert_allclose(columnwise_pearson_r(size * (a + 3), b), r, rtol=1e-9)
    np.testing.assert_allclose(columnwise_pearson_r(a, -size * b), -r, rtol=1e-9)


def test_it_lies_between_minus_one_and_one(rng):
    a = rng.normal(size=(7, 2000))
    for sign in (1, -1):
        r = columnwise_pearson_r(a, sign * 0.1 * a)
        np.testing.assert_allclose(r, sign, atol=1e-12)
        assert np.abs(r).max() <= 1


def test_it_is_undefined_where_a_column_stands_still_or_too_few_rows_are_shared(rng):
    a, b = rng.normal(size=(2, 9, 5))
    a[:, 0] = 0.1  # whose mean misses it by rounding
    b[:, 1] = 0.0
    a[1:, 2] = np.nan
    a[:5, 3], b[5:, 3] = np.nan, np.nan
    # It varies, but not over the shared rows.
    a[:, 4], b[0, 4] = np.where(np.arange(9) == 0, 2.0, 0.3), np.nan
    assert np.isnan(columnwise_pearson_r(a, b)).all()
    assert np.isnan(columnwise_pearson_r(b, a)).all()
