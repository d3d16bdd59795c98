"""Views that an analysis shows to every network, and what is kept of them."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import (
    TRANSFORMS_VERSION,
    AugmentationLedger,
    apply,
    nested,
    outer,
    sample,
)
from ce_align.data.imagesets import ImageSet, validation_crops
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import DataError
from ce_align.stages.variability import units_in_pairs

if TYPE_CHECKING:
    from ce_align.stages.measures import AnalysisConfig

__all__ = [
    *("FAMILY", "GEOMETRY_FAMILIES", "RESPONSES_VERSION", "ViewPlan", "ViewSet"),
    *("CLASS_SIZES", "block_means", "class_labels"),
]

#: Changes whenever the same views and network would give other responses.
RESPONSES_VERSION = 1

#: Images of a class that are compared with those of another: at least, and at most.
CLASS_SIZES = (4, 50)

#: Fewer images or classes have no interval.
MIN_UNITS = 5

#: Families whose factorization and dimensionality are measured.
GEOMETRY_FAMILIES = ("strong", "weak", "spatial", "photometric")

#: Stands for the views of the family that the settings name.
FAMILY = "family"

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


def class_labels(images: ImageSet) -> NDArray[Any] | None:
    """Class of each image: its ``object_name``, else its folder, else None."""
    return images.columns.get("object_name", images.columns.get("label"))


@dataclass(frozen=True, eq=False)
class ViewPlan:
    """The views that settings ask for.

    Attributes
    ----------
    images : to choose from; a column ``object_name`` or ``label`` gives the classes
    config : of any network, for networks differ in none of the settings used here
    """

    images: ImageSet
    config: "AnalysisConfig"

    @cached_property
    def _chosen_rows(self) -> list[int]:
        n = min(len(self.images), self.config.comparisons)
        rng = np.random.default_rng([self.config.seed, 5])
        order = rng.permutation(len(self.images))
        labels = class_labels(self.images)
        if labels is not None:
            # The first image of every class, then the second, and so on.
            _, kinds = np.unique(labels[order], return_inverse=True)
            order = order[np.argsort(_ranks(kinds), kind="stable")]
        return [int(row) for row in np.sort(order[:n])]

    @cached_property
    def chosen(self) -> ImageSet:
        """Images that are compared: as many as comparisons, if there are.

        Drawn at random over the whole set, and equally many of each class as far as
        they go.

        Raises
        ------
        DataError
            If there are fewer than five.
        """
        if len(self._chosen_rows) < MIN_UNITS:
            raise DataError(
                f"{self.images.identifier} has {len(self.images)} images; analyses "
                f"need {MIN_UNITS} or more"
            )
        return self.images.select(self._chosen_rows)

    @cached_property
    def beyond(self) -> ImageSet | None:
        """Images that are not compared; None if there are none.

        The centroids are those of all images given, as in the paper, however few
        are compared.
        """
        rest = np.setdiff1d(np.arange(len(self.images)), self._chosen_rows)
        return self.images.select(rest.tolist()) if rest.size else None

    @property
    def without_classes(self) -> str | None:
        """Why classes are not compared, in words; None if they are."""
        if self.classes is not None:
            return None
        labels = class_labels(self.images)
        sizes = np.unique(() if labels is None else labels, return_counts=True)[1]
        n = int((sizes >= CLASS_SIZES[0]).sum())
        return (
            f"{self.images.identifier} has {n or 'no'} classes of {CLASS_SIZES[0]} "
            f"images or more, {MIN_UNITS} are needed; put the images of each class "
            "into a folder of its own"
        )

    @cached_property
    def classes(self) -> dict[str, NDArray[np.intp]] | None:
        """Rows of equally many images of each class; None if there are no classes.

        Without a number in the settings there are so many classes that each takes part
        in several comparisons.

        Raises
        ------
        DataError
            If classes are asked for by number and there are not so many.
        """
        config, labels = self.config, class_labels(self.images)
        least, most = CLASS_SIZES
        names, counts = np.unique(() if labels is None else labels, return_counts=True)
        names = names[counts >= least]
        if len(names) < (config.classes or MIN_UNITS):
            if config.classes is None:
                return None
            raise DataError(
                f"{config.classes} classes are asked for, {self.images.identifier} has "
                f"{len(names)} of {least} images or more; put the images of each class "
                "into a folder of its own, or leave out --classes"
            )
        rng = np.random.default_rng([config.seed, 6])
        wanted = config.classes or units_in_pairs(config.comparisons)
        members = {
            str(name): rng.permutation(np.flatnonzero(labels == name))
            for name in np.sort(rng.permutation(names)[:wanted])
        }
        n = min(most, *map(len, members.values()))
        return {name: np.sort(rows[:n]) for name, rows in members.items()}

    def views(self, name: str) -> ViewSet | None:
        """View set by its name; None for classes where images have none.

        Crops are sampled for the size of each image. Views that transform all images
        alike (``shared``) have one relative place for all, which is that of a square.
        """
        config = self.config
        if name == "classes":
            if self.classes is None:
                return None
            rows = np.concatenate(list(self.classes.values()))
            return self._clean(name, self.images.select(rows.tolist()))
        if name == "clean":
            return self._clean(name, self.chosen)
        # Each kind of views has draws of its own.
        rng = np.random.default_rng([config.seed, *name.encode()])
        if name == "centroids":
            if config.centroids == "compared" or self.beyond is None:
                return None
            ledger = self._augmented(config.family, self.beyond, rng)
            return ViewSet(name, self.beyond, ledger, config.size, mean=True)
        images = self.chosen
        if name == "crossed":
            grids = [self._crossed(size, rng) for size in images.sizes]
            ledger = AugmentationLedger.concat(grids)
            views = ViewSet(name, images, ledger, config.size)
            return replace(views, crossed=(config.crops, config.photometrics))
        if name == "shared":
            draws = sample(config.family, config.views, rng)
            ledger = AugmentationLedger.concat([draws] * len(images))
        else:
            ledger = self._augmented(name, images, rng)
        return ViewSet(name, images, ledger, config.size)

    def _augmented(
        self, family: str, images: ImageSet, rng: np.random.Generator
    ) -> AugmentationLedger:
        n = self.config.views
        sizes = images.sizes.repeat(n, axis=0)
        return sample(family, n * len(images), rng, sizes=sizes)

    def _clean(self, name: str, images: ImageSet) -> ViewSet:
        size = self.config.size
        ledger = AugmentationLedger.identity(len(images))
        return ViewSet(name, validation_crops(images, size), ledger, size)

    def _crossed(
        self, size: NDArray[np.int64], rng: np.random.Generator
    ) -> AugmentationLedger:
        crops = sample("spatial", self.config.crops, rng, sizes=size)
        if self.config.independent_photometrics:
            n = self.config.crops * self.config.photometrics
            return nested(crops, sample("photometric", n, rng))
        return outer(crops, sample("photometric", self.config.photometrics, rng))


def _ranks(kinds: NDArray[np.intp]) -> NDArray[np.intp]:
    """How many of its own kind come before each item."""
    order = np.argsort(kinds, kind="stable")
    starts = np.searchsorted(kinds[order], kinds)
    ranks = np.empty(len(kinds), np.intp)
    ranks[order] = np.arange(len(kinds))
    return ranks - starts
