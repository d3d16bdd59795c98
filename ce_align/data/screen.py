"""Stimuli on a screen that subtends another visual angle."""

import numpy as np
from PIL import Image

from ce_align.errors import DataError

__all__ = ["place_on_screen"]

#: Brain-Score's background, PIL's colour "gray".
GRAY = (128, 128, 128)


def place_on_screen(
    image: Image.Image, source_degrees: float, target_degrees: float
) -> Image.Image:
    """Image of `source_degrees` as seen on a screen of `target_degrees`.

    A larger screen pads with gray, a smaller one crops the centre; nothing is resized.
    Sizes and offsets are rounded half to even, as Brain-Score's ``place_on_screen``
    does, to which the result is equal pixel for pixel.

    Raises
    ------
    DataError
        If an angle is not positive.
    """
    if not (source_degrees > 0 and target_degrees > 0):
        raise DataError(
            f"visual angles must be positive, found {source_degrees}° and "
            f"{target_degrees}°"
        )
    if source_degrees == target_degrees:
        return image
    ratio = target_degrees / source_degrees
    size = np.array(image.size)
    target = (ratio * size).round().astype(int)
    if ratio >= 1:
        screen = Image.new("RGB", (int(target[0]), int(target[1])), GRAY)
        left, top = ((target - size) / 2).round().astype(int)
        screen.paste(image, (int(left), int(top)))
        return screen
    left, top = ((size - target) / 2).round().astype(int)
    return image.crop(
        (int(left), int(top), int(left + target[0]), int(top + target[1]))
    )
