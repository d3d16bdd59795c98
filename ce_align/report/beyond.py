"""Matrices beyond the paper: layers by areas, and overlap of networks."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.report.drawing import completed
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.origins import origins_of
from ce_align.report.selection import RAW_SETTINGS, comparable, network_labels
from ce_align.report.style import (
    letter,
    new_figure,
    style,
)

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["figure_layers", "figure_overlap", "heat_map"]

#: Regions along the ventral stream, in this order.
REGIONS = ("V1", "V2", "V4", "IT")
#: As many panels at most.
PANELS = 9


def heat_map(
    table: "pd.DataFrame", ax: "Axes", low: float, high: float, cmap: str = "viridis"
) -> "Axes":
    """Values of a table as colours, each written into its cell.

    Parameters
    ----------
    table : rows from top to bottom, columns from left to right; NaN stays empty
    ax : axes to draw into
    low, high : values of the first and the last colour
    cmap : colour map, from dark to light
    """
    values: NDArray[np.float64] = table.to_numpy(np.float64)
    # Two digits that differ, also among small shares of variance.
    digits = 2 if high >= 0.1 else 3
    ax.imshow(values, vmin=low, vmax=high, cmap=cmap, aspect="auto")
    size = 6.2 if values.shape[1] <= 6 else 5
    for i, k in np.ndindex(*values.shape):
        value = float(values[i, k])
        if np.isfinite(value):
            bright = (value - low) > 0.6 * (high - low)
            ax.text(
                k,
                i,
                f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−"),
                ha="center",
                va="center",
                fontsize=size,
                color="black" if bright else "white",
            )
    ax.set_xticks(range(values.shape[1]), [str(name) for name in table.columns])
    ax.set_yticks(range(values.shape[0]), [str(name) for name in table.index])
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    return ax


def figure_layers(material: Material, columns: int = 2) -> Drawn:
    """Raw predictivity by layer and area, a panel for each network."""
    import pandas as pd

    scored = material.stage("score")
    rows, notes = scored.rows, list(scored.notes)
    parts = [rows.iloc[:0]]
    if len(rows):
        rows = rows.assign(value=rows["raw"], origin=origins_of(rows))
        for recording, group in rows.groupby("recording", sort=True):
            found = comparable(group, RAW_SETTINGS, str(recording), keys=("layer",))
            notes += found.notes
            parts.append(found.rows)
    data = pd.concat(parts, ignore_index=True)
    if len(data):
        several = data.groupby("model")["layer"].nunique()
        single = list(several.index[several == 1])
        if single:
            notes.append(f"Left out, scored at one layer only: {named_some(single)}.")
        data = data[~data["model"].isin(single)]
    if data.empty:
        raise NothingToDraw(
            "the heat map of layers needs scores of several layers of a network; run "
            "`ce-align score --model NAME --layer all --recording ...`"
        )
    models = list(dict.fromkeys(data["model"]))
    if len(models) > PANELS:
        notes.append(f"The first {PANELS} of {len(models)} networks are shown.")
        models = models[:PANELS]
    data = data[data["model"].isin(models)]
    kept = ["model", "region", "recording", "layer", "value", "origin", "source"]
    data = data[[name for name in kept if name in data]].reset_index(drop=True)
    tables = {model: _layer_table(data[data["model"] == model]) for model in models}
    n_empty = sum(int(table.isna().to_numpy().sum()) for table in tables.values())
    if n_empty:
        notes.append(f"Empty: layers without a score for a recording, {n_empty}.")
    labels = network_labels(models)
    low, high = float(data["value"].min()), float(data["value"].max())
    across = min(len(models), 2 if columns == 2 else 1)
    down = -(-len(models) // across)
    tallest = max(len(table) for table in tables.values())
    with style():
        figure = new_figure(columns, down * (0.75 + 0.17 * tallest))
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for ax, (model, table) in zip(axes, tables.items(), strict=False):
            heat_map(table, ax, low, high)
            ax.set_title(labels[model])
            ax.set_ylabel("Layer, from the input up")
        for ax in axes[len(models) :]:
            ax.axis("off")
        bar = figure.colorbar(axes[0].images[0], ax=list(axes), pad=0.02, aspect=30)
        bar.set_label("Predictivity, Pearson r")
        bar.outline.set_visible(False)
    best = data.iloc[int(data["value"].argmax())]
    return completed(
        figure,
        data,
        material,
        notes,
        title="Predictivity by layer and area",
        caption="Raw predictivity (Pearson r) of each layer for each recording.",
        alt=f"Heat maps of predictivity, layers by areas. The highest is "
        f"{best['value']:.3f}: {best['layer']} of {best['model']} for "
        f"{best['recording']}.",
    )


def _layer_table(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Layers by recordings, recordings along the stream of areas."""
    order = {region: k for k, region in enumerate(REGIONS)}
    by_area = rows.assign(order=rows["region"].map(order).fillna(len(order)))
    by_area = by_area.sort_values(["order", "recording"])
    recordings = list(dict.fromkeys(by_area["recording"]))
    layers = list(dict.fromkeys(rows["layer"]))
    table = rows.pivot_table(index="layer", columns="recording", values="value")
    regions = dict(zip(rows["recording"], rows["region"], strict=True))
    table = table.loc[layers, recordings]
    names = [r if regions[r] in r else f"{r}\n{regions[r]}" for r in recordings]
    return table.set_axis(names, axis=1)


def figure_overlap(material: Material, columns: int = 2) -> Drawn:
    """Shared and unique parts of the explained variance, network by network."""
    import pandas as pd

    found = material.stage("overlap")
    rows, notes = found.rows, list(found.notes)
    if rows.empty:
        raise NothingToDraw(
            "the overlap matrix needs rows of `ce-align overlap`; run it for pairs of "
            "networks and one recording"
        )
    counts = rows.groupby("recording")["config_id"].nunique()
    recording = str(counts.idxmax())
    if len(counts) > 1:
        others = [str(name) for name in counts.index if name != recording]
        notes.append(f"{recording} is shown; there are rows for {named_some(others)}.")
    rows = rows[rows["recording"] == recording].sort_values("created", kind="stable")
    rows = rows.drop_duplicates(["model", "other", "metric"], keep="last")
    empty = pd.to_numeric(rows["value"], errors="coerce").isna()
    if empty.any():
        names = [
            f"{a} and {b}" for a, b in zip(rows["model"], rows["other"], strict=True)
        ]
        undefined = [n for n, gone in zip(names, empty, strict=True) if gone]
        notes.append(f"Without a value: {named_some(list(dict.fromkeys(undefined)))}.")
    rows = rows.assign(origin=origins_of(rows))
    cells = pd.DataFrame(_overlap_cells(rows))
    order = ["part", "network", "beside"]
    data = cells.drop_duplicates(order).sort_values(order, ignore_index=True)
    names = list(dict.fromkeys([*rows["model"], *rows["other"]]))
    labels = network_labels(names)
    pairs = len(names) * (len(names) - 1)
    n_absent = (pairs - int((data["part"] == "shared").sum())) // 2
    if n_absent:
        notes.append(f"{n_absent} pairs of networks were not compared.")
    down, across = (1, 2) if columns == 2 else (2, 1)
    with style():
        figure = new_figure(columns, down * (1.0 + 0.27 * len(names)))
        axes = figure.subplots(down, across, squeeze=False).ravel()
        for k, (ax, kind) in enumerate(zip(axes, ("shared", "unique"), strict=True)):
            own = data[data["part"] == kind]
            table = own.pivot_table(index="network", columns="beside", values="value")
            table = table.reindex(index=names, columns=names)
            table = table.rename(index=labels, columns=labels)
            high = float(own["value"].max())
            heat_map(table, ax, min(0.0, float(own["value"].min())), high or 1.0)
            ax.tick_params(axis="x", rotation=40)
            for label in ax.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
            words = (
                "explained by both" if kind == "shared" else "explained by row alone"
            )
            letter(ax, "AB"[k], f"$R^2$ {words}")
    return completed(
        figure,
        data,
        material,
        notes,
        title=f"Overlap of explained variance, {recording}",
        caption="Held-out R², mean over neuroids: A, explained by either network of a "
        "pair; B, what the network of the row adds to that of the column.",
        alt=f"Two matrices of {len(names)} networks: shared R² and unique R².",
    )


def _overlap_cells(rows: "pd.DataFrame") -> list[dict[str, object]]:
    """A cell for each ordered pair of networks and each part."""
    cells = []
    for row in rows.to_dict("records"):
        pair = row["model"], row["other"]
        part = row["metric"].removeprefix("overlap_")
        places = {
            "shared": [(*pair, "shared"), (*pair[::-1], "shared")],
            "unique_a": [(*pair, "unique")],
            "unique_b": [(*pair[::-1], "unique")],
        }
        cells += [
            {
                "part": kind,
                "network": network,
                "beside": beside,
                "value": row["value"],
                "recording": row["recording"],
                "n_neuroids": row["n_neuroids"],
                "origin": row["origin"],
                **({"source": row["source"]} if "source" in row else {}),
            }
            for network, beside, kind in places.get(part, ())
        ]
    return cells
