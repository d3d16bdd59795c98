"""Images without augmentation: short edge resized, centre cropped, not squeezed."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from ce_align.data.imagefiles import encode_ppm
from ce_align.data.imagesets import ImageSet, PixelSource
from ce_align.errors import ConfigError

__all__ = ["centre_crop", "centre_cropped", "validation_crop", "validation_crops"]

#: Short edge to which the authors resize an image before they crop its centre of 224.
VALIDATION_EDGE, VALIDATION_SIZE = 256, 224


def centre_crop(
    image: Image.Image,
    size: int,
    *,
    short_edge: int | None = None,
    resampling: Image.Resampling = Image.Resampling.BICUBIC,
) -> Image.Image:
    """Centre of an image whose short edge was resized, by default to `size`, bicubic.

    Pillow's resampling, which smooths before it shrinks; sizes and places are rounded
    as torchvision's ``Resize`` and ``CenterCrop`` round them.

    Parameters
    ----------
    image : of any shape
    size : edge of the square, in pixels
    short_edge : of the resized image, at least `size`; None for `size` itself
    resampling : Pillow's filter

    Returns
    -------
    (size, size) image
    """
    short = min(image.size)
    width, height = (int((short_edge or size) * edge / short) for edge in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), resampling)
    if (width, height) == (size, size):
        return image
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


def validation_crop(image: Image.Image, size: int) -> Image.Image:
    """An image as the authors show it without augmentation, at any size.

    Short edge to 256, bilinear, and of that the centre of 224; in the same proportion
    where `size` is another. Nothing is squeezed.
    """
    short_edge = round(size * VALIDATION_EDGE / VALIDATION_SIZE)
    bilinear = Image.Resampling.BILINEAR
    return centre_crop(image, size, short_edge=short_edge, resampling=bilinear)


@dataclass(frozen=True)
class _CroppedPixels:
    """Crops of the images of another source."""

    whole: PixelSource
    edge: int
    crop: Callable[[Image.Image, int], Image.Image]
    name: str
    digests: dict[int, str] = field(default_factory=dict)

    def load(self, index: int) -> Image.Image:
        return self.crop(self.whole.load(index), self.edge)

    def encoded(self, index: int) -> bytes:
        return encode_ppm(np.asarray(self.load(index)))

    def digest(self, index: int) -> str:
        # Kept: every network asks for the digest of every image.
        if index not in self.digests:
            self.digests[index] = f"{self.whole.digest(index)}/{self.name}"
        return self.digests[index]

    def height_and_width(self, index: int) -> tuple[int, int]:
        return self.edge, self.edge


def centre_cropped(images: ImageSet, size: int) -> ImageSet:
    """Images with the short edge resized to `size` and cropped to a square.

    Raises
    ------
    ConfigError
        If `size` is not positive.
    """
    return _cropped(images, size, centre_crop, f"centre{size}bicubic")


def validation_crops(images: ImageSet, size: int) -> ImageSet:
    """Images as `validation_crop` shows them.

    Raises
    ------
    ConfigError
        If `size` is not positive.
    """
    return _cropped(images, size, validation_crop, f"validation{size}bilinear")


def _cropped(
    images: ImageSet,
    size: int,
    crop: Callable[[Image.Image, int], Image.Image],
    name: str,
) -> ImageSet:
    if size < 1:
        raise ConfigError(f"images are cropped to 1 pixel or more, not {size}")
    return replace(images, pixels=_CroppedPixels(images.pixels, size, crop, name))
