"""Compiled kernels of the CPU path, with Pillow's arithmetic, rounding included.

Fixed-point bicubic resampling, truncating blends, 8-bit hue, three extended box blurs:
a view made here and one made by a Pillow pipeline are equal bit for bit, as long as
Pillow resamples columns before rows. The kernels are faster because pixels lie as
(row, channel, column), so that every loop runs over neighbours in memory and compiles
to vector instructions. The interpreter lock is released, and compiled code is kept
between sessions.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "blur",
    "change_saturation",
    "compiled",
    "crop_and_resize",
    "invert_bright",
    "mean_luma",
    "mix_with",
    "shift_hue",
    "to_grey",
    "to_pixels",
]


def compiled(signature: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` that keeps machine code between sessions where it can.

    Compiles for the types of `signature` at once, or for those of the first call.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compile_with = partial(numba.njit, signature, nogil=True, error_model="numpy")
        try:
            return compile_with(cache=True)(function)
        except RuntimeError:  # neither the package nor the user's cache is writable
            return compile_with()(function)

    return decorate


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
    """Antialiased bicubic view (size, 3, size) of one crop, mirrored if asked.

    The box is top, left, height and width of the crop in pixels of (H, W, 3).
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


#: Solarising inverts values from here on.
SOLARIZE_THRESHOLD = 128


@compiled()
def luma(red: Any, green: Any, blue: Any) -> Any:
    """ITU-R 601 luma of pixel values, rounded to an integer."""
    red, green, blue = np.int32(red), np.int32(green), np.int32(blue)
    weighted = np.int32(19595) * red + np.int32(38470) * green + np.int32(7471) * blue
    return np.int32(weighted + np.int32(1 << 15)) >> np.int32(16)


@compiled()
def blend(base: Any, value: Any, factor: Any) -> Any:
    """``base + factor * (value - base)``, clipped and truncated."""
    mixed = base + factor * (np.float32(value) - base)
    return np.uint8(np.int32(min(max(mixed, np.float32(0)), np.float32(255))))


@compiled()
def mix_with(view: NDArray[np.uint8], base: np.float32, factor: np.float32) -> None:
    """Change brightness (base 0) or contrast (base the mean luma)."""
    flat = view.reshape(-1)
    for i in range(flat.size):
        flat[i] = blend(base, flat[i], factor)


@compiled()
def mean_luma(view: NDArray[np.uint8]) -> np.float32:
    """Mean luma of a view, rounded to an integer."""
    total = np.int64(0)
    for y in range(view.shape[0]):
        red, green, blue = view[y, 0], view[y, 1], view[y, 2]
        of_line = np.int32(0)
        for x in range(red.size):
            of_line = np.int32(of_line + luma(red[x], green[x], blue[x]))
        total = total + np.int64(of_line)
    return np.float32(int(total / (view.shape[0] * view.shape[2]) + 0.5))


@compiled()
def change_saturation(view: NDArray[np.uint8], factor: np.float32) -> None:
    """Blend a view with its own luma."""
    grey = np.empty(view.shape[2], np.float32)
    for y in range(view.shape[0]):
        red, green, blue = view[y, 0], view[y, 1], view[y, 2]
        for x in range(grey.size):
            grey[x] = np.float32(luma(red[x], green[x], blue[x]))
        for channel in range(3):
            line = view[y, channel]
            for x in range(grey.size):
                line[x] = blend(grey[x], line[x], factor)


@compiled()
def either(condition: Any, a: Any, b: Any) -> Any:
    """`a` where the condition holds, else `b`."""
    return a if condition else b


@compiled()
def split_hue(
    red: NDArray[Any],
    green: NDArray[Any],
    blue: NDArray[Any],
    hue: NDArray[Any],
    saturation: NDArray[Any],
    value: NDArray[Any],
) -> None:
    """Hue, saturation and value of a line of pixels, each 0 to 255."""
    for x in range(red.size):
        r, g, b = np.int32(red[x]), np.int32(green[x]), np.int32(blue[x])
        v = np.int32(max(max(r, g), b))
        chroma = np.float32(np.int32(v - min(min(r, g), b)))
        divisor = max(chroma, np.float32(1))
        from_red, from_green = r == v, g == v
        ahead = either(from_red, b, either(from_green, r, g))
        behind = either(from_red, g, either(from_green, b, r))
        centre = either(from_red, 0.0, either(from_green, 2.0, 4.0))
        ahead_share = np.float32(np.int32(v - ahead)) / divisor
        behind_share = np.float32(np.int32(v - behind)) / divisor
        # Double and single precision alternate as in Pillow: each rounding decides
        # on which side of an integer some hues fall.
        sixths = np.float32(centre + ahead_share - behind_share)
        turn = np.float64(sixths) * (1 / 6) + 1.0
        turn = either(turn >= 1.0, turn - 1.0, turn)
        hue[x] = np.int32(np.float64(np.float32(turn)) * 255.0)
        share = chroma / np.float32(max(v, np.int32(1)))
        saturation[x] = np.int32(share * np.float32(255))
        value[x] = v


@compiled()
def join_hue(
    channel: Any,
    hue: NDArray[Any],
    saturation: NDArray[Any],
    value: NDArray[Any],
    out: NDArray[Any],
) -> None:
    """Channel 0, 1 or 2 of a line of pixels given by hue, saturation and value.

    The channel lacks a share of the saturation that rises and falls linearly around
    the circle. Everything is an integer below 2**24, exact in single precision.
    """
    for x in range(out.size):
        angle = np.int32(6 * hue[x] - 510 * channel)
        angle = either(angle < 0, np.int32(angle + 1530), angle)
        lack = min(np.int32(angle - 255), np.int32(1275 - angle))
        lack = min(max(lack, np.int32(0)), np.int32(255))
        kept = np.int32(65025 - np.int32(saturation[x] * lack))
        scaled = np.int32(np.int32(value[x] * kept) + np.int32(32512))
        out[x] = np.uint8(np.int32(np.float32(scaled) / np.float32(65025)))


@compiled()
def shift_hue(view: NDArray[np.uint8], shift: int) -> None:
    """Turn the hue by `shift` 255ths of the circle."""
    hue = np.empty(view.shape[2], np.int32)
    saturation, value = np.empty_like(hue), np.empty_like(hue)
    for y in range(view.shape[0]):
        split_hue(view[y, 0], view[y, 1], view[y, 2], hue, saturation, value)
        for x in range(hue.size):
            hue[x] = np.int32(hue[x] + shift) & np.int32(255)
        for channel in range(3):
            join_hue(np.int32(channel), hue, saturation, value, view[y, channel])


@compiled()
def to_grey(view: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Luma of a view: (height, 1, width), not in place."""
    grey = np.empty((view.shape[0], 1, view.shape[2]), np.uint8)
    for y in range(view.shape[0]):
        red, green, blue, line = view[y, 0], view[y, 1], view[y, 2], grey[y, 0]
        for x in range(line.size):
            line[x] = np.uint8(luma(red[x], green[x], blue[x]))
    return grey


@compiled()
def invert_bright(view: NDArray[np.uint8]) -> None:
    """Solarise: invert the values from the threshold on."""
    flat = view.reshape(-1)
    for i in range(flat.size):
        flat[i] = either(flat[i] < SOLARIZE_THRESHOLD, flat[i], np.uint8(255 - flat[i]))


#: Box blurs that approximate a Gaussian.
BLUR_PASSES = 3


@compiled()
def weigh(total: Any, ends: Any, inside: Any, edge: Any) -> Any:
    """Weighted sum of a box and its two ends as a pixel value."""
    weighted = np.uint32(total * inside) + np.uint32(ends * edge)
    return np.uint8(np.uint32(weighted + np.uint32(1 << 23)) >> np.uint32(24))


@compiled()
def blur_line(
    line: NDArray[Any],
    padded: NDArray[Any],
    total: NDArray[Any],
    radius: int,
    inside: Any,
    edge: Any,
) -> None:
    """Three box blurs along one line, in place; its ends are repeated outwards."""
    n, margin = line.size, radius + 1
    for _ in range(BLUR_PASSES):
        padded[:margin] = line[0]
        middle = padded[margin:]
        for x in range(n):
            middle[x] = line[x]
        padded[margin + n :] = line[n - 1]
        for x in range(n):
            total[x] = np.uint32(line[x])
        for reach in range(1, margin):
            before, after = padded[margin - reach :], padded[margin + reach :]
            for x in range(n):
                pair = np.uint32(before[x]) + np.uint32(after[x])
                total[x] = np.uint32(total[x] + pair)
        before, after = padded[:n], padded[2 * margin :]
        for x in range(n):
            ends = np.uint32(before[x]) + np.uint32(after[x])
            line[x] = weigh(total[x], np.uint32(ends), inside, edge)


@compiled()
def blur_rows(
    source: NDArray[Any],
    target: NDArray[Any],
    total: NDArray[Any],
    radius: int,
    inside: Any,
    edge: Any,
) -> None:
    """One box blur across the rows of (height, width)."""
    last = source.shape[0] - 1
    for y in range(source.shape[0]):
        line = source[y]
        for x in range(total.size):
            total[x] = np.uint32(line[x])
        for reach in range(1, radius + 1):
            above, below = source[max(y - reach, 0)], source[min(y + reach, last)]
            for x in range(total.size):
                pair = np.uint32(above[x]) + np.uint32(below[x])
                total[x] = np.uint32(total[x] + pair)
        above, below = source[max(y - radius - 1, 0)], source[min(y + radius + 1, last)]
        line = target[y]
        for x in range(total.size):
            ends = np.uint32(above[x]) + np.uint32(below[x])
            line[x] = weigh(total[x], np.uint32(ends), inside, edge)


@compiled()
def blur(
    view: NDArray[np.uint8], radius: int, inside: Any, edge: Any
) -> NDArray[np.uint8]:
    """Three box blurs each way of a view (height, channels, width), overwritten.

    A box has a whole radius, and fixed-point weights inside and at its edge.
    """
    height, n_channels, width = view.shape
    padded = np.empty(width + 2 * (radius + 1), np.uint8)
    total = np.empty(width, np.uint32)
    for y in range(height):
        for channel in range(n_channels):
            blur_line(view[y, channel], padded, total, radius, inside, edge)
    front = view.reshape(height, -1)
    back = np.empty_like(front)
    total = np.empty(n_channels * width, np.uint32)
    for _ in range(BLUR_PASSES):
        blur_rows(front, back, total, radius, inside, edge)
        front, back = back, front
    return front.reshape(view.shape)
