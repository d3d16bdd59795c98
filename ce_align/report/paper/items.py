"""What a figure and a table are once they are made, and how they are completed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ce_align.errors import DataError

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from ce_align.report.inputs import Inputs

__all__ = [
    *("BuiltTable", "Drawn", "NothingToDraw", "Numbered"),
    *("because", "built", "completed", "mark_of", "merged"),
]


class NothingToDraw(DataError):
    """There are no rows of what a table or figure shows."""


@dataclass(frozen=True, eq=False)
class Item:
    """What figures and tables have in common.

    Attributes
    ----------
    title, caption : without the number of the figure or table
    notes : what is missing, simulated or imported, and what was left out
    mark : such as ``SIMULATED DATA``; empty if all was measured
    """

    title: str
    caption: str
    notes: tuple[str, ...]
    mark: str


@dataclass(frozen=True, eq=False)
class Drawn(Item):
    """A figure.

    Attributes
    ----------
    figure : not yet saved; save it with `ce_align.report.style.save_figure`
    data : exactly what is drawn, a row for each mark
    alt : what a person who cannot see the figure needs to know
    """

    figure: "Figure"
    data: "pd.DataFrame"
    alt: str


@dataclass(frozen=True, eq=False)
class BuiltTable(Item):
    """A table.

    Attributes
    ----------
    frame : numbers with their origin, a row for each
    shown : the table as it is printed, all text
    behind : of each line of `shown`, which row of `frame` a column's number is of
    """

    frame: "pd.DataFrame"
    shown: "pd.DataFrame"
    behind: "Sequence[Mapping[str, int]]"


class Numbered(NamedTuple):
    """The text of a printed cell, and which row of the frame its number is of."""

    text: str
    row: int


def completed(
    figure: "Figure",
    data: "pd.DataFrame",
    inputs: "Inputs",
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
    inputs : whose remark goes with everything
    notes : what was left out
    title, caption, alt : as of `Drawn`
    """
    every, mark = _noted(data, inputs, notes)
    if inputs.remark:
        caption = f"{caption} {inputs.remark}"
    return Drawn(title, caption, every, mark, figure, data, alt)


def built(
    frame: "pd.DataFrame",
    lines: "Sequence[Mapping[str, str | Numbered]]",
    inputs: "Inputs",
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
    inputs, notes, title, caption : as of `completed`
    """
    import pandas as pd

    texts, behind = [], []
    for line in lines:
        numbered = {n: cell for n, cell in line.items() if isinstance(cell, Numbered)}
        texts.append({**line, **{n: cell.text for n, cell in numbered.items()}})
        behind.append({n: cell.row for n, cell in numbered.items()})
    every, mark = _noted(frame, inputs, notes)
    return BuiltTable(title, caption, every, mark, frame, pd.DataFrame(texts), behind)


def _noted(
    data: "pd.DataFrame", inputs: "Inputs", notes: Iterable[str]
) -> tuple[tuple[str, ...], str]:
    """All notes, those on origins first, and the mark."""
    origins = {o for cell in data.get("origin", ()) for o in str(cell).split("+")}
    every = (*_origin_notes(origins, inputs.remark), *merged(notes))
    return every, mark_of(origins, inputs.remark)


def _origin_notes(origins: Iterable[str], remark: str = "") -> list[str]:
    """Sentences on numbers that no animal and no photograph stands behind."""
    found = set(origins)
    notes = [remark] if remark else []
    if "simulated" in found:
        notes.append("Simulated: computed from procedural images or a simulated area.")
    if "imported" in found:
        notes.append("Imported: from a file of the user.")
    return notes


def mark_of(origins: Iterable[str], remark: str = "") -> str:
    """The tag above a figure; empty if all is of recordings and files of images."""
    if remark:
        return "SYNTHETIC ROWS" if "synthetic" in remark.lower() else remark
    found = set(origins)
    kinds = [kind for kind in ("simulated", "imported") if kind in found]
    if not kinds:
        return ""
    some = "SOME " if found & {"recorded", "files"} else ""
    return some + f"{' AND '.join(kinds)} data".upper()


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


def because(notes: Sequence[str]) -> str:
    """Notes in brackets, behind what there is nothing to draw for."""
    return f" ({' '.join(notes)})" if notes else ""
