"""Images of a training: by name, with their classes, decoded once where that helps."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ce_align import __version__
from ce_align.arrays import seal, seal_holds
from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet, Pixels
from ce_align.data.scenes import SIMULATED_IMAGES, find_images, procedural_scenes
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import ConfigError, DataError
from ce_align.files import DAMAGE, atomic_folder, check_regular, read_bytes, reason
from ce_align.progress import Progress, silent

__all__ = [
    "PlacedPixels",
    "check_images",
    "class_names",
    "data_digest",
    "digested",
    "image_arrays",
    "image_labels",
    "in_memory",
    "is_packed",
    "open_images",
    "open_packed",
    "pack",
]

#: Procedural scenes that `simulated` stands for, and their size in views.
N_SCENES, SCENE_SCALE = 2048, 2
#: Images, evenly spaced, that are looked at before training starts.
N_PROBED = 64
#: Images of which all enter the digest of a set, and those that do of a larger one.
N_WHOLE, N_DIGESTED = 20_000, 2_000
#: Columns that may hold the class of an image, the first that is there.
LABEL_COLUMNS = ("label", "object_name")
#: Decoded images that are kept in memory, in bytes; forked workers share them.
MOST_BYTES = 1 << 29
#: Files of a packed folder: pixels one after the other, where each image begins with
#: its height and width, and the rest.
PIXELS, PLACES, METADATA = "pixels.u8", "places.npy", "metadata.json"
#: What the metadata say of themselves.
OWN_DIGEST = "metadata_digest"


def open_images(name: str, view_size: int, seed: int = 0) -> ImageSet:
    """Images for training, by name.

    Parameters
    ----------
    name : folder, zip, tar, a folder that `pack` wrote, or ``simulated``; with
        ``:FOLDER`` for those below one folder, as ``images.zip:train``
    view_size : in pixels; scenes are drawn twice as large
    seed : of the scenes

    Raises
    ------
    ConfigError, DataError
        If there are no images of that name.
    """
    if name == SIMULATED_IMAGES:
        size = min(max(SCENE_SCALE * view_size, 32), 512)
        scenes = procedural_scenes(N_SCENES, seed=seed, size=size)
        # Drawn once: a scene costs more than its views.
        pixels = np.stack([np.asarray(scenes.load(i)) for i in range(len(scenes))])
        labels = {"label": scenes.columns["object_name"]}
        return ImageSet.from_array(name, pixels, scenes.ids, labels)
    place, colon, below = name.rpartition(":")
    if colon and not Path(name).exists():
        images, folder = open_images(place, view_size, seed), below.strip("/")
        rows = [i for i, key in enumerate(images.ids) if key.startswith(f"{folder}/")]
        if not rows:
            folders = sorted({key.partition("/")[0] for key in images.ids})
            raise DataError(
                f"no images at {name}; the folders of {images.identifier} are "
                f"{named_some(folders)}"
            )
        return images.select(rows)
    if is_packed(Path(name)):
        return open_packed(Path(name))
    return find_images(name)


def class_names(images: ImageSet) -> list[str]:
    """Name of the class of every image; empty without labels."""
    for column in LABEL_COLUMNS:
        if column in images.columns:
            return [str(name) for name in images.columns[column]]
    return []


def image_labels(images: ImageSet) -> tuple[NDArray[np.int64], int]:
    """Class of every image and the number of classes; −1 and 0 without labels."""
    for column in LABEL_COLUMNS:
        if column in images.columns:
            names, labels = np.unique(images.columns[column], return_inverse=True)
            if 1 < len(names) < len(images):
                return labels.astype(np.int64), len(names)
    return np.full(len(images), -1), 0


def data_digest(images: ImageSet) -> str:
    """Digest of all identifiers, and of the content of all images or of many.

    The identifiers are the names with their folders, and so the classes. Up to 20,000
    images all content enters: any change is noticed. Of larger sets 2,000 evenly spaced
    images enter, because a million take longer to read than is worth waiting for: if
    1 % of the images, anywhere, have changed, that goes unnoticed twice in a billion
    times; a single one usually does.
    """
    sample = images
    if len(images) > N_WHOLE:
        sample = images.select(_spaced(len(images), N_DIGESTED))
    return combine_digests(digest_json(images.ids), sample.digest)


def digested(n_images: int) -> str:
    """What `data_digest` covers, in words."""
    content = "all" if n_images <= N_WHOLE else f"{N_DIGESTED} evenly spaced"
    return f"names of all {n_images} images, content of {content}"


def check_images(images: ImageSet, view_size: int) -> None:
    """Look at 64 evenly spaced images before training starts.

    Raises
    ------
    DataError
        If there are fewer than two images, one of them cannot be read, or most of them
        are smaller than a view.
    """
    if len(images) < 2:
        raise DataError(
            f"{images.identifier} has {len(images)} image; pairs need at least two"
        )
    sizes = [min(images.load(i).size) for i in _spaced(len(images), N_PROBED)]
    small = sum(size < view_size for size in sizes)
    if 2 * small > len(sizes):
        raise DataError(
            f"{small} of {len(sizes)} images looked at in {images.identifier} are "
            f"smaller than a view of {view_size} pixels (the smallest has {min(sizes)})"
            "; take larger images or a preset of smaller views"
        )


def _spaced(n_images: int, n: int) -> list[int]:
    """At most `n` of the images, evenly spaced."""
    return [int(i) for i in np.linspace(0, n_images - 1, min(n_images, n))]


@dataclass(frozen=True, eq=False)
class PlacedPixels(Pixels):
    """Pixels of all images, one image after the other.

    Attributes
    ----------
    places : (n, 3) offset in bytes, height and width of every image
    stored : (n_bytes,) uint8, or the file that a process maps when it first looks
    checksums : (n,) CRC-32 of every image, if they are known
    """

    places: NDArray[np.int64]
    stored: NDArray[np.uint8] | Path
    checksums: NDArray[np.uint32] | None = None

    @cached_property
    def _flat(self) -> NDArray[np.uint8]:
        if isinstance(self.stored, Path):
            mapped: NDArray[np.uint8] = np.memmap(self.stored, np.uint8, "r")
            return mapped
        return self.stored

    def __getstate__(self) -> dict[str, Any]:
        # A map is opened anew in every process, not copied into it.
        return {name: getattr(self, name) for name in ("places", "stored", "checksums")}

    def array(self, index: int) -> NDArray[np.uint8]:
        """Pixels (height, width, 3), read-only; DataError if they are damaged."""
        offset, height, width = self.places[index].tolist()
        flat = self._flat[offset : offset + height * width * 3]
        if self.checksums is not None and crc32(flat.data) != self.checksums[index]:
            raise DataError(f"{self.stored} is damaged at image {index}; pack again")
        pixels = np.asarray(flat).reshape(height, width, 3)
        pixels.flags.writeable = False
        return pixels

    def load(self, index: int) -> Image.Image:
        """Decoded RGB image."""
        return Image.fromarray(self.array(index))

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
    """The same images, decoded once if all of them fit into so many bytes.

    Their pixels are the same, their encoded bytes and so their digests are not. Of
    larger sets `images` itself is returned.

    Raises
    ------
    DataError
        If an image cannot be read.
    """
    if isinstance(images.pixels, PlacedPixels) and images.screen is None:
        return images
    probed = image_arrays(images, _spaced(len(images), N_PROBED))
    if float(np.mean([array.nbytes for array in probed])) * len(images) > most_bytes:
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
    pixels = PlacedPixels(places, stored[:end])
    return replace(images, pixels=pixels, index=tuple(range(len(images))), screen=None)


def is_packed(path: Path) -> bool:
    """Whether `pack` wrote this folder."""
    return (path / METADATA).is_file() and (path / PIXELS).is_file()


def open_packed(path: Path) -> ImageSet:
    """The images of a packed folder, with their labels.

    Raises
    ------
    DataError
        If its files do not fit one another.
    """
    try:
        document = json.loads(read_bytes(path / METADATA))
        # Those of earlier versions have neither this, nor a seal, nor checksums.
        own = document.pop(OWN_DIGEST, None)
        if (
            own not in (None, digest_json(document))
            or seal_holds(path / PLACES) is False
        ):
            raise DataError("its metadata or places are damaged")
        places = np.load(check_regular(path / PLACES), allow_pickle=False)
        ids = tuple(document["ids"])
        columns = {name: np.array(v) for name, v in document["columns"].items()}
        n_bytes = (path / PIXELS).stat().st_size
        ends = places[:, 0] + places[:, 1] * places[:, 2] * 3
        whole = places.shape == (len(ids), 3) and ends.max() == n_bytes
        checksums = None
        if "checksums" in document:
            checksums = np.array(document["checksums"], np.uint32)
            whole &= checksums.shape == (len(ids),)
    except DAMAGE as error:
        raise DataError(
            f"{path} is not a packed folder: {reason(error)}; pack again"
        ) from error
    if not whole:
        raise DataError(f"{path} is incomplete: its pixels do not fit; pack again")
    pixels = PlacedPixels(places, path / PIXELS, checksums)
    origin = str(document.get("origin", "files"))
    return ImageSet(path.stem, ids, pixels, columns, origin=origin)


def pack(
    images: ImageSet,
    folder: Path,
    *,
    short_edge: int | None = None,
    progress: Progress = silent,
) -> Path:
    """Write all pixels of `images` into one file that training maps into memory.

    Parameters
    ----------
    images : to be decoded, once each
    folder : that appears when it is whole. Part of a pack, or a damaged one, is
        replaced, and a whole one of the same images is left as it is; any other folder
        is in the way.
    short_edge : resize larger images to this many pixels, bicubic. It changes what
        random crops show, and so is written into the metadata.

    Raises
    ------
    ConfigError
        If the folder is in the way or `short_edge` is too small.
    DataError
        If an image cannot be read.
    CeAlignError
        If the system refuses to write there.
    """
    if short_edge is not None and short_edge < 8:
        raise ConfigError(f"a short edge of {short_edge} pixels is too small; give 8")
    columns = {k: np.asarray(v).tolist() for k, v in images.columns.items()}
    wanted = {"ids": list(images.ids), "columns": columns, "short_edge": short_edge}
    try:
        packed = open_packed(folder)
        document = json.loads(read_bytes(folder / METADATA))
    except DataError:
        document = {}
    # The digest last: it reads every image.
    if wanted.items() <= document.items() and document.get("digest") == images.digest:
        with suppress(DataError):
            for row in range(len(packed)):
                image_arrays(packed, [row])
            return folder
        document = {}
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if document or folder.is_file() or not files <= {PIXELS, PLACES, METADATA}:
        raise ConfigError(f"{folder} exists; name another folder or delete it")
    with atomic_folder(folder) as temporary:
        path = temporary / PIXELS
        places, checksums = _write_pixels(images, path, short_edge, progress)
        np.save(temporary / PLACES, places)
        seal(temporary / PLACES)
        document = {
            "version": __version__,
            "source": images.identifier,
            "origin": images.origin,
            "digest": images.digest,
            "n_images": len(images),
            **wanted,
            "checksums": checksums,
        }
        document[OWN_DIGEST] = digest_json(document)
        (temporary / METADATA).write_text(json.dumps(document) + "\n")
    return folder


def _write_pixels(
    images: ImageSet, path: Path, short_edge: int | None, progress: Progress
) -> tuple[NDArray[np.int64], list[int]]:
    """Write the pixels one image after the other; `places` and `checksums` of them."""
    checksums = []
    places = np.empty((len(images), 3), np.int64)
    offset = 0
    with path.open("wb") as file:
        for index in range(len(images)):
            image = images.load(index)
            if short_edge is not None and min(image.size) > short_edge:
                share = short_edge / min(image.size)
                size = round(image.width * share), round(image.height * share)
                image = image.resize(size, Image.Resampling.BICUBIC)
            pixels = np.ascontiguousarray(image, np.uint8)
            places[index] = offset, *pixels.shape[:2]
            offset += pixels.nbytes
            file.write(pixels.data)
            checksums.append(crc32(pixels.data))
            progress("packing", index + 1, len(images))
    return places, checksums
