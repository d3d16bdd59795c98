"""A stand-in for SLURM: `scontrol` and `srun` that do what is asked and note it."""

import os
import subprocess
import sys
from pathlib import Path

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
#: Starts the tasks, and hands signals to every process of them, workers too.
SRUN = f"""#!{sys.executable}
import os, signal, subprocess, sys
n = int(os.environ["SLURM_NTASKS"])
tasks = [
    subprocess.Popen(
        sys.argv[1:],
        env={{
            **os.environ,
            "SLURM_PROCID": str(i),
            "SLURM_LOCALID": str(i),
            "SLURM_NODEID": "0",
            "SLURM_STEP_ID": "0",
        }},
        start_new_session=True,
    )
    for i in range(n)
]
def hand_on(signum, frame):
    for task in tasks:
        if task.poll() is None:
            os.killpg(task.pid, signum)
for signum in (signal.SIGUSR1, signal.SIGTERM):
    signal.signal(signum, hand_on)
sys.exit(max(abs(task.wait()) for task in tasks))
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
        for name, text in (("scontrol", SCONTROL), ("srun", SRUN)):
            (folder / name).write_text(text)
            (folder / name).chmod(0o755)
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

    def start(self, *command: str, **variables: str) -> "subprocess.Popen[str]":
        """The job, whose process scontrol will end."""
        job = subprocess.Popen(
            command,
            env={**os.environ, **self.variables, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        (self.folder / "job").write_text(str(job.pid))
        return job
