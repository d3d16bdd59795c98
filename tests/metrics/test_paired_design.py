"""The operator of paired features is the matrix that it stands for."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import RidgeCV
from sklearn.metrics import r2_score

from ce_align.errors import DataError
from ce_align.metrics import paired_design
from ce_align.metrics.paired_design import (
    PairedDesign,
    fit_least_squares,
    fit_ridge,
    image_splits,
    r2_effects,
    r2_scores,
)

quick = settings(max_examples=40, deadline=None)


@quick
@given(
    seed=st.integers(0, 2**32 - 1),
    n_images=st.integers(1, 8),
    n_rows=st.integers(1, 30),
    n_clean=st.integers(0, 5),
    n_features=st.integers(1, 5),
    block=st.sampled_from([1, 7, 4096]),
)
def test_operator_equals_its_matrix(seed, n_images, n_rows, n_clean, n_features, block):
    rng = np.random.default_rng(seed)
    clean = rng.normal(size=(n_images, n_clean)) + 3
    views = rng.normal(size=(n_rows, n_features)) - 1
    index = rng.integers(n_images, size=n_rows)
    full = np.hstack([clean[index], views])
    centred = full - full.mean(axis=0)
    right, left = rng.normal(size=(full.shape[1], 2)), rng.normal(size=(n_rows, 2))
    kept = paired_design.BLOCK_ROWS
    paired_design.BLOCK_ROWS = block
    try:
        design = PairedDesign(clean, views, index)
        np.testing.assert_allclose(design.mean, full.mean(axis=0), atol=1e-12)
        pairs = [
            (design.gram_of_features(np.float64), centred.T @ centred),
            (design.gram_of_rows(np.float64), centred @ centred.T),
            (design.times(right), centred @ right),
            (design.times(right, centred=False), full @ right),
            (design.transposed_times(left), centred.T @ left),
            (
                design.transposed_times(left, less=right),
                centred.T @ (left - centred @ right),
            ),
        ]
    finally:
        paired_design.BLOCK_ROWS = kept
    for ours, expected in pairs:
        np.testing.assert_allclose(ours, expected, atol=1e-10)


@pytest.mark.parametrize("shape", [(300, 20), (40, 60)])
def test_leave_one_out_errors_equal_scikit_learn(rng, shape):
    views = rng.normal(size=shape) * np.linspace(0.1, 3, shape[1]) + 5
    targets = views[:, :4] + rng.normal(size=(shape[0], 4))
    strengths = np.logspace(-1, 4, 11)
    design = PairedDesign(np.empty((1, 0)), views, np.zeros(shape[0], int))
    ours = fit_ridge(design, targets, strengths)
    theirs = RidgeCV(strengths, store_cv_results=True).fit(views, targets)
    np.testing.assert_allclose(
        ours.loo_errors, theirs.cv_results_.mean(axis=0).T, rtol=1e-9
    )
    np.testing.assert_allclose(ours.coefficients, theirs.coef_.T, atol=1e-11)


@pytest.mark.parametrize("shape", [(60, 8), (20, 30)])
def test_ridge_chooses_a_strength_for_all_or_for_each_as_scikit_learn_does(rng, shape):
    views = rng.normal(size=shape)
    targets = views[:, :3] + np.array([0.1, 1.0, 30.0]) * rng.normal(size=(shape[0], 3))
    design = PairedDesign(np.empty((1, 0)), views, np.zeros(shape[0], int))
    centred = views - views.mean(axis=0)
    strengths = np.sum(centred**2) / min(shape) * np.logspace(-6, 4, 20)
    for each in (False, True):
        ours = fit_ridge(design, targets, per_target=each)
        theirs = RidgeCV(strengths, alpha_per_target=each).fit(views, targets)
        np.testing.assert_allclose(ours.strengths, theirs.alpha_ * np.ones(3))
        np.testing.assert_allclose(ours.coefficients, theirs.coef_.T, atol=1e-9)
        np.testing.assert_allclose(ours.intercept, theirs.intercept_, atol=1e-9)
    assert len(set(ours.strengths)) > 1


def test_single_precision_chooses_the_same_and_is_refined(rng):
    views = 4 + rng.normal(size=(80, 10))
    targets = views[:, :2] + rng.normal(size=(80, 2))
    design = PairedDesign(np.empty((1, 0)), views, np.zeros(80, int))
    double = fit_ridge(design, targets, np.logspace(-1, 3, 5))
    single = fit_ridge(design, targets, np.logspace(-1, 3, 5), precision="single")
    np.testing.assert_array_equal(single.strengths, double.strengths)
    np.testing.assert_allclose(single.coefficients, double.coefficients, atol=1e-12)
    np.testing.assert_allclose(single.loo_errors, double.loo_errors, rtol=1e-4)
    assert not np.array_equal(single.loo_errors, double.loo_errors)


def test_single_precision_is_not_used_where_leverages_are_near_one(rng):
    views = rng.normal(size=(40, 60))
    targets = rng.normal(size=(40, 2))
    design = PairedDesign(np.empty((1, 0)), views, np.zeros(40, int))
    strengths = np.logspace(-4, 2, 5)
    double = fit_ridge(design, targets, strengths)
    single = fit_ridge(design, targets, strengths, precision="single")
    np.testing.assert_array_equal(single.coefficients, double.coefficients)


@pytest.mark.parametrize("mean", [0, 30, 300])
def test_least_squares_does_not_depend_on_how_single_precision_was_rounded(mean):
    """As two machines, or one and two threads, round the same responses."""
    rng = np.random.default_rng(0)
    n_images, n_views, d, k = 40, 20, 128, 20
    mixing = rng.normal(size=(k, d))
    content = rng.normal(size=(n_images, k))
    change = rng.normal(size=(n_images * n_views, k))
    index = np.repeat(np.arange(n_images), n_views)
    # Twenty axes say something; the other 108 hold rounding alone.
    clean, views = content @ mixing + mean, (content[index] + change) @ mixing + mean
    targets = change[:, :3] + 0.5 * rng.normal(size=(len(change), 3))

    def predicted(seed):
        noise = np.random.default_rng(seed)
        rounded = [
            np.float32(x * (1 + 1e-7 * noise.normal(size=x.shape)))
            for x in (clean, views)
        ]
        design = PairedDesign(*rounded, index)
        return fit_least_squares(design, targets).predict(design)

    known = np.hstack([content[index], change, np.ones((len(change), 1))])
    expected = known @ np.linalg.lstsq(known, targets, rcond=None)[0]
    for seed in range(3):
        np.testing.assert_allclose(predicted(seed), expected, atol=2e-4)
    np.testing.assert_allclose(predicted(0), predicted(1), atol=2e-4)


def test_small_directions_of_exact_responses_are_fitted():
    rng = np.random.default_rng(1)
    views = rng.normal(size=(200, 6)) * np.logspace(0, -4, 6)
    index = np.zeros(200, dtype=np.intp)
    targets = views @ np.diag(1 / np.logspace(0, -4, 6))
    for values in (views, np.float32(views)):
        design = PairedDesign(np.zeros((1, 0)), values, index)
        found = fit_least_squares(design, targets).predict(design)
        np.testing.assert_allclose(found, targets, atol=1e-4)


@given(st.integers(2, 60), st.floats(0.05, 0.5), st.integers(0, 2**32 - 1))
def test_splits_part_all_images_at_random(n_images, fraction, seed):
    splits = image_splits(n_images, 5, fraction, np.random.default_rng(seed))
    again = image_splits(n_images, 5, fraction, np.random.default_rng(seed))
    assert len(splits) == 5
    for (train, test), (train_again, _) in zip(splits, again, strict=True):
        assert sorted([*train, *test]) == list(range(n_images))
        assert len(test) == np.ceil(n_images * fraction)
        np.testing.assert_array_equal(train, train_again)


def test_splits_differ_between_runs(rng):
    splits = image_splits(100, 5, 0.2, rng)
    assert len({tuple(test) for _, test in splits}) == 5


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_split_that_leaves_one_side_empty_is_refused(rng, fraction):
    with pytest.raises(DataError, match="cannot hold out"):
        image_splits(10, 5, fraction, rng)


def test_r2_equals_scikit_learn_and_is_undefined_for_constants(rng):
    observed, predicted = rng.normal(size=(2, 30, 4))
    expected = r2_score(observed, predicted, multioutput="raw_values")
    observed[:, 2] = 0.1
    scores = r2_scores(observed, predicted)
    np.testing.assert_allclose(np.delete(scores, 2), np.delete(expected, 2))
    assert np.isnan(scores[2])


def test_effects_on_r2_are_those_of_counting_an_image_a_little_more(rng):
    image = np.repeat(np.arange(2, 12), 5)
    observed = rng.normal(size=(50, 3)) + rng.normal(size=(14, 3))[image]
    predicted = observed + 0.5 * rng.normal(size=(50, 3))
    effects = r2_effects(observed, predicted, image, 14)
    assert effects.shape == (14, 3)
    np.testing.assert_allclose(effects.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_array_equal(effects[[0, 1, 12, 13]], 0)
    scale = np.sqrt(10 / 9)
    for k in (2, 7):
        more = np.where(image == k, 1 + 1e-6, 1.0)
        expected = [
            r2_score(observed, predicted, sample_weight=w, multioutput="raw_values")
            for w in (more, np.ones(50))
        ]
        slope = (expected[0] - expected[1]) / 1e-6
        np.testing.assert_allclose(effects[k], scale * slope, atol=1e-5)
    observed[:, 1] = 0.2
    effects = r2_effects(observed, predicted, image, 14)
    assert np.isnan(effects[:, 1]).all()
    assert np.isfinite(effects[:, [0, 2]]).all()
