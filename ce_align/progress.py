"""How long work tells what it has done; who shows it is decided elsewhere."""

import time
from collections.abc import Callable
from typing import Protocol

__all__ = [
    *("MEGABYTE", "WHOLE", "Notify", "Progress", "TimeLeft", "quiet", "silent"),
]

#: What a job as a whole is called, whose units are done one after another and may
#: consist of several passes.
WHOLE = "done"
#: Bytes of one unit, where files are read or fetched.
MEGABYTE = 1_000_000


class Progress(Protocol):
    """Called with what is being done, units done so far and in all.

    `state` says more than the units do, such as the loss of a training.
    """

    def __call__(
        self, what: str, done: int, total: int, state: str = "", /
    ) -> None: ...


#: Called with one line that a person should read.
Notify = Callable[[str], None]


class TimeLeft:
    """Time that is left, estimated from what `Progress` is told.

    Units of a job that took less than a tenth of the longest were found in the results,
    and say nothing of those that are left.

    Parameters
    ----------
    clock : seconds; None for those of the computer
    """

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock or time.monotonic
        self._began = self._clock()
        self._done, self._total = 0, 1
        self._took: list[float] = []
        #: When each pass began, with units done by then, and what is left of it.
        self._passes: dict[str, tuple[float, int]] = {}
        self._left: dict[str, float] = {}

    def told(self, what: str, done: int, total: int) -> None:
        """Note what was done."""
        now = self._clock()
        if what == WHOLE:
            if done > self._done:
                self._took.append((now - self._began) / (done - self._done))
            self._began, self._done, self._total = now, done, total
            self._passes.clear()
            self._left.clear()
            return
        began, before = self._passes.setdefault(what, (now, done))
        if done > before:
            self._left[what] = (now - began) / (done - before) * (total - done)
        if done >= total:
            del self._passes[what]
            self._left.pop(what, None)

    def of(self, what: str) -> float | None:
        """Seconds left of one pass; None while nothing is known."""
        return self._left.get(what)

    def whole(self) -> float | None:
        """Seconds left of the job; None while nothing is known.

        Passes that are still to come in the first unit are not known of.
        """
        if self._done >= self._total:
            return 0.0
        rest = max(self._left.values(), default=0.0)
        spent = self._clock() - self._began
        taken = [seconds for seconds in self._took if seconds > max(self._took) / 10]
        if not taken and not self._left:
            return None
        usual = sum(taken) / len(taken) if taken else 0.0
        each = max(usual, spent + rest)
        return max(usual - spent, rest) + each * (self._total - self._done - 1)


def silent(what: str, done: int, total: int, state: str = "", /) -> None:
    """Show nothing."""


def quiet(line: str) -> None:
    """Say nothing."""
