"""A training step: four views against two, and the network against random tensors.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.train_step``, on a GPU if there
is one: then ResNet-50 at 224 pixels in bf16 with 128 pairs a step, else the tiny
network at 32 pixels with 64 pairs. All routes run in one process, on views that are on
the device already. Printed for each objective:

- images a second of the whole step (two images a pair, two views each);
- its share of the speed of backbone and heads alone on as many random tensors, under
  the plainest loss: what is left of 100 % are the objective, the two terms, the
  statistics of each view and the optimiser;
- the overhead of weight 0.3 over weight 0 on equal images;
- on a GPU, the largest memory in use.
"""

import torch

from benchmarks.speed._machine import best_of, describe
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import Embeddings
from ce_align.trainer.presets import TrainConfig, preset_config

STEPS = 5


def config(objective: str, weight: float, on_gpu: bool) -> TrainConfig:
    """Settings of the measured step."""
    preset = "paper-in1k" if on_gpu else "tiny"
    return preset_config(
        preset,
        objective,
        equivariance_weight=weight,
        images="random",
        pairs_per_step=128 if on_gpu else 64,
        precision="bf16" if on_gpu else "32",
    )


class Step:
    """Steps of one training on the same random views."""

    def __init__(self, settings: TrainConfig, device: str) -> None:
        self.module = PairedTraining(settings, 1000).to(device)
        self.optimizer = self.module.configure_optimizers()
        self.half = settings.precision == "bf16"
        self.device = device
        shape = (4, settings.pairs_per_step, settings.view_size, settings.view_size, 3)
        generator = torch.Generator(device).manual_seed(0)
        self.views = torch.randint(
            0, 256, shape, dtype=torch.uint8, device=device, generator=generator
        )
        images = self.views.flatten(0, 1).permute(0, 3, 1, 2)
        self.images = images.float() / 255

    def _loss(self, whole: bool) -> torch.Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            if whole:
                return self.module.loss_terms(self.views)[0].total
            found: Embeddings = self.module.network(self.images)
        return found.invariant.float().mean() + found.equivariant.float().mean()

    def run(self, whole: bool) -> None:
        """A few steps, with or without objective, momentum copy and optimiser."""
        for _ in range(STEPS):
            torch.autograd.backward(self._loss(whole))
            if whole:
                self.optimizer.step()
                if self.module.momentum is not None:
                    self.module.momentum.update(self.module.network)
            self.optimizer.zero_grad()
        if self.device == "cuda":
            torch.cuda.synchronize()

    def seconds(self, whole: bool) -> float:
        """Of one step."""
        self.run(whole)
        return best_of(lambda: self.run(whole)) / STEPS


def main() -> None:
    """Measure the three objectives."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(describe())
    print(torch.cuda.get_device_name() if device == "cuda" else "no GPU: tiny network")
    for objective in ("mmcr", "barlow", "simclr"):
        invariant = Step(config(objective, 0.0, device == "cuda"), device)
        without = invariant.seconds(whole=True)
        del invariant
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        both = Step(config(objective, 0.3, device == "cuda"), device)
        whole, alone = both.seconds(whole=True), both.seconds(whole=False)
        speed = 2 * both.module.config.pairs_per_step / whole
        line = (
            f"{objective}: {speed:.0f} images/s, {alone / whole:.0%} of the networks "
            f"alone; weight 0.3 costs {whole / without - 1:+.1%} over weight 0"
        )
        if device == "cuda":
            line += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
        print(line)


if __name__ == "__main__":
    main()
