"""Coverage of intervals of unique variance over neuroids, by planted data.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.fidelity.unique_intervals``. Neuroids
and their noise are drawn anew while stimuli stay, as the interval claims; one
regression serves all of them, since each neuroid is fitted by itself. The truth is the
mean over all neuroids that were drawn for the same stimuli.
"""

import argparse

import numpy as np

from benchmarks.fidelity.predictivity_intervals import world
from ce_align.metrics.banded_ridge import banded_ridge
from ce_align.metrics.inference import unit_interval

__all__ = ["main"]

N_STIMULI, WORLDS = 120, 5


def main() -> None:
    """Print a line for each number of neuroids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=500)
    asked = parser.parse_args()
    for n_neuroids in (8, 30, 100):
        held, widths, means = [], [], []
        groups = asked.replications // WORLDS
        for seed in range(WORLDS):
            networks, responses, _ = world(
                N_STIMULI, groups * n_neuroids, 1, (seed, 100 + seed), False
            )
            features = dict(zip("ab", networks, strict=True))
            folds = np.random.default_rng(seed).permutation(np.arange(N_STIMULI) % 5)
            unique = banded_ridge(features, responses, folds).unique[0]
            truth, rng = unique.mean(), np.random.default_rng(seed)
            for group in unique.reshape(groups, n_neuroids):
                found = unit_interval(group, rng)
                held.append(found.low <= truth <= found.high)
                widths.append(found.high - found.low)
                means.append(group.mean() - truth)
        print(
            f"{n_neuroids:3} neuroids: covers {np.mean(held):6.1%} of "
            f"{len(held)} simulated recordings, width {np.mean(widths):.4f} "
            f"(of the spread of values {2 * 1.96 * np.std(means):.4f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
