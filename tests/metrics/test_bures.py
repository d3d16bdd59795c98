"""The squared Bures distance: axioms, three independent routes, and its digits."""

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.metrics.bures import (
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
