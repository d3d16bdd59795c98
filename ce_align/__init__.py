"""Contrastive-equivariant networks and their alignment with visual cortex.

Importing this package is cheap: torch and brainscore_vision are imported only by the
functions that need them.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("ce-align")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+source"

__all__ = ["__version__"]
