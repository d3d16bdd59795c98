"""Which scores a figure of predictivity shows."""

from typing import TYPE_CHECKING, Literal

from ce_align.checks import named_some
from ce_align.report.material import Material
from ce_align.report.selection import (
    RAW_SETTINGS,
    SCORE_SETTINGS,
    Selection,
    comparable,
    with_networks,
)
from ce_align.stages.score import with_ceiling_kinds

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["predictivity_points"]


def predictivity_points(
    material: Material, number: Literal["raw", "score"] = "raw"
) -> Selection:
    """Predictivity of every network and recording, one layer each.

    Scores that were imported are among them.

    Parameters
    ----------
    material : rows
    number : which of the two is the value; imported scores may have no raw correlation

    Returns
    -------
    Selection
        Rows with ``value`` the number, ``score`` raw² / ceiling, ``low`` and ``high``
        one standard error over splits, if the value is the raw correlation.
    """
    import pandas as pd

    known = material.stage("score", "imported").then(with_networks)
    if known.rows.empty:
        return known
    parts, notes = [], list(known.notes)
    column = {"raw": "raw", "score": "value"}[number]
    for recording in dict.fromkeys(known.rows["recording"]):
        own = with_ceiling_kinds(known.rows[known.rows["recording"] == recording])
        own = own.assign(score=own["value"], value=own[column])
        settings = RAW_SETTINGS if number == "raw" else SCORE_SETTINGS
        found = _one_layer(own).then(comparable, settings, str(recording))
        notes += found.notes
        parts.append(found.rows)
    joined = pd.concat(parts, ignore_index=True)
    error = joined["error"] if number == "raw" else float("nan")
    joined = joined.assign(low=joined["value"] - error, high=joined["value"] + error)
    return Selection(joined, tuple(notes))


def _one_layer(rows: "pd.DataFrame") -> Selection:
    """Of networks with several layers, the layer that most networks have."""
    counts = rows.groupby("model")["layer"].nunique()
    several = list(counts.index[counts > 1])
    if not several:
        return Selection(rows)
    shared = rows.groupby("layer")["model"].nunique()
    # Of equally common ones the last, which is nearest to IT.
    common = sorted(shared.index[shared == shared.max()])[-1]
    keep = ~rows["model"].isin(several) | (rows["layer"] == common)
    notes = [f"Of several layers, {common} is shown: {named_some(several)}."]
    lost = [name for name in several if name not in set(rows["model"][keep])]
    if lost:
        notes.append(f"Left out, not scored at {common}: {named_some(lost)}.")
    return Selection(rows[keep], tuple(notes))
