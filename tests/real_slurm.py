"""SLURM itself, as one node on this machine, for as long as a test needs it."""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Slurm", "lacking", "one_node"]

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
#: Accounting is absent, as on many a cluster; nothing is authenticated.
CONFIGURATION = """
ClusterName=lab
SlurmctldHost={host}(127.0.0.1)
AuthType=auth/none
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=1,sched_interval=2,sched_min_interval=100000
DependencyParameters=
KillWait={kill_wait}
MinJobAge=20
SlurmdTimeout=10
RequeueExit=
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs={cores} \
RealMemory=2000 State=UNKNOWN
PartitionName=main Nodes=n1 Default=YES MaxTime=INFINITE State=UP
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
"""


def lacking() -> str | None:
    """Why there can be no SLURM here; None if there can."""
    absent = [name for name in PROGRAMS if shutil.which(name) is None]
    if absent:
        return f"SLURM is not installed ({', '.join(absent)}): apt install slurm-wlm"
    if os.geteuid() != 0:
        return "SLURM's own user is root here"
    try:
        # As SLURM does it, which knows no loopback where there is no other network.
        flags = socket.AI_ADDRCONFIG
        socket.getaddrinfo("127.0.0.1", None, socket.AF_INET, flags=flags)
    except socket.gaierror:
        return "SLURM needs a network beside the loopback"
    return None


class Slurm:
    """A cluster of one node, in a folder."""

    def __init__(self, folder: Path, cores: int = 2, kill_wait: int = 5) -> None:
        self.folder = folder
        self.file = folder / "slurm.conf"
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        sockets = [socket.socket() for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
        for one in sockets:
            one.close()
        text = CONFIGURATION.format(
            host=socket.gethostname(),
            folder=folder,
            ports=ports,
            cores=cores,
            kill_wait=kill_wait,
        )
        lines = [line for line in text.splitlines() if not line.endswith("=")]
        self.file.write_text("\n".join(lines) + "\n")

    def start_controller(self) -> None:
        subprocess.run(["slurmctld", "-f", str(self.file)], check=True)

    def start_node(self) -> None:
        subprocess.run(["slurmd", "-f", str(self.file), "-N", "n1"], check=True)

    def kill_node(self) -> None:
        """End the node's daemon as a power cut would."""
        os.kill(self._pid("slurmd-n1"), signal.SIGKILL)

    def _pid(self, name: str) -> int:
        return int((self.folder / f"{name}.pid").read_text())

    def ask(self, *command: str) -> str:
        """What a program of SLURM answers."""
        return subprocess.run(
            command,
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "SLURM_CONF": str(self.file)},
        ).stdout

    def wait_until_idle(self, seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while "idle" not in self._states():
            assert time.monotonic() < end, self.ask("sinfo")
            time.sleep(0.2)

    def _states(self) -> str:
        try:
            return self.ask("sinfo", "-h", "-o", "%T")
        except subprocess.CalledProcessError:
            # The controller is not up yet.
            return ""

    def wait_until_empty(self, seconds: float) -> None:
        """Wait until no job is left."""
        end = time.monotonic() + seconds
        while jobs := self.ask("squeue", "-h"):
            assert time.monotonic() < end, jobs
            time.sleep(0.5)

    def stop(self) -> None:
        for name in ("slurmd-n1", "slurmctld"):
            try:
                os.kill(self._pid(name), signal.SIGKILL)
            except (OSError, ValueError):
                continue


@contextmanager
def one_node(folder: Path, **settings: int) -> Iterator[Slurm]:
    """A cluster that runs, and is asked through the environment of this process."""
    cluster = Slurm(folder, **settings)
    before = os.environ.get("SLURM_CONF")
    os.environ["SLURM_CONF"] = str(cluster.file)
    try:
        cluster.start_controller()
        cluster.start_node()
        cluster.wait_until_idle()
        yield cluster
    finally:
        cluster.stop()
        if before is None:
            del os.environ["SLURM_CONF"]
        else:
            os.environ["SLURM_CONF"] = before
