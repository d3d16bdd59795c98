"""Decoded pixels of many images in one place: mapped from a file, or in memory."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ce_align.data.imagefiles import encode_ppm
from ce_align.data.imagesets import ImageSet
from ce_align.digests import digest_bytes

__all__ = ["PlacedPixels", "image_arrays", "in_memory"]

#: Decoded images that are kept in memory, in bytes; forked workers share them.
MOST_BYTES = 1 << 29
#: Images whose sizes tell beforehand whether all fit.
N_PROBED = 64


@dataclass(frozen=True, eq=False)
class PlacedPixels:
    """Pixels of all images, one image after the other.

    Attributes
    ----------
    places : (n, 3) offset in bytes, height and width of every image
    stored : (n_bytes,) uint8, or the file that a process maps when it first looks
    """

    places: NDArray[np.int64]
    stored: NDArray[np.uint8] | Path

    @cached_property
    def _flat(self) -> NDArray[np.uint8]:
        if isinstance(self.stored, Path):
            mapped: NDArray[np.uint8] = np.memmap(self.stored, np.uint8, "r")
            return mapped
        return self.stored

    def __getstate__(self) -> dict[str, Any]:
        # A map is opened anew in every process, not copied into it.
        return {"places": self.places, "stored": self.stored}

    def array(self, index: int) -> NDArray[np.uint8]:
        """Pixels (height, width, 3), read-only."""
        offset, height, width = self.places[index].tolist()
        flat = self._flat[offset : offset + height * width * 3]
        pixels = np.asarray(flat).reshape(height, width, 3)
        pixels.flags.writeable = False
        return pixels

    def load(self, index: int) -> Image.Image:
        """Decoded RGB image."""
        return Image.fromarray(self.array(index))

    def encoded(self, index: int) -> bytes:
        """The image as a PPM file."""
        return encode_ppm(self.array(index))

    def digest(self, index: int) -> str:
        """Digest of the encoded bytes."""
        return digest_bytes(self.encoded(index))

    def height_and_width(self, index: int) -> tuple[int, int]:
        """In pixels."""
        _, height, width = self.places[index].tolist()
        return height, width


def image_arrays(images: ImageSet, rows: Iterable[int]) -> list[NDArray[np.uint8]]:
    """Pixels (height, width, 3) of some images, without a copy where none is needed.

    Raises
    ------
    DataError
        If one of them cannot be read.
    """
    source = images.pixels
    if isinstance(source, PlacedPixels) and images.screen is None:
        return [source.array(images.index[row]) for row in rows]
    return [np.asarray(images.load(row)) for row in rows]


def in_memory(images: ImageSet, most_bytes: int = MOST_BYTES) -> ImageSet:
    """The same images, decoded once if all of them fit into memory.

    Their pixels are the same, their encoded bytes and so their digests are not.

    Parameters
    ----------
    images : to be decoded
    most_bytes : of pixels; of larger sets `images` itself is returned

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if isinstance(images.pixels, PlacedPixels) and images.screen is None:
        return images
    probed = np.linspace(0, len(images) - 1, min(len(images), N_PROBED)).astype(int)
    sizes = [array.nbytes for array in image_arrays(images, probed.tolist())]
    if float(np.mean(sizes)) * len(images) > most_bytes:
        return images
    # Only the pages that are written to take memory.
    stored = np.empty(most_bytes, np.uint8)
    places = np.empty((len(images), 3), np.int64)
    end = 0
    for row in range(len(images)):
        (array,) = image_arrays(images, [row])
        places[row] = end, *array.shape[:2]
        if end + array.nbytes > most_bytes:
            return images
        stored[end : end + array.nbytes] = array.reshape(-1)
        end += array.nbytes
    return replace(
        images,
        pixels=PlacedPixels(places, stored[:end]),
        index=tuple(range(len(images))),
        screen=None,
    )
