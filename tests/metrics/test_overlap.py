"""Unique and shared explained variance of planted populations."""

import numpy as np
import pytest
from sklearn.linear_model import RidgeCV

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.overlap import variance_overlap

N = 400
FOLDS = np.arange(N) % 4


@pytest.fixture
def sources(rng):
    """Three independent sources of four dimensions each."""
    return rng.normal(size=(3, N, 4))


def readout(rng, source, n_neuroids=6):
    """Responses of unit variance that are linear in one source."""
    weights = rng.normal(size=(source.shape[1], n_neuroids))
    return source @ (weights / np.linalg.norm(weights, axis=0))


def test_planted_parts_are_recovered(rng, sources):
    only_a, only_b, both = sources
    a, b = np.hstack([only_a, both]), np.hstack([both, only_b])
    # Variances .3 of A alone, .2 of B alone, .4 of both, .1 of neither.
    rates = (
        np.sqrt(0.3) * readout(rng, only_a)
        + np.sqrt(0.2) * readout(rng, only_b)
        + np.sqrt(0.4) * readout(rng, both)
        + np.sqrt(0.1) * rng.normal(size=(N, 6))
    )
    result = variance_overlap(a, b, rates, FOLDS)
    assert result.unique_a.mean() == pytest.approx(0.3, abs=0.04)
    assert result.unique_b.mean() == pytest.approx(0.2, abs=0.04)
    assert result.shared.mean() == pytest.approx(0.4, abs=0.04)
    assert result.r2_joint.mean() == pytest.approx(0.9, abs=0.02)


def test_equal_networks_share_all_that_they_explain(rng, sources):
    rates = readout(rng, sources[0]) + 0.5 * rng.normal(size=(N, 6))
    rotated = sources[0] @ np.linalg.qr(rng.normal(size=(4, 4)))[0]
    result = variance_overlap(sources[0], 3 * rotated + 1, rates, FOLDS)
    np.testing.assert_allclose(result.unique_a, 0, atol=1e-9)
    np.testing.assert_allclose(result.unique_b, 0, atol=1e-9)
    np.testing.assert_allclose(result.shared, result.r2_a, atol=1e-9)


def test_useless_network_takes_nothing_from_the_joint_model(rng, sources):
    rates = readout(rng, sources[0]) + 0.5 * rng.normal(size=(N, 6))
    wide = rng.normal(size=(N, 300))
    result = variance_overlap(sources[0], wide, rates, FOLDS)
    assert np.all(result.unique_b > -0.01)
    assert result.unique_a.mean() == pytest.approx(result.r2_a.mean(), abs=0.02)


def test_parts_add_up_to_the_joint_model(rng, sources):
    rates = readout(rng, sources[0] + sources[1])
    result = variance_overlap(sources[0], sources[1], rates, FOLDS)
    total = result.unique_a + result.unique_b + result.shared
    np.testing.assert_allclose(total, result.r2_joint, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n_features", [5, 500])
def test_single_networks_are_scored_as_ridge_of_scikit_learn(rng, n_features):
    a, b = rng.normal(size=(N, n_features)) + 2, rng.normal(size=(N, 3))
    rates = a[:, :4] + rng.normal(size=(N, 4))
    strengths = np.logspace(-3, 3, 7)
    result = variance_overlap(a, b, rates, FOLDS, strengths=strengths)
    predicted = np.empty_like(rates)
    for fold in range(4):
        train, test = fold != FOLDS, fold == FOLDS
        centred = a[train] - a[train].mean(axis=0)
        absolute = strengths * np.trace(centred @ centred.T) / train.sum()
        fit = RidgeCV(absolute, alpha_per_target=True).fit(a[train], rates[train])
        predicted[test] = fit.predict(a[test])
    residual = np.sum((rates - predicted) ** 2, axis=0)
    expected = 1 - residual / np.sum((rates - rates.mean(axis=0)) ** 2, axis=0)
    np.testing.assert_allclose(result.r2_a, expected, atol=1e-8)


def test_three_stimuli_to_train_on_are_enough(rng):
    a, b, rates = (rng.normal(size=(6, 3)) for _ in range(3))
    result = variance_overlap(a, b, rates, np.repeat([0, 1], 3))
    assert np.isfinite(result.r2_joint).all()
    with pytest.raises(DataError, match="three stimuli or more for training"):
        variance_overlap(a[:5], b[:5], rates[:5], np.repeat([0, 1], 3)[:5])


def test_impossible_input_is_refused(rng, sources):
    a, b, rates = sources
    bad = [
        ({"features_a": a[:-1]}, "same stimuli"),
        ({"folds": np.zeros(N)}, "two or more folds"),
        ({"folds": FOLDS[:-1]}, "two or more folds"),
        ({"features_b": np.ones((N, 2))}, "features_b are the same"),
        ({"responses": np.ones((N, 2))}, "2 neuroids never vary"),
        ({"responses": np.where(rates == rates[0, 0], np.nan, rates)}, "1 NaN"),
    ]
    good = {"features_a": a, "features_b": b, "responses": rates, "folds": FOLDS}
    for change, message in bad:
        with pytest.raises(DataError, match=message):
            variance_overlap(**{**good, **change})
    for change in ({"shares": [0.5, 1]}, {"strengths": [0.0]}):
        with pytest.raises(ConfigError):
            variance_overlap(**good, **change)
