"""Memory of a step is counted from what the backward pass keeps."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from ce_align.errors import ConfigError
from ce_align.trainer.memory import BESIDE, StepMemory
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.presets import PRESETS, preset_config

pytestmark = pytest.mark.slow


def config(**changes):
    return preset_config(
        "tiny", "simclr", equivariance_weight=0.3, images="x", **changes
    )


def kept_in_fact(pairs):
    """Bytes of all tensors that a batch of noise keeps, on this processor."""
    network = PairedTraining(config(), 1).network.train()
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}
    held, found = [], {}

    def keep(tensor):
        held.append(tensor)
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(torch.randn(4 * pairs, 3, 32, 32))
    return sum(found.values())


def test_what_is_counted_is_what_a_step_keeps():
    each = (kept_in_fact(16) - kept_in_fact(8)) / 8
    counted = StepMemory.of(config()).each - 5 * 4 * 3 * 32**2
    assert counted / BESIDE == pytest.approx(each, rel=0.1)


def test_half_precision_and_optimisers_count():
    usual, half = StepMemory.of(config()), StepMemory.of(config(precision="bf16"))
    assert half.each < 0.7 * usual.each
    lars = StepMemory.of(config(optimizer="lars"))
    assert lars.fixed == pytest.approx(usual.fixed * 3 / 4)


@pytest.mark.parametrize("n_processes", [1, 4])
def test_a_step_that_does_not_fit_is_refused_with_the_largest_that_does(n_processes):
    memory = StepMemory.of(config())
    free = int(memory.fixed + 10.5 * memory.each)
    most = memory.most_pairs(free, n_processes)
    assert most == 10 * n_processes
    memory.check(config(pairs_per_step=most), free, n_processes)
    with pytest.raises(ConfigError, match=f"use --pairs-per-step {most} or fewer"):
        memory.check(config(pairs_per_step=2 * most), free, n_processes)
    with pytest.raises(ConfigError, match="a smaller --backbone"):
        memory.check(config(), 1000, n_processes)


def test_views_that_a_network_cannot_take_are_refused_before_a_step():
    with pytest.raises(ConfigError, match="does not take views of 32 pixels"):
        StepMemory.of(config(backbone="timm/vit_tiny_patch16_224"))


@pytest.mark.parametrize("preset", ["in100", "vit-s"])
def test_presets_for_one_gpu_of_24_gb_fit_into_it(preset):
    settings = preset_config(
        preset, "barlow", equivariance_weight=0.3, images="x", precision="bf16"
    )
    StepMemory.of(settings).check(settings, 23_000_000_000, 1)
    assert preset in PRESETS
