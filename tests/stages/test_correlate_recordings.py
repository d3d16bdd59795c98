"""Measures against predictivity over several recordings."""

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize
from test_correlate import measure_rows, run, score_rows

from ce_align.results import ResultStore

NAMES = [f"net{k}" for k in range(14)]
OVER_ALL = "mean of 3 recordings"


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path)


def of_networks(values):
    return dict(zip(NAMES, values, strict=True))


def simulated(rng, effect=0.6):
    """A measure, and scores: of network, recording, and what is left."""
    x = rng.normal(size=len(NAMES))
    network = effect * x + rng.normal(size=len(NAMES))
    scores = network[:, None] + 3 * rng.normal(size=3)
    return x, scores + 0.4 * rng.normal(size=scores.shape)


def found(x, scores, store):
    parts = [score_rows(of_networks(y), f"r{k}") for k, y in enumerate(scores.T)]
    names = [f"r{k}" for k in range(scores.shape[1])]
    rows, _ = run(measure_rows(of_networks(x)), pd.concat(parts), store, *names)
    return {row.recording: row for row in rows}


def reml(x, y):
    """t of the slope of a mixed model with crossed intercepts, by its likelihood."""
    n, k = y.shape
    design = np.stack([np.ones(n * k), np.repeat(x, k)], axis=1)
    of_network = np.kron(np.eye(n), np.ones((k, k)))
    of_recording = np.kron(np.ones((n, n)), np.eye(k))
    values = y.ravel()

    def fit(logs):
        a, b, c = np.exp(logs)
        v = a * of_network + b * of_recording + c * np.eye(n * k)
        inverse = np.linalg.inv(v)
        information = design.T @ inverse @ design
        beta = np.linalg.solve(information, design.T @ inverse @ values)
        left = values - design @ beta
        terms = np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1]
        return terms + left @ inverse @ left, beta[1], np.linalg.inv(information)[1, 1]

    best = minimize(
        lambda logs: fit(logs)[0], np.zeros(3), method="Nelder-Mead", tol=1e-10
    )
    _, slope, variance = fit(best.x)
    return slope / np.sqrt(variance)


def test_r_over_recordings_is_that_of_the_mixed_model(rng, store):
    x, scores = simulated(rng)
    row = found(x, scores, store)[OVER_ALL]
    scaled = (scores - scores.mean(axis=0)) / scores.std(axis=0, ddof=1)
    t = row.value * np.sqrt((len(x) - 2) / (1 - row.value**2))
    assert t == pytest.approx(reml(x, scaled), rel=1e-3)


def test_recordings_agree_on_networks_and_not_on_scales(rng, store, tmp_path):
    x, scores = simulated(rng)
    row = found(x, scores, store)[OVER_ALL]
    other = scores * [100, 1, 0.01] + [5, 0, -5]
    again = found(x, other, ResultStore(tmp_path / "b"))[OVER_ALL]
    assert again.value == pytest.approx(row.value)
    assert again.n_networks == len(NAMES)


def test_networks_without_all_recordings_are_not_of_the_mean(rng, store):
    x, scores = simulated(rng)
    parts = [score_rows(of_networks(y), f"r{k}") for k, y in enumerate(scores.T)]
    parts[0] = parts[0].iloc[4:]
    rows, _ = run(
        measure_rows(of_networks(x)), pd.concat(parts), store, "r0", "r1", "r2"
    )
    counts = {row.recording: row.n_networks for row in rows}
    assert counts == {"r0": 10, "r1": 14, "r2": 14, OVER_ALL: 10}


def test_one_recording_has_no_mean(rng, store):
    x, scores = simulated(rng)
    assert set(found(x, scores[:, :1], store)) == {"r0"}
