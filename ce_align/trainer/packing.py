"""Images decoded once: a memory map of their pixels, and what it was made from."""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ce_align import __version__
from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError, DataError
from ce_align.files import atomic_folder
from ce_align.progress import Progress, silent
from ce_align.trainer.pixels import PlacedPixels

__all__ = ["is_packed", "open_packed", "pack"]

#: Files of a packed folder: pixels one after the other, where each image begins with
#: its height and width, and the rest.
PIXELS, PLACES, METADATA = "pixels.u8", "places.npy", "metadata.json"


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
        document = json.loads((path / METADATA).read_text())
        places = np.load(path / PLACES, allow_pickle=False)
        ids = tuple(document["ids"])
        columns = {name: np.array(v) for name, v in document["columns"].items()}
        n_bytes = (path / PIXELS).stat().st_size
        ends = places[:, 0] + places[:, 1] * places[:, 2] * 3
        whole = places.shape == (len(ids), 3) and ends.max() == n_bytes
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise DataError(
            f"{path} is not a packed folder: {error}; pack again"
        ) from error
    if not whole:
        raise DataError(f"{path} is incomplete: its pixels do not fit; pack again")
    pixels = PlacedPixels(places, path / PIXELS)
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
    folder : that appears when it is whole. Part of a pack is replaced, and a whole one
        of the same images is left as it is; any other folder is in the way.
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
    whole = folder.exists() and _is_whole(folder)
    if whole and _is_of(folder, images, short_edge):
        return folder
    files = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if whole or folder.is_file() or not files <= {PIXELS, PLACES, METADATA}:
        raise ConfigError(f"{folder} exists; name another folder or delete it")
    with atomic_folder(folder) as temporary:
        places = _write_pixels(images, temporary / PIXELS, short_edge, progress)
        np.save(temporary / PLACES, places)
        document = {
            "version": __version__,
            "source": images.identifier,
            "origin": images.origin,
            "digest": images.digest,
            "short_edge": short_edge,
            "n_images": len(images),
            "ids": images.ids,
            "columns": {k: np.asarray(v).tolist() for k, v in images.columns.items()},
        }
        (temporary / METADATA).write_text(json.dumps(document) + "\n")
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        open_packed(folder)
    except DataError:
        return False
    return True


def _is_of(folder: Path, images: ImageSet, short_edge: int | None) -> bool:
    """Whether a folder is the pack of these very images."""
    document = json.loads((folder / METADATA).read_text())
    columns = {k: np.asarray(v).tolist() for k, v in images.columns.items()}
    known = document["ids"], document["columns"], document["short_edge"]
    return known == (list(images.ids), columns, short_edge) and (
        document.get("digest") == images.digest
    )


def _write_pixels(
    images: ImageSet, path: Path, short_edge: int | None, progress: Progress
) -> NDArray[np.int64]:
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
            progress("packing", index + 1, len(images))
    return places
