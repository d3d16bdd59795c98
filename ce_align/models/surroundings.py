"""What a network's file changes of the process that it shares with other networks.

A file may replace ``torch.tanh`` or ``nn.GELU.forward``, set a variable of the
environment or the default type of numbers. That belongs to its own network: it holds
while that network's code runs, and for no other.
"""

import builtins
import io
import os
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import nn

from ce_align.digests import digest_bytes, digest_json
from ce_align.models.content import is_local_file

__all__ = ["Change", "Reads", "applied", "recorded"]

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

    @property
    def dtype(self) -> torch.dtype:
        """Of tensors that are made without one."""
        return torch.get_default_dtype()

    @dtype.setter
    def dtype(self, value: torch.dtype) -> None:
        torch.set_default_dtype(value)


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
    """Variables of the environment and files that passes of a network have read.

    Attributes
    ----------
    variables, files : their names
    """

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
                found.setdefault(path.name, []).append(digest_bytes(path.read_bytes()))
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
