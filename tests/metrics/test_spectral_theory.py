"""Theory of ridge regression against ridge regression, and against planted spectra."""

from pathlib import Path

import numpy as np
import pytest
from scipy.linalg import eigh
from scipy.optimize import brentq

from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.metrics.spectral_theory import (
    Spectrum,
    expected_error,
    power_law,
    spectrum_of,
)


def simulated(noise: float = 0.3, decay: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Centred features and responses of 300 stimuli that depend on them linearly."""
    rng = np.random.default_rng(0)
    ranks = np.arange(1, 401)
    features = rng.standard_normal((300, 400)) * ranks**-decay
    weights = rng.standard_normal((400, 20)) / np.sqrt(ranks)[:, None]
    responses = features @ weights + noise * rng.standard_normal((300, 20))
    return features - features.mean(0), responses - responses.mean(0)


def grams(noise: float = 0.3) -> tuple[np.ndarray, np.ndarray]:
    """Their products."""
    features, responses = simulated(noise)
    return features @ features.T, responses @ responses.T


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spectra are computed in every test, not remembered from another."""
    monkeypatch.setattr("ce_align.metrics.spectral_theory._spectra", {})


@pytest.mark.parametrize("penalty", [1e-2, 1e-1, 1.0])
def test_the_learning_curve_is_the_measured_one(penalty: float) -> None:
    features, responses = simulated()
    gram = features @ features.T
    spectrum = spectrum_of(gram, responses @ responses.T)
    rng = np.random.default_rng(1)
    for n in (75, 150, 225):
        ridge = penalty * spectrum.eigenvalues.mean() * n
        measured = []
        for _ in range(30):
            train, test = np.split(rng.permutation(len(gram)), [n])
            fitted = np.linalg.solve(
                gram[np.ix_(train, train)] + ridge * np.eye(n), responses[train]
            )
            missed = responses[test] - gram[np.ix_(test, train)] @ fitted
            measured.append((missed**2).mean() / (responses**2).mean())
        expected = expected_error(spectrum, n, penalty).error
        assert expected == pytest.approx(np.mean(measured), rel=0.03)


@pytest.mark.real
def test_the_learning_curve_of_macaque_v4_is_the_expected_one(real_data: Path) -> None:
    folder = real_data / "macaque_v4"
    responses = np.load(folder / "responses_avg_210325.npy")
    responses = responses if len(responses) == 640 else responses.T
    images = ImageSet.from_path(folder / "images_210325.zip")
    features = np.stack(
        [np.asarray(images.load(k).resize((16, 16))).ravel() / 255 for k in range(640)]
    )
    features, responses = features - features.mean(0), responses - responses.mean(0)
    gram, rng = features @ features.T, np.random.default_rng(0)
    spectrum = spectrum_of(gram, responses @ responses.T)
    for n in (160, 480):
        found = expected_error(spectrum, n)
        ridge = found.penalty * spectrum.eigenvalues.mean() * n
        measured = []
        for _ in range(20):
            train, test = np.split(rng.permutation(640), [n])
            fitted = np.linalg.solve(
                gram[np.ix_(train, train)] + ridge * np.eye(n), responses[train]
            )
            missed = responses[test] - gram[np.ix_(test, train)] @ fitted
            measured.append(1 - (missed**2).mean() / (responses**2).mean())
        assert np.mean(measured) > 0.03
        assert 1 - found.error == pytest.approx(np.mean(measured), abs=0.015)


def test_few_of_many_stimuli_have_the_error_of_the_endless_population() -> None:
    """Canatar, Bordelon and Pehlevan (2021): k = r + k sum(v / (k + n v))."""
    spectrum, n, penalty = spectrum_of(*grams()), 3, 0.1
    values = spectrum.eigenvalues
    ridge = penalty * values.mean() * n
    k = brentq(
        lambda k: k - ridge - k * (values / (k + n * values)).sum(),
        ridge,
        10 * values.sum(),
    )
    spread = (n * values**2 / (k + n * values) ** 2).sum()
    theirs = (spectrum.shares * (k / (k + n * values)) ** 2).sum() / (1 - spread)
    assert expected_error(spectrum, n, penalty).error == pytest.approx(theirs, rel=0.02)


def test_the_best_penalty_is_at_least_as_good_as_any() -> None:
    spectrum = spectrum_of(*grams())
    best = expected_error(spectrum, 150)
    others = [expected_error(spectrum, 150, one) for one in (1e-3, 1e-1, 1.0, 10.0)]
    assert best.error <= min(one.error for one in others)
    assert best == expected_error(spectrum, 150, best.penalty)


def test_more_stimuli_and_less_noise_never_hurt() -> None:
    quiet, loud = spectrum_of(*grams(0.1)), spectrum_of(*grams(1.0))
    errors = [expected_error(quiet, n).error for n in (10, 30, 100, 150)]
    assert errors == sorted(errors, reverse=True)
    assert expected_error(quiet, 100).error < expected_error(loud, 100).error


def test_radius_and_dimension_are_those_of_the_error() -> None:
    found = expected_error(spectrum_of(*grams()), 100)
    assert found.radius * np.sqrt(found.dimension) == pytest.approx(found.error)
    n = 300
    flat = Spectrum(np.full(n, 1 / n), np.full(n, 1 / n))
    assert expected_error(flat, 100, 1.0).dimension == pytest.approx(n)
    single = Spectrum(np.full(n, 1 / n), np.eye(n)[0])
    assert expected_error(single, 100, 1.0).dimension == pytest.approx(1)


def test_features_that_say_nothing_miss_all_or_more() -> None:
    rng = np.random.default_rng(3)
    features, responses = simulated()
    other = rng.permutation(300)
    nothing = responses[other] @ responses[other].T
    found = expected_error(spectrum_of(features @ features.T, nothing), 150)
    assert 0.95 < found.error < 1.05
    unpenalised = expected_error(spectrum_of(features @ features.T, nothing), 150, 1e-3)
    assert unpenalised.error > 1.5


def test_scale_rotation_and_means_change_nothing() -> None:
    features, responses = simulated()
    rng = np.random.default_rng(2)
    turn = np.linalg.qr(rng.standard_normal((400, 400)))[0]
    moved = 3 * features @ turn + rng.standard_normal(400)
    a = expected_error(spectrum_of(*grams()), 100)
    b = expected_error(spectrum_of(moved @ moved.T, 5 * responses @ responses.T), 100)
    assert a == pytest.approx(b, rel=1e-6)


def test_shares_are_those_of_the_eigenvectors() -> None:
    features, responses = simulated()
    values, modes = eigh(features @ features.T)
    spectrum = spectrum_of(features @ features.T, responses @ responses.T)
    expected = ((modes.T @ responses) ** 2).sum(axis=1)[::-1] / (responses**2).sum()
    assert np.allclose(spectrum.shares[:250], expected[:250], atol=1e-10)
    assert np.allclose(spectrum.eigenvalues, values[::-1] / 300, atol=1e-10)
    assert spectrum.shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.7])
def test_a_planted_power_law_is_found(exponent: float) -> None:
    values = np.arange(1, 301) ** -exponent
    for scale in (1e-8, 1.0, 1e8):
        found = power_law(Spectrum(scale * values, values))
        assert found == pytest.approx(exponent)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.ones(20), "20 stimuli"),
        (np.r_[np.ones(12), np.zeros(188)], "12 eigenvalues"),
        (1e8 * np.r_[np.ones(12), np.full(188, 1e-13)], "12 eigenvalues"),
    ],
)
def test_an_exponent_needs_eigenvalues(values: np.ndarray, said: str) -> None:
    with pytest.raises(DataError, match=said):
        power_law(Spectrum(values, values))


def test_what_is_constant_or_apart_is_refused() -> None:
    some = np.eye(10)
    with pytest.raises(DataError, match="nothing can be predicted"):
        spectrum_of(np.ones((10, 10)), some)
    with pytest.raises(DataError, match="nothing can be predicted"):
        spectrum_of(some, np.ones((10, 10)))
    with pytest.raises(DataError, match="the same stimuli"):
        spectrum_of(some, np.eye(9))
    with pytest.raises(DataError, match="1 to 9 of 10"):
        expected_error(spectrum_of(some, some), 0)
    with pytest.raises(DataError, match="1 to 9 of 10"):
        expected_error(spectrum_of(some, some), 10)
