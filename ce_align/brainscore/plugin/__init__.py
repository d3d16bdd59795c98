"""Plugins for Brain-Score: written, read, checked and run."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Severity", "fault", "note", "warning"]

Severity = Literal["fault", "warning", "note"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found about a plugin.

    A ``fault`` breaks or endangers a submission, a ``warning`` may be meant, and a
    ``note`` says what was seen.
    """

    check: str
    severity: Severity
    message: str
    file: str | None = None
    line: int | None = None


def fault(
    check: str, message: str, file: str | None = None, line: int | None = None
) -> Finding:
    """Something that breaks or endangers a submission."""
    return Finding(check, "fault", message, file, line)


def warning(
    check: str, message: str, file: str | None = None, line: int | None = None
) -> Finding:
    """Something that may be meant."""
    return Finding(check, "warning", message, file, line)


def note(check: str, message: str) -> Finding:
    """Something that was seen."""
    return Finding(check, "note", message)
