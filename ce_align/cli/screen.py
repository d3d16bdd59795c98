"""What commands show: tables on standard output, all else on standard error."""

import codecs
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer
from rich.console import Console

from ce_align.errors import CeAlignError
from ce_align.names import printable
from ce_align.progress import WHOLE, Progress, TimeLeft

if TYPE_CHECKING:
    from pydantic import BaseModel

    from ce_align.report.sheet import Sheet
    from ce_align.stages.running import Outcome

__all__ = [
    "check_printed",
    "fault",
    "message",
    "only_json",
    "prepare_streams",
    "print_json",
    "print_sheets",
    "print_text",
    "progress_bars",
    "report_failures",
    "tell_left_out",
    "tell_outcome",
    "tell_written",
    "watched",
]

#: As many things of one kind that are not at hand are named in one line.
MANY = 5

#: Characters of the line that tells of a fault; of more the middle is left out.
LONGEST = 400

#: How letters are written where the terminal's encoding lacks them; most keep the
#: width that columns of tables were laid out for.
SPELLED = {
    "−": "-", "–": "-", "×": "x", "·": ".", "…": ".", "′": "'", "²": "2", "³": "3",
    "°": "d", "≥": ">=", "≤": "<=", "≠": "!=", "→": "->", "±": "+-", "√": "sqrt ",
    "λ": "lambda", "Δ": "Delta", "Σ": "Sigma", "α": "alpha", "ε": "epsilon",
}  # fmt: skip

#: Names may hold what rich takes for markup, or for an emoji: net.py:leaves.
_PLAIN: dict[str, Any] = {"markup": False, "emoji": False}

_messages = Console(stderr=True, highlight=False, soft_wrap=True, **_PLAIN)


class _Kept(io.FileIO):
    """A stream that goes on when its reader has gone, such as `head`, or it is full."""

    refusal: OSError | None = None

    def write(self, data: Any) -> int:
        """Write, or drop what nobody reads: rows and the exit status are the same."""
        try:
            return super().write(data)
        except BrokenPipeError:
            return len(data)
        except OSError as error:
            self.refusal = error
            return len(data)


def prepare_streams() -> None:
    """Let standard output and error spell what their encoding lacks, and never fail."""
    codecs.register_error("ce_align", _spelled)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper and _descriptor(stream) is not None:
            stream = _kept(stream.fileno(), stream.encoding, stream.line_buffering)
            setattr(sys, name, stream)
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="ce_align")


def check_printed() -> None:
    """Raise CeAlignError if not all of standard output could be written."""
    for stream in filter(None, (sys.stdout, _rows)):
        stream.flush()
        raw = getattr(getattr(stream, "buffer", None), "raw", None)
        if isinstance(raw, _Kept) and raw.refusal is not None:
            raise CeAlignError(
                f"cannot write standard output: {raw.refusal.strerror}; free some "
                "space or send it elsewhere, and run again: what was computed is stored"
            )


def _kept(
    descriptor: int, encoding: str = "utf-8", line_buffering: bool = False
) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedWriter(_Kept(descriptor, "w", closefd=False)),
        encoding=encoding,
        line_buffering=line_buffering,
    )


def _spelled(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(_spell, error.object[error.start : error.end])), error.end


def _spell(character: str) -> str:
    escaped = character.encode("ascii", "backslashreplace").decode()
    return SPELLED.get(character, escaped)


def message(text: str) -> None:
    """Tell the user something, on standard error, whatever names are in it."""
    _messages.print("\n".join(map(printable, text.split("\n"))))


def fault(text: str, error: BaseException) -> None:
    """Tell of a fault in one line, after its traceback if --debug was given."""
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    # Names of files may have line breaks, and what others wrote any length; what is
    # expected stands at the beginning of a line, what to do at its end.
    line = printable(f"error: {' '.join(text.splitlines())}")
    if len(line) > LONGEST:
        line = f"{line[: LONGEST // 2]} … {line[3 - LONGEST // 2 :]}"
    message(line)


def report_failures(found: "Sequence[tuple[str, CeAlignError]]") -> None:
    """Tell what could not be done, and end with the gravest status if anything."""
    from ce_align.checks import named_some

    for names, error in _together(_summarised(found)):
        text = str(error)
        unnamed = [name for name in names if name not in text]
        fault(f"{named_some(unnamed)}: {text}" if unnamed else text, error)
    if found:
        raise typer.Exit(max(error.exit_status for _, error in found))


def tell_outcome(outcome: "Outcome", results: Path | None = None) -> None:
    """Tell of what a run left out, found in the store, and could not do."""
    for note in dict.fromkeys(outcome.notes):
        message(note)
    if results is not None and outcome.n_stored:
        n = outcome.n_done + outcome.n_stored
        message(
            f"{outcome.n_stored} of {n} were in {results} already (--force computes "
            "them again)"
        )
    report_failures(outcome.failures)


def tell_left_out(missing: "Sequence[tuple[str, str]]", *, full: bool) -> None:
    """Tell which figures and tables have no rows; what each needs only in `full`."""
    if full:
        for name, reason in missing:
            message(f"left out {name}: {reason}")
    elif missing:
        names = ", ".join(name for name, _ in missing)
        message(f"left out, without rows: {names} (--full says what each needs)")


def tell_written(outcome: "Outcome", *, everything: bool, full: bool) -> None:
    """Tell of files; of `everything`, what has no rows is left out and no failure.

    In `full`, what that would need is told, too.
    """
    from ce_align.report.paper.items import NothingToDraw

    suffixes: dict[Path, list[str]] = {}
    for path in outcome.files:
        suffixes.setdefault(path.with_suffix(""), []).append(path.suffix[1:])
    for stem, found in suffixes.items():
        message(f"wrote {stem}.{{{','.join(found)}}}")
    for caption in outcome.captions:
        message(caption)
    missing, failures = [], []
    for name, error in outcome.failures:
        if everything and isinstance(error, NothingToDraw):
            missing.append((name, str(error)))
        else:
            failures.append((name, error))
    tell_left_out(missing, full=full)
    report_failures(failures)


def _summarised(
    found: "Sequence[tuple[str, CeAlignError]]",
) -> "list[tuple[str, CeAlignError]]":
    """One failure in place of many things that are not at hand."""
    from ce_align.checks import named_some
    from ce_align.errors import AccessError

    absent = {what: error for what, error in found if isinstance(error, AccessError)}
    if len(absent) < MANY:
        return list(found)
    first = next(iter(absent.values()))
    text = f"{len(absent)} are not at hand ({named_some(list(absent))}): {first}"
    rest = [(what, error) for what, error in found if what not in absent]
    return [(text, AccessError(text)), *rest]


def _together(
    found: "Sequence[tuple[str, CeAlignError]]",
) -> "list[tuple[list[str], CeAlignError]]":
    """What failed for the same reason, each name and each reason once."""
    groups: dict[str, tuple[list[str], CeAlignError]] = {}
    for what, error in found:
        names, _ = groups.setdefault(str(error), ([], error))
        if what not in names:
            names.append(what)
    return list(groups.values())


#: Where rows go while standard output is diverted.
_rows: TextIO | None = None


def only_json(wanted: bool) -> bool:
    """Let nothing but rows reach standard output from now on, if that is wanted.

    Below Python, too: a network's code may start processes, or print from C or when
    Python ends. All that goes to standard error.
    """
    global _rows
    if wanted and _rows is None and _descriptor(sys.stdout) == 1:
        sys.stdout.flush()
        _rows = _kept(os.dup(1))
        os.dup2(2, 1)
    return wanted


def _descriptor(stream: TextIO) -> int | None:
    try:
        return stream.fileno()
    except (OSError, ValueError, AttributeError):  # such as a test's
        return None


def print_json(records: "Sequence[BaseModel | dict[str, Any]]") -> None:
    """Rows as a JSON array, the only thing on standard output."""
    plain = [
        record if isinstance(record, dict) else record.model_dump(mode="json")
        for record in records
    ]
    print_text(json.dumps(plain, indent=1))


def print_text(text: str) -> None:
    """A document, the only thing on standard output."""
    print(text, file=_rows or sys.stdout, flush=True)


def print_sheets(sheets: "Iterable[Sheet]") -> None:
    """Print tables on standard output, as wide as a terminal is or COLUMNS says."""
    from ce_align.report.sheet import UNBOUNDED

    console = Console(highlight=False, **_PLAIN)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        # A pipe has no width: nothing is shortened.
        console = Console(width=UNBOUNDED, highlight=False, **_PLAIN)
    for place, sheet in enumerate(sheets):
        if place:
            console.print()
        console.print(sheet)


def watched(picture: "Callable[[], Sequence[Sheet] | None]", pause: float) -> None:
    """Show tables in a terminal, anew every `pause` seconds, until there are none."""
    from rich.console import Group
    from rich.live import Live

    console = Console(highlight=False, **_PLAIN)
    if not console.is_terminal:
        return
    with Live(console=console, transient=True, auto_refresh=False) as live:
        while (sheets := picture()) is not None:
            live.update(Group(*sheets), refresh=True)
            time.sleep(pause)


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """Progress shown as bars with speed and time left, on standard error.

    Where standard error is not a terminal, a line is written now and then instead.
    """
    if not _messages.is_interactive:
        yield _Lines()
        return
    from rich import progress as rich
    from rich.table import Column

    narrow = Column(ratio=1, no_wrap=True, overflow="ellipsis")
    columns = (
        rich.TextColumn("{task.description}", markup=False, table_column=narrow),
        rich.BarColumn(None, table_column=Column(ratio=1)),
        rich.TextColumn("{task.fields[state]}", markup=False),
        rich.TimeElapsedColumn(),
        rich.TextColumn("{task.fields[left]}", markup=False),
    )
    bars = rich.Progress(*columns, console=_messages, transient=True, expand=True)
    tasks: dict[str, rich.TaskID] = {}
    time_left = TimeLeft()

    def show(what: str, done: int, total: int, state: str = "", /) -> None:
        time_left.told(what, done, total)
        if what not in tasks:
            # A job of one pass is shown by that pass.
            shown = what != WHOLE or total > 1
            tasks[what] = bars.add_task(
                what, total=total, visible=shown, state="", left=""
            )
        task = tasks[what]
        speed = bars.tasks[bars.task_ids.index(task)].speed
        state = state or _state(done, total, None if what == WHOLE else speed)
        left = time_left.whole() if what == WHOLE else time_left.of(what)
        bars.update(task, completed=done, total=total, state=state, left=_left(left))
        if WHOLE in tasks:
            bars.update(tasks[WHOLE], left=_left(time_left.whole()))
        if done >= total:
            bars.remove_task(tasks.pop(what))
        bars.start()  # no earlier: of several processes only one may tell

    try:
        yield show
    finally:
        bars.stop()


class _Lines:
    """A line every few seconds, for logs; of a long job every 120th of its time."""

    INTERVAL, SHARE = 5.0, 120

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()
        self._time_left = TimeLeft()
        self._job = ""

    def __call__(self, what: str, done: int, total: int, state: str = "", /) -> None:
        self._time_left.told(what, done, total)
        if what == WHOLE:
            self._job = f"{done} of {total} {what}" if total > 1 else ""
            return
        now = time.monotonic()
        elapsed = now - self._began
        if now - self._last < max(self.INTERVAL, elapsed / self.SHARE):
            return
        self._last = now
        state = state or _state(done, total, None)
        passed, left = f"{_clock(elapsed)} passed", _left(self._time_left.whole())
        parts = (state, self._job, passed, left)
        message(f"{what}: {', '.join(filter(None, parts))}")


def _state(done: int, total: int, speed: float | None) -> str:
    return f"{done}/{total}" + (f"  {speed:.3g}/s" if speed else "")


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{_clock(seconds)} left"


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
