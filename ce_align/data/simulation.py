"""The embedded default: IT-like neuroids that see procedural scenes."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.data.populations import (
    Floats,
    Population,
    SimulatedRecording,
    poisson_recording,
    standardised,
)
from ce_align.data.recordings import Entry
from ce_align.data.scenes import procedural_scenes
from ce_align.errors import ConfigError

__all__ = ["SIMULATED", "simulated_recording"]

N_IMAGES = 640
N_REPETITIONS = 20
N_NEUROIDS = 96

#: Expected share of each part of the tuning in its variance. More of macaque IT's
#: variance follows the category than any single other variable.
TUNING_SHARES = {
    "category": 0.30,
    "category_at_place": 0.10,
    "category_in_pose": 0.10,
    "place": 0.15,
    "size": 0.15,
    "colour": 0.10,
    "background": 0.10,
}
#: How alike the shares are across neuroids (sum of Dirichlet parameters).
SHARE_CONCENTRATION = 10


def simulated_recording(
    *,
    n_images: int = N_IMAGES,
    n_repetitions: int = N_REPETITIONS,
    n_neuroids: int = N_NEUROIDS,
    explainable_fraction: float = 0.8,
    mean_count: float = 3.0,
    modulation: float = 0.4,
    image_size: int = 112,
    seed: int = 0,
) -> SimulatedRecording:
    """IT-like neuroids that see procedural scenes.

    Each neuroid is tuned to the category, to where and in which pose objects of its
    preferred categories appear, and to place, size, colour and background whatever
    the category. The remaining part of its signal is peculiar to neuroid and stimulus:
    no model predicts it.

    Parameters
    ----------
    n_images : number of scenes
    n_repetitions, n_neuroids, explainable_fraction, mean_count, modulation : as in
        `ce_align.data.populations.Population`
    image_size : height and width of the scenes in pixels
    seed : of scenes, tuning and noise

    Raises
    ------
    ConfigError
        If a number is out of its range.
    """
    population = Population(
        n_neuroids, n_repetitions, explainable_fraction, mean_count, modulation, seed
    )
    if n_images < 2:
        raise ConfigError(f"n_images must be at least 2, found {n_images}")
    images = procedural_scenes(n_images, seed=seed, size=image_size)
    rng = np.random.default_rng([seed, 1])
    drive = _tuning(images.columns, n_neuroids, rng)
    return poisson_recording(images, drive, population, rng)


def _tuning(
    scenes: Mapping[str, NDArray[Any]], n_neuroids: int, rng: np.random.Generator
) -> Floats:
    """Drive of each neuroid by each scene, (n_stimuli, n_neuroids)."""

    def column(name: str) -> Floats:
        return np.asarray(scenes[name], dtype=np.float64)[:, None]

    def preferred(low: float, high: float) -> Floats:
        return rng.uniform(low, high, size=n_neuroids)

    def sign() -> Floats:
        return np.sign(preferred(-1, 1))

    names, category = np.unique(scenes["object_name"], return_inverse=True)
    liking = rng.normal(size=(len(names), n_neuroids))[category]
    # A receptive field that is large, as in IT, but does not cover the image evenly.
    across, up = column("x") - preferred(-0.5, 0.5), column("y") - preferred(-0.5, 0.5)
    place = np.exp(-(across**2 + up**2) / (2 * preferred(0.25, 0.6) ** 2))
    pose = np.cos(np.radians(column("yaw")) * 1.5 - preferred(-math.pi, math.pi))
    hue = 2 * math.pi * column("hue") - preferred(-math.pi, math.pi)
    behind = 2 * math.pi * column("background_hue") - preferred(-math.pi, math.pi)
    parts = {
        "category": liking,
        "category_at_place": liking * standardised(place),
        "category_in_pose": liking * standardised(pose),
        "place": place,
        "size": np.tanh(4 * (column("size") - preferred(0.45, 0.8))) * sign(),
        "colour": column("saturation") * np.cos(hue),
        "background": column("background_brightness") * sign() + np.cos(behind) / 8,
    }
    shares = rng.dirichlet(
        SHARE_CONCENTRATION * np.array(list(TUNING_SHARES.values())), size=n_neuroids
    )
    drive = np.zeros_like(liking)
    for share, name in zip(shares.T, TUNING_SHARES, strict=True):
        drive += np.sqrt(share) * standardised(parts[name])
    return drive


#: How the default simulated recording is listed, and made when it is asked for.
SIMULATED = Entry(
    name="simulated",
    region="IT",
    load=lambda: simulated_recording().recording,
    images=N_IMAGES,
    neuroids=N_NEUROIDS,
    repetitions=N_REPETITIONS,
    access="simulated: embedded",
)
