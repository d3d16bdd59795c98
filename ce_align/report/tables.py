"""Rows and registries as tables for the terminal."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from ce_align.checks import named_some
from ce_align.data.recordings import Entry
from ce_align.models.catalogue import Published, is_cached
from ce_align.report.selection import interval_over

if TYPE_CHECKING:
    import pandas as pd

    from ce_align.stages.correlate import CorrelationRow
    from ce_align.stages.measures import MeasureRow
    from ce_align.stages.overlap import OverlapRow
    from ce_align.stages.score import ScoreRow

__all__ = [
    "correlation_tables",
    "frame_table",
    "measure_table",
    "models_table",
    "overlap_table",
    "recordings_table",
    "score_tables",
]


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def score_tables(rows: "Sequence[ScoreRow]") -> Iterator[Table]:
    """A table of scores for each recording, headed by what its rows share.

    Notes of rows stand below it; a mark leads from a score to its note, unless all
    rows share it.
    """
    for recording in dict.fromkeys(row.recording for row in rows):
        group = [row for row in rows if row.recording == recording]
        first = group[0]
        title = (
            f"{recording}: {first.region}, {first.n_stimuli} stimuli × "
            f"{first.n_neuroids} neuroids, {first.regression}\n{_ceiling_line(first)}"
        )
        notes = list(dict.fromkeys(n for row in group for n in _notes(row)))
        shared = [note for note in notes if all(note in _notes(row) for row in group)]
        marked = [note for note in notes if note not in shared]
        lines = [*shared, *(f"[{i}] {note}" for i, note in enumerate(marked, 1))]
        table = Table(
            title=title,
            title_justify="left",
            caption=Text("\n".join(lines)) if lines else None,
            caption_justify="left",
        )
        for name in ("model", "layer"):
            table.add_column(name, overflow="fold")
        for name in ("score", "raw r", "± error of splits"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in group:
            shown = [*map(_number, (row.value, row.raw, row.error))]
            marks = [marked.index(n) + 1 for n in _notes(row) if n in marked]
            shown[0] += "".join(f" [{mark}]" for mark in marks)
            table.add_row(row.model, row.layer, *map(Text, shown))
        yield table


def _notes(row: "ScoreRow | MeasureRow") -> list[str]:
    return row.note.split("; ") if row.note else []


def _ceiling_line(row: "ScoreRow") -> str:
    """The ceiling, its kind, and the stimuli behind it."""
    if row.ceiling is None:
        why = "no ceiling" if row.note else "no repetitions"
        return f"{why}, hence no score"
    line = f"ceiling {row.ceiling:.4f}"
    if row.ceiling_kind is not None:
        line += f" ({row.ceiling_kind}"
        if row.n_ceiling_stimuli != row.n_stimuli:
            line += f", from {row.n_ceiling_stimuli} of {row.n_stimuli} stimuli"
        line += ")"
    return f"{line}, score = raw² / ceiling" if row.ceiling > 0 else line


def models_table(entries: Sequence[Published]) -> Table:
    """The published networks."""
    table = Table()
    for name in ("name", "objective"):
        table.add_column(name)
    table.add_column("λ", justify="right")
    table.add_column("epochs", justify="right")
    table.add_column("Brain-Score id")
    table.add_column("cached")
    for entry in entries:
        table.add_row(
            entry.name,
            entry.objective,
            f"{entry.equivariance_weight:g}",
            str(entry.epochs),
            entry.brainscore_id or "–",
            "yes" if is_cached(entry) else "no",
        )
    return table


def recordings_table(entries: Sequence[Entry]) -> Table:
    """Recordings, their sizes and their access."""
    table = Table()
    for name in ("name", "area"):
        table.add_column(name)
    for name in ("images", "neuroids", "repetitions"):
        table.add_column(name, justify="right")
    table.add_column("access")
    for entry in entries:
        counts = (entry.images, entry.neuroids, entry.repetitions)
        shown = ["not stated" if count is None else str(count) for count in counts]
        table.add_row(entry.name, entry.region, *shown, entry.access)
    return table


def frame_table(rows: "pd.DataFrame") -> Table:
    """Any stored rows; digests and versions are left to the csv."""
    hidden = {"model_digest", "recording_digest", "version"}
    table = Table()
    columns = [name for name in rows.columns if name not in hidden]
    for name in columns:
        numeric = rows[name].dtype.kind in "if"
        table.add_column(name, justify="right" if numeric else "left")
    for values in rows[columns].itertuples(index=False):
        table.add_row(*map(_cell, values))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return "–" if value is None else str(value)


def _with_interval(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return _number(value)
    return f"{value:.4f} [{low:.4f}, {high:.4f}]"


def measure_table(rows: "Sequence[MeasureRow]") -> Table:
    """Measures with 95 % intervals and what those are over, a column a network.

    Marks lead from values to the notes of their rows, which stand below the table.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    notes = list(dict.fromkeys(note for row in rows for note in _notes(row)))
    cells = {
        # As text: a mark in brackets would be read as an instruction.
        (row.metric, row.model): Text(
            _with_interval(row.value, row.low, row.high)
            + "".join(f" [{notes.index(note) + 1}]" for note in _notes(row))
        )
        for row in rows
    }
    table = Table(title="Measure [95 % interval]", title_justify="left")
    table.add_column("measure", no_wrap=True)
    table.add_column("n", justify="right")
    table.add_column("over")
    for model in models:
        table.add_column(model, overflow="fold")
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric]
        n = {row.n_points for row in own}
        over = dict.fromkeys(row.interval for row in own if row.interval)
        shown = [cells.get((metric, model), "–") for model in models]
        words = "/".join(map(interval_over, over)) or "–"
        table.add_row(metric, "/".join(map(str, sorted(n))), words, *shown)
    if notes:
        lines = [f"[{k}] {note}" for k, note in enumerate(notes, 1)]
        table.caption, table.caption_justify = Text("\n".join(lines)), "left"
    return table


def correlation_tables(rows: "Sequence[CorrelationRow]") -> Iterator[Table]:
    """A table for each recording: r of each measure, within objectives, and given λ."""
    for recording in dict.fromkeys(row.recording for row in rows):
        group = [row for row in rows if row.recording == recording]
        table = Table(
            title=f"Pearson r across networks with {recording}",
            title_justify="left",
            caption="\n".join(_correlation_notes(group)),
            caption_justify="left",
        )
        table.add_column("measure", overflow="fold")
        for name in ("n", "r", "within\n[95 %]", "p, q", "given λ\n[95 %]", "p, q"):
            table.add_column(name, justify="right", no_wrap=True)
        for row in group:
            table.add_row(
                row.measure,
                str(row.n_networks),
                _interval(row.value, row.low, row.high),
                _interval(row.within, row.within_low, row.within_high),
                _chances(row.p, row.q),
                _interval(row.partial, row.partial_low, row.partial_high),
                _chances(row.partial_p, row.partial_q),
            )
        yield table


def _interval(r: float | None, low: float | None, high: float | None) -> str:
    """A correlation above its interval."""
    if r is None:
        return "–"
    bounds = "" if low is None or high is None else f"\n[{low:.2f}, {high:.2f}]"
    return (f"{r:.2f}" + bounds).replace("-", "−")


def _chances(p: float | None, q: float | None) -> str:
    return "\n".join("–" if share is None else f"{share:.4f}" for share in (p, q))


def _correlation_notes(rows: "Sequence[CorrelationRow]") -> list[str]:
    """What the numbers are over and given, and what is known of single ones."""
    notes = []
    for interval in dict.fromkeys(row.interval for row in rows if row.interval):
        notes.append(f"[95 %]: over {interval}")
    if any(row.low is None and row.within_low is not None for row in rows):
        notes.append("r: no interval, few objectives do not say how objectives vary")
    for given in dict.fromkeys(row.given for row in rows if row.given):
        notes.append(f"given λ: given {given}")
    by_note: dict[str, list[str]] = {}
    for row in rows:
        if row.note:
            by_note.setdefault(row.note, []).append(row.measure)
    for note, measures in by_note.items():
        every = len(measures) == len(rows)
        notes.append(note if every else f"{named_some(measures)}: {note}")
    return notes


def overlap_table(rows: "Sequence[OverlapRow]") -> Table:
    """Parts of the explained variance, mean over neuroids."""
    first = rows[0]
    table = Table(
        title=f"a: {first.model} {first.layer}, b: {first.other} {first.other_layer}; "
        f"{first.recording}, {first.n_neuroids} neuroids",
        title_justify="left",
    )
    table.add_column("part")
    table.add_column("R² [95 % over neuroids]", justify="right")
    for row in rows:
        part = row.metric.removeprefix("overlap_")
        table.add_row(part, _with_interval(row.value, row.low, row.high))
    return table
