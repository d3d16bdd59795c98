"""The errors that ce_align raises: each says what was expected, found and to do."""

__all__ = ["AccessError", "CeAlignError", "ConfigError", "DataError"]


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
