"""Images and rows for the tests of pixels."""

from dataclasses import replace

import numpy as np
import pytest

from ce_align.augment import AugmentationLedger


def scene(rng, height, width):
    """Smooth colours, hard edges, saturated and grey parts, and noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.random((3, 3))]
    image = 128 + 127 * np.stack(waves, axis=2)
    image[height // 3 : height // 2, : width // 2] = rng.integers(0, 256, 3)
    image[height // 2 :, width // 2 :] = image[height // 2 :, width // 2 :, :1]
    image += rng.normal(0, 8, image.shape) * (x > 0.7)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def make_scene():
    """Function (rng, height, width) -> image."""
    return scene


@pytest.fixture(scope="session")
def image():
    return scene(np.random.default_rng(0), 60, 80)


@pytest.fixture(scope="session")
def neutral():
    """Function that gives one row that does nothing but the named change."""

    def row(**changes):
        values = {name: np.array([value]) for name, value in changes.items()}
        return replace(AugmentationLedger.identity(1), **values)

    return row
