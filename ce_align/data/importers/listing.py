"""Tables of stimuli: the image of each line, and the line of each row."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ce_align.checks import check_unique, named_some
from ce_align.data.imagefiles import find_names, is_image_name
from ce_align.errors import DataError
from ce_align.files import check_regular

__all__ = ["Table", "lines_of_rows", "listed_images", "read_table"]

#: Headers of a column that is meant to name images, without case and signs.
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
        with check_regular(path).open(newline="", encoding="utf-8-sig") as file:
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
