"""Figure overlap: what networks explain of neuroids, together and alone."""

from typing import TYPE_CHECKING, Any

from ce_align.checks import named_some
from ce_align.report.inputs import Inputs
from ce_align.report.paper.items import Drawn, NothingToDraw, completed
from ce_align.report.style import LETTERS, heat_map, letter, panel_grid, style

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["figure_overlap"]


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
    models = list(dict.fromkeys([*rows["model"], *rows["other"]]))
    labels = inputs.labels
    n_pairs = len(models) * (len(models) - 1)
    n_absent = (n_pairs - int((data["part"] == "shared").sum())) // 2
    if n_absent:
        notes.append(f"{n_absent} pairs of networks were not compared.")
    words = {"shared": "explained by both", "unique": "explained by row alone"}
    low, high = min(0.0, float(data["value"].min())), float(data["value"].max())
    with style():
        figure, axes, _ = panel_grid(columns, 2, columns, 1.0 + 0.27 * len(models))
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
    return completed(
        figure,
        data,
        inputs,
        notes,
        title=f"Overlap of explained variance, {recording}",
        caption="Share of the variance of held-out responses (R², mean over neuroids) "
        "that is explained A, by both networks of a pair alike, and B, by that of the "
        "row beyond that of the column; both on one scale of colour. Below 0 the "
        "prediction is worse than the mean response.",
        alt=f"Two matrices of {len(models)} networks: shared R² and unique R².",
    )


def _overlap_cells(rows: "pd.DataFrame") -> list[dict[Any, Any]]:
    """A cell for each ordered pair of networks and each part."""
    kept = ["value", "recording", "n_neuroids", "origin", "source"]
    cells = []
    for row in rows.to_dict("records"):
        pair = row["model"], row["other"]
        places = {
            "overlap_shared": [("shared", *pair), ("shared", *pair[::-1])],
            "overlap_unique_a": [("unique", *pair)],
            "overlap_unique_b": [("unique", *pair[::-1])],
        }
        for part, network, beside in places.get(row["metric"], ()):
            cell = {"part": part, "network": network, "beside": beside}
            cells.append(cell | {name: row[name] for name in kept if name in row})
    return cells
