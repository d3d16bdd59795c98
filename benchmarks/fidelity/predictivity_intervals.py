"""Coverage of intervals of raw predictivity, and of differences, by planted data.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.fidelity.predictivity_intervals``.
Stimuli, neuroids (of animals that differ) and noise are drawn anew as far as an
interval claims to cover them, and regressions are fitted anew each time, which the
bootstrap does not do. The target is the mean over all replications.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.metrics.held_out import HeldOut
from ce_align.metrics.inference import Interval
from ce_align.metrics.predictivity import brainscore_splits, held_out
from ce_align.metrics.two_factor import Factor, resample

__all__ = ["intervals", "main"]

Array = NDArray[np.float64]

#: Latent dimensions; network A lacks some of the later ones, network B others.
LATENT = 40
#: What differs between animals, in standard deviations of a neuroid's weights.
ANIMAL_EFFECT = 0.5


def world(
    n_stimuli: int, n_neuroids: int, n_animals: int, seeds: tuple[int, int], same: bool
) -> tuple[list[Array], Array, NDArray[np.intp]]:
    """Features of two networks, responses, and the animal of each neuroid."""
    of_stimuli, of_neuroids = (np.random.default_rng(seed) for seed in seeds)
    spectrum = np.arange(1, LATENT + 1) ** -0.5
    latents = of_stimuli.normal(size=(n_stimuli, LATENT)) * spectrum
    fixed = np.random.default_rng(0)
    mixing = fixed.normal(size=(2, LATENT, 120)) / np.sqrt(LATENT)
    seen = np.ones((2, LATENT))
    seen[0, 5::3] = 0
    seen[1, (6 if same else 4) :: 3] = 0
    features = [
        np.maximum(latents * keep @ mix, 0)
        for keep, mix in zip(seen, mixing, strict=True)
    ]
    animals = np.arange(n_neuroids) % n_animals
    of_animal = of_neuroids.normal(size=(n_animals, LATENT)) * ANIMAL_EFFECT
    if n_animals == 1:  # other neuroids of the same animal
        of_animal = fixed.normal(size=(1, LATENT)) * ANIMAL_EFFECT
    weights = of_neuroids.normal(size=(n_neuroids, LATENT)) + of_animal[animals]
    noise = of_neuroids.gamma(2.0, 0.5, size=n_neuroids)
    signal = np.tanh(latents @ weights.T)
    noisy = of_stimuli.normal(size=signal.shape) * noise * 0.7
    return features, signal + noisy, animals


def intervals(
    n_stimuli: int,
    n_neuroids: int,
    over: Factor,
    n: int,
    *,
    n_animals: int = 1,
    regression: str = "ridge",
    same: bool = False,
) -> Iterator[tuple[Interval, Interval]]:
    """Of network A, and of the difference A − B, once a replication."""
    for k in range(n):
        new = 2 * k + 1, 2 * k + 2
        seeds = {"rows": (new[0], 9**9), "columns": (9**9, new[1])}.get(over, new)
        made = world(n_stimuli, n_neuroids, n_animals, seeds, same)
        features, rates, animals = made
        splits = brainscore_splits(n_stimuli)
        options: dict[str, Any] = {"regression": regression, "n_components": 10}
        options |= {"alpha": 10.0} if regression == "ridge" else {}
        fits = [held_out(x, rates, splits, **options) for x in features]
        found = resample(
            partial(_raws, fits),
            n_stimuli,
            n_neuroids,
            np.random.default_rng(k),
            over=over,
            groups=animals if n_animals > 1 else None,
            n_resamples=400,
        )
        yield found.interval([1, 0]), found.interval([1, -1])


def _raws(
    fits: list[HeldOut], stimuli: NDArray[np.int64], neuroids: NDArray[np.int64]
) -> Array:
    return np.stack([fit.raw(stimuli, neuroids) for fit in fits], axis=1)


def main() -> None:
    """Print a line for each design."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=200)
    n = parser.parse_args().replications
    designs: list[tuple[int, int, Factor, dict[str, Any]]] = [
        (100, 20, "rows", {}),
        (100, 20, "columns", {}),
        (100, 20, "both", {}),
        (300, 60, "rows", {}),
        (300, 60, "columns", {}),
        (300, 60, "both", {}),
        (300, 60, "both", {"regression": "pls"}),
        (300, 60, "both", {"same": True}),
        (300, 60, "columns", {"n_animals": 2}),
        (300, 60, "columns", {"n_animals": 4}),
        (300, 60, "both", {"n_animals": 4}),
    ]
    print("stimuli neuroids over     variant            raw: covered width/sd  A-B")
    for n_stimuli, n_neuroids, over, options in designs:
        found = intervals(n_stimuli, n_neuroids, over, n, **options)
        line = f"{n_stimuli:7} {n_neuroids:8} {over:8} {options!s:20}"
        for kind in zip(*found, strict=True):
            estimate, low, high = np.array(
                [(i.estimate, i.low, i.high) for i in kind]
            ).T
            target = estimate.mean()
            covered = np.mean((low <= target) & (target <= high))
            ratio = np.mean(high - low) / 2 / (1.96 * estimate.std(ddof=1))
            line += f"  {covered:6.3f} {ratio:5.2f}"
        print(line, flush=True)


if __name__ == "__main__":
    main()
