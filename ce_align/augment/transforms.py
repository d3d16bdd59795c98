"""Applying a ledger to images: a pure function of image and row, here or on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment.parameters import JITTER_ORDERS, AugmentationLedger
from ce_align.errors import DataError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "TRANSFORMS_VERSION",
    "apply",
    "apply_batch",
    "pixel_boxes",
]

#: Part of every cache key and of every training: changes when the same row gives other
#: pixels, or the same seed another row.
TRANSFORMS_VERSION = 2
#: Crops are taken from images of at least this height and width, in pixels.
SMALLEST = 2
#: Shares that fall short of a whole pixel by less are whole: rounding takes away far
#: less, and the place in another image of some thousand pixels lies farther off.
WHOLE = 1e-6

BRIGHTNESS, CONTRAST, SATURATION, HUE = range(4)


def apply(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]],
    ledger: AugmentationLedger,
    size: int = 224,
) -> NDArray[np.uint8]:
    """Views of images, as the ledger says.

    The order of operations is crop and bicubic antialiased resize, flip, colour jitter
    in the row's own order, grayscale, blur, solarise. The pixels are those of Pillow
    that resamples columns before rows, bit for bit; some versions of Pillow take the
    rows of tall crops first, which moves pixels by rounding. The result depends on
    nothing but the image, the row and `size`, and the interpreter lock is released, so
    that any number of threads or processes may share out the rows.

    Parameters
    ----------
    images : one RGB image (H, W, 3) uint8 for all rows, or one for every row (an array
        or a sequence; their sizes may differ)
    ledger : n rows; two images with equal rows get crops at the same relative place
    size : height and width of the views in pixels

    Returns
    -------
    (n, size, size, 3) uint8

    Raises
    ------
    DataError
        If the ledger is empty, an image is not uint8 RGB of at least 2 by 2 pixels, or
        there are neither one nor n images.
    """
    sources = _one_image_a_row(images, len(ledger))
    if size < 1:
        raise DataError(f"size is {size}; give the pixels of a view, such as 224")
    views = np.empty((len(ledger), size, size, 3), np.uint8)
    shifts = _hue_shifts(ledger)
    boxes = {image.shape: pixel_boxes(ledger, *image.shape[:2]) for image in sources}
    radius, inside, edge = _boxes(ledger.blur_sigma)
    blurs = list(
        zip(radius, inside.astype(np.uint32), edge.astype(np.uint32), strict=True)
    )
    for row, image in enumerate(sources):
        box = tuple(boxes[image.shape][row].tolist())
        _render(image, box, ledger, row, shifts[row], blurs[row], views[row])
    return views


def pixel_boxes(
    ledger: AugmentationLedger, height: int, width: int
) -> NDArray[np.int64]:
    """Top, left, height and width of every crop in whole pixels of one image size.

    Shares of the image are truncated, as the authors do for the second image of a pair;
    for the size that a crop was sampled for they are whole already. (n, 4).
    """
    frame = np.array([height, width, height, width])
    shares = ledger.parameters()[:, :4]
    boxes: NDArray[np.int64] = np.floor(shares * frame + WHOLE).astype(np.int64)
    boxes[:, 2:] = boxes[:, 2:].clip(1, frame[2:])
    boxes[:, :2] = np.minimum(boxes[:, :2], frame[:2] - boxes[:, 2:])
    return boxes


def _hue_shifts(ledger: AugmentationLedger) -> NDArray[np.int64]:
    """(n,) turns of the 8-bit hue, in 255ths of the circle, truncated as in Pillow."""
    shifts: NDArray[np.int64] = (ledger.hue * 255).astype(np.int64)
    return shifts


def _one_image_a_row(
    images: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], n: int
) -> list[NDArray[np.uint8]]:
    """The checked image of every row."""
    if n == 0:
        raise DataError("the ledger is empty; sample at least one row")
    single = isinstance(images, np.ndarray) and images.ndim == 3
    sources: list[Any] = [images] if single else list(images)
    if not single and len(sources) != n:
        raise DataError(
            f"the ledger has {n} rows but there are {len(sources)} images; give one "
            "image for all rows or one for each"
        )
    for index, image in enumerate(sources):
        shape, dtype = np.shape(image), getattr(image, "dtype", type(image).__name__)
        if (
            not isinstance(image, np.ndarray)
            or dtype != np.uint8
            or len(shape) != 3
            or shape[2] != 3
            or min(shape) < SMALLEST
        ):
            raise DataError(
                f"image {index} is {dtype} of shape {shape}; give a uint8 array of "
                f"shape (height, width, 3), at least {SMALLEST} pixels high and wide"
            )
    checked = [np.ascontiguousarray(image) for image in sources]
    return checked * n if single else checked


def _render(
    image: NDArray[np.uint8],
    box: tuple[int, ...],
    ledger: AugmentationLedger,
    row: int,
    hue_shift: int,
    blur: tuple[Any, ...],
    out: NDArray[np.uint8],
) -> None:
    """Write one view to `out`, (size, size, 3)."""
    # numba takes half a second to import: only when pixels are touched.
    from ce_align.augment import kernels

    view = kernels.crop_and_resize(image, box, len(out), ledger.flip[row])
    for operation in JITTER_ORDERS[ledger.jitter_order[row]]:
        if operation == BRIGHTNESS and ledger.brightness[row] != 1:
            kernels.mix_with(view, np.float32(0), np.float32(ledger.brightness[row]))
        elif operation == CONTRAST and ledger.contrast[row] != 1:
            base = np.float32(kernels.mean_luma(view))
            kernels.mix_with(view, base, np.float32(ledger.contrast[row]))
        elif operation == SATURATION and ledger.saturation[row] != 1:
            kernels.change_saturation(view, np.float32(ledger.saturation[row]))
        elif operation == HUE and ledger.hue[row] != 0:
            kernels.shift_hue(view, hue_shift)
    if ledger.grayscale[row]:
        view = kernels.to_grey(view)
    if ledger.blur_sigma[row] > 0:
        view = kernels.blur(view, *blur)
    if ledger.solarize[row]:
        kernels.invert_bright(view)
    kernels.to_pixels(view, out)


#: Fractional bits of resampling weights.
WEIGHT_BITS = 22
#: Box blurs that approximate a Gaussian.
BLUR_PASSES = 3


def apply_batch(images: Tensor, ledger: AugmentationLedger, size: int = 224) -> Tensor:
    """Views of a batch of equally large images, as the ledger says.

    The same operations as `apply` with the same roundings: on the CPU the pixels are
    equal.

    Parameters
    ----------
    images : (n, 3, H, W) uint8 tensor, or (1, 3, H, W) for one image in all rows, on
        any device; the work is done there
    ledger : n rows
    size : height and width of the views in pixels

    Returns
    -------
    (n, 3, size, size) uint8 tensor on the device of `images`

    Raises
    ------
    DataError
        If the ledger is empty, the tensor is not uint8 (n, 3, H, W) of at least 2 by 2
        pixels, or n is neither 1 nor the number of rows.
    """
    import torch

    n = len(ledger)
    if n == 0:
        raise DataError("the ledger is empty; sample at least one row")
    if (
        images.dtype != torch.uint8
        or images.ndim != 4
        or images.shape[1] != 3
        or min(images.shape[2:]) < SMALLEST
    ):
        raise DataError(
            f"images is {images.dtype} of shape {tuple(images.shape)}; give a uint8 "
            "tensor of shape (n, 3, height, width), at least 2 pixels high and wide"
        )
    if len(images) not in (1, n):
        raise DataError(
            f"the ledger has {n} rows but there are {len(images)} images; give one "
            "image for all rows or one for each"
        )
    # Mixed precision would round the resampling weights.
    with torch.autocast(images.device.type, enabled=False):
        view = _crop_and_resize(images.float(), ledger, size)
        _jitter(view, ledger)
        for rows in _rows_where(ledger.grayscale, view):
            view[rows] = _luma(view[rows])
        blurred = ledger.blur_sigma > 0
        for rows in _rows_where(blurred, view):
            view[rows] = _blur(view[rows], ledger.blur_sigma[blurred])
        for rows in _rows_where(ledger.solarize, view):
            view[rows] = view[rows].where(view[rows] < 128, 255 - view[rows])
        return view.to(torch.uint8)


def _rows_where(mask: NDArray[np.bool_], like: Tensor) -> Iterator[Tensor]:
    """The indices of the chosen rows on the device of `like`, or nothing at all."""
    import torch

    if mask.any():
        yield torch.as_tensor(np.flatnonzero(mask), device=like.device)


def _crop_and_resize(images: Tensor, ledger: AugmentationLedger, size: int) -> Tensor:
    """(n, 3, size, size) float views of whole numbers: two products a view."""
    import torch

    top, left, height, width = pixel_boxes(ledger, *images.shape[2:]).T
    across = _resampling_matrices(left, width, images.shape[3], size, images.device)
    down = _resampling_matrices(top, height, images.shape[2], size, images.device)
    flip = torch.tensor(ledger.flip, device=images.device)[:, None, None]
    across = torch.where(flip, across.flip(1), across).transpose(1, 2)[:, None]
    columns = _fixed_point(lambda part: images @ part, across)
    return _fixed_point(lambda part: part @ columns, down[:, None])


def _resampling_matrices(
    start: NDArray[np.int64],
    length: NDArray[np.int64],
    n_in: int,
    n_out: int,
    device: torch.device,
) -> Tensor:
    """(n, n_out, n_in) fixed-point weights of antialiased bicubic resampling."""
    import torch

    begin, extent = (
        torch.as_tensor(x, dtype=torch.float64, device=device)[:, None, None]
        for x in (start, length)
    )
    scale = extent / n_out
    out = torch.arange(n_out, dtype=torch.float64, device=device)[:, None]
    pixel = torch.arange(n_in, dtype=torch.float64, device=device) - begin
    x = ((pixel - (out + 0.5) * scale + 0.5) / scale.clamp(min=1)).abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    weights = near.where(x < 1, far.where(x < 2, torch.zeros_like(x)))
    weights = weights * ((pixel >= 0) & (pixel < extent))
    weights = weights / weights.sum(dim=2, keepdim=True)
    return (weights * (1 << WEIGHT_BITS)).round().int()


def _fixed_point(product: Callable[[Tensor], Tensor], weights: Tensor) -> Tensor:
    """Pixel values of a product with fixed-point weights, without a rounding error.

    Weights are split into two halves of 11 bits and a sign, so that single precision
    (even the shortened one of tensor cores) holds every term and every sum exactly.
    """
    half = WEIGHT_BITS // 2
    high = (weights + (1 << (half - 1))) >> half
    low = weights - (high << half)
    total = (product(high.float()).int() << half) + product(low.float()).int()
    return ((total + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(0, 255).float()


def _jitter(view: Tensor, ledger: AugmentationLedger) -> None:
    """The four colour operations in each row's own order, in place."""
    import torch

    factors = torch.as_tensor(
        np.stack([ledger.brightness, ledger.contrast, ledger.saturation], axis=1),
        dtype=torch.float32,
        device=view.device,
    )
    shifts = torch.as_tensor(_hue_shifts(ledger), device=view.device)
    applied = np.stack(
        [
            ledger.brightness != 1,
            ledger.contrast != 1,
            ledger.saturation != 1,
            ledger.hue != 0,
        ]
    )
    for operations in JITTER_ORDERS[ledger.jitter_order].T:
        for operation in range(4):
            chosen = (operations == operation) & applied[operation]
            for rows in _rows_where(chosen, view):
                part = view[rows]
                if operation == HUE:
                    view[rows] = _turn_hue(part, shifts[rows, None, None])
                    continue
                base = torch.zeros_like(part)
                if operation == CONTRAST:
                    mean = _luma(part).double().mean(dim=(1, 2, 3), keepdim=True)
                    base = (mean + 0.5).floor().float()
                elif operation == SATURATION:
                    base = _luma(part)
                mixed = base + factors[rows, operation, None, None, None] * (
                    part - base
                )
                view[rows] = mixed.clamp(0, 255).floor()


def _luma(view: Tensor) -> Tensor:
    """(n, 1, H, W) ITU-R 601 luma, rounded."""
    red, green, blue = view.int().unbind(1)
    weighted = 19595 * red + 38470 * green + 7471 * blue + (1 << 15)
    return (weighted >> 16).float()[:, None]


def _turn_hue(view: Tensor, shift: Tensor) -> Tensor:
    """Shift the 8-bit hue of (n, 3, H, W) by (n, 1, 1) 255ths of the circle.

    Double and single precision alternate as in Pillow: each rounding decides on which
    side of an integer some hues fall.
    """
    import torch

    red, green, blue = view.unbind(1)
    value = view.amax(1)
    chroma = value - view.amin(1)
    divisor = chroma.clamp(min=1)
    r, g, b = (((value - x) / divisor).double() for x in (red, green, blue))
    sixths = torch.where(
        red == value, b - g, torch.where(green == value, 2 + r - b, 4 + g - r)
    ).float()
    turn = ((sixths.double() / 6 + 1) % 1).float()
    hue = ((turn.double() * 255).floor().long() + shift) % 256
    saturation = (chroma / value.clamp(min=1) * 255).floor().long()
    # A channel lacks a share of the saturation that rises and falls linearly around
    # the circle, a third of it later for each channel.
    zero = 510 * torch.arange(3, device=view.device)[:, None, None]
    angle = (6 * hue[:, None] - zero) % 1530
    lack = torch.minimum(angle - 255, 1275 - angle).clamp(0, 255)
    kept = 65025 - saturation[:, None] * lack
    rounded = (value.long()[:, None] * kept + 32512) // 65025
    return rounded.float()


def _blur(view: Tensor, sigma: NDArray[np.float64]) -> Tensor:
    """Gaussian blur of (n, 3, H, W) by three extended box blurs each way."""
    import torch
    from torch.nn.functional import pad

    radius, inside, edge = (column[:, None] for column in _boxes(sigma))
    reach = int(radius.max()) + 1
    taps = np.arange(reach + 1)
    outside = np.where(taps == radius + 1, edge, 0)
    table = np.where(taps <= radius, inside, outside)
    weights = torch.as_tensor(table, device=view.device)[:, :, None, None, None]
    for _ in range(2):
        for _ in range(BLUR_PASSES):
            n = view.shape[3]
            padded = pad(view, (reach, reach, 0, 0), mode="replicate").long()
            total = padded[..., reach : reach + n] * weights[:, 0]
            for distance in range(1, reach + 1):
                before = padded[..., reach - distance : reach - distance + n]
                after = padded[..., reach + distance : reach + distance + n]
                total += (before + after) * weights[:, distance]
            view = ((total + (1 << 23)) >> 24).float()
        view = view.transpose(2, 3)
    return view


def _boxes(sigma: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """Whole radius and fixed-point weights, inside and at the edge, of box blurs.

    Three such boxes of fractional width have the variance of the Gaussian. (n,) each.
    """
    # Single precision throughout, as in Pillow: a last bit decides exact halves.
    variance = np.square(sigma.astype(np.float32)) / np.float32(BLUR_PASSES)
    full_width = np.sqrt(12.0 * variance.astype(np.float64) + 1).astype(np.float32)
    whole = np.floor((full_width - 1) / 2)
    part = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance)
    radius = whole + part / (6 * (variance - (whole + 1) * (whole + 1)))
    n_whole = radius.astype(np.int64)
    inside = (np.float32(1 << 24) / (radius * 2 + 1)).astype(np.int64)
    return n_whole, inside, ((1 << 24) - (2 * n_whole + 1) * inside) // 2
