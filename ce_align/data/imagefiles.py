"""Encoded images in a folder, zip, tar or memory; read in place, never unpacked."""

import os
import posixpath
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from tarfile import HeaderError, ReadError
from typing import Any, NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.errors import ConfigError, DataError
from ce_align.files import check_readable, check_regular, read_bytes, reading_archive

__all__ = [
    "MAX_FILE_BYTES",
    "ORDERS",
    "FileSource",
    "FolderSource",
    "MemorySource",
    "ZipSource",
    "encode_ppm",
    "find_names",
    "is_image_name",
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


def is_image_name(name: str) -> bool:
    """Whether a name is that of an image file, and of no hidden one."""
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


def _files_below(folder: Path) -> Iterator[Path]:
    """Files of a folder and of those below it, linked ones too."""

    def refused(error: OSError) -> NoReturn:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror}; its images would be "
            "missing"
        ) from error

    for here, folders, names in os.walk(folder, onerror=refused, followlinks=True):
        above = [Path(here).resolve(), *Path(here).resolve().parents]
        # A link to a folder above would never end.
        folders[:] = [
            name
            for name in folders
            if not ((link := Path(here, name)).is_symlink() and link.resolve() in above)
        ]
        # A link that leads nowhere is told of when it is read, not left out.
        paths = [Path(here, name) for name in names]
        yield from (path for path in paths if path.is_file() or not path.exists())


class FolderSource:
    """Image files below a folder."""

    def __init__(self, folder: Path, remedy: str = "") -> None:
        self._folder = folder
        self._remedy = f"; {remedy}" if remedy else ""

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Paths relative to the folder, sorted."""
        found = (
            path.relative_to(self._folder).as_posix()
            for path in _files_below(self._folder)
        )
        return tuple(sorted(filter(is_image_name, found)))

    def read(self, name: str) -> bytes:
        """Encoded bytes of one image."""
        path = self._folder / name
        try:
            return read_bytes(path, MAX_FILE_BYTES)
        except OSError as error:
            raise DataError(
                f"image {path} cannot be read: {error.strerror or error}{self._remedy}"
            ) from error


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
            self._handle = (os.getpid(), zipfile.ZipFile(check_regular(self._path)))
        return self._handle[1]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the archive."""
        with reading_archive(self._path, "zip"):
            infos = [
                info for info in self._zip.infolist() if is_image_name(info.filename)
            ]
        check_readable(infos, self._path)
        large = [info.filename for info in infos if info.file_size > MAX_FILE_BYTES]
        if large:
            raise DataError(
                f"{self._path} holds files above {MAX_FILE_BYTES >> 20} MiB: "
                f"{named_some(large)}"
            )
        return tuple(info.filename for info in infos)

    def read(self, name: str) -> bytes:
        """Encoded bytes of one image."""
        with reading_archive(f"image {name} of {self._path}", "zip entry"):
            entry = self._zip.getinfo(name)
            check_readable([entry], self._path)
            return self._zip.read(entry)


class _StrictHeader(tarfile.TarInfo):
    """Header of a tar; one that is damaged is no end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: Any) -> "_StrictHeader":
        """Next header of an open tar."""
        try:
            return super().fromtarfile(tarfile)
        except HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # typeshed lacks it
                raise
            # Python's tarfile takes it for the end, and what follows would be lost.
            raise ReadError(f"no header at byte {tarfile.offset}: {error}") from None


def _read_tar(path: Path) -> MemorySource:
    files: dict[str, bytes] = {}
    links: dict[str, str] = {}
    total = 0
    try:
        with (
            reading_archive(path, "tar"),
            tarfile.open(path, tarinfo=_StrictHeader) as archive,
        ):
            for member in archive:
                if not is_image_name(member.name):
                    continue
                if member.issym() or member.islnk():
                    links[member.name] = _link_target(member)
                if not member.isfile():
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
            _check_end(archive, path)
    except MemoryError as error:
        raise DataError(
            f"{path} needs more memory than there is, or its sizes are damaged; make "
            "it a zip"
        ) from error
    return MemorySource(files | _linked(files, links, path))


def _check_end(archive: tarfile.TarFile, path: Path) -> None:
    """Read what follows the end mark: checksums of the compression, or another tar."""
    stream: Any = archive.fileobj
    while rest := stream.read(2**20):
        if rest.strip(b"\0"):
            raise DataError(
                f"{path} goes on after its end mark; if archives were joined, unpack "
                "them and make one"
            )


def _link_target(member: tarfile.TarInfo) -> str:
    """Name of the file that a link of a tar stands for."""
    if member.islnk():
        return member.linkname
    return posixpath.normpath(
        posixpath.join(posixpath.dirname(member.name), member.linkname)
    )


def _linked(
    files: dict[str, bytes], links: dict[str, str], path: Path
) -> dict[str, bytes]:
    """Content of the links of a tar."""
    found, lost = {}, []
    for name, target in links.items():
        for _ in links:  # a chain is no longer than this
            target = links.get(target, target)
        if target in files:
            found[name] = files[target]
        else:
            lost.append(name)
    if lost:
        raise DataError(
            f"{path} has links to what is no image in it ({named_some(lost)}); make it "
            "with the files themselves (tar --dereference)"
        )
    return found


def open_source(path: Path) -> FileSource:
    """Images of a folder, zip or tar.

    Raises DataError if there is nothing at `path`, or it is of another kind, is damaged
    or holds no image.
    """
    if not path.exists():
        raise DataError(f"no images at {path}; give a folder, a zip or a tar")
    source: FileSource
    if path.is_dir():
        source = FolderSource(path)
    elif path.suffix.lower() in ZIP_SUFFIXES:
        source = ZipSource(path)
    elif path.suffix.lower() in TAR_SUFFIXES:
        source = _read_tar(path)
    else:
        raise DataError(f"{path} is not a folder, a zip or a tar of images")
    spelled = {n: n.encode("utf-8", "backslashreplace").decode() for n in source.names}
    if odd := [text for name, text in spelled.items() if text != name]:
        raise DataError(
            f"{path} has names of images that are no UTF-8 ({named_some(odd)}); rename "
            "them"
        )
    if not source.names:
        raise DataError(f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
    return source


def _natural_key(name: str) -> list[tuple[int, int | str]]:
    parts = re.split(r"(\d+)", name.lower())
    # `isdigit` is true of "²", too, which is no number to `int`.
    return [(0, int(p)) if p.isdecimal() else (1, p) for p in parts if p]


#: Ways to order file names.
ORDERS: dict[str, Callable[[str], Any]] = {"natural": _natural_key, "name": str}


def order_names(names: Sequence[str], order: str) -> tuple[str, ...]:
    """Sort file names by the numbers in them (``natural``) or by letter (``name``).

    >>> order_names(["im10.png", "im9.png"], "natural")
    ('im9.png', 'im10.png')
    """
    if order not in ORDERS:
        raise ConfigError(f"unknown order {order!r}; choose from {sorted(ORDERS)}")
    return tuple(sorted(names, key=ORDERS[order]))


def find_names(available: Sequence[str], listed: Sequence[str]) -> list[str | None]:
    """Full names of listed files; None where there is none, or more than one.

    A listed name may lack its folder or its suffix, or have other folders before it.

    >>> find_names(["a/im1.png", "a/im2.png"], ["im2", "/data/im1.png", "im3"])
    ['a/im2.png', 'a/im1.png', None]
    """
    by_name: dict[str, set[str]] = {}
    keys: tuple[Callable[[PurePosixPath], str], ...] = (
        lambda p: p.as_posix(),
        lambda p: p.name,
        lambda p: p.with_suffix("").as_posix(),
        lambda p: p.stem,
    )
    for name in available:
        for key in keys:
            by_name.setdefault(key(PurePosixPath(name)), set()).add(name)

    def find(name: str) -> str | None:
        path = PurePosixPath(name.strip().replace("\\", "/"))
        matches = by_name.get(path.as_posix()) or by_name.get(path.name) or set()
        return next(iter(matches)) if len(matches) == 1 else None

    return [find(name) for name in listed]


def encode_ppm(image: NDArray[np.uint8]) -> bytes:
    """Image (height, width, 3) as a PPM file.

    Unlike those of PNG, its bytes, hence their digest, depend on no compressor.
    """
    height, width, _ = image.shape
    return f"P6 {width} {height} 255\n".encode() + bytes(image.tobytes())
