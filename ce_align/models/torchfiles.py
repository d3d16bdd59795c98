"""Files of ``torch.save``, zip and legacy, read without executing anything.

A pickle is a program: whoever runs it with :mod:`pickle`, even with a restricted
``find_class``, calls what the file names. Here the instructions are read with
:mod:`pickletools` and only ever build plain containers and records of our own. Nothing
that a file names is imported or called, so there is no gadget to reach.

``torch.load(weights_only=True)`` cannot take its place. It knows the instructions of
protocol 2 alone; it allocates what a file declares (``bytearray(10**13)``, a text that
is copied a thousand times, a tensor of terabytes over one number) before anyone can
compare that with the size of the file; and it hashes keys that nest without end.
"""

import io
import mmap
import pickletools
import struct
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any, cast

import torch

from ce_align.errors import DataError
from ce_align.files import DAMAGE, check_regular

__all__ = ["TensorRecord", "read_torch_file"]

#: A checkpoint has many thousands of instructions; more than this are no checkpoint.
MAX_INSTRUCTIONS = 5_000_000
#: Containers deeper than this are no checkpoint.
MAX_DEPTH = 64
#: Dimensions of a tensor that torch can hold.
MAX_DIMENSIONS = 64

#: First pickle of a legacy file, and its version.
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

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

    @property
    def n_bytes(self) -> int:
        """Bytes that it declares."""
        return self.n_elements * DTYPES[self.kind].itemsize


@dataclass(frozen=True, slots=True)
class TensorRecord:
    """A strided view of a storage, as the file declares it; not yet checked."""

    storage: StorageRecord
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


# -- What a pickle may name -----------------------------------------------------------
#
# Tensors and the containers of the standard library are built. Other values without
# code, and classes of any package that is not Python's own, become inert: checkpoints
# keep clocks, metrics and callbacks around the weights. As nothing is imported to look,
# a class is told from a function by its capital letter. Whatever else a file names is
# refused wherever it stands, as an honest checkpoint has no need of it.

#: Names of values that carry no code: built here or left inert.
VALUES = {
    "torch": (
        "Size device float16 float32 float64 bfloat16 int64 int32 bool "
        + " ".join(DTYPES)
    ),
    "torch._utils": "_rebuild_tensor _rebuild_tensor_v2 _rebuild_parameter",
    "builtins": (
        "dict set frozenset list tuple object int float bool str bytes bytearray "
        "complex slice range xrange"
    ),
    "collections": "OrderedDict defaultdict Counter deque",
    "copyreg": "_reconstructor",
    "_codecs": "encode",
    "datetime": "datetime date time timedelta timezone",
    "pathlib": "Path PosixPath WindowsPath PurePosixPath PureWindowsPath",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "uuid": "UUID",
    "argparse": "Namespace",
    "types": "SimpleNamespace",
    "random": "Random",
    "numpy": "dtype ndarray bool_ float16 float32 float64 int32 int64 uint8",
    "numpy.core.multiarray": "_reconstruct scalar",
    "numpy._core.multiarray": "_reconstruct scalar",
    "numpy.random._pickle": (
        "__generator_ctor __bit_generator_ctor __randomstate_ctor"
    ),
    "numpy.random.bit_generator": "__pyx_unpickle_SeedSequence",
}

#: Those whose call copies what it is given.
DICTS = {
    *(("collections", "OrderedDict"), ("collections", "defaultdict")),
    *(("collections", "Counter"), ("builtins", "dict")),
}
COPYING = {
    *DICTS,
    *(("builtins", "set"), ("builtins", "frozenset"), ("_codecs", "encode")),
}

#: Frameworks whose metrics and schedules keep functions, which they do not call.
INERT_PACKAGES = (
    *("composer.", "torchmetrics.", "lightning.", "pytorch_lightning."),
    *("torch.optim.", "torch.nn.modules.", "torch.amp.", "torch.cuda.amp."),
    "omegaconf.",
)

#: Names of modules in pickles that Python 2 wrote.
PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}


def _is_value(module: str, name: str) -> bool:
    return name in VALUES.get(module, "").split()


def _is_class(name: str) -> bool:
    """Whether a name looks like that of a class, which may stand within another."""
    parts = name.split(".")
    return all(p.isidentifier() and p.lstrip("_")[:1].isupper() for p in parts)


def _checked_global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise DataError("a name in the pickle is no text")
    module = PYTHON_2.get(module, module)
    standard = module.partition(".")[0] in sys.stdlib_module_names
    # A dotted name could walk from an allowed module into whatever it imports.
    framework = f"{module}.".startswith(INERT_PACKAGES) and name.isidentifier()
    found = Global(module, name)
    if _is_value(module, name) or framework or (_is_class(name) and not standard):
        return found
    raise DataError(f"it names {found}, which is neither a tensor nor plain data")


def _checked_key(key: Any) -> Any:
    """A key that hashes quickly, and not as others that were chosen for it.

    Python hashes texts by a secret, but numbers, and tuples of them, by a public rule.
    """
    plain = (str, int, float, bool, bytes, type(None), Inert, Global)
    flat = key if type(key) is tuple else (key,)
    for part in flat:
        if type(part) not in plain:
            raise DataError(f"it has a key of type {type(part).__name__}")
        if type(part) in (int, float) and not abs(part) < sys.hash_info.modulus:
            raise DataError("it has a key that is a number without bounds")
    if type(key) is tuple:  # which names no weights
        return tuple(repr(p) if type(p) in (int, float) else p for p in key)
    return key


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise DataError("it has a key without a value")
    return dict(zip(map(_checked_key, items[::2]), items[1::2], strict=True))


def _inert(made_by: Global) -> Inert:
    # Classes rebuild themselves; a function that a file wants called is suspect.
    if _is_value(made_by.module, made_by.name) or _is_class(made_by.name):
        return Inert(str(made_by))
    raise DataError(f"it calls the function {made_by}")


def _called(made_by: Global, arguments: tuple[Any, ...]) -> Any:
    """What calling a known name would give; an inert record for other allowed ones."""
    key = (made_by.module, made_by.name)
    if key in DICTS:
        given = arguments[-1] if arguments else ()
        pairs = given if type(given) is list else []
        return {_checked_key(name): value for name, value in pairs}
    match key:
        case ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2"):
            storage, offset, size, stride = arguments[:4]
            if type(storage) is not StorageRecord:
                raise DataError("it has a tensor without a storage")
            return TensorRecord(storage, offset, size, stride)
        case ("torch._utils", "_rebuild_parameter") | ("torch", "Size"):
            return arguments[0]
        case ("builtins", "set" | "frozenset"):
            return set(map(_checked_key, arguments[0])) if arguments else set()
        case ("_codecs", "encode"):
            if type(arguments[0]) is str and arguments[1:] == ("latin1",):
                return arguments[0].encode("latin1")
    return _inert(made_by)


def _storage(identity: Any) -> StorageRecord:
    """Storage that a persistent identifier of ``torch.save`` stands for."""
    known = type(identity) is tuple and len(identity) in (5, 6)
    if not known or identity[0] != "storage" or type(identity[1]) is not Global:
        raise DataError("it refers to something that is no tensor storage")
    if identity[5:] not in ((), (None,)):
        raise DataError("it has views of storages, as only very old files do")
    kind, key, n_elements = identity[1].name, identity[2], identity[4]
    if kind not in DTYPES or type(key) is not str:
        raise DataError(f"it has a storage of kind {identity[1]}")
    if type(n_elements) is not int or n_elements < 0:
        raise DataError("it has a storage without a number of elements")
    return StorageRecord(key, kind, n_elements)


# -- The interpreter ------------------------------------------------------------------


class _Machine:
    """Stack, marks and memo of one pickle."""

    def __init__(self, storages: dict[str, StorageRecord]) -> None:
        self.storages = storages
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.position = 0  # bytes read so far
        self.n_copied = 0  # items and characters that calls were given

    def pop(self, n_items: int) -> list[Any]:
        start = len(self.stack) - n_items
        if start < 0:
            raise IndexError("its stack is empty")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_mark(self) -> list[Any]:
        return self.pop(len(self.stack) - self.marks.pop())

    def memoize(self, index: int | None) -> None:
        self.memo[len(self.memo) if index is None else index] = self.stack[-1]

    def fill(self, kind: type[Any], items: list[Any]) -> None:
        """Put items into the list, set or dictionary on top; an object keeps none."""
        target = self.stack[-1]
        if type(target) is Inert and kind is not set:
            return
        if type(target) is not kind:
            raise DataError(f"it adds items to a {type(target).__name__}")
        if kind is list:
            target.extend(items)
        else:
            target.update(_pairs(items) if kind is dict else map(_checked_key, items))

    def call(self) -> None:
        made_by, arguments = self.pop(2)
        if type(made_by) is not Global or type(arguments) is not tuple:
            raise DataError(f"it calls a {type(made_by).__name__}")
        if (made_by.module, made_by.name) in COPYING:
            sized = (str, list, tuple, set, dict)
            self.n_copied += sum(len(a) for a in arguments if type(a) in sized)
            # Honest files give each container to one call; repetition is a bomb.
            if self.n_copied > self.position:
                raise DataError("it copies more than it holds")
        self.stack.append(_called(made_by, arguments))

    def new_object(self, n_arguments: int) -> None:
        made_by = self.pop(1 + n_arguments)[0]
        if type(made_by) is not Global:
            raise DataError(f"it makes an object of a {type(made_by).__name__}")
        is_dict = (made_by.module, made_by.name) in DICTS
        self.stack.append({} if is_dict else _inert(made_by))

    def set_attributes(self) -> None:
        self.pop(1)  # no record keeps them
        if type(self.stack[-1]) not in (Inert, dict):
            raise DataError(f"it sets attributes of a {type(self.stack[-1]).__name__}")

    def push_storage(self) -> None:
        storage = _storage(self.pop(1)[0])
        if self.storages.setdefault(storage.key, storage) != storage:
            raise DataError("it declares one storage in two ways")
        self.stack.append(storage)


#: Instructions that push the value that stands in the file.
LITERALS = {
    *("INT", "LONG", "BININT", "BININT1", "BININT2", "LONG1", "LONG4"),
    *("FLOAT", "BINFLOAT", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}

#: Instructions that push something new, and what makes it.
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}

#: Every other instruction that ``torch.save`` writes; those not here are refused.
INSTRUCTIONS: dict[str, Callable[[_Machine, Any], Any]] = {
    "PROTO": lambda m, _: None,
    "FRAME": lambda m, _: None,
    "MARK": lambda m, _: m.marks.append(len(m.stack)),
    "POP": lambda m, _: m.pop(1),
    "POP_MARK": lambda m, _: m.pop_mark(),
    "DUP": lambda m, _: m.stack.append(m.stack[-1]),
    "LIST": lambda m, _: m.stack.append(m.pop_mark()),
    "APPEND": lambda m, _: m.fill(list, m.pop(1)),
    "APPENDS": lambda m, _: m.fill(list, m.pop_mark()),
    "TUPLE": lambda m, _: m.stack.append(tuple(m.pop_mark())),
    "TUPLE1": lambda m, _: m.stack.append(tuple(m.pop(1))),
    "TUPLE2": lambda m, _: m.stack.append(tuple(m.pop(2))),
    "TUPLE3": lambda m, _: m.stack.append(tuple(m.pop(3))),
    "DICT": lambda m, _: m.stack.append(_pairs(m.pop_mark())),
    "SETITEM": lambda m, _: m.fill(dict, m.pop(2)),
    "SETITEMS": lambda m, _: m.fill(dict, m.pop_mark()),
    "ADDITEMS": lambda m, _: m.fill(set, m.pop_mark()),
    "FROZENSET": lambda m, _: m.stack.append(set(map(_checked_key, m.pop_mark()))),
    "PUT": _Machine.memoize,
    "BINPUT": _Machine.memoize,
    "LONG_BINPUT": _Machine.memoize,
    "MEMOIZE": _Machine.memoize,
    "GET": lambda m, index: m.stack.append(m.memo[index]),
    "BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "LONG_BINGET": lambda m, index: m.stack.append(m.memo[index]),
    "GLOBAL": lambda m, text: m.stack.append(
        _checked_global(*text.partition(" ")[::2])
    ),
    "STACK_GLOBAL": lambda m, _: m.stack.append(_checked_global(*m.pop(2))),
    "REDUCE": lambda m, _: m.call(),
    "NEWOBJ": lambda m, _: m.new_object(1),
    "NEWOBJ_EX": lambda m, _: m.new_object(2),
    "BUILD": lambda m, _: m.set_attributes(),
    "BINPERSID": lambda m, _: m.push_storage(),
}


def _interpreted(
    stream: IO[bytes], what: str, storages: dict[str, StorageRecord] | None = None
) -> Any:
    """Plain containers and records of the next pickle in a stream.

    The stream is left after its last byte; `storages` collects what it declares.
    """
    machine = _Machine({} if storages is None else storages)
    try:
        for count, (opcode, argument, position) in enumerate(
            pickletools.genops(stream)
        ):
            machine.position = position or 0
            if opcode.name == "STOP":
                return machine.stack.pop()
            if count > MAX_INSTRUCTIONS:
                raise DataError(f"it has more than {MAX_INSTRUCTIONS:,} instructions")
            if opcode.name in LITERALS:
                machine.stack.append(argument)
            elif opcode.name in CONSTANTS:
                machine.stack.append(CONSTANTS[opcode.name]())
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


# -- Files ----------------------------------------------------------------------------


def read_torch_file(
    path: Path, select: Callable[[Any], Any] = lambda content: content
) -> Any:
    """Content of a file of ``torch.save``: tensors on the CPU in plain containers.

    `select` picks the part to keep from the content, in which tensors are still
    records; only the tensors of that part are read. Sizes that a file declares are
    compared with the size of the file before any memory is taken.

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
        declared = sum(info.file_size for info in entries.values())
        if packed or declared > path.stat().st_size:
            raise DataError(f"{path} is refused: it declares more than it holds")
        pickles = [name for name in entries if name.endswith("data.pkl")]
        if len(pickles) != 1:
            raise DataError(f"{path} is a zip but not a file of torch.save")
        root = pickles[0].removesuffix("data.pkl")
        order = f"{root}byteorder"
        if order in entries and archive.read(order) != b"little":
            raise DataError(f"{path} was written on a big-endian machine")
        # As a whole: only at its end is its checksum compared.
        content = _interpreted(io.BytesIO(archive.read(pickles[0])), str(path))

        def read(storage: StorageRecord) -> bytes:
            entry = entries.get(f"{root}data/{storage.key}")
            if entry is None:
                raise DataError(f"{path} lacks the storage {storage.key[:40]!r}")
            if entry.file_size != storage.n_bytes:
                raise DataError(
                    f"storage {storage.key[:40]!r} of {path} declares "
                    f"{storage.n_bytes} bytes but has {entry.file_size}"
                )
            return archive.read(entry)

        return _Builder(read, str(path)).build(select(content))


def _read_legacy(path: Path, select: Callable[[Any], Any]) -> Any:
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    what = str(path)
    with (
        check_regular(path).open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream,
    ):
        readable = cast(IO[bytes], stream)
        if stream[:1] != b"\x80" or _interpreted(readable, what) != LEGACY_MAGIC:
            raise DataError(f"{path} is not a file of torch.save")
        protocol, system = _interpreted(readable, what), _interpreted(readable, what)
        little = type(system) is dict and system.get("little_endian") is True
        if protocol != LEGACY_PROTOCOL or not little:
            raise DataError(f"{path} has an unknown version or byte order")
        records: dict[str, StorageRecord] = {}
        content = _interpreted(readable, what, records)
        keys = _interpreted(readable, what)
        if type(keys) is not list or not all(type(key) is str for key in keys):
            raise DataError(f"{path} is damaged: its list of storages is no list")
        starts: dict[str, int] = {}
        position = stream.tell()
        # They follow one another, each with its element count before it.
        for key in keys:
            record, header = records.get(key), stream[position : position + 8]
            if record is None or header != struct.pack("<Q", record.n_elements):
                raise DataError(f"{path} is damaged: storage {key[:40]!r} is not there")
            starts[key] = position + 8
            position += 8 + record.n_bytes
            if position > len(stream):
                raise DataError(f"{path} is refused: it declares more than it holds")

        def read(storage: StorageRecord) -> bytes:
            if storage.key not in starts:
                raise DataError(f"{path} lacks the storage {storage.key[:40]!r}")
            start = starts[storage.key]
            return stream[start : start + storage.n_bytes]

        return _Builder(read, what).build(select(content))


class _Builder:
    """Tensors for their records, each storage read once."""

    def __init__(self, read: Callable[[StorageRecord], bytes], what: str) -> None:
        self._read_bytes, self._what = read, what
        self._storages: dict[str, torch.Tensor] = {}
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
        key = record.storage.key
        if key not in self._storages:
            content = bytearray(self._read_bytes(record.storage))
            self._storages[key] = torch.frombuffer(content, dtype=dtype)
        return self._storages[key].as_strided(size, stride, offset)


def _integers(values: Any) -> list[int]:
    """Numbers that a file declares, with -1 for what is none or negative."""
    if type(values) is not tuple:
        return [-1]
    return [n if type(n) is int and 0 <= n < 2**62 else -1 for n in values]
