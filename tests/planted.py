"""Recordings that features explain to a stated part, and what is then expected."""

import numpy as np

from ce_align.data.scenes import procedural_scenes
from ce_align.data.simulation import poisson_recording, standardised


def planted_recording(features, population, images=None):
    """Neuroids a stated part of whose signal is linear in given features.

    A regression on the features has the normalised score `explainable_fraction`, less
    what it loses by learning from few stimuli.
    """
    if images is None:
        images = procedural_scenes(len(features), seed=population.seed)
    features = features[:, np.ptp(features, axis=0) > 0]
    rng = np.random.default_rng([population.seed, 2])
    weights = rng.normal(size=(features.shape[1], population.n_neuroids))
    drive = standardised(features) @ weights
    return poisson_recording(images, drive, population, rng)


def correlation(truth, n_first, n_second):
    """Expected correlation of averages over two sets of presentations, (n_neuroids,).

    Averaging m counts of mean λ leaves a noise of variance λ / m, so that
    r = var(λ) / √((var(λ) + mean(λ) / m₁) (var(λ) + mean(λ) / m₂)), up to terms of
    order 1 / n_stimuli.
    """
    signal, noise = truth.rates.var(axis=0, ddof=1), truth.rates.mean(axis=0)
    return signal / np.sqrt((signal + noise / n_first) * (signal + noise / n_second))


def ceilings(truth):
    """Expected split-half ceiling after Spearman–Brown, (n_neuroids,)."""
    half = truth.n_repetitions // 2
    r = correlation(truth, half, truth.n_repetitions - half)
    return 2 * r / (1 + r)


def raw_correlations(truth):
    """Expected correlation of ``explained`` with averaged counts, (n_neuroids,)."""
    reliability = correlation(truth, truth.n_repetitions, truth.n_repetitions)
    return np.sqrt(truth.explainable_fraction * reliability)
