import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.ceiling import split_half_ceiling


def recording(rng, n_stimuli=60, n_repetitions=10, n_neuroids=7, noise=1.0):
    signal = rng.standard_normal((n_stimuli, 1, n_neuroids))
    shape = (n_stimuli, n_repetitions, n_neuroids)
    return signal + noise * rng.standard_normal(shape)


def brainscore_ceiling(responses):
    from brainscore_core.supported_data_standards.brainio.assemblies import (
        NeuronRecordingAssembly,
    )
    from brainscore_vision.metrics.internal_consistency import InternalConsistency

    shown = ~np.isnan(responses).all(axis=2)
    stimuli, repetitions = np.nonzero(shown)
    n_neuroids = responses.shape[2]
    assembly = NeuronRecordingAssembly(
        responses[stimuli, repetitions],
        coords={
            "stimulus_id": ("presentation", [f"image_{s:03}" for s in stimuli]),
            "object_name": ("presentation", ["thing"] * len(stimuli)),
            "repetition": ("presentation", repetitions),
            "neuroid_id": ("neuroid", [f"site_{n:03}" for n in range(n_neuroids)]),
            "region": ("neuroid", ["IT"] * n_neuroids),
        },
        dims=["presentation", "neuroid"],
    )
    score = InternalConsistency()(assembly)
    return float(score), score.raw.transpose("split", "neuroid").values


@pytest.mark.brainscore
@pytest.mark.parametrize("n_repetitions", [2, 7, 12])
def test_ceiling_equals_brain_score(rng, n_repetitions):
    responses = recording(rng, n_repetitions=n_repetitions)
    ours = split_half_ceiling(responses)
    value, per_split_neuroid = brainscore_ceiling(responses)
    assert ours.value == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(ours.per_split_neuroid, per_split_neuroid, atol=1e-9)


@pytest.mark.brainscore
def test_ceiling_equals_brain_score_with_unequal_repetitions(rng):
    responses = recording(rng, n_repetitions=16)
    shown = rng.integers(13, 17, len(responses))
    for stimulus, n_shown in enumerate(shown):
        responses[stimulus, n_shown:] = np.nan
    responses[5, 2, 3] = np.nan
    ours = split_half_ceiling(responses)
    value, per_split_neuroid = brainscore_ceiling(responses)
    assert ours.value == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(ours.per_split_neuroid, per_split_neuroid, atol=1e-9)


@pytest.mark.brainscore
def test_ceiling_skips_a_silent_neuroid_as_brain_score_does(rng):
    responses = recording(rng)
    responses[:, :, 2] = 0.0
    ours = split_half_ceiling(responses)
    assert np.isnan(ours.per_split_neuroid[:, 2]).all()
    assert ours.value == pytest.approx(brainscore_ceiling(responses)[0], abs=1e-9)


def test_a_stimulus_absent_from_one_half_is_left_out_of_the_correlation(rng):
    from sklearn.model_selection import ShuffleSplit

    responses = recording(rng, n_stimuli=20, n_repetitions=4, n_neuroids=3)
    responses[0, 1:] = np.nan
    ours = split_half_ceiling(responses, n_splits=3)
    halves = ShuffleSplit(3, train_size=0.5, random_state=1).split(np.zeros(4))
    for split, (first, second) in enumerate(halves):
        r = [
            scipy.stats.pearsonr(
                responses[1:, first, neuroid].mean(axis=1),
                responses[1:, second, neuroid].mean(axis=1),
            )[0]
            for neuroid in range(3)
        ]
        expected = [2 * value / (1 + value) for value in r]
        np.testing.assert_allclose(ours.per_split_neuroid[split], expected)


def test_ceiling_recovers_the_planted_reliability(rng):
    # With signal variance 1 and noise variance 4 over 16 repetitions the mean has
    # reliability 1 / (1 + 4 / 16).
    responses = recording(rng, 4000, 16, 9, noise=2.0)
    assert split_half_ceiling(responses).value == pytest.approx(0.8, abs=0.01)


def test_ceiling_of_noise_is_zero(rng):
    noise = rng.standard_normal((3000, 10, 20))
    assert split_half_ceiling(noise).value == pytest.approx(0, abs=0.03)


def test_ceiling_of_repeated_responses_is_one(rng):
    responses = recording(rng, noise=0.0)
    assert split_half_ceiling(responses).value == pytest.approx(1, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(
    n_stimuli=st.integers(2, 12),
    n_repetitions=st.integers(2, 6),
    missing=st.floats(0, 0.3),
    seed=st.integers(0, 1000),
)
def test_ceiling_is_a_number_or_explains_itself(
    n_stimuli, n_repetitions, missing, seed
):
    rng = np.random.default_rng(seed)
    responses = recording(rng, n_stimuli, n_repetitions, 3)
    responses[rng.random(responses.shape) < missing] = np.nan
    try:
        ceiling = split_half_ceiling(responses, n_splits=3)
    except DataError as error:
        assert "no neuroid" in str(error)
    else:
        assert not np.isnan(ceiling.value)
        assert np.nanmax(ceiling.per_split_neuroid) <= 1 + 1e-12


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((20, 1, 3), "at least 2 repetitions"),
        ((20, 0, 3), "at least 2 repetitions"),
        ((20, 3), "stimuli × repetitions × neuroids"),
        ((1, 5, 3), "at least two stimuli"),
        ((5, 5, 0), "and a neuroid"),
    ],
)
def test_recordings_without_repetitions_are_refused(shape, words):
    with pytest.raises(DataError, match=words):
        split_half_ceiling(np.ones(shape))


def test_constant_or_infinite_responses_have_no_ceiling(rng):
    with pytest.raises(DataError, match="no neuroid has varying responses"):
        split_half_ceiling(np.full((20, 4, 3), 0.3))
    responses = recording(rng)
    responses[0, 0, 0] = np.inf
    with pytest.raises(DataError, match="infinite"):
        split_half_ceiling(responses)
    with pytest.raises(ConfigError, match="n_splits"):
        split_half_ceiling(recording(rng), n_splits=0)
