"""A sweep on a SLURM cluster, by submitit: arrays, dependencies, requeues."""

import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ce_align.errors import CeAlignError, ConfigError
from ce_align.sweeps.board import Board, Sweep
from ce_align.sweeps.jobs import Job
from ce_align.sweeps.worker import Task

__all__ = ["cancel", "queue", "submit"]

#: Minutes that a job may take if nobody knows how many it needs, and at least.
USUAL, LEAST = 240, 20
#: A job has so many times as long as it is expected to take.
MARGIN = 3
#: How often a job may be started again after its time was up.
RESTARTS = 100
#: Jobs of an array, at most, as clusters usually have it.
ARRAY = 1000
#: Seconds until a silent SLURM counts as absent.
PATIENCE = 60


class _Key(NamedTuple):
    """What jobs of one submission have in common.

    Attributes
    ----------
    needs, follows : the cluster's ids of jobs that must succeed, and that must end
    minutes : that each may take
    memory : that each has, in MB; None for what the cluster gives
    """

    needs: tuple[str, ...]
    follows: tuple[str, ...]
    minutes: int
    memory: int | None


def queue() -> dict[str, str] | None:
    """States of the user's jobs, by SLURM's ids; None where there is no SLURM."""
    if shutil.which("squeue") is None:
        return None
    command = ["squeue", "--me", "--array", "--noheader", "--format=%i %T"]
    answer = _ask(command)
    return dict(line.split() for line in answer.splitlines() if line.strip())


def submit(
    board: Board,
    sweep: Sweep,
    jobs: Sequence[Job],
    options: Mapping[str, str],
    *,
    lost: Mapping[str, Mapping[str, Any]],
    gpus_per_job: int = 0,
    max_parallel: int | None = None,
) -> int:
    """Give jobs to SLURM, but those that it has already.

    A job starts once those that it needs are done, however often these are started
    again, and is dropped if one of them fails. Those that wait for the same become an
    array.

    Parameters
    ----------
    board, sweep : that the jobs are of
    jobs : those that others wait for first; what these wait for beside them is done
    options : of ``sbatch``, such as ``partition`` or ``account``
    lost : what the board knows of jobs that ended without a word, as they do where
        memory is not enough: they have twice the memory now, if ``mem`` is among the
        options, and half the images at a time
    gpus_per_job : GPUs
    max_parallel : jobs of one array that may run at once

    Returns
    -------
    How many jobs were given to it.

    Raises
    ------
    ConfigError
        If there is no SLURM here, or it has no such option.
    CeAlignError
        If it refuses.
    """
    present = queue()
    if present is None:
        raise ConfigError(
            "there is no SLURM here (squeue is not found); use --where processes"
        )
    known = board.submitted()
    ids = {
        job.id: known[job.id]["id"]
        for job in jobs
        if known.get(job.id, {}).get("id") in present
    }
    new = [job for job in jobs if job.id not in ids]
    n_new = len(new)
    while new:
        # What waits for nothing that has no id yet.
        ready: dict[_Key, list[Job]] = defaultdict(list)
        unknown = {job.id for job in new}
        for job in new:
            if not unknown & set(job.waits_for()):
                ready[_key(job, ids, _memory(options, lost.get(job.id)))].append(job)
        for key, chosen in ready.items():
            for start in range(0, len(chosen), ARRAY):
                part = chosen[start : start + ARRAY]
                given = _submit(
                    board, sweep, part, key, options, lost, gpus_per_job, max_parallel
                )
                for job, cluster_id in zip(part, given, strict=True):
                    ids[job.id] = cluster_id
                    board.submit(job.id, cluster_id, memory=key.memory)
        new = [job for job in new if job.id not in ids]
    return n_new


def _memory(options: Mapping[str, str], before: Mapping[str, Any] | None) -> int | None:
    """Megabytes of a job: those asked for, or twice what it had before it was lost."""
    asked = options.get("mem")
    if asked is None:
        return None
    found = re.fullmatch(r"(\d+)([KMGT]?)B?", asked.upper())
    if found is None:
        raise ConfigError(f"--slurm mem is {asked!r}; give a number and a unit, as 16G")
    scale = {"K": 2**-10, "": 1, "M": 1, "G": 2**10, "T": 2**20}[found[2]]
    own = max(1, round(int(found[1]) * scale))
    return own if before is None else max(own, 2 * int(before.get("memory") or own))


def _key(job: Job, ids: Mapping[str, str], memory: int | None) -> _Key:
    minutes = USUAL
    if job.minutes is not None:
        minutes = max(LEAST, int(MARGIN * job.minutes) + 1)
    needs = tuple(ids[one] for one in job.needs if one in ids)
    # All of an array have one name.
    follows = {ids[one].partition("_")[0] for one in job.follows if one in ids}
    return _Key(needs, tuple(sorted(follows)), minutes, memory)


def _submit(
    board: Board,
    sweep: Sweep,
    jobs: Sequence[Job],
    key: _Key,
    options: Mapping[str, str],
    lost: Container[str],
    gpus_per_job: int,
    max_parallel: int | None,
) -> list[str]:
    """Ids of jobs that were submitted together."""
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    parts = [f"afterok:{':'.join(key.needs)}"] if key.needs else []
    parts += [f"afterany:{':'.join(key.follows)}"] if key.follows else []
    executor = SlurmExecutor(
        board.folder.absolute() / "slurm", max_num_timeout=RESTARTS
    )
    settings: dict[str, Any] = {
        "job_name": "ce-align",
        "time": key.minutes,
        "signal_delay_s": 90,
        "stderr_to_stdout": True,
        "array_parallelism": max_parallel or ARRAY,
        **({"dependency": ",".join(parts)} if parts else {}),
        **({"gpus_per_node": gpus_per_job} if gpus_per_job else {}),
    }
    more: dict[str, Any] = {"requeue": True, "kill-on-invalid-dep": "yes"}
    of_submitit = SlurmExecutor._valid_parameters()
    for name, value in options.items():
        own = name.replace("-", "_")
        if own in of_submitit:
            settings[own] = int(value) if value.isdecimal() else value
        else:
            more[name] = value
    if key.memory is not None:
        settings["mem"] = f"{key.memory}MB"
    executor.update_parameters(**settings, additional_parameters=more)
    folder = board.store.folder.absolute()
    try:
        with executor.batch():
            given = [
                executor.submit(Task(folder, sweep.id, job.id, job.id in lost))
                for job in jobs
            ]
    except (FailedSubmissionError, FailedJobError) as error:
        raise CeAlignError(f"SLURM refused: {_reason(error)}") from error
    return [job.job_id for job in given]


def cancel(ids: Iterable[str]) -> None:
    """Take jobs from the queue, or end them."""
    chosen = list(ids)
    for start in range(0, len(chosen), ARRAY):
        _ask(["scancel", *chosen[start : start + ARRAY]])


def _ask(command: list[str]) -> str:
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CeAlignError(f"{command[0]} failed: {error}") from error
    if answer.returncode:
        raise CeAlignError(f"{command[0]} failed: {answer.stderr.strip()}")
    return answer.stdout


def _reason(error: Exception) -> str:
    """What sbatch said."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    said = [line for line in lines if "error:" in line]
    return " ".join((said or lines)[-1].split()) if lines else type(error).__name__
