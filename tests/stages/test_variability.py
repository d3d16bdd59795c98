"""Comparisons A–D on planted responses: distances, floors, and where they come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_config

from ce_align.errors import DataError
from ce_align.metrics.bures import squared_bures_distance
from ce_align.stages import variability
from ce_align.stages.variability import (
    Answers,
    choose_pairs,
    compare,
    measure_shapes,
    units_in_pairs,
)
from ce_align.stages.views import block_means

N_IMAGES, N_VIEWS, D = 14, 12, 20


def answers_of(rng, strong=None, crossed=None, by_class=None):
    """Unstructured responses, but for those that are given; crossed as full views."""
    if strong is None:
        strong = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    if crossed is None:
        crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    blocks = np.stack([block_means(views) for views in crossed])
    return Answers(np.float32(strong), np.float32(blocks), by_class)


@pytest.fixture
def config():
    return toy_config(comparisons=60, views=N_VIEWS, crops=6, photometrics=8)


@given(st.integers(5, 60), st.integers(10, 300), st.integers(0, 9))
def test_pairs_are_different_and_as_many_as_asked_for(n, comparisons, seed):
    pairs = choose_pairs(n, comparisons, seed)
    assert len(pairs) == min(comparisons, n * (n - 1) // 2)
    assert (pairs[:, 0] < pairs[:, 1]).all()
    assert len(np.unique(pairs, axis=0)) == len(pairs)


@given(st.integers(10, 2000), st.integers(0, 9))
def test_there_are_images_enough_for_an_interval(comparisons, seed):
    n = units_in_pairs(comparisons)
    assert n * (n - 1) // 2 >= comparisons
    assert len(np.unique(choose_pairs(n, comparisons, seed))) >= 5


def test_distances_are_those_of_the_whole_clouds(rng, config):
    crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    answers = answers_of(rng, crossed=crossed)
    found = compare(answers, config)
    assert list(found) == list(variability.COMPARISONS)[:3]
    one = found["augmentation_augmentation"]
    i, j = one.pairs[7]
    expected = squared_bures_distance(answers.strong[i], answers.strong[j])
    assert one.distance.values[7] == pytest.approx(expected, abs=1e-12)
    centroids = answers.strong.mean(axis=1, dtype=float)
    expected = squared_bures_distance(centroids, answers.strong[4])
    values = found["augmentation_centroid"].distance.values
    assert values[4] == pytest.approx(expected, abs=1e-12)
    views = np.float32(crossed[4]).astype(float)
    expected = squared_bures_distance(views.mean(axis=0), views.mean(axis=1))
    values = found["spatial_photometric"].distance.values
    assert values[4] == pytest.approx(expected, abs=1e-5)


def test_floor_and_excess_carry_the_number_of_points_of_half_clouds(rng, config):
    rows = measure_shapes(compare(answers_of(rng), config), None, config)
    n = {found.metric: found.n_points for found in rows.measurements}
    assert n["augmentation_augmentation"] == N_VIEWS
    assert n["augmentation_augmentation_floor"] == N_VIEWS // 2
    assert n["augmentation_augmentation_excess"] == N_VIEWS // 2
    assert n["augmentation_centroid"] == min(N_IMAGES, N_VIEWS)
    assert n["augmentation_centroid_floor"] == N_VIEWS // 2
    assert n["spatial_photometric"] == 6
    assert n["spatial_photometric_floor"] == 3


@pytest.mark.parametrize("n_views", [4, 7, 10, 13])
@pytest.mark.parametrize("n_images", [6, 30])
def test_centroids_and_views_of_the_excess_are_equally_many(n_views, n_images, rng):
    strong = rng.normal(size=(n_images, n_views, D))
    crossed = rng.normal(size=(n_images, 6, 8, D))
    config = toy_config(views=n_views, crops=6, photometrics=8)
    found = compare(answers_of(rng, strong, crossed), config)
    sizes = found["augmentation_centroid"].floor.n_points
    assert sizes[0] == sizes[1] <= min(n_views, n_images) // 2


def test_half_clouds_of_crossed_views_have_no_view_in_common(monkeypatch, rng):
    config = toy_config(crops=6, photometrics=8)
    # Every view points along an axis of its own, so that means tell their views.
    crossed = np.tile(np.eye(48).reshape(1, 6, 8, 48), (N_IMAGES, 1, 1, 1))
    compared = []

    def record(*clouds):
        compared.append([set(np.flatnonzero(cloud.any(axis=0))) for cloud in clouds])
        return squared_bures_distance(*clouds)

    monkeypatch.setattr(variability, "squared_bures_distance", record)
    strong = rng.normal(size=(N_IMAGES, 6, 48))
    variability.spatial_photometric(answers_of(rng, strong, crossed), config)
    assert len(compared) == 5 * N_IMAGES
    for k, (first, second) in enumerate(compared):
        if k % 5 == 4:
            assert len(first) == len(second) == 48
        else:
            assert first and second and not first & second


def test_half_clouds_of_images_and_centroids_have_no_view_in_common(monkeypatch, rng):
    config = toy_config(views=N_VIEWS)
    n = N_IMAGES * N_VIEWS
    strong = np.eye(n).reshape(N_IMAGES, N_VIEWS, n)
    compared = []

    def record(clouds, reference):
        compared.append((clouds, reference))
        return np.ones(len(clouds))

    monkeypatch.setattr(variability, "squared_bures_distances_to_reference", record)
    answers = Answers(np.float32(strong), np.zeros((0,)), None)
    variability.augmentation_centroid(answers, config)
    whole, *halves = compared
    assert whole[1].any(axis=0).all()
    for clouds, reference in halves:
        of_clouds = clouds.reshape(-1, n).any(axis=0)
        assert not (of_clouds & reference.any(axis=0)).any()
    # The two centroid clouds come from different images.
    images = [r.reshape(len(r), N_IMAGES, N_VIEWS).any(axis=(0, 2)) for _, r in halves]
    assert not (images[0] & images[1]).any()


def test_equal_sources_have_no_excess_however_few_views(rng):
    config = toy_config(comparisons=400, views=8, crops=6, photometrics=8)
    scales = 1 / np.arange(1, 31)
    strong = rng.normal(size=(60, 8, 30)) * scales
    crossed = rng.normal(size=(60, 6, 8, 30)) * scales
    comparisons = compare(answers_of(rng, strong, crossed), config)
    found = measure_shapes(comparisons, None, config).measurements
    intervals = {one.metric: one.interval for one in found}
    assert intervals["augmentation_augmentation"].low > 0.2
    excess = intervals["augmentation_augmentation_excess"]
    assert excess.low < 0 < excess.high
    assert abs(excess.estimate) < 0.03


def test_images_with_axes_of_their_own_are_as_far_apart_as_can_be(rng, config):
    strong = np.zeros((N_IMAGES, N_VIEWS, 2 * N_IMAGES))
    for i in range(N_IMAGES):
        strong[i, :, 2 * i : 2 * i + 2] = rng.normal(size=(N_VIEWS, 2))
    crossed = rng.normal(size=(N_IMAGES, 6, 8, 2 * N_IMAGES))
    found = compare(answers_of(rng, strong, crossed), config)
    one = found["augmentation_augmentation"]
    np.testing.assert_allclose(one.distance.values, 2, atol=1e-7)
    np.testing.assert_allclose(one.excess.values, 2 - one.floor.values, atol=1e-7)


def test_a_difference_is_the_baseline_minus_the_network(rng, config):
    crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    apart = answers_of(rng, crossed=crossed)
    # The same displacements around each image.
    same = rng.normal(size=(N_VIEWS, D)) + rng.normal(size=(N_IMAGES, 1, D))
    alike = answers_of(rng, same, crossed)
    baseline, network = compare(apart, config), compare(alike, config)
    found = {
        one.metric: one.interval
        for one in measure_shapes(network, baseline, config).measurements
    }
    name = "augmentation_augmentation"
    mean = baseline[name].distance.values.mean()
    assert found[f"{name}_delta"].estimate == pytest.approx(mean)
    assert found[f"{name}_delta"].low > 0
    itself = measure_shapes(baseline, baseline, config)
    for one in itself.measurements:
        if one.relative:
            interval = one.interval
            assert interval.low == interval.estimate == interval.high == 0


def test_values_of_each_comparison_are_kept_and_give_the_rows(rng, config):
    comparisons = compare(answers_of(rng), config)
    measured = measure_shapes(comparisons, comparisons, config)
    for one in measured.measurements:
        values = measured.arrays[one.metric].values
        assert values.mean() == pytest.approx(one.interval.estimate)
        assert len(values) == one.n_comparisons
    assert measured.arrays["augmentation_augmentation_pairs"].shape == (60, 2)


def test_an_interval_over_images_is_wider_than_one_over_pairs(rng, config):
    scales = rng.lognormal(sigma=1, size=(N_IMAGES, 1, D))
    answers = answers_of(rng, rng.normal(size=(N_IMAGES, N_VIEWS, D)) * scales)
    widths = []
    for kind in ("population", "comparisons"):
        chosen = config.model_copy(update={"interval": kind})
        found = measure_shapes(compare(answers, chosen), None, chosen).measurements[0]
        widths.append(found.interval.high - found.interval.low)
    assert widths[0] > 1.3 * widths[1]


def test_a_constant_cloud_is_refused_with_the_comparison_it_belongs_to(rng, config):
    strong = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    strong[3] = 1.5
    with pytest.raises(DataError, match=r"augmentation_augmentation: .*constant"):
        compare(answers_of(rng, strong), config)
