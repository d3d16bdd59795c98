"""Image sets by name: a folder, an archive, or the procedural scenes."""

import os
from pathlib import Path

from ce_align.data.imagesets import ImageSet
from ce_align.data.scenes import procedural_scenes
from ce_align.errors import ConfigError

__all__ = ["IMAGENET_VARIABLE", "SIMULATED_IMAGES", "default_images", "find_images"]

#: Names the ImageNet validation images, a folder or an archive.
IMAGENET_VARIABLE = "CE_ALIGN_IMAGENET"

#: Name of the procedural scenes.
SIMULATED_IMAGES = "simulated"

#: Scenes that are made at least, so that each of the classes has fifty.
MIN_SCENES = 400


def default_images() -> str:
    """ImageNet's validation images if the environment names them, else the scenes."""
    return os.environ.get(IMAGENET_VARIABLE) or SIMULATED_IMAGES


def find_images(name: str, n_scenes: int = MIN_SCENES) -> ImageSet:
    """Image set of a name.

    Parameters
    ----------
    name : folder, zip or tar, or ``simulated``
    n_scenes : procedural scenes, at least 400; always the same ones

    Raises
    ------
    ConfigError
        If there is nothing of that name.
    DataError
        If it holds no images.
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
