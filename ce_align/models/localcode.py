"""Python files of a user's own: loaded apart from one another, and known by content.

Two folders may hold a ``model.py`` each. What a network's file imports from beside it
is therefore loaded anew for that network alone and taken out of ``sys.modules`` again,
and its digest covers every local module that it imports, at any depth.

A file may also replace ``torch.tanh`` or ``nn.GELU.forward``, set a variable of the
environment or the default type of numbers. That belongs to its own network: it holds
while that network's code runs, and for no other.
"""

import ast
import builtins
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import sys
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from ce_align.digests import digest_bytes, digest_json
from ce_align.files import check_regular, read_bytes
from ce_align.foreign import is_local_file
from ce_align.models.content import TRUSTED

__all__ = ["LocalCode", "Reads"]

#: Stands for a name that is not there.
ABSENT = object()

#: Functions of libraries between a user's call and the file that it opens.
OPENING = 6

#: Modules whose functions networks are made of.
MODULES = ("torch", "torch.nn", "torch.nn.functional", "torch.nn.init", "torch.linalg")


class Change(NamedTuple):
    """One name of a module, a class or the environment, before and after."""

    owner: Any
    name: str
    before: Any
    after: Any


class _DefaultType:
    """The type of new tensors, as if it were a name."""

    dtype = property(
        lambda self: torch.get_default_dtype(),
        lambda self, value: torch.set_default_dtype(value),
    )


DEFAULT_TYPE = _DefaultType()


@contextmanager
def recorded() -> Iterator[list[Change]]:
    """Changes that are made meanwhile; they are undone at the end."""
    before = {id(owner): (owner, _names(owner)) for owner in _owners()}
    dtype = torch.get_default_dtype()
    found: list[Change] = []
    try:
        yield found
    finally:
        for owner, names in before.values():
            found += _changes(owner, names)
        if torch.get_default_dtype() != dtype:
            after = torch.get_default_dtype()
            found.append(Change(DEFAULT_TYPE, "dtype", dtype, after))
        for change in reversed(found):
            _set(change.owner, change.name, change.before)


@contextmanager
def applied(changes: list[Change]) -> Iterator[None]:
    """Make changes again for a while."""
    for change in changes:
        _set(change.owner, change.name, change.after)
    try:
        yield
    finally:
        for change in reversed(changes):
            _set(change.owner, change.name, change.before)


class Reads:
    """Variables of the environment and files that passes of a network have read."""

    def __init__(self) -> None:
        self.variables: set[str] = set()
        self.files: set[Path] = set()

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note what is read meanwhile."""
        environment: Any = type(os.environ)
        get, opened = environment.__getitem__, builtins.open
        variables: set[str] = set()

        def read_variable(mapping: Any, key: str) -> Any:
            named = mapping is os.environ and isinstance(key, str)
            if named and _asked_by_the_user(1):
                variables.add(key)
            return get(mapping, key)

        def read_file(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            named = isinstance(file, str | os.PathLike) and "r" in mode
            if named and _asked_by_the_user(OPENING):
                with suppress(OSError, ValueError, TypeError):
                    self.files.add(Path(file).resolve())
            return opened(file, mode, *args, **kwargs)

        environment.__getitem__ = read_variable
        builtins.open = io.open = read_file
        try:
            yield
        finally:
            environment.__getitem__ = get
            builtins.open = io.open = opened
        # Who reads all of them, as to start a process, depends on none of them.
        if len(variables) < len(os.environ):
            self.variables |= variables

    def digests(self) -> dict[str, str]:
        """What is there to read now."""
        found: dict[str, list[str]] = {}
        for path in sorted(self.files):
            if is_local_file(str(path)) and path.suffix != ".py" and path.is_file():
                found.setdefault(path.name, []).append(
                    digest_bytes(check_regular(path).read_bytes())
                )
        files = {f"file {name}": digest_json(found[name]) for name in found}
        environment = {
            f"environment {name}": digest_json(os.environ.get(name))
            for name in self.variables
        }
        return files | environment


def _asked_by_the_user(depth: int) -> bool:
    """Whether code of the user's is among the nearest callers outside of Python's own.

    What torch reads when it is first used is no part of a network.
    """
    frame = sys._getframe(2)
    while frame is not None and depth:
        module = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if module not in sys.stdlib_module_names:
            if is_local_file(frame.f_code.co_filename):
                return True
            depth -= 1
        frame = frame.f_back  # type: ignore[assignment]
    return False


def _owners() -> Iterator[Any]:
    yield os.environ
    yield torch.Tensor
    yield from (sys.modules[name] for name in MODULES)
    waiting: list[type] = [nn.Module]
    while waiting:
        kind = waiting.pop()
        yield kind
        waiting += kind.__subclasses__()


def _names(owner: Any) -> dict[str, Any]:
    return dict(owner if isinstance(owner, MutableMapping) else vars(owner))


def _changes(owner: Any, before: dict[str, Any]) -> Iterator[Change]:
    after = _names(owner)
    for name in before.keys() | after.keys():
        old, new = before.get(name, ABSENT), after.get(name, ABSENT)
        if isinstance(owner, MutableMapping):
            same = old == new
        elif isinstance(owner, ModuleType):
            # What is new there is a part that was imported late.
            same = old is new or old is ABSENT or new is ABSENT
        else:
            # Python keeps notes of its own in classes, such as __slotnames__.
            own = name.startswith(("__", "_abc_")) and not callable(new)
            same = old is new or own
        if not same:
            yield Change(owner, name, old, new)


def _set(owner: Any, name: str, value: Any) -> None:
    if isinstance(owner, MutableMapping):
        if value is ABSENT:
            owner.pop(name, None)
        else:
            owner[name] = value
    elif value is ABSENT:
        if name in vars(owner):
            delattr(owner, name)
    else:
        setattr(owner, name, value)


class LocalCode:
    """A Python file with the local modules that it imports; read, but not yet run."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        source = read_bytes(self.path)
        place = str(self.path).encode()
        # Of its module: different for files of different content or place.
        self.name = f"ce_align_user_{path.stem}_{digest_bytes(source, place)}"
        self._finder = _FreshFinder(self.path.parent)
        self._modules: dict[str, ModuleType] = {}
        self._changes: list[Change] = []
        self._folders: list[str] = []
        self._finder.sources[self.name] = source
        with self._importable():
            self._read_imports(self.name, source, package=None)

    @property
    def modules(self) -> frozenset[str]:
        """Names of the file's module and of the local modules that it imports."""
        return frozenset(self._finder.sources)

    @property
    def digest(self) -> str:
        """Digest of what their code says, whatever its comments and layout.

        Folder and name of the file are no part of it.
        """
        return digest_json(
            {
                "" if name == self.name else name: _normalised(source)
                for name, source in self._finder.sources.items()
            }
        )

    @contextmanager
    def loading(self) -> Iterator[ModuleType]:
        """Its module, while a network is built from it.

        What that changes of the process is undone, and holds while it is active.
        """
        with self.active(), recorded() as changes:
            yield self._load()
        self._changes = changes

    def _load(self) -> ModuleType:
        spec = importlib.util.spec_from_file_location(
            self.name,
            self.path,
            loader=_FreshLoader(self.name, self.path, self._finder),
        )
        if spec is None or spec.loader is None:
            raise ImportError(f"{self.path} is no Python file")
        module = importlib.util.module_from_spec(spec)
        # Dataclasses and pickles of the file look their module up by name.
        sys.modules[self.name] = module
        spec.loader.exec_module(module)
        return module

    @contextmanager
    def active(self) -> Iterator[None]:
        """The file's folder can be imported from, and its own modules are the loaded.

        They are gone from ``sys.modules`` afterwards, and what was there is back.
        """
        others = self._taken()
        sys.modules.update(self._modules)
        try:
            with self._importable(), applied(self._changes):
                yield
        finally:
            self._modules = self._taken()
            sys.modules.update(others)

    def _taken(self) -> dict[str, ModuleType]:
        """Modules that go by the names of this file's own, out of ``sys.modules``."""
        names = [name for name in self.modules if name in sys.modules]
        return {name: sys.modules.pop(name) for name in names}

    @contextmanager
    def _importable(self) -> Iterator[None]:
        # Folders that the file adds are its own, too: what another file finds, and so
        # its digest, must not depend on who was loaded before.
        before, own = list(sys.path), [str(self.path.parent), *self._folders]
        sys.path[:] = own + before
        sys.meta_path.insert(0, self._finder)
        try:
            yield
        finally:
            sys.meta_path.remove(self._finder)
            added = [entry for entry in sys.path if entry not in (*before, own[0])]
            self._folders = list(dict.fromkeys(added))
            sys.path[:] = before

    def _read_imports(self, name: str, source: bytes, package: str | None) -> None:
        """Sources of the local modules that a module imports, wherever it does so."""
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            return  # running it says what is wrong
        for wanted in _imported_names(tree, package):
            for found in self._finder.locate(wanted):
                if found.name not in self._finder.sources:
                    text = self._finder.read(found)
                    inside = found.submodule_search_locations is not None
                    parent = found.name if inside else found.name.rpartition(".")[0]
                    self._read_imports(found.name, text, parent or None)


class _FreshFinder(importlib.abc.MetaPathFinder):
    """Finds local modules and has them compiled from their source as it is now.

    The modules of `folder` are local wherever it lies; `sources` has the text of every
    local module found so far.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.sources: dict[str, bytes] = {}
        self._searching = False

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,
        target: ModuleType | None = None,
    ) -> importlib.machinery.ModuleSpec | None:
        """Spec of a local module; None for any other."""
        spec = self._others(fullname, path)
        if spec is None:
            return None
        if spec.origin is None:  # a folder without __init__.py
            self.sources[fullname] = b""
            return spec
        self.read(spec)
        if not spec.origin.endswith(".py"):
            return spec
        spec.loader = _FreshLoader(fullname, Path(spec.origin), self)
        spec.cached = None
        return spec

    def read(self, spec: importlib.machinery.ModuleSpec) -> bytes:
        """Source of a module, as it was when it was first asked for."""
        if spec.name not in self.sources:
            self.sources[spec.name] = read_bytes(Path(str(spec.origin)))
        return self.sources[spec.name]

    def locate(self, name: str) -> Iterator[importlib.machinery.ModuleSpec]:
        """Specs of a dotted name and of its packages, as far as they are local."""
        path: Sequence[str] | None = None
        parts = name.split(".")
        for end in range(1, len(parts) + 1):
            full = ".".join(parts[:end])
            spec = self._others(full, path)
            if spec is None:
                return
            if spec.origin is not None:
                yield spec
            if spec.submodule_search_locations is None:
                return
            path = list(spec.submodule_search_locations)

    def _others(
        self, name: str, path: Sequence[str] | None
    ) -> importlib.machinery.ModuleSpec | None:
        """What the usual finders find, if it is a user's own."""
        if self._searching or name.partition(".")[0] in TRUSTED:
            return None
        self._searching = True
        try:
            for finder in sys.meta_path:
                if isinstance(finder, _FreshFinder):
                    continue
                spec = finder.find_spec(name, path)
                if spec is not None:
                    return spec if self._is_local(spec) else None
        except (ImportError, ValueError, AttributeError, TypeError, OSError):
            return None
        finally:
            self._searching = False
        return None

    def _is_local(self, spec: importlib.machinery.ModuleSpec) -> bool:
        inside = spec.submodule_search_locations
        place = spec.origin or (f"{next(iter(inside))}/__init__.py" if inside else "")
        if is_local_file(place):
            return True
        path = Path(place).resolve()
        beside = path.is_relative_to(self._folder) and path != self._folder
        return beside and "site-packages" not in path.relative_to(self._folder).parts


class _FreshLoader(importlib.machinery.SourceFileLoader):
    """Compiles the source that was digested: never a file of bytecode, nor a newer."""

    def __init__(self, fullname: str, path: Path, finder: _FreshFinder) -> None:
        super().__init__(fullname, str(path))
        self._finder = finder

    def get_code(self, fullname: str) -> Any:
        """Code object of the module."""
        return self.source_to_code(self._finder.sources[fullname], self.path)


def _imported_names(tree: ast.AST, package: str | None) -> Iterator[str]:
    """Dotted names that a module may import, absolute."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                if package is None:
                    continue
                parents = package.split(".")
                parents = parents[: len(parents) - node.level + 1]
                base = ".".join([*parents, *([base] if base else [])])
            # What is imported may be a module itself.
            yield from (f"{base}.{alias.name}".strip(".") for alias in node.names)


def _normalised(source: bytes) -> str:
    """Source without comments, layout and docstrings; unchanged if it is no Python."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return digest_bytes(source)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_docstring(node, body[0]):
            body[:1] = [] if len(body) > 1 else [ast.Pass()]
    return digest_bytes(ast.unparse(tree).encode("utf-8", "surrogatepass"))


def _is_docstring(node: ast.AST, first: ast.AST) -> bool:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    return (
        isinstance(node, documented)
        and isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    )
