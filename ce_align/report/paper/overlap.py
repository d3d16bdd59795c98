"""Figure overlap: what networks explain of neuroids, together and alone."""

from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.metrics.inference import benjamini_hochberg
from ce_align.report.inputs import Inputs
from ce_align.report.paper.correlations import forest_axes, mark_estimate
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.style import INK, LETTERS, heat_map, letter, new_figure, style

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figure_overlap"]

#: A difference whose q is smaller is filled.
LEVEL = 0.05
#: Height of a line of a forest, in inches.
PAIR = 0.17


def figure_overlap(inputs: Inputs, columns: int = 2) -> Drawn:
    """Shared and unique parts of the explained variance, network by network."""
    import pandas as pd

    found = inputs.stage("overlap")
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
    gone = rows[pd.to_numeric(rows["value"], errors="coerce").isna()]
    if len(gone):
        names = zip(gone["model"], gone["other"], strict=True)
        undefined = dict.fromkeys(f"{a} and {b}" for a, b in names)
        notes.append(f"Without a value: {named_some(list(undefined))}.")
    order = ["part", "network", "beside"]
    data = pd.DataFrame(_overlap_cells(rows)).drop_duplicates(order)
    data = data.sort_values(order, ignore_index=True)
    data = data.reindex(columns=[*data.columns, *({"p", "q"} - set(data.columns))])
    models = list(dict.fromkeys([*rows["model"], *rows["other"]]))
    labels = inputs.labels
    n_pairs = len(models) * (len(models) - 1)
    n_absent = (n_pairs - int((data["part"] == "shared").sum())) // 2
    if n_absent:
        notes.append(f"Not compared: {counted(n_absent, 'pair')} of networks.")
    words = {"shared": "explained by both", "unique": "explained by row alone"}
    values = data["value"][data["part"].isin(words)]
    low, high = min(0.0, float(values.min())), float(values.max())
    pairs = data[data["part"] == "difference"]
    tested = pairs["p"].notna()
    data.loc[pairs.index[tested], "q"] = benjamini_hochberg(pairs["p"][tested])
    matrix, forest = 1.0 + 0.27 * len(models), 0.55 + PAIR * len(pairs)
    heights = [matrix] * (2 // columns) + [forest] * bool(len(pairs))
    with style():
        figure = new_figure(columns, sum(heights))
        grid = figure.add_gridspec(len(heights), columns, height_ratios=heights)
        axes = [figure.add_subplot(grid[divmod(k, columns)]) for k in range(2)]
        for ax, name, (kind, what) in zip(axes, LETTERS, words.items(), strict=False):
            own = data[data["part"] == kind]
            table = own.pivot_table(index="network", columns="beside", values="value")
            table = table.reindex(index=models, columns=models)
            table = table.rename(index=labels, columns=labels)
            heat_map(table, ax, low, high or 1.0)
            ax.tick_params(axis="x", rotation=40)
            for label in ax.get_xticklabels():
                label.set(ha="right", rotation_mode="anchor")
            letter(ax, name, f"$R^2$ {what}")
        bar = figure.colorbar(axes[0].collections[0], ax=axes, pad=0.02, aspect=30)
        bar.set_label("Held-out $R^2$")
        bar.outline.set_visible(False)
        if len(pairs):
            ax = figure.add_subplot(grid[-1, :])
            pairs = data.loc[pairs.index]
            row: Any
            for place, row in enumerate(pairs.itertuples()):
                mark_estimate(ax, row, place, INK, -np.inf, hollow=not row.q < LEVEL)
            named = zip(pairs["network"], pairs["beside"], strict=True)
            forest_axes(ax, [f"{labels[a]} − {labels[b]}" for a, b in named])
            ax.set_xlabel("Held-out $R^2$")
            letter(ax, "C", "$R^2$ of the first − of the second")
    said = ""
    if len(pairs):
        said = (
            " C: R² of the first network minus that of the second, with 95 % intervals "
            "over neuroids (stimuli and folds are held fixed). Filled where q < .05: "
            f"the false discovery rate over {counted(len(pairs), 'pair')}, each tested "
            "by flipping the signs of neuroids."
        )
    return completed(
        figure,
        data,
        inputs,
        notes,
        title=f"Overlap of explained variance, {recording}",
        caption="Share of the variance of held-out responses, R², mean over neuroids. "
        "A: explained by both networks of a pair. B: explained by the network of the "
        "row and not by that of the column. A and B share one scale of colour; below 0 "
        f"the prediction is worse than the mean response.{said}",
        alt=f"Two matrices of {len(models)} networks: shared R² and unique R²"
        + (f"; differences of {counted(len(pairs), 'pair')}." if len(pairs) else "."),
    )


def _overlap_cells(rows: "pd.DataFrame") -> list[dict[Any, Any]]:
    """A cell for each ordered pair of networks and each part."""
    kept = ["value", "low", "high", "p", "recording", "n_neuroids", "origin", "source"]
    cells = []
    for row in rows.to_dict("records"):
        pair = row["model"], row["other"]
        places = {
            "overlap_shared": [("shared", *pair), ("shared", *pair[::-1])],
            "overlap_unique_a": [("unique", *pair)],
            "overlap_unique_b": [("unique", *pair[::-1])],
            "overlap_difference": [("difference", *pair)],
        }
        for part, network, beside in places.get(row["metric"], ()):
            cell = {"part": part, "network": network, "beside": beside}
            cells.append(cell | {name: row[name] for name in kept if name in row})
    return cells
