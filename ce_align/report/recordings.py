"""What a recording holds: in numbers, as tables and as a figure."""

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import BaseModel

from ce_align.data.imagesets import centre_crop
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.errors import DataError
from ce_align.metrics.ceiling import chance_of_ceiling, variance_ceiling
from ce_align.report.sheet import Column, Sheet, facts_sheet
from ce_align.report.style import INK, NEUTRAL, finish, letter, new_figure, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Summary", "summarise", "summary_figure", "summary_sheets"]

#: Bins of a histogram of reliability, and blocks of its longest bar in a terminal.
N_BINS, LONGEST = 10, 40
#: A contact sheet has as many images at most, each of so many pixels.
ACROSS, DOWN, TILE = 10, 4, 64


class Summary(BaseModel, frozen=True):
    """What a recording holds.

    neuroids : numbers of each animal and region
    repetitions : numbers of images by the times that they were shown
    reliability : of each neuroid, as `reliability_kind` says: stated in the file, or
        measured from the variance over repetitions; None without both, or of a neuroid
    signal : probability that responses which know nothing of the images repeat as
        well; 0 where it is far too small to be tested, None without repetitions
    """

    name: str
    origin: str
    images: int
    neuroids: dict[str, int]
    repetitions: dict[int, int]
    degrees: float
    window: tuple[float, float] | None
    time_bins: int
    split: dict[str, int]
    reliability_kind: str | None
    reliability: list[float | None] | None
    ceiling: float | None
    signal: float | None
    licence: str
    citation: str
    notes: tuple[str, ...]


def _timeless(recording: Recording) -> Recording:
    """A recording with its time bins averaged."""
    held = recording.responses
    if not isinstance(held, Presentations) or held.values.ndim == 2:
        return recording
    averaged = replace(held, values=held.values.mean(axis=2))
    return replace(recording, responses=averaged, time_bins=None)


def summarise(recording: Recording) -> Summary:
    """What a recording holds, and whether its repetitions agree at all."""
    shown = recording.presentations()
    counts, numbers = np.unique(np.bincount(shown.stimulus), return_counts=True)
    animals = recording.neuroids.get("animal")
    regions = recording.neuroids.get("region")
    n_neuroids = len(recording.neuroid_ids)
    labels = [
        " ".join(
            part
            for part in (
                str(animals[i]) if animals is not None else "",
                str(regions[i]) if regions is not None else recording.region,
            )
            if part
        )
        for i in range(n_neuroids)
    ]
    kind, reliability, ceiling, signal = None, None, None, None
    if recording.has_repetitions:
        rectangle, once = _timeless(recording).repeated()
        try:
            found = variance_ceiling(rectangle, once)
            kind, ceiling = "measured", found.value
            reliability = found.per_split_neuroid[0]
            chance = chance_of_ceiling(rectangle)
            signal = 0.0 if chance is None else chance
        except DataError:  # such as one image alone that was repeated
            pass
    if "reliability" in recording.neuroids:
        kind = "stated"
        reliability = np.asarray(recording.neuroids["reliability"], dtype=np.float64)
        ceiling = float(np.nanmedian(reliability))
    split = recording.split
    parts = [] if split is None else list(map(str, split))
    return Summary(
        name=recording.identifier,
        origin=recording.origin,
        images=len(recording.images),
        neuroids={label: labels.count(label) for label in dict.fromkeys(labels)},
        repetitions=dict(zip(counts.tolist(), numbers.tolist(), strict=True)),
        degrees=recording.degrees,
        window=recording.window,
        time_bins=0 if recording.time_bins is None else len(recording.time_bins),
        split={part: parts.count(part) for part in dict.fromkeys(parts)},
        reliability_kind=kind,
        reliability=None
        if reliability is None
        else [float(r) if np.isfinite(r) else None for r in reliability],
        ceiling=ceiling,
        signal=signal,
        licence=recording.licence,
        citation=recording.citation,
        notes=recording.notes,
    )


def _signal(summary: Summary) -> str:
    if summary.signal is None:
        return "cannot be told: no repetitions"
    if summary.signal == 0:
        return "yes: repetitions agree far better than shuffled ones"
    word = "yes" if summary.signal < 0.05 else "none to be seen"
    return f"{word}: shuffled images repeat as well with p = {summary.signal:.3g}"


def _histogram(reliability: list[float | None]) -> tuple[NDArray[Any], NDArray[Any]]:
    finite = np.array([r for r in reliability if r is not None])
    edges = np.linspace(min(0.0, finite.min(initial=0.0)), 1, N_BINS + 1)
    return np.histogram(np.clip(finite, edges[0], 1), edges)


def summary_sheets(summary: Summary) -> list[Sheet]:
    """A table of facts and, where it is known, the histogram of reliability."""
    window = summary.window and f"{summary.window[0]:g}–{summary.window[1]:g} ms"
    facts = {
        "images": f"{summary.images} at {summary.degrees:g}°",
        "shown": ", ".join(f"{n} images × {k}" for k, n in summary.repetitions.items()),
        "split": ", ".join(f"{n} {part}" for part, n in summary.split.items()),
        "window": window or "",
        "time bins": str(summary.time_bins or ""),
        "neuroids": ", ".join(f"{n} {label}" for label, n in summary.neuroids.items()),
        "signal": _signal(summary),
        "licence": summary.licence,
        "cite": summary.citation,
        "notes": "; ".join(summary.notes),
    }
    sheets = [facts_sheet(facts, f"{summary.name} ({summary.origin})")]
    if summary.reliability is None:
        return sheets
    heights, edges = _histogram(summary.reliability)
    records = [
        {
            "reliability": f"{low:.2f} to {high:.2f}",
            "share": "█" * round(LONGEST * height / max(heights.max(), 1)) or " ",
            "neuroids": int(height),
        }
        for height, (low, high) in zip(heights, pairwise(edges), strict=True)
    ]
    columns = (
        *(Column("reliability", keep=True), Column("neuroids", keep=True)),
        Column("share", " ", keep=True, kind="text"),
    )
    title = f"Reliability, {summary.reliability_kind}; median {summary.ceiling:.3f}"
    return [*sheets, Sheet(records, columns, title)]


def _contact_sheet(recording: Recording) -> NDArray[np.uint8]:
    """Up to 40 images, spread over the whole set, (height, width, 3)."""
    n_shown = min(ACROSS * DOWN, len(recording.images))
    chosen = np.linspace(0, len(recording.images) - 1, n_shown).astype(int)
    n_rows = -(-n_shown // ACROSS)
    sheet = Image.new("RGB", (ACROSS * TILE, n_rows * TILE), "white")
    for place, index in enumerate(chosen.tolist()):
        tile = centre_crop(recording.images.load(index), TILE)
        sheet.paste(tile, (place % ACROSS * TILE, place // ACROSS * TILE))
    return np.asarray(sheet)


def summary_figure(recording: Recording, summary: Summary) -> "Figure":
    """Contact sheet, histogram of reliability, and how often images were shown."""
    with style():
        figure = new_figure(2, 4.4)
        sheet, reliability, shown = figure.subplot_mosaic(
            [["sheet", "sheet"], ["reliability", "shown"]], height_ratios=(3, 2)
        ).values()
        sheet.imshow(_contact_sheet(recording))
        sheet.axis("off")
        letter(sheet, "A", f"{summary.images} images at {summary.degrees:g}°")
        kind = summary.reliability_kind or "unknown"
        letter(reliability, "B", f"Reliability ({kind})")
        if summary.reliability is not None:
            heights, edges = _histogram(summary.reliability)
            reliability.stairs(heights, edges, fill=True, color=NEUTRAL)
            reliability.axvline(summary.ceiling or 0, color=INK)
        reliability.set(xlabel="reliability", ylabel="neuroids")
        letter(shown, "C", "Repetitions")
        labels = [str(count) for count in summary.repetitions]
        shown.bar(labels, list(summary.repetitions.values()), color=NEUTRAL)
        shown.set(xlabel="times shown", ylabel="images")
        mark = f"{summary.origin.upper()} DATA" if summary.origin == "simulated" else ""
        finish(figure, [f"Signal: {_signal(summary)}.", *summary.notes], mark)
    return figure
