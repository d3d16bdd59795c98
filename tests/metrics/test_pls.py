import numpy as np
import pytest
from sklearn.cross_decomposition import PLSRegression

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.pls import kernel_pls
from ce_align.metrics.predictivity import brainscore_splits

pytestmark = pytest.mark.filterwarnings("ignore:Maximum number of iterations")


def features_and_responses(rng, n_stimuli=240, n_features=500, n_neuroids=20):
    """Rectified features and noisy neuroids that share latent causes."""
    latent = rng.standard_normal((n_stimuli, 60)) * np.arange(1, 61) ** -0.6
    features = latent @ rng.standard_normal((60, n_features))
    features += 0.3 * rng.standard_normal(features.shape)
    responses = latent @ rng.standard_normal((60, n_neuroids))
    responses += rng.standard_normal(responses.shape)
    gains = np.exp(rng.standard_normal(n_neuroids))
    return np.maximum(features, 0), gains * responses + 3


def sklearn_pls(features, responses, split, n_components=25, **options):
    train, test = split
    model = PLSRegression(n_components, scale=False, **options)
    model.fit(features[train], responses[train])
    return model, model.predict(features[test]).reshape(len(test), -1)


def least_squares(features, responses, split):
    train, test = split
    design = np.column_stack([features, np.ones(len(features))])
    weights = np.linalg.lstsq(design[train], responses[train], rcond=1e-10)[0]
    return design[test] @ weights


@pytest.mark.parametrize("n_neuroids", [1, 2, 20, 300])
def test_nipals_stops_and_predicts_as_scikit_learn(rng, n_neuroids):
    features, responses = features_and_responses(rng, n_neuroids=n_neuroids)
    splits = brainscore_splits(240, n_splits=3)
    fit = kernel_pls(centred_gram(features), responses, splits)
    for split, predicted, n_iter in zip(
        splits, fit.predictions, fit.n_iter, strict=True
    ):
        model, expected = sklearn_pls(features, responses, split)
        assert n_iter == tuple(model.n_iter_)
        np.testing.assert_allclose(predicted, expected, atol=1e-8)


def test_maximal_iterations_still_give_the_component_of_scikit_learn():
    # A case in which the 25th component meets the limit of 500 iterations.
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((400, 200)) * np.arange(1, 201) ** -0.6
    features = latent @ rng.standard_normal((200, 2000))
    features = (features + 0.5 * rng.standard_normal((400, 2000))).astype(np.float32)
    features = np.maximum(features, 0).astype(np.float64)
    responses = latent @ rng.standard_normal((200, 30))
    responses = responses * np.exp(rng.standard_normal(30))
    responses = responses + 1.5 * rng.standard_normal((400, 30)) + 3
    split = brainscore_splits(400)[6]
    model, expected = sklearn_pls(features, responses, split)
    fit = kernel_pls(centred_gram(features), responses, [split])
    assert max(model.n_iter_) == 500
    assert fit.n_iter[0] == tuple(model.n_iter_)
    np.testing.assert_allclose(fit.predictions[0], expected, atol=1e-8)


@pytest.mark.parametrize("n_neuroids", [1, 20])
def test_exact_mode_is_scikit_learn_at_convergence(rng, n_neuroids):
    features, responses = features_and_responses(rng, n_neuroids=n_neuroids)
    splits = brainscore_splits(240, n_splits=3)
    fit = kernel_pls(centred_gram(features), responses, splits, mode="exact")
    for split, predicted in zip(splits, fit.predictions, strict=True):
        _, expected = sklearn_pls(
            features, responses, split, tol=1e-14, max_iter=50_000
        )
        recorded = responses[split[1]]
        np.testing.assert_allclose(
            columnwise_pearson_r(predicted, recorded),
            columnwise_pearson_r(expected, recorded),
            atol=5e-7,
        )


def test_modes_differ_because_nipals_has_not_converged(rng):
    features, responses = features_and_responses(rng)
    splits = brainscore_splits(240, n_splits=1)
    gram = centred_gram(features)
    nipals, exact = (
        columnwise_pearson_r(
            kernel_pls(gram, responses, splits, mode=mode).predictions[0],
            responses[splits[0][1]],
        )
        for mode in ("nipals", "exact")
    )
    assert 1e-6 < np.abs(nipals - exact).max() < 0.05


@pytest.mark.parametrize("mode", ["nipals", "exact"])
@pytest.mark.parametrize("n_neuroids", [1, 4, 60])
@pytest.mark.parametrize("noise", [0.0, 1.0])
@pytest.mark.parametrize("n_stimuli", [80, 600])
def test_exhausted_features_give_least_squares(rng, mode, n_neuroids, noise, n_stimuli):
    latent = rng.standard_normal((n_stimuli, 8)) * np.logspace(0, -2, 8)
    features = latent @ rng.standard_normal((8, 90))
    responses = latent @ rng.standard_normal((8, n_neuroids))
    responses += noise * rng.standard_normal(responses.shape)
    splits = brainscore_splits(n_stimuli, n_splits=2)
    fit = kernel_pls(centred_gram(features), responses, splits, mode=mode)
    for split, predicted in zip(splits, fit.predictions, strict=True):
        expected = least_squares(latent, responses, split)
        np.testing.assert_allclose(predicted, expected, atol=1e-8)
    assert max(map(len, fit.n_iter)) <= 8


def test_exhausted_covariance_gives_least_squares(rng):
    # Uncorrelated features of equal variance: one component explains one neuroid.
    features = np.linalg.qr(rng.standard_normal((200, 60)))[0]
    responses = rng.standard_normal((200, 3))
    splits = brainscore_splits(200, n_splits=2)
    fit = kernel_pls(centred_gram(features), responses, splits, n_components=60)
    for split, predicted in zip(splits, fit.predictions, strict=True):
        expected = least_squares(features, responses, split)
        np.testing.assert_allclose(predicted, expected, atol=1e-5)
    assert max(map(len, fit.n_iter)) < 30


def test_exhausted_features_in_float32_give_least_squares(rng):
    latent = rng.standard_normal((300, 5))
    features = latent @ rng.standard_normal((5, 90))
    responses = latent @ rng.standard_normal((5, 4)) + rng.standard_normal((300, 4))
    splits = brainscore_splits(300, n_splits=2)
    gram = centred_gram(features, dtype="float32")
    fit = kernel_pls(gram, responses, splits, gram_dtype="float32")
    for split, predicted in zip(splits, fit.predictions, strict=True):
        expected = least_squares(latent, responses, split)
        np.testing.assert_allclose(predicted, expected, atol=1e-4)
    assert max(map(len, fit.n_iter)) == 5


def test_explained_responses_are_predicted_without_further_components(rng):
    features = rng.standard_normal((120, 6))
    responses = features @ rng.standard_normal((6, 3)) + 100
    splits = brainscore_splits(120, n_splits=2)
    fit = kernel_pls(centred_gram(features), responses, splits, n_components=20)
    for (_, test), predicted in zip(splits, fit.predictions, strict=True):
        np.testing.assert_allclose(predicted, responses[test], atol=1e-7)


def test_a_constant_neuroid_is_predicted_by_its_constant(rng):
    features, responses = features_and_responses(rng)
    responses[:, 0] = 1000.1
    responses[:, 7] = 0
    splits = brainscore_splits(240, n_splits=2)
    fit = kernel_pls(centred_gram(features), responses, splits)
    varying = np.delete(responses, [0, 7], axis=1)
    without = kernel_pls(centred_gram(features), varying, splits)
    for predicted, expected in zip(fit.predictions, without.predictions, strict=True):
        np.testing.assert_allclose(predicted[:, 0], 1000.1, atol=1e-9)
        np.testing.assert_allclose(predicted[:, 7], 0, atol=1e-9)
        np.testing.assert_allclose(
            np.delete(predicted, [0, 7], axis=1), expected, atol=1e-9
        )


def test_only_constant_neuroids_are_predicted_by_their_means(rng):
    features, responses = features_and_responses(rng, n_neuroids=3)
    responses[:] = [0.1, -7, 0]
    fit = kernel_pls(centred_gram(features), responses, brainscore_splits(240))
    assert set(map(len, fit.n_iter)) == {0}
    np.testing.assert_allclose(fit.predictions[0], responses[:24])


def test_splits_fit_in_lockstep_are_those_fit_alone(rng):
    features, responses = features_and_responses(rng)
    gram = centred_gram(features)
    splits = [
        *brainscore_splits(240, n_splits=2),
        *brainscore_splits(240, n_splits=1, train_size=0.2),
        (np.arange(0, 100), np.arange(150, 200)),
    ]
    together = kernel_pls(gram, responses, splits).predictions
    for split, predicted in zip(splits, together, strict=True):
        _, expected = sklearn_pls(features, responses, split)
        np.testing.assert_allclose(predicted, expected, atol=1e-7)


@pytest.mark.parametrize("factor", [1e-8, 1e8])
def test_predictions_scale_with_responses_and_not_with_features(rng, factor):
    features, responses = features_and_responses(rng)
    splits = brainscore_splits(240, n_splits=1)
    plain = kernel_pls(centred_gram(features), responses, splits)
    scaled = kernel_pls(centred_gram(features / factor), factor * responses, splits)
    assert scaled.n_iter == plain.n_iter
    np.testing.assert_allclose(
        scaled.predictions[0], factor * plain.predictions[0], rtol=1e-7
    )


def test_unknown_modes_and_impossible_components_are_refused(rng):
    features, responses = features_and_responses(rng)
    gram, splits = centred_gram(features), [(np.arange(20), np.arange(20, 40))]
    with pytest.raises(ConfigError, match="choose from"):
        kernel_pls(gram, responses, splits, mode="svd")
    with pytest.raises(ConfigError, match="at least 1"):
        kernel_pls(gram, responses, splits, n_components=0)
    with pytest.raises(DataError, match=r"20 components need .* than 20; take"):
        kernel_pls(gram, responses, splits, n_components=20)
