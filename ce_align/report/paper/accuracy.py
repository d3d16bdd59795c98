"""Tables 2, 3 and 4: accuracy of linear classifiers on frozen features."""

from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import named_some
from ce_align.models.catalogue import PAPER_IMAGES
from ce_align.report.inputs import Inputs
from ce_align.report.paper.curves import NO_ONLINE, online_points, online_words
from ce_align.report.paper.items import BuiltTable, NothingToDraw, Numbered, built
from ce_align.report.select import missing_weights, with_networks
from ce_align.report.style import objective_label, objective_order, weight_label
from ce_align.stages.comparable import TRANSFER_SETTINGS, comparable

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["DATASETS", "table_2", "table_3", "table_4"]

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

#: A cell of what was run and failed; a dash is one that was never run.
FAILED = "failed"

Line = dict[str, str | Numbered]


def table_2(inputs: Inputs) -> BuiltTable:
    """Transfer of the published networks, which were trained on ImageNet-1k."""
    return _transfer(inputs, own_ones=False)


def table_4(inputs: Inputs) -> BuiltTable:
    """Transfer of networks that were trained otherwise, each with its images."""
    return _transfer(inputs, own_ones=True)


def _transfer(inputs: Inputs, *, own_ones: bool) -> BuiltTable:
    import pandas as pd

    number, what = ("4", "of one's own") if own_ones else ("2", "that were published")
    known = inputs.stage("transfer").then(with_networks)
    rows = known.rows
    if len(rows):
        published = rows["pretraining"] == PAPER_IMAGES
        rows = rows[~published if own_ones else published]
    if rows.empty:
        raise NothingToDraw(
            f"Table {number} needs rows of `ce-align transfer` for networks {what}; "
            "run `ce-align transfer --model NAME --dataset cifar10 --root FOLDER`"
        )
    notes, latest = list(known.notes), []
    for name, group in rows.groupby("dataset", sort=True):
        title = DATASETS.get(str(name), str(name))
        found = comparable(group, TRANSFER_SETTINGS, title)
        latest.append(found.rows)
        notes += found.notes
    rows = pd.concat(latest, ignore_index=True)
    models = set(rows["model"])
    failed = {
        (str(one.config["model"]), str(one.config["dataset"]))
        for one in inputs.failures
        if one.stage == "transfer" and one.config["model"] in models
    }
    asked = {*rows["dataset"], *(name for _, name in failed)}
    datasets = [name for name in DATASETS if name in asked]
    datasets += sorted(asked - set(datasets))
    lines: list[Line] = []
    cells: list[dict[Hashable, Any]] = []
    without = []
    for objective in objective_order(rows["objective"]):
        group = rows[rows["objective"] == objective]
        keys = ["weight", "recipe", "model"]
        for (_, recipe, model), own in group.groupby(keys, sort=True):
            line: Line = {"Objective": objective_label(objective)}
            line["λ"] = weight_label(float(own["weight"].iloc[0]))
            if own_ones:
                line |= {"Network": str(model), "Trained on": str(recipe)}
            by_name = {row["dataset"]: row for row in own.to_dict("records")}
            for name in datasets:
                row, title = by_name.get(name), DATASETS.get(name, name)
                line[title] = "–"
                if (model, name) in failed and row is None:
                    line[title] = FAILED
                elif row is None:
                    without.append(f"{model} on {title}")
                else:
                    text = _percent(row["value"], row.get("sd"))
                    line[title] = Numbered(text, len(cells))
                    cells.append(row)
            lines.append(line)
    if absent := [title for name, title in DATASETS.items() if name not in datasets]:
        notes.append(f"No rows for {', '.join(absent)}.")
    if without:
        notes.append(f"No rows of {named_some(without)}.")
    if not own_ones:
        notes += _missing(rows)
    columns = ["model", "objective", "weight", "pretraining", "dataset", "value"]
    columns += ["sd", "n_runs", "origin", "source"]
    frame = pd.DataFrame(cells)[[name for name in columns if name in rows]]
    return built(
        # None of a single run is NaN in a column of numbers.
        frame.assign(sd=pd.to_numeric(frame["sd"])) if "sd" in frame else frame,
        lines,
        inputs,
        notes,
        title=f"Linear evaluation of networks {what}",
        caption="Top-1 accuracy in percent (Pets and Flowers: mean per class), mean ± "
        "standard deviation (sd) of the runs, which differ in the images that choose "
        "the penalty, of multinomial logistic regression on frozen features."
        + ("" if own_ones else f" Trained on {PAPER_IMAGES}."),
    )


def _percent(value: float, sd: float | None) -> str:
    """Mean ± sd in percent."""
    spread = "" if sd is None or np.isnan(sd) else f" ± {100 * sd:.1f}"
    return f"{100 * value:.1f}{spread}"


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


def table_3(inputs: Inputs) -> BuiltTable:
    """Accuracy of the probe that was trained along, objective by λ."""
    found = online_points(inputs)
    if found.rows.empty:
        raise NothingToDraw(f"Table 3 {NO_ONLINE}")
    points = found.rows.reset_index(drop=True)
    failed = {
        (str(one.config["objective"]), float(one.config["equivariance_weight"]))
        for one in inputs.failures
        if one.stage == "train"
    }
    objectives = [*points["objective"], *(objective for objective, _ in failed)]
    weights = sorted({*points["weight"], *(weight for _, weight in failed)})
    lines: list[Line] = []
    for objective in objective_order(objectives):
        line: Line = {"Objective": objective_label(objective)}
        for weight in weights:
            state = FAILED if (objective, weight) in failed else "–"
            line[f"λ = {weight_label(weight)}"] = state
        for place, row in enumerate(points.to_dict("records")):
            if row["objective"] == objective:
                text = _percent(row["value"], (row["high"] - row["low"]) / 2)
                line[f"λ = {weight_label(row['weight'])}"] = Numbered(text, place)
        lines.append(line)
    return built(
        points,
        lines,
        inputs,
        [*found.notes, *missing_weights(points, "Online probe")],
        title="Accuracy of the online probe",
        caption=f"Top-1 accuracy in percent on {online_words(points)}, of a linear "
        "classifier that was trained along on detached features. ±: "
        f"{_spread(points)}.",
    )


def _spread(points: "pd.DataFrame") -> str:
    """What follows ± in Table 3."""
    parts = []
    if (points["n_networks"] > 1).any():
        parts.append("standard deviation over networks of one objective and λ")
    if points["spread"].str.startswith("95 %").any():
        parts.append(
            "half a 95 % interval over the images classified (Wilson's), of one network"
        )
    return "; ".join(parts) or "none, for the spread is not known"
