"""Starting a sweep: plan, leave out what is stored, hand the rest to who computes."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ce_align.config import StageConfig
from ce_align.digests import digest_json
from ce_align.errors import CeAlignError, ConfigError
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.results import ResultStore, Row
from ce_align.runner import (
    STAGES,
    distinct,
    labels_of,
    register_brainscore,
    run,
)
from ce_align.stages.running import Hardware, Outcome
from ce_align.sweeps.board import Board, Sweep
from ce_align.sweeps.jobs import Cost, Job, jobs_of
from ce_align.sweeps.states import Status, states, stored_jobs

__all__ = [
    *("PLACES", "Means", "Where", "planned", "run_sweep", "standing", "start"),
]

#: What workers elsewhere can be told.
SETTINGS = (
    *("allow_unstable", "datasets", "download", "force", "hardware", "labels"),
    *("out", "responses", "runs"),
)
#: Seconds between two looks at a sweep that is waited for.
PAUSE = 2.0

#: Where a sweep is computed.
Where = Literal["here", "processes", "slurm"]
PLACES: tuple[Where, ...] = ("here", "processes", "slurm")


@dataclass(frozen=True)
class Means:
    """What a sweep is computed with.

    Attributes
    ----------
    where : one of `PLACES`
    jobs : processes at once, on this machine
    gpus_per_job : GPUs that each job has for itself
    max_parallel : jobs of an array that a cluster runs at once; None for all
    slurm : options of ``sbatch``
    """

    where: Where = "here"
    jobs: int = 1
    gpus_per_job: int = 0
    max_parallel: int | None = None
    slurm: Mapping[str, str] | None = None


def planned(
    configs: Iterable[StageConfig],
    store: ResultStore,
    *,
    file: str = "",
    minutes: float | None = None,
    cost: Cost = lambda config: None,
    **settings: Any,
) -> tuple[Sweep, list[Job]]:
    """A sweep of configurations, and those of its jobs that the store lacks.

    Parameters
    ----------
    configs : of any stages
    store : of results
    file : that they were read from
    minutes, cost : see `jobs_of`
    **settings : of every run: ``runs``, ``out``, ``datasets``, ``hardware``, ``force``,
        ``allow_unstable``, ``download``, ``labels``
    """
    register_brainscore()
    if unknown := [name for name in settings if name not in SETTINGS]:
        raise ConfigError(
            f"workers elsewhere cannot be given {unknown[0]!r}, which is in this "
            f"process; they take {', '.join(SETTINGS)}"
        )
    configs = distinct(configs)
    labels = {**labels_of(configs), **settings.pop("labels", {})}
    plain: dict[str, Any] = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in settings.items()
    }
    plain["labels"] = labels
    plain["hardware"] = asdict(settings.get("hardware", Hardware()))
    runs = Path(settings.get("runs", "runs"))
    jobs = jobs_of(configs, runs, minutes=minutes, cost=cost)
    folder = str(Path.cwd())
    identity = digest_json([folder, plain, [job.id for job in jobs]])[:12]
    asked = {
        job.id: [(one.stage, one.model_dump(mode="json")) for one in job.configs]
        for job in jobs
    }
    whole = Sweep(identity, file, folder, plain, tuple(jobs), asked)
    if settings.get("force"):
        return whole, jobs
    # What reads rows reads those that there are by then.
    stored = stored_jobs(whole, Board(store))
    return whole, [job for job in jobs if job.id not in stored]


def start(
    sweep: Sweep,
    rest: Sequence[Job],
    store: ResultStore,
    means: Means,
    *,
    notify: Notify = quiet,
    progress: Progress = silent,
) -> Board:
    """Compute the rest of a sweep, or give it to a cluster.

    Jobs that somebody is at are waited for, not begun twice.

    Raises
    ------
    ConfigError
        If there is no cluster, or it has no such option.
    """
    board = Board(store)
    if means.gpus_per_job > 1 and sweep.settings["hardware"]["device"] == "auto":
        # The images of a network are shared among the GPUs of its job.
        own = {**sweep.settings["hardware"], "device": "gpus"}
        sweep = replace(sweep, settings={**sweep.settings, "hardware": own})
    board.write_sweep(sweep)
    if means.where == "slurm":
        from ce_align.sweeps.slurm import queue, submit

        active, submitted = queue() or {}, board.submitted()
        ended = {
            job.id for job in rest if submitted.get(job.id, {}).get("id") not in active
        }
        told = board.done() | board.failed().keys()
        lost = {
            job: submitted[job]
            for job in (ended & submitted.keys()) - told
            if board.tries(job)
        }
        board.forget(ended)
        n = submit(
            board,
            sweep,
            rest,
            means.slurm or {},
            lost=lost,
            gpus_per_job=means.gpus_per_job,
            max_parallel=means.max_parallel,
        )
        notify(f"{n} jobs given to SLURM, {len(rest) - n} are there already")
        return board
    if means.where not in PLACES:
        raise ConfigError(
            f"where is {means.where!r}; choose from {', '.join(PLACES)}, or give an "
            "executor of processes"
        )
    from ce_align.sweeps.processes import in_processes, in_this_process

    board.forget(job.id for job in rest)
    try:
        if means.where == "here":
            in_this_process(board, sweep, rest, notify, progress)
        else:
            in_processes(
                board,
                sweep,
                rest,
                means.jobs,
                notify,
                progress,
                gpus_per_job=means.gpus_per_job,
            )
    except KeyboardInterrupt as stop:
        n_done = len(board.done() & {job.id for job in rest})
        stop.__notes__ = [
            f"{n_done} of {len(rest)} jobs are done; the same again goes on from there"
        ]
        raise
    return board


def standing(sweep: Sweep, board: Board) -> list[Status]:
    """How the jobs of a sweep stand now."""
    from ce_align.sweeps.slurm import queue

    submitted = board.submitted()
    asked = any(job.id in submitted for job in sweep.jobs)
    stored = stored_jobs(sweep, board)
    return states(sweep.jobs, board, stored, queue() if asked else None)


def run_sweep(
    configs: Iterable[StageConfig],
    results: ResultStore | Path | str,
    means: Means,
    *,
    notify: Notify = quiet,
    progress: Progress = silent,
    **settings: Any,
) -> Outcome:
    """Start a sweep, wait until it has ended, and take what the store has of it."""
    store = results if isinstance(results, ResultStore) else ResultStore(Path(results))
    configs = distinct(configs)
    sweep, rest = planned(configs, store, **settings)
    board = start(sweep, rest, store, means, notify=notify, progress=progress)
    while any(one.state in ("waiting", "running") for one in standing(sweep, board)):
        time.sleep(PAUSE)
    stored = {job.id for job in sweep.jobs} - {job.id for job in rest}
    outcome = run(
        [c for job in sweep.jobs if job.id in stored for c in job.configs],
        store,
        notify=notify,
        **settings,
    )
    types = {kind.model_fields["stage"].default: kind for kind in _row_types(Row)}
    for stage, config_id in board.rows([job.id for job in rest]):
        outcome.rows += store.get(stage, config_id, types[stage], notify) or []
        outcome.n_done += 1
    for status in standing(sweep, board):
        if status.state == "failed":
            error = CeAlignError(str(status.reason))
            outcome.failures.append((status.job.name, error))
    return outcome


def _row_types(kind: type[Row]) -> list[type[Row]]:
    found = []
    for one in kind.__subclasses__():
        found += [one, *_row_types(one)]
    return [one for one in found if one.model_fields["stage"].default in STAGES]
