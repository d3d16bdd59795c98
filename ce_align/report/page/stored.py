"""What is stored, configuration by configuration, with anchors in the page."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from ce_align.errors import DataError
from ce_align.results import ResultStore

__all__ = ["Source", "StoredRow", "read_sources"]

#: An identifier that can be a fragment of an address as it stands.
PLAIN = re.compile(r"[0-9A-Za-z]{1,64}")

Documents = dict[tuple[str, str], Mapping[str, Any]]


class StoredRow(NamedTuple):
    """The columns of a row, and the anchor of its line in the table of all rows."""

    anchor: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """A stored configuration with its rows, and the versions that computed them."""

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
        parts = [*map(str, self.config.get("models") or ())]
        parts += [str(self.config[n]) for n in names if self.config.get(n)]
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
    found: Documents = {}
    _collect(ResultStore(results), found)
    named = [
        str(row["model"])
        for document in found.values()
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
    return [_source(place, *key, d) for place, (key, d) in enumerate(documents)]


def _collect(store: ResultStore, found: Documents, stage: str | None = None) -> None:
    for document in store.documents(stage, sound=True):
        config_id = document.get("config_id", "")
        found.setdefault((document["stage"], config_id), document)


def _created(document: Mapping[str, Any]) -> str:
    return max((str(row.get("created", "")) for row in document["rows"]), default="")


def _source(
    place: int, stage: str, config_id: str, document: Mapping[str, Any]
) -> Source:
    # What others wrote is shown, but never becomes part of an address unseen.
    plain = PLAIN.fullmatch(stage) and PLAIN.fullmatch(config_id)
    key = f"{stage}-{config_id}" if plain else str(place)
    config, environment = (
        {str(name): value for name, value in part.items()}
        if isinstance(part, dict)
        else {}
        for part in (document.get("config"), document.get("environment"))
    )
    return Source(
        f"source-{key}",
        stage,
        config_id,
        config,
        {name: str(value) for name, value in environment.items()},
        tuple(StoredRow(f"row-{key}-{n}", r) for n, r in enumerate(document["rows"])),
    )
