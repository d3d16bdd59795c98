"""Sums and batches over all processes, with exact gradients.

Convention: every process returns the same loss of the whole batch, every collective
operation is differentiated by its exact adjoint, and the gradients of parameters are
then *averaged* over processes, as `DistributedDataParallel` does. What is descended is
thus the mean of the returned losses, which is the loss of the whole batch: no factor
for the number of processes appears anywhere. Every process holds equally many rows,
and rows are joined in the order of ranks.

A group of None stands for one process alone: its functions return their input.
"""

from typing import Any, TypeAlias

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

__all__ = [
    "Group",
    "all_reduced",
    "all_rows",
    "full_precision",
    "gather_rows",
    "mean_over",
    "n_processes",
    "rank_in",
    "sum_over",
]

#: Processes that share a batch; None is this process alone.
Group: TypeAlias = dist.ProcessGroup | None


def n_processes(group: Group) -> int:
    """Number of processes in `group`."""
    return 1 if group is None else group.size()


def rank_in(group: Group) -> int:
    """Place of this process in `group`, from 0."""
    return 0 if group is None else group.rank()


def full_precision(tensor: Tensor) -> torch.autocast:
    """Context in which operations on the device of `tensor` keep their precision."""
    return torch.autocast(tensor.device.type, enabled=False)


def all_rows(rows: Tensor, group: Group) -> Tensor:
    """Rows of all processes in the order of ranks, without gradient.

    Parameters
    ----------
    rows : (n, ...) of this process

    Returns
    -------
    (n_processes * n, ...)
    """
    if group is None:
        return rows
    rows = rows.contiguous()
    parts = [torch.empty_like(rows) for _ in range(n_processes(group))]
    dist.all_gather(parts, rows, group=group)
    return torch.cat(parts)


def all_reduced(tensor: Tensor, group: Group) -> Tensor:
    """Sum over processes of a tensor of any shape, without gradient."""
    if group is None:
        return tensor
    total = tensor.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(total, group=group)
    return total


class _GatherRows(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return all_rows(rows, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        n_rows = len(gradient) // n_processes(ctx.group)
        total = all_reduced(gradient, ctx.group)
        return total.narrow(0, rank_in(ctx.group) * n_rows, n_rows), None


class _SumOver(Function):
    @staticmethod
    def forward(ctx: Any, tensor: Tensor, group: Group) -> Tensor:
        ctx.group = group
        return all_reduced(tensor, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return all_reduced(gradient, ctx.group), None


def gather_rows(rows: Tensor, group: Group) -> Tensor:
    """Rows of all processes, (n_processes * n, ...), in the order of ranks.

    The gradient of a process's rows is the sum of what all processes ask of them.
    """
    if group is None:
        return rows
    gathered: Tensor = _GatherRows.apply(rows, group)
    return gathered


def sum_over(tensor: Tensor, group: Group) -> Tensor:
    """Sum over processes of a tensor of any shape; so are its gradients."""
    if group is None:
        return tensor
    total: Tensor = _SumOver.apply(tensor, group)
    return total


def mean_over(tensor: Tensor, group: Group) -> Tensor:
    """Mean over processes of a tensor of any shape."""
    return tensor if group is None else sum_over(tensor, group) / n_processes(group)
