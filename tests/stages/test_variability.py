"""Comparisons A–D on planted responses: distances, floors, and where they come from."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import toy_config

from ce_align.errors import DataError
from ce_align.metrics.bures import bures_sample, squared_bures_distance
from ce_align.stages import variability
from ce_align.stages.variability import (
    Clouds,
    choose_pairs,
    compare,
    measure_shapes,
    units_in_pairs,
)
from ce_align.stages.views import block_means

pytestmark = pytest.mark.slow

N_IMAGES, N_VIEWS, D = 14, 12, 20


def clouds_of(rng, strong=None, crossed=None, by_class=None):
    """Unstructured responses, but for those that are given; crossed as full views."""
    if strong is None:
        strong = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    if crossed is None:
        crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    blocks = np.stack([block_means(views) for views in crossed])
    return Clouds(np.float32(strong), np.float32(blocks), by_class)


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
    clouds = clouds_of(rng, crossed=crossed)
    found = compare(clouds, config)
    assert list(found) == list(variability.COMPARISONS)[:3]
    one = found["augmentation_augmentation"]
    i, j = one.pairs[7]
    expected = squared_bures_distance(clouds.strong[i], clouds.strong[j])
    assert one.distance.values[7] == pytest.approx(expected, abs=1e-12)
    centroids = clouds.strong.mean(axis=1, dtype=float)
    expected = squared_bures_distance(centroids, clouds.strong[4])
    values = found["augmentation_centroid"].distance.values
    assert values[4] == pytest.approx(expected, abs=1e-12)
    views = np.float32(crossed[4]).astype(float)
    expected = squared_bures_distance(views.mean(axis=0), views.mean(axis=1))
    values = found["spatial_photometric"].distance.values
    assert values[4] == pytest.approx(expected, abs=1e-5)


def test_floor_and_excess_carry_the_number_of_points_of_half_clouds(rng, config):
    rows = measure_shapes(compare(clouds_of(rng), config), None, config)
    n = {found.metric: found.n_points for found in rows.numbers}
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
    found = compare(clouds_of(rng, strong, crossed), config)
    sizes = found["augmentation_centroid"].floor.n_points
    assert sizes[0] == sizes[1] <= min(n_views, n_images) // 2


def test_half_clouds_of_crossed_views_have_no_draw_in_common(monkeypatch, rng):
    config = toy_config(crops=6, photometrics=8)
    # Every view points along an axis of its own, so that means tell their views.
    crossed = np.tile(np.eye(48).reshape(1, 6, 8, 48), (N_IMAGES, 1, 1, 1))
    compared = []

    def record(first, second):
        compared.append([np.flatnonzero(x.any(axis=0)) for x in (*first, *second)])
        return 0.0, 0.0

    monkeypatch.setattr(variability, "between_and_floor", record)
    strong = rng.normal(size=(N_IMAGES, 6, 48))
    variability.spatial_photometric(clouds_of(rng, strong, crossed), config)
    assert len(compared) == 2 * N_IMAGES
    for a, a_2, b, b_2 in compared:
        for one, other in [(a, b_2), (a_2, b), (a, a_2), (b, b_2)]:
            crops, photometrics = (
                set(one // 8) & set(other // 8),
                set(one % 8) & set(other % 8),
            )
            assert not crops
            assert not photometrics
    # Both ways together use all views that lie in half of the crops and photometrics.
    assert {view for clouds in compared for cloud in clouds for view in cloud} == set(
        range(48)
    )


def test_an_image_meets_the_centroids_of_other_images_and_each_its_own(
    monkeypatch, rng
):
    config = toy_config(views=N_VIEWS)
    n = N_IMAGES * N_VIEWS
    strong = np.eye(n).reshape(N_IMAGES, N_VIEWS, n)
    compared = []

    def record(first, second):
        clouds = [
            x.reshape(len(x), N_IMAGES, N_VIEWS).any(axis=2) for x in (*first, *second)
        ]
        compared.append([frozenset(np.flatnonzero(x.any(axis=0))) for x in clouds])
        return 0.0, 0.0

    monkeypatch.setattr(variability, "between_and_floor", record)
    monkeypatch.setattr(
        variability,
        "squared_bures_distances_to_reference",
        lambda clouds, reference, leave_out: np.ones(len(clouds)),
    )
    clouds = Clouds(np.float32(strong), np.zeros((0,)), None)
    variability.augmentation_centroid(clouds, config)
    for image, (first, second, content, content_2) in enumerate(compared):
        assert first == second == {image % N_IMAGES}
        assert not content & content_2
        assert image % N_IMAGES not in content | content_2
    assert len({tuple(one[2:]) for one in compared}) == len(compared)


def test_centroids_take_every_image_whatever_is_compared(rng, config):
    clouds = clouds_of(rng)
    more = np.float32(rng.normal(size=(40, D)))
    whole = Clouds(clouds.strong, clouds.crossed, None, more)
    found = compare(whole, config)["augmentation_centroid"]
    centroids = np.concatenate([clouds.strong.mean(axis=1, dtype=float), more])
    expected = squared_bures_distance(centroids, clouds.strong[3])
    assert found.distance.values[3] == pytest.approx(expected, abs=1e-12)
    assert found.distance.n_points == (N_IMAGES + 40, N_VIEWS)
    rows = measure_shapes({"augmentation_centroid": found}, None, config).numbers
    assert {row.note for row in rows} == {"54 centroids"}


def test_pairs_are_drawn_over_all_images(rng):
    # As if sorted by class: a pair of two early images is near, any other far.
    config = toy_config(comparisons=100, views=6)
    strong = rng.normal(size=(80, 6, D))
    found = variability.augmentation_augmentation(clouds_of(rng, strong), config)
    counts = np.bincount(found.pairs.ravel(), minlength=80)
    assert set(counts) == {2, 3, 4}
    assert counts.sum() == 200
    other = variability.augmentation_augmentation(
        clouds_of(rng, strong), config.model_copy(update={"seed": 1})
    )
    assert not np.array_equal(found.pairs, other.pairs)


def test_the_mean_over_pairs_is_that_of_all_pairs_though_images_are_sorted(rng):
    # The first quarter of the images vary alike, the others each in its own way.
    n = 80
    scales = np.exp(1.5 * rng.normal(size=(n, 1, D)))
    scales[: n // 4] = scales[0]
    strong = rng.normal(size=(n, 10, D)) * scales
    clouds = clouds_of(rng, strong)
    config = toy_config(comparisons=400, views=10)
    found = variability.augmentation_augmentation(clouds, config)
    every = bures_sample(clouds.strong, np.stack(np.triu_indices(n, 1), axis=1))
    sorted_first = bures_sample(clouds.strong, np.stack(np.triu_indices(29, 1), axis=1))
    error = np.std(every.values) / np.sqrt(400)
    assert abs(found.distance.values.mean() - every.values.mean()) < 4 * error
    assert abs(sorted_first.values.mean() - every.values.mean()) > 8 * error


def test_all_pairs_are_equally_likely():
    counts = np.zeros((7, 7))
    n_draws = 3000
    for seed in range(n_draws):
        pairs = choose_pairs(7, 9, seed)
        counts[pairs[:, 0], pairs[:, 1]] += 1
    shares = counts[np.triu_indices(7, 1)] / n_draws
    # Five standard deviations of a binomial count; 9 of 21 pairs are drawn.
    chance = 9 / 21
    assert np.abs(shares - chance).max() < 5 * np.sqrt(chance * (1 - chance) / n_draws)


def test_floor_and_excess_hardly_depend_on_the_split(rng, monkeypatch):
    scales = rng.lognormal(sigma=1, size=(40, 1, D))
    strong = rng.normal(size=(40, 20, D)) * scales + rng.normal(size=(40, 1, D))
    clouds = clouds_of(rng, strong, rng.normal(size=(40, 6, 8, D)))
    config = toy_config(comparisons=100, views=20, crops=6, photometrics=8)
    pairs = choose_pairs(40, 100, 0)
    strata = np.arange(20) % 2
    found = {"pairs": [], "centroids": []}
    for seed in range(12):
        own = config.model_copy(update={"seed": seed})
        found["centroids"].append(variability.augmentation_centroid(clouds, own))
        found["pairs"].append(
            variability._of_pairs(clouds.strong, pairs, seed, "image_pair", strata)
        )
    for comparisons in found.values():
        values = np.array([one.excess.values for one in comparisons])
        half_width = 1.96 * values[0].std() / np.sqrt(values.shape[1])
        assert values.mean(axis=1).std(ddof=1) < 0.1 * half_width


def test_equal_sources_have_no_excess_however_few_views(rng):
    config = toy_config(comparisons=400, views=8, crops=6, photometrics=8)
    scales = 1 / np.arange(1, 31)
    strong = rng.normal(size=(60, 8, 30)) * scales
    crossed = rng.normal(size=(60, 6, 8, 30)) * scales
    comparisons = compare(clouds_of(rng, strong, crossed), config)
    found = measure_shapes(comparisons, None, config).numbers
    intervals = {one.metric: one.estimate.interval for one in found}
    assert intervals["augmentation_augmentation"].low > 0.2
    excess = intervals["augmentation_augmentation_excess"]
    assert excess.low < 0 < excess.high
    assert abs(excess.estimate) < 0.03


def test_images_with_axes_of_their_own_are_as_far_apart_as_can_be(rng, config):
    strong = np.zeros((N_IMAGES, N_VIEWS, 2 * N_IMAGES))
    for i in range(N_IMAGES):
        strong[i, :, 2 * i : 2 * i + 2] = rng.normal(size=(N_VIEWS, 2))
    crossed = rng.normal(size=(N_IMAGES, 6, 8, 2 * N_IMAGES))
    found = compare(clouds_of(rng, strong, crossed), config)
    one = found["augmentation_augmentation"]
    np.testing.assert_allclose(one.distance.values, 2, atol=1e-7)
    np.testing.assert_allclose(one.excess.values, 2 - one.floor.values, atol=1e-7)


def test_a_difference_is_the_baseline_minus_the_network(rng, config):
    crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    apart = clouds_of(rng, crossed=crossed)
    # The same displacements around each image.
    same = rng.normal(size=(N_VIEWS, D)) + rng.normal(size=(N_IMAGES, 1, D))
    alike = clouds_of(rng, same, crossed)
    baseline, network = compare(apart, config), compare(alike, config)
    found = {
        one.metric: one.estimate.interval
        for one in measure_shapes(network, baseline, config).numbers
    }
    name = "augmentation_augmentation"
    mean = baseline[name].distance.values.mean()
    assert found[f"{name}_delta"].estimate == pytest.approx(mean)
    assert found[f"{name}_delta"].low > 0
    itself = measure_shapes(baseline, baseline, config)
    for one in itself.numbers:
        if one.relative:
            interval = one.estimate.interval
            assert interval.low == interval.estimate == interval.high == 0


def test_values_of_each_comparison_are_kept_and_give_the_rows(rng, config):
    comparisons = compare(clouds_of(rng), config)
    measured = measure_shapes(comparisons, comparisons, config)
    for one in measured.numbers:
        values = measured.arrays[one.metric].values
        assert values.mean() == pytest.approx(one.estimate.interval.estimate)
        assert len(values) == one.n_comparisons
    assert measured.arrays["augmentation_augmentation_pairs"].shape == (60, 2)


def test_an_interval_over_images_is_wider_than_one_over_pairs(rng, config):
    scales = rng.lognormal(sigma=1, size=(N_IMAGES, 1, D))
    clouds = clouds_of(rng, rng.normal(size=(N_IMAGES, N_VIEWS, D)) * scales)
    widths = []
    for kind in ("population", "comparisons"):
        chosen = config.model_copy(update={"interval": kind})
        found = measure_shapes(compare(clouds, chosen), None, chosen).numbers[0]
        widths.append(found.estimate.interval.high - found.estimate.interval.low)
    assert widths[0] > 1.3 * widths[1]


def test_a_constant_cloud_is_left_out_and_counted_and_nothing_else_moves(rng, config):
    strong = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    whole = compare(clouds_of(rng, strong, crossed), config)
    still = strong.copy()
    still[3] = 1.5
    # Photometric draws that change nothing: image 5 answers every draw alike.
    unmoved = crossed.copy()
    unmoved[5] = crossed[5][:, :1]
    found = compare(clouds_of(rng, still, unmoved), config)
    name = "augmentation_augmentation"
    of_image = (found[name].pairs == 3).any(axis=1)
    for part in ("distance", "between", "floor"):
        values = getattr(found[name], part).values
        assert np.isnan(values[of_image]).all()
        kept = getattr(whole[name], part).values[~of_image]
        np.testing.assert_allclose(values[~of_image], kept)
    spatial = found["spatial_photometric"].distance.values
    assert np.flatnonzero(np.isnan(spatial)).tolist() == [5]
    rows = {one.metric: one for one in measure_shapes(found, whole, config).numbers}
    row = rows["spatial_photometric_excess_delta"]
    assert row.n_comparisons == row.estimate.interval.n_units == N_IMAGES - 1
    few, note = row.note.split("; ")
    assert note == "1 of 14 images left out: constant responses"
    assert few == "clouds of 3 points hardly have a shape (more views)"
    assert np.isfinite(row.estimate.interval.estimate)
    n_left = int(of_image.sum())
    assert rows[name].note == f"{n_left} of 60 image pairs left out: constant responses"
    assert rows["augmentation_centroid"].note == (
        "14 centroids; 1 of 14 images left out: constant responses"
    )


def test_half_clouds_that_never_move_cost_floor_and_excess_only(rng, config):
    crossed = rng.normal(size=(N_IMAGES, 6, 8, D))
    # The first half of the photometric draws of image 2 change nothing.
    crossed[2][:, :4] = crossed[2][:, :1]
    found = compare(clouds_of(rng, crossed=crossed), config)["spatial_photometric"]
    assert np.isfinite(found.distance.values).all()
    assert np.flatnonzero(np.isnan(found.excess.values)).tolist() == [2]
    assert np.flatnonzero(np.isnan(found.floor.values)).tolist() == [2]


@pytest.mark.parametrize("seed", range(5))
def test_photometric_draws_that_change_nothing_lose_no_comparison(seed):
    """At six draws and 200 images nearly half of all runs have such a half-cloud."""
    rng = np.random.default_rng(seed)
    changed = rng.random((200, 1, 6, 1)) > 0.115
    crossed = rng.normal(size=(200, 6, 1, D)) + changed * rng.normal(
        size=(200, 1, 6, D)
    )
    strong = rng.normal(size=(200, 6, D))
    config = toy_config(comparisons=20, views=6, crops=6, photometrics=6)
    found = compare(clouds_of(rng, strong, crossed), config)
    left_out = np.isnan(found["spatial_photometric"].excess.values).sum()
    halves = changed[:, 0, :, 0].reshape(200, 2, 3)
    assert left_out == (~halves.any(axis=2)).any(axis=1).sum()
    assert set(found) == set(list(variability.COMPARISONS)[:3])


def test_a_collapsed_network_is_refused_with_the_comparison_and_the_count(rng, config):
    strong = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    strong[:9] = 1.5
    with pytest.raises(DataError, match=r"augmentation_.*constant.*collapsed"):
        compare(clouds_of(rng, strong), config)
