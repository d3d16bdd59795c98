"""A stand-in for SLURM: `scontrol` and `srun` that do as they are asked."""

import os
from collections.abc import Callable
from pathlib import Path

from forked import Forked

SCONTROL = """#!/bin/sh
echo "$@" >> "$STAND_IN_SLURM/asked"
[ -z "$STAND_IN_FAULT" ] || { echo "$STAND_IN_FAULT" >&2; exit 1; }
# SLURM ends the job that is to start again.
[ ! -e "$STAND_IN_SLURM/job" ] || {
  kill -TERM "$(cat "$STAND_IN_SLURM/job")"
  # This program is one of the job's, which all receive the signal.
  sleep 0.5
}
"""
#: Starts `python ARGUMENTS` as the tasks, and hands signals to every process of them,
#: workers too.
SRUN = """
import multiprocessing, os, signal, sys
from forked import execute

def task(i):
    os.setsid()
    os.environ.update(SLURM_PROCID=str(i), SLURM_LOCALID=str(i))
    os.environ.update(SLURM_NODEID="0", SLURM_STEP_ID="0")
    execute(sys.argv[1:])

fork = multiprocessing.get_context("fork")
n = int(os.environ["SLURM_NTASKS"])
tasks = [fork.Process(target=task, args=(i,)) for i in range(n)]
for task in tasks:
    task.start()
def hand_on(signum, frame):
    for task in tasks:
        if task.exitcode is None:
            os.killpg(task.pid, signum)
for signum in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(signum, hand_on)
for task in tasks:
    task.join()
sys.exit(max(abs(task.exitcode) for task in tasks))
"""


class StandIn:
    """One cluster with one job.

    Attributes
    ----------
    folder : of the programs and of what they note
    variables : that SLURM sets for the job
    """

    def __init__(self, folder: Path, **variables: str) -> None:
        self.folder = folder
        (folder / "scontrol").write_text(SCONTROL)
        (folder / "scontrol").chmod(0o755)
        self.variables = {
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
            "STAND_IN_SLURM": str(folder),
            "SLURM_JOB_ID": "4242",
            "SLURM_JOB_NAME": "train",
            **variables,
        }

    def asked(self) -> list[str]:
        """What scontrol was asked for."""
        path = self.folder / "asked"
        return path.read_text().splitlines() if path.exists() else []

    def start(
        self, python: Callable[..., Forked], *arguments: str, **variables: str
    ) -> Forked:
        """The job, whose process scontrol will end: `srun python ARGUMENTS`."""
        environment = {**os.environ, **self.variables, **variables}
        job = python("-c", SRUN, *arguments, env=environment)
        (self.folder / "job").write_text(str(job.pid))
        return job
