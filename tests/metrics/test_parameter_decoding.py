"""Decoding augmentation parameters: equal to scikit-learn, right on toy networks."""

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, RidgeCV
from sklearn.metrics import r2_score

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.parameter_decoding import decode_parameters

N_IMAGES, N_VIEWS = 40, 12
TRAIN, TEST = np.arange(30), np.arange(30, 40)


def toy(rng, n_features=16, noise=0.4):
    """Content, and displacements that are linear in three parameters plus noise."""
    clean = rng.normal(size=(N_IMAGES, n_features)) + 2
    index = rng.permutation(np.repeat(np.arange(N_IMAGES), N_VIEWS))
    parameters = rng.normal(size=(len(index), 3)) * [1, 10, 0.1] + [5, 0, 1]
    readout = rng.normal(size=(3, n_features)) / np.array([[1], [10], [0.1]])
    views = clean[index] + parameters @ readout
    views += noise * rng.normal(size=views.shape)
    return clean, views, index, parameters


def rows(clean, views, index, images):
    mask = np.isin(index, images)
    return np.hstack([clean[index[mask]], views[mask]]), mask


@pytest.mark.parametrize("n_features", [16, 70, 300])
def test_ridge_decoding_equals_scikit_learn(rng, n_features):
    clean, views, index, parameters = toy(rng, n_features)
    strengths = np.logspace(-2, 4, 13)
    ours = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST,
        method="ridge", strengths=strengths,
    )  # fmt: skip
    train, in_train = rows(clean, views, index, TRAIN)
    test, in_test = rows(clean, views, index, TEST)
    mean, scale = parameters[in_train].mean(axis=0), parameters[in_train].std(axis=0)
    targets = (parameters - mean) / scale
    theirs = RidgeCV(strengths).fit(train, targets[in_train])
    expected = r2_score(
        targets[in_test], theirs.predict(test), multioutput="raw_values"
    )
    assert ours.strengths == pytest.approx(theirs.alpha_)
    np.testing.assert_allclose(ours.r2["all"], expected, atol=1e-9)
    assert ours.mean_r2() == pytest.approx(
        r2_score(targets[in_test], theirs.predict(test), multioutput="uniform_average")
    )


def test_least_squares_decoding_equals_scikit_learn(rng):
    clean, views, index, parameters = toy(rng)
    ours = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST
    )
    train, in_train = rows(clean, views, index, TRAIN)
    test, in_test = rows(clean, views, index, TEST)
    theirs = LinearRegression().fit(train, parameters[in_train])
    expected = r2_score(
        parameters[in_test], theirs.predict(test), multioutput="raw_values"
    )
    np.testing.assert_allclose(ours.r2["all"], expected, atol=1e-10)
    assert (ours.n_train_views, ours.n_test_views) == (360, 120)


@pytest.mark.parametrize("n_features", [60, 300])
def test_least_squares_of_deficient_designs_has_minimum_norm(rng, n_features):
    # 30 training images span at most 29 of the clean dimensions; with 300 features
    # there are also fewer views than columns.
    clean, views, index, parameters = toy(rng, n_features)
    ours = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST
    )
    train, in_train = rows(clean, views, index, TRAIN)
    test, in_test = rows(clean, views, index, TEST)
    centre = train.mean(axis=0)
    targets = parameters[in_train] - parameters[in_train].mean(axis=0)
    weights = np.linalg.pinv(train - centre, rcond=1e-10) @ targets
    predicted = (test - centre) @ weights + parameters[in_train].mean(axis=0)
    expected = r2_score(parameters[in_test], predicted, multioutput="raw_values")
    np.testing.assert_allclose(ours.r2["all"], expected, atol=1e-9)


def test_equivariant_displacements_are_decoded_and_invariant_ones_are_not(rng):
    clean, views, index, parameters = toy(rng, noise=0)
    options = {"train_images": TRAIN, "test_images": TEST, "method": "ridge"}
    exact = decode_parameters(clean, views, index, parameters, **options)
    np.testing.assert_allclose(exact.r2["all"], 1, atol=1e-6)
    still = decode_parameters(clean, clean[index], index, parameters, **options)
    assert np.all(still.r2["all"] < 0.02)


def test_decoding_of_noisy_displacements_has_the_r2_that_follows_on_paper(rng):
    # One feature carries θ + noise beside the clean value: R² = 1 / (1 + noise²).
    clean = rng.normal(size=(400, 1))
    index = np.repeat(np.arange(400), 50)
    parameters = rng.normal(size=(len(index), 1))
    views = clean[index] + parameters + 0.5 * rng.normal(size=(len(index), 1))
    result = decode_parameters(
        clean, views, index, parameters,
        train_images=np.arange(200), test_images=np.arange(200, 400),
    )  # fmt: skip
    assert result.mean_r2() == pytest.approx(1 / 1.25, abs=0.015)


def test_parameter_that_never_varies_is_named_and_left_out(rng):
    clean, views, index, parameters = toy(rng)
    parameters[:, 1] = 0.3
    result = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST,
        method="ridge", names=["hue", "solarise", "blur"],
    )  # fmt: skip
    undefined = np.isnan(result.r2["all"])
    assert np.compress(undefined, result.names) == ["solarise"]
    assert np.isnan(result.strengths[1])
    assert result.mean_r2() == pytest.approx(result.r2["all"][[0, 2]].mean())


def test_effects_on_the_mean_are_means_of_effects(rng):
    clean, views, index, parameters = toy(rng)
    parameters[:, 1] = 0.3
    weak = parameters[:, 0] < 5
    result = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST,
        subsets={"weak": weak},
    )  # fmt: skip
    for name in ("all", "weak"):
        effects = result.mean_effects(name)
        assert effects.shape == (len(clean),)
        expected = (result.effects[name][:, 0] + result.effects[name][:, 2]) / 2
        np.testing.assert_allclose(effects, expected)
    assert (result.mean_effects()[TRAIN] == 0).all()
    still = decode_parameters(
        clean, views, index, 0 * parameters, train_images=TRAIN, test_images=TEST
    )
    assert np.isnan(still.mean_effects()).all()


def test_parameters_that_all_stand_still_leave_nothing_to_decode(rng):
    clean, views, index, parameters = toy(rng)
    result = decode_parameters(
        clean, views, index, 0 * parameters, train_images=TRAIN, test_images=TEST
    )
    assert np.isnan(result.mean_r2())
    assert np.isnan(result.r2["all"]).all()
    assert len(result.names) == 3


def test_subset_is_scored_after_training_on_every_view(rng):
    clean, views, index, parameters = toy(rng)
    weak = parameters[:, 0] < 5
    parameters[weak, 2] = 1.0
    result = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST,
        subsets={"weak": weak, "strong": ~weak},
    )  # fmt: skip
    train, in_train = rows(clean, views, index, TRAIN)
    test, in_test = rows(clean, views, index, TEST)
    predicted = LinearRegression().fit(train, parameters[in_train]).predict(test)
    for name, mask in {"weak": weak, "strong": ~weak}.items():
        expected = r2_score(
            parameters[in_test][mask[in_test]],
            predicted[mask[in_test]],
            multioutput="raw_values",
        )
        defined = [0, 1] if name == "weak" else [0, 1, 2]
        np.testing.assert_allclose(result.r2[name][defined], expected[defined])
    assert list(np.isnan(result.r2["weak"])) == [False, False, True]
    assert not np.isnan(result.r2["strong"]).any()


def test_single_precision_decodes_as_well_as_double(rng):
    clean, views, index, parameters = toy(rng)
    options = {"train_images": TRAIN, "test_images": TEST, "method": "ridge"}
    double = decode_parameters(clean, views, index, parameters, **options)
    single = decode_parameters(
        clean.astype(np.float32), views.astype(np.float32), index, parameters,
        precision="single", **options,
    )  # fmt: skip
    np.testing.assert_allclose(single.r2["all"], double.r2["all"], atol=1e-5)


def test_each_parameter_may_have_its_own_strength(rng):
    clean, views, index, parameters = toy(rng, noise=3.0)
    parameters[:, 2] = rng.normal(size=len(parameters))  # cannot be decoded
    strengths = np.logspace(-2, 8, 21)
    result = decode_parameters(
        clean, views, index, parameters, train_images=TRAIN, test_images=TEST,
        method="ridge", strengths=strengths, per_parameter=True,
    )  # fmt: skip
    train, in_train = rows(clean, views, index, TRAIN)
    z = parameters[in_train]
    z = (z - z.mean(axis=0)) / z.std(axis=0)
    theirs = RidgeCV(strengths, alpha_per_target=True).fit(train, z)
    np.testing.assert_allclose(result.strengths, theirs.alpha_)
    assert result.strengths[2] > result.strengths[0]


def test_impossible_input_is_refused(rng):
    clean, views, index, parameters = toy(rng)
    good = {
        "clean": clean, "views": views, "image_index": index,
        "parameters": parameters, "train_images": TRAIN, "test_images": TEST,
    }  # fmt: skip
    with_nan = np.where(np.eye(*parameters.shape) > 0, np.nan, parameters)
    bad = [
        ({"train_images": np.arange(35)}, "5 images are both"),
        ({"test_images": [41]}, "rows 0 … 39"),
        ({"test_images": []}, "2 views or more"),
        ({"image_index": index[:-1]}, "480 integers"),
        ({"image_index": index + 1}, "0 … 39"),
        ({"views": views[:, :-1]}, "same features"),
        ({"parameters": parameters[:-1]}, "480 views"),
        ({"parameters": with_nan}, "3 NaN"),
        ({"clean": np.where(clean == clean[0, 0], np.inf, clean)}, "clean has 1 NaN"),
        ({"names": ["a", "b"]}, "expected 3 names"),
        ({"names": ["a", "b", "a"]}, "unique"),
        ({"subsets": {"weak": index}}, "mask of 480 views"),
        ({"subsets": {"weak": index < 30}}, "no held-out view"),
    ]
    for change, message in bad:
        with pytest.raises(DataError, match=message):
            decode_parameters(**{**good, **change})
    for change in ({"method": "lasso"}, {"method": "ridge", "strengths": [0.0]}):
        with pytest.raises(ConfigError):
            decode_parameters(**{**good, **change})
