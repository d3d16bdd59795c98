"""The errors that ce_align raises: each says what was expected, found and to do."""

__all__ = ["AccessError", "CeAlignError", "ConfigError", "DataError", "is_signal"]


class CeAlignError(Exception):
    """Something that ce_align can explain in one line."""

    exit_status = 1


class ConfigError(CeAlignError, ValueError):
    """A name, option or combination of options that does not exist."""

    exit_status = 2


class DataError(CeAlignError, ValueError):
    """Arrays or files that do not describe what they claim."""

    exit_status = 2


class AccessError(CeAlignError):
    """Something that exists but is private, absent here or out of reach."""


def is_signal(error: BaseException) -> bool:
    """Whether an error is a signal that asked to stop: its status is 128 or more."""
    status: object = None
    if isinstance(error, CeAlignError):
        status = error.exit_status
    elif isinstance(error, SystemExit):
        status = error.code
    return isinstance(status, int) and status >= 128
