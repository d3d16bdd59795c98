"""What a pickle of a checkpoint may name; everything else is refused.

- Tensors of ``torch.save`` and the containers of the standard library are built.
- Plain values of the standard library and NumPy (dates, paths, arrays), and classes of
  any other package, become an :class:`Inert` record without content: checkpoints keep
  such objects (clocks, metrics, callbacks) around the weights. A class is told from a
  function by its capital letter, as nothing is imported to look.
- Whatever else the standard library has, and functions of any package, are refused
  wherever they stand; so are, by a reader of weights, :class:`Inert` among them.

The interpreter calls nothing in any case. What is refused is refused because an honest
checkpoint has no need of it.
"""

import mmap
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, Protocol, cast

import torch

from ce_align.errors import DataError

__all__ = [
    "DICTS",
    "ENCODE",
    "PARAMETER_BUILDER",
    "SETS",
    "SIZE",
    "STORAGES",
    "TENSOR_BUILDERS",
    "VALUES",
    "Global",
    "Inert",
    "StorageRecord",
    "TensorRecord",
    "check_global",
    "check_key",
    "interpret",
    "is_class",
    "read_torch_file",
]


@dataclass(frozen=True, slots=True)
class Global:
    """Name of a class or function; never resolved."""

    module: str
    name: str

    def __str__(self) -> str:
        # One line of bounded length, whatever the file holds.
        return ascii(f"{self.module}.{self.name}"[:120])[1:-1]


@dataclass(frozen=True, slots=True)
class Inert:
    """Where an object of another class stood; nothing of it is kept."""

    kind: str


@dataclass(frozen=True, slots=True)
class StorageRecord:
    """Values of a tensor in the file: key, torch's storage class, element count."""

    key: str
    kind: str
    n_elements: int


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A strided view of a storage, as the file declares it; not yet checked."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


def _named(module: str, names: str) -> set[tuple[str, str]]:
    return {(module, name) for name in names.split()}


TENSOR_BUILDERS = _named("torch._utils", "_rebuild_tensor _rebuild_tensor_v2")
PARAMETER_BUILDER = ("torch._utils", "_rebuild_parameter")
STORAGES = (
    *("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage"),
    *("LongStorage", "IntStorage", "ShortStorage", "CharStorage", "ByteStorage"),
    "BoolStorage",
)
DICTS = _named("collections", "OrderedDict defaultdict Counter") | {
    ("builtins", "dict")
}
SETS = _named("builtins", "set frozenset")
ENCODE = ("_codecs", "encode")
SIZE = ("torch", "Size")

#: Values that carry no code: built here or left inert.
VALUES = (
    DICTS
    | SETS
    | TENSOR_BUILDERS
    | {ENCODE, SIZE, PARAMETER_BUILDER}
    | _named("torch", " ".join(STORAGES))
    | _named("torch", "device float16 float32 float64 bfloat16 int64 int32 bool")
    | _named("builtins", "list tuple object int float bool str bytes bytearray")
    | _named("builtins", "complex slice range xrange")
    | _named("collections", "deque")
    | _named("copyreg", "_reconstructor")
    | _named("datetime", "datetime date time timedelta timezone")
    | _named("pathlib", "Path PosixPath WindowsPath PurePosixPath PureWindowsPath")
    | _named("decimal", "Decimal")
    | _named("fractions", "Fraction")
    | _named("uuid", "UUID")
    | _named("argparse", "Namespace")
    | _named("types", "SimpleNamespace")
    | _named("numpy", "dtype ndarray bool_ float16 float32 float64 int32 int64 uint8")
    | _named("numpy.core.multiarray", "_reconstruct scalar")
    | _named("numpy._core.multiarray", "_reconstruct scalar")
    | _named(
        "numpy.random._pickle",
        "__generator_ctor __bit_generator_ctor __randomstate_ctor",
    )
    | _named("numpy.random.bit_generator", "__pyx_unpickle_SeedSequence")
    | _named("random", "Random")
)

#: Frameworks whose metrics and schedules keep functions, which they do not call.
INERT_PACKAGES = (
    *("composer.", "torchmetrics.", "lightning.", "pytorch_lightning."),
    *("torch.optim.", "torch.nn.modules.", "torch.amp.", "torch.cuda.amp."),
    "omegaconf.",
)

#: Names of modules in pickles that Python 2 wrote.
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def is_class(name: str) -> bool:
    """Whether a name looks like that of a class, which may stand within another."""
    parts = name.split(".")
    return all(p.isidentifier() and p.lstrip("_")[:1].isupper() for p in parts)


def check_global(module: Any, name: Any) -> Global:
    """Name of a class or function, if a checkpoint may name it.

    Raises
    ------
    DataError
        If it may not.
    """
    if type(module) is not str or type(name) is not str:
        raise DataError("a name in the pickle is no text")
    module = PYTHON_2.get(module, module)
    found = Global(module, name)
    standard = module.partition(".")[0] in sys.stdlib_module_names
    # A dotted name could walk from an allowed module into whatever it imports.
    framework = f"{module}.".startswith(INERT_PACKAGES) and name.isidentifier()
    if (module, name) in VALUES or framework or (is_class(name) and not standard):
        return found
    raise DataError(f"it names {found}, which is neither a tensor nor plain data")


def check_key(key: Any) -> Any:
    """Refuse keys that are unhashable, or slow to hash by nesting."""
    plain = (str, int, float, bool, bytes, type(None), Inert, Global)
    flat = key if type(key) is tuple else (key,)
    if all(type(part) in plain for part in flat):
        return key
    raise DataError(f"it has a key of type {type(key).__name__}")


#: A checkpoint has many thousands of instructions; more than this are no checkpoint.
MAX_INSTRUCTIONS = 5_000_000


#: Names whose call copies what it is given.
COPYING = DICTS | SETS | {ENCODE}


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise DataError("it has a key without a value")
    keys = map(check_key, items[::2])
    return dict(zip(keys, items[1::2], strict=True))


class _Machine:
    """Stack, marks and memo of one pickle; one method for each kind of instruction."""

    def __init__(self, storages: dict[str, StorageRecord]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.position = 0  # bytes read so far
        self.n_copied = 0  # items and characters that calls were given

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def push_tuple(self, length: int) -> None:
        items = [self.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif type(target) is not Inert:
            raise DataError(f"it appends to a {type(target).__name__}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is dict:
            target.update(_pairs(items))
        elif type(target) is not Inert:
            raise DataError(f"it sets items of a {type(target).__name__}")

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is not set:
            raise DataError(f"it adds items to a {type(target).__name__}")
        target.update(map(check_key, items))

    def reduce(self) -> None:
        arguments = self.pop()
        made_by = self.pop()
        if type(made_by) is not Global or type(arguments) is not tuple:
            raise DataError(f"it calls a {type(made_by).__name__}")
        if (made_by.module, made_by.name) in COPYING:
            sized = (str, list, tuple, set, dict)
            self.n_copied += sum(len(a) for a in arguments if type(a) in sized)
            # Honest files give each container to one call; repetition is a bomb.
            if self.n_copied > self.position:
                raise DataError("it copies more than it holds")
        self.stack.append(_rebuild(made_by, arguments))

    def new_object(self, n_arguments: int) -> None:
        del self.stack[len(self.stack) - n_arguments :]
        made_by = self.pop()
        if type(made_by) is not Global:
            raise DataError(f"it makes an object of a {type(made_by).__name__}")
        is_dict = (made_by.module, made_by.name) in DICTS
        self.stack.append({} if is_dict else _inert(made_by))

    def build(self) -> None:
        self.pop()  # attributes, which no record keeps
        if type(self.stack[-1]) not in (Inert, dict):
            raise DataError(f"it sets attributes of a {type(self.stack[-1]).__name__}")

    def persistent(self) -> None:
        storage = _storage(self.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise DataError("it declares one storage in two ways")
        self.stack.append(storage)

    def push_global(self, text: str) -> None:
        module, _, name = text.partition(" ")
        self.stack.append(check_global(module, name))

    def push_stacked_global(self) -> None:
        name, module = self.pop(), self.pop()
        self.stack.append(check_global(module, name))


def _inert(made_by: Global) -> Inert:
    # Classes rebuild themselves; a function that a file wants called is suspect.
    known = (made_by.module, made_by.name) in VALUES
    if not known and not is_class(made_by.name):
        raise DataError(f"it calls the function {made_by}")
    return Inert(str(made_by))


def _rebuild(made_by: Global, arguments: tuple[Any, ...]) -> Any:
    """What calling a known name would give; an inert record for other allowed ones."""
    key = (made_by.module, made_by.name)
    if key in TENSOR_BUILDERS:
        storage, offset, size, stride = arguments[:4]
        return TensorRecord(storage, offset, size, stride)
    if key == PARAMETER_BUILDER:
        return arguments[0]
    if key in DICTS:
        given = arguments[-1] if arguments else ()
        pairs = given if type(given) is list else []
        return {check_key(name): value for name, value in pairs}
    if key in SETS:
        return set(map(check_key, arguments[0])) if arguments else set()
    if key == ENCODE and type(arguments[0]) is str and arguments[1:] == ("latin1",):
        return arguments[0].encode("latin1")
    if key == SIZE:
        return arguments[0]
    return _inert(made_by)


def _storage(identity: Any) -> StorageRecord:
    """Storage that a persistent identifier of ``torch.save`` stands for."""
    known = type(identity) is tuple and len(identity) in (5, 6)
    if not known or identity[0] != "storage" or type(identity[1]) is not Global:
        raise DataError("it refers to something that is no tensor storage")
    if identity[5:] not in ((), (None,)):
        raise DataError("it has views of storages, as only very old files do")
    kind, key, n_elements = identity[1].name, identity[2], identity[4]
    if kind not in STORAGES or type(key) is not str:
        raise DataError(f"it has a storage of kind {identity[1]}")
    if type(n_elements) is not int or n_elements < 0:
        raise DataError("it has a storage without a number of elements")
    return StorageRecord(key, kind, n_elements)


#: Instructions that push the value that stands in the file.
LITERALS = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}

#: Every other instruction that ``torch.save`` writes; those not here are refused.
INSTRUCTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.stack.__delitem__(-1),
    "POP_MARK": lambda m, _: m.pop_mark().clear(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "NONE": lambda m, _: m.stack.append(None),
    "NEWTRUE": lambda m, _: m.stack.append(True),
    "NEWFALSE": lambda m, _: m.stack.append(False),
    "EMPTY_LIST": lambda m, _: m.stack.append([]),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "APPEND": lambda m, _: m.append([m.pop()]),
    "APPENDS": lambda m, _: m.append(m.pop_mark()),
    "EMPTY_TUPLE": lambda m, _: m.stack.append(()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.push_tuple(1),
    "TUPLE2": lambda m, _: m.push_tuple(2),
    "TUPLE3": lambda m, _: m.push_tuple(3),
    "EMPTY_DICT": lambda m, _: m.stack.append({}),
    "DICT": lambda m, _: m.stack.append(_pairs(m.pop_mark())),
    "SETITEM": lambda m, _: m.set_items([m.stack.pop(-2), m.pop()]),
    "SETITEMS": lambda m, _: m.set_items(m.pop_mark()),
    "EMPTY_SET": lambda m, _: m.stack.append(set()),
    "ADDITEMS": lambda m, _: m.add_items(m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(set(map(check_key, m.pop_mark()))),
    "PUT": lambda m, index: m.memoize(index),
    "BINPUT": lambda m, index: m.memoize(index),
    "LONG_BINPUT": lambda m, index: m.memoize(index),
    "MEMOIZE": lambda m, _: m.memoize(None),
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, text: m.push_global(text),
    "STACK_GLOBAL": lambda m, _: m.push_stacked_global(),
    "REDUCE": lambda m, _: m.reduce(),
    "NEWOBJ": lambda m, _: m.new_object(1),
    "NEWOBJ_EX": lambda m, _: m.new_object(2),
    "BUILD": lambda m, _: m.build(),
    "BINPERSID": lambda m, _: m.persistent(),
}


def interpret(
    stream: IO[bytes], what: str, storages: dict[str, StorageRecord] | None = None
) -> Any:
    """Plain containers, records and tensors' records of the next pickle in a stream.

    Parameters
    ----------
    stream : at the first byte of a pickle; left after its last
    what : file name, for messages
    storages : collects every storage that the pickle declares, by key

    Raises
    ------
    DataError
        If the pickle names anything but tensors and plain data, or is damaged.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, position) in enumerate(
            pickletools.genops(stream)
        ):
            machine.position = position or 0
            if opcode.name == "STOP":
                return machine.pop()
            if count > MAX_INSTRUCTIONS:
                raise DataError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name in LITERALS:
                machine.stack.append(argument)
            elif opcode.name in INSTRUCTIONS:
                INSTRUCTIONS[opcode.name](machine, argument)
            else:
                raise DataError(f"it has the instruction {opcode.name}")
    except DataError as error:
        raise DataError(
            f"{what} is refused: {error}; save the state_dict alone, or as safetensors"
        ) from None
    except (ValueError, IndexError, KeyError, TypeError, OverflowError) as error:
        detail = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{what} is damaged or no checkpoint: {detail}") from None
    raise DataError(f"{what} is damaged: its pickle has no end")


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
