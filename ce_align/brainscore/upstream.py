"""Brain-Score as an imported package: quiet, installing nothing, in its own place."""

import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from ce_align.errors import CeAlignError
from ce_align.files import cache_folder
from ce_align.labelled import import_xarray

__all__ = ["HOMES", "brainscore_home", "import_brainscore", "without_result_caching"]

#: Variables that place Brain-Score's files, and the folders it takes without them:
#: recordings and stimuli, weights of networks, and results of functions.
HOMES = {
    "BRAINIO_HOME": "~/.brainio",
    "BRAINSCORE_HOME": "~/.brain-score",
    "RESULTCACHING_HOME": None,
}


def brainscore_home(variable: str) -> Path:
    """Folder of one kind of Brain-Score's files.

    What the environment states; else Brain-Score's usual folder, if the user has one;
    else a folder of our own cache. Results of functions never go to the usual folder:
    they are kept by name alone.
    """
    stated = os.environ.get(variable)
    if stated:
        return Path(stated).expanduser()
    usual = HOMES[variable]
    if usual and Path(usual).expanduser().is_dir():
        return Path(usual).expanduser()
    return cache_folder("brainscore") / variable.removesuffix("_HOME").lower()


def import_brainscore(module: str = "") -> ModuleType:
    """``brainscore_vision``, or the named module inside it.

    Unless the user has set ``BS_INSTALL_DEPENDENCIES``, it is set to ``no``:
    Brain-Score's default runs pip inside the process whenever a plugin is loaded.
    Its folders are set by `brainscore_home`.

    Raises
    ------
    CeAlignError
        If the package is not installed.
    """
    os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")
    for variable in HOMES:  # it reads them once, when it is imported
        os.environ[variable] = str(brainscore_home(variable))
    import_xarray()  # which Brain-Score reads and writes files with
    name = f"brainscore_vision.{module}" if module else "brainscore_vision"
    try:
        with warnings.catch_warnings():
            # Its classes derived from xarray's announce themselves on every import.
            warnings.simplefilter("ignore", FutureWarning)
            return importlib.import_module(name)
    except ImportError as error:
        raise CeAlignError(
            f"brainscore-vision cannot be imported ({error}); install it with "
            "`pip install brainscore-vision`"
        ) from error


@contextmanager
def without_result_caching() -> Iterator[None]:
    """Let Brain-Score compute: it keeps results by names, whatever the content was."""
    variable = "RESULTCACHING_DISABLE"
    before = os.environ.get(variable)
    os.environ[variable] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
