"""Digests of what a network is made of, whatever kind of Python object it is.

Weights are only a part of it: a function, a table or a flag that a layer keeps as an
attribute, a module's global that its ``forward`` reads, and the code of its classes
decide as much about its outputs.
"""

import functools
import hashlib
import importlib.metadata
import re
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ce_align.digests import digest_array, digest_bytes
from ce_align.foreign import is_local_file

__all__ = ["TRUSTED", "Contents", "tensor_digest", "watched"]

#: What every module of torch keeps about itself and its hooks; hooks count below.
TORCH_STATE = frozenset(vars(nn.Module())) | {"_compiled_call_impl"}
HOOKS = ("_forward_hooks", "_forward_pre_hooks")

#: How a user's module describes itself: read into preprocessing, which is digested by
#: itself, and into committed layers, which change no output.
DESCRIPTION = "ce_align"

#: Objects that are looked at before a network counts as too large to be told apart.
MOST_OBJECTS = 200_000

#: Packages whose functions are known by name: their versions move numbers by rounding.
#: What they do differently beyond that, the probe of its outputs sees.
TRUSTED = sys.stdlib_module_names | {"torch", "numpy", "ce_align"}

#: Classes and functions of ce_align that have moved, by where they are now, and where
#: they were when digests were first written. A network that holds one has its full name
#: in its digest, which a move must not change: who moves one adds a line here.
FORMER_NAMES = {
    **{
        f"ce_align.models.architectures.{name}": f"ce_align.models.baselines.{name}"
        for name in ("GaborEnergy", "gabor_filters")
    },
    **{
        f"ce_align.trainer.networks.{name}": f"ce_align.trainer.batchnorm.{name}"
        for name in ("ViewBatchNorm", "ViewLinear")
    },
}

#: Types whose content is their text.
PLAIN = (bool, int, float, complex, str, bytes, bytearray, type(None), type(Ellipsis))
TEXTUAL = (
    *(torch.dtype, torch.device, torch.memory_format, torch.layout, torch.Size),
    *(np.dtype, range, slice, Path, re.Pattern),
)


def tensor_digest(tensor: torch.Tensor) -> str:
    """Digest of a tensor's type, shape and values."""
    values = tensor.detach().cpu()
    if values.layout != torch.strided:
        values = values.to_dense()
    values = values.contiguous().resolve_conj().resolve_neg()
    header = f"{values.dtype}{tuple(values.shape)}".encode()
    # By bytes: NumPy has no bfloat16.
    flat = values.reshape(-1).view(torch.uint8).numpy()
    return digest_bytes(header, flat.data)


SET_ATTRIBUTE = nn.Module.__setattr__
#: One network is watched at a time.
_WATCHING = threading.Lock()


@contextmanager
def watched(module: nn.Module) -> Iterator[set[str]]:
    """Names of the attributes and buffers that are set meanwhile, as in `Contents`.

    A value that is set again to what it was is written all the same: whether a pass
    came before must not matter.
    """
    names = {id(part): name for name, part in module.named_modules()}
    written: set[str] = set()

    def record(part: nn.Module, key: str, value: Any) -> None:
        if id(part) in names:
            for kind in ("attribute", "buffer"):
                written.add(f"{kind} {names[id(part)]}.{key}")
        SET_ATTRIBUTE(part, key, value)

    with _WATCHING:
        nn.Module.__setattr__ = record  # type: ignore[assignment, method-assign]
        try:
            yield written
        finally:
            nn.Module.__setattr__ = SET_ATTRIBUTE  # type: ignore[method-assign]


class _UnknownError(Exception):
    """An object whose content cannot be read."""


class Contents:
    """Digest of each part of a module but its parameters, by the name of the part.

    `entries` has ``attribute NAME``, ``buffer NAME``, ``class NAME``, ``global NAME``,
    ``package NAME`` and ``structure``, each with a digest; `unknown` the parts whose
    content cannot be read, such as a running generator, and of what kind they are.
    Classes and functions of Python modules in `sourced` are known by name, as their
    source is digested elsewhere.
    """

    def __init__(self, module: nn.Module, sourced: Collection[str] = ()) -> None:
        self.entries: dict[str, str] = {}
        self.unknown: dict[str, str] = {}
        self._objects: dict[str, Any] = {}
        self._sourced = frozenset(sourced)
        self._names = {id(part): name for name, part in module.named_modules()}
        self._open: dict[int, int] = {}
        self._done: dict[int, tuple[Any, str]] = {}
        self._n_objects = 0
        self._classes: set[type] = set()
        structure = [
            f"{name}={self._names[id(part)]}:{_qualified(type(part))}"
            for name, part in module.named_modules(remove_duplicate=False)
        ]
        self.entries["structure"] = digest_bytes("\n".join(structure).encode())
        for name, part in module.named_modules():
            self._part(name, part)

    def _part(self, name: str, part: nn.Module) -> None:
        self._class(type(part))
        if type(part).__module__.startswith("torch._dynamo"):
            return  # around a compiled module, which is a part of its own
        if isinstance(part, torch.jit.ScriptModule):
            self._add(f"attribute {name}.code", lambda: _text_digest(part.code))
            return
        for key, buffer in part.named_buffers(recurse=False):
            self._keep(f"buffer {name}.{key}", buffer)
        for key, value in sorted(vars(part).items()):
            if key in HOOKS and value:
                hooks = list(value.values())
                self._add(f"attribute {name}.{key}", lambda v=hooks: self.of(v))
                continue
            own = key not in TORCH_STATE and key != DESCRIPTION
            if own or (key == "training" and value):
                self._keep(f"attribute {name}.{key}", value)

    def differing(self, later: "Contents") -> set[str]:
        """Attributes, buffers and globals that were written between two of these."""
        kinds = ("attribute", "buffer", "global")
        return {
            name
            for name in self.entries.keys() | later.entries.keys()
            if name.startswith(kinds)
            and (
                self.entries.get(name) != later.entries.get(name)
                or self._objects.get(name) is not later._objects.get(name)
            )
        }

    def _keep(self, name: str, value: Any) -> None:
        """Add a value, and keep it: a new one must not be taken for it."""
        self._objects[name] = value
        self._add(name, lambda: self.of(value))

    def _add(self, name: str, digest: Callable[..., str]) -> None:
        if name in self.entries:
            return
        self.entries[name] = ""  # its own content may lead here again
        try:
            self.entries[name] = digest()
        except _UnknownError as error:
            self.unknown[name] = str(error)
        except Exception as error:  # whatever an object does when it is looked at
            self.unknown[name] = type(error).__name__

    # -- values -------------------------------------------------------------------

    def of(self, value: Any) -> str:
        """Digest of any object whose content can be read; else _UnknownError."""
        if isinstance(value, PLAIN):
            return _text_digest(f"{type(value).__name__} {value!r}")
        if id(value) in self._done:
            return self._done[id(value)][1]
        if id(value) in self._open:  # it contains itself
            return _text_digest(f"cycle {len(self._open) - self._open[id(value)]}")
        self._n_objects += 1
        if self._n_objects > MOST_OBJECTS:
            raise _UnknownError(f"more than {MOST_OBJECTS} objects hang on it")
        self._open[id(value)] = len(self._open)
        try:
            found = self._content(value)
        finally:
            self._open.pop(id(value), None)
        # The object is kept: a new one at its address would be taken for it.
        self._done[id(value)] = (value, found)
        return found

    def _content(self, value: Any) -> str:
        kind = _qualified(type(value))
        if isinstance(value, torch.Tensor):
            return f"tensor {tensor_digest(value)}"
        if isinstance(value, np.generic):
            value = np.asarray(value)
        if isinstance(value, np.ndarray):
            if value.dtype.hasobject:
                return self._all(kind, str(value.shape), value.ravel().tolist())
            return f"array {digest_array(value)}"
        if isinstance(value, TEXTUAL):
            return _text_digest(f"{kind} {value!r}")
        if isinstance(value, types.ModuleType):
            return self._module(value)
        if isinstance(value, type):
            self._class(value)
            return _text_digest(f"class {_known_as(value)}")
        if isinstance(value, nn.Module):
            return self._network(value)
        if isinstance(value, weakref.ReferenceType):  # as torch's recurrent layers have
            return _text_digest(f"{kind} {self.of(value())}")
        if callable(value) and (found := self._callable(value)) is not None:
            return found
        if isinstance(value, set | frozenset):
            return self._all(kind, "", sorted(map(self.of, value)))
        return self._object(value, kind)

    def _all(self, kind: str, extra: str, values: Iterable[Any]) -> str:
        return _text_digest("/".join([kind, extra, *map(self.of, values)]))

    def _object(self, value: Any, kind: str) -> str:
        """An object by its elements and attributes, or by what pickling would keep."""
        parts: list[Any] = []
        trusted = type(value).__module__.partition(".")[0] in TRUSTED
        if isinstance(value, tuple | list | deque):
            parts.append(list(map(self.of, value)))
        elif isinstance(value, Mapping):
            # In its order, which a pass can follow.
            parts.append([(self.of(k), self.of(v)) for k, v in value.items()])
            parts.append(self.of(getattr(value, "default_factory", None)))
        elif trusted or not hasattr(value, "__dict__"):
            return _text_digest(f"{kind} {self._reduced(value)}")
        self._class(type(value))
        parts.append(
            [(k, self.of(v)) for k, v in sorted(getattr(value, "__dict__", {}).items())]
        )
        slots = [n for c in type(value).__mro__ for n in _slots(c) if hasattr(value, n)]
        parts.append([(name, self.of(getattr(value, name))) for name in slots])
        return _text_digest(f"{kind} {parts}")

    def _reduced(self, value: Any) -> str:
        if type(value).__name__ in ("Logger", "RLock", "lock", "ContextVar"):
            return type(value).__name__  # no output depends on it
        try:
            found = value.__reduce_ex__(4)
        except Exception as error:  # whatever its class does
            raise _UnknownError(f"a {_qualified(type(value))}") from error
        if isinstance(found, str):
            return found
        # Iterators of items can be read only once, and have no content themselves.
        parts = [list(x) if isinstance(x, Iterator) else x for x in found]
        return self._all("reduced", "", parts)

    def _network(self, module: nn.Module) -> str:
        """A module: one of the network's own by its name, another by its content."""
        if id(module) in self._names:
            return _text_digest(f"part {self._names[id(module)]}")
        for part in module.modules():
            self._class(type(part))
        tensors = {k: tensor_digest(v) for k, v in module.state_dict().items()}
        kept = [
            (name, key, self.of(value))
            for name, part in module.named_modules()
            for key, value in sorted(vars(part).items())
            if key not in TORCH_STATE
        ]
        kinds = [(n, _qualified(type(m))) for n, m in module.named_modules()]
        return _text_digest(f"module {kinds} {tensors} {kept}")

    # -- code ---------------------------------------------------------------------

    def _callable(self, value: Any) -> str | None:
        """A function, method or partial; None for an object that can be called."""
        if isinstance(value, functools.partial):
            return self._all(
                "partial", "", [value.func, value.args, value.keywords, vars(value)]
            )
        if isinstance(value, types.MethodType):
            return self._all("method", "", [value.__func__, value.__self__])
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, types.BuiltinFunctionType | types.MethodWrapperType):
            owner = getattr(value, "__self__", None)
            name = f"{getattr(value, '__module__', None)}.{value.__qualname__}"
            if owner is None or isinstance(owner, types.ModuleType):
                return _text_digest(name)
            return self._all("method", name, [owner])
        wrapped = getattr(value, "__wrapped__", None)
        if wrapped is not None and isinstance(value, functools._lru_cache_wrapper):
            return self.of(wrapped)
        if isinstance(
            value,
            types.MethodDescriptorType | types.WrapperDescriptorType | np.ufunc,
        ):
            return _text_digest(f"{_qualified(type(value))} {value.__name__}")
        return None

    def _function(self, function: types.FunctionType) -> str:
        """A function by name where its code is known, else by its code."""
        self._package(function.__module__)
        name = _known_as(function)
        parts: list[Any] = [function.__defaults__, function.__kwdefaults__]
        parts += [_cell(cell) for cell in function.__closure__ or ()]
        named = "<" not in function.__qualname__
        if self._is_local(function):
            self._globals(function.__code__, function.__globals__)
            # What was made from text at run time, no source tells.
            from_source = not function.__code__.co_filename.startswith("<")
            if not (named and from_source and function.__module__ in self._sourced):
                parts.append(self._code(function.__code__))
        elif not named:
            parts.append(function.__code__.co_firstlineno)
        return self._all("function", name, parts)

    def _code(self, code: types.CodeType) -> str:
        """What code does: its instructions and constants, not where it stands."""
        constants = [
            self._code(c) if isinstance(c, types.CodeType) else self.of(c)
            for c in code.co_consts
        ]
        names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
        return hashlib.sha256(
            code.co_code + repr([code.co_flags, names, constants]).encode()
        ).hexdigest()

    def _globals(self, code: types.CodeType, namespace: Mapping[str, Any]) -> None:
        """The globals that code names, also inside of what it defines."""
        here = _shown(str(namespace.get("__name__", "")))
        for name in _names(code):
            if name not in namespace or name.startswith("__"):  # such as __file__
                continue
            value = namespace[name]
            self._add(f"global {here}.{name}", lambda v=value: self.of(v))
            # What the code takes out of a module, such as `settings.SCALE`.
            if isinstance(value, types.ModuleType):
                self._taken_out(value, _names(code))

    def _taken_out(self, module: types.ModuleType, names: Iterable[str]) -> None:
        """Values of a user's module; of another, functions put there by the user."""
        wanted = list(names)
        own = _is_local_module(module)
        for name in wanted:
            value = vars(module).get(name)
            key = f"global {_shown(module.__name__)}.{name}"
            if isinstance(value, types.ModuleType) and value is not module:
                if not own and key not in self.entries:
                    self.entries[key] = ""
                    self._taken_out(value, wanted)
                continue
            put_there = isinstance(value, types.FunctionType) and self._is_local(value)
            if name in vars(module) and (own or put_there):
                self._add(key, lambda v=value: self.of(v))

    def _class(self, kind: type) -> None:
        """The classes of an object, with the code of those that are the user's."""
        for owner in kind.__mro__:
            name = f"class {_known_as(owner)}"
            if owner is object or owner in self._classes:
                continue
            self._classes.add(owner)
            self._package(owner.__module__)
            content = dict(vars(owner))
            if not self._is_local_class(owner):
                # A method that was replaced from outside is not the package's.
                content = {
                    key: value
                    for key, value in content.items()
                    if isinstance(value, types.FunctionType) and self._is_local(value)
                }
            if content or self._is_local_class(owner):
                self._add(name, lambda c=content: self._members(c))

    def _members(self, content: Mapping[str, Any]) -> str:
        found = []
        for key, value in sorted(content.items()):
            # Python keeps notes of its own in a class, such as __slotnames__.
            if key.startswith(("__", "_abc_")) and not callable(value):
                continue
            if isinstance(value, staticmethod | classmethod):
                value = value.__func__
            if isinstance(value, property):
                value = (value.fget, value.fset)
            if isinstance(
                value, types.MemberDescriptorType | types.GetSetDescriptorType
            ):
                continue
            found.append((key, self.of(value)))
        return _text_digest(repr(found))

    def _module(self, module: types.ModuleType) -> str:
        self._package(module.__name__)
        name = _shown(module.__name__)
        if not _is_local_module(module) or module.__name__ in self._sourced:
            return _text_digest(f"module {name}")
        try:
            return digest_bytes(Path(str(module.__file__)).read_bytes())
        except OSError as error:
            raise _UnknownError(f"the module {module.__name__}") from error

    def _package(self, module: str | None) -> None:
        """Version of the package that code comes from, if it is an installed one."""
        top = (module or "").partition(".")[0]
        if not top or top in TRUSTED or top in self._sourced:
            return
        name = f"package {top}"
        if name not in self.entries and (version := _version(top)):
            self.entries[name] = version

    def _is_local(self, function: types.FunctionType) -> bool:
        known = self._is_users(function.__module__)
        if known is not None:
            return known
        file = function.__code__.co_filename
        if not file.startswith("<"):
            return is_local_file(file)
        # Made from text, as a dataclass's methods are.
        loaded = sys.modules.get(function.__module__)
        return loaded is None or _is_local_module(loaded)

    def _is_local_class(self, owner: type) -> bool:
        known = self._is_users(owner.__module__)
        if known is not None:
            return known
        loaded = sys.modules.get(owner.__module__)
        if loaded is not None:
            return _is_local_module(loaded)
        functions = [
            v for v in vars(owner).values() if isinstance(v, types.FunctionType)
        ]
        return any(map(self._is_local, functions))

    def _is_users(self, module: str | None) -> bool | None:
        """Whether code of a module is the user's; None if the name does not tell."""
        if module in self._sourced or module == "__main__":
            return True
        return False if (module or "").partition(".")[0] in TRUSTED else None


def _known_as(found: type | types.FunctionType) -> str:
    """Full name of a class or function; of one that has moved, its first."""
    top, dot, inner = found.__qualname__.partition(".")
    name = f"{_shown(found.__module__)}.{top}"
    return f"{FORMER_NAMES.get(name, name)}{dot}{inner}"


def _shown(module: str) -> str:
    """Name of a module; of the user's file without its folder's digest."""
    return "file" if module.startswith("ce_align_user_") else module


def _qualified(kind: type) -> str:
    return kind.__qualname__


def _text_digest(text: str) -> str:
    return digest_bytes(text.encode("utf-8", "surrogatepass"))


def _cell(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # it is not filled yet
        return "empty cell"


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


def _slots(kind: type) -> tuple[str, ...]:
    found = vars(kind).get("__slots__", ())
    names = (found,) if isinstance(found, str) else tuple(found)
    return tuple(n for n in names if n not in ("__dict__", "__weakref__"))


def _is_local_module(module: types.ModuleType) -> bool:
    return is_local_file(getattr(module, "__file__", None))


@functools.cache
def _distributions() -> Mapping[str, list[str]]:
    return importlib.metadata.packages_distributions()


def _version(top: str) -> str:
    """Version of an installed package; nothing if it is not installed as one."""
    loaded = sys.modules.get(top)
    if loaded is not None and _is_local_module(loaded):
        return ""
    for distribution in (top, top.replace("_", "-")):
        with suppress(importlib.metadata.PackageNotFoundError):
            return f"{distribution} {importlib.metadata.version(distribution)}"
    for distribution in _distributions().get(top, ()):
        return f"{distribution} {importlib.metadata.version(distribution)}"
    return ""
