"""Code of others: what fails in it is told as theirs, and what it prints is readable.

Networks, recordings, measures, similarities and objectives may be anybody's. What is
registered is `guarded` as it comes in, so that nothing behind has to ask whose it is.
"""

import contextlib
import errno
import functools
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import UnionType
from typing import Any, TextIO, TypeVar

from ce_align.errors import CeAlignError, DataError, summary
from ce_align.names import printable

__all__ = ["guard", "guarded", "is_local_file", "quiet_stdout"]

Function = TypeVar("Function", bound=Callable[..., Any])

#: Characters of a line that code of others prints.
LONGEST = 400

#: Nobody's fault but the machine's, or the user's wish.
SPARED = (CeAlignError, KeyboardInterrupt, MemoryError)


@contextmanager
def guard(
    what: str,
    kind: type[CeAlignError] = DataError,
    passing: tuple[type[BaseException], ...] = (),
) -> Iterator[None]:
    """Tell of whatever code of others raises in one line: whose, where and what.

    That may be SystemExit, which would end the program without a word. An interruption,
    the lack of memory or of room on a disk, and errors of `ce_align` pass, as does what
    is `passing`. What is guarded must not yield: a generator is closed by an exception.
    """
    spared: tuple[type[BaseException], ...] = (*SPARED, *passing)
    try:
        yield
    except spared:
        raise
    except BaseException as error:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise kind(f"{what} fails{_place(error)}: {summary(error)}") from error


def guarded(
    function: Function, what: str, expected: type | UnionType | Callable[..., Any]
) -> Function:
    """A function of others that fails in one line, or returns what is expected.

    Parameters
    ----------
    what : it is, as in "the recording source 'mine'"
    expected : type of what it returns, or a function that is given this, followed by
        its arguments, and returns it or raises DataError
    """
    return _Guarded(function, what, expected)  # type: ignore[return-value]


class _Guarded:
    """What `guarded` returns; unlike a closure, it can be pickled."""

    def __init__(self, function: Any, what: str, expected: Any) -> None:
        functools.update_wrapper(self, function, updated=())
        self._function, self._what, self._expected = function, what, expected

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with guard(self._what):
            found = self._function(*args, **kwargs)
            if not isinstance(self._expected, type | UnionType):
                return self._expected(found, *args)
            if not isinstance(found, self._expected):
                wanted = getattr(self._expected, "__name__", self._expected)
                raise DataError(
                    f"{self._what} returned {type(found).__name__}, expected {wanted}"
                )
            return found


def _place(error: BaseException) -> str:
    """Where code failed: in the last file of a user's own or else of a library."""
    if isinstance(error, SyntaxError) and error.filename:
        places = [(error.filename, error.lineno)]
    else:
        places = [
            (frame.f_code.co_filename, line)
            for frame, line in traceback.walk_tb(error.__traceback__)
        ]
    places = [one for one in places if not one[0].startswith("<frozen")][::-1]
    local = next((one for one in places if is_local_file(one[0])), None)
    ours = Path(__file__).resolve().parent
    others = (one for one in places if not Path(one[0]).is_relative_to(ours))
    file, line = local or next(others, ("", None))
    with suppress(ValueError, OSError):
        file = str(Path(file).relative_to(Path.cwd()))
    return f" ({file}, line {line})" if file not in ("", ".") else ""


@functools.cache
def is_local_file(file: str | None) -> bool:
    """Whether a module's file is a user's own: neither Python's nor installed.

    >>> is_local_file(sysconfig.__file__), is_local_file("/tmp/helper.py")
    (False, True)
    """
    if not file:
        return False
    path = Path(file).resolve()
    if {"site-packages", "dist-packages"} & set(path.parts):
        return False
    return not any(path.is_relative_to(folder) for folder in _standard_folders())


@functools.cache
def _standard_folders() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    own = Path(__file__).resolve().parent
    return (*(Path(paths[name]).resolve() for name in names), own)


class _Printed:
    """Standard error, to which code of others prints lines that can be read."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._column = stream, 0

    def write(self, text: str) -> int:
        """Write, without what moves the cursor or goes beyond the longest line."""
        for line in text.splitlines(keepends=True):
            ended = line.endswith("\n")
            shown = printable(line.removesuffix("\n")[:LONGEST])
            self._stream.write(shown[: LONGEST - self._column] + "\n" * ended)
            self._column = 0 if ended else min(LONGEST, self._column + len(shown))
        return len(text)

    def end_line(self) -> None:
        """What others print next begins a new line."""
        if self._column:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send to standard error what code of others prints meanwhile.

    Standard output is for rows: one stray line and it is no longer JSON.
    """
    if isinstance(sys.stdout, _Printed):
        yield
        return
    printed: Any = _Printed(sys.stderr)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        printed.end_line()
