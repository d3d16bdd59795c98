"""A training that renders its views itself ends where any other does."""

import os
import signal

import numpy as np
import pytest
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer.engine import fit
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.presets import Hardware, augments_on_device, preset_config

STEPS = 4


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (64, 20, 24, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 4}" for i in range(64)])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


CONFIG = preset_config(
    "tiny",
    "simclr",
    equivariance_weight=0.3,
    images="noise",
    view_size=16,
    epochs=2,
    pairs_per_step=8,
    options={"head_widths": (16, 8)},
)


def train(images, folder, augment, workers=0):
    hardware = Hardware(workers=workers, augment=augment)
    return fit(CONFIG, images, folder, hardware, notify=lambda text: None)


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(
            one.state_dict().values(), other.state_dict().values(), strict=True
        )
    )


def test_on_a_cpu_the_weights_are_those_of_views_from_workers(tmp_path, images):
    by_workers = train(images, tmp_path / "cpu", "cpu")
    for workers in (0, 2):
        found = train(images, tmp_path / f"device {workers}", "device", workers)
        assert same_weights(found, by_workers)


def test_stopped_and_resumed_it_ends_with_the_same_weights(
    tmp_path, images, monkeypatch
):
    whole = train(images, tmp_path / "whole", "device")
    moved = PairedTraining.optimizer_step

    def interrupted(self, *args, **kwargs):
        moved(self, *args, **kwargs)
        if self.global_step + 1 == STEPS + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PairedTraining, "optimizer_step", interrupted)
        with pytest.raises(CeAlignError, match=f"stopped after step {STEPS + 2}"):
            train(images, tmp_path / "again", "device")
    assert same_weights(train(images, tmp_path / "again", "device", workers=1), whole)


def test_the_place_is_that_of_the_network_on_a_gpu_unless_one_is_named():
    assert augments_on_device(Hardware(), "cuda")
    assert not augments_on_device(Hardware(), "cpu")
    assert not augments_on_device(Hardware(augment="cpu"), "cuda")
    assert augments_on_device(Hardware(augment="device"), "cpu")
    with pytest.raises(ConfigError, match="choose from auto, cpu, device"):
        augments_on_device(Hardware(augment="gpu"), "cuda")
