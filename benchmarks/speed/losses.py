"""Losses of training, forward and backward, against their textbook forms.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.losses``. Gradients are compared
with those of the textbook form in float64.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from benchmarks.speed._measure import Measured, Rows, in_turns, main
from ce_align.trainer.objectives import barlow_twins, mmcr, simclr

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


def rows(barlow_rows: str = "512 2048") -> Rows:
    """Each loss; of Barlow Twins at several batch sizes."""
    torch.set_num_threads(1)
    batches = [int(batch) for batch in barlow_rows.split()]
    cases: list[tuple[str, Loss, Loss, tuple[int, int], float]] = [
        ("MMCR", mmcr_by_svd, mmcr, MMCR_SHAPE, 1.5),
        ("SimCLR", simclr_by_masks, simclr, SIMCLR_SHAPE, 1),
        *(
            ("Barlow Twins", barlow_by_correlation, barlow_twins, (n, 8192), goal)
            for n, goal in zip(batches, (8, 2), strict=False)
        ),
    ]
    for name, textbook, loss, shape, goal in cases:
        torch.manual_seed(0)
        common = torch.randn(shape)
        views = [common + torch.randn(shape) for _ in range(2)]
        found = gradient(loss, views)
        ours, theirs = in_turns(
            lambda: gradient(loss, views),  # noqa: B023
            lambda: gradient(textbook, views),  # noqa: B023
            repeats=2 if shape[1] == 8192 else 4,
        )
        exact = gradient(textbook, [view.double() for view in views])
        yield Measured(
            f"{name}, {shape[0]} × {shape[1]}, forward and backward",
            1e3 * ours,
            "ms",
            peer="textbook form",
            theirs=1e3 * theirs,
            at_least=goal,
            apart=float((found - exact).norm() / exact.norm()),
            within=1e-4,
        )


if __name__ == "__main__":
    main(rows)
