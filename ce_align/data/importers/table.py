"""Long tables: one row a trial, or one row for each neuroid of a trial."""

from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.importers.common import (
    Importer,
    Request,
    counted,
    find_images,
    finished,
)
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.files import check_regular, reading_archive

__all__ = ["TABLE"]

SUFFIXES = (".csv", ".parquet")
#: Columns that describe a neuroid, one value each.
DESCRIBING = ("animal", "region", "reliability")
#: Names of columns that are taken where no key names another.
ROLES = ("stimulus", "neuroid", "value", "trial", *DESCRIBING)


def _table(path: Path) -> Any:
    """The table, with columns as they are stored."""
    import pandas as pd

    if not path.exists():
        raise DataError(f"there is no table {path}")
    if path.suffix == ".parquet":
        try:
            with reading_archive(path, "parquet table"):
                return pd.read_parquet(path, engine="pyarrow")
        except ImportError as error:
            raise ConfigError(
                f"{path.name} needs pyarrow (pip install 'ce-align[parquet]'), or save "
                "it as csv"
            ) from error
    with reading_archive(path, "csv table"):
        # The default parser is off by the last digit.
        return pd.read_csv(check_regular(path), float_precision="round_trip")


def _read(asked: Request) -> Recording:
    keys = asked.keys(*ROLES, "neuroids")
    table = _table(asked.path)
    names = [str(name) for name in table.columns]
    columns: dict[str, str] = {}
    for role in ROLES:
        name = keys.get(role, role)
        if name in names:
            columns[role] = name
        elif role in keys:
            raise DataError(
                f"{asked.path.name} has no column {name}; it has "
                f"{named_some(names, 12)}"
            )
    if "stimulus" not in columns:
        raise DataError(
            f"{asked.path.name} has no column 'stimulus' that names the image of each "
            f"row; name it (--key stimulus=COLUMN) out of {named_some(names, 12)}"
        )
    stimuli = table[columns["stimulus"]].astype(str)
    shown, place = np.unique(stimuli.to_numpy(dtype=str), return_inverse=True)
    if "neuroid" in columns or "value" in columns:
        responses, neuroids = _long(asked, table, columns, place)
    else:
        pattern = keys.get("neuroids", "*")
        wide = [
            name
            for name in names
            if fnmatchcase(name, pattern) and name not in columns.values()
        ]
        values = _numbers(asked, table, wide)
        asked.tell(
            f"each row is a presentation, with {len(wide)} columns of neuroids: "
            f"{named_some(wide)}"
        )
        responses, neuroids = counted(values, place), {"neuroid_id": np.array(wide)}
    return finished(asked, find_images(asked, shown.tolist()), responses, neuroids)


def _numbers(asked: Request, table: Any, names: list[str]) -> NDArray[np.float64]:
    """Values of columns, (n_rows, n_columns)."""
    other = [name for name in names if table[name].dtype.kind not in "iuf"]
    if other or not names:
        raise DataError(
            f"{asked.path.name} must have a column of numbers for each neuroid, or the "
            f"columns 'neuroid' and 'value'; found {named_some(other) or 'none'} "
            "(--key neuroids='unit_*' names them)"
        )
    values: NDArray[np.float64] = table[names].to_numpy(dtype=np.float64)
    return values


def _long(
    asked: Request, table: Any, columns: dict[str, str], stimulus: NDArray[Any]
) -> tuple[Presentations, dict[str, NDArray[Any]]]:
    """Presentations of a row for each neuroid of a trial, and the neuroids' columns.

    Where a column numbers the trials, neuroids of one number share a presentation;
    else each neuroid's responses to a stimulus are numbered in the order of the rows.
    """
    absent = [role for role in ("neuroid", "value") if role not in columns]
    if absent:
        raise DataError(
            f"{asked.path.name} has no column {absent[0]!r}; name it (--key "
            f"{absent[0]}=COLUMN)"
        )
    named = {
        role: table[columns[role]].astype(str).to_numpy(dtype=str)
        for role in ("neuroid", "animal")
        if role in columns
    }
    # Two animals may have a site of one name.
    both = np.stack(list(named.values()), axis=1)
    _, first, neuroid = np.unique(both, axis=0, return_index=True, return_inverse=True)
    neuroid = neuroid.ravel()
    values = _numbers(asked, table, [columns["value"]])[:, 0]
    n_neuroids = len(first)
    if "trial" in columns:
        trials = table[columns["trial"]].astype(str).to_numpy(dtype=str)
        _, begun, trial = np.unique(trials, return_index=True, return_inverse=True)
        if (stimulus[begun][trial] != stimulus).any():
            raise DataError(
                f"column {columns['trial']} of {asked.path.name} must number single "
                "presentations, but one number has several stimuli; leave it out, or "
                "number them through"
            )
        row, order = trial.ravel(), np.argsort(begun)
        shown = stimulus[begun]
        found = counted(np.zeros((len(begun), 0)), shown[order])
        repetition = np.empty(len(begun), dtype=np.intp)
        repetition[order] = found.repetition
    else:
        turn = counted(np.zeros((len(values), 0)), stimulus * n_neuroids + neuroid)
        slots, row = np.unique(
            np.stack([stimulus, turn.repetition], axis=1), axis=0, return_inverse=True
        )
        row, shown, repetition = row.ravel(), slots[:, 0], slots[:, 1]
    cells = row * n_neuroids + neuroid
    if n_twice := len(cells) - len(np.unique(cells)):
        raise DataError(
            f"{n_twice} rows of {asked.path.name} repeat both the trial and the "
            "neuroid of another; number the presentations"
        )
    filled = np.full((len(shown), n_neuroids), np.nan)
    filled[row, neuroid] = values
    described: dict[str, NDArray[Any]] = {"neuroid_id": named["neuroid"][first]}
    for role in DESCRIBING:
        if role in columns:
            held = table[columns[role]]
            kept = (
                held.to_numpy(np.float64)
                if role == "reliability"
                else held.astype(str).to_numpy(dtype=str)
            )
            if (kept[first][neuroid] != kept).any():
                raise DataError(
                    f"column {columns[role]} of {asked.path.name} differs within a "
                    "neuroid"
                )
            described[role] = kept[first]
    return Presentations(filled, shown.astype(np.intp), repetition), described


TABLE = Importer(
    name="table",
    holds="a csv or parquet table: one row a trial with a column a neuroid, or the "
    "columns stimulus, neuroid, value",
    recognises=lambda path: path.suffix in SUFFIXES,
    read=_read,
    takes=("key",),
    needs=("images",),
)
