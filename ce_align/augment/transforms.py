"""Applying a ledger to images on the CPU: a pure function of image and row."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment.parameters import JITTER_ORDERS, AugmentationLedger
from ce_align.errors import DataError

__all__ = ["TRANSFORMS_VERSION", "apply", "hue_shifts", "pixel_boxes"]

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
    images : (H, W, 3) uint8, or n of them
        One RGB image for all rows, or one image for every row (an array or a sequence;
        their sizes may differ).
    ledger : AugmentationLedger
        n rows. Two images with equal rows get crops at the same relative place.
    size : int
        Height and width of the views in pixels.

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
    shifts = hue_shifts(ledger)
    boxes = {image.shape: pixel_boxes(ledger, *image.shape[:2]) for image in sources}
    for row, image in enumerate(sources):
        box = tuple(boxes[image.shape][row].tolist())
        _render(image, box, ledger, row, shifts[row], views[row])
    return views


def pixel_boxes(
    ledger: AugmentationLedger, height: int, width: int
) -> NDArray[np.int64]:
    """Top, left, height and width of every crop in whole pixels of one image size.

    Shares of the image are truncated, as the authors do for the second image of a pair;
    for the size that a crop was sampled for they are whole already.

    Returns
    -------
    (n, 4) int
    """
    frame = np.array([height, width, height, width])
    shares = [
        ledger.crop_top,
        ledger.crop_left,
        ledger.crop_height,
        ledger.crop_width,
    ]
    boxes: NDArray[np.int64] = np.floor(np.stack(shares, axis=1) * frame + WHOLE)
    boxes = boxes.astype(np.int64)
    boxes[:, 2:] = boxes[:, 2:].clip(1, frame[2:])
    boxes[:, :2] = np.minimum(boxes[:, :2], frame[:2] - boxes[:, 2:])
    return boxes


def hue_shifts(ledger: AugmentationLedger) -> NDArray[np.int64]:
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
    out: NDArray[np.uint8],
) -> None:
    """Write one view to `out`, (size, size, 3)."""
    # numba takes half a second to import: only when pixels are touched.
    from ce_align.augment.kernels import blur, colour, resampling

    view = resampling.crop_and_resize(image, box, len(out), ledger.flip[row])
    for operation in JITTER_ORDERS[ledger.jitter_order[row]]:
        if operation == BRIGHTNESS and ledger.brightness[row] != 1:
            colour.mix_with(view, np.float32(0), np.float32(ledger.brightness[row]))
        elif operation == CONTRAST and ledger.contrast[row] != 1:
            base = np.float32(colour.mean_luma(view))
            colour.mix_with(view, base, np.float32(ledger.contrast[row]))
        elif operation == SATURATION and ledger.saturation[row] != 1:
            colour.change_saturation(view, np.float32(ledger.saturation[row]))
        elif operation == HUE and ledger.hue[row] != 0:
            colour.shift_hue(view, hue_shift)
    if ledger.grayscale[row]:
        view = colour.to_grey(view)
    if ledger.blur_sigma[row] > 0:
        view = blur.blur(view, ledger.blur_sigma[row])
    if ledger.solarize[row]:
        colour.invert_bright(view)
    resampling.to_pixels(view, out)
