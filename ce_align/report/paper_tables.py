"""Tables 1 and 5: correlations, and what the comparisons are."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from ce_align.checks import named_some
from ce_align.report.differences import COMPARISON_TITLES, differences
from ce_align.report.drawing import Numbered, built
from ce_align.report.material import BuiltTable, Material, NothingToDraw
from ce_align.report.measure_names import measure_name
from ce_align.report.origins import origins_of
from ce_align.report.style import minus

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["because", "interval_words", "latest_correlations", "table_1", "table_5"]

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


#: Numbers of a correlation, in the order of the rows behind tables and figures.
NUMBERS = (
    *("value", "low", "high", "abs_r", "r_squared", "spearman"),
    *("within", "within_low", "within_high", "p", "q"),
    *("partial", "partial_low", "partial_high", "partial_p", "partial_q"),
    *("n_networks", "n_partial"),
)


def latest_correlations(material: Material) -> "tuple[pd.DataFrame, list[str]]":
    """The latest row of each measure and recording, with its origin, and notes.

    Rows of networks whose names stand for others by now are left out.
    """
    import pandas as pd

    found = material.stage("correlate")
    rows, notes = found.rows, list(found.notes)
    if rows.empty:
        return rows, notes
    rows = rows.sort_values("created", kind="stable")
    latest = rows.drop_duplicates(["measure", "recording"], keep="last")
    n = len(rows) - len(latest)
    if n:
        notes.append(f"{n} correlations are replaced by later ones.")
    empty = pd.to_numeric(latest["value"], errors="coerce").isna()
    if empty.any():
        pairs = latest[empty][["measure", "recording"]].itertuples(index=False)
        names = [f"{measure_name(str(m))} with {r}" for m, r in pairs]
        notes.append(f"No correlation is defined of {named_some(names)}.")
        latest = latest[~empty]
    columns = ["measure", "recording", *NUMBERS, "given", "interval", "note"]
    latest = latest.reindex(columns=list(dict.fromkeys([*latest, *columns])))
    old = latest["interval"].isna() & latest["low"].notna()
    if old.any():
        # Those of ce_align 0.1 took networks of one objective for independent.
        latest = latest.assign(
            low=latest["low"].mask(old), high=latest["high"].mask(old)
        )
        notes.append(
            "Intervals that do not say what they are over are left out; run `ce-align "
            "correlate` again."
        )
    latest = latest.assign(origin=origins_of(latest))
    columns += ["origin", *(["source"] if "source" in latest else [])]
    return latest[columns], [*notes, *_row_notes(latest)]


def _row_notes(rows: "pd.DataFrame") -> list[str]:
    """Notes of the rows, each with the measures that it is on."""
    notes = []
    for note, group in rows.groupby("note", sort=False):
        measures = list(dict.fromkeys(map(str, group["measure"])))
        of = (
            ""
            if len(group) == len(rows)
            else named_some(list(map(measure_name, measures)))
        )
        text = f"{of}: {note}." if of else f"{str(note)[0].upper()}{str(note)[1:]}."
        notes.append(text)
    return notes


def interval_words(rows: "pd.DataFrame") -> str:
    """What the intervals are over, and what r is given besides objective and λ."""
    over = named_some(list(dict.fromkeys(rows["interval"].dropna())))
    given = named_some(list(dict.fromkeys(rows["given"].dropna())))
    parts = [f"95 % intervals are over {over}" if over else "no interval is defined"]
    if over and rows["low"].isna().any():
        parts.append(
            "r itself has none, for a few objectives do not say how objectives vary"
        )
    if given:
        parts.append(f"given λ means given {given}")
    return "; ".join(parts)


def table_1(material: Material) -> BuiltTable:
    """|r| and r² of each measure with predictivity on each recording."""

    rows, notes = latest_correlations(material)
    rows = rows[rows["measure"].isin(TABLE_1)] if len(rows) else rows
    if rows.empty:
        raise NothingToDraw(
            "Table 1 needs rows of `ce-align correlate` for the measures of `ce-align "
            f"analyze`; run both for the same networks{because(notes)}"
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
        (row["measure"], row["recording"]): (row, place)
        for place, row in enumerate(frame.to_dict("records"))
    }
    lines: list[dict[str, str | Numbered]] = []
    for measure in measures:
        titles = (TABLE_1[measure], "… within objectives", "… given λ")
        for title, show in zip(titles, CELLS, strict=True):
            line: dict[str, str | Numbered] = {"Measure": title}
            for name in recordings:
                row, place = cells.get((measure, name), (None, -1))
                line[name] = Numbered(show(row), place) if row else "–"
            lines.append(line)
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
    return built(
        frame,
        lines,
        material,
        notes,
        title="Representational measures and predictivity",
        caption=f"|r| (r²) of the Pearson correlation across {counts} networks between "
        "each measure and the predictivity of each recording; below it r within "
        f"objectives and r given objective and λ; {interval_words(frame)}.",
    )


def because(notes: Sequence[str]) -> str:
    """Notes in brackets, behind what there is nothing to draw for."""
    return f" ({' '.join(notes)})" if notes else ""


def _plain(row: Mapping[Any, Any]) -> str:
    return f"{row['abs_r']:.2f} ({row['r_squared']:.2f})"


def _bounded(name: str, row: Mapping[Any, Any]) -> str:
    """A correlation with its interval, as far as both are defined."""
    import pandas as pd

    if pd.isna(row[name]):
        return "–"
    text = f"{row[name]:.2f}"
    if pd.notna(row[f"{name}_low"]):
        text += f" [{row[f'{name}_low']:.2f}, {row[f'{name}_high']:.2f}]"
    return minus(text)


#: What the lines of a measure show: r itself, within objectives, and given λ.
CELLS: tuple[Callable[[Mapping[Any, Any]], str], ...] = (
    _plain,
    partial(_bounded, "within"),
    partial(_bounded, "partial"),
)


def table_5(material: Material) -> BuiltTable:
    """What each comparison compares, and the sign of its difference."""
    import pandas as pd

    rows: list[dict[str, object]] = []
    lines: list[dict[str, str | Numbered]] = []
    notes: list[str] = []
    for name, (first, second, over, sign) in TABLE_5.items():
        found = differences(material, name)
        points = found.rows[found.rows["weight"] > 0] if len(found.rows) else found.rows
        n, n_positive, origin, text = len(points), 0, "none", "–"
        if n:
            n_positive = int((points["value"] > 0).sum())
            origin = "+".join(sorted(set(points["origin"])))
            text = f"{n_positive} of {n}"
            notes += found.notes
        else:
            notes.append(f"{COMPARISON_TITLES[name]}: no rows.")
        lines.append(
            {
                "Comparison": COMPARISON_TITLES[name],
                "First cloud": first,
                "Second cloud": second,
                "Mean over": over,
                "Sign of ΔD_B in the paper": sign,
                "Networks here with ΔD_B > 0": Numbered(text, len(rows)),
            }
        )
        rows.append(
            {
                "comparison": name,
                "first_cloud": first,
                "second_cloud": second,
                "mean_over": over,
                "sign_in_paper": sign,
                "n_networks": n,
                "n_positive": n_positive,
                "origin": origin,
            }
        )
    return built(
        pd.DataFrame(rows),
        lines,
        material,
        notes,
        title="The four comparisons of variability",
        caption="Clouds of responses whose covariances are compared by squared Bures "
        "distance; ΔD_B = D_B(λ = 0) − D_B(λ).",
    )
