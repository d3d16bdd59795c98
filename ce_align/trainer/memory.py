"""Memory of a training step: counted from what its backward pass keeps, or measured."""

import resource
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from ce_align.errors import ConfigError, first_line
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.presets import TrainConfig

__all__ = ["StepMemory", "forget_peak", "peak_bytes"]

#: Pairs that are counted; more take memory in proportion.
COUNTED = 2, 4
#: What allocators, workspaces and the momentum copy's passes take beside it.
BESIDE = 1.15


def _kept(network: nn.Module, pairs: int, size: int) -> int:
    """Bytes that the backward pass of a batch in single precision needs."""
    weights = {id(parameter) for parameter in network.parameters()}
    storages: dict[int, int] = {}
    held = []  # or a freed one's place would be another's

    def keep(tensor: Tensor) -> Tensor:
        if id(tensor) not in weights:
            held.append(tensor)
            storage = tensor.untyped_storage()
            storages[storage._cdata] = storage.nbytes()
        return tensor

    images = torch.empty(4 * pairs, 3, size, size, device="meta")
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        network(images)
    return sum(storages.values())


@dataclass(frozen=True)
class StepMemory:
    """Bytes that a process needs for a step of training.

    Attributes
    ----------
    fixed : whatever the batch: weights, gradients, state of the optimiser
    each : of every pair of the process's share
    """

    fixed: float
    each: float

    @classmethod
    def of(cls, config: TrainConfig) -> Self:
        """Counted from the network, which is not run; ConfigError if it cannot be."""
        with torch.device("meta"):
            module = PairedTraining(config.model_copy(update={"warmup_epochs": 0}), 1)
        network = module.network.train()
        weights = 4 * sum(p.numel() for p in network.parameters())
        try:
            few, more = (_kept(network, pairs, config.view_size) for pairs in COUNTED)
        except (AssertionError, RuntimeError, ValueError) as error:
            raise ConfigError(
                f"{config.backbone} does not take views of {config.view_size} pixels: "
                f"{first_line(error)}"
            ) from error
        each = BESIDE * (more - few) / (COUNTED[1] - COUNTED[0])
        if config.precision != "32":
            each /= 2
        copies = 3 + (config.optimizer == "adamw") + (module.momentum is not None)
        pixels = 4 * 3 * config.view_size**2
        return cls(copies * weights, each + 5 * pixels)

    def most_pairs(self, free: int, n_processes: int) -> int:
        """Pairs of the largest step that fits, over all processes."""
        return n_processes * max(0, int((free - self.fixed) / self.each))

    def check(self, config: TrainConfig, free: int, n_processes: int) -> None:
        """Raise ConfigError if a step needs more than is free; with what would fit."""
        needed = self.fixed + self.each * config.pairs_per_step / n_processes
        if needed <= free:
            return
        most = self.most_pairs(free, n_processes)
        remedy = "use a smaller --backbone or --size"
        if most > n_processes:
            remedy = f"use --pairs-per-step {most} or fewer"
        raise ConfigError(
            f"a step of {config.pairs_per_step} pairs needs about {needed / 1e9:.3g} "
            f"GB of each process, and {free / 1e9:.3g} GB are free; {remedy}, or share "
            "it out among more --devices"
        )


def forget_peak(kind: str) -> None:
    """Begin to look for the highest use of memory."""
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # only Linux forgets; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(kind: str) -> int:
    """Highest use of memory since `forget_peak`."""
    if kind == "cuda":
        return torch.cuda.max_memory_reserved()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
