"""Processes of one training: who starts them, what they share, which reports.

Convention of the collective operations: every process returns the same loss of the
whole batch, every operation is differentiated by its exact adjoint, and the gradients
of parameters are then *averaged* over processes, as `DistributedDataParallel` does.
What is descended is thus the mean of the returned losses, which is the loss of the
whole batch: no factor for the number of processes appears anywhere (for that of the
authors' code see `ce_align.trainer.objectives`). Every process holds equally many rows,
and rows are joined in the order of ranks.

A group of None stands for one process alone: its functions return their input.
"""

import os
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ce_align.errors import CeAlignError, ConfigError

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import (
        ClusterEnvironment,
    )

__all__ = [
    "FailedElsewhere",
    "Group",
    "Interrupted",
    "SlurmJob",
    "all_reduced",
    "all_rows",
    "claims_report",
    "cluster_of",
    "full_precision",
    "gather_rows",
    "mean_over",
    "n_processes",
    "one_report",
    "rank_in",
    "sum_over",
]

#: Processes that share a batch; None is this process alone.
Group: TypeAlias = dist.ProcessGroup | None

#: Names that SLURM gives to shells, whose job cannot be started again.
SHELLS = ("bash", "interactive")
#: How often SLURM is asked to start a job again, the seconds in between (it may be
#: busy), and those that one answer may take.
ATTEMPTS, PAUSE, SLURM_PATIENCE = 3, 5.0, 30
#: SIGTERM this many seconds before the end of a job's time tells of that end.
LAST_SECONDS = 60.0
#: Where the store of the processes says which of them reports, and its exit status.
REPORTER = "ce_align/reporter"
#: As long as it may take until it says so.
PATIENCE = timedelta(seconds=10)


def n_processes(group: Group) -> int:
    """Number of processes in `group`."""
    return 1 if group is None else group.size()


def rank_in(group: Group) -> int:
    """Place of this process in `group`, from 0."""
    return 0 if group is None else group.rank()


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context in which operations on the device of `tensor` keep their precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def all_rows(rows: Tensor, group: Group) -> Tensor:
    """Rows of all processes, (n_processes * n, ...), without gradient."""
    if group is None:
        return rows
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(n_processes(group))]
    dist.all_gather(parts, rows, group=group)
    return torch.cat(parts)


def all_reduced(tensor: Tensor, group: Group) -> Tensor:
    """Sum over processes of a tensor of any shape, without gradient."""
    if group is None:
        return tensor
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


# torch.distributed.nn.functional has both, but warns that it is deprecated; what it
# names instead is private.
class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return all_rows(rows, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        n_rows = len(gradient) // n_processes(ctx.group)
        total = all_reduced(gradient, ctx.group)
        return total.narrow(0, rank_in(ctx.group) * n_rows, n_rows), None


class _SumOver(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return all_reduced(tensor, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return all_reduced(gradient, ctx.group), None


def gather_rows(rows: Tensor, group: Group) -> Tensor:
    """Rows of all processes, (n_processes * n, ...), in the order of ranks.

    The gradient of a process's rows is the sum of what all processes ask of them.
    """
    if group is None:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, group)
    return gathered


def sum_over(tensor: Tensor, group: Group) -> Tensor:
    """Sum over processes of a tensor of any shape; so are its gradients."""
    if group is None:
        return tensor
    total: Tensor = _SumOver.apply(tensor, group)
    return total


def mean_over(tensor: Tensor, group: Group) -> Tensor:
    """Mean over processes of a tensor of any shape."""
    return tensor if group is None else sum_over(tensor, group) / n_processes(group)


@dataclass(frozen=True)
class SlurmJob:
    """The batch job that a training runs in.

    Lightning can start a job again, too, but asks SLURM once, and writes a checkpoint
    of another kind for that, whichever step it is in.

    Attributes
    ----------
    identifier : as ``scontrol`` takes it; of an array with the number of the task
    n_restarts : how often it was started again
    end : Unix time at which its time is up; None if SLURM did not say
    """

    identifier: str
    n_restarts: int = 0
    end: float | None = None

    @classmethod
    def detect(cls, variables: Mapping[str, str] = os.environ) -> "SlurmJob | None":
        """The job that environment variables tell of; None outside and in a shell."""
        identifier = variables.get("SLURM_JOB_ID")
        if not identifier or variables.get("SLURM_JOB_NAME") in SHELLS:
            return None
        array = variables.get("SLURM_ARRAY_JOB_ID")
        task = variables.get("SLURM_ARRAY_TASK_ID")
        end = variables.get("SLURM_JOB_END_TIME", "")
        return cls(
            f"{array}_{task}" if array and task else identifier,
            int(variables.get("SLURM_RESTART_COUNT") or 0),
            float(end) if end.isdecimal() else None,
        )

    def time_is_up(self) -> bool:
        """Whether the job ends because its time does.

        A job that is cancelled or makes room for another receives SIGTERM too; the
        one is not to start again, and the other SLURM starts again itself.
        """
        return self.end is not None and time.time() > self.end - LAST_SECONDS

    def requeue(self) -> str:
        """Ask SLURM to start the job again; what came of it, as a clause."""
        command = ["scontrol", "requeue", self.identifier]
        # SLURM ends the whole job for it, scontrol with it, which would seem to fail.
        deaf_to_its_end = ["/bin/sh", "-c", 'trap "" TERM; exec "$@"', "sh", *command]
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE)
            try:
                answer = subprocess.run(
                    deaf_to_its_end,
                    capture_output=True,
                    text=True,
                    timeout=SLURM_PATIENCE,
                    check=False,
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                reason = str(error)
                continue
            if answer.returncode == 0:
                return f"SLURM starts job {self.identifier} again"
            reason = answer.stderr.strip() or f"status {answer.returncode}"
        reason = " ".join(reason.split())
        return f"{' '.join(command)} failed ({reason}): submit the job again to go on"


def cluster_of(
    devices: int, nodes: int, variables: Mapping[str, str] = os.environ
) -> "ClusterEnvironment | None":
    """Who starts the processes of a training, so many on each of so many machines.

    SLURM has started them where it started several tasks. Where it started one, or a
    shell, this process starts the others itself, as on any machine. None outside SLURM
    and below ``torchrun``, which Lightning knows.

    Raises
    ------
    ConfigError
        If SLURM has started another number of tasks.
    """
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment
    from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning.fabric.plugins.environments.torchelastic import (
        TorchElasticEnvironment,
    )

    if "SLURM_JOB_ID" not in variables or TorchElasticEnvironment.detect():
        return None
    n_tasks = int(variables.get("SLURM_NTASKS") or 1)
    if n_tasks == 1 or variables.get("SLURM_JOB_NAME") in SHELLS:
        if nodes > 1:
            raise ConfigError(
                f"--nodes {nodes} needs a task for every process; ask SLURM for "
                f"--nodes={nodes} --ntasks-per-node={devices} and start with srun"
            )
        return LightningEnvironment()
    if n_tasks != devices * nodes or "SLURM_NTASKS_PER_NODE" not in variables:
        raise ConfigError(
            f"SLURM has {n_tasks} tasks for {devices * nodes} processes; ask it for "
            f"--nodes={nodes} --ntasks-per-node={devices}, or change --nodes and "
            "--devices"
        )
    if "SLURM_STEP_ID" not in variables:
        raise ConfigError(
            f"only one of {n_tasks} tasks was started; put srun before the command"
        )
    return SLURMEnvironment(auto_requeue=False)


class FailedElsewhere(CeAlignError):
    """Another process has failed, and reports why."""


class Interrupted(CeAlignError):
    """Training was asked to stop by a signal, and can be resumed."""

    def __init__(self, text: str, signum: int) -> None:
        super().__init__(text)
        self.exit_status = 128 + signum


@contextmanager
def one_report() -> Iterator[None]:
    """Let one process report what went wrong, and end the others without a word.

    Raises
    ------
    CeAlignError
        In place of what a network library says when a process has vanished.
    SystemExit
        In processes that do not report. Their status is 0, because the one that does
        must not be ended before it has; that of the first process is the reporter's.
    """
    try:
        yield
    except Exception as error:
        if not claims_report(error):
            raise SystemExit(_status_of_reporter()) from None
        if isinstance(error, CeAlignError) or not _of_connection(error):
            raise
        raise CeAlignError(
            "another process of this training has died (killed, or out of memory); run "
            "the same command again to go on from the last checkpoint"
        ) from error


def claims_report(error: BaseException) -> bool:
    """Whether this process, which failed so, is the first that did."""
    if isinstance(error, Interrupted):  # all stop at once
        return _rank() == 0
    if isinstance(error, FailedElsewhere):
        return False
    if not dist.is_initialized():
        # Settings are the same everywhere; machines and their files may differ.
        return not isinstance(error, ConfigError) or _rank() == 0
    own = f"{_rank()}:{getattr(error, 'exit_status', 1)}"
    try:
        found: bytes = _store().compare_set(REPORTER, "", own)
    except RuntimeError:  # the first process keeps the store, and has gone
        return False
    return found.decode().partition(":")[0] == own.partition(":")[0]


def _status_of_reporter() -> int:
    """Exit status of a silent process."""
    if not dist.is_initialized() or _rank():
        return 0
    try:
        _store().wait([REPORTER], PATIENCE)
        return int(_store().get(REPORTER).decode().partition(":")[2])
    except RuntimeError:
        return 1


def _rank() -> int:
    """Number of this process, also before the processes have met."""
    from lightning.pytorch.utilities import rank_zero_only

    return int(getattr(rank_zero_only, "rank", 0))


def _store() -> Any:
    """Where the processes keep what all may read, which torch hands out only here."""
    return dist.distributed_c10d._get_default_store()


def _of_connection(error: BaseException) -> bool:
    """Whether an exchange between processes failed."""
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and dist.is_initialized()
        and any(name in str(error) for name in ("gloo", "NCCL", "Connection"))
    )
