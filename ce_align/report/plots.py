"""Figures from rows: functions take data and axes; saving is separate."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ce_align.report.style import NEUTRAL, WIDTHS, save_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ce_align.stages.score import ScoreRow

__all__ = ["predictivity_bars", "save_predictivity"]

#: Colour of bars that stand for no objective.
BAR = "#0072b2"


def predictivity_bars(rows: "Sequence[ScoreRow]", ax: "Axes") -> "Axes":
    """Raw predictivity of each row with its error; the score where there is a ceiling.

    Parameters
    ----------
    rows : of one recording
    ax : axes to draw into
    """
    labels = [f"{row.model}\n{row.layer}" for row in rows]
    heights = [row.raw for row in rows]
    ax.barh(labels, heights, xerr=[row.error for row in rows], color=BAR)
    ax.invert_yaxis()
    ceilings = [row.ceiling for row in rows if row.ceiling and row.ceiling > 0]
    if ceilings:
        # A perfect model reaches raw² = ceiling, hence raw = its square root.
        best = ceilings[0] ** 0.5
        ax.axvline(best, color=NEUTRAL, linestyle="--", linewidth=1)
        ax.text(best, 1.01, "√ceiling", transform=ax.get_xaxis_transform(), ha="center")
    for position, row in enumerate(rows):
        score = "" if row.value is None else f" score {row.value:.3f}"
        ax.text(max(row.raw, 0) + row.error + 0.01, position, score, va="center")
    ax.set_xlim(0, 1)
    ax.set_xlabel("Pearson r (mean over splits of the median neuroid)")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def save_predictivity(rows: "Sequence[ScoreRow]", path: Path) -> Path:
    """Draw the rows of one recording as PDF and PNG; the path of the PNG returns."""
    from matplotlib.figure import Figure

    with style():
        size = (1.6 * WIDTHS[1], 0.5 + 0.45 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        ax = predictivity_bars(rows, figure.subplots())
        ax.set_title(
            f"{rows[0].recording} {rows[0].region}, {rows[0].n_stimuli} stimuli, "
            f"{rows[0].n_neuroids} neuroids",
            pad=14,
        )
    return save_figure(figure, path.with_suffix(""))[-1]
