"""Images as linear evaluation shows them: short edge resized, centre cropped."""

from dataclasses import dataclass, field, replace

import numpy as np
from PIL import Image

from ce_align.data.imagefiles import encode_ppm
from ce_align.data.imagesets import ImageSet, PixelSource
from ce_align.errors import ConfigError

__all__ = ["centre_crop", "centre_cropped"]


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Centre of an image whose short edge was resized to `size`, bicubic.

    Pillow's bicubic resampling, which smooths before it shrinks; sizes and places are
    rounded as torchvision's ``Resize`` and ``CenterCrop`` round them.

    Parameters
    ----------
    image : of any shape
    size : edge of the square, in pixels

    Returns
    -------
    (size, size) image
    """
    short = min(image.size)
    width, height = (int(size * edge / short) for edge in image.size)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    if width == height:
        return image
    left, top = round((width - size) / 2), round((height - size) / 2)
    return image.crop((left, top, left + size, top + size))


@dataclass(frozen=True)
class _CroppedPixels:
    """Crops of the images of another source."""

    whole: PixelSource
    size: int
    digests: dict[int, str] = field(default_factory=dict)

    def load(self, index: int) -> Image.Image:
        return centre_crop(self.whole.load(index), self.size)

    def encoded(self, index: int) -> bytes:
        return encode_ppm(np.asarray(self.load(index)))

    def digest(self, index: int) -> str:
        # Kept: every network asks for the digest of every image.
        if index not in self.digests:
            self.digests[index] = f"{self.whole.digest(index)}/centre{self.size}bicubic"
        return self.digests[index]


def centre_cropped(images: ImageSet, size: int) -> ImageSet:
    """Images with the short edge resized to `size` and cropped to a square.

    Raises
    ------
    ConfigError
        If `size` is not positive.
    """
    if size < 1:
        raise ConfigError(f"images are cropped to 1 pixel or more, not {size}")
    return replace(images, pixels=_CroppedPixels(images.pixels, size))
