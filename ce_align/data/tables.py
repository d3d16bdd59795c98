"""Tables of stimuli (csv), and which of their columns names the images."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ce_align.checks import check_unique, named_some
from ce_align.data.imagefiles import find_names, is_image_name
from ce_align.errors import DataError

__all__ = ["Table", "lines_of_rows", "listed_images", "read_table"]

#: Columns that are meant to name images, whatever they hold.
NAMING = {"file", "filename", "imagefile", "imagefilename", "imagename", "imagepath"}


@dataclass(frozen=True)
class Table:
    """A csv table.

    Attributes
    ----------
    path : of the file
    columns : values by name, in order; a column without a name, such as the index that
        pandas writes, is left out unless it is the only one
    """

    path: Path
    columns: dict[str, tuple[str, ...]]

    @property
    def n_lines(self) -> int:
        """Lines below the header."""
        return len(next(iter(self.columns.values())))


def read_table(path: Path, files: Sequence[str] = ()) -> Table:
    """Table of a csv file with a header.

    Parameters
    ----------
    path : of the file
    files : image files; a first line that names one of them is no header, and columns
        are called column 1, column 2, ...

    Raises
    ------
    DataError
        If the file is no table, or has two columns of one name.
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
    """Image file of each line: the column of which every value names a file.

    Parameters
    ----------
    table : with such a column
    files : names of all image files

    Raises
    ------
    DataError
        If no column names images throughout, or two do and disagree.
    """
    naming = _naming_columns(table, files)
    if not naming:
        best, absent = _nearest_to_naming(table, files)
        raise DataError(
            f"no column of {table.path} names the images; nearest is {best!r}: "
            f"{len(absent)} of {table.n_lines} listed images are not there, or are "
            f"there more than once: {named_some(absent)}"
        )
    _refuse_contradiction(table, naming)
    return next(iter(naming.values()))


def lines_of_rows(
    table: Table, files: Sequence[str], shown: Sequence[str]
) -> tuple[list[int], str | None]:
    """Which line of a table belongs to each row of a recording.

    Parameters
    ----------
    table : one line a row, or one line an image if a column names them
    files : names of all image files
    shown : the file of each row

    Returns
    -------
    lines, column : the column that names the images, None if lines follow the rows

    Raises
    ------
    DataError
        If names contradict the rows, or the number of lines does not fit.
    """
    naming = _naming_columns(table, files)
    if naming:
        _refuse_contradiction(table, naming)
        column, named = next(iter(naming.items()))
        if named == list(shown):
            return list(range(len(named))), column
        _refuse_accident(table, column, shown)
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
        found = find_names(files, values)
        meant = "".join(filter(str.isalnum, column)).lower() in NAMING
        if (meant or any(found)) and any(map(is_image_name, values)):
            absent = [v for v, name in zip(values, found, strict=True) if name is None]
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
    found = {
        column: [name for name in find_names(files, values) if name is not None]
        for column, values in table.columns.items()
    }
    full = {c: names for c, names in found.items() if len(names) == table.n_lines}
    by_file = {
        column: names
        for column, names in full.items()
        if all(map(is_image_name, _cells(table, column)))
    }
    return by_file or full


def _cells(table: Table, column: str) -> list[str]:
    return [value.strip() for value in table.columns[column]]


def _nearest_to_naming(table: Table, files: Sequence[str]) -> tuple[str, list[str]]:
    """The column that names most files, and what it holds beside."""
    absent = {
        column: [
            value
            for value, name in zip(values, find_names(files, values), strict=True)
            if name is None
        ]
        for column, values in table.columns.items()
    }
    best = min(absent, key=lambda column: len(absent[column]))
    return best, absent[best]


def _refuse_contradiction(table: Table, naming: dict[str, list[str]]) -> None:
    (first, named), *others = naming.items()
    for column, other in others:
        if other != named:
            raise DataError(
                f"columns {first!r} and {column!r} of {table.path} both name the "
                "images, in different orders; leave one of them out"
            )


def _refuse_accident(table: Table, column: str, shown: Sequence[str]) -> None:
    """Refuse numbers that may be no names, though images are called by numbers."""
    meant = "".join(filter(str.isalnum, column)).lower() in NAMING
    if meant or not all(value.isdecimal() for value in _cells(table, column)):
        return
    raise DataError(
        f"column {column!r} of {table.path} may name the images ({shown[0]}, ...), but "
        "in another order than the rows; call it 'filename' if it does, else give its "
        "values another form"
    )
