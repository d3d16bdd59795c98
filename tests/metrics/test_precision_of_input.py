"""Stored responses have single precision or are whole; arithmetic never is."""

import numpy as np
import pytest

from ce_align.metrics import (
    banded_ridge,
    bures,
    ceiling,
    cka,
    factorization,
    matching,
    overlap,
    parameter_decoding,
    predictivity,
    rdm,
    shape,
    spectral_theory,
)

N = 24
FOLDS = np.arange(N) % 3
INDEX = np.repeat(np.arange(N), 4)
SPLITS = predictivity.brainscore_splits(N, n_splits=2)
#: Parameters, and draws, of the views of each image.
PARAMETERS = np.random.default_rng(2).normal(size=(4 * N, 2))
HELD_OUT = {"train_images": np.arange(16), "test_images": np.arange(16, N)}


def steer(x, y):
    clean, views = x[:, :3], np.repeat(x[:, :3], 4, axis=0) + y.ravel()[: 4 * N, None]
    found = factorization.steerability(
        clean, views, INDEX, PARAMETERS, np.tile(np.arange(4), N), **HELD_OUT
    )
    effects = [one.ravel() for one in found.effects.values()]
    return np.concatenate(
        [[found.by_parameters, found.displacement_share, found.strength], *effects]
    )


def decode(x, y, method):
    views = np.repeat(x, 4, axis=0) + y.ravel()[: 4 * N, None]
    return parameter_decoding.decode_parameters(
        x, views, INDEX, PARAMETERS, method=method, **HELD_OUT
    ).r2["all"]


def products(x, y):
    """Small enough to be whole numbers in single precision, too."""
    return (x - 1000) @ (x - 1000).T, (y - 2000) @ (y - 2000).T


def factorized(x, y):
    found = factorization.factorization(np.stack([x, x + y[:, :1]], axis=1))
    return found.factorization, found.invariance


CASES = {
    "banded ridge": lambda x, y: (
        banded_ridge.banded_ridge({"a": x, "b": x[:, ::-1] ** 2}, y, FOLDS).r2
    ),
    "Bures": lambda x, y: bures.squared_bures_distance(x, y[:, :6]),
    "a ceiling": lambda x, y: (
        ceiling.variance_ceiling(
            np.stack([x, x + y[:, : x.shape[1]]], axis=1)
        ).per_split_neuroid
    ),
    "halves": lambda x, y: (
        ceiling.split_half_ceiling(
            np.stack([x, x + y[:, : x.shape[1]]], axis=1)
        ).per_split_neuroid
    ),
    "CKA": lambda x, y: cka.linear_cka(*products(x, y)),
    "factorization": factorized,
    "steerability": steer,
    "dimension": lambda x, y: factorization.participation_ratio(x),
    "matching": matching.matching_score,
    "overlap": lambda x, y: (
        overlap.variance_overlap(x, y[:, :4], y[:, 4:], FOLDS).r2_joint
    ),
    "decoding": lambda x, y: decode(x, y, "ols"),
    "ridge decoding": lambda x, y: decode(x, y, "ridge"),
    **{
        name: lambda x, y, name=name: predictivity.cross_validated_r(
            x, y, SPLITS, regression=name, n_components=3
        )
        for name in ("pls", "ridge", "ridgecv", "reverse_pls", "neuron_to_neuron")
    },
    **{
        name: lambda x, y, name=name: rdm.dissimilarities(x, name)
        for name in ("euclidean", "correlation", "cosine")
    },
    "unbiased products": lambda x, y: rdm.unbiased_gram(np.stack([x, 2 * x], axis=1)),
    "comparison": lambda x, y: rdm.compare_rdms(*products(x, y)),
    "shape": shape.shape_similarity,
    "spectrum": lambda x, y: spectral_theory.spectrum_of(*products(x, y)).shares,
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("dtype", [np.float32, np.int64])
def test_numbers_are_those_of_the_same_values_in_double_precision(rng, name, dtype):
    """The values are whole, so that what a test makes of them has no rounding."""
    shared = rng.integers(0, 50, (N, 6))
    x = (1000 + shared + rng.integers(0, 20, (N, 6))).astype(dtype)
    y = (
        2000 + shared @ rng.integers(0, 2, (6, 8)) + rng.integers(0, 9, (N, 8))
    ).astype(dtype)
    found = CASES[name](x, y)
    expected = CASES[name](x.astype(np.float64), y.astype(np.float64))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9)
