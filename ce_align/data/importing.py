"""Recordings from a lab's own arrays, images and tables."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagefiles import ORDERS
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError

__all__ = ["AXES", "import_recording"]

AXES = ("stimulus", "repetition", "neuroid")


def import_recording(
    responses: Path,
    images: Path,
    *,
    axes: Sequence[str],
    region: str,
    identifier: str,
    order: str = "natural",
    degrees: float = 8.0,
    stimuli: Path | None = None,
    stratify: str | None = None,
) -> Recording:
    """Recording from an array of responses and a folder or archive of images.

    Parameters
    ----------
    responses : ``.npy`` array, or ``.npz`` with one array; NaN where a stimulus was
        shown fewer times
    images : folder, zip or tar; the image of row k is the k-th in `order`
    axes : names of the array's axes, out of stimulus, repetition and neuroid;
        repetition may be absent (responses are averages, there will be no ceiling)
    region : recorded area
    identifier : short name of the recording
    order : ``natural`` (by the numbers in the file names), ``name`` (by letter) or a
        csv file that lists the file names in its first column
    degrees : visual angle of the images
    stimuli : csv with one line a stimulus, in the order of the rows; every column is
        kept
    stratify : column of `stimuli` over which splits are balanced

    Raises
    ------
    ConfigError
        If `axes` or `order` are not understood.
    DataError
        If a file cannot be read or shapes do not fit.
    """
    array = _load_responses(responses, tuple(axes))
    listed = order if order in ORDERS else _first_column(Path(order))
    image_set = ImageSet.from_path(images, order=listed, identifier=identifier)
    if len(image_set) != array.shape[0]:
        raise DataError(
            f"{responses.name} has {array.shape[0]} stimuli but {images.name} has "
            f"{len(image_set)} images; give one image for each row (axes are "
            f"{','.join(axes)})"
        )
    if stimuli is not None:
        image_set = image_set.with_columns(_stimulus_columns(stimuli, len(image_set)))
    return Recording(
        identifier=identifier,
        images=image_set,
        responses=array,
        neuroid_ids=tuple(f"neuroid_{i:04d}" for i in range(array.shape[2])),
        region=region,
        degrees=degrees,
        stratify=stratify,
        origin="imported",
    )


def _load_responses(path: Path, axes: tuple[str, ...]) -> NDArray[np.float64]:
    """Responses as (stimulus, repetition, neuroid)."""
    if len(set(axes)) != len(axes) or set(axes) not in (
        set(AXES),
        {"stimulus", "neuroid"},
    ):
        raise ConfigError(
            f"axes must name stimulus, neuroid and at most repetition, each once; "
            f"found {','.join(axes)}"
        )
    array = _load_array(path)
    if array.ndim != len(axes):
        raise DataError(
            f"{path} has shape {array.shape}, {array.ndim} axes, but {len(axes)} are "
            f"named: {','.join(axes)}"
        )
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {array.dtype}, not numbers")
    if "repetition" not in axes:
        array, axes = array[..., np.newaxis], (*axes, "repetition")
    ordered = array.transpose([axes.index(name) for name in AXES])
    return np.ascontiguousarray(ordered, dtype=np.float64)


def _load_array(path: Path) -> NDArray[Any]:
    if not path.exists():
        raise DataError(f"no responses at {path}; give a .npy or .npz file")
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            if len(loaded.files) == 1:
                array: NDArray[Any] = loaded[loaded.files[0]]
                return array
            raise DataError(
                f"{path} holds {len(loaded.files)} arrays, not one: "
                f"{named_some(loaded.files)}"
            )
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a .npy or .npz array: {error}") from error


def _read_csv(path: Path) -> tuple[list[str], list[list[str]]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *lines = [line for line in csv.reader(file) if line]
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as a csv table: {error}") from error
    ragged = [i for i, line in enumerate(lines, 2) if len(line) != len(header)]
    if ragged:
        raise DataError(
            f"{path} has {len(header)} columns but other numbers of values in lines "
            f"{named_some(ragged)}"
        )
    return header, lines


def _first_column(path: Path) -> list[str]:
    if not path.exists():
        raise ConfigError(
            f"order must be {' or '.join(sorted(ORDERS))}, or a csv file that exists; "
            f"found {path}"
        )
    return [line[0] for line in _read_csv(path)[1]]


def _stimulus_columns(path: Path, n_stimuli: int) -> dict[str, NDArray[np.str_]]:
    header, lines = _read_csv(path)
    if len(lines) != n_stimuli:
        raise DataError(f"{path} has {len(lines)} lines for {n_stimuli} stimuli")
    return {
        name: np.array([line[i] for line in lines]) for i, name in enumerate(header)
    }
