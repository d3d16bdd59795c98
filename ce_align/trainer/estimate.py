"""What a training will cost, from a few measured steps."""

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ce_align.data.imagesets import ImageSet
from ce_align.trainer.engine import plan_of
from ce_align.trainer.hardware import Hardware, augments_on_device, resolve_devices
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.rendering import PixelBatch
from ce_align.trainer.views import PairedViews, check_images, image_labels

__all__ = ["Estimate", "estimate"]

#: Pairs of a measured step, so that large steps are not waited for; cost and memory
#: of a step grow in proportion, but for the losses, which are a small part of it.
MEASURED_PAIRS = 16
MEASURED_STEPS = 3


@dataclass(frozen=True)
class Estimate:
    """Plan of a training.

    Attributes
    ----------
    steps_per_epoch, steps : whole steps
    peak_rate : learning rate at the end of the warm-up
    warmup_steps : of linear rise
    memory_bytes : of a process: weights, gradients, optimiser, momentum copy,
        activations
    step_seconds : of one process on its share, without rendering
    render_seconds : of one worker for that share
    measured_pairs : pairs of the measured steps
    """

    steps_per_epoch: int
    steps: int
    peak_rate: float
    warmup_steps: int
    memory_bytes: int
    step_seconds: float
    render_seconds: float
    measured_pairs: int

    def seconds(self, workers: int) -> float:
        """Duration of the training; rendering and steps overlap if there are workers.

        Without workers one waits for the other.
        """
        if not workers:
            return self.steps * (self.step_seconds + self.render_seconds)
        return self.steps * max(self.step_seconds, self.render_seconds / workers)


def estimate(config: TrainConfig, images: ImageSet, hardware: Hardware) -> Estimate:
    """Measure a few steps on one process of what `hardware` has.

    Raises
    ------
    ConfigError, DataError
        As the training would.
    """
    kind, devices = resolve_devices(hardware)
    n_processes = devices * hardware.nodes
    check_images(images, config.view_size)
    plan = plan_of(config, len(images), n_processes)
    share = config.pairs_per_step // n_processes
    pairs = min(share, MEASURED_PAIRS)
    small = config.model_copy(update={"pairs_per_step": pairs})
    labels, n_classes = image_labels(images)
    on_device = augments_on_device(hardware, kind)
    small_plan = plan_of(small, len(images))
    views = PairedViews(
        images, small_plan, labels, config.view_size, on_device=on_device
    )
    module = PairedTraining(config, plan.steps_per_epoch, n_classes).to(kind)
    steps, renders = [], []
    n_bytes = 0
    for step in range(1 + MEASURED_STEPS):
        start = time.perf_counter()
        batch = views[0, step % views.plan.steps_per_epoch]
        if isinstance(batch, Exception):
            raise batch
        rendered = time.perf_counter()
        if isinstance(batch, PixelBatch):
            batch = batch.to(kind).rendered(views.view_size)
        n_bytes = _one_step(module, batch.views.to(kind), config.precision)
        # The first step compiles kernels and allocates.
        if step:
            renders.append(rendered - start)
            steps.append(time.perf_counter() - rendered)
    return Estimate(
        steps_per_epoch=plan.steps_per_epoch,
        steps=config.epochs * plan.steps_per_epoch,
        peak_rate=module.peak_rate,
        warmup_steps=config.warmup_epochs * plan.steps_per_epoch,
        memory_bytes=_state_bytes(module) + n_bytes * share // pairs,
        step_seconds=min(steps) * share / pairs,
        render_seconds=min(renders) * share / pairs,
        measured_pairs=pairs,
    )


def _one_step(module: PairedTraining, views: Tensor, precision: str) -> int:
    """Forward and backward pass; bytes that the forward pass keeps for the other."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def give(tensor: Tensor) -> Tensor:
        return tensor

    types: dict[str, Any] = {"bf16": torch.bfloat16, "fp16": torch.float16}
    half = types.get(precision)
    device = views.device.type
    with (
        torch.autograd.graph.saved_tensors_hooks(keep, give),
        torch.autocast(device, dtype=half, enabled=half is not None),
    ):
        total = module.loss_terms(views)[0].total
    torch.autograd.backward(total)
    module.zero_grad()
    if device == "cuda":
        torch.cuda.synchronize()
    held = {p.untyped_storage().data_ptr() for p in module.parameters()}
    return sum(size for place, size in kept.items() if place not in held)


def _state_bytes(module: PairedTraining) -> int:
    """Weights, gradients, and one (LARS) or two (AdamW) tensors of the optimiser."""
    whole: int = sum(t.nbytes for t in module.state_dict().values())
    trained: int = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    return whole + trained * (3 if module.config.optimizer == "adamw" else 2)
