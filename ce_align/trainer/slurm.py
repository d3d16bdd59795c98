"""What a training needs to know of SLURM: its job, its tasks, and how to go on."""

import os
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass

from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

from ce_align.errors import ConfigError

__all__ = ["SlurmJob", "cluster_of"]

#: Names that SLURM gives to shells, whose job cannot be started again.
SHELLS = ("bash", "interactive")
#: How often SLURM is asked, and the seconds in between: it may be busy.
ATTEMPTS, PAUSE = 3, 5.0
#: Seconds that one answer may take.
PATIENCE = 30
#: SIGTERM this many seconds before the end of a job's time tells of that end.
LAST_SECONDS = 60.0


@dataclass(frozen=True)
class SlurmJob:
    """The batch job that a training runs in.

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
        array, task = (
            variables.get(f"SLURM_ARRAY_{name}") for name in ("JOB_ID", "TASK_ID")
        )
        if array and task:
            identifier = f"{array}_{task}"
        end = variables.get("SLURM_JOB_END_TIME", "")
        return cls(
            identifier,
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
        reason = ""
        for attempt in range(ATTEMPTS):
            if attempt:
                time.sleep(PAUSE)
            try:
                answer = subprocess.run(
                    command,
                    capture_output=True,
                    text=True,
                    timeout=PATIENCE,
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
) -> ClusterEnvironment | None:
    """Who starts the processes of a training.

    SLURM has started them where it started several tasks. Where it started one, or a
    shell, this process starts the others itself, as on any machine.

    Parameters
    ----------
    devices, nodes : processes on a machine, and machines
    variables : environment

    Returns
    -------
    None outside SLURM and below ``torchrun``, which Lightning knows

    Raises
    ------
    ConfigError
        If SLURM has started another number of tasks.
    """
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
    # Lightning's own way to start again writes checkpoints of another kind.
    return SLURMEnvironment(auto_requeue=False)
