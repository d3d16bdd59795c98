"""How long work tells what it has done; who shows it is decided elsewhere."""

import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TextIO

__all__ = ["Notify", "Progress", "quiet", "quiet_stdout", "silent"]

#: Called with what is being done, units done so far and units in all.
Progress = Callable[[str, int, int], None]


#: Called with one line that a person should read.
Notify = Callable[[str], None]


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""


def quiet(line: str) -> None:
    """Say nothing."""


def quiet_stdout() -> AbstractContextManager[TextIO]:
    """Send to standard error what code of others prints meanwhile.

    Standard output is for rows: one stray line and it is no longer JSON.
    """
    return contextlib.redirect_stdout(sys.stderr)
