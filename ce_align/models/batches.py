"""Pixels of images in batches, decoded by threads ahead of the network."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray

from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.models.preprocessing import Preprocessing

__all__ = ["load_pixels", "pixel_batches"]

Pixels = NDArray[np.uint8]


def load_pixels(images: ImageSet, index: int, preprocessing: Preprocessing) -> Pixels:
    """Resized pixels (height, width, 3) of one image.

    Raises
    ------
    DataError
        If its file cannot be read.
    """
    try:
        return preprocessing.resize(images.load(index))
    except OSError as error:
        raise DataError(
            f"image {images.ids[index]} cannot be read: {error.strerror or error}"
        ) from error


def pixel_batches(
    images: ImageSet, rows: Sequence[int], preprocessing: Preprocessing, size: int
) -> Iterator[tuple[list[int], Pixels]]:
    """Rows of each batch and their pixels (n, height, width, 3).

    As many threads as torch uses decode the next batch while the network works on this
    one.
    """
    pool = ThreadPoolExecutor(min(8, torch.get_num_threads()))
    waiting: deque[Future[Pixels]] = deque()
    coming = iter(rows)
    try:
        for start in range(0, len(rows), size):
            batch = list(rows[start : start + size])
            while len(waiting) < 2 * size and (row := next(coming, None)) is not None:
                waiting.append(pool.submit(load_pixels, images, row, preprocessing))
            yield batch, np.stack([waiting.popleft().result() for _ in batch])
    finally:
        pool.shutdown(cancel_futures=True)
