"""Simulated neuroids whose ceiling and explainable part are known."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.data.imagesets import ImageSet
from ce_align.data.named import Entry
from ce_align.data.recordings import Recording
from ce_align.data.scenes import procedural_scenes
from ce_align.errors import ConfigError

__all__ = [
    "SIMULATED",
    "TUNING_SHARES",
    "Population",
    "Truth",
    "poisson_recording",
    "simulated_recording",
    "standardised",
]

Floats = NDArray[np.float64]

#: Standard deviation over neuroids of the logarithm of the mean count.
COUNT_SPREAD = 0.4


@dataclass(frozen=True, eq=False)
class Truth:
    """What produced a simulated recording.

    Counts of neuroid j for stimulus i are Poisson with mean ``rates[i, j]``.

    rates : (n_stimuli, n_neuroids), expected spike counts of one presentation
    explained : (n_stimuli, n_neuroids), the part of the signal that is a function of
        the features or scenes; mean 0 and variance 1 for each neuroid
    explainable_fraction : share of the variance of ``rates`` that ``explained`` has;
        the normalised score of a model that knows it
    n_repetitions : presentations of each stimulus
    """

    rates: Floats
    explained: Floats
    explainable_fraction: float
    n_repetitions: int


@dataclass(frozen=True, eq=False)
class SimulatedRecording:
    """A recording together with what produced it."""

    recording: Recording
    truth: Truth


@dataclass(frozen=True)
class Population:
    """How many neuroids there are, and how they respond to what drives them.

    n_repetitions : presentations of each stimulus
    explainable_fraction : share of the signal variance that follows the drive; the
        rest is peculiar to neuroid and stimulus, and no model predicts it
    mean_count : typical mean spike count of one presentation
    modulation : standard deviation of a neuroid's expected counts over their mean; less
        for neuroids whose expected counts would become negative
    seed : of tuning and noise

    Raises ConfigError if a number is out of its range.
    """

    n_neuroids: int
    n_repetitions: int
    explainable_fraction: float
    mean_count: float = 3.0
    modulation: float = 0.4
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "n_neuroids": (1, math.inf),
            "n_repetitions": (1, math.inf),
            "explainable_fraction": (0, 1),
            "mean_count": (0.01, 1e6),
            "modulation": (0, 1e6),
            "seed": (0, math.inf),
        }
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if not low <= value <= high:
                limit = f"at least {low}" if high == math.inf else f"{low} to {high:g}"
                raise ConfigError(f"{name} must be {limit}, found {value}")


def poisson_recording(
    images: ImageSet, drive: Floats, population: Population, rng: np.random.Generator
) -> SimulatedRecording:
    """Poisson counts of neuroids that are driven by a function of the stimuli.

    drive : (n_stimuli, n_neuroids); its scale and mean do not matter, but every neuroid
        must be driven unequally by the stimuli
    rng : of the rest of the signal and of the counts
    """
    fraction = population.explainable_fraction
    explained = standardised(drive)
    # Bounded, unlike normal numbers, so that the counts can follow it further.
    peculiar = standardised(rng.uniform(-1, 1, size=drive.shape))
    signal = standardised(
        math.sqrt(fraction) * explained + math.sqrt(1 - fraction) * peculiar
    )
    # Clipping at zero would bend the signal and with it the planted fraction.
    gain = np.minimum(population.modulation, 1 / -signal.min(axis=0))
    spread = np.exp(COUNT_SPREAD * rng.normal(size=drive.shape[1]))
    rates = population.mean_count * spread * (1 + gain * signal)
    # Rounded, because exponentials and sums differ in their last bit between machines;
    # the lowest rate at the largest gain can then be just below zero.
    rates = np.maximum(rates.round(9), 0)
    shape = (len(rates), population.n_repetitions, rates.shape[1])
    recording = Recording(
        identifier="simulated",
        images=images,
        responses=rng.poisson(rates[:, None, :], size=shape).astype(np.float64),
        neuroid_ids=tuple(f"simulated_{j:03d}" for j in range(rates.shape[1])),
        region="IT",
        stratify="object_name" if "object_name" in images.columns else None,
        origin="simulated",
    )
    truth = Truth(rates, explained, fraction, population.n_repetitions)
    return SimulatedRecording(recording, truth)


def standardised(values: Floats) -> Floats:
    """Columns with mean 0 and variance 1."""
    centred = values - values.mean(axis=0)
    scaled: Floats = centred / centred.std(axis=0)
    return scaled


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
    """A `Population` of IT-like neuroids that see procedural scenes of `image_size`.

    Each neuroid is tuned to the category, to where and in which pose objects of its
    preferred categories appear, and to place, size, colour and background whatever
    the category. The remaining part of its signal is peculiar to neuroid and stimulus:
    no model predicts it. Raises ConfigError if a number is out of its range.
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


@cache
def _default_recording() -> Recording:
    """The one of all calls; its scenes are rendered once to be told apart."""
    return simulated_recording().recording


#: How the default simulated recording is listed, and made when it is asked for.
SIMULATED = Entry(
    name="simulated",
    region="IT",
    load=_default_recording,
    images=N_IMAGES,
    neuroids=N_NEUROIDS,
    repetitions=N_REPETITIONS,
    access="simulated: embedded",
    origin="simulated",
)
