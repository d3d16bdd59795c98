"""Brain-Score's files: an assembly (netCDF), its stimuli (csv) and images (zip)."""

import hashlib
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagefiles import find_names, open_source
from ce_align.data.imagesets import ImageSet
from ce_align.data.importers.common import Importer, Request, counted, finished
from ce_align.data.importers.listing import Table, read_table
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.files import check_regular, import_xarray, reading_archive

__all__ = ["BRAINIO", "STATED_SHA1"]

#: SHA-1 that Brain-Score states of its files, by their names; its bridge fills this.
STATED_SHA1: dict[str, str] = {}
#: Folders of Brain-Score's cache are named by the SHA-1 of the file inside.
SHA1 = re.compile(r"[0-9a-f]{40}")
#: Coordinates that mean something else than a column.
PLACES = {"stimulus_id", "repetition", "neuroid_id", "presentation", "neuroid"}


def _check_sha1(path: Path) -> None:
    """Raise DataError unless a file has the SHA-1 that its folder or its name state."""
    folder = path.parent.name
    stated = folder if SHA1.fullmatch(folder) else STATED_SHA1.get(path.name)
    if stated is None:
        return
    with check_regular(path).open("rb") as file:
        found = hashlib.file_digest(file, "sha1").hexdigest()
    if found != stated:
        raise DataError(
            f"{path} has the SHA-1 {found}, but {stated} is stated for it; copy it "
            "again, or rename it if it is another file"
        )


def _assembly(path: Path) -> Path:
    """The netCDF file of a path."""
    if not path.is_dir():
        return path
    found = sorted(path.rglob("assy_*.nc"))
    if len(found) != 1:
        raise DataError(
            f"{path} must hold one assy_*.nc, found {named_some(found) or 'none'}; "
            "name the file"
        )
    return found[0]


def _beside(assembly: Path, stimuli: str, suffix: str) -> Path:
    """A file of the stimuli: beside the assembly, or in a cache's other folder."""
    name = f"stimulus_{stimuli.replace('.', '_')}{suffix}"
    places = [assembly.parent / name]
    if SHA1.fullmatch(assembly.parent.name):
        places += sorted(assembly.parent.parent.glob(f"*/{name}"))
    for place in places:
        if place.is_file():
            _check_sha1(place)
            return place
    raise DataError(
        f"{assembly.name} has its stimuli in {name}, which is not beside it"
    )


def _coordinate(dataset: Any, name: str, path: Path) -> NDArray[Any]:
    if name not in dataset.variables:
        raise DataError(
            f"{path.name} has no coordinate {name}; it has "
            f"{named_some(sorted(map(str, dataset.variables)), 12)}"
        )
    values: NDArray[Any] = dataset[name].values
    return values if values.dtype.kind in "iufb" else values.astype(str)


def _read(asked: Request) -> Recording:
    path = _assembly(asked.path)
    if not path.exists():
        raise DataError(f"there is no file {path}")
    _check_sha1(path)
    xr = import_xarray()
    with (
        reading_archive(path, "netCDF file"),
        xr.open_dataset(path, engine="netcdf4") as opened,
    ):
        dataset = opened.load()
    if "data" not in dataset:
        raise DataError(
            f"{path.name} has no variable 'data' (presentation, neuroid, time_bin); it "
            f"has {named_some(sorted(map(str, dataset.data_vars)))}"
        )
    data = dataset["data"]
    other = set(data.dims) ^ {"presentation", "neuroid", "time_bin"}
    if other - {"time_bin"}:
        raise DataError(
            f"variable data of {path.name} must be (presentation, neuroid[, "
            f"time_bin]), found {data.dims}"
        )
    axes = ("presentation", "neuroid", "time_bin")[: data.ndim]
    values = data.transpose(*axes).values
    ids = _coordinate(dataset, "stimulus_id", path).astype(str)
    identifier = str(dataset.attrs.get("stimulus_set_identifier", ""))
    if not identifier:
        raise DataError(
            f"{path.name} has no attribute stimulus_set_identifier, which names the "
            "files of its stimuli"
        )
    images, stimulus = _images(asked, path, identifier, ids)
    values, window, bins = _in_time(asked, dataset, values, path)
    neuroids: dict[str, NDArray[Any]] = {
        str(name): _coordinate(dataset, str(name), path)
        for name in dataset.variables
        if dataset[name].dims == ("neuroid",) and name not in PLACES - {"neuroid_id"}
    }
    if "neuroid_id" not in neuroids:
        _coordinate(dataset, "neuroid_id", path)
    if "animal" not in neuroids and "subject" in neuroids:
        neuroids["animal"] = neuroids.pop("subject")
    if "reliability_window" in neuroids:
        neuroids["reliability"] = neuroids["reliability_window"]
        asked.tell("reliability is that of the coordinate reliability_window")
    for name in ("animal", "region", "neuroid_id"):
        if name in neuroids:
            neuroids[name] = neuroids[name].astype(str)
    degrees = dataset.attrs.get("image_size_degree")
    return finished(
        asked,
        images,
        _presentations(asked, dataset, values, stimulus),
        neuroids,
        degrees=None if degrees is None else float(degrees),
        window=window,
        time_bins=bins,
    )


def _presentations(
    asked: Request, dataset: Any, values: NDArray[Any], stimulus: NDArray[np.intp]
) -> Presentations:
    """Presentations, with the repetitions that are stated if they tell them apart."""
    if "repetition" in dataset.variables:
        stated = _coordinate(dataset, "repetition", asked.path)
        _, repetition = np.unique(stated, return_inverse=True)
        slots = stimulus * (int(repetition.max()) + 1) + repetition
        if len(np.unique(slots)) == len(slots):
            return Presentations(values, stimulus, repetition.astype(np.intp))
        asked.tell(
            "the coordinate repetition does not tell presentations of a stimulus "
            "apart; they are numbered in their order"
        )
    return counted(values, stimulus)


def _images(
    asked: Request, path: Path, identifier: str, ids: NDArray[np.str_]
) -> tuple[ImageSet, NDArray[np.intp]]:
    """Images that were shown, and the place of each presentation among them."""
    table = read_table(_beside(path, identifier, ".csv"))
    for column in ("stimulus_id", "filename"):
        if column not in table.columns:
            raise DataError(
                f"{table.path.name} has no column {column!r}; it has "
                f"{named_some(list(table.columns))}"
            )
    listed = table.columns["stimulus_id"]
    line_of = {key: line for line, key in enumerate(listed)}
    if absent := [key for key in dict.fromkeys(ids.tolist()) if key not in line_of]:
        raise DataError(
            f"{len(absent)} stimuli of {path.name} are not in {table.path.name}: "
            f"{named_some(absent)}"
        )
    shown = set(ids.tolist())
    lines = [line for key, line in line_of.items() if key in shown]
    given = asked.settings.images
    archive = Path(given) if given else _beside(path, identifier, ".zip")
    source = open_source(archive)
    wanted = [table.columns["filename"][line] for line in lines]
    found = find_names(source.names, wanted)
    lost = [name for name, full in zip(wanted, found, strict=True) if full is None]
    if lost:
        raise DataError(
            f"{len(lost)} images that {table.path.name} lists are not in {archive}: "
            f"{named_some(lost)}"
        )
    kept = [listed[line] for line in lines]
    images = ImageSet.from_encoded(
        asked.identifier,
        kept,
        source,
        [full for full in found if full is not None],
        _columns(table, lines),
    )
    place = {key: i for i, key in enumerate(kept)}
    return images, np.array([place[key] for key in ids.tolist()], dtype=np.intp)


def _columns(table: Table, lines: Iterable[int]) -> dict[str, NDArray[Any]]:
    """Further columns of some stimuli."""
    return {
        name: np.array([values[line] for line in lines])
        for name, values in table.columns.items()
        if name not in ("stimulus_id", "filename")
    }


def _in_time(
    asked: Request, dataset: Any, values: NDArray[Any], path: Path
) -> tuple[NDArray[Any], tuple[float, float] | None, NDArray[np.float64] | None]:
    """Values, their window in ms and, where several are kept, their time bins."""
    wanted = asked.settings.window
    if values.ndim == 2:
        if wanted is not None:
            raise ConfigError(f"{path.name} has no time bins to take a window of")
        return values, None, None
    edges = (
        np.stack(
            [_coordinate(dataset, f"time_bin_{end}", path) for end in ("start", "end")],
            axis=-1,
        )
        .reshape(-1, 2)
        .astype(np.float64)
    )
    if wanted is None:
        window = (float(edges[0, 0]), float(edges[-1, 1]))
        asked.tell(
            f"{len(edges)} time bins, {window[0]:g} to {window[1]:g} ms after stimulus "
            "onset"
        )
        if len(edges) == 1:
            return values[:, :, 0], window, None
        return values, window, edges
    inside = (edges[:, 0] >= wanted[0]) & (edges[:, 1] <= wanted[1])
    chosen = edges[inside]
    if (
        not len(chosen)
        or (chosen[0, 0], chosen[-1, 1]) != wanted
        or (chosen[1:, 0] != chosen[:-1, 1]).any()
    ):
        bins = [f"{a:g}–{b:g}" for a, b in edges]
        raise ConfigError(
            f"a window of {path.name} must be made of its time bins "
            f"({named_some(bins)} ms), found {wanted[0]:g} to {wanted[1]:g}"
        )
    asked.tell(f"{len(chosen)} time bins are averaged, {wanted[0]:g}–{wanted[1]:g} ms")
    return values[:, :, inside].mean(axis=2), wanted, None


def _recognised(path: Path) -> bool:
    if path.is_dir():
        return any(path.rglob("assy_*.nc"))
    return path.suffix == ".nc" and path.name.startswith("assy_")


BRAINIO = Importer(
    name="brainio",
    holds="Brain-Score's assy_*.nc with stimulus_*.csv and .zip beside it",
    recognises=_recognised,
    read=_read,
    takes=("images", "window"),
)
