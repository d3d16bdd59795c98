"""How the jobs of a sweep stand, by the board, the store and the cluster's queue."""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ce_align.runner import states_of
from ce_align.sweeps.board import Beat, Board, Sweep
from ce_align.sweeps.jobs import READING, Job

__all__ = ["State", "Status", "because", "states", "stored_jobs"]

State = Literal["running", "waiting", "failed", "done", "never"]


@dataclass(frozen=True)
class Status:
    """How a job stands.

    Attributes
    ----------
    job : that it is of
    state : ``waiting`` if a cluster has it in its queue, ``never`` if nobody has begun
    beat : what its worker last told, while it runs
    reason : why it failed
    tries : how often it was begun
    cluster_id : what a cluster calls it
    """

    job: Job
    state: State
    beat: Beat | None = None
    reason: str | None = None
    tries: int = 0
    cluster_id: str | None = None


def stored_jobs(sweep: Sweep, board: Board) -> set[str]:
    """Jobs whose rows the store has; those that only read rows have none.

    That is seen by their settings, or, where these leave much open, such as layers by a
    glob, by the rows that the job told of when it was done.
    """
    store = board.store
    told = board.told({job.id for job in sweep.jobs if job.stage not in READING})
    settings: dict[str, list[Mapping[str, Any]]] = {}
    of_job: dict[str, list[str]] = {}
    for job, asked in sweep.asked.items():
        for stage, one in asked:
            settings.setdefault(stage, []).append(one)
            of_job.setdefault(stage, []).append(job)
    lacking = {job.id for job in sweep.jobs if job.stage in READING}
    for stage, ones in settings.items():
        if stage in READING:
            continue
        found = states_of(stage, ones, store)
        lacking |= {
            job
            for job, state in zip(of_job[stage], found, strict=True)
            if state != "done"
        }
    return {job.id for job in sweep.jobs} - lacking | told


def states(
    jobs: Iterable[Job],
    board: Board,
    stored: Container[str] = (),
    queue: Mapping[str, str] | None = None,
) -> list[Status]:
    """How jobs stand.

    Parameters
    ----------
    jobs : those that others wait for first
    board : of the store
    stored : those whose rows the store has
    queue : states of the jobs that a cluster has, by its ids for them; None if there
        is no cluster to be asked
    """
    done, failed = board.done(), board.failed()
    beats, submitted = board.beats(), board.submitted()
    found: dict[str, Status] = {}
    for job in jobs:
        cluster_id = submitted.get(job.id, {}).get("id")
        state: State = "never"
        reason = None
        tries = 0
        if job.id in beats:
            state, tries = "running", beats[job.id].tries
        elif cluster_id is not None and cluster_id in (queue or {}):
            # Between two tries of a job that is started again, too.
            state = "waiting"
        elif job.id in stored or (job.stage in READING and job.id in done):
            state = "done"
        elif job.id in failed:
            state, reason = "failed", str(failed[job.id].get("reason"))
            tries = int(failed[job.id].get("tries", 0))
        elif fault := because(job, found):
            state, reason = "failed", fault
        elif cluster_id is not None and queue is not None and job.id not in done:
            state, tries = "failed", board.tries(job.id)
            error = None if tries else board.last_error(cluster_id)
            reason = (
                f"job {cluster_id} could not begin: {error}"
                if error
                else f"job {cluster_id} ended without a word, as if it was killed"
            )
        found[job.id] = Status(job, state, beats.get(job.id), reason, tries, cluster_id)
    return list(found.values())


def because(job: Job, known: Mapping[str, Status]) -> str | None:
    """Why a job cannot be done: something that it needs has failed."""
    for need in job.needs:
        status = known.get(need)
        if status is not None and status.state == "failed":
            return f"needs {status.job.name}, which failed: {status.reason}"
    return None
