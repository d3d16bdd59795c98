"""What a training would cost: a few of its steps, measured."""

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from ce_align.data.imagesets import ImageSet
from ce_align.trainer.memory import forget_peak, peak_bytes
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.objectives import gradient_norms
from ce_align.trainer.prepared import Prepared
from ce_align.trainer.presets import Hardware, TrainConfig
from ce_align.trainer.views import Batch

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
        passes; beyond them cost grows as it did between the last two
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
    share = config.pairs_per_step // prepared.n_processes
    module = prepared.module(None).to(prepared.kind)
    optimizer = module.configure_optimizers()
    measured: list[_Measured] = []
    pairs = min(share, FIRST_PAIRS)
    while not measured or measured[-1].pairs < pairs:
        measured.append(_measure(prepared, module, optimizer, pairs))
        if len(measured) < N_SIZES or measured[-1].step_seconds < SECONDS:
            pairs = min(share, 2 * pairs)
    last = measured[-1]
    memory, step = float(last.peak_bytes), last.step_seconds
    if last.pairs < share:  # weights and their update stay, activations grow
        before = measured[-2]
        more, further = last.pairs - before.pairs, share - last.pairs
        growth = max(0.0, (last.peak_bytes - before.peak_bytes) / more)
        memory += growth * further
        # No more than in proportion: steps this short are measured roughly.
        slower = max(0.0, (last.step_seconds - before.step_seconds) / more)
        step += min(slower, last.step_seconds / last.pairs) * further
    return Estimate(
        steps_per_epoch=plan.steps_per_epoch,
        steps=config.epochs * plan.steps_per_epoch,
        peak_rate=module.peak_rate,
        warmup_steps=config.warmup_epochs * plan.steps_per_epoch,
        memory_bytes=round(memory),
        step_seconds=step,
        render_seconds=last.render_seconds * share / last.pairs,
        share=share,
        measured_pairs=last.pairs,
    )


def _measure(
    prepared: Prepared,
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    pairs: int,
) -> _Measured:
    """Cost of steps of so many pairs, after one that compiles and allocates."""
    plan = replace(prepared.plan(), pairs_per_step=pairs, n_processes=1)
    views = prepared.views(plan)
    steps, renders = [], []
    for step in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        batch = views[0, step % plan.steps_per_epoch]
        rendered = time.perf_counter()
        batch = prepared.on_device(batch)
        # Gradients and the optimiser's state are there before memory is measured.
        if step == 1:
            forget_peak(prepared.kind)
        _one_step(module, optimizer, batch, record=step == 1)
        if step:
            renders.append(rendered - start)
            steps.append(time.perf_counter() - rendered)
    return _Measured(pairs, peak_bytes(prepared.kind), min(steps), min(renders))


def _one_step(
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    record: bool,
) -> None:
    """A step of training, with the gradients' lengths if it is one that is recorded."""
    types: dict[str, Any] = {"bf16": torch.bfloat16, "fp16": torch.float16}
    half = types.get(module.config.precision)
    device = batch.views.device.type
    with torch.autocast(device, dtype=half, enabled=half is not None):
        terms = module.loss_terms(batch)[0]
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
