"""A training in a batch job stops when told, asks to be started again, and goes on."""

import os
import signal
import sys
import time

import numpy as np
import pytest
import torch
from stand_in_slurm import StandIn
from test_engine import train
from waiting import LIMIT, wait_until

from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer import distributed as slurm
from ce_align.trainer.callbacks import checkpoint_paths
from ce_align.trainer.distributed import SlurmJob, cluster_of
from ce_align.trainer.module import PairedTraining

JOB = {"SLURM_JOB_ID": "17", "SLURM_JOB_NAME": "train"}
TWO = {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_STEP_ID": "0"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory, one_thread):
    return train(tmp_path_factory.mktemp("whole"))[0]


@pytest.fixture
def cluster(tmp_path_factory, monkeypatch):
    """This process as the only task of a job."""
    found = StandIn(tmp_path_factory.mktemp("slurm"), SLURM_NTASKS="1")
    for name, value in found.variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(slurm, "PAUSE", 0.0)
    monkeypatch.setattr(slurm, "SLURM_PATIENCE", LIMIT)
    before = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    before |= {s: signal.getsignal(s) for s in (signal.SIGUSR1, signal.SIGUSR2)}
    yield found
    for signum, handler in before.items():
        signal.signal(signum, handler)


@pytest.fixture
def signalled(monkeypatch):
    """Send a signal to this process after step 2 of the next training."""
    moved = PairedTraining.optimizer_step

    def arm(signum):
        def interrupted(self, *args, **kwargs):
            moved(self, *args, **kwargs)
            if self.global_step + 1 == 2:
                monkeypatch.setattr(PairedTraining, "optimizer_step", moved)
                os.kill(os.getpid(), signum)

        monkeypatch.setattr(PairedTraining, "optimizer_step", interrupted)

    return arm


@pytest.mark.parametrize("signum", [signal.SIGUSR1, signal.SIGUSR2])
def test_an_announced_end_saves_the_step_and_asks_to_start_again(
    tmp_path,
    cluster,
    signalled,
    monkeypatch,
    uninterrupted,
    signum,
):
    # What scontrol sends at once must not cut off the last words.
    (cluster.folder / "job").write_text(str(os.getpid()))
    signalled(signum)
    with pytest.raises(CeAlignError, match="SLURM starts job 4242 again") as found:
        train(tmp_path)
    assert found.value.exit_status == 128 + signum
    assert cluster.asked() == ["requeue 4242"]
    (path,) = checkpoint_paths(tmp_path / "checkpoints")
    assert path.name == "step-000000002.ckpt"
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    # The script of the job says what was right when it started first.
    weights, told = train(tmp_path, resume="never")
    assert told[0] == f"resuming from {path}"
    assert weights == uninterrupted


@pytest.mark.parametrize(("minutes", "asked"), [(-1, ["requeue 4242"]), (60, [])])
def test_sigterm_starts_again_only_what_ran_out_of_time(
    tmp_path, cluster, signalled, monkeypatch, minutes, asked
):
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time() + 60 * minutes)))
    signalled(signal.SIGTERM)
    with pytest.raises(CeAlignError, match="stopped after step 2") as found:
        train(tmp_path)
    assert found.value.exit_status == 128 + signal.SIGTERM
    assert cluster.asked() == asked
    assert len(checkpoint_paths(tmp_path / "checkpoints")) == 1


def test_a_refusal_says_why_and_what_to_do(tmp_path, cluster, signalled, monkeypatch):
    monkeypatch.setenv("STAND_IN_FAULT", "Requested operation is disabled")
    signalled(signal.SIGUSR1)
    expected = (
        r"requeue 4242 failed \(Requested operation is disabled\): submit the job"
    )
    with pytest.raises(CeAlignError, match=expected):
        train(tmp_path)
    assert cluster.asked() == ["requeue 4242"] * slurm.ATTEMPTS


def test_without_scontrol_the_step_is_saved_all_the_same(
    tmp_path, cluster, signalled, monkeypatch
):
    monkeypatch.setenv("PATH", str(tmp_path))
    signalled(signal.SIGUSR1)
    with pytest.raises(CeAlignError, match=r"No such file.*submit the job again"):
        train(tmp_path)
    assert len(checkpoint_paths(tmp_path / "checkpoints")) == 1


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_in_a_shell_nothing_is_asked_of_slurm(
    tmp_path, cluster, signalled, monkeypatch, name
):
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    # Asked for by salloc, but this command was started once.
    monkeypatch.setenv("SLURM_NTASKS", "4")
    signalled(signal.SIGTERM)
    with pytest.raises(CeAlignError, match="run the same command again to go on"):
        train(tmp_path)
    assert cluster.asked() == []
    assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL


def test_a_job_is_known_by_its_number_and_its_place_in_an_array():
    assert SlurmJob.detect({}) is None
    assert SlurmJob.detect(JOB) == SlurmJob("17")
    array = {"SLURM_ARRAY_JOB_ID": "11", "SLURM_ARRAY_TASK_ID": "3"}
    more = {"SLURM_RESTART_COUNT": "2", "SLURM_JOB_END_TIME": "1700000000"}
    found = SlurmJob.detect({**JOB, **array, **more})
    assert found == SlurmJob("11_3", 2, 1.7e9)
    assert found.time_is_up()
    assert not SlurmJob("17").time_is_up()


def test_tasks_are_started_by_slurm_or_by_ourselves():
    def starts_them(devices, nodes=1, **variables):
        found = cluster_of(devices, nodes, {**JOB, **variables})
        return found.creates_processes_externally

    assert cluster_of(2, 1, {}) is None
    assert not starts_them(1)
    assert not starts_them(2, SLURM_NTASKS="1")
    assert not starts_them(2, SLURM_NTASKS="2", SLURM_JOB_NAME="bash")


def test_slurm_starts_several_tasks(monkeypatch):
    for name, value in TWO.items():
        monkeypatch.setenv(name, value)
    found = cluster_of(2, 1, {**JOB, **TWO})
    assert found.creates_processes_externally
    assert not found.auto_requeue


@pytest.mark.parametrize(
    ("devices", "nodes", "changes", "fault"),
    [
        (4, 1, {}, "SLURM has 2 tasks for 4 processes; ask it for --nodes=1 --ntasks-"),
        (2, 2, {}, "SLURM has 2 tasks for 4 processes"),
        (1, 2, {"SLURM_NTASKS": "1"}, "needs a task for every process"),
        (2, 1, {"SLURM_STEP_ID": None}, "put srun before the command"),
        (2, 1, {"SLURM_NTASKS_PER_NODE": None}, "--ntasks-per-node=2"),
    ],
)
def test_other_tasks_than_processes_are_refused(devices, nodes, changes, fault):
    variables = {**JOB, **TWO, **changes}
    given = {name: value for name, value in variables.items() if value is not None}
    with pytest.raises(ConfigError, match=fault):
        cluster_of(devices, nodes, given)


#: The command, which after its first epoch waits to be told to stop.
WAITING = """
import os, time
from ce_align.cli import main
from ce_align.trainer.callbacks import CheckpointWriter
taken = CheckpointWriter.on_train_batch_end

def waiting(self, trainer, *arguments):
    while "STAND_IN_WAITS" in os.environ and trainer.current_epoch:
        if self.stop.received:
            break
        time.sleep(0.01)
    taken(self, trainer, *arguments)

CheckpointWriter.on_train_batch_end = waiting
main()
"""


@pytest.mark.slow
def test_two_tasks_of_an_array_go_on_bit_for_bit(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    rng = np.random.default_rng(3)
    for i in range(32):
        pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
    (tmp_path / "bin").mkdir()
    cluster = StandIn(
        tmp_path / "bin",
        SLURM_ARRAY_JOB_ID="40",
        SLURM_ARRAY_TASK_ID="2",
        SLURM_NTASKS="2",
        SLURM_NTASKS_PER_NODE="2",
        SLURM_NNODES="1",
        CUDA_VISIBLE_DEVICES="",
        OMP_NUM_THREADS="1",
    )

    def job(out, **variables):
        command = [str(cluster.folder / "srun"), sys.executable, "-c", WAITING]
        command += ["train", "--objective", "mmcr", "--weight", "0.3"]
        command += ["--preset", "tiny", "--images", str(tmp_path / "images")]
        command += ["--pairs-per-step", "4", "--epochs", "5", "--workers", "1"]
        command += ["--devices", "2", "--out", str(tmp_path / out)]
        return cluster.start(*command, **variables)

    reference = job("whole", SLURM_ARRAY_TASK_ID="1")
    assert reference.wait(timeout=LIMIT) == 0, reference.stderr.read()
    stopped = job("parts", STAND_IN_WAITS="yes")
    parts = tmp_path / "parts" / "checkpoints"
    wait_until(lambda: checkpoint_paths(parts), stopped)
    stopped.send_signal(signal.SIGUSR1)
    _, errors = stopped.communicate(timeout=LIMIT)
    assert cluster.asked() == ["requeue 40_2"]
    (line,) = (text for text in errors.splitlines() if not text.startswith("epoch"))
    assert line.startswith("error: stopped after step")
    assert line.endswith("SLURM starts job 40_2 again")
    assert stopped.returncode == 128 + signal.SIGUSR1
    again = job("parts", SLURM_RESTART_COUNT="1")
    assert again.wait(timeout=LIMIT) == 0, again.stderr.read()
    first, second = (
        (tmp_path / out / "model.safetensors").read_bytes()
        for out in ("whole", "parts")
    )
    assert first == second
