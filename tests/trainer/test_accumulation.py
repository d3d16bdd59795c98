"""Passes that share a step: exact for separable objectives, refused for others."""

import os
import signal

import numpy as np
import pytest
import torch
from torch.nn import functional

from ce_align.augment import AugmentationLedger
from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer import objectives
from ce_align.trainer.distributed import mean_over
from ce_align.trainer.engine import fit
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import ViewBatchNorm
from ce_align.trainer.objectives import (
    OBJECTIVES,
    Objective,
    combined_loss,
    register_objective,
)
from ce_align.trainer.presets import Hardware, TrainConfig
from ce_align.trainer.views import PairPlan

STEPS, PAIRS = 4, 8


def attraction(view_a, view_b, *, group=None):
    """Mean squared distance of unit vectors."""
    return mean_over(
        (2 - 2 * functional.cosine_similarity(view_a, view_b)).mean(), group
    )


@pytest.fixture(autouse=True)
def separable(monkeypatch):
    monkeypatch.setattr(objectives, "_REGISTERED", dict(OBJECTIVES))
    monkeypatch.setattr(objectives, "OBJECTIVES", objectives._REGISTERED)
    register_objective(Objective("attraction", attraction, (16, 8), separable=True))
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(accumulate, objective="attraction", **changes):
    settings = {
        "objective": objective,
        "equivariance_weight": 0.3,
        "images": "noise",
        "backbone": "tiny",
        "view_size": 16,
        "families": ("tiny_a", "tiny_b"),
        "epochs": 2,
        "pairs_per_step": PAIRS,
        "warmup_epochs": 0,
        "options": {"head_widths": (16, 8)},
        "accumulate": accumulate,
    }
    return TrainConfig(**{**settings, **changes})


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (2 * PAIRS * STEPS, 20, 20, 3), dtype=np.uint8)
    return ImageSet.from_array("noise", pixels)


def train(images, folder, accumulate, **hardware):
    options = {"workers": 0, **hardware}
    return fit(
        config(accumulate),
        images,
        folder,
        Hardware(**options),
        notify=lambda text: None,
    )


def without_batch_statistics(self, batch):
    return batch * self.weight.view(-1, *[1] * (batch.ndim - 2))


@pytest.mark.parametrize("objective", ["mmcr", "barlow", "simclr"])
def test_objectives_that_compare_pairs_refuse_in_words(objective):
    with pytest.raises(ConfigError, match=r"would train another loss.*--devices"):
        PairedTraining(config(2, objective), STEPS)
    PairedTraining(config(1, objective), STEPS)


def test_a_name_is_registered_once():
    with pytest.raises(ConfigError, match="an objective 'simclr' already"):
        register_objective(Objective("simclr", attraction, (8,)))


@pytest.mark.parametrize("n_passes", [2, 4, 8])
def test_the_gradient_of_all_passes_is_that_of_one(n_passes, rng):
    module = PairedTraining(config(n_passes), STEPS).double()
    # Statistics of the batch are all that joins its rows.
    module.network.eval()
    images = torch.from_numpy(rng.normal(size=(4, PAIRS, 3, 16, 16)))

    def loss(part):
        invariant, equivariant = module.network(part.flatten(0, 1))[1:]
        return combined_loss(module.objective, invariant, equivariant, 0.3).total

    def gradients():
        found = [p.grad.clone() for p in module.parameters() if p.grad is not None]
        module.zero_grad()
        return found

    loss(images).backward()
    whole = gradients()
    for part in images.chunk(n_passes, dim=1):
        (loss(part) / n_passes).backward()
    parts = gradients()
    assert sum(float(g.abs().sum()) for g in whole) > 0
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("n_passes", [2, 4])
def test_a_training_in_passes_takes_the_same_steps(
    tmp_path, images, monkeypatch, n_passes
):
    monkeypatch.setattr(ViewBatchNorm, "forward", without_batch_statistics)
    whole = train(images, tmp_path / "one", 1)
    parts = train(images, tmp_path / "several", n_passes)
    start = PairedTraining(config(1), STEPS).state_dict()
    assert parts.global_step == whole.global_step == 2 * STEPS
    moved = 0.0
    for name, weights in whole.state_dict().items():
        torch.testing.assert_close(
            parts.state_dict()[name], weights, rtol=1e-4, atol=1e-6
        )
        moved += float((weights - start[name]).abs().sum())
    assert moved > 1


def test_batch_statistics_are_those_of_a_pass(tmp_path, images):
    module = train(images, tmp_path, 2)
    assert int(module.network.backbone.bn1.num_batches_tracked) == 4 * 2 * 2 * STEPS


def test_stopped_within_a_step_it_ends_the_step_and_goes_on_bit_for_bit(
    tmp_path, images, monkeypatch
):
    whole = train(images, tmp_path / "whole", 2)
    stepped = PairedTraining.training_step

    def interrupted(self, batch, batch_idx):
        if (self.current_epoch, batch_idx) == (1, 2):
            os.kill(os.getpid(), signal.SIGTERM)
        return stepped(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(PairedTraining, "training_step", interrupted)
        with pytest.raises(CeAlignError, match=f"stopped after step {STEPS + 2}"):
            train(images, tmp_path / "again", 2)
    again = train(images, tmp_path / "again", 2, augment="device")
    for name, weights in whole.state_dict().items():
        assert torch.equal(again.state_dict()[name], weights), name


def test_passes_and_processes_share_out_the_rows_of_a_step():
    def plan(**changes):
        return PairPlan(n_images=50, pairs_per_step=8, seed=3, **changes)

    whole = plan().batch(2, 1)
    parts = [
        plan(n_processes=2, process=process, n_passes=2).batch(2, 1, part)
        for process in range(2)
        for part in range(2)
    ]
    assert np.array_equal(np.concatenate([p.images for p in parts]), whole.images)
    for view in ("view_a", "view_b"):
        joined = AugmentationLedger.concat([getattr(p, view) for p in parts])
        assert joined == getattr(whole, view)
    with pytest.raises(ConfigError, match="2 processes of 3 passes; take a multiple"):
        plan(n_processes=2, n_passes=3)
    with pytest.raises(ConfigError, match="no pass 1; a step has 1"):
        plan().batch(0, 0, 1)
