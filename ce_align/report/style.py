"""One look for every figure: colours, sizes, marks, and how a figure is saved."""

import io
import string
import textwrap
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align.errors import ConfigError
from ce_align.files import atomic_path
from ce_align.models.catalogue import OBJECTIVE_LABELS
from ce_align.stages.measures import quantities

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    *("GUIDE", "INK", "LETTERS", "NEUTRAL", "WIDTHS"),
    *("finish", "legend_entries", "letter", "measure_name", "minus", "new_figure"),
    *("objective_colour", "objective_label", "objective_marker", "objective_order"),
    *("panel_grid", "save_figure", "shade", "style", "svg_text", "weight_label"),
    "weight_legend",
]

#: Width of a figure by the columns that it takes, in inches (89 and 183 mm).
WIDTHS = {1: 3.5, 2: 7.2}

#: Text and axes; lines that only guide; what stands for no objective.
INK, GUIDE, NEUTRAL = "#222222", "#bbbbbb", "#767676"
#: The tag of numbers that were not measured.
WARNING = "#9a4a00"

#: Colour of each objective (Okabe and Ito's palette), in the order of legends.
OBJECTIVES = {"mmcr": "#0072b2", "barlow": "#d55e00", "simclr": "#009e73"}
#: For objectives that are added.
FURTHER = ("#cc79a7", "#56b4e9", "#e69f00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")

#: Names of panels.
LETTERS = string.ascii_uppercase

#: Characters of the notes' font that fit into an inch.
CHARACTERS = 26
#: Height of a line of notes and of the mark, in inches.
NOTE_LINE, MARK_LINE = 0.092, 0.12

_SETTINGS = {
    "font.family": "DejaVu Sans",
    "font.size": 7,
    "axes.titlesize": 6.8,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.2,
    "ytick.labelsize": 6.2,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.2,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "mathtext.fontset": "dejavusans",
    "figure.dpi": 150,
    "savefig.dpi": 300,
    # Letters stay letters in a PDF; in a page they are shapes, whatever its fonts.
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "ce_align",
}


def style() -> AbstractContextManager[None]:
    """Settings of matplotlib in which every figure is made and saved."""
    from matplotlib import style as sheets

    # Not what a matplotlibrc of this machine says.
    settings: Any = ["default", _SETTINGS]
    context: AbstractContextManager[None] = sheets.context(settings)
    return context


def new_figure(columns: int, height: float) -> "Figure":
    """An empty figure, `height` inches high; call it within `style`.

    Raises
    ------
    ConfigError
        Unless it has 1 or 2 columns.
    """
    from matplotlib.figure import Figure

    if columns not in WIDTHS:
        raise ConfigError(f"a figure has 1 or 2 columns, found {columns}")
    return Figure(figsize=(WIDTHS[columns], height), layout="constrained")


def panel_grid(
    columns: int,
    n: int,
    across: int,
    height: float,
    further: float = 0,
    *,
    sharey: bool = False,
    width_ratios: Sequence[float] | None = None,
) -> "tuple[Figure, list[Axes], list[Axes]]":
    """A figure, the axes of its `n` panels, and those of empty places after them.

    Parameters
    ----------
    columns : 1 or 2
    n, across : panels, and how many of them stand in a row
    height, further : of a row, and of what is beside the rows, in inches
    sharey, width_ratios : as `matplotlib.figure.Figure.subplots` takes them
    """
    down = -(-n // across)
    figure = new_figure(columns, height * down + further)
    axes = figure.subplots(
        down, across, squeeze=False, sharey=sharey, width_ratios=width_ratios
    ).ravel()
    for ax in axes[n:]:
        ax.axis("off")
    return figure, list(axes[:n]), list(axes[n:])


def objective_order(objectives: Iterable[str]) -> list[str]:
    """Objectives in the order of legends: the paper's, then the others by name."""
    found = set(objectives)
    known = [name for name in OBJECTIVES if name in found]
    return [*known, *sorted(found - set(known))]


def objective_label(objective: str) -> str:
    """What an objective is called in a figure."""
    return OBJECTIVE_LABELS.get(objective, objective)


def objective_colour(objective: str, among: Sequence[str] = ()) -> str:
    """Colour of an objective, the same in every figure.

    Those that are not the paper's take further colours in their order `among` the
    objectives of a figure.
    """
    if objective in OBJECTIVES:
        return OBJECTIVES[objective]
    others = [name for name in among if name not in OBJECTIVES]
    place = others.index(objective) if objective in others else 0
    return FURTHER[place % len(FURTHER)]


def objective_marker(objective: str) -> str:
    """Mark of an objective, for who does not see its colour."""
    names = list(OBJECTIVES)
    place = names.index(objective) if objective in names else len(names)
    return MARKERS[place]


def shade(colour: str, place: int, n: int) -> tuple[float, float, float]:
    """Shade `place` of `n` of a colour, from light to dark."""
    from matplotlib.colors import to_rgb

    share = place / (n - 1) if n > 1 else 0.6
    rgb = to_rgb(colour)
    if share < 0.6:  # towards white
        mix = 0.72 * (1 - share / 0.6)
        red, green, blue = (c + (1 - c) * mix for c in rgb)
    else:  # towards black
        mix = 0.5 * (share - 0.6) / 0.4
        red, green, blue = (c * (1 - mix) for c in rgb)
    return red, green, blue


def weight_label(weight: float) -> str:
    """An equivariance weight as ticks and legends show it: 0, .001, .1."""
    text = f"{weight:g}"
    return text.removeprefix("0") if text.startswith("0.") else text


def minus(text: str) -> str:
    """A number with the sign that is as wide as a plus."""
    return text.replace("-", "−")


def measure_name(metric: str) -> str:
    """A measure as a person calls it; its own name with spaces if it has no other.

    >>> measure_name("decoding_ridge_hue")
    'Hue decoding (ridge)'
    >>> measure_name("class_class_excess")
    'Class–class, excess'
    """
    known = quantities().get(metric)
    return known.title if known else metric.replace("_", " ").capitalize()


def letter(ax: "Axes", text: str, title: str = "") -> None:
    """Name a panel by a bold letter beside its title."""
    where: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (0, 1), (-24, 6), fontsize=8, fontweight="bold", **where)
    ax.set_title(title)


def legend_entries(axes: "Sequence[Axes]") -> "tuple[list[Artist], list[str]]":
    """Handles and labels of all axes, each label once."""
    found: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def weight_legend(
    figure: "Figure",
    weights: Sequence[float],
    columns: int,
    line: str | None,
    hidden: Sequence[float] = (),
) -> None:
    """Shades of the weights, and what a dark line is, above all axes.

    Parameters
    ----------
    figure, columns : made within `style`, and its width
    weights : from the lightest to the darkest
    line : what a dark line stands for; None if there is none
    hidden : weights that have a shade and are not drawn
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    n = len(weights)
    handles: list[Artist] = [
        Patch(color=shade(NEUTRAL, k, n), label=f"λ = {weight_label(w)}")
        for k, w in enumerate(weights)
        if w not in hidden
    ]
    if line is not None:
        handles.append(Line2D([], [], color=INK, linewidth=1.1, label=line))
    figure.legend(
        handles=handles,
        loc="outside upper left",
        ncols=min(len(handles), 8 if columns == 2 else 4),
        handlelength=1,
        columnspacing=1.2,
    )


def finish(figure: "Figure", notes: Sequence[str], mark: str = "") -> None:
    """Write below a figure what was not measured, and notes.

    Parameters
    ----------
    figure : grows by the height of what is written
    notes : sentences
    mark : such as ``SIMULATED DATA``; empty for none
    """
    width, height = figure.get_size_inches()
    lines = [
        line
        for note in notes
        for line in textwrap.wrap(note, int((width - 0.1) * CHARACTERS))
    ]
    below = NOTE_LINE * len(lines) + (MARK_LINE if mark else 0)
    if not below:
        return
    below += 0.06
    whole = height + below
    figure.set_size_inches(width, whole)
    # The layout of the axes ends above what is written.
    layout: Any = figure.get_layout_engine()
    layout.set(rect=(0, below / whole, 1, height / whole))
    left, top = 0.05 / width, (below - 0.02) / whole
    if mark:
        figure.text(left, top, mark, va="top", size=6, color=WARNING, weight="bold")
        top -= MARK_LINE / whole
    text = "\n".join(lines)
    figure.text(left, top, text, va="top", size=5.2, color="#444444", linespacing=1.2)


#: Without the time, so that the same figure is the same file.
METADATA = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}


def save_figure(figure: "Figure", path: Path) -> list[Path]:
    """Save a figure as PDF and PNG, each whole or not at all; `path` has no suffix."""
    written = []
    with style():
        for suffix in ("pdf", "png"):
            # Not `with_suffix`: a name such as r0.2 has none.
            target = path.with_name(f"{path.name}.{suffix}")
            with atomic_path(target) as temporary:
                figure.savefig(temporary, metadata=METADATA.get(suffix, {}))
            written.append(target)
    return written


def svg_text(figure: "Figure") -> str:
    """A figure as SVG, for a page."""
    stream = io.StringIO()
    with style():
        figure.savefig(stream, format="svg", metadata=METADATA["svg"])
    return stream.getvalue()
