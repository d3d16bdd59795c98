"""Recordings as netCDF files that carry their images."""

import json
import re
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ce_align.data.imagefiles import FileSource, MemorySource, ZipSource
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import (
    Entry,
    Recording,
    canonical_region,
    equal_pixels,
    join_equal_images,
)
from ce_align.errors import DataError
from ce_align.files import DAMAGE, atomic_path, import_xarray, reason

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["describe_file", "describe_files", "read_recording", "write_recording"]

FORMAT = "ce_align recording 1"
#: Columns of other names are numbered; "/" and blanks mean something to netCDF.
PLAIN = re.compile(r"[A-Za-z0-9_]+", re.ASCII)


def write_recording(
    recording: Recording, path: Path, *, images: Literal["inside", "beside"] = "inside"
) -> None:
    """Write a recording and its images, so that the file can be moved.

    Images are ``inside`` the netCDF file, or ``beside`` it in ``NAME.images.zip``, to
    be moved with it.
    """
    xr = import_xarray()
    files = {
        f"{i:06d}": recording.images.encoded(i) for i in range(len(recording.images))
    }
    variables: dict[str, Any] = {
        "responses": (("stimulus", "repetition", "neuroid"), recording.responses),
        "stimulus_id": ("stimulus", np.array(recording.images.ids, dtype=object)),
        "neuroid_id": ("neuroid", np.array(recording.neuroid_ids, dtype=object)),
    }
    for i, (name, values) in enumerate(recording.images.columns.items()):
        kept = values if values.dtype.kind in "iufb" else values.astype(str)
        kept = kept if kept.dtype.kind != "U" else kept.astype(object)
        safe = name if PLAIN.fullmatch(name) else f"{i}th"
        variables[f"column_{safe}"] = ("stimulus", kept, {"name": name})
    first = equal_pixels(recording.images)
    attributes = {
        "format": FORMAT,
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
        sizes = np.array([len(data) for data in files.values()], dtype=np.int64)
        variables["image_size"] = ("stimulus", sizes)
        joined = np.frombuffer(b"".join(files.values()), dtype=np.uint8)
        variables["image_bytes"] = ("byte", joined)
    else:
        with (
            atomic_path(_images_beside(path)) as temporary,
            zipfile.ZipFile(temporary, "w") as archive,
        ):
            for name, data in files.items():
                archive.writestr(f"{name}.img", data)
    compressed = {
        name: {"zlib": True, "complevel": 1}
        for name in ("responses", "image_bytes")
        if name in variables
    }
    with atomic_path(path) as temporary:
        xr.Dataset(variables, attrs=attributes).to_netcdf(
            temporary, engine="netcdf4", encoding=compressed
        )


def read_recording(path: Path) -> Recording:
    """Recording written by `write_recording`.

    Rows that show equal images are joined into repetitions. Raises DataError if the
    file is not a recording, its images are not there, or its content is not what was
    written.
    """
    xr = import_xarray()
    if not path.exists():
        raise DataError(f"no recording at {path}; write one with `ce-align import`")
    try:
        with xr.open_dataset(path, engine="netcdf4") as opened:
            dataset = opened.load()
    except DAMAGE as error:
        raise DataError(
            f"{path} is not a netCDF file, or damaged: {reason(error)}"
        ) from error
    if dataset.attrs.get("format") != FORMAT:
        raise DataError(
            f"{path} is not a recording of ce_align (format "
            f"{dataset.attrs.get('format')!r}); make one with `ce-align import`"
        )
    attributes = dataset.attrs
    recording = Recording(
        identifier=str(attributes["identifier"]),
        images=_read_images(dataset, path),
        responses=dataset["responses"].values.astype(np.float64),
        neuroid_ids=tuple(map(str, dataset["neuroid_id"].values)),
        region=str(attributes["region"]),
        degrees=float(attributes["degrees"]),
        stratify=str(attributes["stratify"]) or None,
        origin=str(attributes["origin"]),
        notes=tuple(json.loads(attributes.get("notes", "[]"))),
    )
    if recording.digest != attributes["digest"]:
        raise DataError(
            f"{path} was changed after it was written (digest {recording.digest}, "
            f"written {attributes['digest']}); import it again"
        )
    recording = replace(recording, region=canonical_region(recording.region))
    if attributes.get("distinct_images"):
        return recording
    return join_equal_images(recording, equal_pixels(recording.images))


def describe_file(path: Path) -> Entry | None:
    """A recording in a netCDF file, without reading its data; None if there is none."""
    xr = import_xarray()
    try:
        with xr.open_dataset(path, engine="netcdf4") as dataset:
            if dataset.attrs.get("format") != FORMAT:
                return None
            return Entry(
                name=str(path),
                region=canonical_region(str(dataset.attrs["region"])),
                load=partial(read_recording, path),
                images=dataset.sizes["stimulus"],
                neuroids=dataset.sizes["neuroid"],
                repetitions=dataset.sizes["repetition"],
                access=f"{dataset.attrs['origin']}: this folder",
                origin=str(dataset.attrs["origin"]),
            )
    except DAMAGE:
        return None  # another program's file


def describe_files(folder: Path) -> list[Entry]:
    """Recordings among the netCDF files of a folder, without reading their data."""
    found = map(describe_file, sorted(folder.glob("*.nc")))
    return [entry for entry in found if entry is not None]


def _images_beside(path: Path) -> Path:
    return path.with_suffix(".images.zip")


def _read_images(dataset: "xr.Dataset", path: Path) -> ImageSet:
    ids = tuple(map(str, dataset["stimulus_id"].values))
    names = [f"{i:06d}.img" for i in range(len(ids))]
    source: FileSource
    if dataset.attrs["images"] == "inside":
        ends = np.cumsum(dataset["image_size"].values)
        joined = dataset["image_bytes"].values.tobytes()
        starts = [0, *ends[:-1]]
        source = MemorySource(
            {n: joined[a:b] for n, a, b in zip(names, starts, ends, strict=True)}
        )
    else:
        beside = _images_beside(path)
        if not beside.exists():
            raise DataError(f"the images of {path.name} should be beside it: {beside}")
        source = ZipSource(beside)
    columns: dict[str, NDArray[Any]] = {}
    for name in dataset.data_vars:
        if str(name).startswith("column_"):
            values = dataset[name].values
            values = values.astype(str) if values.dtype.kind == "O" else values
            stated = dataset[name].attrs.get("name", str(name).removeprefix("column_"))
            columns[str(stated)] = values
    return ImageSet.from_encoded(
        str(dataset.attrs["identifier"]), ids, source, names, columns
    )
