"""How the kernels are compiled."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numba

__all__ = ["compiled"]


def compiled(signature: str | None = None) -> Callable[[Callable[..., Any]], Any]:
    """``numba.njit`` that keeps machine code between sessions where it can.

    Parameters
    ----------
    signature : str, optional
        Types to compile for at once; otherwise those of the first call.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        compile_with = partial(numba.njit, signature, nogil=True, error_model="numpy")
        try:
            return compile_with(cache=True)(function)
        except RuntimeError:  # neither the package nor the user's cache is writable
            return compile_with()(function)

    return decorate
