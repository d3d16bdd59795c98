"""Crop, antialiased bicubic resize and mirroring; and the way back to pixels."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment.kernels.compilation import compiled

__all__ = ["crop_and_resize", "to_pixels"]

#: Fractional bits of resampling weights: 8 bits of pixel and 2 of overshoot remain.
WEIGHT_BITS = 22
#: Catmull-Rom cubic, the parameter of Pillow's bicubic filter.
CUBIC = -0.5


@compiled()
def cubic(x: float) -> float:
    """Weight of the cubic filter at distance `x`, in pixels."""
    x = abs(x)
    if x < 1.0:
        return ((CUBIC + 2.0) * x - (CUBIC + 3.0)) * x * x + 1.0
    if x < 2.0:
        return (((x - 5.0) * x + 8.0) * x - 4.0) * CUBIC
    return 0.0


@compiled()
def resampling_weights(n_in: int, n_out: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """First input of every output, and fixed-point weights (taps, n_out)."""
    scale = n_in / n_out
    stretch = max(scale, 1.0)  # antialiasing: the filter widens when shrinking
    support = 2.0 * stretch
    first = np.empty(n_out, np.uint32)
    weights = np.zeros((2 * math.ceil(support) + 1, n_out), np.int32)
    real = np.empty(weights.shape[0], np.float64)
    most = 0
    for i in range(n_out):
        centre = (i + 0.5) * scale
        start = max(int(centre - support + 0.5), 0)
        n = min(int(centre + support + 0.5), n_in) - start
        total = 0.0
        for k in range(n):
            real[k] = cubic((k + start - centre + 0.5) / stretch)
            total += real[k]
        for k in range(n):
            fixed = real[k] / total * (1 << WEIGHT_BITS)
            weights[k, i] = int(fixed + math.copysign(0.5, fixed))
        first[i] = start
        most = max(most, n)
    return first, weights[:most]


@compiled()
def to_byte(total: Any) -> Any:
    """Fixed-point sum, half a unit already added, as a pixel value."""
    return np.uint8(
        min(max(np.int32(total >> WEIGHT_BITS), np.int32(0)), np.int32(255))
    )


@compiled()
def resize_columns(
    image: NDArray[Any], box: tuple[int, int, int, int], size: int, flip: bool
) -> NDArray[Any]:
    """Resample the columns of a crop: (height, 3, size), mirrored if asked."""
    top, left, height, width = box
    first, weights = resampling_weights(width, size)
    if flip:
        first, weights = first[::-1].copy(), weights[:, ::-1].copy()
    # A pixel as one number, so that one look-up fetches its three channels; zeros
    # beyond the crop meet the zero weights of shorter filters.
    packed = np.zeros(width + weights.shape[0], np.int32)
    red = np.empty(size, np.int32)
    green, blue = np.empty_like(red), np.empty_like(red)
    out = np.empty((height, 3, size), np.uint8)
    for y in range(height):
        line = image[top + y, left : left + width]
        for x in range(width):
            packed[x] = line[x, 0] | line[x, 1] << 8 | line[x, 2] << 16
        red[:] = green[:] = blue[:] = np.int32(1 << (WEIGHT_BITS - 1))
        for k in range(weights.shape[0]):
            taps, pixels = weights[k], packed[k:]
            for x in range(size):
                weight, pixel = taps[x], pixels[first[x]]
                red[x] = np.int32(red[x] + weight * (pixel & np.int32(255)))
                green[x] = np.int32(green[x] + weight * (pixel >> 8 & np.int32(255)))
                blue[x] = np.int32(blue[x] + weight * (pixel >> 16))
        for x in range(size):
            out[y, 0, x] = to_byte(red[x])
        for x in range(size):
            out[y, 1, x] = to_byte(green[x])
        for x in range(size):
            out[y, 2, x] = to_byte(blue[x])
    return out


@compiled()
def resize_rows(image: NDArray[Any], size: int) -> NDArray[Any]:
    """Resample the rows of (height, 3, width): (size, 3, width)."""
    lines = image.reshape(image.shape[0], -1)
    first, weights = resampling_weights(lines.shape[0], size)
    out = np.empty((size, 3, image.shape[2]), np.uint8)
    total = np.empty(lines.shape[1], np.int32)
    for y in range(size):
        total[:] = np.int32(1 << (WEIGHT_BITS - 1))
        for k in range(min(weights.shape[0], lines.shape[0] - first[y])):
            weight = weights[k, y]
            line = lines[first[y] + k]
            for x in range(total.size):
                total[x] = np.int32(total[x] + weight * np.int32(line[x]))
        row = out[y].reshape(-1)
        for x in range(total.size):
            row[x] = to_byte(total[x])
    return out


@compiled(
    # The image is read-only, because memory-mapped ones are; others pass all the same.
    "uint8[:, :, ::1](Array(uint8, 3, 'C', True), UniTuple(int64, 4), int64, boolean)"
)
def crop_and_resize(
    image: NDArray[np.uint8], box: tuple[int, int, int, int], size: int, flip: bool
) -> NDArray[np.uint8]:
    """Antialiased bicubic view of one crop, mirrored if asked.

    Parameters
    ----------
    image : (H, W, 3) uint8
    box : top, left, height and width of the crop in pixels
    size : int
        Height and width of the view.

    Returns
    -------
    (size, 3, size) uint8, channels between rows and columns
    """
    lines = resize_columns(image, box, size, flip)
    view: NDArray[np.uint8] = resize_rows(lines, size)
    return view


@compiled()
def to_pixels(view: NDArray[np.uint8], out: NDArray[np.uint8]) -> None:
    """Write a view (size, 3 or 1, size) as (size, size, 3)."""
    last = view.shape[1] - 1
    for y in range(view.shape[0]):
        red, green, blue = view[y, 0], view[y, last // 2], view[y, last]
        for x in range(red.size):
            out[y, x, 0] = red[x]
            out[y, x, 1] = green[x]
            out[y, x, 2] = blue[x]
