"""Tables 1 and 5: correlations, and what the comparisons are."""

from typing import TYPE_CHECKING

from ce_align.checks import named_some
from ce_align.report.differences import COMPARISON_TITLES, differences
from ce_align.report.drawing import merged
from ce_align.report.material import BuiltTable, Material, NothingToDraw
from ce_align.report.measure_names import measure_name
from ce_align.report.origins import origin_notes, origins_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["latest_correlations", "table_1", "table_5"]

#: Measures of Table 1 and how it names them.
TABLE_1 = {
    **COMPARISON_TITLES,
    "decoding_ridge": "Parameter decoding (ridge)",
    "decoding_ridge_hue": "Hue decoding (ridge)",
    "decoding_ols": "Parameter decoding (OLS)",
    "decoding_ols_hue": "Hue decoding (OLS)",
}

#: Both clouds of each comparison, what the mean is over, and the paper's sign of ΔD_B.
TABLE_5 = {
    "augmentation_augmentation": (
        "augmentations of image i",
        "augmentations of image j",
        "image pairs",
        "+",
    ),
    "augmentation_centroid": (
        "mean responses to every image, over its augmentations",
        "augmentations of one image",
        "images",
        "−",
    ),
    "spatial_photometric": (
        "photometric variability, averaged over crops",
        "spatial variability, averaged over photometrics",
        "images",
        "−",
    ),
    "class_class": ("images of class a", "images of class b", "class pairs", "+"),
}


def latest_correlations(material: Material) -> "tuple[pd.DataFrame, list[str]]":
    """The latest row of each measure and recording, with its origin, and notes."""
    import pandas as pd

    rows = material.stage("correlate")
    if rows.empty:
        return rows, []
    rows = rows.sort_values("created", kind="stable")
    latest = rows.drop_duplicates(["measure", "recording"], keep="last")
    columns = ["measure", "recording", "value", "low", "high", "abs_r", "r_squared"]
    columns += ["spearman", "within", "p", "q", "n_networks", "origin"]
    n = len(rows) - len(latest)
    notes = [f"{n} correlations are replaced by later ones."] if n else []
    empty = pd.to_numeric(latest["value"], errors="coerce").isna()
    if empty.any():
        pairs = latest[empty][["measure", "recording"]].itertuples(index=False)
        names = [f"{measure_name(str(m))} with {r}" for m, r in pairs]
        notes.append(f"No correlation is defined of {named_some(names)}.")
        latest = latest[~empty]
    return latest.assign(origin=origins_of(latest))[columns], notes


def table_1(material: Material) -> BuiltTable:
    """|r| and r² of each measure with predictivity on each recording."""
    import pandas as pd

    rows, notes = latest_correlations(material)
    rows = rows[rows["measure"].isin(TABLE_1)] if len(rows) else rows
    if rows.empty:
        raise NothingToDraw(
            "Table 1 needs rows of `ce-align correlate` for the measures of `ce-align "
            "analyze`; run both for the same networks"
        )
    ridge = rows["measure"].str.startswith("decoding_ridge").any()
    if ridge:
        rows = rows[~rows["measure"].str.startswith("decoding_ols")]
    recordings = list(dict.fromkeys(rows["recording"]))
    measures = [name for name in TABLE_1 if name in set(rows["measure"])]
    order = {name: k for k, name in enumerate([*measures, *recordings])}
    frame = rows.sort_values(
        ["measure", "recording"], key=lambda column: column.map(order)
    ).reset_index(drop=True)
    cells = {
        (row["measure"], row["recording"]): (
            f"{row['abs_r']:.2f} ({row['r_squared']:.2f})"
        )
        for row in frame.to_dict("records")
    }
    shown = pd.DataFrame(
        [
            {"Measure": TABLE_1[measure]}
            | {name: cells.get((measure, name), "–") for name in recordings}
            for measure in measures
        ]
    )
    absent = [
        title
        for name, title in TABLE_1.items()
        if name not in measures and ("ols" in name) != ridge
    ]
    if absent:
        notes.append(f"No rows of {', '.join(absent)}.")
    without = [
        f"{TABLE_1[measure]} with {name}"
        for measure in measures
        for name in recordings
        if (measure, name) not in cells
    ]
    if without:
        notes.append(f"No rows of {named_some(without)}.")
    counts = "/".join(map(str, sorted(set(frame["n_networks"].astype(int)))))
    return BuiltTable(
        frame,
        shown,
        "Representational measures and predictivity",
        f"|r| (r²) of the Pearson correlation across {counts} networks between each "
        "measure and the predictivity of each recording.",
        (*origin_notes(frame["origin"], material.remark), *merged(notes)),
    )


def table_5(material: Material) -> BuiltTable:
    """What each comparison compares, and the sign of its difference."""
    import pandas as pd

    rows, origins = [], set()
    notes: list[str] = []
    for name, (first, second, over, sign) in TABLE_5.items():
        found = differences(material, name)
        points = found.rows[found.rows["weight"] > 0] if len(found.rows) else found.rows
        n, n_positive = len(points), 0
        if n:
            n_positive = int((points["value"] > 0).sum())
            notes += found.notes
            origins |= set(points["origin"])
        else:
            notes.append(f"{COMPARISON_TITLES[name]}: no rows.")
        rows.append(
            {
                "comparison": name,
                "first_cloud": first,
                "second_cloud": second,
                "mean_over": over,
                "sign_in_paper": sign,
                "n_networks": n,
                "n_positive": n_positive,
                "origin": "+".join(sorted(set(points["origin"]))) if n else "none",
            }
        )
    frame = pd.DataFrame(rows)
    shown = pd.DataFrame(
        {
            "Comparison": [COMPARISON_TITLES[name] for name in frame["comparison"]],
            "First cloud": frame["first_cloud"],
            "Second cloud": frame["second_cloud"],
            "Mean over": frame["mean_over"],
            "Sign of ΔD_B in the paper": frame["sign_in_paper"],
            "Networks here with ΔD_B > 0": [
                f"{positive} of {n}" if n else "–"
                for positive, n in zip(
                    frame["n_positive"], frame["n_networks"], strict=True
                )
            ],
        }
    )
    return BuiltTable(
        frame,
        shown,
        "The four comparisons of variability",
        "Clouds of responses whose covariances are compared by squared Bures distance; "
        "ΔD_B = D_B(λ = 0) − D_B(λ).",
        (*origin_notes(origins, material.remark), *merged(notes)),
    )
