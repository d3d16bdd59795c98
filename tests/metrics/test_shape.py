"""Shape distance by second routes, and as a metric."""

import numpy as np
import pytest
from scipy.linalg import orthogonal_procrustes, sqrtm

from ce_align.errors import DataError
from ce_align.metrics.shape import gram_factor, shape_distance, shape_similarity


def centred(rng, *shape):
    x = rng.normal(size=shape)
    return x - x.mean(axis=0)


def test_it_is_the_cosine_after_the_rotation_of_procrustes(rng):
    x, y = (centred(rng, 15, 6) for _ in range(2))
    x, y = x / np.linalg.norm(x), y / np.linalg.norm(y)
    rotation, _ = orthogonal_procrustes(x, y)
    expected = np.sum((x @ rotation) * y)
    assert shape_similarity(x, y) == pytest.approx(expected, abs=1e-12)
    # Distances of unit vectors on the sphere, and through it.
    chord = np.linalg.norm(x @ rotation - y)
    assert shape_distance(x, y) == pytest.approx(2 * np.arcsin(chord / 2), abs=1e-7)


def test_it_is_the_bures_similarity_of_gram_matrices(rng):
    x, y = centred(rng, 8, 30), centred(rng, 8, 11)
    k, left = x @ x.T, y @ y.T
    root = sqrtm(k)
    fidelity = np.trace(sqrtm(root @ left @ root)).real
    expected = fidelity / np.sqrt(np.trace(k) * np.trace(left))
    assert shape_similarity(x, y) == pytest.approx(expected, abs=1e-6)


def test_a_gram_matrix_says_all_of_a_representation(rng):
    x, y = rng.normal(size=(8, 30)), rng.normal(size=(8, 11))
    found = shape_similarity(gram_factor(x @ x.T), gram_factor(y @ y.T))
    assert found == pytest.approx(shape_similarity(x, y), abs=1e-7)


def test_it_is_a_metric_of_what_rotation_scale_and_mean_leave(rng):
    x, y, z = (rng.normal(size=(10, 4)) for _ in range(3))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    assert shape_similarity(x, 3 * x @ rotation + 1) == pytest.approx(1, abs=1e-12)
    assert shape_distance(x, y) == pytest.approx(shape_distance(y, x), abs=1e-12)
    assert shape_distance(x, z) < shape_distance(x, y) + shape_distance(y, z)


@pytest.mark.parametrize(
    ("other", "expected"),
    [
        (np.ones((10, 3)), "the same for every stimulus"),
        (np.zeros((10, 3)), "the same for every stimulus"),
        (np.ones((9, 3)) * np.arange(9)[:, None], "found 10 and 9"),
        (np.ones(10), "stimuli × features"),
    ],
)
def test_what_has_no_shape_is_refused(rng, other, expected):
    with pytest.raises(DataError, match=expected):
        shape_similarity(rng.normal(size=(10, 4)), other)
