"""Loss, gradient and curvature of multinomial logistic regression, for many points."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["Design", "Metric", "evaluate", "weighted_metric"]

#: Entries of features at a time: both products of a block find it in the cache.
BLOCK_ENTRIES = 2**21
#: Smaller eigenvalues, relative to the largest, are rounding of single precision.
FLOOR = 1e-7


@dataclass(frozen=True, eq=False)
class Design:
    """Centred features on a device.

    Attributes
    ----------
    values : (n, d) float32
    labels : (n,) class of each row
    n_classes : of the labels
    """

    values: "Tensor"
    labels: "Tensor"
    n_classes: int

    def subset(self, rows: NDArray[np.intp]) -> "Design":
        """Design of some rows."""
        import torch

        chosen = torch.from_numpy(rows).to(self.values.device)
        return Design(self.values[chosen], self.labels[chosen], self.n_classes)

    def blocks(self) -> "Iterator[tuple[Tensor, Tensor]]":
        """Rows that are worked on together, and their labels."""
        n, d = self.values.shape
        on_cpu = self.values.device.type == "cpu"
        rows = max(BLOCK_ENTRIES // d, 1) if on_cpu else n
        for begin in range(0, n, rows):
            end = begin + rows
            yield self.values[begin:end], self.labels[begin:end]


@dataclass(frozen=True, eq=False)
class Metric:
    """Mean of w (x − m)(x − m)ᵀ over rows, in its eigenbasis.

    Attributes
    ----------
    eigenvalues, basis : (d,) float64 and (d, d)
    centre : (d,) float64, the weighted mean m
    """

    eigenvalues: "Tensor"
    basis: "Tensor"
    centre: "Tensor"


def weighted_metric(design: Design, point: "Tensor | None" = None) -> Metric:
    """Metric with w = 1, or with the curvature of the loss of each row at a point.

    Parameters
    ----------
    design : features and classes
    point : (d + 1, n_classes); weights are Σ p(1 − p) over classes, of mean 1
    """
    import torch

    d = design.values.shape[1]
    first = design.values.new_zeros(d, dtype=torch.float64)
    second, total = first.new_zeros(d, d), first.new_zeros(())
    for block, _ in design.blocks():
        weights = block.new_ones(len(block))
        if point is not None:
            narrow = point.to(block.dtype)
            p = torch.addmm(narrow[-1], block, narrow[:-1]).softmax(1)
            weights = (p * (1 - p)).sum(1)
        weighted = block * weights[:, None]
        second += weighted.mT @ block
        first += weighted.sum(0, dtype=torch.float64)
        total += weights.sum(dtype=torch.float64)
    centre = first / total
    covariance = second / total - torch.outer(centre, centre)
    eigenvalues, basis = torch.linalg.eigh(covariance.to(design.values.dtype))
    floor = float(FLOOR * eigenvalues[-1].clamp_min(0))
    return Metric(eigenvalues.double().clamp_min(floor), basis, centre)


def evaluate(
    design: Design, points: "Sequence[Tensor]", dtype: "torch.dtype"
) -> "tuple[list[float], Tensor, Tensor]":
    """Sum of losses and their gradients at several points, in one pass.

    Parameters
    ----------
    design : features and classes
    points : (d + 1, n_classes) each
    dtype : of the products; sums over blocks have double precision

    Returns
    -------
    losses, (n_points, d + 1, n_classes) gradients, (n_points, n_classes) sums of
    p(1 − p)
    """
    import torch

    n_points, n_classes = len(points), design.n_classes
    stacked = torch.cat(list(points), dim=1)
    weights, intercepts = stacked[:-1].to(dtype), stacked[-1].to(dtype)
    losses = stacked.new_zeros(n_points)
    gradient = torch.zeros_like(stacked)
    spread = torch.zeros_like(stacked[-1])
    for block, labels in design.blocks():
        rows = block.to(dtype)
        logits = torch.addmm(intercepts, rows, weights)
        residuals = logits.view(len(block), n_points, n_classes)
        right = labels[:, None, None].expand(-1, n_points, 1)
        losses += _softmax_residuals(residuals, right)
        gradient[:-1] += rows.mT @ logits
        gradient[-1] += logits.sum(0, dtype=torch.float64)
        spread += (logits.abs() - logits.square()).sum(0, dtype=torch.float64)
    shaped = gradient.view(-1, n_points, n_classes).permute(1, 0, 2).contiguous()
    return losses.tolist(), shaped, spread.view(n_points, n_classes)


def _softmax_residuals(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """Sum of losses at each point; `logits` become p − onehot(label).

    Parameters
    ----------
    logits : (rows, n_points, n_classes), overwritten
    labels : (rows, n_points, 1)

    Returns
    -------
    (n_points,) float64
    """
    import torch

    top = logits.amax(-1, keepdim=True)
    behind = top - logits.gather(-1, labels)
    logits.sub_(top).exp_()
    # Without the right class, so that nothing cancels where it is almost certain.
    logits.scatter_(-1, labels, 0.0)
    others = logits.sum(-1, keepdim=True)
    total = others + behind.neg().exp_()
    losses = torch.where(behind == 0, torch.log1p(others), torch.log(total) + behind)
    logits.div_(total)
    logits.scatter_(-1, labels, -others / total)
    return losses.sum((0, 2), dtype=torch.float64)
