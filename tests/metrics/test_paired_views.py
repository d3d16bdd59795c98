"""Held-out images, and R² among their views."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from ce_align.errors import DataError
from ce_align.metrics.paired_views import image_splits, r2_effects, r2_scores


@given(st.integers(2, 60), st.floats(0.05, 0.5), st.integers(0, 2**32 - 1))
def test_splits_part_all_images_at_random(n_images, fraction, seed):
    splits = image_splits(n_images, 5, fraction, np.random.default_rng(seed))
    again = image_splits(n_images, 5, fraction, np.random.default_rng(seed))
    assert len(splits) == 5
    for (train, test), (train_again, _) in zip(splits, again, strict=True):
        assert sorted([*train, *test]) == list(range(n_images))
        assert len(test) == np.ceil(n_images * fraction)
        np.testing.assert_array_equal(train, train_again)


def test_splits_differ_between_runs(rng):
    splits = image_splits(100, 5, 0.2, rng)
    assert len({tuple(test) for _, test in splits}) == 5


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1.5])
def test_split_that_leaves_one_side_empty_is_refused(rng, fraction):
    with pytest.raises(DataError, match="cannot hold out"):
        image_splits(10, 5, fraction, rng)


def test_r2_equals_scikit_learn_and_is_undefined_for_constants(rng):
    observed, predicted = rng.normal(size=(2, 30, 4))
    expected = r2_score(observed, predicted, multioutput="raw_values")
    observed[:, 2] = 0.1
    scores = r2_scores(observed, predicted)
    np.testing.assert_allclose(np.delete(scores, 2), np.delete(expected, 2))
    assert np.isnan(scores[2])


def test_effects_on_r2_are_those_of_counting_an_image_a_little_more(rng):
    image = np.repeat(np.arange(2, 12), 5)
    observed = rng.normal(size=(50, 3)) + rng.normal(size=(14, 3))[image]
    predicted = observed + 0.5 * rng.normal(size=(50, 3))
    effects = r2_effects(observed, predicted, image, 14)
    assert effects.shape == (14, 3)
    np.testing.assert_allclose(effects.sum(axis=0), 0, atol=1e-12)
    np.testing.assert_array_equal(effects[[0, 1, 12, 13]], 0)
    scale = np.sqrt(10 / 9)
    for k in (2, 7):
        more = np.where(image == k, 1 + 1e-6, 1.0)
        expected = [
            r2_score(observed, predicted, sample_weight=w, multioutput="raw_values")
            for w in (more, np.ones(50))
        ]
        slope = (expected[0] - expected[1]) / 1e-6
        np.testing.assert_allclose(effects[k], scale * slope, atol=1e-5)
    observed[:, 1] = 0.2
    effects = r2_effects(observed, predicted, image, 14)
    assert np.isnan(effects[:, 1]).all()
    assert np.isfinite(effects[:, [0, 2]]).all()
