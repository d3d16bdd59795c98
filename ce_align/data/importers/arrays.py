"""A lab's own arrays, with a folder of images and perhaps a table of stimuli."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagefiles import FileSource, find_names
from ce_align.data.imagesets import ImageSet
from ce_align.data.importers.common import (
    Importer,
    Request,
    finished,
    first_of_pixels,
    open_hdf5,
    ordered_files,
    texts,
)
from ce_align.data.importers.listing import lines_of_rows, read_table
from ce_align.data.joining import first_rows
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.files import check_regular, reading_archive
from ce_align.progress import Notify

__all__ = ["ARRAYS"]

AXES = ("stimulus", "repetition", "neuroid")
PLURALS = dict(zip(AXES, ("stimuli", "repetitions", "neuroids"), strict=True))
SWAPPED = {"repetition": "neuroid", "neuroid": "repetition"}
#: Share of the variance below which means of neuroids say that they were subtracted.
CENTRED = 1e-6
#: Means of what is no repetition vary so many times more than those of neuroids.
CLEARLY = 4
SUFFIXES = (".npy", ".npz", ".mat", ".h5", ".hdf5")
#: Columns of neuroids that a key may name.
COLUMNS = ("neuroid_id", "animal", "region", "reliability")
#: MATLAB 7.3 files are HDF5 behind a block of text.
HDF5_MARK, USER_BLOCK = b"\x89HDF\r\n\x1a\n", 512

#: What people call the axes.
SYNONYMS = {
    **dict.fromkeys(("stimuli", "image", "images", "presentation"), "stimulus"),
    **dict.fromkeys(("repetitions", "rep", "reps", "repeat", "trial"), "repetition"),
    **dict.fromkeys(("neuroids", "neuron", "neurons", "unit", "channel"), "neuroid"),
}


def _read(asked: Request) -> Recording:
    settings, tell = asked.settings, asked.tell
    keys = asked.keys("responses", "stimuli", *COLUMNS)
    given = (part.strip() for part in (settings.axes or "").split(","))
    axes = tuple(SYNONYMS.get(name, name) for name in given)
    if len(set(axes)) != len(axes) or set(axes) not in (
        set(AXES),
        {"stimulus", "neuroid"},
    ):
        raise ConfigError(
            f"axes must name stimulus, neuroid and at most repetition, each once; "
            f"found {','.join(axes) or 'none'} (--axes)"
        )
    with _opened(asked.path) as find:
        array = _ordered(find(keys.get("responses")), axes, asked.path)
        named = texts(find(keys["stimuli"])) if "stimuli" in keys else None
        neuroids = {
            role: _column(find(keys[role]), role) for role in COLUMNS if role in keys
        }
    source = asked.source()
    images = Path(settings.images or "")
    if named is not None:
        shown = _named(named, source, images, asked.path)
    else:
        shown = ordered_files(asked, source)
    if len(shown) != array.shape[0]:
        lengths = dict(zip(AXES, array.shape, strict=True))
        orders = [
            ",".join(order)
            for order in permutations(axes)
            if lengths[axes[order.index("stimulus")]] == len(shown)
        ]
        raise DataError(
            f"by the axes {','.join(axes)} {asked.path.name} has "
            f"{' × '.join(f'{lengths[name]} {PLURALS[name]}' for name in axes)}, but "
            f"{images} has {len(shown)} images; "
            + (
                f"--axes {' or '.join(orders)} would have as many stimuli"
                if orders
                else "give an image for each stimulus"
            )
        )
    _tell_doubtful_axes(array, axes, tell)
    for role, values in neuroids.items():
        if len(values) != array.shape[2]:
            raise DataError(
                f"{keys[role]} of {asked.path.name} has {len(values)} values for "
                f"{array.shape[2]} neuroids"
            )
    neuroids.setdefault(
        "neuroid_id", np.array([f"neuroid_{i:04d}" for i in range(array.shape[2])])
    )
    files = list(dict.fromkeys(shown))
    image_set = ImageSet.from_files(asked.identifier, source, files)
    place = {name: i for i, name in enumerate(files)}
    file_of_row = np.array([place[name] for name in shown])
    # From rows to files, and from files to the first file of the same pixels.
    first = first_rows(
        first_of_pixels(image_set, tell, asked.progress)[file_of_row].tolist()
    )
    columns = {k: values[file_of_row] for k, values in image_set.columns.items()}
    if settings.stimuli is not None:
        columns |= _attached(Path(settings.stimuli), source, shown, tell)
    # Rows that show a file again have its first row's place, hence no id of their own.
    ids = [
        image_set.ids[k] if i == first[i] else f"{image_set.ids[k]} (row {i + 1})"
        for i, k in enumerate(file_of_row.tolist())
    ]
    rows = ImageSet.from_encoded(asked.identifier, ids, source, shown, columns)
    return finished(asked, rows, array, neuroids, first=first)


def _column(values: Any, role: str) -> NDArray[Any]:
    """A column of the neuroids; text unless it is a reliability."""
    found = np.asarray(values)
    if role == "reliability" and found.dtype.kind in "iuf":
        return found.ravel().astype(np.float64)
    return texts(found)


def _named(
    names: NDArray[np.str_], source: FileSource, images: Path, path: Path
) -> list[str]:
    """Image file of each row, by the names that stand in the file of responses."""
    found = find_names(source.names, names.tolist())
    absent = [n for n, full in zip(names.tolist(), found, strict=True) if full is None]
    if absent:
        raise DataError(
            f"{len(absent)} of {len(names)} stimuli that {path.name} names are not in "
            f"{images}, or are there more than once: {named_some(absent)}"
        )
    return [full for full in found if full is not None]


def _tell_doubtful_axes(
    array: NDArray[np.float64], axes: Sequence[str], tell: Notify
) -> None:
    """Say which axes only the user can tell apart, or may have swapped."""
    _, n_repetitions, n_neuroids = array.shape
    if n_repetitions > 1:
        # Neuroids have rates of their own, repetitions have not.
        there = np.isfinite(array)
        values = np.where(there, array, 0)
        over_repetitions, over_neuroids = (
            np.var(values.sum(axis=other) / np.maximum(there.sum(axis=other), 1))
            for other in ((0, 2), (0, 1))
        )
        variance = np.var(array[there])
        by_chance = variance / (array.size / n_repetitions)
        centred = over_neuroids < CENTRED * variance
        if over_repetitions > CLEARLY * (over_neuroids + by_chance) and not centred:
            tell(
                f"{n_repetitions} repetitions differ more in their means than "
                f"{n_neuroids} neuroids: if they are swapped, name the axes "
                f"{','.join(SWAPPED.get(name, name) for name in axes)}"
            )
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if array.shape[one] == array.shape[other] and array.shape[one] > 1:
            tell(
                f"{AXES[one]} and {AXES[other]} both have {array.shape[one]} entries: "
                f"which is which is taken from the axes {','.join(axes)}"
            )


def _attached(
    path: Path, source: FileSource, shown: Sequence[str], tell: Notify
) -> dict[str, NDArray[np.str_]]:
    """Columns of a table, one value a row."""
    table = read_table(path)
    lines, column = lines_of_rows(table, source.names, shown)
    by = f"by its column {column!r}" if column else "line by line, in the rows' order"
    tell(f"{path.name} is attached {by}")
    return {
        name: np.array([values[line] for line in lines])
        for name, values in table.columns.items()
    }


def _ordered(
    array: NDArray[Any], axes: tuple[str, ...], path: Path
) -> NDArray[np.float64]:
    """Responses as (stimulus, repetition, neuroid)."""
    if array.ndim != len(axes):
        raise DataError(
            f"{path} has shape {array.shape}, {array.ndim} axes, but {len(axes)} are "
            f"named: {','.join(axes)}"
        )
    if array.dtype.kind not in "iuf":
        raise DataError(f"{path} holds {array.dtype}, not numbers")
    if not np.isfinite(array).any():
        raise DataError(f"{path} holds no finite number; check how it was saved")
    if "repetition" not in axes:
        array, axes = array[..., np.newaxis], (*axes, "repetition")
    ordered = array.transpose([axes.index(name) for name in AXES])
    values = np.ascontiguousarray(ordered, dtype=np.float64)
    empty = np.isnan(values).all(axis=(0, 2))
    # A repetition that nobody was shown is padding.
    return values[:, ~empty] if empty.any() and not empty.all() else values


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give a function that finds an array by its name, or the only one."""
    if not path.exists():
        raise DataError(f"no responses at {path}; give a {', '.join(SUFFIXES)} file")
    if path.suffix in (".h5", ".hdf5") or _is_hdf5(path):
        with open_hdf5(path) as file:
            yield lambda name: _of_hdf5(file, name, path)
    elif path.suffix == ".mat":
        import scipy.io

        # Functions and objects of MATLAB are not numbers, and are left out by SciPy.
        with reading_archive(path, "MATLAB file"):
            held = scipy.io.loadmat(path)
        yield lambda name: _of_struct(
            {k: v for k, v in held.items() if not k.startswith("__")}, name, path
        )
    else:
        yield lambda name: _of_numpy(path, name)


def _is_hdf5(path: Path) -> bool:
    with check_regular(path).open("rb") as file:
        start = file.read(USER_BLOCK + len(HDF5_MARK))
    return start.startswith(HDF5_MARK) or start.endswith(HDF5_MARK)


def _chosen(names: Sequence[str], name: str | None, path: Path) -> str:
    """Name of the array that is meant."""
    if name is None and len(names) == 1:
        return names[0]
    if name is None:
        raise DataError(
            f"{path} holds {len(names)} arrays, not one: {named_some(names)}; name "
            "one (--key responses=NAME)"
        )
    if name not in names:
        raise DataError(
            f"{path.name} has no field {name}; it has {named_some(names, 12)}"
        )
    return name


def _of_numpy(path: Path, name: str | None) -> NDArray[Any]:
    try:
        loaded = np.load(check_regular(path), allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded
        with loaded:
            array: NDArray[Any] = loaded[_chosen(loaded.files, name, path)]
            return array
    except DataError:
        raise
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{path} is not a .npy or .npz array: {error}") from error


def _of_struct(held: dict[str, Any], name: str | None, path: Path) -> NDArray[Any]:
    """Array of a MATLAB 5 file, also one in a struct (``data.rates``)."""
    first, *inner = (name or "").split(".")
    value: Any = held[_chosen(list(held), first or None, path)]
    for part in inner:
        fields = value.dtype.names or ()
        value = value[_chosen(fields, part, path)].ravel()[0]
    if value.dtype == object:  # a cell array of text
        return np.array(["".join(map(str, np.ravel(cell))) for cell in value.ravel()])
    found: NDArray[Any] = value
    return found


def _of_hdf5(file: Any, name: str | None, path: Path) -> NDArray[Any]:
    """Array of an HDF5 file; of MATLAB's, with the axes as MATLAB counts them."""
    import h5py

    names: list[str] = []

    def add(place: str, held: Any) -> None:
        if isinstance(held, h5py.Dataset) and not place.startswith("#"):
            names.append(place)

    file.visititems(add)
    held = file[_chosen(names, name and name.replace(".", "/"), path)]
    if h5py.check_ref_dtype(held.dtype):  # a cell array of text
        cells = [file[reference] for reference in held[()].ravel()]
        return np.array(
            [cell[()].astype("<u2").tobytes().decode("utf-16-le") for cell in cells]
        )
    array: NDArray[Any] = held[()]
    return array.T if path.suffix == ".mat" else array


ARRAYS = Importer(
    name="arrays",
    holds="an array in .npy, .npz, .mat 5 or 7.3, .h5",
    recognises=lambda path: path.suffix in SUFFIXES,
    read=_read,
    takes=("key", "order", "stimuli"),
    needs=("images", "axes"),
)
