"""How often intervals of similarities hold what they claim.

Stimuli and neuroids are drawn anew from one population; the truth is the mean of the
value over many such draws, which is what is expected of so many of them. Run with
``python -m benchmarks.fidelity.similarity [--replications 200]``; `spectral_exponent`
needs ``--stimuli 120``.
"""

import argparse

import numpy as np

from ce_align.metrics.gram import Array, Indices
from ce_align.metrics.jackknife import Over, jackknife_interval
from ce_align.stages.similarities import SIMILARITIES, SimilarityConfig

N_NEUROIDS, N_FEATURES, N_REPETITIONS = 30, 40, 4
N_LATENTS, SEED = 8, 0


class Population:
    """Stimuli as points, which a fixed network and neuroids see in part alike."""

    def __init__(self) -> None:
        rng = np.random.default_rng(SEED)
        scale = np.arange(1, N_LATENTS + 1) ** -0.5
        self.seen = rng.normal(size=(N_LATENTS, N_FEATURES)) * scale[:, None]
        self.tuned = scale[::-1]

    def stimuli(self, n_stimuli: int, rng: np.random.Generator) -> Array:
        """Stimuli, (n_stimuli, n_latents)."""
        return rng.normal(size=(n_stimuli, N_LATENTS))

    def neuroids(self, rng: np.random.Generator) -> Array:
        """Tuning of neuroids, (n_latents, n_neuroids)."""
        return rng.normal(size=(N_LATENTS, N_NEUROIDS)) * self.tuned[:, None]

    def responses(
        self, stimuli: Array, neuroids: Array, rng: np.random.Generator
    ) -> Array:
        """Noisy responses, (n_stimuli, n_repetitions, n_neuroids)."""
        shape = (len(stimuli), N_REPETITIONS, neuroids.shape[1])
        signal = np.maximum(stimuli @ neuroids, 0)
        return np.asarray(signal[:, None] + 1.5 * rng.normal(size=shape))


def coverage(
    name: str, over: Over, n_stimuli: int, replications: int, truths: int
) -> tuple[float, float, float]:
    """Share of intervals that hold the truth, their mean width, and the true one."""
    population, rng = Population(), np.random.default_rng(SEED + 1)
    similarity = SIMILARITIES[name]
    fixed = population.stimuli(n_stimuli, rng), population.neuroids(rng)

    def drawn() -> tuple[Array, Array, Array]:
        stimuli = fixed[0] if over == "neuroids" else population.stimuli(n_stimuli, rng)
        neuroids = fixed[1] if over == "stimuli" else population.neuroids(rng)
        features = np.tanh(stimuli @ population.seen)
        responses = population.responses(stimuli, neuroids, rng)
        config = SimilarityConfig(metric=name, model="m", recording="r").for_responses(
            responses
        )
        network = similarity.represent(features, config)
        folds = rng.permutation(n_stimuli) % config.folds

        def value_of(some: Indices, of: Indices) -> float:
            brain = similarity.of_responses(responses[:, :, of], config)
            a, b = (similarity.of_stimuli(x, some) for x in (network, brain))
            return similarity.compare(a, b, config, folds[some])

        whole = np.arange(n_stimuli), np.arange(N_NEUROIDS)
        value = value_of(*whole)
        low = high = np.nan
        if len(values) >= truths:
            found = jackknife_interval(value_of, n_stimuli, N_NEUROIDS, rng, over=over)
            low, high = found.low, found.high
        return np.array(value), np.array(low), np.array(high)

    values: list[float] = []
    intervals = []
    for k in range(truths + replications):
        value, low, high = drawn()
        values.append(float(value))
        if k >= truths:
            intervals.append((float(low), float(high)))
    truth, (low, high) = np.mean(values), np.array(intervals).T
    held = np.mean((low <= truth) & (truth <= high))
    return float(held), float(np.mean(high - low)), float(2 * 1.96 * np.std(values))


def main() -> None:
    """Print a line for each similarity and kind of interval."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replications", type=int, default=200)
    parser.add_argument("--stimuli", type=int, default=60)
    parser.add_argument("--truths", type=int, default=400)
    parser.add_argument("--metric", action="append", choices=list(SIMILARITIES))
    asked = parser.parse_args()
    print(
        f"{asked.stimuli} stimuli, {N_NEUROIDS} neuroids, {N_REPETITIONS} repetitions, "
        f"{asked.replications} simulated recordings; nominal 95 %"
    )
    kinds: tuple[Over, ...] = ("stimuli", "neuroids", "both")
    for name in asked.metric or SIMILARITIES:
        for over in kinds:
            counts = asked.stimuli, asked.replications, asked.truths
            share, width, right = coverage(name, over, *counts)
            print(
                f"{name:14} {over:9} covers {share:6.1%}, width {width:.3f} "
                f"(of the spread of values {right:.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
