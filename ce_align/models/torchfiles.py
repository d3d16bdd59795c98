"""Files of ``torch.save``, zip and legacy, read without executing anything.

Sizes that a file declares are compared with the size of the file before any memory is
taken, and only the tensors that are asked for are read.
"""

import mmap
import struct
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch

from ce_align.errors import DataError
from ce_align.models.picklenames import Inert, StorageRecord, TensorRecord
from ce_align.models.unpickling import interpret

__all__ = ["read_torch_file"]

DTYPES = {
    "FloatStorage": torch.float32,
    "DoubleStorage": torch.float64,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

#: First pickle of a legacy file, and its version.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

#: What the zip directory of a damaged file makes zipfile raise.
DAMAGE = (
    *(zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OverflowError),
    *(struct.error, KeyError, IndexError, TypeError),
)

#: Dimensions of a tensor that torch can hold.
MAX_DIMENSIONS = 64

#: Containers deeper than this are no checkpoint.
MAX_DEPTH = 64


class _Storages(Protocol):
    """Bytes of storages by key."""

    def read(self, record: StorageRecord, n_bytes: int) -> bytearray:
        """Exactly `n_bytes` of a storage; DataError if the file has another number."""


def read_torch_file(
    path: Path, select: Callable[[Any], Any] = lambda content: content
) -> Any:
    """Content of a file of ``torch.save``: tensors in plain containers.

    Parameters
    ----------
    path : zip or legacy format
    select
        picks the part to keep from the content, in which tensors are still records;
        only the tensors of that part are read

    Returns
    -------
    part : what `select` picked, with every tensor on the CPU

    Raises
    ------
    DataError
        If the file is damaged, names anything but tensors and plain data, or has
        another object in the part that is kept.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        if zipfile.is_zipfile(path):
            return _read_zip(path, select)
        return _read_legacy(path, select)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from error
    except DAMAGE as error:
        detail = str(error).partition("\n")[0]
        raise DataError(f"{path} is damaged: {detail}") from error


def _read_zip(path: Path, select: Callable[[Any], Any]) -> Any:
    with zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise DataError(f"{path} is refused: it has two entries of one name")
        if any(name.endswith("/constants.pkl") for name in entries):
            raise DataError(
                f"{path} is a TorchScript program, which would have to be executed; "
                "save its state_dict instead"
            )
        # torch.save stores without compression, so no entry can exceed the file.
        packed = any(info.compress_type for info in entries.values())
        declared = sum(info.file_size for info in archive.infolist())
        if packed or declared > path.stat().st_size:
            raise DataError(f"{path} is refused: it declares more than it holds")
        pickles = [name for name in entries if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise DataError(f"{path} is a zip but not a file of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise DataError(f"{path} was written on a big-endian machine")
        with archive.open(pickles[0]) as stream:
            content = interpret(stream, str(path))
        storages = _ZipStorages(archive, f"{root}data/", str(path))
        return _Builder(storages, str(path)).build(select(content))


class _ZipStorages:
    def __init__(self, archive: zipfile.ZipFile, root: str, what: str) -> None:
        self._archive, self._root, self._what = archive, root, what

    def read(self, record: StorageRecord, n_bytes: int) -> bytearray:
        try:
            entry = self._archive.getinfo(f"{self._root}{record.key}")
        except KeyError:
            raise DataError(f"{self._what} lacks the storage {record.key}") from None
        if entry.file_size != n_bytes:
            raise DataError(
                f"storage {record.key} of {self._what} declares {n_bytes} bytes but "
                f"has {entry.file_size}"
            )
        return bytearray(self._archive.read(entry))


def _read_legacy(path: Path, select: Callable[[Any], Any]) -> Any:
    what = str(path)
    if path.stat().st_size == 0:
        raise DataError(f"{what} is empty")
    with path.open("rb") as file:
        stream = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    with stream:
        readable = cast(IO[bytes], stream)
        if stream[:1] != b"\x80" or interpret(readable, what) != LEGACY_MAGIC:
            raise DataError(f"{what} is not a file of torch.save")
        protocol, system = interpret(readable, what), interpret(readable, what)
        little = type(system) is dict and system.get("little_endian") is True
        if protocol != LEGACY_PROTOCOL or not little:
            raise DataError(f"{what} has an unknown version or byte order")
        records: dict[str, StorageRecord] = {}
        content = interpret(readable, what, records)
        keys = interpret(readable, what)
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise DataError(f"{what} is damaged: its list of storages is no list")
        storages = _LegacyStorages(stream, _locate(stream, keys, records, what), what)
        return _Builder(storages, what).build(select(content))


def _locate(
    stream: mmap.mmap, keys: list[str], records: dict[str, StorageRecord], what: str
) -> dict[str, tuple[int, int]]:
    """First and last byte of each storage of a legacy file.

    They follow one another, each with its element count before it.
    """
    places: dict[str, tuple[int, int]] = {}
    position = stream.tell()
    for key in keys:
        record = records.get(key)
        header = stream[position : position + 8]
        if record is None or header != struct.pack("<Q", record.n_elements):
            raise DataError(f"{what} is damaged: storage {key[:40]!r} is not there")
        end = position + 8 + record.n_elements * DTYPES[record.kind].itemsize
        if end > len(stream):
            raise DataError(f"{what} is refused: it declares more than it holds")
        places[key] = (position + 8, end)
        position = end
    return places


class _LegacyStorages:
    """Storages of a legacy file, by their places in it."""

    def __init__(
        self, stream: mmap.mmap, places: dict[str, tuple[int, int]], what: str
    ) -> None:
        self._stream, self._places, self._what = stream, places, what

    def read(self, record: StorageRecord, n_bytes: int) -> bytearray:
        if record.key not in self._places:
            raise DataError(f"{self._what} lacks the storage {record.key[:40]!r}")
        start, end = self._places[record.key]
        return bytearray(self._stream[start:end])


class _Builder:
    """Tensors for their records, each storage read once."""

    def __init__(self, storages: _Storages, what: str) -> None:
        self._storages, self._what = storages, what
        self._read: dict[str, torch.Tensor] = {}
        self._built: dict[int, Any] = {}

    def build(self, part: Any, depth: int = 0) -> Any:
        """Copy of nested containers with tensors in the place of their records."""
        if depth > MAX_DEPTH:
            raise DataError(f"{self._what} nests deeper than {MAX_DEPTH} levels")
        kind = type(part)
        if kind is TensorRecord:
            return self._tensor(part)
        if kind in (str, int, float, bool, bytes, bytearray, type(None)):
            return part
        # Shared containers are built once: sharing can stand for exponential size.
        if id(part) in self._built:
            return self._built[id(part)]
        if kind is dict:
            built: Any = {
                self.build(key, depth + 1): self.build(value, depth + 1)
                for key, value in part.items()
            }
        elif kind in (list, tuple, set):
            built = kind(self.build(item, depth + 1) for item in part)
        else:
            found = part.kind if isinstance(part, Inert) else str(part)[:120]
            raise DataError(
                f"{self._what} is refused: {found} stands where tensors should be"
            )
        self._built[id(part)] = built
        return built

    def _tensor(self, record: TensorRecord) -> torch.Tensor:
        size, stride, offset = record.size, record.stride, record.offset
        numbers = (*_integers(size), *_integers(stride), *_integers((offset,)))
        if -1 in numbers or not len(size) == len(stride) <= MAX_DIMENSIONS:
            raise DataError(f"{self._what} has a tensor of no valid shape")
        n_elements = record.storage.n_elements
        last = offset + sum(
            (n - 1) * step for n, step in zip(size, stride, strict=True)
        )
        # Overlapping strides could declare terabytes over a few bytes.
        if prod(size) and (last >= n_elements or prod(size) > n_elements):
            raise DataError(
                f"{self._what} has a tensor of {prod(size)} elements in a storage of "
                f"{n_elements}"
            )
        dtype = DTYPES[record.storage.kind]
        if not prod(size):
            if max(size) > n_elements + 2**20:
                raise DataError(f"{self._what} has a tensor of no valid shape")
            return torch.empty(size, dtype=dtype)
        values = self._values(record.storage, dtype)
        return values.as_strided(size, stride, offset)

    def _values(self, storage: StorageRecord, dtype: torch.dtype) -> torch.Tensor:
        if storage.key not in self._read:
            content = self._storages.read(storage, storage.n_elements * dtype.itemsize)
            self._read[storage.key] = torch.frombuffer(content, dtype=dtype)
        return self._read[storage.key]


def _integers(values: Any) -> list[int]:
    """Numbers that a file declares, with -1 for what is none or negative."""
    if type(values) is not tuple:
        return [-1]
    return [n if type(n) is int and 0 <= n < 2**62 else -1 for n in values]
