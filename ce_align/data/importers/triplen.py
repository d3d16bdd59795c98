"""Triple-N: sessions with 1,000 images of NSD, as its authors store them."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet
from ce_align.data.importers.common import (
    Importer,
    Request,
    counted,
    finished,
    known_window,
    open_hdf5,
    ordered_files,
    read_field,
)
from ce_align.data.importers.listing import read_table
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.files import reading_archive

__all__ = ["TRIPLEN"]

Columns = dict[str, NDArray[Any]]

PROCESSED = re.compile(r"Processed_ses(?P<session>\d+)_\d+_(?P<animal>M\d+)_\d+\.mat")
UNITS = re.compile(r"GoodUnit_.+\.mat")
#: Images of NSD come first, then those of a localiser.
N_NSD, N_ALL = 1000, 1072
#: Fields with a value a unit, and what they are called here.
DESCRIBING = {
    "pos": "pos",
    "UnitType": "unittype",
    "F_SI": "F_SI",
    "B_SI": "B_SI",
    "O_SI": "O_SI",
    "snr": "snr",
    "snrmax": "snrmax",
    "best_r_time1": "best_time_start",
    "best_r_time2": "best_time_end",
}
#: Columns of the table of areas, which the authors keep as exclude_area.xls.
AREAS = ("SesIdx", "y1", "y2", "Area")
DEGREES = 11.0


def _files(path: Path) -> list[Path]:
    """Files of sessions: the path itself, or those of a folder of one kind."""
    if not path.is_dir():
        known = PROCESSED.fullmatch(path.name) or UNITS.fullmatch(path.name)
        return [path] if known else []
    each = sorted(path.glob("*.mat"))
    return [file for file in each if PROCESSED.fullmatch(file.name)]


def _processed(
    path: Path, responses: str
) -> tuple[NDArray[np.float64], Columns, int, str]:
    """Averages (image, unit), columns of the units, session and animal."""
    import scipy.io

    named = PROCESSED.fullmatch(path.name)
    if named is None:
        raise DataError(
            f"{path.name} must be called Processed_sesNN_YYMMDD_Mn_k.mat, which states "
            "session and animal"
        )
    with reading_archive(path, "MATLAB file"):
        held = scipy.io.loadmat(path)
    reliability = responses.replace("response", "reliability")
    for name in (responses, reliability):
        if name not in held:
            there = sorted(key for key in held if not key.startswith("__"))
            raise DataError(
                f"{path.name} has no field {name}; it has {named_some(there, 12)}"
            )
    values = held[responses]
    if values.ndim != 2 or values.shape[1] != N_ALL:
        raise DataError(
            f"field {responses} of {path.name} must be (units, {N_ALL}), found "
            f"{values.shape}"
        )
    n_units = len(values)
    columns: Columns = {"reliability": held[reliability].ravel().astype(np.float64)}
    for name, called in DESCRIBING.items():
        if name in held and held[name].size == n_units:
            columns[called] = held[name].ravel()
    if len(columns["reliability"]) != n_units:
        raise DataError(
            f"field {reliability} of {path.name} must have {n_units} values, found "
            f"{held[reliability].shape}"
        )
    session = int(named["session"])
    columns["neuroid_id"] = np.array([f"{session}.{k}" for k in range(n_units)])
    columns["session"] = np.full(n_units, session)
    return values.T.astype(np.float64), columns, session, named["animal"]


def _areas(path: Path, session: int, depth: NDArray[Any]) -> NDArray[np.str_]:
    """Area of each unit by its depth; empty between the areas."""
    table = read_table(path)
    absent = [name for name in AREAS if name not in table.columns]
    if absent:
        raise DataError(
            f"{path.name} must have the columns {', '.join(AREAS)}, as "
            f"exclude_area.xls has; it lacks {', '.join(absent)}"
        )
    found = np.full(len(depth), "", dtype=object)
    for line in range(table.n_lines):
        number, low, high, area = (table.columns[name][line] for name in AREAS)
        if int(float(number)) == session:
            found[(depth >= float(low)) & (depth <= float(high))] = area
    return found.astype(str)


def _images(asked: Request, n_images: int) -> ImageSet:
    """Images of NSD in the order of their numbers."""
    source = asked.source()
    names = ordered_files(asked, source)
    if len(names) not in (n_images, N_ALL):
        raise DataError(
            f"{asked.settings.images} must hold the {N_NSD} images of NSD, or the "
            f"{N_ALL} with the localiser's, in the order of their numbers; "
            f"found {len(names)}"
        )
    asked.tell(f"image 1 is {names[0]}, image {n_images} {names[n_images - 1]}")
    return ImageSet.from_files(asked.identifier, source, names[:n_images])


def _read(asked: Request) -> Recording:
    files = _files(asked.path)
    if not files:
        raise DataError(
            f"{asked.path} is no Processed_ses*.mat or GoodUnit_*.mat, and has no "
            "Processed_ses*.mat in it"
        )
    if UNITS.fullmatch(files[0].name):
        return _read_units(asked)
    if asked.settings.window is not None:
        raise ConfigError(
            f"{files[0].name} holds averages over windows of its authors; import "
            "GoodUnit_*.mat for another window"
        )
    keys = asked.keys("responses", "areas")
    responses = keys.get("responses", "response_best")
    parts = []
    for file in files:
        values, columns, session, animal = _processed(file, responses)
        columns["animal"] = np.full(values.shape[1], animal)
        if "areas" in keys:
            if "pos" not in columns:
                raise DataError(f"{file.name} has no field pos, the depth of each unit")
            area = _areas(Path(keys["areas"]), session, columns["pos"])
            columns["region"] = area
            inside = area != ""
            values = values[:, inside]
            columns = {name: held[inside] for name, held in columns.items()}
        parts.append((values[:N_NSD], columns))
    shared = set.intersection(*(set(columns) for _, columns in parts))
    asked.tell(
        f"{len(files)} sessions, field {responses} (spikes/s, averaged over trials by "
        "its authors); no repetitions, hence reliability as stated"
    )
    averages = np.concatenate([values for values, _ in parts], axis=1)
    return finished(
        asked,
        _images(asked, N_NSD),
        averages[:, np.newaxis],
        _joined([columns for _, columns in parts], shared),
        degrees=DEGREES,
    )


def _joined(parts: Sequence[Columns], names: set[str]) -> Columns:
    return {n: np.concatenate([part[n] for part in parts]) for n in sorted(names)}


def _read_units(asked: Request) -> Recording:
    """Spikes of single trials of one session."""
    path = asked.path
    asked.keys()
    start, end = known_window(asked)
    with open_hdf5(path) as file:
        before, after = (
            int(read_field(file, f"global_params/{name}")[()].item())
            for name in ("pre_onset", "post_onset")
        )
        shown = read_field(file, "meta_data/trial_valid_idx")[()].ravel()
        shown = shown.astype(np.int64)
        first, last = (round(edge) + before for edge in (start, end))
        if first < 0 or last > before + after or start % 1 or end % 1:
            raise ConfigError(
                f"a window of {path.name} must lie in {-before} to {after} ms, in "
                f"whole ms; found {start:g} to {end:g}"
            )
        valid = shown[shown > 0]
        kept = valid <= N_NSD
        rasters = read_field(file, "GoodUnitStrc/Raster")[()].ravel()
        counts = np.empty((int(kept.sum()), len(rasters)), dtype=np.float32)
        for unit, reference in enumerate(rasters):
            raster = file[reference]  # (time, trial), a row a ms
            n_times, n_trials = raster.shape
            if n_trials not in (len(valid), len(shown)) or n_times < last:
                raise DataError(
                    f"GoodUnitStrc/Raster of unit {unit} of {path.name} must be (ms, "
                    f"trials) = ({before + after}, {len(valid)}), found {raster.shape}"
                )
            # Bytes would overflow when they are summed.
            spikes = raster[first:last].astype(np.int64).sum(axis=0)
            if n_trials != len(valid):
                spikes = spikes[shown > 0]
            counts[:, unit] = spikes[kept]
    numbers, place = np.unique(valid[kept], return_inverse=True)
    asked.tell(
        f"{len(place)} trials of {len(numbers)} images of NSD; "
        f"{int((shown == 0).sum())} failed trials and {int((~kept).sum())} of the "
        f"localiser are left out; spikes are counted in [{start:g}, {end:g}) ms"
    )
    images = _images(asked, N_NSD).select((numbers - 1).tolist())
    presentations: Presentations = counted(counts, place)
    return finished(
        asked,
        images,
        presentations,
        {"neuroid_id": np.arange(counts.shape[1]).astype(str)},
        degrees=DEGREES,
        window=(start, end),
    )


TRIPLEN = Importer(
    name="triplen",
    holds="Triple-N: Processed_ses*.mat (a file or a folder of them) or GoodUnit_*.mat",
    recognises=lambda path: bool(_files(path)),
    read=_read,
    takes=("key", "order", "window"),
    needs=("images",),
)
