"""Where ce_align keeps files, how it writes them (whole or not at all) and reads them.

What a killed process (SIGKILL, out of memory, power) could not remove itself is removed
by the next one that writes into the same folder.
"""

import errno
import hashlib
import lzma
import os
import re
import secrets
import shutil
import socket
import stat
import struct
import tarfile
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from ce_align.checks import named_some
from ce_align.errors import LONGEST, CeAlignError, ConfigError, DataError, first_line

__all__ = [
    *("DAMAGE", "STALE", "alive", "atomic_folder", "atomic_path", "cache_folder"),
    *("check_readable", "check_regular", "check_space", "import_xarray", "read_bytes"),
    *(
        "read_text",
        "reading_archive",
        "reason",
        "scratch_folder",
        "sweep",
        "this_process",
    ),
]

#: Seconds after which an unfinished file of another machine counts as given up.
STALE = 24 * 3600

#: Unfinished files: name, machine, process, its start, random part, suffix.
_UNFINISHED = re.compile(
    r".+\.(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<start>\d+)-[0-9a-f]{8}\.tmp(\..*)?"
)

#: A file of JSON or text that is larger is none of ours (256 MiB).
MOST_BYTES = 2**28

#: Characters of a name that its temporary one keeps: names have at most 255 bytes.
_KEPT = 40

#: Folders that this process has swept.
_swept: set[Path] = set()


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
    # First: what killed processes left may be what fills the disk.
    sweep(folder)
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise CeAlignError(
            f"{what} need {_amount(n_bytes)} but {folder} has {_amount(free)} free; "
            f"free some, set CE_ALIGN_HOME to another disk, {remedy}"
        )


def _amount(n_bytes: int) -> str:
    """Bytes in the unit in which they are more than one."""
    for unit, size in {"GB": 1e9, "MB": 1e6}.items():
        if n_bytes >= size:
            return f"{n_bytes / size:.2f} {unit}"
    return f"{n_bytes / 1e3:.2f} kB"


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Temporary path beside `path` that is renamed to it on success.

    On any failure, an interruption too, the temporary file is removed and whatever
    stood at `path` before is untouched. The suffix is kept, because some writers
    choose the format by it. Raises CeAlignError if the system refuses to write there.
    """
    _check_place(path, "file", path.is_file)
    temporary = path.with_name(_unfinished_name(path.stem, path.suffix))
    try:
        with _told(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            yield temporary
            temporary.replace(path)
    finally:
        _remove(temporary)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Empty folder beside `path` that takes its place on success.

    On any failure it is removed, and a folder that stood at `path` is untouched.
    Raises CeAlignError if the system refuses to write there.
    """
    _check_place(path, "folder", path.is_dir)
    temporary = path.with_name(_unfinished_name(path.name))
    replaced = path.with_name(_unfinished_name(path.name))
    try:
        with _told(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep(path.parent)
            temporary.mkdir()
            yield temporary
            if path.is_dir():  # no system call exchanges folders everywhere
                path.replace(replaced)
            temporary.replace(path)
    finally:
        _remove(temporary)
        _remove(replaced)


@contextmanager
def scratch_folder(purpose: str, parent: Path | None = None) -> Iterator[Path]:
    """Folder that exists as long as it is needed, below the system's temporary one.

    Its name tells the `purpose`. Raises CeAlignError if it cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    # Not hidden: what is hidden counts as no plugin and no image.
    path = parent / _unfinished_name(f"ce-align-{purpose}").lstrip(".")
    with _told(path):
        parent.mkdir(parents=True, exist_ok=True)
        sweep(parent)
        path.mkdir(mode=0o700)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in a folder, once a process.

    That is what a process of this machine wrote that has ended, and what another
    machine, which may be writing still, has not touched for a day. All folders of a
    room of the caches are swept, as what is written next may belong into another one.
    """
    folder, home = folder.absolute(), cache_folder("").absolute()
    places: Iterable[Path | str] = (folder,)
    if folder != home and folder.is_relative_to(home):
        folder = home / folder.relative_to(home).parts[0]
        places = (place for place, _, _ in os.walk(folder))
    if folder in _swept:
        return
    _swept.add(folder)
    for place in places:
        with suppress(OSError), os.scandir(place) as entries:
            for entry in entries:
                found = _UNFINISHED.fullmatch(entry.name)
                if found is not None and _given_up(found, Path(entry.path)):
                    _remove(Path(entry.path))


def _remove(path: Path) -> None:
    """Remove a file or folder; another process may be faster."""
    shutil.rmtree(path, ignore_errors=True)  # of a folder, or nothing
    with suppress(OSError):
        # A library that failed may hold it open, and with it the room it takes.
        os.truncate(path, 0)
    with suppress(OSError):
        path.unlink()


#: What the system says of a disk, a quota or a limit (``ulimit -f``) that is used up.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}

#: Bytes that are written to learn whether there is room; libraries buffer less.
_TRIAL = 2**20


@contextmanager
def _told(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Refusals of the system in a line that names what was to be written."""
    try:
        yield
    except CeAlignError:
        raise
    except Exception as error:
        refusal = _refusal(error, unfinished)
        if refusal is None:
            raise
        cached = path.absolute().is_relative_to(cache_folder("").absolute())
        if refusal.errno in DENIED:
            other = (
                "set CE_ALIGN_HOME to another" if cached else "choose another folder"
            )
            remedy = f"make its folder writable or {other}"
        elif cached:
            remedy = "free some space or set CE_ALIGN_HOME to another disk"
        elif path.is_relative_to(tempfile.gettempdir()):
            remedy = "free some space or set TMPDIR to another disk"
        else:
            remedy = "free some space or choose another folder"
        raise CeAlignError(
            f"cannot write {path}: {refusal.strerror or refusal}; {remedy}"
        ) from error


def _refusal(error: Exception, unfinished: Path | None) -> OSError | None:
    """What the system has refused, whatever a library makes of it.

    On a full disk HDF5 says that it has no permission, or an error of its own, and the
    writers of pictures fail as they close what they could not write.
    """
    earlier: BaseException | None = error
    while earlier is not None:
        if isinstance(earlier, OSError) and earlier.errno in FULL:
            return earlier
        earlier = earlier.__cause__ or earlier.__context__
    given = error if isinstance(error, OSError) else None
    if unfinished is None:
        return given
    try:
        place = unfinished / "trial" if unfinished.is_dir() else unfinished
        with place.open("ab") as file:
            file.write(bytes(_TRIAL))
            os.fsync(file.fileno())  # some disks say it only now
    except OSError as found:
        return found if given is None or found.errno in FULL | DENIED else given
    return given


def _check_place(path: Path, kind: str, fits: Callable[[], bool]) -> None:
    """Refuse to replace a device, a folder by a file, or what has no name of its own.

    Whoever may do so would put a file in the place of ``/dev/null``.
    """
    try:
        taken = path.exists() and not fits()
    except OSError:  # such as a name that is too long, which writing tells of
        taken = False
    if taken or path.name in ("", ".."):
        raise ConfigError(
            f"expected the name of a {kind} to write, found '{path}'"
            f"{f', which is no {kind}' if path.name else ''}; choose another name"
        )


def _unfinished_name(stem: str, suffix: str = "") -> str:
    token = f"{this_process()}-{secrets.token_hex(4)}"
    return f".{stem[:_KEPT]}.{token}.tmp{suffix}"


def this_process() -> str:
    """Name of this process that no other has, on no machine."""
    pid = os.getpid()
    return f"{_machine()}-{pid}-{_start(pid) or 0}"


def alive(process: str) -> bool | None:
    """Whether a process of that name still runs; None if it is another machine's."""
    machine, _, rest = process.partition("-")
    pid, _, start = rest.partition("-")
    if machine != _machine() or os.name != "posix" or not (pid + start).isdecimal():
        return None
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        pass  # another user's
    # Numbers of processes are given again, but not to one that began at that time.
    now, then = _start(int(pid)), int(start)
    return not (now and then and now != then)


@cache
def _machine() -> str:
    """Digest of what numbers of processes are unique in: host, boot, container."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _start(pid: int) -> int | None:
    """When a process began, in ticks since the boot; None where that is not told."""
    try:
        # The name of the program, in parentheses, may itself hold blanks.
        state, *facts = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, ValueError):
        return None
    # One that was killed but not yet asked for by its parent does not write any more.
    return -1 if state in "ZX" else int(facts[18])


def _given_up(found: re.Match[str], path: Path) -> bool:
    """Whether nobody is writing an unfinished file any more."""
    writes = alive(f"{found['machine']}-{found['pid']}-{found['start']}")
    if writes is not None:
        return not writes
    try:
        changes = [part.lstat().st_mtime for part in (path, *path.rglob("*"))]
    except OSError:
        return False
    return time.time() - max(changes) > STALE


def check_regular(path: Path) -> Path:
    """The path itself; DataError if something is there that is no plain file.

    A FIFO or a device may never end, or block; so may what stands for a process.
    """
    try:
        mode = path.stat().st_mode
        of_process = path.resolve().is_relative_to("/proc")
    except FileNotFoundError:
        return path  # the reader says what should be there
    except (OSError, RuntimeError, ValueError) as error:  # links in a circle, a NUL
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    if stat.S_ISDIR(mode):
        raise DataError(f"{path} is a folder; give a file")
    if of_process or not stat.S_ISREG(mode):
        raise DataError(f"{path} is no plain file; copy its content into one")
    return path


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Content of a plain file.

    Raises
    ------
    DataError
        If it is no plain file, cannot be read, or has more than `most` bytes.
    """
    try:
        if (n_bytes := check_regular(path).stat().st_size) > most:
            size = f"{n_bytes / 1e6:.0f} MB, more than {most / 1e6:.0f}"
            raise DataError(f"{path} has {size}; that is no such file")
        return path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error


def read_text(path: Path, encoding: str = "utf-8", errors: str = "strict") -> str:
    """Text of a plain file, in lines that end alike; DataError as of `read_bytes`."""
    text = read_bytes(path).decode(encoding, errors)
    return text.replace("\r\n", "\n").replace("\r", "\n")


#: A zip's directory, its entries, each kind of compression and a tar's headers raise
#: these: most are the first exception that meets the damaged bytes.
DAMAGE = (
    *(zipfile.BadZipFile, zipfile.LargeZipFile, tarfile.TarError),
    *(zlib.error, lzma.LZMAError, struct.error, EOFError, OSError, RuntimeError),
    *(ValueError, KeyError, IndexError, TypeError, OverflowError, AttributeError),
)

#: Compressions of a zip that Python can undo, and what others are called.
METHODS = {
    *(zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED),
    *(zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA),
}
FOREIGN = {9: "deflate64", 93: "zstandard", 95: "xz", 97: "wavpack", 98: "PPMd"}


@contextmanager
def reading_archive(path: object, kind: str = "archive") -> Iterator[None]:
    """Raise DataError, in one line that names `path`, for whatever libraries raise.

    A path that is no plain file is refused before it is opened.
    """
    try:
        if isinstance(path, Path):
            check_regular(path)
        yield
    except CeAlignError:
        raise
    except DAMAGE as error:
        raise DataError(
            f"{path} is damaged or no {kind}: {reason(error)}; copy or make it again"
        ) from error


def reason(error: BaseException) -> str:
    """What a library says is wrong, in one line; some list all that they tried."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)[:LONGEST].rstrip(":") or type(error).__name__


def check_readable(entries: Iterable[zipfile.ZipInfo], path: object) -> None:
    """Raise DataError if entries of a zip are encrypted or compressed unreadably."""
    entries = list(entries)
    # Bit 0 of the flags of an entry.
    if encrypted := [entry.filename for entry in entries if entry.flag_bits & 1]:
        raise DataError(
            f"{path} is encrypted ({named_some(encrypted)}); make it without a password"
        )
    foreign = [entry for entry in entries if entry.compress_type not in METHODS]
    if foreign:
        kinds = {entry.compress_type for entry in foreign}
        methods = sorted(FOREIGN.get(kind, f"method {kind}") for kind in kinds)
        raise DataError(
            f"{path} is compressed by {', '.join(methods)}, which Python cannot read "
            f"({named_some([entry.filename for entry in foreign])}); make it with "
            "deflate or without compression"
        )


def _entry_points(**selection: str) -> Any:
    """Entry points as a mapping of groups, or those of one group if it is named."""
    if selection:
        return metadata.entry_points(**selection)
    group = "xarray.backends"
    return {group: metadata.entry_points(group=group)}


def import_xarray() -> ModuleType:
    """The package xarray; call this before reading or writing a file with it.

    The release that Brain-Score pins looks for file formats by an interface that
    Python 3.12 removed, and would find none there.
    """
    import xarray
    from xarray.backends import plugins

    plugins.entry_points = _entry_points
    package: ModuleType = xarray
    return package
