"""Figures of analyses: functions take rows and axes, return axes; saving is apart."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeGuard

import numpy as np

from ce_align.augment import PARAMETER_NAMES
from ce_align.checks import named_some
from ce_align.errors import DataError
from ce_align.report.looks import network_colours
from ce_align.report.measure_names import measure_name
from ce_align.report.selection import interval_over
from ce_align.report.style import (
    GUIDE,
    NEUTRAL,
    WIDTHS,
    finish,
    save_figure,
    style,
)
from ce_align.stages.plan import GEOMETRY_FAMILIES
from ce_align.stages.variability import COMPARISONS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ce_align.stages.correlate import CorrelationRow
    from ce_align.stages.measures import MeasureRow

__all__ = ["correlation_forest", "measure_forest", "save_correlations", "save_measures"]

#: A correlation that chance does not explain; that within objectives; that given λ.
SIGNIFICANT, WITHIN, PARTIAL = "#0072b2", "#d55e00", "#009e73"
#: What the marks of `correlation_forest` mean.
FOREST_KEY = (
    "Dot: r, blue if q < 0.05. Orange: r within objectives. Green: r given λ, too. "
    "Lines: 95 % intervals over networks within objectives."
)
#: Places of the three beside each other.
ABOVE, BELOW = -0.25, 0.25
#: Height of one mark, and of title and axis, in inches.
MARK, FRAME = 0.11, 0.75
#: Smaller shares of variance are drawn at this edge.
LEAST = -0.5

#: Title, axis, common prefix of the measures, and what follows it; panels without rows
#: are left out.
PANELS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    ("Shapes of variability", "$D_B$", "", tuple(COMPARISONS)),
    (
        "Above the floor of equal sources",
        "excess of $D_B$",
        "",
        tuple(f"{name}_excess" for name in COMPARISONS),
    ),
    (
        "Against the baseline",
        "$\\Delta D_B$ = baseline − network",
        "",
        tuple(f"{n}{s}_delta" for n in COMPARISONS for s in ("", "_excess")),
    ),
    (
        "Decoding of augmentations, ridge",
        "$R^2$ on held-out images",
        "decoding_ridge",
        (
            "",
            "_strong_only",
            "_weak",
            "_within_weak",
            *(f"_{name}" for name in PARAMETER_NAMES),
        ),
    ),
    (
        "Factorization and invariance",
        "share of variance",
        "",
        tuple(
            f"{m}_{f}"
            for m in ("factorization", "invariance")
            for f in GEOMETRY_FAMILIES
        ),
    ),
    (
        "Dimensionality",
        "participation ratio",
        "dimensionality_",
        tuple(f"{kind}{f}" for kind in ("", "content_") for f in GEOMETRY_FAMILIES),
    ),
    (
        "Steerability",
        "share of the displacement explained",
        "steerability_",
        ("by_parameters", "by_transformation"),
    ),
)


class Estimate(Protocol):
    """A number with an interval, as rows of every stage have it."""

    value: float | None
    low: float | None
    high: float | None


def measure_forest(
    rows: "Sequence[MeasureRow]", ax: "Axes", labels: dict[str, str], least: float
) -> "Axes":
    """Measures from top to bottom with their intervals, networks by colour.

    Parameters
    ----------
    rows : of any networks
    ax : axes to draw into
    labels : measures to show, from top to bottom, and what they are called
    least : values below it are drawn at the left edge as triangles
    """
    models = list(dict.fromkeys(row.model for row in rows))
    colours = network_colours(models)
    shown = list(labels)
    by_place = {(row.metric, row.model): row for row in rows}
    for i, metric in enumerate(shown):
        for k, model in enumerate(models):
            row = by_place.get((metric, model))
            if row is not None:
                place = i + (k + 1) / (len(models) + 1) - 0.5
                _mark(ax, row, place, colours[k], least)
    for edge in range(1, len(shown)):
        ax.axhline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    ax.axvline(0, color=GUIDE, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(shown)), [labels[metric] for metric in shown])
    ax.set_ylim(len(shown) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def correlation_forest(rows: "Sequence[CorrelationRow]", ax: "Axes") -> "Axes":
    """Pearson r of each measure with one recording, within objectives, and given λ.

    Parameters
    ----------
    rows : of one recording
    ax : axes to draw into
    """
    for place, row in enumerate(rows):
        significant = row.q < 0.05
        colour = SIGNIFICANT if significant else NEUTRAL
        _mark(ax, row, place + ABOVE, colour, -1.0)
        within = row.within, row.within_low, row.within_high
        partial = row.partial, row.partial_low, row.partial_high
        _bar(ax, within, place, WITHIN)
        _bar(ax, partial, place + BELOW, PARTIAL)
        ax.axhline(place + 0.5, color="0.93", linewidth=0.6, zorder=0)
    ax.axvline(0, color=GUIDE, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(rows)), [measure_name(row.measure) for row in rows])
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xlim(-1.03, 1.03)
    ax.set_xlabel("Pearson r across networks")
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)
    return ax


def save_measures(rows: "Sequence[MeasureRow]", path: Path) -> Path:
    """Draw a panel for each kind of measure as PDF and PNG; the PNG's path returns.

    Raises
    ------
    DataError
        If no row is of a measure that has a panel.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    found = {row.metric for row in rows}
    panels = _panels(found)
    if not panels:
        raise DataError(
            f"no panel shows {named_some(sorted(found)) or 'rows that are not there'}; "
            "draw the rows of `ce-align analyze`"
        )
    heights = [
        FRAME + MARK * max(len(labels) * (len(models) + 1), 4)
        for _, _, labels in panels
    ]
    # The second column begins where it makes both equally long.
    first = min(
        range(1, len(panels) + 1),
        key=lambda n: max(sum(heights[:n]), sum(heights[n:])),
    )
    columns = [part for part in (slice(first), slice(first, None)) if panels[part]]
    tallest = max(sum(heights[part]) for part in columns)
    with style():
        from matplotlib.figure import Figure

        size = (1.3 * WIDTHS[1] * len(columns), tallest)
        figure = Figure(figsize=size, layout="constrained")
        subfigures = figure.subfigures(1, len(columns), squeeze=False)[0]
        for part, subfigure in zip(columns, subfigures, strict=True):
            # What is missing below a shorter column stays empty.
            rest = tallest - sum(heights[part])
            ratios = [*heights[part], *([rest] if rest > 0 else [])]
            grid = subfigure.add_gridspec(len(ratios), 1, height_ratios=ratios)
            for k, (title, axis, labels) in enumerate(panels[part]):
                ax = subfigure.add_subplot(grid[k])
                # One share far below zero would hide all others.
                bounded = "R^2" in axis or "share" in axis
                measure_forest(rows, ax, labels, LEAST if bounded else -np.inf)
                ax.set_title(title, loc="left", fontweight="bold")
                values = [row.value for row in rows if row.metric in labels]
                clipped = any(v is not None and v < LEAST for v in values)
                ax.set_xlabel(f"{axis} (◂ below {LEAST})" if clipped else axis)
        over = dict.fromkeys(row.interval for row in rows if row.interval)
        _legend(figure, models, "; ".join(map(interval_over, over)))
        return save_figure(figure, path.with_suffix(""))[-1]


def _panels(found: set[str]) -> list[tuple[str, str, dict[str, str]]]:
    """Title, axis and labels of the panels that have measures to show."""
    panels = []
    for title, axis, prefix, names in PANELS:
        labels = {
            prefix + name: _words(name) or "mean over parameters"
            for name in names
            if prefix + name in found
        }
        if labels:
            panels.append((title, axis, labels))
    return panels


def save_correlations(rows: "Sequence[CorrelationRow]", path: Path) -> Path:
    """Draw a panel for each recording as PDF and PNG; the PNG's path returns."""
    recordings = list(dict.fromkeys(row.recording for row in rows))
    by_recording = [[row for row in rows if row.recording == r] for r in recordings]
    longest = max(map(len, by_recording))
    with style():
        from matplotlib.figure import Figure

        size = (
            WIDTHS[1] * (0.6 + 0.8 * len(recordings)),
            FRAME + 0.3 + 2.2 * MARK * longest,
        )
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(recordings), squeeze=False)
        for recording, group, ax in zip(recordings, by_recording, grid[0], strict=True):
            correlation_forest(group, ax)
            counts = sorted({row.n_networks for row in group})
            ax.set_title(
                f"{recording}\n{'/'.join(map(str, counts))} networks",
                loc="left",
            )
        finish(figure, [FOREST_KEY])
        return save_figure(figure, path.with_suffix(""))[-1]


def _mark(
    ax: "Axes", row: Estimate, place: float, colour: object, least: float
) -> None:
    """One estimate: a dot on its interval, or a triangle at the left edge."""
    if not _defined(row.value):
        return
    if row.value < least:
        ax.plot(least, place, "<", color=colour, markersize=3.5, zorder=3)
        return
    if _defined(row.low) and _defined(row.high):
        low = max(row.low, least)
        ax.plot([low, row.high], [place, place], color=colour, linewidth=1, zorder=2)
    ax.plot(row.value, place, "o", color=colour, markersize=3, zorder=3)


def _bar(
    ax: "Axes",
    estimate: tuple[float | None, float | None, float | None],
    place: float,
    colour: str,
) -> None:
    """A correlation as a bar, on its interval if it has one."""
    value, low, high = estimate
    if not _defined(value):
        return
    if _defined(low) and _defined(high):
        ax.plot([low, high], [place, place], color=colour, linewidth=0.8, zorder=2)
    ax.plot(value, place, "|", color=colour, markersize=4, zorder=4)


def _defined(value: float | None) -> TypeGuard[float]:
    """Whether there is a number; tables have NaN where rows have None."""
    return value is not None and value == value


def _words(name: str) -> str:
    """What a measure is called beside its mark."""
    text = name.strip("_").replace("_", " ")
    for comparison in COMPARISONS:
        text = text.replace(comparison.replace("_", " "), comparison.replace("_", "–"))
    return text.replace(" delta", ", Δ").replace(" excess", ", excess")


def _legend(figure: "Figure", models: list[str], over: str) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D([], [], color=colour, marker="o", markersize=3, linewidth=1, label=model)
        for colour, model in zip(network_colours(models), models, strict=True)
    ]
    figure.legend(handles=handles, loc="outside upper left", frameon=False, ncols=3)
    if over:
        figure.supxlabel(f"Lines: 95 % intervals over {over}", fontsize="small")
