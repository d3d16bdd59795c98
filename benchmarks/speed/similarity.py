"""Representational similarity against rsatoolbox: the same numbers, and how fast.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.similarity``. Times are of the
process, best of three, and so are ratios.
"""

import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.speed._machine import describe
from ce_align.metrics.rdm import (
    Comparator,
    Distance,
    compare_rdms,
    dissimilarities,
    squared_distances,
    unbiased_gram,
)

#: It states no types.
toolbox: Any = import_module("rsatoolbox.rdm")
data: Any = import_module("rsatoolbox.data")

N_STIMULI, N_REPETITIONS, N_NEUROIDS, N_FEATURES = 92, 6, 100, 5000
COMPARATORS: dict[Comparator, str] = {
    "cosine": "cosine",
    "correlation": "corr",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "whitened": "cosine_cov",
}


def timed(function: Callable[[], Any], repeats: int = 3) -> tuple[float, Any]:
    """Seconds of the process, the best of several, and what was returned."""
    seconds = []
    for _ in range(repeats):
        start = time.process_time()
        found = function()
        seconds.append(time.process_time() - start)
    return min(seconds), found


def own_distances(features: Any, distance: Distance) -> Any:
    """Our dissimilarities, one for each pair."""
    return dissimilarities(features, distance)[np.triu_indices(len(features), 1)]


def main() -> None:
    """Print a line for each distance and comparator."""
    print(describe())
    rng = np.random.default_rng(0)
    n, r, m = N_STIMULI, N_REPETITIONS, N_NEUROIDS
    features = rng.normal(size=(n, 8)) @ rng.normal(size=(8, N_FEATURES))
    features += rng.normal(size=features.shape)
    signal = features @ rng.normal(size=(N_FEATURES, m)) / 50
    responses = signal[:, None] + rng.normal(size=(n, r, m)) * signal.std()
    stimulus, run = np.repeat(np.arange(n), r), np.tile(np.arange(r), n)
    told = data.Dataset(
        responses.reshape(-1, m), obs_descriptors={"stimulus": stimulus, "run": run}
    )
    pairs = np.triu_indices(n, 1)

    def line(name: str, ours: Callable[[], Any], theirs: Callable[[], Any]) -> Any:
        seconds, own = timed(ours)
        slower, other = timed(theirs, 1 if name.startswith("crossval") else 3)
        difference = np.abs(np.asarray(own) - np.asarray(other)).max()
        print(
            f"{name:24} {seconds:9.4f} s, rsatoolbox {slower:9.4f} s, "
            f"{slower / seconds:8.1f}×, differ by {difference:.0e}",
            flush=True,
        )
        return own

    wide = data.Dataset(features)
    distances: tuple[Distance, ...] = ("euclidean", "correlation")
    for distance in distances:
        line(
            f"{distance} distances",
            partial(own_distances, features, distance),
            lambda: toolbox.calc_rdm(wide, distance).dissimilarities[0],  # noqa: B023
        )
    own = line(
        "crossvalidated distances",
        lambda: squared_distances(unbiased_gram(responses))[pairs],
        lambda: toolbox.calc_rdm(
            told, "crossnobis", descriptor="stimulus", cv_descriptor="run"
        ).dissimilarities[0],
    )
    model = dissimilarities(features)
    brain = squared_distances(unbiased_gram(responses))
    both = toolbox.RDMs(model[pairs][None]), toolbox.RDMs(np.asarray(own)[None])
    name: Comparator
    for name, of_theirs in COMPARATORS.items():
        line(
            name,
            partial(compare_rdms, model, brain, name),
            lambda: toolbox.compare(*both, method=of_theirs)[0, 0],  # noqa: B023
        )


if __name__ == "__main__":
    main()
