"""An index of folders of JSON files, so that only new and changed ones are read.

It is never the truth: what is damaged, of another version or missing is made again from
the files. It lies in the user's caches, as one file that is read and replaced whole:
SQLite's locks do not hold on network file systems, where homes often are, and so none
are needed. Of processes that replace it at once the last one wins, and the others'
additions are read again.

A file counts as unchanged as long as its size, times of modification and change, and
inode are what they were. These say nothing of a file that was changed less than a tick
of its file system ago (2 s at worst), so files enter the index once they are older than
`SETTLED`, and until then are read each time. Two things may still be stale. The clocks
of this machine and of a file server are taken to agree to `SETTLED` less a tick. And on
a network file system a file that another machine *replaces* is seen only when the
attributes that this one has cached expire, by default within a minute.
"""

import hashlib
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ce_align.digests import digest_bytes
from ce_align.errors import CeAlignError
from ce_align.files import atomic_path, cache_folder, check_regular

__all__ = ["Texts", "indexed"]

#: Seconds since its last change after which a file enters the index.
SETTLED = 10
#: So many files are read as they are: that takes milliseconds.
FEW = 64
#: First bytes of an index; the number is raised when its columns or texts change.
HEAD = b"ce_align index 2\n"
COLUMNS = """CREATE TABLE files (
    room BLOB, name BLOB, signature TEXT, settings TEXT, rest TEXT,
    PRIMARY KEY (room, name)
)"""

_log = logging.getLogger(__name__)


class Texts(NamedTuple):
    """What an index holds of a file, as JSON: settings, which plans need, and the rest.

    Neither refers to the other, so that each can be parsed alone.
    """

    settings: str
    rest: str


def indexed(
    root: Path, rooms: Iterable[str], read: Callable[[Path], Texts]
) -> list[Texts]:
    """Texts of all files ``<root>/<room>/*.json``, by room and name.

    Parameters
    ----------
    root : folder that holds the rooms
    rooms : folders below it; those that are not there are empty
    read : gives the texts of a file; whatever it raises, other than that the file has
        gone, is raised here
    """
    # Before the files are looked at: what changes from now on has not settled.
    latest = (time.time() - SETTLED) * 1e9
    rooms = list(dict.fromkeys(rooms))
    there = {key: stat for room in rooms for key, stat in _files(root, room).items()}
    if len(there) <= FEW:
        return [texts for texts in _read(root, there, read).values() if texts]
    place = cache_folder("index") / f"{digest_bytes(os.fsencode(root.resolve()))}.db"
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as index:
        _open(index, place)
        found: dict[_Key, Texts | None] = {}
        gone = []
        for room in rooms:
            query = "SELECT name, signature, settings, rest FROM files WHERE room = ?"
            for name, signature, *texts in index.execute(query, [os.fsencode(room)]):
                key = (room, os.fsdecode(name))
                if key in there and _signature(there[key]) == signature:
                    found[key] = Texts(*texts)
                else:
                    gone.append(_bytes(key))
        new = _read(root, there.keys() - found.keys(), read)
        kept = [
            (*_bytes(key), _signature(there[key]), *texts)
            for key, texts in new.items()
            if texts and max(there[key].st_mtime_ns, there[key].st_ctime_ns) < latest
        ]
        if gone or kept:
            index.execute("BEGIN")
            index.executemany("DELETE FROM files WHERE room = ? AND name = ?", gone)
            index.executemany("INSERT INTO files VALUES (?, ?, ?, ?, ?)", kept)
            index.execute("COMMIT")
            _save(index, place)
    found |= new
    return [texts for key in sorted(there) if (texts := found[key])]


#: Room and name of a file.
_Key = tuple[str, str]


def _files(root: Path, room: str) -> dict[_Key, os.stat_result]:
    """Files of a room; hidden ones are unfinished, or the operating system's."""
    found = {}
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(root / room) as it:
        for entry in it:
            if entry.name.endswith(".json") and not entry.name.startswith("."):
                with suppress(FileNotFoundError):  # removed meanwhile
                    found[room, entry.name] = _stat(entry)
    return found


def _stat(entry: "os.DirEntry[str]") -> os.stat_result:
    try:
        return entry.stat()
    except FileNotFoundError:
        raise
    except OSError:  # a link to itself: whoever reads it says so
        return entry.stat(follow_symlinks=False)


def _signature(stat: os.stat_result) -> str:
    return f"{stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns} {stat.st_ino}"


def _bytes(key: _Key) -> tuple[bytes, bytes]:
    # Names of files need not be text.
    return os.fsencode(key[0]), os.fsencode(key[1])


def _read(
    root: Path, keys: Iterable[_Key], read: Callable[[Path], Texts]
) -> dict[_Key, Texts | None]:
    """Texts of files, in order; None where a file has gone."""
    found: dict[_Key, Texts | None] = {}
    for room, name in sorted(keys):
        try:
            found[room, name] = read(root / room / name)
        except FileNotFoundError:
            found[room, name] = None
    return found


def _open(index: sqlite3.Connection, place: Path) -> None:
    """Fill a database in memory with what is kept of it, if that is sound."""
    try:
        content = check_regular(place).read_bytes()
    except (OSError, ValueError):
        content = b""
    digest, body = content[len(HEAD) : len(HEAD) + 64], content[len(HEAD) + 64 :]
    if content.startswith(HEAD) and digest == hashlib.blake2b(body).digest():
        index.deserialize(body)
    else:
        index.execute(COLUMNS)


def _save(index: sqlite3.Connection, place: Path) -> None:
    body = index.serialize()
    try:
        with atomic_path(place) as temporary:
            temporary.write_bytes(HEAD + hashlib.blake2b(body).digest() + body)
    except CeAlignError as error:
        _tell(str(error))


@cache
def _tell(why: str) -> None:
    """Say once that every file is read each time."""
    _log.warning("results are read without an index: %s", why)
