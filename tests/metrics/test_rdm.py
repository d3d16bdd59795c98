"""Dissimilarities and their comparison, against rsatoolbox and by second routes."""

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

from ce_align.errors import DataError
from ce_align.metrics.cka import linear_cka
from ce_align.metrics.rdm import (
    compare_rdms,
    dissimilarities,
    mean_rdm,
    noise_ceiling,
    squared_distances,
    unbiased_gram,
)

PAIRS = np.triu_indices(20, 1)
#: What rsatoolbox calls each comparator.
THEIRS = {
    "cosine": "cosine",
    "correlation": "corr",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "whitened": "cosine_cov",
}


@pytest.fixture
def features(rng):
    return rng.normal(size=(20, 5)) @ rng.normal(size=(5, 40)) + 3


@pytest.fixture
def repetitions(rng, features):
    """Responses of 7 neuroids that follow the features, with noise."""
    signal = features @ rng.normal(size=(40, 7))
    return signal[:, None] + 5 * rng.normal(size=(20, 4, 7))


@pytest.fixture
def rsatoolbox():
    return pytest.importorskip("rsatoolbox", reason="it is in the extra dev")


@pytest.mark.parametrize(
    ("distance", "of_scipy"),
    [("euclidean", "sqeuclidean"), ("correlation",) * 2, ("cosine",) * 2],
)
def test_dissimilarities_are_those_of_scipy(features, distance, of_scipy):
    expected = squareform(pdist(features, of_scipy))
    if distance == "euclidean":
        expected /= 40
    found = dissimilarities(features.astype(np.float32), distance)
    np.testing.assert_allclose(found, expected, atol=1e-5 * expected.max())
    np.testing.assert_allclose(
        dissimilarities(features, distance), expected, atol=1e-12 * expected.max()
    )


def test_unbiased_products_are_means_over_pairs_of_repetitions(repetitions):
    repetitions[3, 1:3] = np.nan  # a stimulus that was shown less often
    repetitions[5, 0, 2] = np.nan  # a neuroid that was not recorded once
    expected = np.zeros((20, 20))
    for i in range(20):
        for j in range(20):
            for k in range(7):
                x, y = repetitions[i, :, k], repetitions[j, :, k]
                products = np.outer(x, y)[~np.eye(4, dtype=bool)]
                expected[i, j] += np.nanmean(products) / 7
    np.testing.assert_allclose(unbiased_gram(repetitions), expected, rtol=1e-10)


def test_crossvalidated_distances_of_noise_are_zero_on_average(rng):
    noise = rng.normal(size=(200, 2, 30))
    biased = dissimilarities(noise.mean(axis=1))
    unbiased = squared_distances(unbiased_gram(noise))
    pairs = np.triu_indices(200, 1)
    assert biased[pairs].mean() == pytest.approx(1, rel=0.1)
    assert abs(unbiased[pairs].mean()) < 0.05


def test_distances_and_comparators_are_those_of_rsatoolbox(
    rsatoolbox, features, repetitions
):
    from rsatoolbox.data import Dataset
    from rsatoolbox.rdm import RDMs, calc_rdm, compare

    stimuli, runs = np.repeat(np.arange(20), 4), np.tile(np.arange(4), 20)
    held = Dataset(
        repetitions.reshape(80, 7), obs_descriptors={"stimulus": stimuli, "run": runs}
    )
    theirs = calc_rdm(held, "crossnobis", descriptor="stimulus", cv_descriptor="run")
    ours = squared_distances(unbiased_gram(repetitions))
    np.testing.assert_allclose(ours[PAIRS], theirs.dissimilarities[0], atol=1e-10)
    model = dissimilarities(features)
    both = [RDMs(one[PAIRS][None]) for one in (model, ours)]
    for name, of_them in THEIRS.items():
        expected = compare(*both, method=of_them)[0, 0]
        found = compare_rdms(model, ours, name)
        assert found == pytest.approx(expected, abs=1e-9), name


@pytest.mark.parametrize("comparator", ["cosine", "correlation", "spearman"])
def test_the_noise_ceiling_is_that_of_rsatoolbox(rsatoolbox, rng, features, comparator):
    from rsatoolbox.inference.noise_ceiling import boot_noise_ceiling
    from rsatoolbox.rdm import RDMs

    animals = [
        dissimilarities(features + 4 * rng.normal(size=(20, 40))) for _ in range(4)
    ]
    stacked = RDMs(np.stack([one[PAIRS] for one in animals]))
    expected = boot_noise_ceiling(stacked, method=THEIRS[comparator])
    np.testing.assert_allclose(noise_ceiling(animals, comparator), expected, atol=1e-10)


def test_correlations_of_dissimilarities_are_those_of_scipy(features, repetitions):
    a, b = dissimilarities(features), dissimilarities(repetitions.mean(axis=1))
    for name, of_scipy in (("correlation", pearsonr), ("spearman", spearmanr)):
        expected = of_scipy(a[PAIRS], b[PAIRS]).statistic
        assert compare_rdms(a, b, name) == pytest.approx(expected, abs=1e-12)


def test_rho_a_is_spearman_with_ties_broken_at_random(rng, features):
    a = dissimilarities(features)
    tied = dissimilarities(np.repeat([[0.0, 1], [1, 0]], 10, axis=0))
    broken = [
        spearmanr(a[PAIRS], tied[PAIRS] + 1e-6 * rng.normal(size=190)).statistic
        for _ in range(400)
    ]
    assert compare_rdms(a, tied, "rho-a") == pytest.approx(np.mean(broken), abs=0.02)


def test_the_whitened_cosine_of_euclidean_distances_is_biased_cka(rng, features):
    other = rng.normal(size=(20, 9))
    found = compare_rdms(dissimilarities(features), dissimilarities(other))
    expected = linear_cka(features @ features.T, other @ other.T, unbiased=False)
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("comparator", THEIRS)
def test_the_ceiling_has_room_for_the_truth(rng, features, comparator):
    """The noiseless geometry reaches what lies between both bounds, on average.

    It would not with biased distances: noise that makes all pairs of stimuli differ
    makes animals alike.
    """
    truth = dissimilarities(features)
    reached = []
    for _ in range(20):
        noisy = features[:, None, :] + 8 * rng.normal(size=(3, 20, 2, 40))
        animals = [squared_distances(unbiased_gram(one)) for one in noisy]
        own = np.mean([compare_rdms(truth, one, comparator) for one in animals])
        low, high = noise_ceiling(animals, comparator)
        reached.append((own - low, high - own))
    assert (np.mean(reached, axis=0) > 0).all()


@pytest.mark.parametrize("comparator", THEIRS)
def test_no_model_is_more_like_all_animals_than_their_mean(rng, features, comparator):
    animals = [dissimilarities(rng.normal(size=(20, 30)) + 1) for _ in range(3)]
    best = mean_rdm(animals, comparator)
    assert compare_rdms(best, best, comparator) == pytest.approx(1, abs=1e-3)
    _, high = noise_ceiling(animals, comparator)
    for model in (*animals, dissimilarities(features)):
        each = [compare_rdms(model, one, comparator) for one in animals]
        assert np.mean(each) < high


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: unbiased_gram(np.ones((5, 1, 2))), "need two repetitions"),
        (lambda: unbiased_gram(np.ones((5, 2))), "stimulus, repetition, neuroid"),
        (lambda: dissimilarities(np.eye(5)[:, :3], "cosine"), "must not be zero"),
        (
            lambda: dissimilarities(np.arange(1.0, 6)[:, None], "correlation"),
            "differ between features",
        ),
        (lambda: compare_rdms(np.eye(5), np.eye(6), "rho-a"), "the same stimuli"),
        (lambda: compare_rdms(np.eye(5), np.eye(6)), "the same stimuli"),
        (lambda: compare_rdms(np.ones((5, 5)), np.eye(5)), "the same for every"),
        (lambda: compare_rdms(np.ones(5), np.eye(5)), "stimuli × stimuli"),
        (lambda: noise_ceiling([np.eye(5)]), "two animals or more, found 1"),
    ],
)
def test_what_cannot_be_compared_is_refused(call, expected):
    with pytest.raises(DataError, match=expected):
        call()


@pytest.mark.real
def test_monkey_and_human_it_are_as_alike_as_published(real_data):
    """r = .49 in Kriegeskorte et al. (2008), and far more than pixels tell."""
    from scipy.io import loadmat

    name = "Kriegeskorte_Neuron2008_supplementalData.mat"
    held = loadmat(real_data / "macaque_it_92" / name)
    stated = held["RDMs_mIT_hIT_fig1"]["RDM"][0]
    monkey, human = (squareform(one.ravel()) for one in stated)
    assert compare_rdms(monkey, human, "correlation") == pytest.approx(0.49, abs=0.005)
    images = np.stack(list(held["stimuli_92objs"]["image"][0]))
    pixels = dissimilarities(images.reshape(92, -1), "correlation")
    assert compare_rdms(pixels, monkey, "spearman") == pytest.approx(0.14, abs=0.01)
    assert compare_rdms(human, monkey, "spearman") > 0.4
