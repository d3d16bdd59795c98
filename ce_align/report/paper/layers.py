"""Figures layers, depth and time: which layer predicts which area, and when."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.report.fitting import shortened
from ce_align.report.inputs import Inputs
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.select import colours_and_labels
from ce_align.report.style import (
    GUIDE,
    INK,
    LETTERS,
    broken,
    heat_map,
    legend_above,
    letter,
    panel_grid,
    style,
)
from ce_align.stages.comparable import (
    RAW_SETTINGS,
    TIME_SETTINGS,
    Selection,
    comparable,
    pooled,
)
from ce_align.stages.scores import BEST

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["figure_depth", "figure_layers", "figure_time"]

#: Regions along the ventral stream, in this order.
REGIONS = ("V1", "V2", "V4", "IT")
#: As many heat maps of layers at most.
MOST_MAPS = 9
#: As many layers have their names below an axis at most, and letters of a name.
MOST_NAMES, LONGEST = 8, 12
#: As many letters of a recording's name above a panel.
LONGEST_NAME = 20
#: Around a cell; no colour of the heat map is near it.
FRAME = "#e69f00"
#: Label of the axis of raw predictivity.
RAW = "Predictivity, r"


def _by_layer(inputs: Inputs, what: str) -> Selection:
    """Raw predictivity at every layer of networks that were scored at several.

    That of the best, chosen by other images, is among them as the last one.
    """
    import pandas as pd

    scored = inputs.stage("score").then(pooled)
    rows, notes = scored.rows, list(scored.notes)
    parts = [rows.iloc[:0]]
    if len(rows):
        rows = rows.assign(value=rows["raw"])
        for recording, group in rows.groupby("recording", sort=True):
            found = comparable(group, RAW_SETTINGS, str(recording), keys=("layer",))
            notes += found.notes
            parts.append(found.rows)
    data = pd.concat(parts, ignore_index=True)
    if len(data):
        several = data[data["layer"] != BEST].groupby("model")["layer"].nunique()
        several = several.reindex(data["model"].unique(), fill_value=0)
        single = list(several.index[several < 2])
        if single:
            notes.append(f"Left out, scored at one layer only: {named_some(single)}.")
        data = data[~data["model"].isin(single)]
    if data.empty:
        raise NothingToDraw(
            f"the {what} needs scores of several layers of a network; run "
            "`ce-align score --model NAME --layer all --recording ...`"
        )
    return Selection(_from_the_input_up(data), tuple(notes))


def _from_the_input_up(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows in the order of layers; a stage is left out beside its last block.

    Rows that do not say how deep their layer is come in the order of its name, numbers
    by size.
    """
    import pandas as pd

    chosen = rows[rows["layer"] == BEST]
    rows = rows[rows["layer"] != BEST].reset_index(drop=True)
    known = "layer_depth" in rows and bool(rows["layer_depth"].notna().all())
    keys = pd.DataFrame({"model": pd.factorize(rows["model"])[0]})
    if known:
        keys = keys.assign(depth=rows["layer_depth"], length=-rows["layer"].str.len())
    else:
        names = sorted(set(rows["layer"]), key=_natural)
        keys = keys.assign(name=rows["layer"].map(names.index))
    ordered = rows.loc[keys.sort_values(list(map(str, keys)), kind="stable").index]
    if known:
        ordered = ordered.drop_duplicates(["model", "recording", "layer_depth"])
    return pd.concat([ordered, chosen], ignore_index=True)


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """A key by which ``block10`` comes after ``block9``."""
    parts = re.split(r"(\d+)", name)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)


def figure_layers(inputs: Inputs, columns: int = 2) -> Drawn:
    """Raw predictivity by layer and area, a panel for each network."""
    found = _by_layer(inputs, "heat map of layers")
    data, notes = _with_choices(found.rows, inputs), list(found.notes)
    models = list(dict.fromkeys(data["model"]))
    if len(models) > MOST_MAPS:
        notes.append(f"The first {MOST_MAPS} of {len(models)} networks are shown.")
        models = models[:MOST_MAPS]
    kept = ["model", "region", "recording", "layer", "value", "chosen"]
    kept += ["origin", "source"]
    data = data[data["model"].isin(models)].reset_index(drop=True)
    data = data[[name for name in kept if name in data]]
    tables = {model: _layer_table(data[data["model"] == model]) for model in models}
    n_empty = sum(int(table.isna().to_numpy().sum()) for table in tables.values())
    if n_empty:
        notes.append(f"Empty: layers without a score for a recording, {n_empty}.")
    labels = inputs.labels
    low, high = float(data["value"].min()), float(data["value"].max())
    # One network is not stretched over a whole page.
    across = 2 if columns == 2 else 1
    tallest = max(len(table) for table in tables.values())
    n_lines = max(name.count("\n") for t in tables.values() for name in t.columns)
    with style():
        figure, axes, _ = panel_grid(
            columns, len(models), across, 0.75 + 0.17 * tallest + 0.1 * n_lines
        )
        for k, (ax, (model, table)) in enumerate(
            zip(axes, tables.items(), strict=True)
        ):
            heat_map(table, ax, low, high)
            _mark_chosen(ax, table, data[data["model"] == model])
            letter(ax, LETTERS[k] if len(models) > 1 else "", labels[model])
            ax.set_ylabel("Layer, from the input up")
        # Beside the first row of panels.
        size: Any = {"shrink": across / max(len(models), across), "anchor": (0, 1)}
        cells = axes[0].collections[0]
        bar = figure.colorbar(cells, ax=axes, pad=0.02, aspect=20, **size)
        bar.set_label(RAW)
        bar.outline.set_visible(False)
    nested, told = data[data["layer"] == BEST], ""
    if len(nested):
        told = (
            f" Below, {BEST}: each split's test images predicted from the layer that "
            "its training images choose (nested); framed: the layers that most splits "
            "chose. The largest value of a column is no such number: it was chosen "
            "among layers by the images that it reports."
        )
    best = data.iloc[int(data["value"].argmax())]
    return completed(
        figure,
        data,
        inputs,
        notes,
        title="Predictivity by layer and area",
        caption="Raw predictivity of each layer for each recording: Pearson r between "
        "predicted and recorded responses, median over neuroids, mean over splits; not "
        f"divided by a ceiling. One scale of colour for all networks.{told}",
        alt=f"Heat maps of predictivity, layers by areas. The highest is "
        f"{best['value']:.3f}: {best['layer']} of {best['model']} for "
        f"{best['recording']}.",
    )


def _with_choices(rows: "pd.DataFrame", inputs: Inputs) -> "pd.DataFrame":
    """Rows with the share of splits that chose their layer, where one was chosen."""
    shares: dict[tuple[str, str, str], float] = {}
    for row in rows[rows["layer"] == BEST].to_dict("records"):
        arrays = inputs.arrays("score", row["config_id"])
        names = [] if arrays is None else arrays["layer"].values.astype(str).tolist()
        for name in set(names):
            key = (row["model"], row["recording"], name)
            shares[key] = names.count(name) / len(names)
    keys = zip(rows["model"], rows["recording"], rows["layer"], strict=True)
    return rows.assign(chosen=[shares.get(key, np.nan) for key in keys])


def _mark_chosen(ax: "Axes", table: "pd.DataFrame", rows: "pd.DataFrame") -> None:
    """Set the best apart, and frame the layer that most splits chose for each area."""
    from matplotlib.patches import Rectangle

    if BEST not in table.index:
        return
    ax.axhline(len(table) - 1, color="white", linewidth=4)
    for column, recording in enumerate(_stream(rows)):
        own = rows[(rows["recording"] == recording) & rows["chosen"].notna()]
        if len(own):
            layer = own["layer"].iloc[int(own["chosen"].argmax())]
            corner = (column + 0.03, list(table.index).index(layer) + 0.06)
            look: Any = {"fill": False, "edgecolor": FRAME, "linewidth": 1.3}
            ax.add_patch(Rectangle(corner, 0.94, 0.88, **look))


def _stream(rows: "pd.DataFrame") -> dict[str, str]:
    """Recordings with their region, along the stream of areas."""
    order = {region: k for k, region in enumerate(REGIONS)}
    by_area = rows.assign(order=rows["region"].map(order).fillna(len(order)))
    by_area = by_area.sort_values(["order", "recording"])
    return dict(zip(by_area["recording"], by_area["region"], strict=True))


def _layer_table(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Layers by recordings, recordings along the stream of areas."""
    regions = _stream(rows)
    table = rows.pivot_table(index="layer", columns="recording", values="value")
    table = table.loc[list(dict.fromkeys(rows["layer"])), list(regions)]
    areas = ["" if area in name else f"{area}\n" for name, area in regions.items()]
    names = [area + broken(name) for name, area in zip(regions, areas, strict=True)]
    return table.set_axis(names, axis=1)


def figure_depth(inputs: Inputs, columns: int = 2) -> Drawn:
    """Raw predictivity against the depth of the layer, a panel for each recording."""
    found = _by_layer(inputs, "figure against depth")
    rows = found.rows[found.rows["layer"] != BEST]
    layers = {
        model: list(dict.fromkeys(own["layer"]))
        for model, own in rows.groupby("model", sort=False)
    }
    depth = [
        layers[model].index(layer) / (len(layers[model]) - 1)
        for model, layer in zip(rows["model"], rows["layer"], strict=True)
    ]
    error = rows["error"].astype(float)
    data = rows.assign(
        depth=depth, low=rows["value"] - error, high=rows["value"] + error
    )
    recordings = _stream(data)
    short = shortened(recordings, LONGEST_NAME) or {name: name for name in recordings}
    looks = colours_and_labels(data, inputs.labels)
    across, height = (
        (min(4, max(2, len(recordings))), 1.7) if columns == 2 else (2, 1.5)
    )
    same = len({tuple(names) for names in layers.values()}) == 1
    with style():
        figure, axes, _ = panel_grid(
            columns, len(recordings), across, height, 0.3, sharey=True
        )
        for k, (ax, (name, region)) in enumerate(
            zip(axes, recordings.items(), strict=True)
        ):
            own = data[data["recording"] == name]
            for model, (colour, label) in looks.items():
                line = own[own["model"] == model].sort_values("depth")
                _banded(ax, line, "depth", colour, label)
            letter(
                ax, LETTERS[k], name if region in name else f"{region}\n{short[name]}"
            )
            ax.set_xlim(-0.06, 1.06)
            if same:
                _name_layers(ax, next(iter(layers.values())))
            else:
                ax.set_xticks([0, 0.5, 1], ["first", "", "last"])
            ax.set_xlabel("Layer" if same else "Depth of layer")
        for ax in axes[::across]:
            ax.set_ylabel(RAW)
        legend_above(figure, axes, columns)
    best = data.iloc[int(data["value"].argmax())]
    kept = ["model", "recording", "region", "layer", "depth", "value", "low", "high"]
    spaced = "evenly" if same else "evenly from the first to the last that was scored"
    return completed(
        figure,
        data[[*kept, *(name for name in ("origin", "source") if name in data)]],
        inputs,
        found.notes,
        title="Predictivity against depth",
        caption="Raw predictivity (Pearson r, median over neuroids, mean over splits; "
        f"not divided by a ceiling) of each layer, for each recording; layers are "
        f"spaced {spaced}. Bands: ± one standard error over splits. The vertical axis "
        "begins where the data do.",
        alt=f"Line plots against depth for {counted(len(looks), 'network')} and "
        f"{counted(len(recordings), 'recording')}. The highest is "
        f"{best['value']:.3f}: {best['layer']} of "
        f"{inputs.labels[best['model']]} for {best['recording']}.",
    )


def _name_layers(ax: "Axes", names: list[str]) -> None:
    """Names of layers below an axis, as many as there is room for."""
    step = -(-len(names) // MOST_NAMES)
    chosen = range(0, len(names), step)
    short = [n if len(n) <= LONGEST else f"…{n[1 - LONGEST :]}" for n in names]
    ax.set_xticks([k / (len(names) - 1) for k in chosen], [short[k] for k in chosen])
    ax.tick_params(axis="x", rotation=40)
    for label in ax.get_xticklabels():
        label.set(ha="right", rotation_mode="anchor")


def _banded(
    ax: "Axes", line: "pd.DataFrame", x: str, colour: object, label: str
) -> None:
    """A line with its band and, where there is room, its marks."""
    if line.empty:
        return
    place, low, high = (line[name].to_numpy(float) for name in (x, "low", "high"))
    ax.fill_between(place, low, high, color=colour, alpha=0.18, linewidth=0)
    marks: Any = {"marker": "o", "markersize": 2.6} if len(line) <= 16 else {}
    ax.plot(place, line["value"], color=colour, label=label, **marks)


def figure_time(inputs: Inputs, columns: int = 2) -> Drawn:
    """Raw predictivity against time after stimulus onset, a panel for each region."""
    import pandas as pd

    found = inputs.stage("score", where=_is_bin)
    data, notes = _moments(found.rows), list(found.notes)
    parts = []
    for (name, region), group in data.groupby(["recording", "region"], sort=False):
        chosen = comparable(
            group, TIME_SETTINGS, f"{name}, {region}", keys=("time_start", "time_end")
        )
        notes += chosen.notes
        parts.append((f"{name}, {region}", chosen.rows))
    if not parts:
        raise NothingToDraw(
            "the figure against time needs scores of several time bins; run `ce-align "
            "score --time all` for a recording that has them"
        )
    looks = colours_and_labels(data, inputs.labels)
    across, height = (2, 1.9) if columns == 2 else (1, 1.7)
    with style():
        figure, axes, _ = panel_grid(columns, len(parts), across, height, 0.3)
        for k, (ax, (title, points)) in enumerate(zip(axes, parts, strict=True)):
            for model, (colour, label) in looks.items():
                own = points[points["model"] == model].sort_values("time")
                _banded(ax, own, "time", colour, label)
            _ceiling_line(ax, points)
            if points["low"].min() < 0:
                ax.axhline(0, color=GUIDE, linewidth=0.6, zorder=0)
            ax.set_xlabel("Time after onset (ms)")
            letter(ax, LETTERS[k] if len(parts) > 1 else "", title)
        for ax in axes[::across]:
            ax.set_ylabel(RAW)
        legend_above(figure, axes, columns)
    drawn = pd.concat([points for _, points in parts])
    best = drawn.iloc[int(drawn["value"].argmax())]
    kept = ["model", "recording", "region", "time_start", "time_end", "value", "error"]
    kept += [name for name in ("ceiling", "origin", "source") if name in drawn]
    return completed(
        figure,
        drawn[kept],
        inputs,
        notes,
        title="Predictivity against time",
        caption="Raw predictivity (Pearson r, median over neuroids, mean over splits; "
        "not divided by a ceiling) of the responses in each time bin, at its middle. "
        "Bands: ± one standard error over splits. Dotted, where responses were "
        "repeated: √ceiling of each bin, which a perfect model would reach.",
        alt=f"Line plots against time for {counted(len(looks), 'network')}. "
        f"The highest is "
        f"{best['value']:.3f}, {inputs.labels[best['model']]} at {best['time']:g} ms.",
    )


def _ceiling_line(ax: "Axes", points: "pd.DataFrame") -> None:
    """Square root of the ceiling of each time bin, the same for all networks."""
    if "ceiling" not in points:
        return
    known = points[points["ceiling"].astype(float) > 0]
    ceiling = known.groupby("time")["ceiling"].first().astype(float)
    if len(ceiling) > 1:
        ax.plot(ceiling.index, ceiling**0.5, ":", color=INK, label="√ceiling")


def _is_bin(rows: "pd.DataFrame") -> "pd.Series[bool]":
    """Rows of a time window, of all animals together."""
    if "time_start" not in rows:
        return rows["stage"].isna()
    pooled = rows["animal"].isna() if "animal" in rows else rows["stage"].notna()
    return rows["time_start"].notna() & pooled


def _moments(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of bins, which are as wide as most, of recordings with several."""
    if rows.empty:
        return rows.assign(recording=[], region=[])
    start = rows["time_start"].to_numpy(np.float64)
    end = rows["time_end"].to_numpy(np.float64)
    raw = rows["raw"].to_numpy(np.float64)
    error = rows["error"].astype(float).fillna(0).to_numpy(np.float64)
    rows = rows.assign(
        value=raw,
        low=raw - error,
        high=raw + error,
        time=(start + end) / 2,
        width=(end - start).round(6),
    )
    by_part = rows.groupby(["recording", "region"])
    usual = by_part["width"].transform(lambda widths: widths.mode().iloc[0])
    rows = rows[rows["width"] == usual]
    several = rows.groupby(["recording", "region"])["time"].transform("nunique") > 1
    return rows[several]
