"""Images of classes, split into those to learn from and those to be tested on."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import DataError

__all__ = ["Convention", "LabelledImages", "LabelledSplits", "read_splits"]

#: Share of test images named rightly, or the mean of these shares over classes.
Convention = Literal["top1", "mean_per_class"]

#: Folders that stand for each split.
FOLDERS: Mapping[str, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "validation", "valid"),
    "test": ("test",),
}


@dataclass(frozen=True, eq=False)
class LabelledImages:
    """Images and the class of each, a number from 0."""

    images: ImageSet
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def digest(self) -> str:
        """Digest of images and classes."""
        return combine_digests(self.images.digest, digest_json(self.labels.tolist()))


@dataclass(frozen=True, eq=False)
class LabelledSplits:
    """A data set for linear evaluation.

    Attributes
    ----------
    name : as the user calls it
    classes : their names, in the order of the labels
    train, test : every class of `test` occurs in `train`
    validation : official images that choose the strength; None if there are none
    convention : which accuracy is reported
    validation_share : of each class of `train`, to be split off where there is no
        official validation

    Raises
    ------
    DataError
        If there are fewer than two classes, or one that is not in `train`.
    """

    name: str
    classes: tuple[str, ...]
    train: LabelledImages
    validation: LabelledImages | None
    test: LabelledImages
    convention: Convention = "top1"
    validation_share: float = 0.1

    def __post_init__(self) -> None:
        present = np.bincount(self.train.labels, minlength=len(self.classes)) > 0
        absent = [
            c for c, known in zip(self.classes, present, strict=True) if not known
        ]
        if absent or len(self.classes) < 2:
            raise DataError(
                f"{self.name} has {len(self.classes)} classes, of which "
                f"{len(absent)} have no image to learn from"
                f"{': ' if absent else ''}{named_some(absent)}; there must be two or "
                "more, each with images in train"
            )

    @property
    def parts(self) -> dict[str, LabelledImages]:
        """Splits that there are, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in found.items() if part is not None}

    @cached_property
    def digest(self) -> str:
        """Digest of images, classes and splits."""
        return combine_digests(*(f"{k}:{v.digest}" for k, v in self.parts.items()))


def read_splits(path: Path) -> LabelledSplits:
    """Splits of a folder, zip or tar of images.

    Images lie in ``SPLIT/CLASS/``, at any depth below. ``train`` is needed and one of
    ``test`` and ``val`` (also ``validation``, ``valid``). Where there is no ``test``,
    ``val`` is what is tested on, and does not choose the strength.

    Raises
    ------
    DataError
        If there is nothing of that kind at `path`.
    """
    images = ImageSet.from_path(path)
    places = [key.split("/") for key in images.ids]
    rows = {
        split: [
            row
            for row, place in enumerate(places)
            if len(place) > 2 and place[0].lower() in names
        ]
        for split, names in FOLDERS.items()
    }
    if not rows["test"]:
        rows["test"], rows["validation"] = rows["validation"], []
    if not rows["train"] or not rows["test"]:
        folders = sorted({place[0] for place in places if len(place) > 1})
        raise DataError(
            f"{path} has {'the folders ' + named_some(folders) if folders else 'no'}"
            f"{'' if folders else ' folders'}; expected train/CLASS/… and test/CLASS/… "
            "or val/CLASS/…"
        )
    used = sorted(row for found in rows.values() for row in found)
    classes = sorted({places[row][1] for row in used})
    numbers = {name: number for number, name in enumerate(classes)}
    parts = {
        split: LabelledImages(
            images.select(found), np.array([numbers[places[row][1]] for row in found])
        )
        for split, found in rows.items()
        if found
    }
    return LabelledSplits(
        str(path),
        tuple(classes),
        parts["train"],
        parts.get("validation"),
        parts["test"],
    )
