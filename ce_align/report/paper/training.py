"""Figure training: what was recorded during trainings, against the step."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from ce_align.checks import counted
from ce_align.data.scenes import SIMULATED_IMAGES
from ce_align.report.inputs import Inputs
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import colours_and_labels
from ce_align.report.style import (
    LETTERS,
    legend_above,
    letter,
    objective_label,
    objective_order,
    panel_grid,
    style,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figure_training"]

#: Both parts of the loss, and the style of their lines.
LOSSES: Mapping[str, Literal["-", "--"]] = {
    "loss_invariant": "-",
    "loss_equivariant": "--",
}
#: What else is drawn of a training: its title, and its scale (shares in percent).
CURVES = {
    "effective_rank": ("Effective rank", 1),
    "online_predictivity": ("Predictivity of a recording", 1),
    "knn_top1": ("Neighbours, top-1 (%)", 100),
    "probe_top1": ("Online probe, top-1 (%)", 100),
    "probe_epoch_top1": ("Probe on an epoch's views, top-1 (%)", 100),
    "probe_train_top1": ("Probe on a step's views, top-1 (%)", 100),
}
#: Lines of fewer points have marks.
MARKED = 20


def figure_training(inputs: Inputs, columns: int = 2) -> Drawn:
    """Curves of every training whose history is at hand."""
    data = _recorded(inputs)
    if data.empty:
        raise NothingToDraw(
            "training curves need the folder of a training with its log; name it with "
            "`ce-align figures --which training --runs FOLDER`"
        )
    networks = colours_and_labels(data, inputs.labels)
    panels = _training_panels(data)
    across, height = (3, 1.6) if columns == 2 else (2, 1.35)
    with style():
        figure, axes, _ = panel_grid(columns, len(panels), across, height, 0.3)
        for k, (title, points) in enumerate(panels):
            ax = axes[k]
            for model, (colour, label) in networks.items():
                own = points[points["model"] == model]
                for curve, line in own.groupby("curve", sort=False):
                    ax.plot(
                        line["step"],
                        line["value"],
                        LOSSES.get(str(curve), "-"),
                        color=colour,
                        marker="o" if len(line) < MARKED else "",
                        ms=2,
                        label=label,
                    )
            ax.set_xlabel("Step")
            letter(ax, LETTERS[k], title)
        parts = LOSSES if "loss_equivariant" in set(data["curve"]) else {}
        kinds = {f"{n.removeprefix('loss_')} loss": line for n, line in parts.items()}
        legend_above(figure, axes, columns, kinds)
    there = set(data["curve"])
    absent = {name: title for name, (title, _) in CURVES.items() if name not in there}
    # Views stand in for validation images where there are none.
    if "probe_top1" not in absent:
        absent.pop("probe_train_top1", None)
    absent.pop("probe_epoch_top1", None)  # of ce_align 0.1
    absent.pop("online_predictivity", None)  # only where it is asked for
    stronger = ""
    if data["weight"].nunique() > 1:
        stronger = "; the stronger the colour, the larger the equivariance weight λ"
    return completed(
        figure,
        data,
        inputs,
        [f"Not recorded: {', '.join(absent.values())}."] if absent else [],
        title="Training curves",
        caption=f"Numbers that were recorded during training{stronger}. Losses of "
        "different objectives have different scales. Effective rank: exponential of "
        "the entropy of the spectrum of the features' covariance. Neighbours: accuracy "
        "of the nearest neighbours in feature space. Probe: a linear classifier that "
        "is trained along on detached features."
        + (
            " Predictivity: score of the recording that training was asked to follow."
            if "online_predictivity" in there
            else ""
        ),
        alt=f"{counted(len(panels), 'line plot')} against the step, for "
        f"{counted(len(networks), 'training')}.",
    )


def _training_panels(data: "pd.DataFrame") -> "list[tuple[str, pd.DataFrame]]":
    """Title and points: losses, a panel for each objective, then every other curve."""
    losses = data[data["curve"].isin([*LOSSES, "loss"])]
    unknown = losses["objective"].isna()
    panels = [
        (f"Loss, {objective_label(name)}", losses[losses["objective"] == name])
        for name in objective_order(losses["objective"][~unknown])
    ]
    if unknown.any():
        panels.append(("Loss", losses[unknown]))
    parts = [(title, data[data["curve"] == n]) for n, (title, _) in CURVES.items()]
    return [*panels, *(part for part in parts if len(part[1]))]


def _recorded(inputs: Inputs) -> "pd.DataFrame":
    """All points of all curves."""
    import pandas as pd

    stored: dict[tuple[str, str], object] = {}
    if len(inputs.rows) and "source" in inputs.rows:
        rows = inputs.rows[inputs.rows["stage"] == "train"]
        names = zip(rows["model"], rows["metric"], strict=True)
        stored = dict(zip(names, rows["source"], strict=True))
    parts = []
    for model, table in inputs.histories.items():
        facts = inputs.facts(model)
        simulated = facts.pretraining == SIMULATED_IMAGES
        # The whole loss, their weighted mean, only where its parts are not there.
        losses = [name for name in LOSSES if name in table] or ["loss"]
        for name in (*losses, *CURVES):
            values = pd.to_numeric(table.get(name, pd.Series(dtype=float)))
            values = values[np.isfinite(values)]
            if len(values):
                part = pd.DataFrame({"curve": name, "model": model}, values.index)
                weight = facts.equivariance_weight
                part = part.assign(objective=facts.objective, weight=weight)
                part["step"] = table["step"]
                part["value"] = CURVES.get(name, ("", 1))[1] * values
                part["origin"] = "simulated" if simulated else "files"
                # What a training ended with is a row.
                end = [None] * (len(part) - 1) + [stored.get((model, name))]
                part["source"] = pd.Series(end, part.index, dtype=object)
                parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()
