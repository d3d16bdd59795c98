import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge, RidgeCV

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.predictivity import brainscore_splits
from ce_align.metrics.ridge import kernel_ridge, leave_one_out_alphas


def planted(rng, n_stimuli, n_features, n_neuroids=6, noise=2.0):
    features = rng.standard_normal((n_stimuli, n_features)) + 5
    weights = rng.standard_normal((n_features, n_neuroids)) / np.sqrt(n_features)
    responses = features @ weights
    return features, responses + noise * rng.standard_normal(responses.shape)


@pytest.mark.parametrize("shape", [(150, 40), (150, 400)])
@pytest.mark.parametrize("alpha", [1e-2, 1.0, 1e4])
def test_one_strength_is_scikit_learns_ridge(rng, shape, alpha):
    features, responses = planted(rng, *shape)
    splits = brainscore_splits(shape[0], n_splits=3)
    fit = kernel_ridge(centred_gram(features), responses, splits, alphas=[alpha])
    for (train, test), predicted in zip(splits, fit.predictions, strict=True):
        model = Ridge(alpha).fit(features[train], responses[train])
        np.testing.assert_allclose(predicted, model.predict(features[test]), atol=1e-8)


def same_where_tried(found, expected, rtol):
    """Strengths that were not tried are the strongest, and worse than the best."""
    tried = np.isfinite(found)
    np.testing.assert_allclose(found[tried], expected[tried], rtol=rtol)
    assert (np.diff(tried.astype(int)) <= 0).all()
    assert (expected[~tried] > expected.min()).all()


@pytest.mark.parametrize("shape", [(150, 40), (150, 400), (60, 90, 200)])
def test_leave_one_out_errors_are_those_of_ridgecv(rng, shape):
    features, responses = planted(rng, *shape)
    splits = brainscore_splits(shape[0], n_splits=3)
    alphas = np.logspace(-2, 5, 22)
    fit = kernel_ridge(centred_gram(features), responses, splits, alphas=alphas)
    for split, (train, test) in enumerate(splits):
        model = RidgeCV(alphas, store_cv_results=True)
        model.fit(features[train], responses[train])
        assert fit.alphas[split, 0] == model.alpha_
        expected = model.cv_results_.mean(axis=(0, 1))
        same_where_tried(fit.squared_errors[split, 0], expected, rtol=1e-11)
        np.testing.assert_allclose(
            fit.predictions[split], model.predict(features[test]), atol=1e-9
        )


@pytest.mark.parametrize("n_neuroids", [9, 200])
def test_groups_are_fitted_as_if_alone(rng, n_neuroids):
    features, responses = planted(rng, 60, 90, n_neuroids)
    group = np.arange(n_neuroids) % 3
    responses += 30 * (group == 1) * rng.standard_normal(responses.shape)
    splits, gram = brainscore_splits(60, n_splits=3), centred_gram(features)
    members = [np.flatnonzero(group == i) for i in range(3)]
    alphas = np.logspace(-2, 5, 22)
    fit = kernel_ridge(gram, responses, splits, alphas=alphas, groups=members)
    assert len(np.unique(fit.alphas[0])) > 1
    for i, places in enumerate(members):
        alone = kernel_ridge(gram, responses[:, places], splits, alphas=alphas)
        np.testing.assert_array_equal(fit.alphas[:, [i]], alone.alphas)
        tried = np.isfinite(alone.squared_errors)
        found = np.where(tried, fit.squared_errors[:, [i]], np.inf)
        np.testing.assert_allclose(found, alone.squared_errors, rtol=1e-10)
        for found, expected in zip(fit.predictions, alone.predictions, strict=True):
            np.testing.assert_allclose(found[:, places], expected, atol=1e-9)


@pytest.mark.parametrize("shape", [(90, 40), (90, 400), (60, 90, 200)])
def test_a_single_split_is_one_of_several(rng, shape):
    """Its strengths come from an eigendecomposition, theirs from inverses."""
    features, responses = planted(rng, *shape)
    gram, splits = centred_gram(features), brainscore_splits(shape[0], n_splits=3)
    alphas = np.logspace(-2, 5, 22)
    several = kernel_ridge(gram, responses, splits, alphas=alphas)
    for split in range(3):
        alone = kernel_ridge(gram, responses, splits[split : split + 1], alphas=alphas)
        np.testing.assert_array_equal(alone.alphas[0], several.alphas[split])
        tried = np.isfinite(alone.squared_errors[0])
        found = np.where(tried, several.squared_errors[split], np.inf)
        np.testing.assert_allclose(alone.squared_errors[0], found, rtol=1e-8)
        np.testing.assert_allclose(
            alone.predictions[0], several.predictions[split], atol=1e-8
        )


@pytest.mark.parametrize("reverse", [False, True])
def test_strengths_too_strong_to_be_the_best_are_not_tried(rng, reverse):
    features, responses = planted(rng, 60, 10)
    gram, splits = centred_gram(features), brainscore_splits(60, n_splits=3)
    weak = np.logspace(-3, 2, 6)
    alphas = np.append(weak, np.logspace(6, 9, 4))[:: -1 if reverse else 1]
    fit = kernel_ridge(gram, responses, splits, alphas=alphas)
    known = kernel_ridge(gram, responses, splits, alphas=weak)
    tried = np.isfinite(fit.squared_errors)
    assert tried[:, :, alphas < 1e3].all()
    assert not tried[:, :, alphas > 1e6].any()
    np.testing.assert_array_equal(fit.alphas, known.alphas)
    np.testing.assert_array_equal(fit.predictions, known.predictions)


def test_leave_one_out_errors_are_those_of_leaving_each_out(rng):
    features, responses = planted(rng, 24, 30, 3)
    train, test = np.arange(20), np.arange(20, 24)
    gram = centred_gram(features)
    fit = kernel_ridge(gram, responses, [(train, test)], alphas=[3.0, 0.5])
    for alpha, squared_error in zip([3.0, 0.5], fit.squared_errors[0, 0], strict=True):
        errors = []
        for left_out in train:
            rest = np.delete(train, left_out)
            model = Ridge(alpha).fit(features[rest], responses[rest])
            errors.append(responses[left_out] - model.predict(features[[left_out]])[0])
        assert squared_error == pytest.approx(np.mean(np.square(errors)), rel=1e-10)


@settings(max_examples=25, deadline=None)
@given(
    n_stimuli=st.integers(12, 40),
    n_features=st.integers(1, 60),
    n_neuroids=st.integers(1, 4),
    exponent=st.integers(-2, 4),
    train_size=st.sampled_from([0.2, 0.5, 0.9]),
    seed=st.integers(0, 1000),
)
def test_ridge_is_scikit_learns_for_any_shape(
    n_stimuli, n_features, n_neuroids, exponent, train_size, seed
):
    rng = np.random.default_rng(seed)
    features, responses = planted(rng, n_stimuli, n_features, n_neuroids)
    splits = brainscore_splits(n_stimuli, n_splits=2, train_size=train_size)
    alpha = 10.0**exponent
    fit = kernel_ridge(centred_gram(features), responses, splits, alphas=[alpha])
    for (train, test), predicted in zip(splits, fit.predictions, strict=True):
        model = Ridge(alpha).fit(features[train], responses[train])
        expected = model.predict(features[test]).reshape(predicted.shape)
        np.testing.assert_allclose(predicted, expected, atol=1e-7)


@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_strengths_to_choose_from_follow_the_scale_of_features(rng, factor):
    features, responses = planted(rng, 120, 300)
    splits = brainscore_splits(120, n_splits=2)
    fits = []
    for scaled in (features, factor * features):
        gram = centred_gram(scaled)
        alphas = leave_one_out_alphas(gram)
        fits.append(kernel_ridge(gram, responses, splits, alphas=alphas))
    np.testing.assert_allclose(fits[1].alphas, factor**2 * fits[0].alphas)
    np.testing.assert_allclose(fits[1].predictions[0], fits[0].predictions[0])


def test_strengths_to_choose_from_hold_the_best_one(rng):
    features, responses = planted(rng, 200, 400, noise=1.0)
    gram = centred_gram(features)
    alphas = leave_one_out_alphas(gram)
    fit = kernel_ridge(gram, responses, brainscore_splits(200), alphas=alphas)
    assert (fit.alphas > alphas[0]).all()
    assert (fit.alphas < alphas[-1]).all()


@pytest.mark.parametrize(
    "alphas", [[], [0.0], [-1.0], [1.0, np.nan], [np.inf], [[1.0]]]
)
def test_impossible_strengths_are_refused(rng, alphas):
    features, responses = planted(rng, 30, 10)
    with pytest.raises(ConfigError, match="ridge strengths must be"):
        kernel_ridge(
            centred_gram(features), responses, brainscore_splits(30), alphas=alphas
        )


def test_strengths_lost_in_rounding_are_not_chosen(rng):
    features, responses = planted(rng, 60, 5)
    gram, splits = centred_gram(features * 1e6), brainscore_splits(60)
    fit = kernel_ridge(gram, responses, splits, alphas=[1e-9, 1e12])
    np.testing.assert_array_equal(fit.alphas, 1e12)
    assert np.isinf(fit.squared_errors[:, 0, 0]).all()


def test_strengths_lost_in_rounding_are_refused(rng):
    features, responses = planted(rng, 60, 5)
    gram = centred_gram(features * 1e6)
    with pytest.raises(DataError, match="lost in the rounding"):
        kernel_ridge(gram, responses, brainscore_splits(60), alphas=[1e-9])
