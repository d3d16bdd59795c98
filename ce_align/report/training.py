"""What was recorded during trainings, as curves."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np

from ce_align.report.curves import NARROW
from ce_align.report.drawing import completed, legend_entries
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.selection import describe
from ce_align.report.style import (
    INK,
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
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["figure_training", "training_curves"]

#: Both parts of the loss, and the style of their lines.
LOSSES: Mapping[str, Literal["-", "--"]] = {
    "loss_invariant": "-",
    "loss_equivariant": "--",
}
#: What else is drawn of a training, and its title.
CURVES = {
    "effective_rank": "Effective rank",
    "knn_top1": "Neighbours, top-1 (%)",
    "probe_top1": "Online probe, top-1 (%)",
    "probe_train_top1": "Probe on views, top-1 (%)",
}
#: Shares that are shown in percent.
PERCENT = ("knn_top1", "probe_top1", "probe_train_top1")
#: Lines of fewer points have marks.
MARKED = 20


def training_curves(
    points: "pd.DataFrame", ax: "Axes", looks: dict[str, tuple[object, str]]
) -> "Axes":
    """Numbers of every training against the step.

    Parameters
    ----------
    points : columns ``curve``, ``model``, ``step``, ``value``
    ax : axes to draw into
    looks : colour and label of each network
    """
    for model, (colour, label) in looks.items():
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
    panels = _panels(data)
    across = 3 if columns == 2 else 2
    down = -(-len(panels) // across)
    with style():
        figure = new_figure(columns, (1.6 if columns == 2 else 1.35) * down + 0.3)
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for k, (title, points) in enumerate(panels):
            training_curves(points, axes[k], looks)
            letter(axes[k], "ABCDEFGHIJKL"[k], title)
            if columns == 1:
                axes[k].title.set_fontsize(NARROW)
        for ax in axes[len(panels) :]:
            ax.axis("off")
        _legend(figure, legend_entries(list(axes[: len(panels)])), data, columns)
    absent = [title for name, title in CURVES.items() if name not in set(data["curve"])]
    # Views stand in for validation images where there are none.
    if CURVES["probe_top1"] not in absent:
        absent = [title for title in absent if title != CURVES["probe_train_top1"]]
    return completed(
        figure,
        data,
        material,
        [f"Not recorded: {', '.join(absent)}."] if absent else [],
        title="Training curves",
        caption="Numbers that were recorded during training; darker lines have a "
        "larger equivariance weight λ. Losses of different objectives have different "
        "scales.",
        alt=f"{len(panels)} line plots against the step, for {len(looks)} trainings.",
    )


def _panels(data: "pd.DataFrame") -> "list[tuple[str, pd.DataFrame]]":
    """Title and points: losses, a panel for each objective, then every other curve."""
    losses = data[data["curve"].isin([*LOSSES, "loss"])]
    unknown = losses["objective"].isna()
    panels = [
        (f"Loss, {objective_label(name)}", losses[losses["objective"] == name])
        for name in objective_order(losses["objective"][~unknown])
    ]
    if unknown.any():
        panels.append(("Loss", losses[unknown]))
    found = set(data["curve"])
    return panels + [
        (title, data[data["curve"] == name])
        for name, title in CURVES.items()
        if name in found
    ]


def _legend(
    figure: "Figure",
    entries: "tuple[list[Artist], list[str]]",
    data: "pd.DataFrame",
    columns: int,
) -> None:
    """Networks, and what a dashed line is, above all panels."""
    from matplotlib.lines import Line2D

    handles, labels = entries
    if "loss_equivariant" in set(data["curve"]):
        for name, line in LOSSES.items():
            handles.append(Line2D([], [], color=INK, linestyle=line))
            labels.append(f"{name.removeprefix('loss_')} loss")
    # As many columns as fit: names of trainings are as long as their folders'.
    for n in range(4 if columns == 2 else 2, 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper left", ncols=n)
        if n == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


def _recorded(material: Material) -> "pd.DataFrame":
    """All points of all curves."""
    import pandas as pd

    stored: dict[tuple[str, str], object] = {}
    if "source" in material.rows:
        rows = material.rows[material.rows["stage"] == "train"]
        names = zip(rows["model"], rows["metric"], strict=True)
        stored = dict(zip(names, rows["source"], strict=True))
    parts = []
    for model, table in material.histories.items():
        about = describe(model)
        # The whole loss, their weighted mean, only where its parts are not there.
        losses = [name for name in LOSSES if name in table] or ["loss"]
        for name in (*losses, *CURVES):
            values = pd.to_numeric(table.get(name, pd.Series(dtype=float)))
            values = values[np.isfinite(values)]
            if len(values):
                part = pd.DataFrame({"curve": name, "model": model}, values.index)
                part = part.assign(objective=about["objective"], weight=about["weight"])
                part["step"] = table["step"]
                part["value"] = (100 if name in PERCENT else 1) * values
                simulated = str(about["pretraining"]).startswith("simulated")
                part["origin"] = "simulated" if simulated else "measured"
                # What a training ended with is a row.
                end = [None] * (len(part) - 1) + [stored.get((model, name))]
                part["source"] = pd.Series(end, part.index, dtype=object)
                parts.append(part)
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _looks(data: "pd.DataFrame") -> dict[str, tuple[object, str]]:
    """Colour by objective and λ, and a label of each colour."""
    known = data.drop_duplicates("model")
    named = known.dropna(subset=["objective", "weight"])
    objectives = objective_order(named["objective"])
    weights = sorted(set(named["weight"]))
    looks: dict[str, tuple[object, str]] = {}
    for objective in objectives:
        own = named[named["objective"] == objective].sort_values(["weight", "model"])
        for row in own.to_dict("records"):
            label = f"{objective_label(objective)}, λ = {weight_label(row['weight'])}"
            n_alike = int((own["weight"] == row["weight"]).sum())
            if n_alike > 1:
                label += f" ({n_alike} trainings)"
            # The lightest shade is too pale for a line.
            place = weights.index(row["weight"]) + 1
            colour = objective_colour(objective, objectives)
            looks[row["model"]] = shade(colour, place, len(weights) + 1), label
    for model in known["model"]:
        looks.setdefault(model, (NEUTRAL, model))
    return looks
