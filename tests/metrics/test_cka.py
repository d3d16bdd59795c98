"""Centred kernel alignment by second routes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.metrics.cka import linear_cka, mean_gram


def products(rng, n_features, n=12):
    x = rng.normal(size=(n, n_features))
    return x @ x.T


def unbiased_product(k, left):
    """The unbiased estimator of Song et al. (2012), written as they do."""
    n = len(k)
    k, left = (one - np.diag(np.diag(one)) for one in (k, left))
    total = np.trace(k @ left)
    total += k.sum() * left.sum() / ((n - 1) * (n - 2))
    total -= 2 / (n - 2) * (k @ left).sum()
    return total / (n * (n - 3))


@pytest.mark.parametrize("unbiased", [True, False])
def test_it_is_the_ratio_of_products_that_others_define(rng, unbiased):
    k, left = products(rng, 5), products(rng, 9)
    if unbiased:
        product = unbiased_product
    else:
        h = np.eye(12) - 1 / 12

        def product(a, b):
            return np.trace(a @ h @ b @ h)

    expected = product(k, left) / np.sqrt(product(k, k) * product(left, left))
    assert linear_cka(k, left, unbiased=unbiased) == pytest.approx(expected, abs=1e-12)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_rotation_scale_and_mean_do_not_matter(seed, scale):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(10, 4))
    rotation, _ = np.linalg.qr(rng.normal(size=(4, 4)))
    moved = scale * x @ rotation + rng.normal(size=4)
    assert linear_cka(x @ x.T, moved @ moved.T) == pytest.approx(1, abs=1e-9)


def test_unrelated_wide_representations_are_alike_only_with_the_bias(rng):
    pairs = [(products(rng, 200), products(rng, 200)) for _ in range(200)]
    biased, unbiased = (
        np.mean([linear_cka(a, b, unbiased=flag) for a, b in pairs])
        for flag in (False, True)
    )
    assert biased > 0.9
    assert abs(unbiased) < 0.03


def test_the_mean_of_animals_gives_each_the_same_weight(rng):
    a, b = products(rng, 5), products(rng, 9)
    mean = mean_gram([1000 * a, b])
    assert linear_cka(mean, a) == pytest.approx(linear_cka(mean, b), abs=1e-12)


@pytest.mark.parametrize(
    ("gram", "expected"),
    [
        (np.ones((12, 12)), "the same for every stimulus"),
        (np.eye(3), "four stimuli or more"),
        (np.eye(11), "of the same stimuli"),
        (np.full((12, 12), np.nan), "NaN"),
    ],
)
def test_what_has_no_geometry_is_refused(rng, gram, expected):
    with pytest.raises(DataError, match=expected):
        linear_cka(gram, products(rng, 4))
