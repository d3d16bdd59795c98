"""Networks from a user's Python file: ``path/to/file.py:callable``."""

import inspect
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import nn

from ce_align.checks import nearest_names
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.models.localcode import LocalCode
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.progress import quiet_stdout

__all__ = ["described_network", "load_user_file"]


class Description(Preprocessing):
    """What the attribute ``ce_align`` of a user's module may say."""

    layers: dict[str, str] = Field(default_factory=dict)


def described_network(
    name: str, module: nn.Module, description: Any, code: LocalCode | None = None
) -> Network:
    """Network from a module and a description of its input and layers.

    Parameters
    ----------
    description
        mapping with any of ``input_size``, ``mean``, ``std`` (of RGB in [0, 1]),
        ``interpolation`` and ``layers`` (region to layer); the rest is ImageNet's
    code : the Python file that builds it, if one does

    Raises
    ------
    DataError
        If the description has other names or values.
    """
    try:
        checked = Description.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"{name} describes itself wrongly: {where}: {message}; expected "
            f"{', '.join(Description.model_fields)}"
        ) from error
    values = checked.model_dump()
    layers = values.pop("layers")
    return Network(name, module, Preprocessing(**values), layers, code)


def load_user_file(path: Path, attribute: str, *, seed: int = 0) -> Network:
    """Network that a callable of a Python file returns.

    The callable takes no argument and returns a torch module, which may carry an
    attribute ``ce_align`` with its description. Random weights follow from `seed`; the
    global generator is left as it was. The file runs with its own folder importable.

    Raises
    ------
    ConfigError
        If there is no such file or callable.
    DataError
        If the file fails (with its line), or returns something else.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    name = f"{path}:{attribute}"
    code = LocalCode(path)
    with (
        _reported(path),
        quiet_stdout(),
        torch.random.fork_rng(devices=[]),
    ):
        torch.manual_seed(seed)
        with code.loading() as file:
            module = _callable(file, attribute, path)()
    if not isinstance(module, nn.Module):
        raise DataError(
            f"{name} returned a {type(module).__name__}; expected a torch.nn.Module"
        )
    return described_network(name, module, getattr(module, "ce_align", {}), code)


def _callable(module: ModuleType, attribute: str, path: Path) -> Callable[[], Any]:
    build = getattr(module, attribute, None)
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
    if not callable(build):
        near = nearest_names(attribute, own) or own
        raise ConfigError(
            f"{path} has no callable {attribute!r}; it has {', '.join(near) or 'none'}"
        )
    required = [
        parameter.name
        for parameter in inspect.signature(build).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise ConfigError(
            f"{path}:{attribute} needs the arguments {', '.join(required)}; name a "
            "callable that needs none"
        )
    found: Callable[[], Any] = build
    return found


@contextmanager
def _reported(path: Path) -> Iterator[None]:
    """Any failure of the user's file as one line with its place."""
    try:
        yield
    except CeAlignError:
        raise
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        lines = [f.lineno for f in frames if Path(f.filename).name == path.name]
        line = getattr(error, "lineno", None) or (lines[-1] if lines else "?")
        message = str(error).partition("\n")[0]
        raise DataError(
            f"{path}, line {line}: {type(error).__name__}: {message}"
        ) from error
