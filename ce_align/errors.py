"""The errors that ce_align raises: each says what was expected, found and to do."""

import errno
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

__all__ = [
    "LONGEST",
    "AccessError",
    "CeAlignError",
    "ConfigError",
    "DataError",
    "PassError",
    "Stopped",
    "explained",
    "first_line",
    "summary",
]


#: So many settings that are wrong are told, and characters of what was found.
MANY, SHOWN = 4, 80
#: Characters of what a library says; it may repeat a whole header.
LONGEST = 200


class CeAlignError(Exception):
    """Something that ce_align can explain in one line."""

    exit_status = 1


class ConfigError(CeAlignError, ValueError):
    """A name, option or combination of options that does not exist."""

    exit_status = 2


class DataError(CeAlignError, ValueError):
    """Arrays or files that do not describe what they claim."""

    exit_status = 2


class PassError(DataError):
    """A network's own code fails during a pass."""


class AccessError(CeAlignError):
    """Something that exists but is private, absent here or out of reach."""


class Stopped(KeyboardInterrupt):
    """A signal asked to stop; its notes say what is kept."""

    def __init__(self, signum: int) -> None:
        super().__init__()
        self.signum = signum


def first_line(error: BaseException) -> str:
    """First line of an error's text, which its own code may fail to give."""
    try:
        return str(error).strip().partition("\n")[0]
    except Exception:
        return ""


def summary(error: BaseException) -> str:
    """Kind of an error and what it says, in one line that is not too long.

    >>> summary(ValueError("no room")), summary(KeyError())
    ('ValueError: no room', 'KeyError')
    """
    parts = (type(error).__name__, first_line(error))
    return ": ".join(filter(None, parts))[:LONGEST]


def _fault(found: "ErrorDetails") -> str:
    """What is wrong with one setting."""
    own = found.get("ctx", {}).get("error")
    if isinstance(own, CeAlignError):  # says what was found, and what to do
        return str(own)
    where = ".".join(map(str, found["loc"]))
    if found["type"] == "missing":
        return f"it lacks {where!r}"
    return f"{where[:SHOWN]}: {found['msg']}, found {_shown(found['input'])}"


def _shown(value: object) -> str:
    """A value, the end of a long one left out."""
    try:
        text = repr(value)
    except ValueError:  # an integer of thousands of digits
        text = type(value).__name__
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}…"


def explained(error: Exception) -> CeAlignError:
    """An error in one line: itself, if it is one of ours."""
    if isinstance(error, CeAlignError):
        return error
    from pydantic import ValidationError  # not for `ce-align --help`

    if isinstance(error, ValidationError):
        faults = error.errors()
        more = f"; and {len(faults) - MANY} more" if len(faults) > MANY else ""
        found: CeAlignError = ConfigError("; ".join(map(_fault, faults[:MANY])) + more)
    elif isinstance(error, MemoryError):
        advice = str(error) or "use fewer images or a smaller layer"
        found = CeAlignError(f"not enough memory: {advice}")
    elif isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        where = f" ({error.filename})" if error.filename else ""
        found = CeAlignError(f"the disk is full{where}; free some space and run again")
    elif isinstance(error, UnicodeEncodeError):
        around = error.object[max(0, error.start - 40) : error.end + 40]
        name = around.encode("utf-8", "backslashreplace").decode()
        found = DataError(f"a name is no UTF-8 ({name}); rename the file or folder")
    elif isinstance(error, OSError) and error.filename and error.strerror:
        found = CeAlignError(
            f"cannot use {error.filename}: {error.strerror.lower()}; "
            "name another file or folder"
        )
    else:
        found = CeAlignError(f"unexpected {summary(error)} (--debug shows where)")
    found.__cause__ = error
    return found
