"""Rows of ce_align 0.1: what they do not say of their networks and their data."""

from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align.data.named import RECORDINGS
from ce_align.data.scenes import SIMULATED_IMAGES
from ce_align.models.catalogue import facts_of, label_of, training_facts
from ce_align.names import plain_path
from ce_align.results import FACTS, LABELLED, SECOND, NetworkFacts, ResultStore

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["completed", "stored_documents", "stored_rows"]


def stored_documents(
    store: ResultStore, stage: str | None = None, *, sound: bool = False
) -> Iterator[dict[str, Any]]:
    """Every document of a store; rows without origin, facts, labels are completed.

    With `sound` those that cannot be read are left out, see `ResultStore.documents`.
    Networks have their names as configurations spell them.

    What they lack comes from the published networks, from the trainings at hand, and
    from the recordings and images that are known by name.
    """
    known = _Known()
    for document in store.documents(stage, sound=sound):
        rows = [{"stage": document["stage"], **row} for row in document["rows"]]
        for row in rows:
            if row.get("origin") is None:
                row |= known.columns(row, document.get("config"))
            for column, name in LABELLED.items():
                if row.get(name):
                    row[name] = plain_path(row[name])
                    row[column] = row.get(column) or label_of(row[name])
        yield {**document, "rows": rows}


def stored_rows(
    store: ResultStore, stage: str | None = None, *, sound: bool = False
) -> list[dict[str, Any]]:
    """Rows of `stored_documents`."""
    found = stored_documents(store, stage, sound=sound)
    return [row for one in found for row in one["rows"]]


def completed(rows: "pd.DataFrame") -> "pd.DataFrame":
    """A table of rows, completed in the same way."""
    import pandas as pd

    lacking = rows["model"].notna()
    if "origin" in rows:
        lacking &= rows["origin"].isna()
    rows = rows.assign(**{name: None for name in FACTS if name not in rows})
    if not lacking.any():
        return rows
    known = _Known()
    records = rows[lacking].to_dict("records")
    found = [known.columns({str(k): v for k, v in row.items()}) for row in records]
    filled = {}
    for name in dict.fromkeys(name for row in found for name in row):
        values = pd.Series(None, index=rows.index, dtype=object)
        if name in rows:
            values = rows[name].astype(object)
        values[lacking] = [row.get(name) for row in found]
        filled[name] = values
    return rows.assign(**filled)


class _Known:
    """What is known by name, each asked for once."""

    def __init__(self) -> None:
        self._facts = cache(facts_of)
        self._origin = cache(_origin_of_recording)

    def columns(
        self, row: Mapping[str, Any], settings: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Origin and facts of a row; what it says itself is kept.

        Parameters
        ----------
        row : with its stage
        settings : of its configuration; those of a training say more than its rows
        """
        stated = {k: v for k, v in row.items() if v is not None and v == v}
        network = self._facts(stated["model"]) if "model" in stated else NetworkFacts()
        found = network.columns()
        if stated.get("stage") == "train":
            training = training_facts({**stated, **(settings or {})}).columns()
            found |= {
                name: value for name, value in training.items() if value is not None
            }
        for role in ("other", "baseline"):
            if role in stated:
                second = self._facts(stated[role]).columns()
                found |= {f"{role}_{name}": second[name] for name in SECOND}
        found |= {name: stated[name] for name in found if name in stated}
        return found | {"origin": self._origin_of(stated, found["pretraining"])}

    def _origin_of(self, row: Mapping[str, Any], pretraining: str | None) -> str:
        if "imported_from" in row:
            return "imported"
        if "recording" in row:
            return self._origin(row["recording"])
        trained = row.get("stage") == "train"
        images = pretraining if trained else row.get("images")
        return "simulated" if images == SIMULATED_IMAGES else "files"


def _origin_of_recording(name: str) -> str:
    if name in RECORDINGS:
        return RECORDINGS[name].origin
    if not name.endswith(".nc"):
        return "recorded"
    from ce_align.data.netcdf import describe_file

    entry = describe_file(Path(name))
    return "imported" if entry is None else entry.origin
