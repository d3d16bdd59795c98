"""A worker: takes a job, computes what the store lacks, and says how it ended."""

import contextlib
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from ce_align.config import StageConfig
from ce_align.errors import CeAlignError, Stopped, explained, first_line
from ce_align.models.features import BATCH_SIZES
from ce_align.progress import Notify, Progress
from ce_align.recipes import load_recipe
from ce_align.results import ResultStore
from ce_align.runner import grouped, run
from ce_align.stages.running import Hardware, Outcome
from ce_align.sweeps.board import Board, Sweep, worker_name
from ce_align.sweeps.jobs import Job

__all__ = ["Failed", "Task", "parts_of", "work"]

#: Seconds between two looks at a job that another works at.
PAUSE = 1.0
#: Settings of a run that are paths.
PATHS = ("runs", "out", "datasets", "responses")


class Failed(CeAlignError):
    """A job that failed, for the exit status of its process."""


@dataclass(frozen=True)
class Task:
    """A job as a cluster is given it: called on any machine, again after a stop."""

    results: Path
    sweep: str
    job: str
    halved: bool = False

    def __call__(self) -> None:
        """Work at the job; raises Failed if it fails, so that what needs it waits."""
        board = Board(ResultStore(self.results))
        board.log(self.job).parent.mkdir(parents=True, exist_ok=True)
        with _telling(board.log(self.job)):
            reason = work(board, self.sweep, self.job, halved=self.halved)
        if reason:
            raise Failed(reason)

    def checkpoint(self) -> Any:
        """What is to be called when the cluster starts the job again: the same."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


def work(
    board: Board,
    sweep: str,
    job: str,
    *,
    halved: bool = False,
    notify: Notify = print,
) -> str | None:
    """Compute what a job's rows lack, or wait until who computes it is done.

    Parameters
    ----------
    board : of the store
    sweep, job : ids
    halved : take half the images at a time, after memory was not enough
    notify : told what a person should know

    Returns
    -------
    Why it failed; None if it is done.
    """
    whole = board.read_sweep(sweep, only="")
    os.chdir(whole.folder)
    if Path(whole.file).suffix == ".py":
        # It may register objectives or measures of its own, which settings name.
        load_recipe(Path(whole.file))
    (asked,) = (one for one in board.read_sweep(sweep, job).jobs if one.id == job)
    while (claim := board.claim(job, worker_name())) is None:
        time.sleep(PAUSE)
    with claim:
        notify(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {asked.name}, {worker_name()}")
        computing = _Computing(board.store, whole, claim.progress, notify)
        outcome = Outcome()
        for part in parts_of(board, asked, claim.beat.tries):
            found = computing.run(part, halved)
            if not halved and any(_is_memory(error) for _, error in found.failures):
                notify("not enough memory: once more with half the images at a time")
                found = computing.run(part, halved=True)
            outcome.add(found)
        faults = [f"{what}: {first_line(error)}" for what, error in outcome.failures]
        for fault in faults:
            notify(f"error: {fault}")
        reason = "; ".join(faults) or None
        ids = dict.fromkeys((row.stage, row.config_id) for row in outcome.rows)
        board.end(job, reason, tries=claim.beat.tries, rows=list(ids))
    return reason


def parts_of(board: Board, job: Job, tries: int) -> Iterator[Sequence[StageConfig]]:
    """What a job computes at a time: all of it, until its process was killed.

    Then group by group, and the one at which it was killed comes last, so that it
    keeps no other from being computed.
    """
    if tries == 1:
        yield job.configs
        return
    groups = [group for of_stage in grouped(job.configs).values() for group in of_stage]
    begun = board.begun(job.id)
    for place in sorted(range(len(groups)), key=lambda place: begun.count(place)):
        board.begin(job.id, [*begun, place])
        yield groups[place]


@dataclass(frozen=True)
class _Computing:
    """How the configurations of a job are run."""

    store: ResultStore
    sweep: Sweep
    progress: Progress
    notify: Notify

    def run(self, configs: Sequence[StageConfig], halved: bool) -> Outcome:
        settings = dict(self.sweep.settings)
        hardware = Hardware(**settings.pop("hardware", {}))
        if halved:
            fewer = max(1, (hardware.batch_size or BATCH_SIZES["cpu"]) // 2)
            hardware = replace(hardware, batch_size=fewer)
        for name in PATHS:
            if settings.get(name) is not None:
                settings[name] = Path(settings[name])
        return run(
            configs,
            self.store,
            hardware=hardware,
            progress=self.progress,
            notify=self.notify,
            **settings,
        )


def _is_memory(error: BaseException | None) -> bool:
    """Whether memory was not enough, on the machine or its GPU."""
    while error is not None:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            return True
        error = error.__cause__
    return False


@contextlib.contextmanager
def _telling(log: Path) -> Any:
    """Send to a log whatever is printed meanwhile, by Python or below it."""
    sys.stdout.flush()
    sys.stderr.flush()
    before = [os.dup(1), os.dup(2)]
    with log.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for stream, kept in zip((1, 2), before, strict=True):
            os.dup2(kept, stream)
            os.close(kept)


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    """Stop by an exception, so that nothing is left half-written."""
    raise Stopped(signum)


def main(results: str, sweep: str, job: str, *options: str) -> int:
    """Work at one job as a process of its own; its exit status."""
    board = Board(ResultStore(Path(results)))
    signal.signal(signal.SIGTERM, _stop)
    try:
        reason = work(board, sweep, job, halved="halved" in options)
    except KeyboardInterrupt as stop:
        return 128 + getattr(stop, "signum", signal.SIGINT)
    except Exception as error:
        found = explained(error)
        print(f"error: {found}", flush=True)
        if found.exit_status < 128:  # else a signal has stopped it, to go on later
            board.end(job, str(found))
        return found.exit_status
    return 1 if reason else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
