"""Weights of the published networks on this machine: brought, checked, converted.

A checkpoint of the authors is a pickle of which the backbone is a small part. It is
read once, without executing it, and its backbone kept as safetensors. That file is
hashed as a whole whenever it is used, which takes a tenth of a second: its time of
change would be cheaper to compare, but says nothing of damage or of a careful forger.

The authors publish no checksums. A file without a pin is therefore trusted when it is
first seen, and held to that ever after. For a network NAME, the folder ``checkpoints``
of the cache has ``NAME.safetensors``, ``NAME.json`` (what that file must be, and what
it is from), and ``NAME.pt`` where the authors' file was placed by hand or kept.
"""

import hashlib
import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError

from ce_align.errors import AccessError, CeAlignError, DataError
from ce_align.files import atomic_path, cache_folder, check_regular, read_text
from ce_align.models.catalogue import Published
from ce_align.models.checkpoints import convert
from ce_align.models.preprocessing import Preprocessing
from ce_align.progress import MEGABYTE, Progress, silent

__all__ = ["Checksum", "fetch", "file_checksum", "pin", "pinned", "read_record"]

#: Pins that the package brings along.
PACKAGED = Path(__file__).with_name("checksums.toml")
#: Bytes read at a time.
BLOCK = 1 << 20


class Checksum(BaseModel):
    """Size in bytes and SHA-256 of a file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: NonNegativeInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

    def __str__(self) -> str:
        return f"{self.size} bytes, SHA-256 {self.sha256}"


class Record(BaseModel):
    """What is known of the weights of a published network on this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: Checksum
    #: Of the checkpoint that they are from; None if they were placed by hand.
    source: Checksum | None = None
    #: Address or path of that checkpoint.
    origin: str = ""
    #: Size and time of change (ns) of a checkpoint that stands beside the weights.
    kept: tuple[int, int] | None = None
    #: When the weights were first seen.
    seen: str = Field(
        default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds")
    )


def file_checksum(path: Path, what: str = "", progress: Progress = silent) -> Checksum:
    """Size and SHA-256 of a file; `progress` is told its megabytes under `what`."""
    sha, done, size = hashlib.sha256(), 0, path.stat().st_size
    with check_regular(path).open("rb") as file:
        while block := file.read(BLOCK):
            sha.update(block)
            done += len(block)
            shown = (done // MEGABYTE, max(size, done) // MEGABYTE)
            progress(f"checking {what or path.name}, MB", *shown)
    return Checksum(size=done, sha256=sha.hexdigest())


def _check_same(found: Checksum, expected: Checksum, what: str, why: str) -> None:
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
    lines = read_text(path).splitlines(True) if path.exists() else []
    entries = sorted({**_read_pins(path), **checksums}.items())
    text = [line for line in lines if line.startswith("#")] + [
        f'\n["{name}"]\nsize = {entry.size}\nsha256 = "{entry.sha256}"\n'
        for name, entry in entries
    ]
    with atomic_path(path) as temporary:
        temporary.write_text("".join(text))
    return path


def _read_pins(path: Path) -> dict[str, Checksum]:
    if not path.is_file():
        return {}
    try:
        tables = tomllib.loads(read_text(path))
        return {name: Checksum.model_validate(pin) for name, pin in tables.items()}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as error:
        detail = " ".join(str(error).split())[:200]
        raise DataError(f"{path} is no list of checksums: {detail}") from None


def _record_path(name: str) -> Path:
    return cache_folder("checkpoints") / f"{name}.json"


def read_record(name: str) -> Record | None:
    """Record of a network's weights, or None.

    Raises
    ------
    DataError
        If the file is there but is no record.
    """
    path = _record_path(name)
    if not path.is_file():
        return None
    try:
        return Record.model_validate(json.loads(read_text(path)))
    except (ValueError, RecursionError):
        raise DataError(
            f"{path} is no record of a download; delete it to trust what is there now"
        ) from None


def write_record(name: str, record: Record) -> None:
    """Write the record of a network's weights."""
    with atomic_path(_record_path(name)) as temporary:
        temporary.write_text(json.dumps(record.model_dump(mode="json"), indent=1))


class _Place:
    """Files of one published network."""

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, cache_folder("checkpoints")
        self.weights = self.folder / f"{name}.safetensors"
        #: Converted weights that have no record yet.
        self.staged = self.folder / f".{name}.safetensors"
        #: The authors' file, placed by hand or kept.
        self.checkpoint = self.folder / f"{name}.pt"
        #: The authors' file, whole but not yet converted.
        self.arrived = self.folder / f".{name}.pt"

    def stamp(self) -> tuple[int, int] | None:
        """Size and time of change of the authors' file, if it is kept."""
        if not self.checkpoint.is_file():
            return None
        status = self.checkpoint.stat()
        return status.st_size, status.st_mtime_ns


def fetch(
    entry: Published,
    *,
    base: str | None = None,
    keep: bool = False,
    progress: Progress = silent,
) -> Path:
    """Weights of a published network, downloaded and converted if they are not here.

    Any number of processes may ask for the same network; one of them brings it.

    Parameters
    ----------
    base : address below which the checkpoints lie; None for the authors' or
        ``$CE_ALIGN_CHECKPOINTS_URL``
    keep : keep the authors' file, which is otherwise deleted after the conversion
    progress : told of megabytes

    Returns
    -------
    path : safetensors in torchvision's key layout, checked against its record

    Raises
    ------
    AccessError
        If the checkpoint is not there, refused or out of reach.
    DataError
        If it, or the weights on this machine, are not what they were or are pinned to
        be, or if it holds no such network or anything but tensors and plain data.
    CeAlignError
        If the disk is full.
    """
    place = _Place(entry.name)
    if not _is_ready(place, keep):
        with _alone(place, progress):
            if not _is_ready(place, keep):  # another process may have been faster
                _obtain(entry, place, base, keep, progress)
    _verify(place)
    return place.weights


def _is_ready(place: _Place, keep: bool) -> bool:
    if not place.weights.is_file():
        return False
    stamp, record = place.stamp(), read_record(place.name)
    if stamp is None:
        return not keep
    # Another checkpoint that was placed by hand must not be passed over.
    return record is None or record.kept == stamp


@contextmanager
def _alone(place: _Place, progress: Progress) -> Iterator[None]:
    """Keep other processes away, or wait for one that does."""
    lock = FileLock(place.folder / f".{place.name}.lock")
    part = place.folder / f".{place.name}.pt.part"
    try:
        place.folder.mkdir(parents=True, exist_ok=True)
        while not lock.is_locked:
            try:
                lock.acquire(timeout=1)
            except Timeout:
                with suppress(FileNotFoundError):  # it is being converted
                    done = part.stat().st_size // MEGABYTE
                    progress(f"{place.name} by another process, MB", done, done + 1)
    except OSError as error:
        raise CeAlignError(
            f"cannot write to {place.folder}: {error.strerror or error}; set "
            "CE_ALIGN_HOME to another folder"
        ) from error
    try:
        yield
    finally:
        lock.release()


def _obtain(
    entry: Published, place: _Place, base: str | None, keep: bool, progress: Progress
) -> None:
    """Convert the checkpoint that was placed by hand, or a downloaded one."""
    from ce_align.models.downloads import discard_stale

    discard_stale(place.folder, ".*.pt*")
    by_hand = place.checkpoint.is_file()
    source = place.checkpoint if by_hand else place.arrived
    origin = str(source) if by_hand else entry.address(base)
    # One that has arrived was left by an interruption of its conversion.
    if not source.is_file():
        _download(entry, place, origin, progress)
    try:
        checksum = file_checksum(source, entry.name, progress)
        _check_source(entry, checksum, origin)
        convert(source, place.staged, _provenance(entry, checksum))
        weights = file_checksum(place.staged)
        if keep and not by_hand:
            source.replace(place.checkpoint)
        record = Record(
            weights=weights, source=checksum, origin=origin, kept=place.stamp()
        )
        # First the record: weights without one would be trusted as they are.
        write_record(entry.name, record)
        place.staged.replace(place.weights)
        place.arrived.unlink(missing_ok=True)
    except DataError as error:
        place.arrived.unlink(missing_ok=True)
        told = str(error).replace(str(source), origin)
        raise DataError(f"{entry.name}: {told}") from None
    finally:
        place.staged.unlink(missing_ok=True)


def _download(entry: Published, place: _Place, url: str, progress: Progress) -> None:
    # It brings requests, which nothing needs that is here already.
    from ce_align.models.downloads import download

    pin = pinned(entry.name)
    size = pin[0].size if pin else None
    try:
        download(url, place.arrived, what=entry.name, size=size, progress=progress)
    except AccessError as error:
        raise AccessError(
            f"{entry.name} is not on this machine: {error}; put the file at "
            f"{place.checkpoint}, or name a mirror: ce-align fetch --url, or "
            "CE_ALIGN_CHECKPOINTS_URL"
        ) from None


def _check_source(entry: Published, found: Checksum, origin: str) -> None:
    pin, record = pinned(entry.name), read_record(entry.name)
    if pin is not None:
        _check_same(found, pin[0], origin, f"as pinned in {pin[1]}")
    elif record is not None and record.source is not None:
        _check_same(
            found,
            record.source,
            origin,
            f"as first seen {record.seen}; to accept the new file, delete "
            f"{_record_path(entry.name)}",
        )


def _provenance(entry: Published, source: Checksum) -> dict[str, Any]:
    """What the weights say of themselves; the same on every machine and day."""
    return {
        **Preprocessing().model_dump(mode="json"),
        "architecture": entry.architecture,
        "layers": dict(entry.layers),
        "name": entry.name,
        "objective": entry.objective,
        "equivariance_weight": entry.equivariance_weight,
        "epochs": entry.epochs,
        "source": entry.path,
        "source_size": source.size,
        "source_sha256": source.sha256,
    }


def _verify(place: _Place) -> None:
    """Hold the weights to their record, or make one if they were placed by hand."""
    found, record = file_checksum(place.weights), read_record(place.name)
    if record is None:
        record = Record(weights=found, origin=str(place.weights), kept=place.stamp())
        write_record(place.name, record)
        return
    _check_same(
        found,
        record.weights,
        str(place.weights),
        f"as since {record.seen}; delete it to fetch it again, or delete "
        f"{_record_path(place.name)} to trust it as it is",
    )
    pin = pinned(place.name)
    if pin is not None and record.source is not None:
        _check_same(record.source, pin[0], record.origin, f"as pinned in {pin[1]}")
