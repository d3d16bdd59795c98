"""What was recorded during trainings, as curves."""

from typing import TYPE_CHECKING

import numpy as np

from ce_align.report.drawing import completed, legend_entries
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.selection import describe
from ce_align.report.style import (
    NEUTRAL,
    letter,
    new_figure,
    objective_colour,
    objective_label,
    objective_order,
    shade,
    style,
    weight_label,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["figure_training", "training_curves"]

#: What is drawn of a training, and its axis.
CURVES = {
    "loss": "Loss",
    "loss_invariant": "Invariant loss",
    "loss_equivariant": "Equivariant loss",
    "effective_rank": "Effective rank",
    "knn_top1": "Neighbours, top-1 (%)",
    "probe_top1": "Online probe, top-1 (%)",
}
#: Shares that are shown in percent.
PERCENT = ("knn_top1", "probe_top1")
#: Lines of fewer points have marks.
MARKED = 20


def training_curves(
    points: "pd.DataFrame", ax: "Axes", looks: dict[str, tuple[object, str]]
) -> "Axes":
    """One number of every training against the step.

    Parameters
    ----------
    points : columns ``model``, ``step``, ``value``
    ax : axes to draw into
    looks : colour and label of each network
    """
    for model, (colour, label) in looks.items():
        line = points[points["model"] == model]
        marker = "o" if len(line) < MARKED else ""
        ax.plot(
            line["step"], line["value"], color=colour, marker=marker, ms=2, label=label
        )
    ax.set_xlabel("Step")
    return ax


def figure_training(material: Material, columns: int = 2) -> Drawn:
    """Curves of every training whose history is at hand."""
    data = _recorded(material)
    if data.empty:
        raise NothingToDraw(
            "training curves need the folder of a training with its log; name it with "
            "`ce-align figures --which training --run FOLDER`"
        )
    looks = _looks(data)
    shown = [name for name in CURVES if name in set(data["curve"])]
    across = 3 if columns == 2 else 2
    down = -(-len(shown) // across)
    with style():
        figure = new_figure(columns, (1.6 if columns == 2 else 1.35) * down + 0.3)
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for k, name in enumerate(shown):
            training_curves(data[data["curve"] == name], axes[k], looks)
            letter(axes[k], "ABCDEF"[k], CURVES[name])
        for ax in axes[len(shown) :]:
            ax.axis("off")
        handles, labels = legend_entries(list(axes[: len(shown)]))
        n = 4 if columns == 2 else 2
        figure.legend(handles, labels, loc="outside upper left", ncols=n)
    absent = [CURVES[name] for name in CURVES if name not in shown]
    return completed(
        figure,
        data,
        material,
        [f"Not recorded: {', '.join(absent)}."] if absent else [],
        title="Training curves",
        caption="Numbers that were recorded during training; darker lines have a "
        "larger equivariance weight λ.",
        alt=f"{len(shown)} line plots against the step, for {len(looks)} trainings.",
    )


def _recorded(material: Material) -> "pd.DataFrame":
    """All points of all curves."""
    import pandas as pd

    parts = []
    for model, table in material.histories.items():
        about = describe(model)
        for name in CURVES:
            values = pd.to_numeric(table.get(name, pd.Series(dtype=float)))
            values = values[np.isfinite(values)]
            if len(values):
                part = pd.DataFrame({"curve": name, "model": model}, values.index)
                part = part.assign(objective=about["objective"], weight=about["weight"])
                part["step"] = table["step"]
                part["value"] = (100 if name in PERCENT else 1) * values
                simulated = str(about["pretraining"]).startswith("simulated")
                part["origin"] = "simulated" if simulated else "measured"
                parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _looks(data: "pd.DataFrame") -> dict[str, tuple[object, str]]:
    """Colour by objective and λ, and a label that tells networks apart."""
    known = data.drop_duplicates("model")
    named = known.dropna(subset=["objective", "weight"])
    objectives = objective_order(named["objective"])
    weights = sorted(set(named["weight"]))
    looks: dict[str, tuple[object, str]] = {}
    for objective in objectives:
        own = named[named["objective"] == objective].sort_values(["weight", "model"])
        for row in own.to_dict("records"):
            label = f"{objective_label(objective)}, λ = {weight_label(row['weight'])}"
            if (own["weight"] == row["weight"]).sum() > 1:
                label += f" ({row['model']})"
            # The lightest shade is too pale for a line.
            place = weights.index(row["weight"]) + 1
            colour = objective_colour(objective, objectives)
            looks[row["model"]] = shade(colour, place, len(weights) + 1), label
    for model in known["model"]:
        looks.setdefault(model, (NEUTRAL, model))
    return looks
