"""A sweep on this machine: in this process, or in several of their own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from ce_align.progress import WHOLE, Notify, Progress
from ce_align.sweeps.board import Board, Sweep
from ce_align.sweeps.jobs import Job
from ce_align.sweeps.states import Status, because
from ce_align.sweeps.worker import work

__all__ = ["in_processes", "in_this_process"]

#: Seconds between two looks at the processes.
PAUSE = 0.1
#: How often a job is begun again whose process was killed.
TRIES = 3


def in_this_process(
    board: Board, sweep: Sweep, jobs: Sequence[Job], notify: Notify, progress: Progress
) -> None:
    """Work at jobs one after another."""
    ended: dict[str, Status] = {}
    for place, job in enumerate(jobs):
        progress(WHOLE, place, len(jobs))
        fault = because(job, ended)
        if fault:
            board.end(job.id, fault)
        else:
            fault = work(board, sweep.id, job.id, notify=notify)
        ended[job.id] = Status(job, "failed" if fault else "done", reason=fault)
    progress(WHOLE, len(jobs), len(jobs))


def in_processes(
    board: Board,
    sweep: Sweep,
    jobs: Sequence[Job],
    n_workers: int,
    notify: Notify,
    progress: Progress,
    *,
    gpus_per_job: int = 0,
) -> None:
    """Work at jobs in as many processes at once, one process a job.

    A process that is killed takes nothing with it but its own job, which is begun
    again: with half the images at a time if memory ran out. A signal that asks this
    process to stop is handed on, and waited for.

    Parameters
    ----------
    board, sweep : that the jobs are of
    jobs : those that others wait for first
    n_workers : processes
    notify, progress : told what ended, and how many have
    gpus_per_job : each process has so many of the GPUs for itself
    """
    ended: dict[str, Status] = {}
    waiting, running = list(jobs), dict[int, _Process]()
    try:
        while waiting or running:
            progress(WHOLE, len(ended), len(jobs))
            for slot, process in list(running.items()):
                if (status := process.ended()) is not None:
                    del running[slot]
                    ended[process.job.id] = status
                    notify(_told(status))
            open_ = {job.id for job in waiting}
            open_ |= {process.job.id for process in running.values()}
            for job in list(waiting):
                if not open_.isdisjoint(job.waits_for()):
                    continue
                if fault := because(job, ended):
                    board.end(job.id, fault)
                    ended[job.id] = Status(job, "failed", reason=fault)
                    notify(_told(ended[job.id]))
                elif len(running) < n_workers:
                    slot = min(set(range(n_workers)) - set(running))
                    running[slot] = _Process(
                        board, sweep, job, _environment(slot, n_workers, gpus_per_job)
                    )
                else:
                    break
                waiting.remove(job)
            time.sleep(PAUSE)
        progress(WHOLE, len(ended), len(jobs))
    finally:
        for process in running.values():
            process.stop()


def _told(status: Status) -> str:
    if status.reason:
        return f"failed: {status.job.name}: {status.reason}"
    return f"done: {status.job.name}"


def _environment(slot: int, n_workers: int, gpus_per_job: int) -> dict[str, str]:
    """Variables of a process: its share of the cores, and its GPUs."""
    # Threads of several processes would fight over the cores.
    share = max(1, len(os.sched_getaffinity(0)) // n_workers)
    found = {"OMP_NUM_THREADS": str(share), **os.environ}
    if gpus_per_job:
        own = range(slot * gpus_per_job, (slot + 1) * gpus_per_job)
        given = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = given if given != [""] else list(map(str, range(max(own) + 1)))
        found["CUDA_VISIBLE_DEVICES"] = ",".join(names[i] for i in own)
    return found


@dataclass
class _Process:
    """A process that works at a job."""

    board: Board
    sweep: Sweep
    job: Job
    environment: dict[str, str]
    _deaths: int = 0
    _options: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        path = self.board.log(self.job.id)
        path.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "ce_align.sweeps.worker"]
        command += [str(self.board.store.folder.absolute())]
        command += [self.sweep.id, self.job.id, *self._options]
        self._kills = _kills_for_memory()
        with path.open("a") as log:
            self._process = _started(command, log, self.environment)

    def ended(self) -> Status | None:
        """How the job ended; None while it has not. One that was killed goes on."""
        status = self._process.poll()
        if status is None:
            return None
        reason: str | None = None
        if status < 0:
            reason = f"its process was ended by {signal.Signals(-status).name}"
            for_memory = _kills_for_memory() > self._kills
            self._deaths += 1
            if for_memory:
                reason = "there was not enough memory"
            if self._deaths < TRIES and not (for_memory and self._options):
                self._options = ["halved"] if for_memory else self._options
                self._start()
                return None
            self.board.end(self.job.id, reason, tries=self.board.tries(self.job.id))
        elif status:
            known = self.board.failed().get(self.job.id, {})
            reason = str(known.get("reason") or f"status {status}, see its log")
        return Status(self.job, "failed" if reason else "done", reason=reason)

    def stop(self) -> None:
        """Ask the process to stop, and wait until it has saved what it can."""
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait()


def _started(
    command: list[str], log: TextIO, environment: dict[str, str]
) -> "subprocess.Popen[bytes]":
    # In a session of its own: Ctrl-C reaches it as a signal from us.
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        start_new_session=True,
    )


def _kills_for_memory() -> int:
    """How many processes the system has ended because memory ran out."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))
