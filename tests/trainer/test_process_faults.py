"""One process of a training says what failed, and the others end in silence."""

import os
import signal
import socket
import sys

import numpy as np
import pytest
import torch
import torch.distributed as dist
from forked import server
from PIL import Image
from waiting import LIMIT

from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.trainer.callbacks import Consensus
from ce_align.trainer.distributed import (
    FailedElsewhere,
    Interrupted,
    one_report,
)

ON_CPUS = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Pair:
    """As much of a trainer as a consensus asks for."""

    world_size = 2


def meet():
    """A step in which both processes take part."""
    dist.all_reduce(torch.ones(1))


def no_images(rank):
    consensus = Consensus()
    consensus.setup(Pair(), None, "fit")
    batch = DataError("image 7 cannot be read") if rank else torch.ones(1)
    consensus.on_train_batch_start(Pair(), None, batch, 0)


def bad_loss(rank):
    meet()
    if rank:
        raise CeAlignError("the loss is not finite")
    meet()


def full_disk(rank):
    if not rank:
        raise CeAlignError("cannot write: no space left")
    meet()


def killed(rank):
    if rank:
        os.kill(os.getpid(), signal.SIGKILL)
    meet()


def stopped(rank):
    meet()
    raise Interrupted("stopped after step 3", signal.SIGTERM)


#: What happens, and the words and exit status of either process.
CASES = {
    no_images: (("", 2), ("image 7 cannot be read", 2)),
    bad_loss: (("", 1), ("the loss is not finite", 1)),
    full_disk: (("cannot write: no space left", 1), ("", 0)),
    killed: (("another process of this training has died", 1), ("", -9)),
    stopped: (("stopped after step 3", 143), ("", 0)),
}


def work_that_fails(rank, port, case, folder):
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, 2, is_master=rank == 0)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2)
    dist.barrier()  # one must not fail before the other has joined
    from lightning.pytorch.utilities import rank_zero_only

    rank_zero_only.rank = rank
    try:
        with one_report():
            case(rank)
    except CeAlignError as error:
        (folder / f"{rank}").write_text(str(error))
        sys.stdout.flush()
        os._exit(error.exit_status)


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_one_process_tells_the_cause_and_the_other_ends_in_silence(tmp_path, case):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    both = [
        server().Process(target=work_that_fails, args=(rank, port, case, tmp_path))
        for rank in (0, 1)
    ]
    for process in both:
        process.start()
    for rank, (process, (words, status)) in enumerate(
        zip(both, CASES[case], strict=True)
    ):
        process.join(LIMIT)
        assert process.exitcode == status
        said = tmp_path / str(rank)
        assert said.exists() == bool(words)
        if words:
            assert words in said.read_text()


def test_alone_every_fault_is_told():
    for error in (ConfigError("a"), RuntimeError("gloo"), Interrupted("b", 2)):
        with pytest.raises(type(error)), one_report():
            raise error
    assert Consensus().highest(3) == 3


def test_settings_that_all_share_are_faulted_once(monkeypatch):
    from lightning.pytorch.utilities import rank_zero_only

    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with pytest.raises(SystemExit), one_report():
        raise ConfigError("unknown")
    with pytest.raises(DataError), one_report():
        raise DataError("no images on this machine")


def test_a_process_that_only_heard_of_a_fault_says_nothing():
    with pytest.raises(SystemExit), one_report():
        raise FailedElsewhere


@pytest.mark.slow
def test_an_image_that_one_process_cannot_read_gives_one_line(tmp_path, python):
    rng = np.random.default_rng(3)
    (tmp_path / "images").mkdir()
    for i in range(200):
        pixels = rng.integers(0, 256, (36, 36, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i:03d}.png")
    # Not among the evenly spaced images that are looked at beforehand.
    (tmp_path / "images" / "001.png").write_bytes(b"no image")
    command = ["-m", "ce_align", "train", "--objective", "simclr"]
    command += ["--weight", "0.3", "--preset", "tiny", "--images", "images"]
    command += ["--pairs-per-step", "100", "--workers", "1", "--devices", "2"]
    found = python(*command, cwd=tmp_path, env={**os.environ, **ON_CPUS})
    _, errors = found.communicate()
    assert found.returncode == 2
    (line,) = errors.splitlines()
    assert line.startswith("error: image 001.png cannot be read")
