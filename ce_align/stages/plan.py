"""Which views an analysis shows: the same for every network."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import AugmentationLedger, nested, outer, sample
from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.stages.measures import AnalysisConfig, Metric
from ce_align.stages.variability import units_in_pairs
from ce_align.stages.views import ViewSet

__all__ = ["GEOMETRY_FAMILIES", "METRICS", "ViewPlan", "class_labels", "view_names"]

#: Images of a class that are compared with those of another: at least, and at most.
CLASS_SIZES = (4, 50)

#: Fewer images or classes have no interval.
MIN_UNITS = 5

#: Families whose factorization and dimensionality are measured.
GEOMETRY_FAMILIES = ("strong", "weak", "spatial", "photometric")

#: Stands for views of the family that the settings name.
FAMILY = "family"

#: Views that each kind of measure looks at.
METRICS: dict[Metric, tuple[str, ...]] = {
    "bures": (FAMILY, "crossed", "classes"),
    "decoding": ("clean", FAMILY),
    "factorization": GEOMETRY_FAMILIES,
    "dimensionality": GEOMETRY_FAMILIES,
    "steerability": ("clean", "shared"),
}


def view_names(config: AnalysisConfig) -> tuple[str, ...]:
    """Names of the view sets that settings ask for."""
    names = METRICS[config.metric]
    return tuple(config.family if name == FAMILY else name for name in names)


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
    config: AnalysisConfig

    @cached_property
    def chosen(self) -> ImageSet:
        """Images that are augmented: as many as comparisons, if there are.

        Raises
        ------
        DataError
            If there are fewer than five.
        """
        n = min(len(self.images), self.config.comparisons)
        if n < MIN_UNITS:
            raise DataError(
                f"{self.images.identifier} has {n} images; analyses need {MIN_UNITS} "
                "or more"
            )
        rng = np.random.default_rng([self.config.seed, 5])
        rows = rng.choice(len(self.images), n, replace=False)
        return self.images.select(np.sort(rows).tolist())

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
        """View set by its name; None for classes where images have none."""
        config = self.config
        if name == "classes":
            if self.classes is None:
                return None
            rows = np.concatenate(list(self.classes.values()))
            return self._clean(name, self.images.select(rows.tolist()))
        if name == "clean":
            return self._clean(name, self.chosen)
        n = len(self.chosen)
        # Each kind of views has draws of its own.
        rng = np.random.default_rng([config.seed, *name.encode()])
        if name == "crossed":
            ledger = AugmentationLedger.concat([self._crossed(rng) for _ in range(n)])
            views = ViewSet(name, self.chosen, ledger, config.size)
            return replace(views, crossed=(config.crops, config.photometrics))
        if name == "shared":
            draws = sample(config.family, config.views, rng)
            ledger = AugmentationLedger.concat([draws] * n)
        else:
            ledger = sample(name, n * config.views, rng)
        return ViewSet(name, self.chosen, ledger, config.size)

    def _clean(self, name: str, images: ImageSet) -> ViewSet:
        ledger = AugmentationLedger.identity(len(images))
        return ViewSet(name, images, ledger, self.config.size)

    def _crossed(self, rng: np.random.Generator) -> AugmentationLedger:
        crops = sample("spatial", self.config.crops, rng)
        if self.config.independent_photometrics:
            n = self.config.crops * self.config.photometrics
            return nested(crops, sample("photometric", n, rng))
        return outer(crops, sample("photometric", self.config.photometrics, rng))
