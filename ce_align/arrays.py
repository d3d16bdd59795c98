"""Files that tell when a byte of theirs has changed: arrays, and what HDF5 writes."""

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ce_align.files import check_regular

__all__ = ["mapped_array", "seal", "seal_holds"]

#: What stands before the checksum, behind the content: readers of ``.npy`` and HDF5
#: ignore both, and whoever changes a file by HDF5 cuts them off.
_MARK = b"\0CRC-32\0"


def seal(path: Path) -> None:
    """Append its checksum to an ``.npy`` or HDF5 file."""
    checksum = _checksum(path, path.stat().st_size)
    with path.open("ab") as file:
        file.write(_MARK + checksum)


def seal_holds(path: Path) -> bool | None:
    """Whether a file is what was sealed; None if it is missing or has no seal.

    Earlier versions wrote none, and one that is cut has lost it.
    """
    try:
        size = path.stat().st_size - len(_MARK) - 4
        with check_regular(path).open("rb") as file:
            file.seek(max(size, 0))
            mark, checksum = file.read(len(_MARK)), file.read()
        return checksum == _checksum(path, size) if mark == _MARK else None
    except (OSError, ValueError):
        return None


def mapped_array(path: Path) -> NDArray[Any] | None:
    """Read-only map of an ``.npy`` file, None if it is missing or damaged."""
    if seal_holds(path) is False:
        return None
    try:
        values: NDArray[Any] = np.load(check_regular(path), mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    return values


def _checksum(path: Path, n_bytes: int) -> bytes:
    """CRC-32 of the first bytes of a file, at some gigabytes a second."""
    checksum = 0
    with check_regular(path).open("rb") as file:
        while n_bytes > 0 and (block := file.read(min(n_bytes, 2**20))):
            checksum, n_bytes = crc32(block, checksum), n_bytes - len(block)
    return checksum.to_bytes(4, "little")
