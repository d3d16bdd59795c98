"""What a training will cost, from a few measured steps."""

import resource
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ce_align.data.imagesets import ImageSet
from ce_align.trainer.equivariance import gradient_norms
from ce_align.trainer.hardware import Hardware
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.preparation import Prepared
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.rendering import PixelBatch
from ce_align.trainer.views import PairedViews

__all__ = ["Estimate", "estimate"]

#: Pairs of the first measured steps; every further size is twice as large, until there
#: are enough and a step takes these seconds, or is as large as that of the training.
FIRST_PAIRS, N_SIZES, SECONDS = 4, 3, 1.0
#: Steps that are timed of each size.
TIMED_STEPS = 2


@dataclass(frozen=True)
class Estimate:
    """Plan of a training.

    Attributes
    ----------
    steps_per_epoch, steps : whole steps
    peak_rate : learning rate at the end of the warm-up
    warmup_steps : of linear rise
    memory_bytes : most that a process takes at a time: on a GPU what is reserved there,
        otherwise all of the process, libraries too; its workers are others
    step_seconds : of one process on its share, without rendering
    render_seconds : of one worker for that share
    share, measured_pairs : pairs of a process in a pass, and in the largest measured
        passes; beyond them cost grows in proportion
    """

    steps_per_epoch: int
    steps: int
    peak_rate: float
    warmup_steps: int
    memory_bytes: int
    step_seconds: float
    render_seconds: float
    share: int
    measured_pairs: int

    def seconds(self, workers: int) -> float:
        """Duration of the training; rendering and steps overlap if there are workers.

        Without workers one waits for the other.
        """
        if not workers:
            return self.steps * (self.step_seconds + self.render_seconds)
        return self.steps * max(self.step_seconds, self.render_seconds / workers)


@dataclass(frozen=True)
class _Measured:
    """Cost of steps of one size."""

    pairs: int
    peak_bytes: int
    step_seconds: float
    render_seconds: float


def estimate(config: TrainConfig, images: ImageSet, hardware: Hardware) -> Estimate:
    """Measure a few steps on one process of what `hardware` has.

    Raises
    ------
    ConfigError, DataError
        As the training would.
    """
    prepared = Prepared.of(config, images, hardware)
    plan = prepared.plan()
    share = config.pairs_per_step // prepared.n_processes // config.accumulate
    module = prepared.module().to(prepared.kind)
    optimizer = module.configure_optimizers()
    measured: list[_Measured] = []
    pairs = min(share, FIRST_PAIRS)
    while not measured or measured[-1].pairs < pairs:
        views = prepared.views(
            replace(plan, pairs_per_step=pairs, n_processes=1, n_passes=1)
        )
        measured.append(_measure(module, optimizer, views, prepared.kind))
        if len(measured) < N_SIZES or measured[-1].step_seconds < SECONDS:
            pairs = min(share, 2 * pairs)
    last = measured[-1]
    scale = share * config.accumulate / last.pairs
    return Estimate(
        steps_per_epoch=plan.steps_per_epoch,
        steps=config.epochs * plan.steps_per_epoch,
        peak_rate=module.peak_rate,
        warmup_steps=config.warmup_epochs * plan.steps_per_epoch,
        memory_bytes=_extrapolated_bytes(measured, share),
        step_seconds=last.step_seconds * scale,
        render_seconds=last.render_seconds * scale,
        share=share,
        measured_pairs=last.pairs,
    )


def _extrapolated_bytes(measured: list[_Measured], share: int) -> int:
    """Memory of a step of `share` pairs: weights stay, activations grow."""
    last = measured[-1]
    if last.pairs == share:
        return last.peak_bytes
    before = measured[-2]
    growth = (last.peak_bytes - before.peak_bytes) / (last.pairs - before.pairs)
    return round(last.peak_bytes + max(growth, 0) * (share - last.pairs))


def _measure(
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    views: PairedViews,
    kind: str,
) -> _Measured:
    """Cost of steps of `views`, after one that compiles and allocates."""
    steps, renders = [], []
    for step in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        batch = views[0, step % views.plan.steps_per_epoch]
        if isinstance(batch, Exception):
            raise batch
        rendered = time.perf_counter()
        if isinstance(batch, PixelBatch):
            batch = batch.to(kind).rendered(views.view_size)
        # Gradients and the optimiser's state are there before memory is measured.
        if step == 1:
            _forget_peak(kind)
        _one_step(module, optimizer, batch.views.to(kind), record=step == 1)
        if step:
            renders.append(rendered - start)
            steps.append(time.perf_counter() - rendered)
    return _Measured(
        views.plan.pairs_per_step, _peak_bytes(kind), min(steps), min(renders)
    )


def _one_step(
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    *,
    record: bool,
) -> None:
    """A step of training, with the gradients' lengths if it is one that is recorded."""
    types: dict[str, Any] = {"bf16": torch.bfloat16, "fp16": torch.float16}
    half = types.get(module.config.precision)
    device = views.device.type
    with torch.autocast(device, dtype=half, enabled=half is not None):
        terms = module.loss_terms(views)[0]
    if record:
        gradient_norms(terms, module.network.backbone.parameters())
    optimizer.zero_grad()
    torch.autograd.backward(terms.total)
    # Nothing is learned: a step of length zero costs the same.
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    if module.momentum is not None:
        module.momentum.update(module.network)
    if device == "cuda":
        torch.cuda.synchronize()


def _forget_peak(kind: str) -> None:
    """Begin to look for the highest use of memory."""
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # only Linux forgets; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(kind: str) -> int:
    """Highest use of memory since `_forget_peak`."""
    if kind == "cuda":
        return torch.cuda.max_memory_reserved()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
