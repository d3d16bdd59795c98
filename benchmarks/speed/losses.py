"""Losses of training, forward and backward, against their textbook forms.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.losses [BATCH ...]``. A batch
(512 unless told) is one of Barlow Twins at 8192 dimensions. Gradients are compared with
those of the textbook form in float64.
"""

import sys
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed._machine import best_of, describe
from ce_align.trainer.objectives import barlow_twins, mmcr, simclr

BARLOW_COLUMNS = 8192
MMCR_SHAPE = (2048, 512)
SIMCLR_SHAPE = (1024, 512)
TEMPERATURE, OFF_DIAGONAL, SCALE = 0.15, 5e-3, 0.048

Loss = Callable[[Tensor, Tensor], Tensor]


def barlow_by_correlation(view_a: Tensor, view_b: Tensor) -> Tensor:
    """The cross-correlation matrix itself, and its off-diagonal entries copied."""
    a, b = (
        functional.batch_norm(view, None, None, training=True)
        for view in (view_a, view_b)
    )
    correlation = a.T @ b / len(a)
    n = len(correlation)
    off = correlation.flatten()[:-1].view(n - 1, n + 1)[:, 1:]
    on = (correlation.diagonal() - 1).square().sum()
    loss: Tensor = SCALE * (on + OFF_DIAGONAL * off.square().sum())
    return loss


def mmcr_by_svd(view_a: Tensor, view_b: Tensor) -> Tensor:
    """Singular values of the centroids."""
    centroids = functional.normalize(view_a) + functional.normalize(view_b)
    singular: Tensor = torch.linalg.svdvals(centroids / 2)
    return -singular.sum()


def simclr_by_masks(view_a: Tensor, view_b: Tensor) -> Tensor:
    """Exponentials of all similarities, then masks."""
    rows = functional.normalize(torch.cat([view_a, view_b]))
    similarity = torch.exp(rows @ rows.T / TEMPERATURE)
    others = ~torch.eye(len(rows), dtype=torch.bool)
    partner = torch.exp((rows * rows.roll(len(view_a), 0)).sum(1) / TEMPERATURE)
    return -torch.log(partner / (similarity * others).sum(1)).mean()


def gradient(loss: Loss, views: list[Tensor]) -> Tensor:
    """Gradient of both views, after a forward and a backward pass."""
    inputs = [view.detach().requires_grad_() for view in views]
    return torch.cat(torch.autograd.grad(loss(*inputs), inputs))


def compare(name: str, textbook: Loss, ours: Loss, shape: tuple[int, int]) -> None:
    """Print times, their ratio and the error of our gradient."""
    torch.manual_seed(0)
    common = torch.randn(shape)
    views = [common + torch.randn(shape) for _ in range(2)]
    found: list[Tensor] = []
    repeats = 3 if shape[1] < BARLOW_COLUMNS else 2
    seconds = best_of(lambda: found.append(gradient(ours, views)), repeats + 1)
    reference = best_of(lambda: gradient(textbook, views), repeats)
    exact = gradient(textbook, [view.double() for view in views])
    error = float((found[0] - exact).norm() / exact.norm())
    print(
        f"{name:12s} {shape[0]:5d} × {shape[1]:<5d} {reference * 1e3:8.0f} ms   "
        f"{seconds * 1e3:7.0f} ms   {reference / seconds:5.2f}×   {error:.0e}"
    )


def main() -> None:
    """Measure, and print one line for each loss."""
    torch.set_num_threads(1)
    batches = [int(batch) for batch in sys.argv[1:]] or [512]
    print(f"{describe()}, torch {torch.__version__}")
    print(
        "loss         rows × columns   textbook     ce_align   ratio   gradient error"
    )
    compare("MMCR", mmcr_by_svd, mmcr, MMCR_SHAPE)
    compare("SimCLR", simclr_by_masks, simclr, SIMCLR_SHAPE)
    for batch in batches:
        shape = (batch, BARLOW_COLUMNS)
        compare("Barlow Twins", barlow_by_correlation, barlow_twins, shape)


if __name__ == "__main__":
    main()
