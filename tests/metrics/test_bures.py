"""The squared Bures distance: axioms, three independent routes, and its digits."""

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.metrics.bures import (
    BuresSample,
    between_and_floor,
    bures_sample,
    excess_over_splits,
    half_effects,
    half_split,
    reference_effects,
    squared_bures_distance,
    squared_bures_distances,
    squared_bures_distances_to_reference,
)

seeds = st.integers(0, 2**32 - 1)
sizes = st.integers(2, 12)
quick = settings(max_examples=60, deadline=None)


def cloud_of(rng, n_points, n_features):
    """Points with unequal spread along every axis and a mean that is not zero."""
    scales = rng.lognormal(size=n_features)
    return rng.standard_normal((n_points, n_features)) * scales + rng.normal(size=1)


def unit_covariance(cloud):
    covariance = np.atleast_2d(np.cov(cloud, rowvar=False))
    return covariance / np.trace(covariance)


def distance_by_square_roots_of_covariances(cloud_1, cloud_2):
    """The definition in d×d matrices, whose roots come from an SVD of the points."""

    def root(cloud):
        _, values, axes = np.linalg.svd(cloud - cloud.mean(axis=0))
        values = np.pad(values, (0, len(axes) - len(values)))
        return (axes.T * (values / np.linalg.norm(values))) @ axes

    product = root(cloud_1) @ root(cloud_2)
    return 2 - 2 * np.linalg.svd(product, compute_uv=False).sum()


def rotation_of(rng, n):
    return np.linalg.qr(rng.standard_normal((n, n)))[0]


@quick
@given(seeds, sizes, sizes, sizes)
def test_bures_distance_is_symmetric_and_within_its_range(seed, n1, n2, d):
    rng = np.random.default_rng(seed)
    a, b = cloud_of(rng, n1, d), cloud_of(rng, n2, d)
    forth, back = squared_bures_distance(a, b), squared_bures_distance(b, a)
    assert 0 <= forth <= 2
    assert forth == pytest.approx(back, abs=1e-13)


@quick
@given(seeds, sizes, sizes, st.floats(-30, 30), st.floats(-3, 3))
def test_bures_distance_ignores_scale_translation_and_order_of_points(
    seed, n, d, exponent, offset
):
    rng = np.random.default_rng(seed)
    a, b = cloud_of(rng, n, d), cloud_of(rng, n + 1, d)
    moved = rng.permutation(a) * 10**exponent + offset * 10**exponent
    assert squared_bures_distance(moved, b) == pytest.approx(
        squared_bures_distance(a, b), abs=1e-10
    )
    assert squared_bures_distance(moved, a) < 1e-20


@quick
@given(seeds, sizes, sizes)
def test_bures_distance_ignores_common_rotation(seed, n, d):
    rng = np.random.default_rng(seed)
    a, b, q = cloud_of(rng, n, d), cloud_of(rng, n, d), rotation_of(rng, d)
    assert squared_bures_distance(a @ q, b @ q) == pytest.approx(
        squared_bures_distance(a, b), abs=1e-12
    )


@quick
@given(seeds, sizes, sizes)
def test_square_root_of_bures_distance_obeys_the_triangle_inequality(seed, n, d):
    rng = np.random.default_rng(seed)
    a, b, c = (cloud_of(rng, n + k, d) for k in range(3))
    sides = [np.sqrt(squared_bures_distance(*p)) for p in [(a, b), (b, c), (a, c)]]
    assert sides[2] <= sides[0] + sides[1] + 1e-9


@quick
@given(seeds, sizes, sizes, sizes)
def test_bures_distance_agrees_with_roots_of_covariances(seed, n1, n2, d):
    rng = np.random.default_rng(seed)
    a, b = cloud_of(rng, n1, d), cloud_of(rng, n2, d)
    assert squared_bures_distance(a, b) == pytest.approx(
        distance_by_square_roots_of_covariances(a, b), abs=1e-9
    )


@pytest.mark.parametrize(("n1", "n2", "d"), [(30, 30, 20), (8, 12, 20), (50, 7, 20)])
def test_bures_distance_agrees_with_scipy_square_roots(n1, n2, d):
    rng = np.random.default_rng(1)
    a, b = cloud_of(rng, n1, d), cloud_of(rng, n2, d)
    root = scipy.linalg.sqrtm(unit_covariance(b))
    inner = scipy.linalg.sqrtm(root @ unit_covariance(a) @ root)
    assert squared_bures_distance(a, b) == pytest.approx(
        2 - 2 * np.trace(inner).real, abs=1e-5
    )


def test_bures_distance_agrees_with_optimal_transport_where_that_is_finite():
    ot_gaussian = pytest.importorskip("ot.gaussian")
    rng = np.random.default_rng(2)
    a, b = cloud_of(rng, 200, 15), cloud_of(rng, 150, 15)
    theirs = ot_gaussian.bures_wasserstein_distance(
        np.zeros(15), np.zeros(15), unit_covariance(a), unit_covariance(b)
    )
    assert squared_bures_distance(a, b) == pytest.approx(float(theirs) ** 2, abs=1e-6)


@pytest.mark.parametrize("step", [1e-4, 1e-6, 1e-8, 1e-10])
def test_nearby_clouds_keep_the_digits_of_their_distance(step):
    # Two planes, tilted against each other by a known angle: along the tilted axis the
    # singular value is cos(angle), so D_B = 1 − cos(angle) = 2 sin²(angle / 2).
    points = np.array([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    tilted = points.copy()
    tilted[2:, 1] *= np.cos(step)
    tilted[2:, 2] = points[2:, 1] * np.sin(step)
    assert squared_bures_distance(points, tilted) == pytest.approx(
        2 * np.sin(step / 2) ** 2, rel=1e-5
    )


def test_known_shapes_have_the_distances_computed_by_hand():
    x = np.array([[1.0, 0], [-1, 0]])
    y = np.array([[0.0, 1], [0, -1]])
    disc = np.concatenate([x, y])
    assert squared_bures_distance(x, y) == pytest.approx(2, abs=1e-15)
    assert squared_bures_distance(x, disc) == pytest.approx(2 - np.sqrt(2), abs=1e-14)
    assert squared_bures_distance(x, np.concatenate([x, x, x])) < 1e-25


def test_sample_distance_approaches_that_of_the_population():
    rng = np.random.default_rng(4)
    scales_1, scales_2 = np.array([1.0, 2, 3, 4]), np.array([4.0, 1, 1, 1])
    # Of diagonal covariances: 2 − 2 Σ √(c₁ c₂), where both sum to one.
    units = [scales / np.linalg.norm(scales) for scales in (scales_1, scales_2)]
    population = 2 - 2 * units[0] @ units[1]
    a, b = rng.standard_normal((2, 100_000, 4))
    assert squared_bures_distance(a * scales_1, b * scales_2) == pytest.approx(
        population, abs=0.01
    )


def test_many_pairs_equal_one_pair_at_a_time():
    rng = np.random.default_rng(5)
    clouds = rng.standard_normal((5, 6, 20)).astype(np.float32)
    before = clouds.copy()
    pairs = np.array([(i, j) for i in range(5) for j in range(5)])
    single = [squared_bures_distance(clouds[i], clouds[j]) for i, j in pairs]
    pairs = np.concatenate([pairs, pairs[::-2]])  # in any order, some twice
    single = [*single, *single[::-2]]
    np.testing.assert_allclose(
        squared_bures_distances(clouds, pairs), single, rtol=1e-12, atol=1e-20
    )
    np.testing.assert_array_equal(clouds, before)


def test_clouds_of_unequal_sizes_compare_in_one_call():
    rng = np.random.default_rng(6)
    clouds = [cloud_of(rng, n, 10) for n in (4, 9, 30)]
    pairs = [(0, 1), (0, 2), (2, 0), (1, 2)]
    single = [squared_bures_distance(clouds[i], clouds[j]) for i, j in pairs]
    np.testing.assert_allclose(squared_bures_distances(clouds, pairs), single)


@pytest.mark.parametrize("n_reference", [5, 300])
def test_distances_to_a_reference_equal_one_pair_at_a_time(n_reference):
    rng = np.random.default_rng(7)
    reference, clouds = cloud_of(rng, n_reference, 12), rng.normal(size=(4, 6, 12))
    expected = [distance_by_square_roots_of_covariances(c, reference) for c in clouds]
    np.testing.assert_allclose(
        squared_bures_distances_to_reference(clouds, reference), expected, atol=1e-9
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_constant_cloud_is_an_error_and_not_a_number(dtype):
    rng = np.random.default_rng(8)
    row = rng.lognormal(size=50).astype(dtype)
    constant = np.tile(row, (9, 1))
    # The same response, computed nine times, differs in its last bit.
    constant *= 1 + np.finfo(dtype).eps * rng.integers(-1, 2, constant.shape)
    varied = rng.standard_normal((9, 50))
    for pair in [(constant, varied), (varied, constant), (0 * constant, varied)]:
        with pytest.raises(DataError, match="is constant"):
            squared_bures_distance(*pair)


def test_small_but_real_variability_is_not_called_constant():
    rng = np.random.default_rng(9)
    cloud = (10 + 1e-3 * rng.standard_normal((20, 30))).astype(np.float32)
    other = rng.standard_normal((20, 30))
    assert 0 < squared_bures_distance(cloud, other) < 2


bad_pairs = [
    ([[0, 5]], "must lie in 0 … 2"),
    ([[-1, 0]], "must lie in 0 … 2"),
    ([[0.0, 1.0]], "integers"),
    ([0, 1], r"\(n_pairs, 2\)"),
    (np.empty((0, 2), int), "n_pairs ≥ 1"),
]


@pytest.mark.parametrize(("pairs", "message"), bad_pairs)
def test_impossible_pairs_are_refused(pairs, message):
    clouds = np.random.default_rng(0).normal(size=(3, 4, 5))
    with pytest.raises(DataError, match=message):
        squared_bures_distances(clouds, pairs)


good = np.random.default_rng(0).normal(size=(4, 3))
with_nan = np.where(np.eye(4, 3) > 0, np.nan, good)
bad_clouds = [
    (with_nan, "3 NaN or infinite"),
    (good[:1], "n_points ≥ 2"),
    (good[0], "n_points ≥ 2"),
    (good[:, :2], r"share their features, found \[2, 3\]"),
    (good.astype(str), "real numbers"),
    (good + 1j, "real numbers"),
]


@pytest.mark.parametrize(("cloud", "message"), bad_clouds)
def test_impossible_clouds_are_refused(cloud, message):
    with pytest.raises(DataError, match=message):
        squared_bures_distance(cloud, good)


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
    n_experiments, n_pairs = 1500, 16
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


@pytest.mark.parametrize(
    ("n", "n_points", "n_features"),
    [(60, 12, 24), (30, 12, 100), (12, 12, 50), (25, 25, 300), (6, 12, 3)],
)
def test_effects_are_those_of_leaving_each_point_out(rng, n, n_points, n_features):
    scales = np.arange(1, n_features + 1) ** -0.8
    clouds = rng.normal(size=(5, n_points, n_features)) * scales
    reference = 3 + rng.normal(size=(n, n_features)) * scales
    without = [
        squared_bures_distances_to_reference(clouds, np.delete(reference, k, axis=0))
        for k in range(n)
    ]
    means = np.mean(without, axis=1)
    expected = (n - 1) * (means.mean() - means)
    found = reference_effects(clouds, reference)
    np.testing.assert_allclose(found, expected, atol=5e-4 * np.abs(expected).max())
    assert found.sum() == pytest.approx(0, abs=1e-10)


def test_a_point_at_the_centre_of_many_adds_nothing_of_its_own(rng):
    clouds = rng.normal(size=(3, 10, 6))
    reference = rng.normal(size=(40, 6))
    reference = np.concatenate([reference, -reference, np.zeros((1, 6))])
    effects = reference_effects(clouds, reference)
    # Without it the shape is the same, so it lies above and below as the mean does.
    own = squared_bures_distances_to_reference(clouds, reference).mean()
    without = squared_bures_distances_to_reference(clouds, reference[:-1]).mean()
    assert own == pytest.approx(without, abs=1e-12)
    assert abs(effects[-1]) < np.abs(effects).mean()


def test_too_few_points_to_leave_one_out_have_no_effects(rng):
    clouds = rng.normal(size=(3, 10, 6))
    undefined = reference_effects(clouds, rng.normal(size=(3, 6)))
    assert undefined.shape == (3,)
    assert np.isnan(undefined).all()
    alone = np.zeros((5, 6))
    alone[2] = 1
    assert np.isnan(reference_effects(clouds, alone)).all()
    with pytest.raises(DataError, match="constant"):
        reference_effects(clouds, np.ones((5, 6)))


def test_effects_of_halves_are_those_of_the_references_they_are(rng):
    clouds = rng.normal(size=(4, 9, 30)) * rng.lognormal(size=30)
    own, content = (clouds[0], clouds[1]), (clouds[2], clouds[3])
    found = half_effects(own, content)
    for k in (0, 1):
        for j, other in enumerate((own[1 - k], content[1 - k])):
            expected = reference_effects([other], content[k])
            np.testing.assert_allclose(found[k, j], expected, atol=1e-8)
    few = tuple(half[:3] for half in content)
    assert np.isnan(half_effects(own, few)).all()
