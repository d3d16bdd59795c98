"""Views of images, and what is kept of a network's responses to them."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import TRANSFORMS_VERSION, AugmentationLedger, apply
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import DataError

__all__ = ["RESPONSES_VERSION", "ViewSet", "block_means"]

#: Changes whenever the same views and network would give other responses.
RESPONSES_VERSION = 1

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Equally many views of every image.

    Attributes
    ----------
    name : what the views are for
    images : the images
    ledger : n_images × n_views rows, image by image
    size : height and width of a view in pixels
    crossed : None, or (crops, photometrics) if the views of an image are all
        combinations; then only means over blocks of them are kept, see `block_means`
    mean : keep only the mean over the views of each image
    """

    name: str
    images: ImageSet
    ledger: AugmentationLedger
    size: int
    crossed: tuple[int, int] | None = None
    mean: bool = False

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.ledger) % len(self.images):
            raise DataError(
                f"{len(self.ledger)} views cannot be shared equally by "
                f"{len(self.images)} images"
            )

    @property
    def n_views(self) -> int:
        """Views of one image."""
        return len(self.ledger) // len(self.images)

    @cached_property
    def digest(self) -> str:
        """Digest of the images, of what was done to them and of what is kept."""
        versions = [TRANSFORMS_VERSION, RESPONSES_VERSION]
        settings = digest_json([versions, self.size, self.crossed, self.mean])
        return combine_digests(self.images.digest, self.ledger.digest, settings)

    def rows(self, image: int) -> AugmentationLedger:
        """What was done to one image, n_views rows."""
        start = image * self.n_views
        return self.ledger[start : start + self.n_views]

    def render(self, image: int) -> NDArray[np.uint8]:
        """Views (n_views, size, size, 3) of one image.

        Raises
        ------
        DataError
            If its file cannot be read.
        """
        try:
            pixels = np.asarray(self.images.load(image))
        except OSError as error:
            raise DataError(
                f"image {self.images.ids[image]} cannot be read: "
                f"{error.strerror or error}"
            ) from error
        return apply(pixels, self.rows(image), self.size)

    def reduce(self, responses: FloatArray) -> FloatArray:
        """What is kept of the responses (n_views, n_features) to one image."""
        if self.mean:
            whole: FloatArray = responses.mean(axis=0, keepdims=True, dtype=np.float64)
            return whole.astype(np.float32)
        if self.crossed is None:
            return responses
        return block_means(responses.reshape(*self.crossed, -1))


def block_means(responses: FloatArray) -> FloatArray:
    """Means over halves of the crops and over halves of the photometrics.

    Parameters
    ----------
    responses : (n_crops, n_photometrics, n_features)

    Returns
    -------
    (2 × n_photometrics + 2 × n_crops, n_features)
        Of each photometric draw, the mean over the first and over the second half of
        the crops; then of each crop, the mean over the first and over the second half
        of the photometrics. Full means and the means of disjoint views both follow.
    """
    n_crops, n_photometrics, _ = responses.shape
    means = [
        *(half.mean(axis=0) for half in _halves(responses, n_crops, 0)),
        *(half.mean(axis=1) for half in _halves(responses, n_photometrics, 1)),
    ]
    kept: FloatArray = np.concatenate(means).astype(np.float32)
    return kept


def _halves(values: FloatArray, n: int, axis: int) -> tuple[FloatArray, FloatArray]:
    first, second = np.split(values, [n // 2], axis=axis)
    return first, second
