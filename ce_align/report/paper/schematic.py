"""Figure 1: the idea of contrastive-equivariant training, drawn by code."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.report.inputs import Inputs
from ce_align.report.paper.items import Drawn, completed
from ce_align.report.style import INK, NEUTRAL, WIDTHS, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["figure_1"]

#: Two augmentations that differ to the eye, and two scenes that show them.
SEED, SCENES = 0, (1, 2)
#: Views of the first and of the second augmentation, and the two losses; none of these
#: colours is an objective's.
VIEW_A, VIEW_B, INVARIANT, EQUIVARIANT = "#cc79a7", "#e69f00", "#3b4d61", "#7b3294"
#: Both halves of the figure have these extents, in units of about an inch.
EXTENT = (3.5, 2.75)
CENTRED: Any = {"ha": "center", "va": "center"}


def _pictures() -> list[NDArray[np.uint8]]:
    """Image and its views A and B, for two images under the same augmentations."""
    from ce_align.augment import AugmentationLedger, apply, sample
    from ce_align.data.scenes import procedural_scenes

    scenes = procedural_scenes(max(SCENES) + 1)
    rng = np.random.default_rng(SEED)
    ledger = AugmentationLedger.concat(
        [sample("strong_a", 1, rng), sample("strong_b", 1, rng)]
    )
    pictures = []
    for k in SCENES:
        pixels = np.asarray(scenes.load(k))
        pictures += [pixels, *apply(pixels, ledger, 112)]
    return pictures


def _arrow(
    ax: "Axes",
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = INK,
    width: float = 0.8,
    kind: str = "-|>",
    gap: float = 0,
) -> None:
    look = {"arrowstyle": kind, "color": colour, "linewidth": width}
    look |= {"shrinkA": gap, "shrinkB": gap, "mutation_scale": 7}
    ax.annotate("", end, start, arrowprops=look)


def _box(ax: "Axes", x: float, y: float, text: str, colour: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    round_box: Any = {"boxstyle": "round,pad=0.02", "edgecolor": "none"}
    ax.add_patch(
        FancyBboxPatch((x, y - 0.14), 0.52, 0.28, facecolor=colour, **round_box)
    )
    ax.text(x + 0.26, y, text, color="white", fontsize=7.5, **CENTRED)


def _draw_network(ax: "Axes") -> None:
    """Two images, their views by the same two augmentations, backbone and heads."""
    pictures = _pictures()
    size = 0.54
    rows = {"1": (2.16, (2.42, 1.84)), "2": (0.80, (1.10, 0.52))}
    for (number, (middle, places)), k in zip(rows.items(), (0, 3), strict=True):
        _picture(ax, pictures[k], 0.04, middle, size, INK)
        ax.text(0.04 + size / 2, middle - 0.40, f"image {number}", ha="center")
        for view, place, picture, colour in zip(
            "AB", places, pictures[k + 1 : k + 3], (VIEW_A, VIEW_B), strict=True
        ):
            _picture(ax, picture, 1.06, place, size, colour)
            _arrow(ax, (0.04 + size + 0.05, middle), (1.02, place), colour, 1.1)
            y = (middle + place) / 2 + (0.13 if view == "A" else -0.13)
            ax.text(0.80, y, view, color=colour, weight="bold", size=8, **CENTRED)
            entry = 1.47 + 0.25 * (place - 1.47)
            _arrow(ax, (1.06 + size + 0.04, place), (1.93, entry))
    ax.fill([1.96, 2.42, 2.42, 1.96], [2.05, 1.72, 1.22, 0.89], color=NEUTRAL)
    ax.text(2.19, 1.47, "$f$", color="white", fontsize=10, **CENTRED)
    ax.text(2.19, 0.74, "backbone", **CENTRED)
    for y, name, colour in (
        (1.97, "$g_\\mathrm{inv}$", INVARIANT),
        (0.97, "$g_\\mathrm{equi}$", EQUIVARIANT),
    ):
        _arrow(ax, (2.45, 1.47 + 0.3 * (y - 1.47)), (2.78, y))
        _box(ax, 2.83, y, name, colour)
    ax.text(3.09, 2.28, "$z$", color=INVARIANT, size=9, **CENTRED)
    ax.text(3.09, 0.67, "$e$", color=EQUIVARIANT, size=9, **CENTRED)
    ax.text(1.33, 0.10, "same A, same B for both images", ha="center", color=INK)
    _frame(ax)


def _picture(
    ax: "Axes", pixels: NDArray[np.uint8], x: float, y: float, size: float, colour: str
) -> None:
    from matplotlib.patches import Rectangle

    low = y - size / 2
    ax.imshow(pixels, extent=(x, x + size, low, low + size), zorder=2)
    frame = Rectangle((x, low), size, size, fill=False, linewidth=1.2, zorder=3)
    frame.set_edgecolor(colour)
    ax.add_patch(frame)


def _draw_losses(ax: "Axes") -> None:
    """What each loss asks of the embeddings, and how they are mixed."""
    for y, title, words, colour in (
        (2.62, "Invariant loss", "views of one image agree", INVARIANT),
        (1.56, "Equivariant loss", "equal changes, equal differences", EQUIVARIANT),
    ):
        ax.text(0.1, y, title, color=colour, weight="bold", va="center")
        ax.text(0.1, y - 0.18, words, va="center", size=6.2)
    for number, x, y in (("1", 0.62, 2.05), ("2", 2.42, 1.95)):
        _pair(ax, "z", number, (x, y), (x + 0.42, y - 0.14), INVARIANT, "<|-|>")
    for number, x, y in (("1", 0.45, 0.88), ("2", 2.10, 1.00)):
        _pair(ax, "e", number, (x, y), (x + 0.78, y + 0.20), EQUIVARIANT, "<|-")
    equal = "$e_{1A}-e_{1B}\\;\\approx\\;e_{2A}-e_{2B}$"
    ax.text(1.75, 0.56, equal, ha="center", size=8)
    loss = "$L=(1-\\lambda)\\,L_\\mathrm{inv}+\\lambda\\,L_\\mathrm{equi}$"
    ax.text(1.75, 0.16, loss, ha="center", size=9)
    _frame(ax)


def _pair(
    ax: "Axes",
    name: str,
    number: str,
    first: tuple[float, float],
    second: tuple[float, float],
    colour: str,
    kind: str,
) -> None:
    """Embeddings of both views of an image, with an arrow between them."""
    _arrow(ax, first, second, colour, 1.2, kind, gap=3)
    for view, (x, y), fill in zip("AB", (first, second), (VIEW_A, VIEW_B), strict=True):
        ax.plot(x, y, "o", color=fill, markersize=5, zorder=3)
        side, away = ("right", -0.07) if view == "A" else ("left", 0.07)
        label = f"${name}_{{{number}{view}}}$"
        ax.text(x + away, y + 0.02, label, ha=side, va="center", size=7.5)


def _frame(ax: "Axes") -> None:
    ax.set(xlim=(0, EXTENT[0]), ylim=(0, EXTENT[1]), aspect="equal")
    ax.axis("off")


def figure_1(inputs: Inputs, columns: int = 2) -> Drawn:
    """Schematic; it needs no rows."""
    import pandas as pd

    down, across = (1, 2) if columns == 2 else (2, 1)
    with style():
        half = WIDTHS[columns] / across * EXTENT[1] / EXTENT[0]
        figure = new_figure(columns, half * down)
        left, right = figure.subplots(down, across).ravel()
        _draw_network(left)
        _draw_losses(right)
    texts = [
        (panel, text.get_text(), *text.get_position())
        for panel, ax in (("network", left), ("losses", right))
        for text in ax.texts
        if text.get_text()
    ]
    data = pd.DataFrame(texts, columns=["panel", "text", "x", "y"])
    # No row is drawn, so what is remarked on them does not belong here.
    return completed(
        figure,
        data,
        Inputs(inputs.rows),
        (),
        title="Contrastive-equivariant self-supervised learning",
        caption="Two images get the same two augmentations A and B. A backbone f and "
        "two heads embed the views. The invariant loss is the base objective on views "
        "of one image; the equivariant loss is the same objective on difference "
        "vectors, which the same change of augmentation should share across images. λ "
        "is the equivariance weight. The images are procedural scenes, the views those "
        "of the training's strong augmentations.",
        alt="Schematic: two images, each with view A and view B, enter a backbone f "
        "with an invariant head, whose embeddings of one image attract each other, and "
        "an equivariant head, whose difference vectors between views A and B are "
        "parallel for both images. The loss is (1 − λ) times the invariant plus λ "
        "times the equivariant loss.",
    )
