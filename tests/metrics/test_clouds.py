"""Finite clouds: equal sizes only, and an excess that is zero for equal sources."""

import numpy as np
import pytest
import scipy.stats

from ce_align.errors import DataError
from ce_align.metrics.bures import squared_bures_distance
from ce_align.metrics.clouds import (
    BuresSample,
    between_and_floor,
    bures_sample,
    excess_over_splits,
    half_split,
)


def gaussian_clouds(rng, n_clouds, n_points, scales):
    return rng.standard_normal((n_clouds, n_points, len(scales))) * scales


def excess_of(clouds, pairs, halves):
    between, floor = excess_over_splits(clouds, pairs, [halves])
    return between - floor


def disjoint_pairs(n_clouds):
    return np.arange(n_clouds).reshape(-1, 2)


def test_floor_of_a_wide_gaussian_is_far_from_zero_and_falls_with_points():
    # The reference values are those of a 1/k spectrum in 2048 dimensions.
    rng = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, 2049))
    for n_points, expected in [(20, 1.23), (50, 1.01), (200, 0.68)]:
        clouds = gaussian_clouds(rng, 12, n_points, scales)
        values = bures_sample(clouds, disjoint_pairs(12)).values
        assert values.mean() == pytest.approx(expected, abs=0.03)


def test_values_of_unequal_cloud_sizes_cannot_be_compared():
    rng = np.random.default_rng(1)
    few = bures_sample(rng.normal(size=(3, 10, 5)), [(0, 1), (1, 2)])
    many = bures_sample(rng.normal(size=(3, 11, 5)), [(0, 1), (1, 2)])
    with pytest.raises(DataError, match=r"\(10, 10\) and \(11, 11\) points cannot"):
        _ = few - many
    with pytest.raises(DataError, match="same comparisons"):
        _ = few - BuresSample(few.values[:1], few.n_points)


def test_difference_of_samples_is_taken_comparison_by_comparison():
    rng = np.random.default_rng(2)
    clouds = rng.normal(size=(2, 3, 10, 5))
    pairs = [(0, 1), (1, 2)]
    difference = bures_sample(clouds[0], pairs) - bures_sample(clouds[1], pairs)
    expected = [
        squared_bures_distance(clouds[0][i], clouds[0][j])
        - squared_bures_distance(clouds[1][i], clouds[1][j])
        for i, j in pairs
    ]
    np.testing.assert_allclose(difference, expected)


def test_one_sample_holds_comparisons_of_one_size():
    rng = np.random.default_rng(3)
    clouds = [rng.normal(size=(n, 5)) for n in (6, 6, 7)]
    assert bures_sample(clouds, [(0, 2), (1, 2)]).n_points == (6, 7)
    with pytest.raises(DataError, match=r"found \[\(6, 6\), \(6, 7\)\]"):
        bures_sample(clouds, [(0, 1), (1, 2)])


def test_half_split_balances_the_kinds_of_views():
    rng = np.random.default_rng(4)
    kinds = np.array(["A"] * 25 + ["B"] * 25)
    first, second = half_split(50, rng, kinds)
    assert len(first) == len(second) == 24
    assert not set(first) & set(second)
    assert (kinds[first] == "A").sum() == (kinds[second] == "A").sum() == 12


def test_half_split_is_reproducible_and_uses_every_even_point():
    first, second = half_split(10, np.random.default_rng(5))
    again = half_split(10, np.random.default_rng(5))
    np.testing.assert_array_equal(first, again[0])
    assert sorted([*first, *second]) == list(range(10))


def test_excess_is_the_difference_of_its_four_distances():
    rng = np.random.default_rng(6)
    clouds = rng.normal(size=(3, 10, 4))
    first, second = half_split(10, rng)
    a, a2, b, b2 = (
        clouds[2][first],
        clouds[2][second],
        clouds[0][first],
        clouds[0][second],
    )
    distance = squared_bures_distance
    found = excess_over_splits(clouds, [(2, 0)], [(first, second)])
    between = (distance(a, b2) + distance(a2, b)) / 2
    floor = (distance(a, a2) + distance(b, b2)) / 2
    assert found[0].values[0] == pytest.approx(between)
    assert found[1].values[0] == pytest.approx(floor)
    assert (found[0] - found[1])[0] == pytest.approx(between - floor)
    assert found[1].n_points == (5, 5)
    assert between_and_floor((a, a2), (b, b2)) == pytest.approx((between, floor))


@pytest.mark.parametrize("shared_draws", [False, True])
def test_excess_of_equal_sources_is_zero_on_average(shared_draws):
    rng = np.random.default_rng(7)
    scales = 1 / np.sqrt(np.arange(1, 21))
    clouds = gaussian_clouds(rng, 2000, 12, scales)
    if shared_draws:  # point k is the same augmentation for both images of a pair
        clouds[1::2] = 0.8 * clouds[::2] + 0.6 * clouds[1::2]
    pairs = disjoint_pairs(2000)
    values = excess_of(clouds, pairs, half_split(12, rng))
    plain = bures_sample(clouds, pairs).values
    assert abs(values.mean()) < 3 * values.std() / np.sqrt(len(values))
    assert plain.mean() > 0.1  # what the excess removes


@pytest.mark.slow
def test_excess_of_equal_sources_is_significant_as_often_as_it_may_be():
    rng = np.random.default_rng(8)
    n_experiments, n_pairs = 3000, 16
    clouds = gaussian_clouds(rng, 2 * n_experiments * n_pairs, 8, np.ones(5))
    pairs = disjoint_pairs(len(clouds))
    values = excess_of(clouds, pairs, half_split(8, rng))
    experiments = values.reshape(n_experiments, n_pairs)
    p = scipy.stats.ttest_1samp(experiments, 0, axis=1).pvalue
    assert 0.04 <= np.mean(p < 0.05) <= 0.06


def test_excess_rises_with_the_distance_of_the_populations():
    rng = np.random.default_rng(9)
    base = np.ones(10)
    excess, population = [], []
    for contrast in (1.0, 1.5, 2.5, 5.0):
        scales = np.where(np.arange(10) < 5, contrast, 1.0)
        clouds = gaussian_clouds(rng, 200, 16, base)
        clouds[1::2] *= scales
        values = excess_of(clouds, disjoint_pairs(200), half_split(16, rng))
        excess.append(values.mean())
        # Of diagonal covariances: 2 − 2 Σ √(c₁ c₂), where both sum to one.
        population.append(2 - 2 * np.sum(scales) / np.sqrt(10 * np.sum(scales**2)))
    assert np.all(np.diff(population) > 0)
    assert np.all(np.diff(excess) > 0.005)


def test_impossible_halves_are_refused():
    rng = np.random.default_rng(10)
    clouds = rng.normal(size=(2, 6, 4))
    overlapping = (np.array([0, 1, 2]), np.array([2, 3, 4]))
    unequal = (np.array([0, 1, 2]), np.array([3, 4]))
    for halves in (overlapping, unequal):
        with pytest.raises(DataError, match="disjoint and equally long"):
            excess_over_splits(clouds, [(0, 1)], [halves])
    with pytest.raises(DataError, match="needs 2 points"):
        half_split(3, rng)
    with pytest.raises(DataError, match="strata"):
        half_split(6, rng, ["A", "B"])


@pytest.mark.parametrize("mean", [0, 1e3])
def test_means_over_splits_are_those_of_the_splits_one_by_one(mean):
    rng = np.random.default_rng(11)
    clouds = (
        rng.normal(size=(5, 12, 7)) * rng.lognormal(size=(5, 1, 7)) + mean
    ).astype(np.float32)
    pairs = np.array([(0, 1), (1, 2), (4, 2), (3, 0)])
    splits = [half_split(12, rng) for _ in range(6)]
    found = excess_over_splits(clouds, pairs, splits)
    each = [
        [
            between_and_floor(
                *[tuple(clouds[i][half] for half in halves) for i in pair]
            )
            for pair in pairs
        ]
        for halves in splits
    ]
    for part, expected in zip(found, np.mean(each, axis=0).T, strict=True):
        np.testing.assert_allclose(part.values, expected, atol=1e-9)
        assert part.n_points == (6, 6)


def test_a_constant_half_leaves_out_its_splits_and_a_constant_cloud_its_pairs():
    rng = np.random.default_rng(12)
    clouds = rng.normal(size=(4, 8, 5)).astype(np.float32) + 3
    pairs = np.array([(0, 1), (2, 3), (0, 2)])
    splits = [(np.arange(4), np.arange(4, 8)), (np.arange(8)[::2], np.arange(8)[1::2])]
    clouds[1, :4] = clouds[1, 0]  # a half of the first split
    clouds[3] = 1.7
    between, floor = excess_over_splits(clouds, pairs, splits)
    of_second = excess_over_splits(clouds, pairs[:1], splits[1:])
    assert between.values[0] == pytest.approx(of_second[0].values[0])
    assert floor.values[0] == pytest.approx(of_second[1].values[0])
    assert np.isnan((between - floor)[1])
    assert np.isfinite((between - floor)[2])
