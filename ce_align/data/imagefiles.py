"""Encoded images in a folder, zip, tar or memory; read in place, never unpacked."""

import os
import re
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.errors import ConfigError, DataError

__all__ = [
    "ORDERS",
    "FileSource",
    "MemorySource",
    "ZipSource",
    "open_source",
    "order_names",
]

SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm"}
ZIP_SUFFIXES = {".zip"}
TAR_SUFFIXES = {".tar", ".tgz", ".tbz2", ".txz", ".gz", ".bz2", ".xz"}

#: A single encoded image larger than this is not a stimulus (256 MiB).
MAX_FILE_BYTES = 2**28
#: Compressed tars have no random access and are kept in memory up to this (4 GiB).
MAX_TAR_BYTES = 2**32


class FileSource(Protocol):
    """Encoded images by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names with folders, in the order of the archive."""

    def read(self, name: str) -> bytes:
        """Encoded bytes of one image."""


def _is_image(name: str) -> bool:
    path = PurePosixPath(name)
    hidden = any(part.startswith((".", "__MACOSX")) for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden


class MemorySource:
    """Encoded images that are already in memory."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files

    @property
    def names(self) -> tuple[str, ...]:
        """Names in the order given."""
        return tuple(self._files)

    def read(self, name: str) -> bytes:
        """Encoded bytes of one image."""
        return self._files[name]


class FolderSource:
    """Image files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Paths relative to the folder, sorted."""
        found = (
            path.relative_to(self._folder).as_posix()
            for path in self._folder.rglob("*")
            if path.is_file()
        )
        return tuple(sorted(filter(_is_image, found)))

    def read(self, name: str) -> bytes:
        """Encoded bytes of one image."""
        path = self._folder / name
        if path.stat().st_size > MAX_FILE_BYTES:
            raise DataError(f"{path} is larger than {MAX_FILE_BYTES >> 20} MiB")
        return path.read_bytes()


class ZipSource:
    """Images inside a zip file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    @property
    def _zip(self) -> zipfile.ZipFile:
        # A handle inherited through fork shares its file position with the parent.
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = (os.getpid(), zipfile.ZipFile(self._path))
        return self._handle[1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the archive."""
        infos = [info for info in self._zip.infolist() if _is_image(info.filename)]
        large = [info.filename for info in infos if info.file_size > MAX_FILE_BYTES]
        if large:
            raise DataError(
                f"{self._path} holds files above {MAX_FILE_BYTES >> 20} MiB: "
                f"{named_some(large)}"
            )
        return tuple(info.filename for info in infos)

    def read(self, name: str) -> bytes:
        """Encoded bytes of one image."""
        return self._zip.read(name)


def _read_tar(path: Path) -> MemorySource:
    files: dict[str, bytes] = {}
    total = 0
    with tarfile.open(path) as archive:
        for member in archive:
            if not (member.isfile() and _is_image(member.name)):
                continue
            total += member.size
            if member.size > MAX_FILE_BYTES or total > MAX_TAR_BYTES:
                raise DataError(
                    f"{path} holds more than can be read from a tar "
                    f"({MAX_TAR_BYTES >> 30} GiB); unpack it or make it a zip"
                )
            stream = archive.extractfile(member)
            if stream is not None:
                files[member.name] = stream.read()
    return MemorySource(files)


def open_source(path: Path) -> FileSource:
    """Images of a folder, zip or tar.

    Raises
    ------
    DataError
        If there is nothing at `path`, it is of another kind, is damaged or holds no
        image.
    """
    if not path.exists():
        raise DataError(f"no images at {path}; give a folder, a zip or a tar")
    try:
        source: FileSource
        if path.is_dir():
            source = FolderSource(path)
        elif path.suffix.lower() in ZIP_SUFFIXES:
            source = ZipSource(path)
        elif path.suffix.lower() in TAR_SUFFIXES:
            source = _read_tar(path)
        else:
            raise DataError(f"{path} is not a folder, a zip or a tar of images")
        empty = not source.names
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise DataError(f"{path} is damaged or not an archive: {error}") from error
    if empty:
        raise DataError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
    return source


def _natural_key(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name.lower())
    return [(0, int(p)) if p.isdigit() else (1, p) for p in parts if p]


#: Ways to order file names.
ORDERS: dict[str, Callable[[str], Any]] = {"natural": _natural_key, "name": str}


def order_names(names: Sequence[str], order: str) -> tuple[str, ...]:
    """Sort file names by the numbers in them (``natural``) or by letter (``name``).

    Raises
    ------
    ConfigError
        If `order` is neither.

    >>> order_names(["im10.png", "im9.png"], "natural")
    ('im9.png', 'im10.png')
    """
    if order not in ORDERS:
        raise ConfigError(f"unknown order {order!r}; choose from {sorted(ORDERS)}")
    return tuple(sorted(names, key=ORDERS[order]))


def encode_ppm(image: NDArray[np.uint8]) -> bytes:
    """Image (height, width, 3) as a PPM file.

    Unlike those of PNG, its bytes, hence their digest, depend on no compressor.
    """
    height, width, _ = image.shape
    return f"P6 {width} {height} 255\n".encode() + bytes(image.tobytes())
