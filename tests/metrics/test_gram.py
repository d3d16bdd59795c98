import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import centred_gram


def direct_gram(features):
    centred = np.asarray(features, np.float64)
    centred = centred - centred.mean(axis=0)
    return centred @ centred.T


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(2, 40),
    p=st.integers(1, 30),
    block=st.integers(1, 40),
    dtype=st.sampled_from(["float16", "float32", "float64", "int16", "uint8"]),
    order=st.sampled_from("CF"),
    seed=st.integers(0, 99),
)
def test_gram_is_the_product_of_centred_features(n, p, block, dtype, order, seed):
    features = np.random.default_rng(seed).integers(0, 100, (n, p))
    features[0] += 1 + features.max()
    features = features.astype(dtype).copy(order=order)
    gram = centred_gram(features, block=block)
    np.testing.assert_allclose(
        gram, direct_gram(features), rtol=0, atol=1e-13 * np.trace(gram)
    )
    assert (gram == gram.T).all()


def test_gram_larger_than_a_tile_is_symmetric_and_right(rng):
    features = rng.standard_normal((1100, 40))
    gram = centred_gram(features)
    assert (gram == gram.T).all()
    np.testing.assert_allclose(gram, direct_gram(features), atol=1e-12)


def test_float32_products_err_by_rounding_of_the_diagonal(rng):
    features = rng.standard_normal((120, 5000)).astype(np.float32) + 20
    exact = direct_gram(features)
    gram = centred_gram(features, dtype="float32", block=512)
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    error = np.abs(gram - exact) / scale
    assert 0 < error.max() < 5e-7


def test_gram_ignores_a_shift_of_features_far_from_zero(rng):
    features = rng.standard_normal((50, 20))
    np.testing.assert_allclose(
        centred_gram(features + 1e6), direct_gram(features), atol=1e-8
    )


def test_gram_of_a_memory_map_is_that_of_the_array_and_tells_progress(rng, tmp_path):
    values = rng.standard_normal((30, 700)).astype(np.float32)
    path = tmp_path / "features.npy"
    np.save(path, values)
    calls = []
    gram = centred_gram(
        np.load(path, mmap_mode="r"), block=256, progress=lambda *c: calls.append(c)
    )
    np.testing.assert_array_equal(gram, centred_gram(values, block=256))
    assert calls == [(256, 700), (512, 700), (700, 700)]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", [0, 19])
def test_missing_or_infinite_features_are_refused(rng, bad, column):
    features = rng.standard_normal((10, 20))
    features[3, column] = bad
    with pytest.raises(DataError, match="NaN, infinite"):
        centred_gram(features, block=8)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (np.zeros((5, 4)), "same for every stimulus"),
        (np.full((7, 4), 0.1), "same for every stimulus"),
        (np.full((2560, 300), 1 / 3, np.float32), "same for every stimulus"),
        (np.tile([1e8, 3.7, -2e-9], (9, 1)), "same for every stimulus"),
        (np.zeros(5), "matrix"),
        (np.zeros((5, 4, 2)), "matrix"),
        (np.zeros((5, 4), complex), "matrix"),
        (np.array([["a", "b"], ["c", "d"]]), "matrix"),
        (np.zeros((1, 4)), "at least 2 stimuli"),
        (np.zeros((4, 0)), "at least 2 stimuli"),
    ],
)
def test_features_that_cannot_predict_are_refused(features, words):
    with pytest.raises(DataError, match=words):
        centred_gram(features)


def test_products_beyond_float32_are_refused(rng):
    features = rng.standard_normal((5, 4)) * 1e25
    with pytest.raises(DataError, match="overflow float32"):
        centred_gram(features, dtype="float32")
    assert np.isfinite(centred_gram(features)).all()


@pytest.mark.parametrize("options", [{"dtype": "float16"}, {"block": 0}])
def test_unknown_options_of_the_gram_are_refused(rng, options):
    with pytest.raises(ConfigError):
        centred_gram(rng.standard_normal((5, 4)), **options)
