"""Tables 1–5 from rows."""

from typing import TYPE_CHECKING

from ce_align.report.differences import COMPARISON_TITLES
from ce_align.report.material import BuiltTable, Material, NothingToDraw
from ce_align.report.selection import origin_notes, origins_of

if TYPE_CHECKING:
    pass

__all__ = ["table_1"]

#: Measures of Table 1 and how it names them; the first decoding that there is counts.
TABLE_1 = {
    **COMPARISON_TITLES,
    "decoding_ridge": "Parameter decoding (ridge)",
    "decoding_ridge_hue": "Hue decoding (ridge)",
    "decoding_ols": "Parameter decoding (OLS)",
    "decoding_ols_hue": "Hue decoding (OLS)",
}


def table_1(material: Material) -> BuiltTable:
    """|r| and r² of each measure with predictivity on each recording."""
    import pandas as pd

    rows = material.stage("correlate")
    rows = rows[rows["measure"].isin(TABLE_1)] if len(rows) else rows
    if rows.empty:
        raise NothingToDraw(
            "Table 1 needs rows of `ce-align correlate` for the measures of `ce-align "
            "analyze`; run both for the same networks"
        )
    ridge = rows["measure"].str.startswith("decoding_ridge").any()
    if ridge:
        rows = rows[~rows["measure"].str.startswith("decoding_ols")]
    rows = rows.sort_values("created", kind="stable")
    latest = rows.drop_duplicates(["measure", "recording"], keep="last")
    notes = []
    if len(latest) < len(rows):
        n = len(rows) - len(latest)
        notes.append(f"{n} correlations are replaced by later ones.")
    recordings = list(dict.fromkeys(latest["recording"]))
    measures = [m for m in TABLE_1 if m in set(latest["measure"])]
    latest = latest.assign(origin=origins_of(latest))
    columns = ["measure", "recording", "abs_r", "r_squared", "value", "low", "high"]
    columns += ["spearman", "within", "p", "q", "n_networks", "origin"]
    frame = latest[columns].rename(columns={"value": "r"})
    order = {name: k for k, name in enumerate([*measures, *recordings])}
    frame = frame.sort_values(
        ["measure", "recording"], key=lambda column: column.map(order)
    ).reset_index(drop=True)
    cells = {
        (row.measure, row.recording): f"{row.abs_r:.2f} ({row.r_squared:.2f})"
        for row in frame.itertuples()
    }
    shown = pd.DataFrame(
        [
            {"Measure": TABLE_1[measure]}
            | {name: cells.get((measure, name), "–") for name in recordings}
            for measure in measures
        ]
    )
    absent = [
        TABLE_1[name]
        for name in TABLE_1
        if name not in measures and ("ols" in name) != ridge
    ]
    if absent:
        notes.append(f"No rows of {', '.join(absent)}.")
    counts = "/".join(map(str, sorted(set(frame["n_networks"].astype(int)))))
    return BuiltTable(
        frame,
        shown,
        "Representational measures and predictivity",
        f"|r| (r²) of Pearson correlation across {counts} networks between each "
        "measure and predictivity of each recording.",
        (*origin_notes(frame["origin"], material.remark), *notes),
    )
