"""xarray, with its file formats at hand on every supported Python."""

from importlib import metadata
from types import ModuleType
from typing import Any

__all__ = ["import_xarray"]


def _entry_points(**selection: str) -> Any:
    """Entry points as a mapping of groups, or those of one group if it is named."""
    if selection:
        return metadata.entry_points(**selection)
    group = "xarray.backends"
    return {group: metadata.entry_points(group=group)}


def import_xarray() -> ModuleType:
    """The package xarray; call this before reading or writing a file with it.

    The release that Brain-Score pins looks for file formats by an interface that
    Python 3.12 removed, and would find none there.
    """
    import xarray
    from xarray.backends import plugins

    plugins.entry_points = _entry_points
    package: ModuleType = xarray
    return package
