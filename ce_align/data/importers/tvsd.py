"""The THINGS Ventral Stream Dataset (TVSD), as its authors store it."""

from collections.abc import Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.data.importers.common import (
    Importer,
    Request,
    find_images,
    finished,
    open_hdf5,
    read_field,
)
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording, canonical_region
from ce_align.errors import ConfigError, DataError

__all__ = ["TVSD", "things_paths"]

RESPONSES, IMAGES = "THINGS_normMUA.mat", "_logs/things_imgs.mat"
N_CHANNELS = 1024
#: Channels of each area, in the physical order of the arrays: the animals differ.
AREAS = {
    "F": {"V1": (0, 512), "IT": (512, 832), "V4": (832, 1024)},
    "N": {"V1": (0, 512), "V4": (512, 768), "IT": (768, 1024)},
}
#: ms after stimulus onset over which the authors averaged.
WINDOWS = {"V1": (25.0, 125.0), "V4": (50.0, 150.0), "IT": (75.0, 175.0)}
DEGREES = 18.0
CITATION = "Papale et al. (2025), Neuron: an extensive dataset of spiking activity"
LICENCE = "CC-BY 4.0 (responses); images: THINGS, by its own terms"


def things_paths(path: Path, part: str) -> list[str]:
    """Names of the images of ``train_imgs`` or ``test_imgs``, in the order of rows.

    MATLAB 7.3 keeps each as an array of UTF-16 that a reference leads to.
    """
    import h5py

    with open_hdf5(path) as file:
        held = read_field(file, f"{part}/things_path")
        if h5py.check_ref_dtype(held.dtype) is None:
            raise DataError(
                f"field {part}/things_path of {path.name} must hold references to "
                f"text, found {held.dtype}"
            )
        found = []
        for reference in held[:].ravel():
            # Opening by the object's number: h5py's own way builds a name for each.
            place = h5py.h5r.dereference(reference, file.id)
            text = np.empty(place.shape, dtype=place.dtype)
            place.read(h5py.h5s.ALL, h5py.h5s.ALL, text)
            found.append(text.astype("<u2").tobytes().decode("utf-16-le"))
    return found


def _animal(path: Path) -> str:
    for name in AREAS:
        if path.parent.name.lower() == f"monkey{name.lower()}":
            return name
    raise DataError(
        f"{path} must lie in a folder monkeyF or monkeyN, as its channels are in "
        f"another order in each; found {path.parent.name!r}"
    )


def _files(path: Path) -> list[Path]:
    """Files of responses below a path."""
    if not path.is_dir():
        return [path] if path.name == RESPONSES else []
    own = path / RESPONSES
    each = sorted(path.glob(f"monkey*/{RESPONSES}"))
    return [own] if own.exists() else each


def _things(path: Path) -> Path:
    """The list of images beside the responses of an animal, or of the other."""
    places = [path.parent / IMAGES, *sorted(path.parent.parent.glob(f"*/{IMAGES}"))]
    for place in (*places, path.parent.parent / IMAGES):
        if place.exists():
            return place
    raise DataError(
        f"the list of images of {path} is not there: {path.parent / IMAGES}; it comes "
        "with the data set"
    )


def _channels(
    asked: Request, files: Sequence[Path]
) -> list[tuple[Path, str, str, int, int]]:
    """File, animal, area and channels of each part that was asked for."""
    region, animal = asked.settings.region, asked.settings.animal
    wanted = None if region is None else canonical_region(region)
    found = [
        (path, _animal(path), area, *AREAS[_animal(path)][area])
        for path in files
        for area in sorted(AREAS[_animal(path)], key=AREAS[_animal(path)].__getitem__)
        if wanted in (None, area) and animal in (None, _animal(path))
    ]
    if not found:
        raise ConfigError(
            f"{asked.path} has nothing of region {region} and animal {animal}; it has "
            f"V1, V4 and IT of {', '.join(map(_animal, files))}"
        )
    return found


def _read(asked: Request) -> Recording:
    files = _files(asked.path)
    if not files:
        raise DataError(f"{asked.path} is not {RESPONSES}, and has none in it")
    parts = _channels(asked, files)
    things = _things(parts[0][0])
    train, test = (things_paths(things, f"{part}_imgs") for part in ("train", "test"))
    n_channels = sum(stop - start for *_, start, stop in parts)
    with open_hdf5(parts[0][0]) as file:
        n_repetitions = read_field(
            file, "test_MUA_reps", (None, len(test), N_CHANNELS)
        ).shape[0]
    n_rows = len(train) + n_repetitions * len(test)
    values = np.empty((n_rows, n_channels), dtype=np.float32)
    columns: dict[str, list[NDArray[Any]]] = {}
    place = 0
    for path, animal, area, start, stop in parts:
        channels, into = slice(start, stop), slice(place, place + stop - start)
        with open_hdf5(path) as file:
            once = read_field(file, "train_MUA", (len(train), N_CHANNELS))
            again = read_field(
                file, "test_MUA_reps", (n_repetitions, len(test), N_CHANNELS)
            )
            values[: len(train), into] = once[:, channels]
            values[len(train) :, into] = again[:, :, channels].reshape(-1, stop - start)
            stated = {
                "reliability": read_field(file, "reliab", (None, N_CHANNELS)),
                "oracle": read_field(file, "oracle", (N_CHANNELS, 1)),
                "SNR": read_field(file, "SNR", (None, N_CHANNELS)),
                "SNR_max": read_field(file, "SNR_max", (N_CHANNELS, 1)),
            }
            measured = {
                name: held[channels, 0]
                if held.shape == (N_CHANNELS, 1)
                else held[:, channels].mean(axis=0)
                for name, held in stated.items()
            }
        place = into.stop
        n = stop - start
        found = {
            "neuroid_id": np.arange(start, stop).astype(str),
            "animal": np.full(n, animal),
            "region": np.full(n, area),
            "channel": np.arange(start, stop),
            **measured,
        }
        for name, column in found.items():
            columns.setdefault(name, []).append(column)
    asked.tell(
        f"{n_rows} presentations: {len(train)} images once (train) and {len(test)} "
        f"images {n_repetitions} times (test); normalised multi-unit activity, "
        "averaged by its authors over "
        + ", ".join(f"{k} {a:g}–{b:g} ms" for k, (a, b) in WINDOWS.items())
    )
    stimulus = [np.arange(len(train))]
    repetition = [np.zeros(len(train), dtype=np.intp)]
    for k in range(n_repetitions):
        stimulus.append(len(train) + np.arange(len(test)))
        repetition.append(np.full(len(test), k))
    names = [*train, *test]
    paths = [PureWindowsPath(name) for name in names]
    areas = {area for _, _, area, _, _ in parts}
    return finished(
        asked,
        find_images(
            asked,
            names,
            ids=[path.stem for path in paths],
            columns={"object_name": np.array([path.parent.name for path in paths])},
        ),
        Presentations(values, np.concatenate(stimulus), np.concatenate(repetition)),
        {name: np.concatenate(found) for name, found in columns.items()},
        degrees=DEGREES,
        split=np.repeat(["train", "test"], [len(train), len(test)]),
        window=WINDOWS[areas.pop()] if len(areas) == 1 else None,
        licence=LICENCE,
        citation=CITATION,
    )


TVSD = Importer(
    name="tvsd",
    holds=f"TVSD: monkeyF/{RESPONSES}, or the folder of both animals",
    recognises=lambda path: bool(_files(path)),
    read=_read,
    needs=("images",),
)
