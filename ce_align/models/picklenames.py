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

import sys
from dataclasses import dataclass
from typing import Any

from ce_align.errors import DataError

__all__ = [
    *("DICTS", "ENCODE", "PARAMETER_BUILDER", "SETS", "SIZE", "STORAGES"),
    *("TENSOR_BUILDERS", "VALUES", "Global", "Inert", "StorageRecord"),
    *("TensorRecord", "check_global", "check_key", "is_class"),
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
