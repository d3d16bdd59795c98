"""Tables 2, 3 and 4: accuracy of linear classifiers on frozen features."""

from typing import TYPE_CHECKING

import numpy as np

from ce_align.checks import named_some
from ce_align.report.by_weight import online_points
from ce_align.report.drawing import merged
from ce_align.report.material import BuiltTable, Material, NothingToDraw
from ce_align.report.origins import origin_notes
from ce_align.report.selection import (
    PAPER_IMAGES,
    TRANSFER_SETTINGS,
    Selection,
    comparable,
    missing_weights,
    with_networks,
)
from ce_align.report.style import objective_label, objective_order, weight_label

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["table_2", "table_3", "table_4"]

#: Data sets in the paper's order, and their names.
DATASETS = {
    "cifar10": "CIFAR-10",
    "cifar100": "CIFAR-100",
    "pets": "Oxford-IIIT Pets",
    "dtd": "DTD",
    "flowers102": "Flowers-102",
    "food101": "Food-101",
}
#: The weights that the paper transfers.
PAPER_WEIGHTS = (0.0, 0.1)


def table_2(material: Material) -> BuiltTable:
    """Transfer of the published networks, which were trained on ImageNet-1k."""
    return _transfer(material, own=False)


def table_4(material: Material) -> BuiltTable:
    """Transfer of networks that were trained otherwise, each with its images."""
    return _transfer(material, own=True)


def _transfer(material: Material, *, own: bool) -> BuiltTable:
    import pandas as pd

    number, what = ("4", "of one's own") if own else ("2", "that were published")
    measured = material.stage("transfer")
    known = with_networks(measured.rows)
    rows = known.rows
    if len(rows):
        published = rows["pretraining"] == PAPER_IMAGES
        rows = rows[~published if own else published]
    if rows.empty:
        raise NothingToDraw(
            f"Table {number} needs rows of `ce-align transfer` for networks {what}; "
            "run `ce-align transfer --model NAME --dataset cifar10 --root FOLDER`"
        )
    if "sd" in rows:  # None of a single run is NaN from here
        rows = rows.assign(sd=pd.to_numeric(rows["sd"]))
    found = _latest(rows)
    rows = found.rows
    datasets = [name for name in DATASETS if name in set(rows["dataset"])]
    datasets += sorted(set(rows["dataset"]) - set(datasets))
    lines, shown, without = [], [], []
    for objective in objective_order(rows["objective"]):
        group = rows[rows["objective"] == objective]
        keys = ["weight", "recipe", "model"]
        for (_, recipe, model), cells in group.groupby(keys, sort=True):
            line = {"Objective": objective_label(objective)}
            line |= {"λ": weight_label(float(cells["weight"].iloc[0]))}
            if own:
                line |= {"Network": str(model), "Trained on": str(recipe)}
            by_name = {row["dataset"]: row for row in cells.to_dict("records")}
            for name in datasets:
                row = by_name.get(name)
                shown_as = DATASETS.get(name, name)
                line[shown_as] = "–"
                if row is None:
                    without.append(f"{model} on {shown_as}")
                else:
                    line[shown_as] = _cell(row["value"], row.get("sd", np.nan))
                    lines.append(row)
            shown.append(line)
    columns = ["model", "objective", "weight", "pretraining", "dataset", "value"]
    columns += [c for c in ("sd", "n_runs") if c in rows]
    frame = pd.DataFrame(lines)[[*columns, "origin"]].reset_index(drop=True)
    notes = [*measured.notes, *known.notes, *found.notes]
    if absent := [title for name, title in DATASETS.items() if name not in datasets]:
        notes.append(f"No rows for {', '.join(absent)}.")
    if without:
        notes.append(f"No rows of {named_some(without)}.")
    if not own:
        notes += _missing(rows)
    return BuiltTable(
        frame,
        pd.DataFrame(shown),
        f"Linear evaluation of networks {what}",
        "Top-1 accuracy in percent (Pets and Flowers: mean per class), mean ± sd of "
        "the runs, of multinomial logistic regression on frozen features."
        + ("" if own else f" Trained on {PAPER_IMAGES}."),
        (*origin_notes(frame["origin"], material.remark), *merged(notes)),
    )


def _latest(rows: "pd.DataFrame") -> Selection:
    """One row for each network and data set."""
    import pandas as pd

    notes: list[str] = []
    parts = []
    for name, group in rows.groupby("dataset", sort=True):
        found = comparable(group, TRANSFER_SETTINGS, DATASETS.get(str(name), str(name)))
        parts.append(found.rows)
        notes += found.notes
    return Selection(pd.concat(parts, ignore_index=True), tuple(notes))


def _cell(value: float, sd: float) -> str:
    """Mean ± sd in percent."""
    return f"{100 * value:.1f}" + (f" ± {100 * sd:.1f}" if np.isfinite(sd) else "")


def _missing(rows: "pd.DataFrame") -> list[str]:
    """Networks of the paper's table that have no row."""
    there = set(zip(rows["objective"], rows["weight"], strict=True))
    absent = [
        f"{objective_label(objective)} λ = {weight_label(weight)}"
        for objective in ("mmcr", "barlow", "simclr")
        for weight in PAPER_WEIGHTS
        if (objective, weight) not in there
    ]
    return [f"No rows of {', '.join(absent)}."] if absent else []


def table_3(material: Material) -> BuiltTable:
    """Accuracy of the probe that was trained along, objective by λ."""
    import pandas as pd

    found = online_points(material)
    points = found.rows
    if points.empty:
        raise NothingToDraw(
            "Table 3 needs the accuracy of the online probe of networks that were "
            "trained here; run `ce-align train` on labelled images, then `ce-align "
            "transfer --online --model FOLDER`"
        )
    weights = sorted(set(points["weight"]))
    shown = []
    for objective in objective_order(points["objective"]):
        own = points[points["objective"] == objective].set_index("weight")
        cells = {}
        for weight in weights:
            cells[f"λ = {weight_label(weight)}"] = "–"
            if weight in own.index:
                row = own.loc[weight]
                several = row["n_networks"] > 1
                sd = (row["high"] - row["value"]) if several else np.nan
                cells[f"λ = {weight_label(weight)}"] = _cell(row["value"], sd)
        shown.append({"Objective": objective_label(objective)} | cells)
    on = "validation images" if set(points["metric"]) == {"probe_top1"} else "views"
    notes = [*found.notes, *missing_weights(points, "Online probe")]
    return BuiltTable(
        points.reset_index(drop=True),
        pd.DataFrame(shown),
        "Accuracy of the online probe",
        f"Top-1 accuracy in percent, on {on}, of a linear classifier that was trained "
        "along on detached features; ± sd where several share objective and λ.",
        (*origin_notes(points["origin"], material.remark), *merged(notes)),
    )
