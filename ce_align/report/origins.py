"""What numbers were computed from: an animal, a simulation, or a file of the user."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["mark_of", "origin_notes", "origins_of"]


def origins_of(rows: "pd.DataFrame") -> "pd.Series[str]":
    """``simulated``, ``imported`` or ``measured``, by what a row was computed from."""
    import pandas as pd

    found = pd.Series("measured", index=rows.index)
    for column in ("recording", "images", "dataset"):
        if column in rows:
            names = rows[column].map(str)
            found[[name.endswith(".nc") for name in names]] = "imported"
            found[[name.startswith("simulated") for name in names]] = "simulated"
    if "imported_from" in rows:
        found[rows["imported_from"].notna()] = "imported"
    if "pretraining" in rows:
        simulated = [str(name).startswith("simulated") for name in rows["pretraining"]]
        found[rows["stage"].eq("train") & np.array(simulated)] = "simulated"
    return found


def origin_notes(origins: Iterable[str], remark: str = "") -> list[str]:
    """Sentences on numbers that no animal and no photograph stands behind."""
    found = set(origins)
    notes = [remark] if remark else []
    if "simulated" in found:
        notes.append("Simulated: computed from procedural images or a simulated area.")
    if "imported" in found:
        notes.append("Imported: from a file of the user.")
    return notes


def mark_of(origins: Iterable[str], remark: str = "") -> str:
    """The tag above a figure; empty if all was measured."""
    found = set(origins)
    kinds = [kind for kind in ("simulated", "imported") if kind in found]
    if remark:
        return "SYNTHETIC ROWS" if "synthetic" in remark.lower() else remark
    if not kinds:
        return ""
    some = "SOME " if "measured" in found else ""
    return some + f"{' AND '.join(kinds)} data".upper()
