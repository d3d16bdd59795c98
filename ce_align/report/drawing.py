"""What every figure does at its end: notes, marks, and the table of what is drawn."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from ce_align.report.material import BuiltTable, Drawn, Material
from ce_align.report.origins import mark_of, origin_notes
from ce_align.report.style import INK, NEUTRAL, shade, weight_label

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Numbered",
    "built",
    "completed",
    "legend_entries",
    "merged",
    "weight_legend",
]


def completed(
    figure: "Figure",
    data: "pd.DataFrame",
    material: Material,
    notes: Iterable[str],
    *,
    title: str,
    caption: str,
    alt: str,
) -> Drawn:
    """A figure with its notes and its mark, which are written below it when asked for.

    Parameters
    ----------
    figure : with its axes
    data : exactly what is drawn; a column ``origin`` says what was not measured
    material : whose remark goes with everything
    notes : what was left out
    title, caption, alt : as of `Drawn`
    """
    origins = _origins(data)
    every = (*origin_notes(origins, material.remark), *merged(notes))
    remark = f" {material.remark}" if material.remark else ""
    mark = mark_of(origins, material.remark)
    return Drawn(figure, data, title, caption + remark, alt, every, mark)


class Numbered(NamedTuple):
    """The text of a cell whose number is of a row of the frame."""

    text: str
    row: int


def built(
    frame: "pd.DataFrame",
    lines: "Sequence[Mapping[str, str | Numbered]]",
    material: Material,
    notes: Iterable[str],
    *,
    title: str,
    caption: str,
) -> BuiltTable:
    """A table with its notes and its mark.

    Parameters
    ----------
    frame : numbers; a column ``origin`` says what was not measured
    lines : of the table as it is printed, cells by column
    material, notes, title, caption : as of `completed`
    """
    import pandas as pd

    origins = _origins(frame)
    texts = [
        {name: c.text if isinstance(c, Numbered) else c for name, c in line.items()}
        for line in lines
    ]
    behind = [
        {name: c.row for name, c in line.items() if isinstance(c, Numbered)}
        for line in lines
    ]
    every = (*origin_notes(origins, material.remark), *merged(notes))
    mark = mark_of(origins, material.remark)
    shown = pd.DataFrame(texts)
    return BuiltTable(frame, shown, behind, title, caption, every, mark)


def _origins(data: "pd.DataFrame") -> set[str]:
    return {o for cell in data.get("origin", ()) for o in str(cell).split("+")}


def merged(notes: Iterable[str]) -> list[str]:
    """Notes in their order, each once; those of one sentence share their subjects.

    >>> merged(["A: no rows.", "B: no rows.", "One network is left out."])
    ['A, B: no rows.', 'One network is left out.']
    """
    subjects: dict[str, list[str]] = {}
    for note in dict.fromkeys(notes):
        subject, colon, sentence = note.partition(": ")
        known = subjects.setdefault(sentence if colon else note, [])
        if colon:
            known.append(subject)
    return [
        f"{', '.join(named)}: {sentence}" if named else sentence
        for sentence, named in subjects.items()
    ]


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
    figure : made within `style`
    weights : from the lightest to the darkest
    columns : that the figure takes
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
