"""Stored results as the page shows them: each row with its place and its source."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from ce_align.errors import DataError
from ce_align.results import ResultStore

__all__ = ["Finder", "Source", "StoredRow", "read_sources"]

#: Columns of rows that were asked for, not found.
SETTINGS = {"equivariance_weight"}

#: An identifier that can be a fragment of an address as it stands.
PLAIN = re.compile(r"[0-9A-Za-z]{1,64}")


@dataclass(frozen=True)
class StoredRow:
    """One number, with its anchor in the page.

    Attributes
    ----------
    anchor : of its line in the table of all rows
    values : columns of the row
    """

    anchor: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """One stored configuration, its rows, and what computed them.

    Attributes
    ----------
    anchor : of its provenance in the page
    stage, config_id : where it is stored
    config : settings
    environment : versions and machine
    rows : in their order
    """

    anchor: str
    stage: str
    config_id: str
    config: Mapping[str, Any]
    environment: Mapping[str, str]
    rows: tuple[StoredRow, ...]

    @property
    def title(self) -> str:
        """What was computed, in a few words."""
        names = ("model", "model_a", "model_b", "metric", "recording", "dataset")
        parts = [str(self.config[n]) for n in names if self.config.get(n)]
        if not parts and self.rows:
            parts = [str(self.rows[0].values.get("model", ""))]
        return " · ".join(parts)

    @property
    def digests(self) -> dict[str, str]:
        """Digests of the weights, images and responses behind the rows."""
        found: dict[str, str] = {}
        for row in self.rows:
            for name, value in row.values.items():
                if name.endswith("digest") and value:
                    found.setdefault(name, str(value))
        return found

    def facts(self, name: str) -> str:
        """Distinct values of a column of the rows, such as version or created."""
        values = {str(row.values[name]) for row in self.rows if row.values.get(name)}
        return ", ".join(sorted(values))


def read_sources(results: Path, runs: Iterable[Path] = ()) -> list[Source]:
    """Every stored configuration, by stage and time.

    Parameters
    ----------
    results : folder of a `ResultStore`
    runs : folders of trainings, which hold results of their own

    Raises
    ------
    DataError
        If a file is not a result, or there are none.
    """
    found: dict[tuple[str, str], Mapping[str, Any]] = {}
    _collect(ResultStore(results), found)
    named = [
        str(row["model"])
        for document in list(found.values())
        for row in document["rows"]
        if row.get("model")
    ]
    for folder in dict.fromkeys([*runs, *map(Path, named)]):
        if (folder / "train").is_dir():
            _collect(ResultStore(folder), found, "train")
    if not found:
        raise DataError(
            f"no results in {results}; compute some, for example with `ce-align score "
            "--model pixels --recording simulated`"
        )
    documents = sorted(found.items(), key=lambda item: (item[0][0], _created(item[1])))
    return [
        _source(place, stage, document)
        for place, ((stage, _), document) in enumerate(documents)
    ]


def _collect(
    store: ResultStore,
    found: dict[tuple[str, str], Mapping[str, Any]],
    stage: str | None = None,
) -> None:
    for document in store.documents(stage):
        rows, config_id = document["rows"], str(document.get("config_id", ""))
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise DataError(
                f"{store.folder} holds a result {config_id} whose rows are none; "
                "delete it"
            )
        found.setdefault((str(document["stage"]), config_id), document)


def _created(document: Mapping[str, Any]) -> str:
    return max((str(row.get("created", "")) for row in document["rows"]), default="")


def _source(place: int, stage: str, document: Mapping[str, Any]) -> Source:
    config_id = str(document.get("config_id", ""))
    # What others wrote is shown, but never becomes part of an address unseen.
    plain = PLAIN.fullmatch(stage) and PLAIN.fullmatch(config_id)
    key = f"{stage}-{config_id}" if plain else str(place)
    rows = tuple(
        StoredRow(f"row-{key}-{n}", values) for n, values in enumerate(document["rows"])
    )
    return Source(
        f"source-{key}",
        stage,
        config_id,
        _mapping(document.get("config")),
        {name: str(v) for name, v in _mapping(document.get("environment")).items()},
        rows,
    )


def _mapping(value: object) -> dict[str, Any]:
    return {str(k): v for k, v in value.items()} if isinstance(value, dict) else {}


class Finder:
    """Finds the stored row that a number in a table or figure is taken from."""

    def __init__(self, sources: Sequence[Source]) -> None:
        self._rows: dict[float, list[StoredRow]] = {}
        for row in (row for source in sources for row in source.rows):
            found = (v for k, v in row.values.items() if k not in SETTINGS)
            numbers = {_rounded(v) for v in found if is_telling(v)}
            for number in numbers:
                self._rows.setdefault(number, []).append(row)

    def anchor(self, value: object, names: Iterable[object]) -> str | None:
        """Anchor of the row that holds `value`, or a hundredth of it, or None.

        Of rows with an equal number that one counts, the latest, which shares most of
        `names`, the words beside the number; one that shares none is equal by chance.
        """
        if not is_telling(value):
            return None
        wanted = {str(name) for name in names if isinstance(name, str)}
        best, most = None, 1
        # Shares of 1 are shown in percent.
        rows = self._rows.get(_rounded(value)) or self._rows.get(_rounded(value / 100))
        for row in rows or ():
            shared = len(wanted & {v for v in row.values.values() if type(v) is str})
            if shared >= most:
                best, most = row.anchor, shared
        return best


def _rounded(value: float) -> float:
    """To twelve digits, for a number that went through a table and back."""
    return float(f"{value:.12g}")


def is_telling(value: object) -> TypeGuard[float]:
    """Whether a number is no count: those are equal by chance."""
    return isinstance(value, float) and not value.is_integer() and value == value
