"""Factorization, invariance and dimension of toy networks, as on paper."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.metrics.bures import squared_bures_distance
from ce_align.metrics.factorization import (
    expand_parameters,
    factorization,
    participation_ratio,
    steerability,
)

CONTENT = np.vstack([np.eye(8), -np.eye(8)])  # 16 images, 8 equal dimensions
CHANGES = np.vstack([np.eye(4), -np.eye(4)])  # 8 views that cancel in the mean


def toy_network(change_axes, n_features=12, size=0.5):
    """Content in dimensions 0–7, the changes along the given axes."""
    content = np.zeros((16, n_features))
    content[:, :8] = CONTENT
    change = np.zeros((8, n_features))
    change[:, change_axes] = size * CHANGES
    return content[:, None] + change


def test_changes_apart_from_content_are_factorized():
    result = factorization(toy_network([8, 9, 10, 11]))
    assert result.factorization == pytest.approx(1)
    assert result.content_dimension == 8


def test_changes_within_content_are_not_factorized():
    assert factorization(toy_network([0, 1, 2, 3])).factorization == pytest.approx(0)


def test_half_of_the_changes_within_content_factorize_by_half():
    assert factorization(toy_network([0, 1, 8, 9])).factorization == pytest.approx(0.5)


@pytest.mark.parametrize("axes", [[0, 1, 2, 3], [8, 9, 10, 11]])
def test_invariance_compares_sizes_wherever_the_changes_lie(axes):
    result = factorization(toy_network(axes, size=0.5))
    # Unit vectors: 16 images with one square each, 8 views with a quarter each.
    assert result.content_variance == pytest.approx(16 / 15)
    assert result.transformation_variance == pytest.approx(8 * 0.25 / 7)
    assert result.invariance == pytest.approx(1 - (2 / 7) / (16 / 15))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_invariant_network_has_invariance_one_and_no_factorization(rng, dtype):
    content = (rng.normal(size=(20, 30)) + 3).astype(dtype)
    same = np.repeat(content[:, None], 5, axis=1)
    result = factorization(same)
    assert result.invariance == pytest.approx(1, abs=1e-10)
    assert np.isnan(result.factorization)


def test_content_subspace_is_the_smallest_that_holds_its_share():
    spread = np.sqrt([50.0, 30, 15, 5])
    means = np.vstack([np.diag(spread), -np.diag(spread)])
    responses = means[:, None] + 1e-3 * np.vstack([np.eye(4), -np.eye(4)])
    for share, dimension in [(0.5, 1), (0.79, 2), (0.9, 3), (0.96, 4)]:
        result = factorization(responses, share)
        assert result.content_dimension == dimension
        # The changes have equal size along all four axes.
        assert result.factorization == pytest.approx(1 - dimension / 4)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.01, 100))
def test_factorization_ignores_rotation_translation_and_scale(seed, scale):
    rng = np.random.default_rng(seed)
    responses = rng.normal(size=(6, 5, 7)) + 2 * rng.normal(size=(6, 1, 7))
    rotation = np.linalg.qr(rng.normal(size=(7, 7)))[0]
    one = factorization(responses)
    other = factorization(scale * (responses @ rotation + rng.normal(size=7)))
    assert 0 <= one.factorization <= 1
    assert other.factorization == pytest.approx(one.factorization, abs=1e-9)
    assert other.invariance == pytest.approx(one.invariance, abs=1e-9)


def test_clouds_of_toy_networks_lie_as_far_apart_as_on_paper():
    # Equal displacements for all images: clouds of one shape. Displacements of each
    # image along its own axes: orthogonal clouds.
    equal = toy_network([8, 9, 10, 11])
    assert squared_bures_distance(equal[0], equal[5]) < 1e-20
    own = toy_network([8, 9, 10, 11], 16)[0], toy_network([12, 13, 14, 15], 16)[0]
    assert squared_bures_distance(*own) == pytest.approx(2)
    half = toy_network([8, 9, 10, 11], 16)[0], toy_network([10, 11, 12, 13], 16)[0]
    assert squared_bures_distance(*half) == pytest.approx(1)


def test_participation_ratio_is_trace_squared_over_trace_of_square(rng):
    for n_points, n_features in [(50, 8), (8, 50)]:
        cloud = rng.normal(size=(n_points, n_features)) * rng.lognormal(size=n_features)
        covariance = np.cov(cloud.T)
        expected = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
        assert participation_ratio(cloud + 7) == pytest.approx(expected)


def test_participation_ratio_counts_equal_axes():
    assert participation_ratio(CONTENT) == pytest.approx(8)
    assert participation_ratio(np.outer(np.arange(5), np.ones(9))) == pytest.approx(1)


def test_impossible_responses_are_refused(rng):
    good = rng.normal(size=(4, 3, 5))
    bad = [
        (good[0], "n_images ≥ 2"),
        (good[:, :1], "n_views ≥ 2"),
        (np.where(good == good[0, 0, 0], np.nan, good), "1 NaN"),
        (np.repeat(good[:1], 4, axis=0), "equal mean responses"),
    ]
    for responses, message in bad:
        with pytest.raises(DataError, match=message):
            factorization(responses)
    with pytest.raises(DataError, match="between 0 and 1"):
        factorization(good, 1.0)
    with pytest.raises(DataError, match="is constant"):
        participation_ratio(np.ones((5, 4)))


N_IMAGES, N_DRAWS, N_FEATURES = 60, 25, 10
INDEX = np.repeat(np.arange(N_IMAGES), N_DRAWS)
DRAW = np.tile(np.arange(N_DRAWS), N_IMAGES)
SPLIT = {"train_images": np.arange(40), "test_images": np.arange(40, 60)}


@pytest.fixture
def clean(rng):
    return rng.normal(size=(N_IMAGES, N_FEATURES)) + 3


@pytest.fixture
def theta(rng):
    """Two parameters of each of the draws, which all images share."""
    return rng.normal(size=(N_DRAWS, 2))


def measured(clean, displacement, theta, **change):
    arguments = {
        "image_index": INDEX, "parameters": theta[DRAW], "transformation": DRAW,
        **SPLIT, **change,
    }  # fmt: skip
    return steerability(clean, clean[INDEX] + displacement, **arguments)


def test_displacements_quadratic_in_the_parameters_are_fully_predicted(
    rng, clean, theta
):
    terms = np.column_stack([theta, theta**2, theta[:, 0] * theta[:, 1]])
    displacement = (terms @ rng.normal(size=(5, N_FEATURES)))[DRAW]
    result = measured(clean, displacement, theta)
    assert result.by_parameters == pytest.approx(1, abs=1e-6)
    assert result.by_transformation == pytest.approx(1, abs=1e-10)


def test_displacements_unrelated_to_the_parameters_need_the_transformation(
    rng, clean, theta
):
    displacement = rng.normal(size=(N_DRAWS, N_FEATURES))[DRAW]
    result = measured(clean, displacement, rng.normal(size=(N_DRAWS, 1)))
    assert result.by_transformation == pytest.approx(1, abs=1e-10)
    assert result.by_parameters < 0.4  # three coefficients for 25 draws


def test_displacements_of_single_images_lower_steerability_as_on_paper(rng, theta):
    # Shared variance 1 and own variance 1 a feature; the mean over m training images
    # keeps 1 / m of the own variance: 1 − (1 + 1/m) / (1 + 1).
    n_images, n_draws = 400, 100
    index = np.repeat(np.arange(n_images), n_draws)
    draw = np.tile(np.arange(n_draws), n_images)
    clean = rng.normal(size=(n_images, N_FEATURES))
    shared = rng.normal(size=(n_draws, N_FEATURES))
    shared = (shared - shared.mean(axis=0)) / shared.std(axis=0)
    views = clean[index] + shared[draw] + rng.normal(size=(len(index), N_FEATURES))
    result = steerability(
        clean, views, index, rng.normal(size=(len(index), 1)), draw,
        train_images=np.arange(20), test_images=np.arange(20, 400),
    )  # fmt: skip
    assert result.by_transformation == pytest.approx(1 - (1 + 1 / 20) / 2, abs=0.01)
    assert result.by_parameters == pytest.approx(0, abs=0.02)
    assert result.displacement_share == pytest.approx(2, rel=0.1)


def test_displacements_that_depend_on_the_image_alone_are_not_steerable(
    rng, clean, theta
):
    displacement = rng.normal(size=(N_IMAGES, N_FEATURES))[INDEX]
    result = measured(clean, displacement, theta)
    assert result.by_transformation == pytest.approx(0, abs=1e-9)
    assert result.by_parameters == pytest.approx(0, abs=0.01)


def test_invariant_network_has_nothing_to_steer(clean, theta):
    for features in (clean, clean.astype(np.float32)):
        result = measured(features, 0, theta)
        assert np.isnan(result.by_parameters)
        assert np.isnan(result.by_transformation)
        assert result.displacement_share == 0
        assert not result.effects["displacement_share"].any()


def test_parameters_that_stand_still_predict_the_mean_displacement(rng, clean):
    displacement = rng.normal(size=(N_DRAWS, N_FEATURES))[DRAW]
    result = measured(clean, displacement, np.ones((N_DRAWS, 2)))
    assert result.by_parameters == pytest.approx(0, abs=1e-12)


def test_effects_are_of_held_out_combinations_and_sum_to_zero(rng, clean, theta):
    displacement = (
        rng.normal(size=(len(INDEX), N_FEATURES))
        * rng.lognormal(size=N_IMAGES)[INDEX][:, None]
    )
    result = measured(clean, displacement, theta)
    for name, effects in result.effects.items():
        assert effects.shape == (N_IMAGES, N_DRAWS)
        assert effects.sum() == pytest.approx(0, abs=1e-10), name
    by_draw = result.effects["by_transformation"]
    assert not by_draw[:40].any()
    moved = displacement.reshape(N_IMAGES, N_DRAWS, N_FEATURES)
    mean = moved[:40].mean(axis=0)
    lost = np.sum((moved[40:] - mean) ** 2, axis=(1, 2))
    spread = np.sum((moved[40:] - moved[:40].mean(axis=(0, 1))) ** 2, axis=(1, 2))
    expected = (spread * lost.sum() / spread.sum() - lost) / spread.sum()
    np.testing.assert_allclose(by_draw[40:].sum(axis=1), expected, atol=1e-10)


def test_effects_on_the_share_are_those_of_counting_an_image_a_little_more(
    rng, clean, theta
):
    displacement = rng.normal(size=(len(INDEX), N_FEATURES))
    result = measured(clean, displacement, theta)
    moved = displacement - displacement[INDEX < 40].mean(axis=0)
    moved = np.sum(moved**2, axis=1).reshape(N_IMAGES, N_DRAWS).mean(axis=1)
    content = np.sum((clean - clean.mean(axis=0)) ** 2, axis=1)

    def share(weight):
        held_out = np.average(moved[40:], weights=weight[40:])
        return held_out / np.average(content, weights=weight)

    once = np.ones(N_IMAGES)
    assert result.displacement_share == pytest.approx(share(once))
    effects = result.effects["displacement_share"].sum(axis=1)
    for image in (3, 50):
        more = once + 1e-6 * (np.arange(N_IMAGES) == image)
        slope = (share(more) - share(once)) / 1e-6
        assert effects[image] == pytest.approx(slope, rel=1e-4)


def test_expansion_has_squares_and_products_with_the_training_scale(rng):
    reference, values = (
        rng.normal(size=(50, 3)) * [1, 5, 0] + 2,
        rng.normal(size=(4, 3)),
    )
    expanded = expand_parameters(reference)
    assert expanded.shape == (50, 9)
    np.testing.assert_allclose(expanded.mean(axis=0), 0, atol=1e-12)
    varied = [0, 1, 3, 4, 6]  # all terms without the constant third parameter
    np.testing.assert_allclose(expanded[:, varied].std(axis=0), 1)
    np.testing.assert_array_equal(np.delete(expanded, varied, axis=1), 0)
    z = (values - reference.mean(axis=0))[:, :2] / reference.std(axis=0)[:2]
    reference_z = expanded[:, :2]
    product = reference_z[:, 0] * reference_z[:, 1]
    expected = (z[:, 0] * z[:, 1] - product.mean()) / product.std()
    np.testing.assert_allclose(expand_parameters(values, reference)[:, 4], expected)


def test_impossible_input_is_refused(rng, clean, theta):
    displacement = rng.normal(size=(len(INDEX), N_FEATURES))
    new_draws = np.where(INDEX >= 40, DRAW + 100, DRAW)
    bad = [
        ({"transformation": new_draws}, "25 transformations of held-out images"),
        ({"transformation": DRAW[:-1]}, "1500 rows"),
        ({"parameters": theta}, "1500 rows"),
        ({"train_images": np.arange(45)}, "5 images are both"),
        ({"parameters": np.full((1500, 1), np.nan)}, "1500 NaN"),
    ]
    for change, message in bad:
        with pytest.raises(DataError, match=message):
            measured(clean, displacement, theta, **change)
    with pytest.raises(DataError, match="all responses are the same"):
        measured(np.ones_like(clean), displacement, theta)
