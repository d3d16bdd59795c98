"""How long work tells what it has done; who shows it is decided elsewhere."""

from collections.abc import Callable

__all__ = ["Progress", "silent"]

#: Called with what is being done, units done so far and units in all.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Show nothing."""
