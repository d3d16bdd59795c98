import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.ceiling import (
    chance_of_ceiling,
    equally_halved,
    predictor_ceiling,
    repeated_ceiling,
    split_half_ceiling,
    stated_ceiling,
    variance_ceiling,
)
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.predictivity import (
    brainscore_splits,
    normalised_score,
    summarise,
)


def recording(rng, n_stimuli=60, n_repetitions=10, n_neuroids=7, noise=1.0):
    signal = rng.standard_normal((n_stimuli, 1, n_neuroids))
    shape = (n_stimuli, n_repetitions, n_neuroids)
    return signal + noise * rng.standard_normal(shape)


def brainscore_ceiling(responses, ceiler="internal_consistency", names=None):
    from brainscore_core.supported_data_standards.brainio.assemblies import (
        NeuronRecordingAssembly,
    )
    from brainscore_vision import load_ceiling

    named = np.arange(len(responses)) if names is None else np.asarray(names)
    shown = ~np.isnan(responses).all(axis=2)
    stimuli, repetitions = np.nonzero(shown)
    n_neuroids = responses.shape[2]
    assembly = NeuronRecordingAssembly(
        responses[stimuli, repetitions],
        coords={
            "stimulus_id": ("presentation", [f"image_{s:03}" for s in stimuli]),
            "object_name": ("presentation", ["thing"] * len(stimuli)),
            "image_id": ("presentation", named[stimuli]),
            "repetition": ("presentation", repetitions),
            "neuroid_id": ("neuroid", [f"site_{n:03}" for n in range(n_neuroids)]),
            "region": ("neuroid", ["IT"] * n_neuroids),
        },
        dims=["presentation", "neuroid"],
    )
    score = load_ceiling(ceiler)(assembly)
    return float(score), score.raw.transpose("split", "neuroid").values


@pytest.mark.slow
@pytest.mark.brainscore
@pytest.mark.parametrize("n_repetitions", [2, 7, 12])
def test_ceiling_equals_brain_score(rng, n_repetitions):
    responses = recording(rng, n_repetitions=n_repetitions)
    ours = split_half_ceiling(responses)
    value, per_split_neuroid = brainscore_ceiling(responses)
    assert ours.value == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(ours.per_split_neuroid, per_split_neuroid, atol=1e-9)


@pytest.mark.brainscore
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_predictor_ceiling_equals_brain_score(rng):
    responses = recording(rng, n_repetitions=6)
    responses[:, :, 2] = 0.0
    for stimulus, n_shown in enumerate(rng.integers(1, 7, len(responses))):
        responses[stimulus, rng.permutation(6)[n_shown:]] = np.nan
    names = rng.permutation([f"image {i}" for i in range(len(responses))])
    ours = predictor_ceiling(responses, names)
    value, per_split_neuroid = brainscore_ceiling(
        responses, "predictor_consistency", names
    )
    assert ours.value == pytest.approx(value, abs=1e-9)
    np.testing.assert_allclose(ours.per_split_neuroid, per_split_neuroid, atol=1e-9)
    repeated = (~np.isnan(responses[:, :, 0])).sum(axis=1) > 1
    assert ours.n_stimuli == repeated.sum()
    few = np.flatnonzero(repeated)[:9]
    with pytest.raises(DataError, match="9 stimuli were shown twice"):
        predictor_ceiling(responses[few], names[few])


@pytest.mark.slow
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


@pytest.mark.slow
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


def shown_in(pattern, rng, shape):
    """Which presentations took place, (n_stimuli, n_repetitions, n_neuroids)."""
    n_stimuli, n_repetitions, n_neuroids = shape
    slot = np.arange(n_repetitions)[np.newaxis, :, np.newaxis]
    counts = {
        "equal": np.full((n_stimuli, 1), n_repetitions),
        "two": np.full((n_stimuli, 1), 2),
        "nearly equal": rng.integers(
            n_repetitions - 2, n_repetitions + 1, (n_stimuli, 1)
        ),
        "one to all": rng.integers(1, n_repetitions + 1, (n_stimuli, 1)),
        "a tenth": np.where(np.arange(n_stimuli) < n_stimuli / 10, n_repetitions, 1)[
            :, np.newaxis
        ],
        "of each neuroid": rng.integers(1, n_repetitions + 1, (n_stimuli, n_neuroids)),
    }
    if pattern == "holes":
        shown = rng.random(shape) > 0.3
        shown[:, 0] = True
        return shown
    return np.broadcast_to(slot < counts[pattern][:, np.newaxis], shape)


def score_of_the_truth(signal, responses, ceiling):
    """Score of predictions that equal the responses without their noise."""
    averages = np.nanmean(responses, axis=1)
    splits = brainscore_splits(len(signal))
    r = [columnwise_pearson_r(signal[test], averages[test]) for _, test in splits]
    return normalised_score(summarise(np.array(r))[0], ceiling.value)


@pytest.mark.parametrize("noise", ["alike", "as of counts"])
@pytest.mark.parametrize(
    "pattern",
    [
        "equal",
        "two",
        "nearly equal",
        "one to all",
        "a tenth",
        "of each neuroid",
        "holes",
    ],
)
def test_the_truth_scores_one_whatever_the_repetitions(pattern, noise):
    rng = np.random.default_rng(5)
    shape = (600, 8, 80)
    signal = rng.standard_normal((600, 1, 80))
    # Of mean variance 2.25; noise of counts grows with the signal.
    scale = 1.5 if noise == "alike" else 1.5 * np.exp(0.3 * signal - 0.09)
    responses = signal + scale * rng.standard_normal(shape)
    responses[~shown_in(pattern, rng, shape)] = np.nan
    scores = [
        score_of_the_truth(signal[:, 0], responses, repeated_ceiling(responses, kind=k))
        for k in ("auto", "variance")
    ]
    # The median of r exceeds r by up to 1 %, and ceilings err by about 2 %.
    assert scores == pytest.approx([1.0, 1.0], abs=0.06)


def test_the_split_half_ceiling_of_a_few_repeated_stimuli_is_no_ceiling_of_all(rng):
    signal = rng.standard_normal((500, 1, 80))
    responses = signal + 2 * rng.standard_normal((500, 10, 80))
    responses[50:, 1:] = np.nan
    halves, default = split_half_ceiling(responses), repeated_ceiling(responses)
    assert score_of_the_truth(signal[:, 0], responses, halves) == pytest.approx(
        # Reliability of one showing over that of ten, for most stimuli.
        (1 / (1 + 4)) / (1 / (1 + 4 / 10)),
        abs=0.05,
    )
    truth = score_of_the_truth(signal[:, 0], responses, default)
    assert truth == pytest.approx(1, abs=0.1)
    assert (halves.n_stimuli, default.n_stimuli) == (50, 50)
    assert (halves.kind, default.kind) == ("split-half", "variance")


def test_equal_repetitions_keep_brain_scores_number(rng):
    responses = recording(rng)
    default, halves = repeated_ceiling(responses), split_half_ceiling(responses)
    assert default.value == halves.value
    assert default.n_stimuli == len(responses)
    padded = np.concatenate([responses, np.full((60, 2, 7), np.nan)], axis=1)
    assert repeated_ceiling(padded).value == halves.value
    assert equally_halved(padded)
    responses[3, 4, 5] = np.nan
    assert not equally_halved(responses)
    assert repeated_ceiling(responses).kind == "variance"


def test_three_repetitions_have_no_halves_of_one_size(rng):
    """Spearman–Brown takes the halves for equal: their ceiling is too low."""
    signal = rng.normal(size=(4000, 1, 40))
    responses = signal + 2 * rng.normal(size=(4000, 3, 40))
    truth = 1 / (1 + 4 / 3)
    assert repeated_ceiling(responses).kind == "variance"
    assert repeated_ceiling(responses).value == pytest.approx(truth, rel=0.01)
    assert split_half_ceiling(responses).value < 0.97 * truth


def test_variance_ceiling_is_the_f_ratio_where_repetitions_are_equal(rng):
    responses = recording(rng, noise=2.0)
    found = variance_ceiling(responses).per_split_neuroid[0]
    ratios = [scipy.stats.f_oneway(*responses[:, :, i]).statistic for i in range(7)]
    # Medians of the two variances of the ratio, as shares of their means.
    within, between = (scipy.stats.chi2(f).median() / f for f in (540, 59))
    np.testing.assert_allclose(found, 1 - between / within / np.array(ratios))


def test_stimuli_that_were_shown_once_take_the_noise_of_the_others():
    responses = np.full((4, 2, 1), np.nan)
    responses[:, 0, 0] = [1.0, 5.0, 2.0, 8.0]
    responses[:2, 1, 0] = [3.0, 9.0]
    # Variances within the first two stimuli are 2 and 8, pooled 5.
    averages = np.array([2.0, 7.0, 2.0, 8.0])
    noise = np.mean([2 / 2, 8 / 2, 5, 5])
    # Weights of the two variances: 1/8 and half of 1/4 · 2, hence equal; 2 degrees.
    within, between = (scipy.stats.chi2(f).median() / f for f in (2, 3))
    expected = 1 - noise / within * between / averages.var(ddof=1)
    assert variance_ceiling(responses).value == pytest.approx(expected)


def test_stimuli_shown_once_are_the_same_given_apart(rng):
    """More neuroids than are looked at together, some of which missed a stimulus."""
    repeated, once = recording(rng, 12, 3, 70), rng.standard_normal((30, 70))
    repeated[1, 2, 66] = repeated[3, :, 5] = once[4, 68] = np.nan
    padded = np.full((42, 3, 70), np.nan)
    padded[:12], padded[12:, 0] = repeated, once
    apart, together = variance_ceiling(repeated, once), variance_ceiling(padded)
    np.testing.assert_allclose(apart.per_split_neuroid, together.per_split_neuroid)
    assert apart.value == pytest.approx(together.value)
    assert repeated_ceiling(repeated, once).value == apart.value
    assert apart.n_stimuli == together.n_stimuli == 12


def test_a_stated_ceiling_is_the_median_of_what_is_stated():
    found = stated_ceiling([0.9, np.nan, 0.2, 0.7])
    assert (found.kind, found.value, found.n_stimuli) == ("stated", 0.7, 0)
    np.testing.assert_array_equal(found.per_split_neuroid, [[0.9, np.nan, 0.2, 0.7]])
    with pytest.raises(DataError, match="no neuroid has a stated reliability"):
        stated_ceiling([np.nan, np.nan])


def test_few_repeated_stimuli_make_no_higher_ceiling():
    """Ten stimuli shown twice among three hundred: ten degrees of freedom."""
    rng, found = np.random.default_rng(3), []
    for _ in range(30):
        signal = rng.standard_normal((300, 1, 200))
        responses = signal + rng.standard_normal((300, 2, 200))
        responses[10:, 1:] = np.nan
        found.append(variance_ceiling(responses).value)
    truth = 1 / (1 + (290 + 10 / 2) / 300)
    # Without regard to the degrees of freedom it would be .034 higher.
    assert np.mean(found) == pytest.approx(truth, abs=0.015)


def test_without_a_repeated_stimulus_there_is_no_ceiling(rng):
    responses = recording(rng)
    responses[:30, 1:] = np.nan
    responses[30:, :1] = np.nan
    responses[30:, 2:] = np.nan
    with pytest.raises(DataError, match="no neuroid has varying averages and a stim"):
        variance_ceiling(responses)
    with pytest.raises(ConfigError, match="unknown ceiling 'half'; choose from"):
        repeated_ceiling(responses, kind="half")


@pytest.mark.slow
@pytest.mark.parametrize("pattern", ["equal", "a tenth", "of each neuroid"])
def test_p_of_a_ceiling_of_noise_is_uniform(pattern):
    found = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        # Noise that neuroids share, and drift over repetitions, are no signal.
        noise = rng.standard_normal((40, 4, 1)) + np.arange(4)[:, np.newaxis]
        responses = noise + rng.standard_normal((40, 4, 3))
        responses[~shown_in(pattern, rng, responses.shape)] = np.nan
        found.append(chance_of_ceiling(responses, seed))
    assert scipy.stats.kstest(found, "uniform").pvalue > 0.01


def test_p_of_a_ceiling_is_small_where_there_is_one(rng):
    weak = recording(rng, n_stimuli=200, n_repetitions=4, noise=5.0)
    p = chance_of_ceiling(weak)
    assert p is not None
    assert p <= 0.05
    assert chance_of_ceiling(recording(rng, n_stimuli=200)) is None
