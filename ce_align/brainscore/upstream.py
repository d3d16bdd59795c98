"""Brain-Score as an imported package: quiet, and without installing anything."""

import importlib
import os
import warnings
from types import ModuleType

from ce_align.errors import CeAlignError
from ce_align.labelled import import_xarray

__all__ = ["import_brainscore"]


def import_brainscore(module: str = "") -> ModuleType:
    """``brainscore_vision``, or the named module inside it.

    Unless the user has set ``BS_INSTALL_DEPENDENCIES``, it is set to ``no``:
    Brain-Score's default runs pip inside the process whenever a plugin is loaded.

    Raises
    ------
    CeAlignError
        If the package is not installed.
    """
    os.environ.setdefault("BS_INSTALL_DEPENDENCIES", "no")
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
