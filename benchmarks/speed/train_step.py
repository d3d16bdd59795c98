"""A training step: four views against two terms, and where its time goes.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.train_step``, on a GPU if there
is one: then ResNet-50 at 224 pixels in bf16 with 128 pairs a step, else the tiny
network at 32 pixels with 64 pairs. All routes run in one process and in turns, so that
another load on the machine falls on all of them; without a GPU, times are those of the
processor, which such a load changes little. Views are on the device already; a step has
two images a pair, two views each.

Backbone and one head alone run on as many random tensors under the plainest loss: what
a step takes beyond them are the objective, the second head, the statistics of each view
and the optimiser. Weight 0.3 is compared with weight 0 on equal images; for the second
head's own passes any such network pays.
"""

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from benchmarks.speed._measure import Measured, Rows, in_turns, main
from ce_align.augment import PARAMETER_NAMES
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import ViewBatchNorm
from ce_align.trainer.presets import TrainConfig, preset_config
from ce_align.trainer.views import Batch, PairedViews, PairPlan, PixelBatch

OBJECTIVES = ("mmcr", "barlow", "simclr")
#: Turns of the routes that are compared, and operations that are listed.
N_TURNS, N_OPERATIONS = 8, 6


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


def of_objective(objective: str, device: str) -> Rows:
    """A step, what is left of it, and what the weight costs."""
    on_gpu = device == "cuda"
    invariant, both = (Step(config(objective, w, on_gpu), device) for w in (0.0, 0.3))
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    routes = (both.whole, both.networks, invariant.whole, both.second_head)
    whole, networks, without, head = timed(*routes)
    images = 2 * both.module.config.pairs_per_step
    yield Measured(
        f"training step of {objective}, {network_of(device)}, weight 0.3",
        1e3 * whole / images,
        "ms an image",
        floor=1e3 * networks / images,
        of_floor="backbone and one head alone",
    )
    yield Measured(
        f"training step of {objective}, {network_of(device)}, weight 0.3",
        1e3 * whole / images,
        "ms an image",
        floor=1e3 * without / images,
        of_floor="weight 0 on equal images",
        at_most=1.05,
        note=f"the second head's passes are {head / without:+.1%}",
    )
    if on_gpu:
        yield Measured(
            f"memory of training steps of {objective}, {network_of(device)}",
            torch.cuda.max_memory_allocated() / 1e9,
            "GB",
        )


def network_of(device: str) -> str:
    """Which network is trained where, and on what."""
    if device == "cuda":
        return f"ResNet-50 on {torch.cuda.get_device_name()}"
    return "tiny network"


def timed(*routes: Callable[[], object]) -> list[float]:
    """`in_turns`, without the first, by the clock where a GPU does the work."""
    clock = time.perf_counter if torch.cuda.is_available() else time.process_time
    return in_turns(*routes, repeats=N_TURNS, first=1, clock=clock)


def of_rendering(settings: TrainConfig, device: str) -> Rows:
    """Views of a step, on the device, by a worker, and as pixels."""
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

    on_device, worker, handing = timed(
        render, lambda: by_worker[0, 0], lambda: by_device[0, 0]
    )
    each = 1e3 / (2 * n_images)
    yield Measured(
        f"views of {settings.view_size} from {size} pixels, rendered on {device}",
        each * on_device,
        "ms a view",
        peer="one worker",
        theirs=each * worker,
        note=f"a worker hands over the pixels of one in {each * handing:.3g} ms",
    )


def of_statistics(step: Step, device: str) -> Rows:
    """Passes with the statistics of each view, over those of the whole batch."""
    layers = [m for m in step.module.modules() if isinstance(m, ViewBatchNorm)]

    def joined() -> None:
        for layer in layers:
            layer.n_views = 1
        step.networks()
        for layer in layers:
            layer.n_views = 4

    whole, each, together = timed(step.whole, step.networks, joined)
    yield Measured(
        f"training step with the statistics of each view, {network_of(device)}",
        1e3 * whole,
        "ms",
        floor=1e3 * (whole - each + together),
        of_floor="with those of the whole batch",
        at_most=1.02,
        note=top_operations(step),
    )


def top_operations(step: Step) -> str:
    """The operations that take the most time, and their shares."""
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
    return ", ".join(
        f"{event.key[:40]} {getattr(event, attribute) / total:.0%}"
        for event in events[:N_OPERATIONS]
    )


def rows() -> Rows:
    """The three objectives, rendering, statistics and operations."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for objective in OBJECTIVES:
        yield from of_objective(objective, device)
    settings = config("simclr", 0.3, device == "cuda")
    yield from of_rendering(settings, device)
    yield from of_statistics(Step(settings, device), device)


if __name__ == "__main__":
    main(rows)
