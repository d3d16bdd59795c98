"""Gaussian blur by three extended box blurs."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment.kernels.compilation import compiled

__all__ = ["blur"]

#: Box blurs that approximate a Gaussian.
BLUR_PASSES = 3


@compiled()
def box_widths(sigma: float) -> tuple[int, Any, Any]:
    """Whole radius and fixed-point weights, inside and at the edge, of a box blur.

    Three such boxes of fractional width have the variance of the Gaussian.
    """
    # Single precision throughout, as in Pillow: a last bit decides exact halves.
    one, two, six = np.float32(1), np.float32(2), np.float32(6)
    variance = np.float32(sigma) * np.float32(sigma) / np.float32(BLUR_PASSES)
    full_width = np.float32(math.sqrt(12.0 * variance + 1.0))
    whole = np.float32(math.floor((full_width - one) / two))
    part = (two * whole + one) * (whole * (whole + one) - np.float32(3) * variance)
    part = part / (six * (variance - (whole + one) * (whole + one)))
    radius = np.float32(whole + part)
    n_whole = int(radius)
    inside = int(np.float32(1 << 24) / np.float32(radius * two + one))
    edge = ((1 << 24) - (2 * n_whole + 1) * inside) // 2
    return n_whole, np.uint32(inside), np.uint32(edge)


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
def blur(view: NDArray[np.uint8], sigma: float) -> NDArray[np.uint8]:
    """Gaussian blur of a view (height, channels, width), which is overwritten."""
    radius, inside, edge = box_widths(sigma)
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
