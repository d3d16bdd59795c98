"""Recipe files: a docstring that says what they serve, and ``RECIPE = [...]``."""

import ast
import runpy
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from ce_align.config import StageConfig
from ce_align.errors import CeAlignError, ConfigError
from ce_align.files import check_regular, read_bytes
from ce_align.runner import distinct

__all__ = ["Recipe", "load_recipe"]

#: Name of the list in a recipe.
LIST = "RECIPE"


@dataclass(frozen=True)
class Recipe:
    """A recipe that was read.

    Attributes
    ----------
    path : of its file
    purpose : first line of its docstring
    configs : in its order, each once
    """

    path: Path
    purpose: str
    configs: tuple[StageConfig, ...]


def load_recipe(path: Path) -> Recipe:
    """Execute a recipe's file and take its list.

    The file is the user's own Python and runs as such.

    Raises
    ------
    ConfigError
        If there is no such file, it has no docstring or list, or it fails (with the
        line).
    """
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(
            f"there is no recipe {path}; a recipe is a Python file with "
            f"{LIST} = [configurations]"
        )
    try:
        found = runpy.run_path(str(check_regular(path)))
        purpose = (ast.get_docstring(ast.parse(read_bytes(path))) or "").strip()
    except CeAlignError as error:
        raise ConfigError(f"{path}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"{path}, line {_line(error, path)}: {_said(error)}") from (
            error
        )
    if not purpose:
        raise ConfigError(
            f"{path} has no docstring; say there which table or figure it serves"
        )
    configs = found.get(LIST)
    if not isinstance(configs, Sequence) or not configs:
        raise ConfigError(f"{path} has no list {LIST} with a configuration in it")
    for config in configs:
        if not isinstance(config, StageConfig):
            raise ConfigError(
                f"{LIST} of {path} holds a {type(config).__name__}; expected "
                "configurations such as ScoreConfig"
            )
    return Recipe(path, purpose.splitlines()[0], distinct(configs))


def _line(error: BaseException, path: Path) -> int | str:
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == path
    ]
    own = getattr(error, "lineno", None) or (lines[-1] if lines else None)
    return own or "?"


def _said(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        what = f"{error.title}.{where}" if where else error.title
        return f"{what}: {fault['msg']}, found {fault['input']!r}"
    return f"{type(error).__name__}: {error}".partition("\n")[0]
