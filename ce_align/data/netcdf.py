"""Recordings as netCDF files that carry their images."""

import json
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, Json, ValidationError

from ce_align.arrays import seal, seal_holds
from ce_align.data.imagefiles import FileSource, MemorySource, ZipSource
from ce_align.data.imagesets import ImageSet
from ce_align.data.joining import equal_pixels, join_equal_images
from ce_align.data.named import Entry
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import MAX_DEGREES, Origin, Recording, canonical_region
from ce_align.errors import DataError, explained
from ce_align.files import DAMAGE, atomic_path, check_regular, import_xarray, reason

if TYPE_CHECKING:
    import netCDF4

__all__ = ["describe_file", "describe_files", "read_recording", "write_recording"]

#: A recording with only what the first format has is written in it.
FORMAT, FURTHER = "ce_align recording 1", "ce_align recording 2"
#: Bytes of image files that are kept inside where nothing else is said (256 MiB).
INSIDE = 2**28
#: Columns of other names are numbered; "/" and blanks mean something to netCDF.
PLAIN = re.compile(r"[A-Za-z0-9_]+", re.ASCII)


#: Bytes of all variables that are read, uncompressed (64 GiB).
MOST = 2**36


class _Stated(BaseModel):
    """Attributes of a recording's file; others may stand beside them."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)

    identifier: Annotated[str, Field(max_length=255)]
    region: Annotated[str, Field(max_length=255)]
    degrees: Annotated[float, Field(gt=0, le=MAX_DEGREES)]
    stratify: Annotated[str, Field(max_length=255)]
    origin: Origin
    digest: Annotated[str, Field(max_length=255)]
    images: Literal["inside", "beside"]
    notes: Json[tuple[str, ...]] = ()
    distinct_images: Literal[0, 1] = 0
    window: Annotated[list[float], Field(max_length=2)] = []
    licence: str = ""
    citation: str = ""


def write_recording(
    recording: Recording,
    path: Path,
    *,
    images: Literal["inside", "beside"] | None = "inside",
) -> None:
    """Write a recording and its images, so that the file can be moved.

    Images are ``inside`` the netCDF file, or ``beside`` it in ``NAME.images.zip``, to
    be moved with it; None keeps those inside that fit into memory.
    """
    xr = import_xarray()
    held = recording.images
    encoded: list[bytes] = []
    if images != "beside":
        encoded, fit = _encoded(held, INSIDE if images is None else None)
        images = "inside" if fit else "beside"
    variables: dict[str, Any] = {
        **_responses_of(recording),
        "stimulus_id": ("stimulus", np.array(recording.images.ids, dtype=object)),
        "neuroid_id": ("neuroid", np.array(recording.neuroid_ids, dtype=object)),
    }
    variables |= _columns(recording.images.columns, "column", "stimulus")
    variables |= _columns(recording.neuroids, "neuroid_column", "neuroid")
    first = equal_pixels(recording.images)
    further = {
        "window": list(recording.window or ()),
        "licence": recording.licence,
        "citation": recording.citation,
    }
    there = {name: value for name, value in further.items() if value}
    new = bool(there) or not variables.keys().isdisjoint({"split", "presentations"})
    attributes = {
        **there,
        "format": FURTHER if new or recording.neuroids else FORMAT,
        "identifier": recording.identifier,
        "region": recording.region,
        "degrees": recording.degrees,
        "stratify": recording.stratify or "",
        "origin": recording.origin,
        "digest": recording.digest,
        "images": images,
        "notes": json.dumps(recording.notes),
        "distinct_images": int((first == np.arange(len(first))).all()),
    }
    if images == "inside":
        sizes = np.array([len(data) for data in encoded], dtype=np.int64)
        variables["image_size"] = ("stimulus", sizes)
        joined = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        variables["image_bytes"] = ("byte", joined)
    else:
        with (
            atomic_path(_images_beside(path)) as temporary,
            zipfile.ZipFile(temporary, "w") as archive,
        ):
            for i in range(len(held)):
                archive.writestr(f"{i:06d}.img", held.encoded(i))
    compressed = {
        name: {"zlib": True, "complevel": 1}
        for name in ("responses", "presentations", "image_bytes")
        if name in variables
    }
    with atomic_path(path) as temporary:
        xr.Dataset(variables, attrs=attributes).to_netcdf(
            temporary, engine="netcdf4", encoding=compressed
        )
        seal(temporary)


def _encoded(images: ImageSet, most: int | None) -> tuple[list[bytes], bool]:
    """Image files, and whether they are at most so many bytes; none if they are not."""
    found, n_bytes = [], 0
    for i in range(len(images)):
        found.append(images.encoded(i))
        n_bytes += len(found[-1])
        if most is not None and n_bytes > most:
            return [], False
    return found, True


def _responses_of(recording: Recording) -> dict[str, Any]:
    """Variables of the responses: a rectangle, or a row a presentation."""
    held = recording.responses
    found: dict[str, Any] = {}
    if recording.split is not None:
        found["split"] = ("stimulus", recording.split.astype(object))
    if recording.time_bins is not None:
        found["time_bins"] = (("time_bin", "edge"), recording.time_bins)
    if not isinstance(held, Presentations):
        return found | {"responses": (("stimulus", "repetition", "neuroid"), held)}
    held = held.in_order()
    axes = ("presentation", "neuroid", "time_bin")[: held.values.ndim]
    return found | {
        "presentations": (axes, held.values),
        "shown": ("presentation", held.stimulus.astype(np.int64)),
        "repetition": ("presentation", held.repetition.astype(np.int64)),
    }


def _columns(
    columns: Mapping[str, NDArray[Any]], kind: str, axis: str
) -> dict[str, Any]:
    found = {}
    for i, (name, values) in enumerate(columns.items()):
        values = np.asarray(values)
        kept = values if values.dtype.kind in "iufb" else values.astype(str)
        kept = kept if kept.dtype.kind != "U" else kept.astype(object)
        safe = name if PLAIN.fullmatch(name) else f"{i}th"
        found[f"{kind}_{safe}"] = (axis, kept, {"name": name})
    return found


def read_recording(path: Path) -> Recording:
    """Recording written by `write_recording`.

    Rows that show equal images are joined into repetitions. Raises DataError if the
    file is not a recording, its images are not there, or its content is not what was
    written.
    """
    if not path.exists():
        raise DataError(f"no recording at {path}; write one with `ce-align import`")
    if seal_holds(path) is False:  # its digest does not cover all, such as notes
        raise DataError(
            f"{path} is damaged: its checksum is another than when it was written; "
            "copy or import it again"
        )
    try:
        dataset = _read(path)
    except DAMAGE as error:
        raise DataError(
            f"{path} is not a netCDF file, or damaged: {reason(error)}"
        ) from error
    attributes = dataset.attributes
    if not _is_ours(attributes, path):
        raise DataError(
            f"{path} is not a recording of ce_align (format "
            f"{attributes.get('format')!r}); make one with `ce-align import`"
        )
    try:
        stated = _stated(attributes)
        recording = _recording(dataset, stated, path)
    except (
        *(KeyError, TypeError, ValueError, IndexError, OverflowError, MemoryError),
    ) as error:
        raise DataError(
            f"{path} is no whole recording: {_fault(error)}; import it again"
        ) from error
    if recording.digest != stated.digest:
        raise DataError(
            f"{path} was changed after it was written (digest {recording.digest}, "
            f"written {stated.digest}); import it again"
        )
    if "region" not in recording.neuroids:
        recording = replace(recording, region=canonical_region(recording.region))
    if stated.distinct_images:
        return recording
    return join_equal_images(recording, equal_pixels(recording.images))


@dataclass(frozen=True)
class _Dataset:
    """What a netCDF file holds: attributes, its arrays and theirs, by name.

    It is read without xarray, whose import takes longer than reading the file.
    """

    attributes: dict[str, Any]
    arrays: dict[str, NDArray[Any]]
    of_arrays: dict[str, dict[str, Any]]


def _read(path: Path) -> _Dataset:
    with _opened(path) as opened:
        held = [v for v in opened.variables.values() if v.dtype is not str]
        n_bytes = sum(v.size * np.dtype(v.dtype).itemsize for v in held)
        if n_bytes > MOST:
            raise ValueError(f"its variables would take {n_bytes >> 30} GiB")
        arrays, of_arrays = {}, {}
        for name, variable in opened.variables.items():
            known = of_arrays[name] = variable.__dict__
            # NetCDF has no type of its own for what is true or false.
            as_bool = known.get("dtype") == "bool"
            arrays[name] = variable[...].astype(bool) if as_bool else variable[...]
        return _Dataset(opened.__dict__, arrays, of_arrays)


def _opened(path: Path) -> "netCDF4.Dataset":
    import netCDF4

    opened = netCDF4.Dataset(check_regular(path))
    # Values as they are written, not masked where they are those of a fill.
    opened.set_auto_mask(False)
    return opened


def _is_ours(attributes: Mapping[str, Any], path: Path) -> bool:
    """Whether a file is a recording; DataError if it is one of a later version."""
    stated = str(attributes.get("format"))
    if stated in (FORMAT, FURTHER):
        return True
    if stated.startswith(FORMAT.rstrip("1")):
        raise DataError(
            f"{path} is of a later version (format {stated[:80]!r}); update ce_align, "
            "or import it again"
        )
    return False


def _stated(attributes: Mapping[str, Any]) -> _Stated:
    """Attributes as the schema has them; netCDF writes a list of one as its value."""
    plain = {
        k: v.tolist() if hasattr(v, "tolist") else v for k, v in attributes.items()
    }
    return _Stated.model_validate(plain)


def _recording(dataset: _Dataset, stated: _Stated, path: Path) -> Recording:
    arrays = dataset.arrays
    for name in ("image_size", "shown", "repetition"):
        if name in arrays and arrays[name].dtype.kind not in "iu":
            raise ValueError(f"{name} must be whole numbers, not {arrays[name].dtype}")
    responses: NDArray[np.float64] | Presentations
    if "presentations" in arrays:
        responses = Presentations(
            arrays["presentations"],
            arrays["shown"].astype(np.intp),
            arrays["repetition"].astype(np.intp),
        )
    else:
        responses = arrays["responses"].astype(np.float64)
    return Recording(
        identifier=stated.identifier,
        images=_read_images(dataset, stated, path),
        responses=responses,
        neuroid_ids=tuple(map(str, arrays["neuroid_id"])),
        region=stated.region,
        degrees=stated.degrees,
        stratify=stated.stratify or None,
        origin=stated.origin,
        notes=stated.notes,
        neuroids=_read_columns(dataset, "neuroid_column_"),
        split=arrays["split"].astype(str) if "split" in arrays else None,
        window=(stated.window[0], stated.window[1]) if stated.window else None,
        time_bins=arrays.get("time_bins"),
        licence=stated.licence,
        citation=stated.citation,
    )


def _fault(error: Exception) -> str:
    """What is missing or wrong, in words."""
    if isinstance(error, ValidationError):
        return str(explained(error))
    if isinstance(error, KeyError):
        return f"it lacks {error.args[0]!r}"
    return str(error) or type(error).__name__


def describe_file(path: Path) -> Entry | None:
    """A recording in a netCDF file, without reading its data; None if there is none."""
    try:
        return _described(path)
    except DAMAGE:
        return None


def describe_files(folder: Path) -> list[Entry]:
    """Recordings among the netCDF files of a folder, without reading their data.

    Those that cannot be read are among them; another program's files are not.
    """
    found = []
    for path in sorted(folder.glob("*.nc")):
        try:
            entry = _described(path)
        except DAMAGE as error:
            why = _fault(error) if isinstance(error, ValidationError) else reason(error)
            access = f"damaged: {why}; copy or import it again"
            if isinstance(error, DataError):  # such as one of a later version
                access = f"unreadable: {error}"
            load = partial(read_recording, path)
            entry = Entry(str(path), region="", load=load, access=access, origin="")
        found.append(entry)
    return [entry for entry in found if entry is not None]


def _described(path: Path) -> Entry | None:
    """As `describe_file`; raises one of DAMAGE if the file cannot be read."""
    with _opened(path) as opened:
        attributes, sizes = opened.__dict__, opened.dimensions
        if not _is_ours(attributes, path):
            return None
        stated = _stated(attributes)
        ragged = "presentations" in opened.variables
        return Entry(
            name=str(path),
            region=canonical_region(stated.region),
            load=partial(read_recording, path),
            images=sizes["stimulus"].size,
            neuroids=sizes["neuroid"].size,
            repetitions=int(opened["repetition"][...].max()) + 1
            if ragged
            else sizes["repetition"].size,
            access=f"{stated.origin}: this folder",
            origin=stated.origin,
        )


def _images_beside(path: Path) -> Path:
    return path.with_suffix(".images.zip")


def _read_images(dataset: _Dataset, stated: _Stated, path: Path) -> ImageSet:
    arrays = dataset.arrays
    ids = tuple(map(str, arrays["stimulus_id"]))
    names = [f"{i:06d}.img" for i in range(len(ids))]
    source: FileSource
    if stated.images == "inside":
        ends = np.cumsum(arrays["image_size"])
        joined = arrays["image_bytes"].tobytes()
        starts = [0, *ends[:-1]]
        source = MemorySource(
            {n: joined[a:b] for n, a, b in zip(names, starts, ends, strict=True)}
        )
    else:
        beside = _images_beside(path)
        if not beside.exists():
            raise DataError(f"the images of {path.name} should be beside it: {beside}")
        source = ZipSource(beside)
    columns = _read_columns(dataset, "column_")
    return ImageSet.from_encoded(stated.identifier, ids, source, names, columns)


def _read_columns(dataset: _Dataset, prefix: str) -> dict[str, NDArray[Any]]:
    columns: dict[str, NDArray[Any]] = {}
    for name, values in dataset.arrays.items():
        if name.startswith(prefix):
            stated = dataset.of_arrays[name].get("name", name.removeprefix(prefix))
            as_text = values.dtype.kind == "O"
            columns[str(stated)] = values.astype(str) if as_text else values
    return columns
