"""Images that tell their number."""

import numpy as np


def numbered_pixels(k, size=8):
    """An image whose first pixels tell its number."""
    pixels = np.full((size, size, 3), 90, np.uint8)
    pixels[0, :, 0], pixels[0, :, 1] = k % 256, k // 256
    return pixels


def number_of(images, index):
    red, green, _ = images.load(index).getpixel((0, 0))
    return red + 256 * green


def rectangle_of(recording):
    """Responses (n_stimuli, n_repetitions, n_neuroids), whatever form they are in."""
    return recording.presentations().rectangle(np.arange(len(recording.images)))
