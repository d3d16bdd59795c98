"""What published files must be: pinned checksums, and records of what was first seen.

The authors publish no checksums. A file without a pin is therefore trusted when it is
first seen, and held to that ever after: beside the weights of a network stands a record
of the checkpoint that they are from and of the weights themselves.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from ce_align.errors import DataError
from ce_align.files import atomic_path, cache_folder
from ce_align.progress import Progress, silent

__all__ = [
    *("Checksum", "Record", "check_same", "file_checksum", "pin"),
    *("pinned", "read_record", "record_path", "write_record"),
]

#: Pins that the package brings along.
PACKAGED = Path(__file__).with_name("checksums.toml")
#: Bytes read at a time.
BLOCK = 1 << 20
MEGABYTE = 1_000_000


class Checksum(BaseModel):
    """Size in bytes and SHA-256 of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    def __str__(self) -> str:
        return f"{self.size} bytes, SHA-256 {self.sha256}"


class Record(BaseModel):
    """What is known of the weights of a published network on this machine.

    Attributes
    ----------
    weights : the safetensors file
    source : the checkpoint that it was converted from; None if it was placed by hand
    origin : address or path of that checkpoint
    kept : size and time of change (ns) of a checkpoint that stands beside the weights
    seen : UTC time when the weights were first seen, ISO 8601
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Checksum
    source: Checksum | None = None
    origin: str = ""
    kept: tuple[int, int] | None = None
    seen: str


def file_checksum(path: Path, what: str = "", progress: Progress = silent) -> Checksum:
    """Size and SHA-256 of a file, about half a gigabyte to one a second.

    Parameters
    ----------
    path : of the file
    what : its name for those who watch
    progress : told of megabytes
    """
    sha, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
            done += len(block)
            shown = (done // MEGABYTE, max(size, done) // MEGABYTE)
            progress(f"checking {what or path.name}, MB", *shown)
    return Checksum(size=done, sha256=sha.hexdigest())


def check_same(found: Checksum, expected: Checksum, what: str, why: str) -> None:
    """Raise DataError, which ends with `why`, unless a file is what it should be."""
    if found != expected:
        raise DataError(f"{what} has {found}; expected {expected}, {why}")


def _own_pins() -> Path:
    return cache_folder("checkpoints") / "checksums.toml"


def pinned(name: str) -> tuple[Checksum, Path] | None:
    """Checksum that a network's checkpoint must have, and the file that says so.

    Pins of the package come before one's own.

    Raises
    ------
    DataError
        If a file of pins cannot be understood.
    """
    for path in (PACKAGED, _own_pins()):
        pins = _read_pins(path)
        if name in pins:
            return pins[name], path
    return None


def pin(checksums: Mapping[str, Checksum]) -> Path:
    """Pin checksums by name of network, beside those that are pinned.

    They go to the package's file in a checkout of the source, and to the cache folder
    where the package is installed, which is never written to.

    Returns
    -------
    path : file that now has them
    """
    installed = {"site-packages", "dist-packages"} & set(PACKAGED.parts)
    writable = not installed and os.access(PACKAGED, os.W_OK)
    path = PACKAGED if writable else _own_pins()
    header = "".join(
        line
        for line in (path.read_text() if path.exists() else "").splitlines(True)
        if line.startswith("#")
    )
    entries = {**_read_pins(path), **checksums}
    with atomic_path(path) as temporary:
        temporary.write_text(
            header
            + "".join(
                f'\n["{name}"]\nsize = {entry.size}\nsha256 = "{entry.sha256}"\n'
                for name, entry in sorted(entries.items())
            )
        )
    return path


def _read_pins(path: Path) -> dict[str, Checksum]:
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(path.read_text())
        return {name: Checksum.model_validate(pin) for name, pin in tables.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no list of checksums: {detail}") from None


def record_path(name: str) -> Path:
    """File with the record of a network's weights."""
    return cache_folder("checkpoints") / f"{name}.json"


def read_record(name: str) -> Record | None:
    """Record of a network's weights, or None.

    Raises
    ------
    DataError
        If the file is there but is no record.
    """
    path = record_path(name)
    if not path.is_file():
        return None
    try:
        return Record.model_validate(json.loads(path.read_text()))
    except (ValueError, RecursionError):
        raise DataError(
            f"{path} is no record of a download; delete it to trust what is there now"
        ) from None


def write_record(name: str, record: Record) -> Path:
    """Write the record of a network's weights."""
    path = record_path(name)
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(record.model_dump(mode="json"), indent=1))
    return path
