"""Colour operations on views (height, channels, width) of 8-bit pixels, in place."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment.kernels.compilation import compiled

__all__ = [
    "change_saturation",
    "invert_bright",
    "mean_luma",
    "mix_with",
    "shift_hue",
    "to_grey",
]

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
