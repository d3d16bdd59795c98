"""Images of classes, one's own or published, to learn from and to be tested on."""

import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some, nearest_names
from ce_align.data.imagefiles import FolderSource
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.files import DAMAGE, reason, scratch_folder
from ce_align.names import KNOWN

__all__ = [
    "DATASETS",
    "Convention",
    "LabelledImages",
    "LabelledSplits",
    "load_splits",
    "read_splits",
]

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

    `classes` are in the order of the labels. Official `validation` images choose the
    strength; without them `validation_share` of each class of `train` is split off.
    Raises DataError if there are fewer than two classes, or one that is not in `train`.
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
    ``val`` is what is tested on, and does not choose the strength. Raises DataError if
    there is nothing of that kind at `path`.
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


@dataclass(frozen=True)
class PublishedSet:
    """How torchvision names a data set, and where its files come from.

    reader : class of ``torchvision.datasets``
    arguments : of the reader for train, test and, if it is official, validation
    folder : below the root, made from the files
    contents : of the folder
    convention : accuracy that its authors report
    """

    reader: str
    arguments: Mapping[str, Mapping[str, Any]]
    url: str
    folder: str
    contents: str
    convention: Convention = "top1"
    validation_share: float = 0.1


_TRAIN_OR_NOT = {"train": {"train": True}, "test": {"train": False}}
_OFFICIAL = {"train": {"split": "train"}, "test": {"split": "test"}}
_THREE = {**_OFFICIAL, "validation": {"split": "val"}}

#: Data sets by the names that commands give them.
DATASETS: dict[str, PublishedSet] = {
    "cifar10": PublishedSet(
        "CIFAR10",
        _TRAIN_OR_NOT,
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "cifar-10-batches-py",
        "data_batch_1 … 5, test_batch, batches.meta",
    ),
    "cifar100": PublishedSet(
        "CIFAR100",
        _TRAIN_OR_NOT,
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "cifar-100-python",
        "train, test, meta",
    ),
    "pets": PublishedSet(
        "OxfordIIITPet",
        {"train": {"split": "trainval"}, "test": {"split": "test"}},
        "https://www.robots.ox.ac.uk/~vgg/data/pets/data/{images,annotations}.tar.gz",
        "oxford-iiit-pet",
        "images/, annotations/",
        convention="mean_per_class",
        # A tenth would leave ten images of a class.
        validation_share=0.2,
    ),
    "dtd": PublishedSet(
        "DTD",
        _THREE,
        "https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
        "dtd",
        "dtd/images/, dtd/labels/",
    ),
    "flowers102": PublishedSet(
        "Flowers102",
        _THREE,
        "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/"
        "{102flowers.tgz,imagelabels.mat,setid.mat}",
        "flowers-102",
        "jpg/, imagelabels.mat, setid.mat",
        convention="mean_per_class",
    ),
    "food101": PublishedSet(
        "Food101",
        _OFFICIAL,
        "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
        "food-101",
        "images/, meta/",
    ),
}
KNOWN["dataset"].update(DATASETS)


def load_splits(name: str, root: Path, *, download: bool = False) -> LabelledSplits:
    """One of the published `DATASETS` below `root`, or of a path: see `read_splits`.

    DTD is its first official partition. Raises ConfigError if the name means nothing,
    AccessError if the data set is not there or cannot be downloaded, DataError if what
    is there is damaged.
    """
    if name not in DATASETS:
        if Path(name).exists():
            return read_splits(Path(name))
        near = nearest_names(name, DATASETS) or sorted(DATASETS)
        raise ConfigError(
            f"no data set is called {name!r} and there is no such folder; nearest: "
            f"{', '.join(near)}"
        )
    known = DATASETS[name]
    if not (root / known.folder).is_dir():
        if not download:
            raise AccessError(
                f"{name} is not in {root}; get {known.url} and unpack it as "
                f"{root / known.folder} ({known.contents}), or add --download"
            )
        _download(name, known, root)
    parts = {
        split: _part(f"{name}/{split}", _read(name, known, root, split), root)
        for split in known.arguments
    }
    return LabelledSplits(
        name,
        parts["train"][1],
        parts["train"][0],
        parts["validation"][0] if "validation" in parts else None,
        parts["test"][0],
        known.convention,
        known.validation_share,
    )


def _reader(known: PublishedSet) -> Callable[..., Any]:
    from torchvision import datasets

    reader: Callable[..., Any] = getattr(datasets, known.reader)
    return reader


def _read(name: str, known: PublishedSet, root: Path, split: str) -> Any:
    try:
        return _reader(known)(str(root), **known.arguments[split])
    except (*DAMAGE, UnpicklingError) as error:
        raise DataError(
            f"{root / known.folder} is not the whole {name} ({reason(error)}); "
            f"expected {known.contents} from {known.url}; remove it and try again"
        ) from error


def _download(name: str, known: PublishedSet, root: Path) -> None:
    """Download beside the place and rename: a broken download leaves nothing."""
    try:
        with (
            scratch_folder(known.folder, root) as part,
            # Whatever torchvision prints is no row.
            redirect_stdout(sys.stderr),
        ):
            _reader(known)(str(part), **known.arguments["train"], download=True)
            shutil.move(part / known.folder, root / known.folder)
    except DAMAGE as error:
        raise AccessError(
            f"{name} cannot be downloaded from {known.url}: {reason(error)}; "
            f"unpack it as {root / known.folder} yourself"
        ) from error


def _part(
    identifier: str, read: Any, root: Path
) -> tuple[LabelledImages, tuple[str, ...]]:
    """Images and classes of one split, and the classes' names."""
    if hasattr(read, "data"):
        labels = np.array(read.targets, np.int64)
        images = ImageSet.from_array(identifier, read.data)
    else:
        # No public attribute has the files, and opening every image takes hours.
        paths = read._images if hasattr(read, "_images") else read._image_files
        names = tuple(str(path) for path in paths)
        labels = np.array(read._labels, np.int64)
        source = FolderSource(root, remedy="unpack the data set again")
        images = ImageSet.from_encoded(identifier, names, source, names, {})
    return LabelledImages(images, labels), tuple(map(str, read.classes))
