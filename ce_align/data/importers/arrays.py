"""Recordings from a lab's own arrays, images and tables."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import check_unique, named_some
from ce_align.data.imagefiles import (
    ORDERS,
    FileSource,
    find_names,
    is_image_name,
    open_source,
    order_names,
)
from ce_align.data.imagesets import ImageSet, exif_orientation, has_transparency
from ce_align.data.joining import first_rows, join_rows
from ce_align.data.recordings import Recording, canonical_region
from ce_align.errors import ConfigError, DataError
from ce_align.progress import Notify, Progress, quiet, silent

__all__ = [
    "import_recording",
]

NAMING = {"file", "filename", "imagefile", "imagefilename", "imagename", "imagepath"}


@dataclass(frozen=True)
class Table:
    """Values of a csv table by column, in order.

    A column without a name, such as the index that pandas writes, is left out unless it
    is the only one.
    """

    path: Path
    columns: dict[str, tuple[str, ...]]

    @property
    def n_lines(self) -> int:
        """Lines below the header."""
        return len(next(iter(self.columns.values())))


def read_table(path: Path, files: Sequence[str] = ()) -> Table:
    """Table of a csv file.

    Its first line is the header, unless it names one of the image `files`: columns are
    called column 1, column 2, ... then. Raises DataError if the file is no table, or
    has two columns of one name.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [line for line in csv.reader(file) if line]
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read {path} as a csv table: {error}") from error
    if not lines:
        raise DataError(f"{path} is empty; write a header and one line a stimulus")
    ragged = [i for i, line in enumerate(lines, 1) if len(line) != len(lines[0])]
    if ragged:
        raise DataError(
            f"{path} has {len(lines[0])} columns but other numbers of values in lines "
            f"{named_some(ragged)}"
        )
    first = [cell for cell in lines[0] if is_image_name(cell.strip())]
    if any(find_names(files, first)):
        header = [f"column {i + 1}" for i in range(len(lines[0]))]
    else:
        header, lines = [cell.strip() for cell in lines[0]], lines[1:]
    if not lines:
        raise DataError(f"{path} has no line below its header")
    named = [i for i, name in enumerate(header) if name] or [0]
    check_unique([header[i] for i in named], f"columns of {path}")
    columns = {header[i]: tuple(line[i] for line in lines) for i in named}
    return Table(path, columns)


def listed_images(table: Table, files: Sequence[str]) -> list[str]:
    """Image file of each line: the column of which every value names one of `files`.

    Raises DataError if no column names images throughout, or two do and disagree.
    """
    naming = _naming_columns(table, files)
    if not naming:
        absent = {name: _absent(cells, files) for name, cells in table.columns.items()}
        best = min(absent, key=lambda column: len(absent[column]))
        raise DataError(
            f"no column of {table.path} names the images; nearest is {best!r}: "
            f"{len(absent[best])} of {table.n_lines} listed images are not there, or "
            f"are there more than once: {named_some(absent[best])}"
        )
    return next(iter(naming.values()))


def lines_of_rows(
    table: Table, files: Sequence[str], shown: Sequence[str]
) -> tuple[list[int], str | None]:
    """Which line of a table belongs to each row of a recording, of which `shown` tells.

    The table has one line a row, or one line an image if a column names them; that
    column, or None, is returned too. Raises DataError if names contradict the rows, or
    the number of lines does not fit.
    """
    naming = _naming_columns(table, files)
    if naming:
        column, named = next(iter(naming.items()))
        if named == list(shown):
            return list(range(len(named))), column
        cells = [value.strip() for value in table.columns[column]]
        # Images may be called by numbers, which other columns hold by accident.
        if not _is_naming(column) and all(map(str.isdecimal, cells)):
            raise DataError(
                f"column {column!r} of {table.path} may name the images ({shown[0]}, "
                "...), but in another order than the rows; call it 'filename' if it "
                "does, else give its values another form"
            )
        line_of = {name: line for line, name in enumerate(named)}
        absent = [name for name in dict.fromkeys(shown) if name not in line_of]
        if absent or len(line_of) < len(named):
            fault = f"does not name {named_some(absent)}" if absent else "names twice"
            raise DataError(
                f"column {column!r} of {table.path} names images in another order than "
                f"the rows, and {fault}; list each image once, or the rows in order"
            )
        return [line_of[name] for name in shown], column
    for column, values in table.columns.items():
        absent = _absent(values, files)
        meant = _is_naming(column) or len(absent) < len(values)
        if meant and any(map(is_image_name, values)):
            raise DataError(
                f"column {column!r} of {table.path} names {len(absent)} files that are "
                f"not among the images, or are there more than once: "
                f"{named_some(absent)}; correct them or leave the column out"
            )
    if table.n_lines != len(shown):
        raise DataError(
            f"{table.path} has {table.n_lines} lines for {len(shown)} stimuli, and no "
            "column that names the images"
        )
    return list(range(table.n_lines)), None


def _naming_columns(table: Table, files: Sequence[str]) -> dict[str, list[str]]:
    """Columns all of whose values name files, by full file names if there are any."""
    full, by_file = {}, {}
    for column, values in table.columns.items():
        names = [name for name in find_names(files, values) if name is not None]
        if len(names) == table.n_lines:
            full[column] = names
            if all(is_image_name(value.strip()) for value in values):
                by_file[column] = names
    naming = by_file or full
    for column, names in naming.items():
        first = next(iter(naming))
        if names != naming[first]:
            raise DataError(
                f"columns {first!r} and {column!r} of {table.path} both name the "
                "images, in different orders; leave one of them out"
            )
    return naming


def _absent(values: Sequence[str], files: Sequence[str]) -> list[str]:
    """Values that name none of the files, or several."""
    found = find_names(files, values)
    return [value for value, name in zip(values, found, strict=True) if name is None]


def _is_naming(column: str) -> bool:
    """Whether a column is meant to name images, whatever it holds."""
    return "".join(filter(str.isalnum, column)).lower() in NAMING


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
    keep_silent: bool = False,
    tell: Notify = quiet,
    progress: Progress = silent,
) -> Recording:
    """Recording from an array of responses and a folder or archive of images.

    Rows that show equal images (by their pixels) become repetitions of one stimulus, so
    that no image is ever in training and in test.

    Parameters
    ----------
    responses : ``.npy`` array, or ``.npz`` with one array; NaN where a stimulus was
        shown fewer times
    images : folder, zip or tar; the image of row k is the k-th in `order`
    axes : names of the array's axes, out of stimulus, repetition and neuroid;
        repetition may be absent (responses are averages, there will be no ceiling)
    region : recorded area, in any case
    identifier : short name of the recording
    order : ``natural`` (by the numbers in the file names), ``name`` (by letter) or a
        csv file with a column that names the image of each row; the column is found by
        its names, and an image may stand in several rows
    degrees : visual angle of the images
    stimuli : csv with one line a stimulus; every column is kept. Lines are attached by
        the column that names the images, else they are in the order of the rows
    stratify : column of `stimuli` over which splits are balanced
    keep_silent : refuse neuroids without a response, or with the same to every
        stimulus, instead of leaving them out
    tell : told in a line each how the files were understood
    progress : told of images read

    Raises
    ------
    ConfigError
        If `axes` or `order` are not understood.
    DataError
        If a file cannot be read, shapes do not fit, or names contradict each other.
    """
    array = _load_responses(responses, tuple(axes))
    source = open_source(images)
    shown = _images_of_rows(source, order, images, tell)
    if len(shown) != array.shape[0]:
        raise DataError(
            f"{responses.name} has {array.shape[0]} stimuli but {images.name} has "
            f"{len(shown)} images; give one image for each row (axes are "
            f"{','.join(axes)})"
        )
    _tell_equal_axes(array, axes, tell)
    files = list(dict.fromkeys(shown))
    image_set = ImageSet.from_files(identifier, source, files)
    place = {name: i for i, name in enumerate(files)}
    file_of_row = np.array([place[name] for name in shown])
    # From rows to files, and from files to the first file of the same pixels.
    first = first_rows(_look_at(image_set, tell, progress)[file_of_row].tolist())
    columns = {k: values[file_of_row] for k, values in image_set.columns.items()}
    if stimuli is not None:
        columns |= _attached(stimuli, source, shown, tell)
    rows, columns, joined = join_rows(
        array, columns, first, shown, stratify=stratify, identifier=identifier
    )
    ids = tuple(f"neuroid_{i:04d}" for i in range(array.shape[2]))
    make = Recording if keep_silent else Recording.without_silent
    recording = make(
        identifier=identifier,
        images=replace(
            image_set.select(file_of_row[np.unique(first)].tolist()), columns=columns
        ),
        responses=rows,
        neuroid_ids=ids,
        region=canonical_region(region),
        degrees=degrees,
        stratify=stratify,
        origin="imported",
        notes=(joined,) if joined else (),
    )
    for note in recording.notes:
        tell(note)
    return recording


def _images_of_rows(
    source: FileSource, order: str, images: Path, tell: Notify
) -> list[str]:
    """File of each row."""
    if order in ORDERS:
        names = list(order_names(source.names, order))
        others = [list(order_names(source.names, other)) for other in ORDERS]
        if any(other != names for other in others):
            how = "the numbers in their names" if order == "natural" else "letter"
            tell(f"images are ordered by {how}: {named_some(names)}")
        return names
    path = Path(order)
    if not path.exists():
        raise ConfigError(
            f"order must be {' or '.join(sorted(ORDERS))}, or a csv file that exists; "
            f"found {path}"
        )
    names = listed_images(read_table(path, source.names), source.names)
    n_left = len(set(source.names) - set(names))
    if n_left:
        tell(f"{n_left} images of {images.name} are not listed in {path.name}")
    return names


def _tell_equal_axes(
    array: NDArray[np.float64], axes: Sequence[str], tell: Notify
) -> None:
    """Say which axes only the user can tell apart."""
    for one, other in ((0, 1), (0, 2), (1, 2)):
        if array.shape[one] == array.shape[other] and array.shape[one] > 1:
            tell(
                f"{AXES[one]} and {AXES[other]} both have {array.shape[one]} entries: "
                f"which is which is taken from the axes {','.join(axes)}"
            )


def _look_at(images: ImageSet, tell: Notify, progress: Progress) -> NDArray[np.intp]:
    """For each image the first with the same pixels; say what is not applied."""
    pixels, turned, clear = [], [], []
    for i, name in enumerate(images.ids):
        pixels.append(images.pixel_digest(i))
        encoded = images.encoded(i)
        turned += [name] if exif_orientation(encoded) != 1 else []
        clear += [name] if has_transparency(encoded) else []
        progress("images", i + 1, len(images))
    if turned:
        tell(
            f"{len(turned)} images state an orientation (EXIF), which is not applied, "
            f"as Brain-Score does not: {named_some(turned)}; turn the pixels if the "
            "images were shown upright"
        )
    if clear:
        tell(
            f"{len(clear)} images have transparent pixels, of which networks see the "
            f"colour: {named_some(clear)}; paste them on the background that was shown"
        )
    return first_rows(pixels)


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
    values = np.ascontiguousarray(ordered, dtype=np.float64)
    empty = np.isnan(values).all(axis=(0, 2))
    # A repetition that nobody was shown is padding.
    return values[:, ~empty] if empty.any() and not empty.all() else values


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
