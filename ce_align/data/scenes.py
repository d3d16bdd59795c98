"""Procedural scenes, drawn when they are asked for, and image sets by name."""

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from ce_align.data.drawing import BACKGROUNDS, TEXTURES, Scene, render_scene
from ce_align.data.imagesets import ImageSet, Pixels
from ce_align.data.objects import N_PROPORTIONS, OBJECTS
from ce_align.errors import ConfigError
from ce_align.names import KNOWN

__all__ = [
    "MAX_CLASSES",
    "MIN_SCENES",
    "SIMULATED_IMAGES",
    "SIZES",
    "default_images",
    "find_images",
    "procedural_scenes",
    "sample_scene",
]

MAX_CLASSES = len(OBJECTS)
#: Numbers of pixels, in each direction, at which objects can still be told apart and
#: beyond which there is nothing more to see.
SIZES = range(32, 513)

#: Fields of a scene that become columns of the image set.
COLUMNS = tuple(
    name for name in Scene.__annotations__ if name not in ("proportions", "seed")
)


def sample_scene(seed: int, number: int, n_classes: int = MAX_CLASSES) -> Scene:
    """Scene `number` of the endless sequence of a seed; the classes take turns.

    All else is independent of the class and of other scenes.
    """
    rng = np.random.default_rng([seed, number])

    def between(low: float, high: float) -> float:
        return round(low + (high - low) * rng.random(), 6)

    def one_of(choices: tuple[str, ...]) -> str:
        return choices[int(rng.random() * len(choices))]

    return Scene(
        object_name=tuple(OBJECTS)[number % n_classes],
        x=between(-0.35, 0.35),
        y=between(-0.35, 0.35),
        size=between(0.42, 0.85),
        yaw=between(-60, 60),
        pitch=between(-10, 40),
        roll=between(-30, 30),
        hue=between(0, 1),
        saturation=between(0.35, 0.9),
        brightness=between(0.55, 1),
        texture=one_of(TEXTURES),
        light=between(20, 160),
        background=one_of(tuple(BACKGROUNDS)),
        background_hue=between(0, 1),
        background_brightness=between(0.3, 0.8),
        background_contrast=between(0.25, 1),
        proportions=tuple(between(0, 1) for _ in range(N_PROPORTIONS)),
        seed=(seed, number, 1),
    )


_kept = lru_cache(1024)(render_scene)


@dataclass(frozen=True)
class _ScenePixels(Pixels):
    """Pixels that are drawn when asked for, so that no number of scenes fills memory.

    Of small scenes the last 1,024 are kept, 50 MB at most: a digest and every network
    ask for each.
    """

    scenes: tuple[Scene, ...]
    size: int

    def load(self, index: int) -> Image.Image:
        scene = self.scenes[index]
        if self.size <= 128:
            return Image.fromarray(_kept(scene, self.size))
        return Image.fromarray(render_scene(scene, self.size))

    def height_and_width(self, index: int) -> tuple[int, int]:
        return self.size, self.size


def procedural_scenes(
    n: int, *, seed: int = 0, n_classes: int = MAX_CLASSES, size: int = 112
) -> ImageSet:
    """Images of shaded objects at any place, size, pose and colour, before clutter.

    Image k depends on `seed`, `n_classes`, `size` and k only: a larger set begins with
    the smaller one. Each class has the same number of images, or one more.

    The columns are ``object_name`` and the other variables of `Scene`, all independent
    of the class. Raises ConfigError if a number is out of its range.

    >>> scenes = procedural_scenes(16, size=64)
    >>> scenes.load(3).size, str(scenes.columns["object_name"][3])
    ((64, 64), 'chair')
    """
    if n < 1:
        raise ConfigError(f"n must be at least 1 scene, found {n}")
    if seed < 0:
        raise ConfigError(f"seed must not be negative, found {seed}")
    if not 1 <= n_classes <= MAX_CLASSES:
        raise ConfigError(
            f"n_classes must be from 1 to {MAX_CLASSES} ({', '.join(OBJECTS)}), found "
            f"{n_classes}"
        )
    if size not in SIZES:
        raise ConfigError(
            f"size must be from {SIZES[0]} to {SIZES[-1]} pixels, found {size}"
        )
    scenes = tuple(sample_scene(seed, number, n_classes) for number in range(n))
    columns = {
        name: np.array([getattr(scene, name) for scene in scenes]) for name in COLUMNS
    }
    ids = tuple(f"scene_{seed}_{number:06d}" for number in range(n))
    pixels = _ScenePixels(scenes, size)
    return ImageSet(f"scenes_{seed}", ids, pixels, columns, origin="simulated")


#: Names the ImageNet validation images, a folder or an archive.
IMAGENET_VARIABLE = "CE_ALIGN_IMAGENET"

#: Name of the procedural scenes.
SIMULATED_IMAGES = "simulated"
KNOWN["images"].add(SIMULATED_IMAGES)

#: Scenes that are made at least, so that each of the classes has fifty.
MIN_SCENES = 400


def default_images() -> str:
    """ImageNet's validation images if the environment names them, else the scenes."""
    return os.environ.get(IMAGENET_VARIABLE) or SIMULATED_IMAGES


def find_images(name: str, n_scenes: int = MIN_SCENES) -> ImageSet:
    """Images of a folder, zip or tar, or the first procedural scenes: ``simulated``.

    Of scenes there are `n_scenes`, at least 400. Raises ConfigError if there is nothing
    of that name, DataError if it holds no images.
    """
    if name == SIMULATED_IMAGES:
        return procedural_scenes(max(n_scenes, MIN_SCENES))
    path = Path(name)
    if not path.exists():
        raise ConfigError(
            f"no images at {name}; give a folder, a zip, a tar, or "
            f"{SIMULATED_IMAGES!r} for procedural scenes"
        )
    return ImageSet.from_path(path)
