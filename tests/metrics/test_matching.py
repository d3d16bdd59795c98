"""Matching of units by second routes."""

from itertools import permutations

import numpy as np
import pytest
from scipy.optimize import linprog

from ce_align.errors import DataError
from ce_align.metrics.matching import matching_score


def correlations(x, y):
    return np.corrcoef(x.T, y.T)[: x.shape[1], x.shape[1] :]


def transported(r):
    """Largest sum of r × share that spreads both sides evenly, as a linear program."""
    p, m = r.shape
    rows = np.kron(np.eye(p), np.ones(m))
    columns = np.kron(np.ones(p), np.eye(m))
    even = np.concatenate([np.full(p, 1 / p), np.full(m, 1 / m)])
    return -linprog(-r.ravel(), A_eq=np.vstack([rows, columns]), b_eq=even).fun


@pytest.mark.parametrize("n_features", [4, 6, 15])
def test_soft_matching_solves_the_linear_program(rng, n_features):
    x, y = rng.normal(size=(12, n_features)), rng.normal(size=(12, 6))
    expected = transported(correlations(x, y))
    assert matching_score(x, y) == pytest.approx(expected, abs=1e-9)


def test_one_to_one_finds_the_best_of_all_assignments(rng):
    x, y = rng.normal(size=(12, 6)), rng.normal(size=(12, 4))
    r = correlations(x, y)
    expected = max(
        np.mean([r[i, k] for k, i in enumerate(p)]) for p in permutations(range(6), 4)
    )
    assert matching_score(x, y, "one-to-one") == pytest.approx(expected, abs=1e-12)


def test_of_equally_many_units_both_are_the_same(rng):
    x, y = rng.normal(size=(12, 5)), rng.normal(size=(12, 5))
    expected = matching_score(x, y, "one-to-one")
    assert matching_score(x, y) == pytest.approx(expected, abs=1e-9)


def test_the_score_is_the_soft_matching_distance_of_standardised_units(rng):
    x, y = rng.normal(size=(12, 6)), rng.normal(size=(12, 4))
    x, y = ((one - one.mean(0)) / (12**0.5 * one.std(0)) for one in (x, y))
    cost = ((x.T[:, None] - y.T[None]) ** 2).sum(axis=2)
    squared_distance = -transported(-cost)
    assert 2 - 2 * matching_score(x, y) == pytest.approx(squared_distance, abs=1e-9)


@pytest.mark.parametrize("kind", ["soft", "one-to-one"])
def test_order_scale_and_mean_of_units_do_not_matter_but_rotation_does(rng, kind):
    x = rng.normal(size=(30, 6))
    sizes = np.array([1e-15, 1e-3, 1, 3, 1e3, 1e15])
    moved = sizes * (3 * x[:, rng.permutation(6)] + rng.normal(size=6))
    assert matching_score(x, moved, kind) == pytest.approx(1, abs=1e-9)
    rotation, _ = np.linalg.qr(rng.normal(size=(6, 6)))
    assert matching_score(x, x @ rotation, kind) < 0.9


@pytest.mark.parametrize("kind", ["soft", "one-to-one"])
def test_chance_finds_counterparts_only_where_nothing_is_held_out(rng, kind):
    folds = np.arange(40) % 5
    pairs = [(rng.normal(size=(40, 30)), rng.normal(size=(40, 30))) for _ in range(20)]
    within = [matching_score(x, y, kind) for x, y in pairs]
    held_out = [matching_score(x, y, kind, folds=folds) for x, y in pairs]
    assert np.mean(within) > 0.25
    assert abs(np.mean(held_out)) < 0.03


def test_a_unit_that_never_varies_matches_none(rng):
    x = rng.normal(size=(12, 4))
    dead = np.column_stack([x, np.full(12, 0.1)])
    assert matching_score(dead, x, "one-to-one") == pytest.approx(1, abs=1e-12)
    assert matching_score(np.full((12, 3), 0.1), x) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("x", "folds", "expected"),
    [
        (np.ones((11, 3)), None, "same stimuli"),
        (np.full((12, 3), np.nan), None, "NaN"),
        (np.ones((12, 3)), np.arange(12) % 6, "3 are needed"),
    ],
)
def test_what_cannot_be_matched_is_refused(rng, x, folds, expected):
    with pytest.raises(DataError, match=expected):
        matching_score(x, rng.normal(size=(12, 4)), folds=folds)
