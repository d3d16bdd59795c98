"""Rows and registries as tables for the terminal."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from rich.table import Table
from rich.text import Text

from ce_align.checks import named_some
from ce_align.config import NETWORKS
from ce_align.data.recordings import Entry
from ce_align.models.catalogue import Published, is_cached
from ce_align.report.style import minus
from ce_align.results import FACTS
from ce_align.stages.comparable import interval_over

if TYPE_CHECKING:
    import pandas as pd

    from ce_align.brainscore.plugin import Severity
    from ce_align.brainscore.plugin.check import PluginCheck
    from ce_align.results import Failure
    from ce_align.stages.correlate import CorrelationRow
    from ce_align.stages.measures import MeasureRow
    from ce_align.stages.official import OfficialRow
    from ce_align.stages.overlap import OverlapRow
    from ce_align.stages.scores import ScoreRow
    from ce_align.stages.transfer import TransferRow

    Scored = TypeVar("Scored", ScoreRow, OfficialRow, CorrelationRow)

__all__ = [
    *(
        "citations_table",
        "comparison_tables",
        "correlation_tables",
        "plugins_table",
        "frame_table",
    ),
    *("failures_table", "identity_table"),
    *("measure_table", "models_table", "official_tables", "overlap_table"),
    *("recordings_table", "score_tables", "transfer_table"),
]

#: The numbers that both paths to a score give, and how tables call them.
SCORED = {"value": "score", "raw": "raw r", "error": "± error", "ceiling": "ceiling"}
#: Why the ceilings of both paths differ.
VARIANCE = (
    "repetitions are unequal: our ceiling is from their variance; --ceiling split-half "
    "is Brain-Score's"
)
#: How a convention of accuracy is called where a person reads it.
CONVENTIONS = {"top1": "top-1", "mean_per_class": "mean per class"}
#: Columns of any rows that are left to the csv.
HIDDEN = {"model_digest", "recording_digest", "version"} | {*FACTS[2:]}


def _table(*columns: str, title: str | None = None, notes: Iterable[str] = ()) -> Table:
    """An empty table; > before a name puts it to the right, ! keeps it in one line."""
    lines = "\n".join(dict.fromkeys(notes))
    # As text: a mark in brackets would be read as an instruction.
    caption = Text(lines) if lines else None
    table = Table(
        title=title, title_justify="left", caption=caption, caption_justify="left"
    )
    for name in columns:
        if name.startswith(("!", ">")):
            justify: Literal["left", "right"] = "right" if name[0] == ">" else "left"
            table.add_column(name[1:], justify=justify, no_wrap=True)
        else:
            table.add_column(name, overflow="fold")
    return table


def _number(value: float | None, form: str = ".4f") -> str:
    return "–" if value is None else format(value, form)


def _by_recording(rows: "Sequence[Scored]") -> "Iterator[tuple[str, list[Scored]]]":
    for name in dict.fromkeys(row.recording for row in rows):
        yield name, [row for row in rows if row.recording == name]


def _notes(row: "ScoreRow | MeasureRow") -> list[str]:
    return row.note.split("; ") if row.note else []


def score_tables(rows: "Sequence[ScoreRow]") -> Iterator[Table]:
    """A table of scores for each recording and region, headed by what its rows share.

    Notes of rows stand below it; a mark leads from a score to its note, unless all
    rows share it.
    """
    for recording, region in dict.fromkeys((row.recording, row.region) for row in rows):
        group = [r for r in rows if (r.recording, r.region) == (recording, region)]
        first = group[0]
        further = {
            "animal": [row.animal or "all" for row in group],
            "ms": [_window(row) for row in group],
            ">ceiling": [_number(row.ceiling) for row in group],
        }
        # What is the same for all stands in the title.
        further = {k: v for k, v in further.items() if len(set(v)) > 1}
        notes = list(dict.fromkeys(n for row in group for n in _notes(row)))
        shared = [note for note in notes if all(note in _notes(row) for row in group)]
        marked = [note for note in notes if note not in shared]
        table = _table(
            *("model", "layer", *further, ">score", ">raw r", ">± error of splits"),
            title=f"{recording}: {region}, {first.n_stimuli} stimuli × "
            f"{first.n_neuroids} neuroids, {first.regression}\n{_ceiling_line(first)}",
            notes=[*shared, *(f"[{i}] {note}" for i, note in enumerate(marked, 1))],
        )
        for place, row in enumerate(group):
            score, *others = map(_number, (row.value, row.raw, row.error))
            known = [values[place] for values in further.values()]
            marks = [marked.index(n) + 1 for n in _notes(row) if n in marked]
            score += "".join(f" [{mark}]" for mark in marks)
            cells = map(Text, (*known, score, *others))
            table.add_row(row.model, row.layer, *cells)
        yield table


def _window(row: "ScoreRow") -> str:
    if row.time_start is None or row.time_end is None:
        return ""
    return f"{row.time_start:g} to {row.time_end:g}"


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


def _benchmark(row: "OfficialRow") -> str:
    return f"{row.recording}: {row.benchmark} of brainscore-vision {row.brainscore}"


def official_tables(rows: "Sequence[OfficialRow]") -> Iterator[Table]:
    """A table of Brain-Score's own numbers for each recording."""
    for _, group in _by_recording(rows):
        table = _table(
            *("model", "layer", *(f">{name}" for name in SCORED.values())),
            title=_benchmark(group[0]),
            notes=[f"{r.model} {r.layer}: {r.note}" for r in group if r.note],
        )
        for row in group:
            numbers = (_number(getattr(row, name)) for name in SCORED)
            table.add_row(row.model, row.layer, *numbers)
        yield table


def comparison_tables(
    ours: "Sequence[ScoreRow]", official: "Sequence[OfficialRow]"
) -> Iterator[Table]:
    """A table for each recording: our numbers, Brain-Score's, and the difference."""
    by_name = {(row.model, row.recording, row.layer): row for row in ours}
    for _, group in _by_recording(official):
        pairs = [(by_name[row.model, row.recording, row.layer], row) for row in group]
        table = _table(
            *("model", "layer", "by", *(f">{name}" for name in SCORED.values())),
            title=_benchmark(group[0]),
            notes=[VARIANCE for own, _ in pairs if own.ceiling_kind == "variance"],
        )
        for own, row in pairs:
            both = [(getattr(own, name), getattr(row, name)) for name in SCORED]
            differences = [None if None in pair else pair[0] - pair[1] for pair in both]
            first, second = zip(*both, strict=True)
            table.add_row(
                *(row.model, row.layer, "ce-align"),
                *(_number(number, ".6f") for number in first),
            )
            table.add_row(
                *("", "", "Brain-Score"), *(_number(number, ".6f") for number in second)
            )
            table.add_row(
                *("", "", "difference"),
                *(_number(difference, ".1e") for difference in differences),
                end_section=True,
            )
        yield table


def models_table(entries: Sequence[Published]) -> Table:
    """The published networks."""
    table = _table("name", "objective", ">λ", ">epochs", "Brain-Score id", "cached")
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
    """Recordings, their sizes, how they are scored, and their access."""
    counted = (">images", ">neuroids", ">repetitions")
    table = _table("name", "area", *counted, "metric", "licence", "access")
    for entry in entries:
        counts = (entry.images, entry.neuroids, entry.repetitions)
        shown = ["–" if count is None else str(count) for count in counts]
        texts = (entry.metric or "–", entry.licence or "–", entry.access)
        table.add_row(entry.name, entry.region, *shown, *texts)
    return table


def citations_table(entries: Sequence[Entry]) -> Table:
    """How recordings are cited, and what else is to know of getting them."""
    table = _table("recordings", "cite", "remark")
    cited: dict[tuple[str, str], list[str]] = {}
    for entry in entries:
        if entry.citation:
            known = cited.setdefault((entry.citation, entry.remark), [])
            known.append(entry.name)
    for (citation, remark), names in cited.items():
        table.add_row("\n".join(names), citation, remark or "–")
    return table


def frame_table(rows: "pd.DataFrame") -> Table:
    """Any stored rows; digests, versions and most facts are left to the csv."""
    table = Table()
    filled = rows.columns[rows.notna().any()]
    columns = [name for name in filled if name not in HIDDEN]
    for name in columns:
        numeric = rows[name].dtype.kind in "if"
        table.add_column(name, justify="right" if numeric else "left")
    for values in rows[columns].itertuples(index=False):
        table.add_row(*map(_cell, values))
    return table


def failures_table(failures: "Sequence[Failure]") -> Table:
    """What was run and gave no rows, and why."""
    table = _table("stage", "failed", "reason", "!when", title="Failed")
    for one in failures:
        texts = (one.stage, one.what, one.message, one.created[:16].replace("T", " "))
        table.add_row(*map(Text, texts))
    return table


def identity_table(document: Mapping[str, Any]) -> Table:
    """What a stored result was computed from, and what its networks are made of."""
    table = _table("of", "part", "digest", title=f"Result {document['config_id']}")
    parts = [("", document.get("content", {}))]
    names = [document["config"].get(name) for name in NETWORKS]
    named = [str(name) for name in names if name]
    parts += zip(named, document.get("identities", []), strict=False)
    for name, digests in parts:
        for part, digest in sorted(digests.items()):
            table.add_row(Text(name), Text(part), Text(digest))
    return table


def _cell(value: object) -> str:
    if isinstance(value, float):
        return "–" if value != value else f"{value:.4g}"
    return "–" if value is None else str(value)


def _with_interval(row: "MeasureRow | OverlapRow") -> str:
    if row.value is None or row.low is None or row.high is None:
        return _number(row.value)
    return f"{row.value:.4f} [{row.low:.4f}, {row.high:.4f}]"


def measure_table(rows: "Sequence[MeasureRow]") -> Table:
    """Measures with 95 % intervals and what those are over, a column a network.

    Marks lead from values to the notes of their rows, which stand below the table.
    """
    models = list(dict.fromkeys(row.model for row in rows))
    notes = list(dict.fromkeys(note for row in rows for note in _notes(row)))
    cells = {}
    for row in rows:
        marks = "".join(f" [{notes.index(note) + 1}]" for note in _notes(row))
        cells[row.metric, row.model] = Text(_with_interval(row) + marks)
    table = _table(
        *("!measure", ">n", "over"),
        title="Measure [95 % interval]",
        notes=[f"[{k}] {note}" for k, note in enumerate(notes, 1)],
    )
    for model in models:
        table.add_column(model, overflow="fold")
    for metric in dict.fromkeys(row.metric for row in rows):
        own = [row for row in rows if row.metric == metric]
        n = "/".join(map(str, sorted({row.n_points for row in own})))
        over = dict.fromkeys(row.interval for row in own if row.interval)
        shown = [cells.get((metric, model), "–") for model in models]
        table.add_row(metric, n, "/".join(map(interval_over, over)) or "–", *shown)
    return table


def correlation_tables(rows: "Sequence[CorrelationRow]") -> Iterator[Table]:
    """A table for each recording: r of each measure, within objectives, and given λ."""
    for recording, group in _by_recording(rows):
        table = _table(
            *("measure", ">n", ">r", ">within\n[95 %]", ">p, q"),
            *(">given λ\n[95 %]", ">p, q"),
            title=f"Pearson r across networks with {recording}",
            notes=_correlation_notes(group),
        )
        for row in group:
            table.add_row(
                row.measure,
                str(row.n_networks),
                _interval(row.value, row.low, row.high),
                _interval(row.within, row.within_low, row.within_high),
                f"{_number(row.p)}\n{_number(row.q)}",
                _interval(row.partial, row.partial_low, row.partial_high),
                f"{_number(row.partial_p)}\n{_number(row.partial_q)}",
            )
        yield table


def _interval(r: float | None, low: float | None, high: float | None) -> str:
    """A correlation above its interval."""
    if r is None:
        return "–"
    bounds = "" if low is None or high is None else f"\n[{low:.2f}, {high:.2f}]"
    return minus(f"{r:.2f}{bounds}")


def _correlation_notes(rows: "Sequence[CorrelationRow]") -> list[str]:
    """What the numbers are over and given, and what is known of single ones."""
    notes = []
    for interval in dict.fromkeys(row.interval for row in rows if row.interval):
        notes.append(f"[95 %]: over {interval}")
    if any(row.low is None and row.within_low is not None for row in rows):
        notes.append("r: no interval, few objectives do not say how objectives vary")
    for given in dict.fromkeys(row.given for row in rows if row.given):
        notes.append(f"given λ: given {given}")
    for note in dict.fromkeys(row.note for row in rows if row.note):
        measures = [row.measure for row in rows if row.note == note]
        every = len(measures) == len(rows)
        notes.append(note if every else f"{named_some(measures)}: {note}")
    return notes


def overlap_table(rows: "Sequence[OverlapRow]") -> Table:
    """Parts of the explained variance, mean over neuroids."""
    first = rows[0]
    table = _table(
        *("part", ">R² [95 % over neuroids]"),
        title=f"a: {first.model} {first.layer}, b: {first.other} {first.other_layer}; "
        f"{first.recording}, {first.n_neuroids} neuroids",
    )
    for row in rows:
        table.add_row(row.metric.removeprefix("overlap_"), _with_interval(row))
    return table


def transfer_table(rows: "Sequence[TransferRow]") -> Table:
    """Accuracy in percent, with its spread over runs and its error over test images."""
    table = _table(
        *("model", "data set", "accuracy", ">mean", ">± sd of runs", ">± test error"),
        *(">λ", ">train/val/test", ">size"),
        title="Linear evaluation, accuracy in %",
    )
    for row in rows:
        table.add_row(
            row.model,
            row.dataset,
            CONVENTIONS[row.convention],
            "–" if row.value is None else f"{100 * row.value:.2f}",
            "–" if row.sd is None else f"{100 * row.sd:.2f}",
            f"{100 * row.error:.2f}",
            f"{row.strength:.2g}",
            f"{row.n_train}/{row.n_validation}/{row.n_test}",
            str(row.size),
        )
    return table


def plugins_table(checked: "Sequence[PluginCheck]") -> Table:
    """Each different finding once, with the plugins that have it; faults first."""
    found: dict[tuple[Severity, str, str], list[tuple[str, str]]] = {}
    for result in checked:
        for finding in result.findings:
            key = (finding.severity, finding.check, finding.message)
            line = f":{finding.line}" if finding.line else ""
            place = f"{finding.file or ''}{line}"
            found.setdefault(key, []).append((result.plugin, place))
    n_ran = sum(result.ran for result in checked)
    n_sound = sum(result.n_faults == 0 for result in checked)
    table = _table(
        *("!severity", "!check", ">plugins", "which", "finding"),
        title=f"{len(checked)} plugins, {n_ran} run: {n_sound} without faults",
    )
    order = ("fault", "warning", "note")
    for key in sorted(found, key=lambda key: (order.index(key[0]), key[1])):
        severity, check, message = key
        plugins, places = zip(*found[key], strict=True)
        which = named_some(plugins)
        if len(plugins) == len(checked) > 1:
            which = "all"
        # A place is shown where it is the same in all plugins.
        place = f" ({places[0]})" if len({*places}) == 1 and places[0] else ""
        table.add_row(severity, check, str(len(plugins)), which, message + place)
    return table
