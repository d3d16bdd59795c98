"""Figures 2, 5 and 7: what is measured against the equivariance weight."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ce_align.report.curves import CurvePanel, curve_figure, describe_curves
from ce_align.report.differences import COMPARISON_TITLES, differences
from ce_align.report.drawing import completed
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.selection import (
    MEASURE_SETTINGS,
    Selection,
    average,
    comparable,
    main_recipe,
    missing_weights,
    with_networks,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ONLINE_METRICS", "figure_2", "figure_5", "figure_7", "online_points"]

#: Accuracy of the probe that was trained along: on validation images, else on views.
ONLINE_METRICS = ("probe_top1", "probe_train_top1")


def figure_2(material: Material, columns: int = 2) -> Drawn:
    """ΔD_B against λ for the four comparisons, and decoding R² against λ."""
    panels: dict[str, tuple[CurvePanel, Selection]] = {}
    for comparison, title in COMPARISON_TITLES.items():
        found = differences(material, comparison)
        points = average(found.rows) if len(found.rows) else found.rows
        panel = CurvePanel(title, "$\\Delta D_B$", points, zero=True)
        panels[comparison] = panel, found
    method, kind = _decoding(material)
    found = _decoding_points(material, method, "Decoding")
    panel = CurvePanel(f"Decoding, {kind}", "Held-out $R^2$", found.rows)
    panels[method] = panel, found
    shown, data, notes = _filled(panels)
    n_compared = sum(panel.zero for panel in shown)
    if not shown:
        raise NothingToDraw(
            "Figure 2 needs rows of `ce-align analyze --metric bures` and `--metric "
            "decoding` for networks of known λ; run `ce-align analyze --model paper`"
        )
    return completed(
        curve_figure(shown, columns),
        data,
        material,
        notes,
        title="Equivariant training changes the shape of variability",
        caption=_parts_of_figure_2(n_compared, len(shown)) + _bands(data),
        alt=f"{len(shown)} line plots against the equivariance weight, a line for each "
        f"objective. {describe_curves(data, 'panel')}",
    )


def _parts_of_figure_2(n_compared: int, n_panels: int) -> str:
    """What its panels show, by their letters; those without rows have none."""
    letters = "ABCDE"[:n_panels]
    compared, decoded = letters[:n_compared], letters[n_compared:]
    parts = ""
    if compared:
        ends = "–".join(dict.fromkeys((compared[0], compared[-1])))
        parts += (
            f"{ends}: expected difference of squared Bures distance from the network "
            "of the same objective at λ = 0, ΔD_B = D_B(λ = 0) − D_B(λ), on identical "
            "images and augmentation draws. "
        )
    if decoded:
        parts += (
            f"{decoded}: held-out R² of decoding augmentation parameters, mean over "
            "parameters. "
        )
    # A single panel has no letter.
    alone = parts.partition(": ")[2]
    return parts if n_panels > 1 else alone[0].upper() + alone[1:]


def figure_5(material: Material, columns: int = 2) -> Drawn:
    """Accuracy of the online probe against λ."""
    found = online_points(material)
    if found.rows.empty:
        raise NothingToDraw(
            "Figure 5 needs the accuracy of the online probe of networks that were "
            "trained here; run `ce-align train` on labelled images, then `ce-align "
            "transfer --online --model FOLDER`"
        )
    on = "validation images" if set(found.rows["metric"]) == {"probe_top1"} else "views"
    title = f"Online probe, {on}"
    points = found.rows.assign(value=100 * found.rows["value"])
    points = points.assign(low=100 * points["low"], high=100 * points["high"])
    notes = [*found.notes, *missing_weights(points, "Online probe")]
    return completed(
        curve_figure([CurvePanel(title, "Top-1 accuracy (%)", points)], columns),
        points,
        material,
        notes,
        title="In-distribution accuracy against the equivariance weight",
        caption=f"Top-1 accuracy, on {on}, of a linear classifier that was trained "
        f"along on detached features. {_bands(points)}",
        alt="Line plot of top-1 accuracy in percent against the equivariance weight. "
        + describe_curves(points, "metric"),
    )


def figure_7(material: Material, columns: int = 2) -> Drawn:
    """Decoding R² of weak views, and of views beyond the weak range."""
    method, kind = _decoding(material)
    titles = {f"{method}_weak": "Weak views", f"{method}_strong_only": "Strong views"}
    panels = {}
    for metric, title in titles.items():
        found = _decoding_points(material, metric, title, views=True)
        panels[metric] = CurvePanel(title, "Held-out $R^2$", found.rows), found
    shown, data, notes = _filled(panels)
    if not shown:
        raise NothingToDraw(
            "Figure 7 needs rows of `ce-align analyze --metric decoding` for networks "
            "of known λ; run `ce-align analyze --metric decoding --model paper`"
        )
    return completed(
        curve_figure(shown, columns),
        data,
        material,
        notes,
        title="Decoding of weak and of strong augmentations",
        caption=f"Held-out R² of decoding augmentation parameters ({kind}), mean over "
        "parameters: among views whose parameters are within the weak range, and among "
        f"those with a parameter beyond it. {_bands(data)}",
        alt=f"{len(shown)} line plots of R² against the equivariance weight. "
        + describe_curves(data, "panel"),
    )


def online_points(material: Material) -> Selection:
    """Accuracy of the online probe, averaged over networks; a column ``metric``."""
    found = material.stage(
        "train", where=lambda rows: rows["metric"].isin(ONLINE_METRICS)
    )
    rows = found.rows
    known = with_networks(rows)
    recipe = main_recipe(known.rows)
    notes = [*found.notes, *known.notes, *recipe.notes]
    for metric in ONLINE_METRICS:
        chosen = recipe.rows[recipe.rows["metric"] == metric] if len(rows) else rows
        found = comparable(chosen, ("data_digest",), "Online probe")
        if len(found.rows):
            points = average(found.rows).assign(metric=metric)
            return Selection(points, (*notes, *found.notes))
    return Selection(rows.iloc[:0], tuple(notes))


def _bands(points: "pd.DataFrame") -> str:
    """What the bands are, and that λ is no scale."""
    kinds = sorted(set(points["spread"]) - {"none"})
    words = f"Bands: {'; '.join(kinds)}. " if kinds else ""
    return words.replace("sd over", "mean ± sd over") + ("Weights λ are spaced evenly.")


def _filled(
    panels: dict[str, tuple[CurvePanel, Selection]],
) -> "tuple[list[CurvePanel], pd.DataFrame, list[str]]":
    """Panels that have points, all points with their panel, and what is missing."""
    import pandas as pd

    notes: list[str] = []
    shown, points = [], []
    for name, (panel, found) in panels.items():
        notes += found.notes
        if panel.points.empty:
            notes.append(f"{panel.title}: no rows.")
            continue
        notes += missing_weights(panel.points, panel.title)
        shown.append(panel)
        points.append(panel.points.assign(panel=name))
    data = pd.concat(points, ignore_index=True) if points else pd.DataFrame()
    return shown, data, notes


def _decoding(material: Material) -> tuple[str, str]:
    """Ridge if it was computed, else least squares."""
    rows = material.stage("analyze").rows
    ols = len(rows) and "decoding_ridge" not in set(rows["metric"])
    return ("decoding_ols", "OLS") if ols else ("decoding_ridge", "ridge")


def _decoding_points(
    material: Material, metric: str, what: str, *, views: bool = False
) -> Selection:
    """Points of one measure of decoding, of strong views where there are any.

    Parameters
    ----------
    views : tell networks trained on weak views apart, in a column ``views``
    """
    import pandas as pd

    found = material.stage("analyze", where=lambda rows: rows["metric"] == metric)
    chosen = found.rows
    if chosen.empty:
        return found
    rows = material.stage("analyze").rows
    # Weak views have nothing beyond the weak range.
    beyond = rows[rows["metric"].str.endswith("_strong_only") & rows["value"].notna()]
    strong = chosen["config_id"].isin(beyond["config_id"])
    known = with_networks(chosen[strong] if strong.any() else chosen)
    if known.rows.empty:
        return known
    weak = known.rows["recipe"].str.endswith(", weak_a").fillna(False).astype(bool)
    parts: Sequence[tuple[str, pd.DataFrame]] = [("", known.rows)]
    if views:
        parts = [("strong", known.rows[~weak]), ("weak", known.rows[weak])]
    points_of, notes = [], [*found.notes, *known.notes]
    for kind, part in parts:
        recipe = main_recipe(part)
        same = comparable(recipe.rows, MEASURE_SETTINGS, what)
        notes += [*recipe.notes, *same.notes]
        if len(same.rows):
            points = average(same.rows)
            points_of.append(points.assign(views=kind) if views else points)
    rows = known.rows.iloc[:0]
    if points_of:
        rows = pd.concat(points_of, ignore_index=True)
    return Selection(rows, tuple(notes))
