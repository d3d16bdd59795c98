"""One look for every figure: colours, sizes, marks, and how a figure is saved."""

import io
import re
import string
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ce_align.errors import ConfigError
from ce_align.files import atomic_path
from ce_align.models.catalogue import OBJECTIVE_LABELS
from ce_align.stages.quantities import quantities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    *("GUIDE", "INK", "LETTERS", "NEUTRAL", "WIDTHS"),
    *(
        "broken",
        "finish",
        "further_colours",
        "heat_map",
        "legend_above",
        "legend_entries",
    ),
    *("letter", "measure_name", "minus", "new_figure"),
    *("objective_colour", "objective_label", "objective_marker", "objective_order"),
    *("panel_grid", "save_figure", "shade", "style", "in_formats", "weight_label"),
    *("weight_legend", "wrapped"),
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

#: Beside seaborn's style "ticks": sizes for the width of a page, and a faint grid.
_SETTINGS = {
    "font.family": "sans-serif",
    # The first comes with matplotlib; in an SVG the next one that a reader has.
    "font.sans-serif": ["DejaVu Sans", "Helvetica", "Arial"],
    "font.size": 7,
    "axes.titlesize": 7,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.2,
    "ytick.labelsize": 6.2,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.4,
    "axes.linewidth": 0.6,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": "#ececec",
    "grid.linewidth": 0.5,
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
    # Letters stay letters, to search, to edit and to read aloud.
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "ce_align",
}


def style() -> AbstractContextManager[None]:
    """Settings of matplotlib in which every figure is made and saved: seaborn's."""
    import seaborn
    from matplotlib import style as sheets

    # Not what a matplotlibrc of this machine says.
    settings: Any = ["default", seaborn.axes_style("ticks"), _SETTINGS]
    context: AbstractContextManager[None] = sheets.context(settings)
    return context


def new_figure(columns: int, height: float) -> "Figure":
    """An empty figure, `height` inches high; call it within `style`.

    Raises
    ------
    ConfigError
        Unless it has 1 or 2 columns.
    """
    from ce_align.report.canvas import Canvas

    if columns not in WIDTHS:
        raise ConfigError(f"a figure has 1 or 2 columns, found {columns}")
    return Canvas(figsize=(WIDTHS[columns], height), layout="constrained")


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


def further_colours(n: int) -> list[tuple[float, float, float]]:
    """Colours of what has no objective; of many, steps from dark blue to green."""
    import matplotlib
    from matplotlib.colors import to_rgb

    if n <= len(FURTHER):
        return [to_rgb(colour) for colour in FURTHER[:n]]
    # The yellow end is too pale for a line.
    cmap = matplotlib.colormaps["viridis"]
    return [to_rgb(cmap(0.9 * k / (n - 1))) for k in range(n)]


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


def wrapped(text: str, width: int) -> str:
    r"""Text in lines of so many letters, broken between words and after dashes.

    >>> wrapped("Augmentation–augmentation, excess", 16)
    'Augmentation–\naugmentation,\nexcess'
    """
    apart = text.replace("–", "– ")
    lines = textwrap.wrap(apart, width, break_long_words=False)
    return "\n".join(lines).replace("– ", "–")


def broken(name: str) -> str:
    """A name in lines of about ten letters, broken where its parts begin."""
    lines = [""]
    for part in re.split(r"(?=[-_ ])|(?<=\D)(?=\d)", name.rpartition("/")[2]):
        if len(lines[-1]) >= 6:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)


def letter(ax: "Axes", text: str, title: str = "", size: float | None = None) -> None:
    """Name a panel by a bold letter beside its title, of `size` if not the usual."""
    where: Any = {"xycoords": "axes fraction", "textcoords": "offset points"}
    ax.annotate(text, (0, 1), (-24, 6), fontsize=8, fontweight="bold", **where)
    ax.set_title(title, fontsize=size)


def legend_entries(axes: "Sequence[Axes]") -> "tuple[list[Artist], list[str]]":
    """Handles and labels of all axes, each label once."""
    found: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def legend_above(
    figure: "Figure",
    axes: "Sequence[Axes]",
    columns: int,
    kinds: Mapping[str, str] | None = None,
) -> None:
    """Labels of all axes, and what dark lines of each style are, above the panels.

    As many stand in a row as fit: names of networks may be as long as their folders'.
    """
    from matplotlib.lines import Line2D

    handles, labels = legend_entries(axes)
    for label, line in (kinds or {}).items():
        look: Any = {"color": INK, "linestyle": line}
        handles.append(Line2D([], [], **look))
        labels.append(label)
    for n in range(min(len(labels), 6 if columns == 2 else 3), 0, -1):
        legend = figure.legend(handles, labels, loc="outside upper left", ncols=n)
        if n == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()


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


def heat_map(table: "pd.DataFrame", ax: "Axes", low: float, high: float) -> None:
    """Values of a table as colours between `low` and `high`, each in its cell."""
    import seaborn

    # Two digits that differ, also among small shares of variance.
    digits = 2 if high >= 0.1 else 3
    texts = table.map(lambda x: minus(f"{round(x, digits) + 0.0:.{digits}f}"))
    seaborn.heatmap(
        table,
        ax=ax,
        vmin=low,
        vmax=high,
        cmap="crest",
        cbar=False,
        annot=texts,
        fmt="",
        annot_kws={"fontsize": 6.2 if table.shape[1] <= 6 else 5},
        linewidths=0.6,
        xticklabels=True,
        yticklabels=True,
    )
    ax.tick_params(length=0)
    ax.tick_params(axis="both", rotation=0)
    ax.set(xlabel="", ylabel="")
    if max(len(line) for name in table for line in str(name).split("\n")) > 10:
        ax.tick_params(axis="x", labelsize=5)
    # What has no value, such as a network beside itself.
    ax.set_facecolor("#f2f2f2")


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
    """Save a figure as PDF, SVG and PNG, each whole or not; `path` has no suffix."""
    written = []
    with _laid_out(figure):
        for suffix in ("pdf", "svg", "png"):
            # Not `with_suffix`: a name such as r0.2 has none.
            target = path.with_name(f"{path.name}.{suffix}")
            with atomic_path(target) as temporary:
                figure.savefig(temporary, metadata=METADATA.get(suffix, {}))
            written.append(target)
    return written


def in_formats(figure: "Figure", *kinds: Literal["pdf", "svg"]) -> list[bytes]:
    """A figure as the contents of files."""
    contents = []
    with _laid_out(figure):
        for kind in kinds:
            stream = io.BytesIO()
            figure.savefig(stream, format=kind, metadata=METADATA[kind])
            contents.append(stream.getvalue())
    return contents


@contextmanager
def _laid_out(figure: "Figure") -> Iterator[None]:
    """Places of all that is in a figure, found once for all its formats.

    Else each finds them anew, and draws the whole figure once more to do so. Letters
    are as wide as in an SVG.
    """
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    engine, canvas, dpi = figure.get_layout_engine(), figure.canvas, figure.dpi
    with style():
        if engine is not None:
            figure.set_canvas(FigureCanvasSVG(figure))
            figure.dpi = FigureCanvasSVG.fixed_dpi
            engine.execute(figure)
            figure.dpi = dpi
            figure.set_canvas(canvas)
            figure.set_layout_engine(None)
        try:
            yield
        finally:
            figure.set_layout_engine(engine)
