"""Simulated recordings: what was planted is what is measured."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import ceilings, correlation, planted_recording, raw_correlations
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import KFold, cross_val_predict

from ce_align.data.named import RECORDINGS, load_recording
from ce_align.data.netcdf import read_recording, write_recording
from ce_align.data.simulation import (
    TUNING_SHARES,
    Population,
    Truth,
    simulated_recording,
)
from ce_align.errors import ConfigError
from ce_align.metrics.ceiling import split_half_ceiling
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    summarise,
)
from ce_align.metrics.predictivity import normalised_score as score_of

SMALL = {"n_images": 64, "n_repetitions": 4, "n_neuroids": 6, "image_size": 32}


def correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    return (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))


def split_half_ceilings(responses: np.ndarray, rng, n_splits: int = 20) -> np.ndarray:
    n = responses.shape[1]
    found = []
    for _ in range(n_splits):
        order = rng.permutation(n)
        first, second = (
            responses[:, h].mean(axis=1) for h in np.split(order, [n // 2])
        )
        r = correlations(first, second)
        found.append(2 * r / (1 + r))
    return np.mean(found, axis=0)


def normalised_score(features: np.ndarray, simulated) -> float:
    """Squared median correlation of cross-validated least squares, over ceiling."""
    rates = simulated.recording.averaged()
    folds = KFold(10, shuffle=True, random_state=0)
    predicted = cross_val_predict(LinearRegression(), features, rates, cv=folds)
    raw = np.median(correlations(predicted, rates))
    return float(raw * abs(raw) / np.median(ceilings(simulated.truth)))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    mixing = np.random.default_rng(1).normal(size=(12, 12))
    return np.random.default_rng(0).normal(size=(1200, 12)) @ mixing


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.25, 0.6, 1.0])
def test_score_recovers_the_planted_fraction(features, fraction):
    populations = [Population(60, 10, fraction, seed=seed) for seed in range(4)]
    scores = [
        normalised_score(features, planted_recording(features, population))
        for population in populations
    ]
    # One standard error over four populations of 60 neuroids is below 0.005; fitting
    # 12 weights to 1080 stimuli lowers the score by at most 0.015.
    assert np.mean(scores) == pytest.approx(fraction, abs=0.03)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.8])
def test_our_score_recovers_the_planted_fraction(features, fraction):
    scores = []
    for seed in range(3):
        recording = planted_recording(
            features, Population(60, 10, fraction, seed=seed)
        ).recording
        splits = brainscore_splits(len(features), stratify=recording.strata())
        rates = recording.averaged()
        # As many components as features: nothing that was planted is left out.
        r = cross_validated_r(features, rates, splits, n_components=12)
        ceiling = split_half_ceiling(recording.responses).value
        scores.append(score_of(summarise(r)[0], ceiling))
    assert np.mean(scores) == pytest.approx(fraction, abs=0.03)


def test_other_features_score_nothing(features):
    simulated = planted_recording(features, Population(60, 10, 0.8))
    other = np.random.default_rng(9).normal(size=(1200, 12))
    assert normalised_score(other, simulated) == pytest.approx(0, abs=0.01)


def test_neuroids_that_nothing_modulates_have_no_ceiling(features):
    simulated = planted_recording(features, Population(200, 10, 1.0, modulation=0))
    assert np.allclose(ceilings(simulated.truth), 0)
    rng = np.random.default_rng(0)
    measured = split_half_ceilings(simulated.recording.responses, rng)
    # Standard error of a correlation of 1200 stimuli, over 200 neuroids.
    assert abs(np.mean(measured)) < 4 * 2 / np.sqrt(1200 * 200)


@pytest.mark.parametrize("n_repetitions", [2, 7, 20])
def test_split_halves_agree_with_the_analytic_ceiling(n_repetitions):
    simulated = simulated_recording(
        n_images=1500, n_repetitions=n_repetitions, n_neuroids=40, image_size=32
    )
    rng = np.random.default_rng(0)
    measured = split_half_ceilings(simulated.recording.responses, rng)
    expected = ceilings(simulated.truth)
    r = expected / (2 - expected)
    # Spearman–Brown's slope 2 / (1 + r)² times the standard error of one correlation,
    # an upper limit for their average over splits.
    error = 2 / (1 + r) ** 2 * (1 - r**2) / np.sqrt(1500)
    assert np.all(np.abs(measured - expected) < 4.5 * error)
    assert np.mean((measured - expected) / error) == pytest.approx(0, abs=4 / 40**0.5)


@pytest.mark.slow
def test_explained_part_correlates_with_counts_as_expected():
    simulated = simulated_recording(n_images=2000, image_size=32)
    truth = simulated.truth
    measured = correlations(truth.explained, simulated.recording.averaged())
    assert np.mean(measured - raw_correlations(truth)) == pytest.approx(0, abs=0.005)
    np.testing.assert_allclose(measured, raw_correlations(truth), atol=0.06)


def test_ceiling_of_equal_halves_is_reliability_of_all_repetitions(rng):
    rates = rng.uniform(1, 5, size=(50, 8))
    truth = Truth(rates, rates, 1.0, 12)
    np.testing.assert_allclose(ceilings(truth), correlation(truth, 12, 12), rtol=1e-12)


def test_counts_scatter_as_poisson_counts_do():
    simulated = simulated_recording(n_images=300, image_size=32)
    counts = simulated.recording.responses
    assert np.array_equal(counts, np.round(counts))
    assert counts.min() >= 0
    within = counts.var(axis=1, ddof=1).mean(axis=0) / counts.mean(axis=(0, 1))
    assert np.mean(within) == pytest.approx(1, abs=0.01)


@given(
    fraction=st.floats(0, 1),
    modulation=st.floats(0, 5),
    mean_count=st.floats(0.5, 50),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=25, deadline=None)
def test_rates_are_never_negative_nor_more_modulated_than_asked(
    fraction, modulation, mean_count, seed
):
    truth = simulated_recording(
        **SMALL,
        explainable_fraction=fraction,
        modulation=modulation,
        mean_count=mean_count,
        seed=seed,
    ).truth
    assert truth.rates.min() >= 0
    spread = truth.rates.std(axis=0) / truth.rates.mean(axis=0)
    assert np.all(spread <= modulation + 1e-6)
    assert np.allclose(truth.explained.std(axis=0), 1)


def test_signal_holds_the_planted_fraction_on_average(features):
    truth = planted_recording(features, Population(400, 2, 0.3)).truth
    held = correlations(truth.explained, truth.rates) ** 2
    assert np.mean(held) == pytest.approx(0.3, abs=4 * held.std() / 400**0.5)


@pytest.mark.slow
def test_same_seed_same_recording_and_another_seed_another():
    first = simulated_recording(**SMALL, seed=2)
    again = simulated_recording(**SMALL, seed=2)
    other = simulated_recording(**SMALL, seed=3)
    assert first.recording.digest == again.recording.digest
    np.testing.assert_array_equal(first.truth.rates, again.truth.rates)
    assert first.recording.digest != other.recording.digest


def test_neuroids_prefer_categories_but_see_the_rest():
    simulated = simulated_recording(n_images=800, n_repetitions=2, image_size=32)
    names = simulated.recording.images.columns["object_name"]
    indicators = (names[:, None] == np.unique(names)).astype(float)
    rates = simulated.truth.explained
    fitted = LinearRegression().fit(indicators, rates).predict(indicators)
    share = fitted.var(axis=0) / rates.var(axis=0)
    assert np.mean(share) == pytest.approx(TUNING_SHARES["category"], abs=0.06)
    assert sum(TUNING_SHARES.values()) == pytest.approx(1)


def test_listed_recording_is_what_its_entry_says():
    entry = RECORDINGS["simulated"]
    recording = load_recording("simulated")
    assert recording.responses.shape == (
        entry.images,
        entry.repetitions,
        entry.neuroids,
    )
    assert (recording.region, recording.origin) == (entry.region, "simulated")
    assert recording.identifier == entry.name
    assert len(set(recording.strata())) == 8


def test_recording_survives_a_file(tmp_path):
    recording = simulated_recording(**SMALL).recording
    write_recording(recording, tmp_path / "simulated.nc")
    assert read_recording(tmp_path / "simulated.nc").digest == recording.digest


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n_images", 1),
        ("n_images", 0),
        ("n_repetitions", 0),
        ("n_neuroids", 0),
        ("explainable_fraction", 1.01),
        ("explainable_fraction", -0.1),
        ("explainable_fraction", float("nan")),
        ("mean_count", 0),
        ("mean_count", float("inf")),
        ("modulation", -1),
        ("modulation", float("nan")),
        ("seed", -1),
    ],
)
def test_impossible_settings_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=f"^{name} must be [^\n]*found {value}$"):
        simulated_recording(**{**SMALL, name: value})
