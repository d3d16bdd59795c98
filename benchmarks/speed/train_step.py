"""A training step: four views against two terms, and where its time goes.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.train_step``, on a GPU if there
is one: then ResNet-50 at 224 pixels in bf16 with 128 pairs a step, else the tiny
network at 32 pixels with 64 pairs. All routes run in one process and in turns, so that
another load on the machine falls on all of them; without a GPU, times are those of the
processor, which such a load changes little. Printed for each objective:

- images a second of the whole step (two images a pair, two views each), on views that
  are on the device already;
- its share of the speed of backbone and one head alone on as many random tensors, under
  the plainest loss: what is left of 100 % are the objective, the second head, the
  statistics of each view and the optimiser;
- what weight 0.3 costs over weight 0 on equal images, and how much of it is the second
  head's forward and backward pass, for which any such network pays;
- on a GPU, the largest memory in use.

Then, once: the time to render the views of a step on the device and by one worker, what
statistics of each view cost over statistics of the whole batch, and the operations that
take the most time in a step of weight 0.3.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed._machine import describe
from ce_align.augment import PARAMETER_NAMES
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import ViewBatchNorm
from ce_align.trainer.presets import TrainConfig, preset_config
from ce_align.trainer.views import Batch, PairedViews, PairPlan, PixelBatch

OBJECTIVES = ("mmcr", "barlow", "simclr")
#: Turns of the routes that are compared, and operations that are listed.
N_TURNS, N_OPERATIONS = 8, 12


def in_turns(*routes: Callable[[], object]) -> list[float]:
    """Shortest time of each route in seconds, after one to warm up."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    times: list[list[float]] = [[] for _ in routes]
    for _ in range(1 + N_TURNS):
        for route, of_route in zip(routes, times, strict=True):
            start = clock()
            route()
            of_route.append(clock() - start)
    return [min(of_route[1:]) for of_route in times]


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
        views = torch.randint(
            0, 256, shape, dtype=torch.uint8, device=device, generator=generator
        )
        labels = torch.zeros(settings.pairs_per_step, 2, device=device)
        parameters = labels[..., None].expand(-1, -1, len(PARAMETER_NAMES))
        self.batch = Batch(views, labels, parameters)
        images = views.flatten(0, 1).permute(0, 3, 1, 2)
        self.images = images.float() / 255

    def _backward(self, loss: Callable[[], Tensor]) -> None:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.half):
            value = loss()
        torch.autograd.backward(value)
        self._wait()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def whole(self) -> None:
        """A step of training."""
        self._backward(lambda: self.module.loss_terms(self.batch)[0].total)
        self.optimizer.step()
        if self.module.momentum is not None:
            self.module.momentum.update(self.module.network)
        self.optimizer.zero_grad()
        self._wait()

    def networks(self) -> None:
        """Backbone and one head, forward and backward."""
        network = self.module.network
        self._backward(
            lambda: network.head_invariant(network.backbone(self.images)).float().mean()
        )
        self.optimizer.zero_grad()

    def second_head(self) -> None:
        """The second head alone, forward and backward to its input."""
        head = self.module.network.head_equivariant
        width = next(head.parameters()).shape[1]
        features = torch.ones(len(self.images), width, device=self.device)
        features.requires_grad_()
        self._backward(lambda: head(features).float().mean())
        self.optimizer.zero_grad()


def measure_objective(objective: str, device: str) -> str:
    """One line on an objective."""
    on_gpu = device == "cuda"
    invariant, both = (Step(config(objective, w, on_gpu), device) for w in (0.0, 0.3))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    routes = (both.whole, both.networks, invariant.whole, both.second_head)
    whole, networks, without, head = in_turns(*routes)
    speed = 2 * both.module.config.pairs_per_step / whole
    line = (
        f"{objective}: {speed:.0f} images/s, {networks / whole:.0%} of backbone and "
        f"one head alone; weight 0.3 costs {whole / without - 1:+.1%} over weight 0, "
        f"the second head's passes {head / without:+.1%}"
    )
    if on_gpu:
        line += f"; {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"
    return line


def measure_rendering(settings: TrainConfig, device: str) -> str:
    """One line on the views of a step."""
    size = 2 * settings.view_size
    n_images = 2 * settings.pairs_per_step
    pixels = np.random.default_rng(0).integers(
        0, 256, (n_images, size, size, 3), dtype=np.uint8
    )
    images = ImageSet.from_array("noise", pixels)
    pairs, families = settings.pairs_per_step, settings.families
    plan = PairPlan(n_images, pairs, seed=0, families=families)
    labels = np.full(n_images, -1)
    by_worker, by_device = (
        PairedViews(images, plan, labels, settings.view_size, on_device=on_device)
        for on_device in (False, True)
    )
    pixels_of_step = by_device[0, 0]
    if not isinstance(pixels_of_step, PixelBatch):
        raise TypeError(f"no pixels came: {pixels_of_step}")
    on_its_device = pixels_of_step.to(device)

    def render() -> None:
        on_its_device.rendered(settings.view_size)
        if device == "cuda":
            torch.cuda.synchronize()

    on_device, worker, handing = in_turns(
        render, lambda: by_worker[0, 0], lambda: by_device[0, 0]
    )
    n_views = 2 * n_images
    return (
        f"views of {settings.view_size} from {size} pixels: "
        f"{n_views / on_device:.0f}/s rendered on the device, {n_views / worker:.0f}/s "
        f"by one worker, which hands over the pixels of {n_views / handing:.0f}/s"
    )


def measure_statistics(step: Step) -> str:
    """One line on the statistics of each view."""
    layers = [m for m in step.module.modules() if isinstance(m, ViewBatchNorm)]

    def joined() -> None:
        for layer in layers:
            layer.n_views = 1
        step.networks()
        for layer in layers:
            layer.n_views = 4

    each, together = in_turns(step.networks, joined)
    return (
        f"statistics of each view cost {each / together - 1:+.1%} of the networks' "
        "passes over statistics of the whole batch"
    )


def top_operations(step: Step) -> Sequence[str]:
    """The operations that take the most time, a line each."""
    kinds = [ProfilerActivity.CPU]
    if step.device == "cuda":
        kinds.append(ProfilerActivity.CUDA)
    with profile(activities=kinds) as found:
        for _ in range(3):
            step.whole()
    attribute = f"self_{'device' if step.device == 'cuda' else 'cpu'}_time_total"
    events = sorted(
        found.key_averages(), key=lambda e: getattr(e, attribute), reverse=True
    )
    total = sum(getattr(event, attribute) for event in events)
    return [
        f"  {getattr(event, attribute) / total:6.1%}  {event.count // 3:5d} calls  "
        f"{event.key[:60]}"
        for event in events[:N_OPERATIONS]
    ]


def main() -> None:
    """Measure the three objectives, rendering, statistics and operations."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(describe())
    print(torch.cuda.get_device_name() if device == "cuda" else "no GPU: tiny network")
    for objective in OBJECTIVES:
        print(measure_objective(objective, device), flush=True)
    settings = config("simclr", 0.3, device == "cuda")
    print(measure_rendering(settings, device), flush=True)
    step = Step(settings, device)
    print(measure_statistics(step), flush=True)
    print(f"share of a step of {settings.objective} at weight 0.3:")
    print("\n".join(top_operations(step)))


if __name__ == "__main__":
    main()
