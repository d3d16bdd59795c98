"""Banded ridge regression by planted parts, two networks, and himalaya."""

from itertools import pairwise

import numpy as np
import pytest
from himalaya import kernel_ridge, scoring

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.banded_ridge import banded_ridge, weights_of_bands
from ce_align.metrics.overlap import SHARES, variance_overlap

N = 200
FOLDS = np.arange(N) % 4


@pytest.fixture
def sources(rng):
    """Four independent sources of three dimensions each."""
    return rng.normal(size=(4, N, 3))


def readout(rng, source, n_neuroids=6):
    """Responses of unit variance that are linear in one source."""
    weights = rng.normal(size=(source.shape[1], n_neuroids))
    return source @ (weights / np.linalg.norm(weights, axis=0))


def test_planted_parts_of_three_networks_are_recovered(rng, sources):
    of_a, of_b, of_c, common = sources
    features = {
        "a": np.hstack([of_a, common]),
        "b": np.hstack([of_b, common]),
        "c": of_c,
    }
    # Variances .3 of A, .1 of B, .2 of C alone, .3 of A or B, .1 of none.
    rates = (
        np.sqrt(0.3) * readout(rng, of_a)
        + np.sqrt(0.1) * readout(rng, of_b)
        + np.sqrt(0.2) * readout(rng, of_c)
        + np.sqrt(0.3) * readout(rng, common)
        + np.sqrt(0.1) * rng.normal(size=(N, 6))
    )
    found = banded_ridge(features, rates, FOLDS)
    assert found.r2.mean() == pytest.approx(0.9, abs=0.03)
    np.testing.assert_allclose(found.unique.mean(axis=1), [0.3, 0.1, 0.2], atol=0.06)
    np.testing.assert_allclose(found.alone.mean(axis=1), [0.6, 0.4, 0.2], atol=0.1)
    np.testing.assert_allclose(found.parts.sum(axis=0), found.r2, atol=1e-12)
    # What both A and B explain is in the parts of either, and in no unique part.
    assert found.parts[:2].mean(axis=1).sum() == pytest.approx(0.7, abs=0.06)


def test_of_two_networks_it_is_their_overlap(rng, sources):
    a, b = sources[0], np.hstack(sources[:2])
    rates = readout(rng, b) + rng.normal(size=(N, 6))
    shares = np.array(SHARES)
    weights = np.column_stack([shares, 1 - shares])
    found = banded_ridge({"a": a, "b": b}, rates, FOLDS, weights=weights)
    expected = variance_overlap(a, b, rates, FOLDS)
    np.testing.assert_allclose(found.r2, expected.r2_joint, atol=1e-9)
    np.testing.assert_allclose(found.alone, [expected.r2_a, expected.r2_b], atol=1e-9)
    unique = [expected.unique_a, expected.unique_b]
    np.testing.assert_allclose(found.unique, unique, atol=1e-9)


def test_fits_and_parts_are_those_of_himalaya(rng, sources):
    """Of one way to weigh the bands, and one strength, which need no search."""
    features = {"a": sources[0], "b": sources[1], "c": sources[2]}
    # Of all three, so that the joint model is chosen for each neuroid and fold.
    rates = sum(readout(rng, one) for one in sources) + rng.normal(size=(N, 6))
    way, strength = np.array([0.5, 0.3, 0.2]), 0.1
    weights = np.vstack([np.eye(3), way])
    kernels = []
    for one in features.values():
        centred = one - one.mean(axis=0)
        kernel = centred @ centred.T
        kernels.append(kernel * N / np.trace(kernel))
    split = np.empty((3, *rates.shape))
    for fold in range(4):
        train, test = fold != FOLDS, fold == FOLDS
        mean = rates[train].mean(axis=0)
        inner, outer = [], []
        for kernel in kernels:
            centring = kernel_ridge.KernelCenterer()
            inner.append(centring.fit_transform(kernel[np.ix_(train, train)]))
            outer.append(centring.transform(kernel[np.ix_(test, train)]))
        joint = np.tensordot(way, inner, 1)
        deltas = np.log(np.repeat(way[:, None], 6, axis=1))
        dual = kernel_ridge.solve_weighted_kernel_ridge_conjugate_gradient(
            np.array(inner),
            rates[train] - mean,
            deltas,
            alpha=strength * np.trace(joint) / train.sum(),
            tol=1e-14,
            max_iter=2000,
        )
        split[:, test] = kernel_ridge.predict_weighted_kernel_ridge(
            np.array(outer), dual, deltas, split=True
        )
        split[:, test] += (mean - rates.mean(axis=0)) / 3
    expected = scoring.r2_score_split(rates - rates.mean(axis=0), split)
    found = banded_ridge(features, rates, FOLDS, weights=weights, strengths=[strength])
    np.testing.assert_allclose(found.r2, expected.sum(axis=0), atol=1e-7)
    np.testing.assert_allclose(found.parts, expected, atol=1e-7)


def test_ways_to_weigh_bands_have_every_subset(rng):
    ways = weights_of_bands(3)
    assert len(ways) == 21
    np.testing.assert_allclose(ways.sum(axis=1), 1)
    assert {tuple(one) for one in ways > 0} == {
        tuple(map(bool, map(int, f"{k:03b}"))) for k in range(1, 8)
    }
    assert all(tuple(a) != tuple(b) for a, b in pairwise(ways))


def test_impossible_input_is_refused(rng, sources):
    rates = readout(rng, sources[0])
    two = {"a": sources[0], "b": sources[1]}
    with pytest.raises(DataError, match="b are the same for all stimuli"):
        banded_ridge({"a": sources[0], "b": np.ones((N, 2))}, rates, FOLDS)
    with pytest.raises(DataError, match="same stimuli"):
        banded_ridge({"a": sources[0], "b": sources[1][1:]}, rates, FOLDS)
    with pytest.raises(ConfigError, match="two networks or more"):
        banded_ridge({"a": sources[0]}, rates, FOLDS)
    with pytest.raises(ConfigError, match="each is alone"):
        banded_ridge(two, rates, FOLDS, weights=np.array([[1.0, 0], [0.5, 0.5]]))
    with pytest.raises(ConfigError, match="positive"):
        banded_ridge(two, rates, FOLDS, strengths=[0])
