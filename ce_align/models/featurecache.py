"""Features on disk, by the content of what they were computed from.

``<key>/<image set>.npy`` holds one layer's features, ``.json`` beside it the digest of
each row's image and what the layer answered to the probe images. The key has the
digests of the network, layer, pooling and algorithm, so a change of any of them is
another folder; features of a network that answers otherwise now are not taken. An image
that several sets share is computed once: other sets copy its row.
"""

import json
from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import numpy as np
from numpy.typing import NDArray

from ce_align.files import atomic_path
from ce_align.models.probing import Behaviour

__all__ = ["FeatureCache", "RowSink"]

FloatArray = NDArray[np.float32]

#: Rows that are copied at a time from another set's file.
COPIED_ROWS = 64


class RowSink:
    """Rows of float32 that are written in any order; a context manager.

    An ``.npy`` file is written, not mapped: a full disk is then an error and not a
    signal, and the pages do not count as memory of the process.

    Parameters
    ----------
    path : ``.npy`` file to write; None for memory
    n_rows : of the whole
    """

    def __init__(self, path: Path | None, n_rows: int) -> None:
        self._path, self._n_rows = path, n_rows
        self._file: IO[bytes] | None = None
        self._start = 0
        self.values: FloatArray = np.empty((0, 0), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, n_columns: int) -> None:
        shape = (self._n_rows, n_columns)
        if self._path is None:
            self.values = np.empty(shape, np.float32)
            return
        self._file = self._path.open("wb")
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        npy_format: Any = np.lib.format
        npy_format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    def write(self, rows: Sequence[int], values: FloatArray) -> None:
        """Write values (n, d) as the given rows."""
        if self._file is None and not self.values.size:
            self._open(values.shape[1])
        if self._file is None:
            self.values[list(rows)] = values
            return
        runs = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(np.arange(len(rows)), runs):
            self._file.seek(self._start + rows[run[0]] * 4 * values.shape[1])
            block = np.ascontiguousarray(values[run[0] : run[-1] + 1], "<f4")
            self._file.write(block.data)

    def copy(
        self,
        digests: Sequence[str],
        known: Mapping[str, tuple[Path, int]],
        *,
        skip: Container[int],
    ) -> None:
        """Write the rows, except `skip`, that other files already have."""
        by_file: dict[Path, list[tuple[int, int]]] = {}
        for row, digest in enumerate(digests):
            if row not in skip:
                path, source = known[digest]
                by_file.setdefault(path, []).append((row, source))
        for path, pairs in by_file.items():
            values = np.load(path, mmap_mode="r")
            for start in range(0, len(pairs), COPIED_ROWS):
                rows, sources = zip(*pairs[start : start + COPIED_ROWS], strict=True)
                self.write(rows, values[list(sources)])


@dataclass(frozen=True)
class FeatureCache:
    """Folder of cached features."""

    folder: Path

    def read(
        self, key: str, images_digest: str, n_rows: int, behaviour: Behaviour
    ) -> FloatArray | None:
        """Features of an image set as a read-only memory map, or None."""
        path = self.folder / key / f"{images_digest}.npy"
        digests, stored = self._listing(path)
        if len(digests) != n_rows or stored is None or not stored.agrees(behaviour):
            return None
        return _mapped(path, n_rows)

    def has_another(self, key: str, images_digest: str, behaviour: Behaviour) -> bool:
        """Whether there are features of a network that answered otherwise."""
        stored = self._listing(self.folder / key / f"{images_digest}.npy")[1]
        return stored is not None and not stored.agrees(behaviour)

    def shared_rows(
        self, key: str, wanted: set[str], behaviour: Behaviour
    ) -> dict[str, tuple[Path, int]]:
        """File and row of every wanted image that another set already has."""
        found: dict[str, tuple[Path, int]] = {}
        for listing in sorted((self.folder / key).glob("[!.]*.json")):
            path = listing.with_suffix(".npy")
            digests, stored = self._listing(path)
            if stored is None or not stored.agrees(behaviour):
                continue
            new = wanted.intersection(digests).difference(found)
            if new and _mapped(path, len(digests)) is not None:
                found |= {
                    digest: (path, row)
                    for row, digest in enumerate(digests)
                    if digest in new
                }
        return found

    @contextmanager
    def writing(
        self,
        key: str,
        images_digest: str,
        image_digests: Sequence[str],
        behaviour: Behaviour,
    ) -> Iterator[Path]:
        """Temporary path of features; they are in the cache after a success."""
        path = self.folder / key / f"{images_digest}.npy"
        with atomic_path(path) as temporary:
            yield temporary
        # Last: who sees the list of rows can rely on the rows.
        with atomic_path(path.with_suffix(".json")) as temporary:
            listing = {"images": list(image_digests), "behaviour": behaviour.document()}
            temporary.write_text(json.dumps(listing))

    def _listing(self, path: Path) -> tuple[list[str], Behaviour | None]:
        """Digest of each row's image, and the behaviour; nothing from damaged files."""
        try:
            listing: Any = json.loads(path.with_suffix(".json").read_text())
            digests = [str(digest) for digest in listing["images"]]
            return digests, Behaviour.read(listing.get("behaviour"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [], None


def _mapped(path: Path, n_rows: int) -> FloatArray | None:
    """Read-only map of an ``.npy`` file, None if it is missing or damaged."""
    try:
        values: FloatArray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    known = values.ndim == 2 and len(values) == n_rows and values.dtype == np.float32
    return values if known else None
