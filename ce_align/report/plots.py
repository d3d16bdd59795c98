"""Figures from rows: functions take data and axes; saving is separate."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ce_align.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from ce_align.stages.score import ScoreRow

__all__ = ["predictivity_bars", "save_predictivity"]

#: One column of a journal page, in inches.
WIDTH = 3.5


def predictivity_bars(rows: "Sequence[ScoreRow]", ax: "Axes") -> "Axes":
    """Raw predictivity of each row with its error; the score where there is a ceiling.

    Parameters
    ----------
    rows : of one recording
    ax : axes to draw into
    """
    labels = [f"{row.model}\n{row.layer}" for row in rows]
    heights = [row.raw for row in rows]
    ax.barh(labels, heights, xerr=[row.error for row in rows], color="#4477aa")
    ax.invert_yaxis()
    ceilings = [row.ceiling for row in rows if row.ceiling is not None]
    if ceilings:
        # A perfect model reaches raw² = ceiling, hence raw = its square root.
        best = ceilings[0] ** 0.5
        ax.axvline(best, color="0.4", linestyle="--", linewidth=1)
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
    import matplotlib

    with matplotlib.rc_context({"pdf.fonttype": 42, "font.size": 8}):
        from matplotlib.figure import Figure

        figure = Figure(figsize=(1.6 * WIDTH, 0.5 + 0.45 * len(rows)), dpi=200)
        ax = predictivity_bars(rows, figure.subplots())
        ax.set_title(
            f"{rows[0].recording} {rows[0].region}, {rows[0].n_stimuli} stimuli, "
            f"{rows[0].n_neuroids} neuroids",
            loc="left",
            pad=14,
        )
        for suffix in (".pdf", ".png"):
            with atomic_path(path.with_suffix(suffix)) as temporary:
                figure.savefig(temporary, bbox_inches="tight")
    return path.with_suffix(".png")
