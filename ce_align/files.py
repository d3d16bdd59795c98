"""Where ce_align keeps files, and how it writes them: whole or not at all."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ce_align.errors import CeAlignError

__all__ = ["atomic_path", "cache_folder", "check_space"]


def cache_folder(room: str) -> Path:
    """Folder of one kind of cached files, below ``$CE_ALIGN_HOME``.

    Without that variable it lies below the user's cache folder.
    """
    home = os.environ.get("CE_ALIGN_HOME")
    if home is None:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        home = str(Path(caches) / "ce_align")
    return Path(home).expanduser() / room


def check_space(folder: Path, n_bytes: int, what: str, remedy: str) -> None:
    """Raise CeAlignError unless `n_bytes` of `what` fit on the disk of `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise CeAlignError(
            f"{what} need {n_bytes / 1e9:.2f} GB but {folder} has {free / 1e9:.2f} GB "
            f"free; free some, set CE_ALIGN_HOME to another disk, {remedy}"
        )


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Temporary path beside `path` that is renamed to it on success.

    On any failure, an interruption too, the temporary file is removed and whatever
    stood at `path` before is untouched. The suffix is kept, because some writers
    choose the format by it.

    Raises
    ------
    CeAlignError
        If the system refuses to write there (full disk, no permission).
    """
    # Random, not only the process number: machines that share a folder share numbers.
    token = f"{os.getpid()}-{secrets.token_hex(4)}"
    temporary = path.with_name(f".{path.stem}.{token}.tmp{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        raise CeAlignError(
            f"cannot write {path}: {error.strerror or error}; free some space or "
            "choose another folder"
        ) from error
    finally:
        with suppress(OSError):  # it never came to be
            temporary.unlink()
