"""Checks at the boundary, shared by every room."""

import difflib
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import DataError

__all__ = [
    *("check_finite", "check_unique", "counted", "named_some", "nearest_names"),
    *("integer", "rounding_step"),
]


def nearest_names(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Up to `n` names of `known` that look most like `name`, best first."""
    choices = list(known)
    folded = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(name.lower(), list(folded), n=n, cutoff=0.4)
    return [folded[choice] for choice in close]


def named_some(names: Collection[Any], n: int = 3) -> str:
    """The first few names, and how many more there are: ``a, b and 4 more``."""
    shown = ", ".join(str(name) for name in list(names)[:n])
    rest = len(names) - n
    return f"{shown} and {rest} more" if rest > 0 else shown


def counted(n: int, noun: str) -> str:
    """A number of things: ``1 network``, ``3 networks``."""
    return f"{n} {noun}{'s' * (n != 1)}"


def integer(digits: str) -> int:
    """A whole number of JSON; ValueError of one that no array or column could hold.

    >>> integer("-12")
    -12
    """
    if len(digits) > 20:  # more than 64 bits
        raise ValueError(f"{digits[:20]}… is too large")
    return int(digits)


def check_unique(values: Collection[str], what: str) -> None:
    """Raise DataError, naming repeated values, unless all are different."""
    if len(set(values)) == len(values):
        return
    repeated = [value for value, count in Counter(values).items() if count > 1]
    raise DataError(
        f"{what} must be unique, but {len(repeated)} occur more than once: "
        f"{named_some(repeated)}"
    )


def check_finite(array: NDArray[Any], what: str) -> None:
    """Raise DataError unless every value of `array` is finite.

    Raises
    ------
    DataError
        With the number of values that are NaN or infinite.
    """
    # A sum is finite only if every term is: one pass without a mask, then the
    # mask for the message (and for sums that merely overflowed).
    with np.errstate(over="ignore", invalid="ignore"):
        total = np.sum(array, dtype=np.float64)
    if np.isfinite(total):
        return
    n_bad = int(np.size(array) - np.isfinite(array).sum())
    if n_bad:
        raise DataError(f"{what} has {n_bad} NaN or infinite values; remove them")


def rounding_step(array: NDArray[Any]) -> float:
    """Relative rounding error of an array's type; float64's for whole numbers."""
    kind = array.dtype if array.dtype.kind == "f" else np.dtype(np.float64)
    return float(np.finfo(kind).eps)
