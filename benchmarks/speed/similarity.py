"""Representational similarity against rsatoolbox: the same numbers, and how fast.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.similarity``. Both start
from the same numbers in one process.
"""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import numpy as np

from benchmarks.speed._measure import Measured, Rows, in_turns, main
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

N_FEATURES = 5000
COMPARATORS: dict[Comparator, str] = {
    "cosine": "cosine",
    "correlation": "corr",
    "spearman": "spearman",
    "rho-a": "rho-a",
    "whitened": "cosine_cov",
}


def own_distances(features: Any, distance: Distance) -> Any:
    """Our dissimilarities, one for each pair."""
    return dissimilarities(features, distance)[np.triu_indices(len(features), 1)]


def rows(stimuli: int = 92, repetitions: int = 6, neuroids: int = 100) -> Rows:
    """Each distance and comparator."""
    rng = np.random.default_rng(0)
    n, r, m = stimuli, repetitions, neuroids
    features = rng.normal(size=(n, 8)) @ rng.normal(size=(8, N_FEATURES))
    features += rng.normal(size=features.shape)
    signal = features @ rng.normal(size=(N_FEATURES, m)) / 50
    responses = signal[:, None] + rng.normal(size=(n, r, m)) * signal.std()
    stimulus, run = np.repeat(np.arange(n), r), np.tile(np.arange(r), n)
    told = data.Dataset(
        responses.reshape(-1, m), obs_descriptors={"stimulus": stimulus, "run": run}
    )
    wide, pairs = data.Dataset(features), np.triu_indices(n, 1)
    model = dissimilarities(features)
    brain = squared_distances(unbiased_gram(responses))
    both = toolbox.RDMs(model[pairs][None]), toolbox.RDMs(brain[pairs][None])
    distances: tuple[Distance, ...] = ("euclidean", "correlation")
    jobs: list[tuple[str, Callable[[], Any], Callable[[], Any]]] = [
        *(
            (
                f"{distance} distances",
                partial(own_distances, features, distance),
                lambda distance=distance: toolbox.calc_rdm(
                    wide, distance
                ).dissimilarities[0],
            )
            for distance in distances
        ),
        (
            "crossvalidated distances",
            lambda: squared_distances(unbiased_gram(responses))[pairs],
            lambda: toolbox.calc_rdm(
                told, "crossnobis", descriptor="stimulus", cv_descriptor="run"
            ).dissimilarities[0],
        ),
        *(
            (
                f"{name} of two matrices",
                partial(compare_rdms, model, brain, name),
                lambda method=method: toolbox.compare(*both, method=method)[0, 0],
            )
            for name, method in COMPARATORS.items()
        ),
    ]
    for name, own, other in jobs:
        ours, theirs = in_turns(
            own, other, repeats=1 if name.startswith("crossval") else 3
        )
        found, expected = np.asarray(own()), np.asarray(other())
        yield Measured(
            f"{name}, {n} stimuli",
            1e3 * ours,
            "ms",
            peer="rsatoolbox",
            theirs=1e3 * theirs,
            apart=float(np.abs(found - expected).max() / np.abs(expected).max()),
            within=1e-10,
        )


if __name__ == "__main__":
    main(rows)
