"""Our own netCDF files, damaged or made elsewhere."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import netCDF4
import numpy as np

from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.data.simulation import simulated_recording

from .harness import Case, Outcome

SCORE = (
    *("score", "--model", "pixels", "--recording", "bad.nc", "--regression", "ridge"),
    *("--splits", "2", "--stratify", "none", "--json"),
)
#: Values of an attribute.
ODD = (
    *("", "abc", "\x1b[31m[/bold]", "x" * 10**5, "[" * 10**4, "null", '{"a": 1}'),
    *(0, 0.01, 1e-300, -1.0, np.nan, np.inf, 1e308, 2**63 - 1),
    *(np.array([8.0, 8.0]), np.arange(2000.0), np.zeros(0)),
)
#: Texts that a file of ours has where numbers, names or nothing are expected.
TEXT = np.array("[/bold]\x1b[2J", dtype=object)


@cache
def _recording(kind: str) -> Recording:
    made = simulated_recording(
        n_images=24, n_neuroids=3, n_repetitions=2, image_size=32
    )
    held = made.recording
    ragged = held.presentations() if kind == "ragged" else held.responses
    neuroids = {"animal": np.array(["a", "b", "b"])} if kind == "ragged" else {}
    return replace(held, identifier="toy", responses=ragged, neuroids=neuroids)


@cache
def _content(kind: str) -> bytes:
    """Bytes of a sound file."""
    with TemporaryDirectory() as folder:
        write_recording(_recording(kind), Path(folder) / "sound.nc")
        return (Path(folder) / "sound.nc").read_bytes()


@dataclass
class _File:
    """Attributes and variables (dimensions, values, attributes) to be changed."""

    attributes: dict[str, Any]
    variables: dict[str, tuple[tuple[str, ...], Any, dict[str, Any]]]

    @classmethod
    def read(cls, path: Path) -> "_File":
        with netCDF4.Dataset(path) as file:
            file.set_auto_mask(False)
            found = {
                name: (held.dimensions, held[...], dict(held.__dict__))
                for name, held in file.variables.items()
            }
            return cls(dict(file.__dict__), found)

    def write(self, path: Path) -> None:
        with netCDF4.Dataset(path, "w") as file:
            file.setncatts(self.attributes)
            for place, (name, held) in enumerate(self.variables.items()):
                _, values, known = held
                values = np.asarray(values)
                axes = [f"axis_{place}_{k}" for k in range(values.ndim)]
                for axis, size in zip(axes, values.shape, strict=True):
                    file.createDimension(axis, size)
                kind = str if values.dtype.kind in "OU" else values.dtype
                new = file.createVariable(name, kind, axes)
                new.setncatts({k: v for k, v in known.items() if k != "_FillValue"})
                new[...] = values.astype(object) if kind is str else values


#: What happens to a variable's values.
CHANGES: dict[str, Callable[[Any], Any]] = {
    "as floats": lambda v: np.zeros(v.shape) + 0.5,
    "NaN": lambda v: np.full(v.shape, np.nan),
    "infinite": lambda v: np.full(v.shape, np.inf),
    "1e300": lambda v: np.full(v.shape, 1e300),
    "negative": lambda v: np.full(v.shape, -5, np.int64),
    "largest": lambda v: np.full(v.shape, 2**63 - 1, np.int64),
    "billions": lambda v: np.full(v.shape, 4 * 10**9, np.int64),
    "text": lambda v: np.full(v.shape, TEXT, dtype=object),
    "long text": lambda v: np.full(v.shape, "y" * 5000, dtype=object),
    "shorter": lambda v: v[:-1],
    "longer": lambda v: np.concatenate([v, v]),
    "empty": lambda v: v[:0],
    "scalar": lambda v: np.asarray(v).reshape(-1)[0],
    "one axis more": lambda v: v[..., None],
    "bytes": lambda v: np.zeros(v.shape, np.int8),
}


def _changed(kind: str, change: Callable[[_File], None], folder: Path) -> None:
    path = folder / "bad.nc"
    path.write_bytes(_content(kind))
    file = _File.read(path)
    change(file)
    path.unlink()
    file.write(path)


def _drop(name: str, file: _File) -> None:
    file.attributes.pop(name, None)


def _state(name: str, value: Any, file: _File) -> None:
    file.attributes[name] = value


def _drop_variable(name: str, file: _File) -> None:
    file.variables.pop(name)


def _rename(name: str, file: _File) -> None:
    file.variables[f"{name} [b]"] = file.variables.pop(name)


def _change(name: str, change: Callable[[Any], Any], file: _File) -> None:
    axes, values, known = file.variables[name]
    file.variables[name] = (axes, change(values), known)


def _made(changes: dict[str, Any], folder: Path) -> None:
    """A file whose digest is right, written by whoever calls the writer."""
    write_recording(replace(_recording("flat"), **changes), folder / "bad.nc")


def _bytes(kind: str, damage: Callable[[bytearray], bytearray], folder: Path) -> None:
    content = bytearray(_content(kind))
    (folder / "bad.nc").write_bytes(damage(content))


def _flipped(
    places: Sequence[float], bits: Sequence[int], data: bytearray
) -> bytearray:
    for place, bit in zip(places, bits, strict=True):
        data[int(place * len(data))] ^= 1 << bit
    return data


def _cut(share: float, data: bytearray) -> bytearray:
    return data[: int(share * len(data))]


def _filled(start: float, n: int, value: int, data: bytearray) -> bytearray:
    first = int(start * len(data))
    data[first : first + n] = bytes([value]) * len(data[first : first + n])
    return data


def _link(target: str, folder: Path) -> None:
    (folder / "bad.nc").symlink_to(target)


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "bad.nc")


def _folder(folder: Path) -> None:
    (folder / "bad.nc").mkdir()


def _plain(content: bytes, folder: Path) -> None:
    (folder / "bad.nc").write_bytes(content)


#: Scores of the sound file, which is the first that is tried.
_sound: list[float] = []


def _told(outcome: Outcome) -> str | None:
    """A refusal names the file; a number is that of the sound file."""
    if outcome.status:
        named = "bad.nc" in outcome.err
        return None if named else f"the file is not named: {outcome.err[:300]}"
    value = json.loads(outcome.out)[0]["value"]  # others are of one animal
    _sound.append(value)
    return None if value == _sound[0] else f"{value} and not {_sound[0]}"


def _named(outcome: Outcome) -> str | None:
    """A refusal names the file; a number may be another one, of other degrees.

    A region for which the network commits no layer is no fault of the file.
    """
    unknown = "commits no layer to region" in outcome.err
    return _told(outcome) if outcome.status and not unknown else None


def _listed(outcome: Outcome) -> str | None:
    if outcome.status != 0:
        return f"a file beside it stops the list: {outcome.err[:300]}"
    return None if "good.nc" in outcome.out else "the other recording is not listed"


def _scored(write: Callable[[Path], None], folder: Path) -> Sequence[str]:
    write(folder)
    return SCORE


def _beside(write: Callable[[Path], None], folder: Path) -> Sequence[str]:
    (folder / "good.nc").write_bytes(_content("flat"))
    write(folder)
    return ("recordings",)


def _inputs(rng: np.random.Generator) -> Iterator[tuple[str, Callable[[Path], None]]]:
    attributes = (
        *("format", "identifier", "region", "degrees", "stratify", "origin", "digest"),
        *("images", "notes", "distinct_images", "window", "licence", "citation"),
    )
    for name in attributes:
        yield f"without {name}", partial(_changed, "flat", partial(_drop, name))
        for place, value in enumerate(ODD):
            change = partial(_state, name, value)
            yield f"{name} {place}", partial(_changed, "flat", change)
    kinds = {
        "flat": (
            *("responses", "stimulus_id", "neuroid_id", "image_size", "image_bytes"),
            *("column_object_name", "column_x"),
        ),
        "ragged": (
            *("presentations", "shown", "repetition", "neuroid_column_animal"),
            *("image_size",),
        ),
    }
    for kind, names in kinds.items():
        for name in names:
            yield f"no {name}", partial(_changed, kind, partial(_drop_variable, name))
            yield f"renamed {name}", partial(_changed, kind, partial(_rename, name))
            for what, change in CHANGES.items():
                changed = partial(_change, name, change)
                yield f"{name} {what}", partial(_changed, kind, changed)
        for share in range(10):
            yield f"cut {share}/10", partial(_bytes, kind, partial(_cut, share / 10))
        for k in range(60):
            n = int(rng.choice([1, 1, 1, 4, 64]))
            places, bits = rng.random(n).tolist(), rng.integers(8, size=n).tolist()
            # Most of the structure of HDF5 lies at its begin.
            places = [p**3 for p in places] if k % 2 else places
            yield f"flip {k}", partial(_bytes, kind, partial(_flipped, places, bits))
        for k in range(20):
            n, value = int(rng.integers(1, 4096)), int(rng.choice([0, 255]))
            filled = partial(_filled, float(rng.random()) ** 3, n, value)
            yield f"filled {k}", partial(_bytes, kind, filled)
    for degrees in (1e-12, 1e-6, 0.01, 0.1, 0.5, 180.0):
        yield f"made with {degrees}", partial(_made, {"degrees": degrees})
    for what in ("[/bold]", "a" * 3000, "\x1b[2J", "../../x", "é"):
        yield (
            f"made as {what[:9]}",
            partial(_made, {"identifier": what, "region": what}),
        )
    for target in ("/dev/zero", "/dev/full", "/proc/self/mem", "/proc/self/status"):
        yield f"link to {target}", partial(_link, target)
    yield "a link to itself", partial(_link, "bad.nc")
    yield "a link to nothing", partial(_link, "nothing.nc")
    yield "a FIFO", _fifo
    yield "a folder", _folder
    for what, content in {
        "nothing": b"",
        "text": b"stimulus_id,value\n",
        "zip": b"PK\x03\x04" + bytes(100),
        "HDF5 head": b"\x89HDF\r\n\x1a\n" + bytes(40),
        "netCDF 3": b"CDF\x01" + b"\xff" * 60,
    }.items():
        yield f"content {what}", partial(_plain, content)


def cases(rng: np.random.Generator) -> Iterator[Case]:
    """Recordings to be scored, every fifth also one beside a sound one in a list."""
    sound = partial(_bytes, "flat", partial(_cut, 1.0))
    yield Case("recordings/sound", partial(_scored, sound), _told, (0,))
    for place, (name, write) in enumerate(_inputs(rng)):
        check = _named if name.startswith("made") else _told
        yield Case(f"recordings/{name}", partial(_scored, write), check)
        if place % 5 == 0 or name.startswith(("a ", "link", "content")):
            made = partial(_beside, write)
            yield Case(f"recordings/listed, {name}", made, _listed, (0,))
