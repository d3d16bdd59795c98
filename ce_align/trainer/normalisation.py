"""Batch normalisation of several views in one pass, and over all processes.

torch's SyncBatchNorm refuses CPU tensors; `normalise_over` runs the same code on every
device, so what the CPU tests prove holds for the GPU path too.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ce_align.trainer.gather import Group, all_reduced, all_rows, n_processes

__all__ = ["normalise_over", "normalise_views", "standardised_columns"]


class _NormaliseOver(Function):
    @staticmethod
    def forward(
        ctx: Any,
        batch: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
        n_views: int,
        group: Group,
    ) -> tuple[Tensor, Tensor, Tensor]:
        values = _by_view(batch, n_views)
        variance, mean = torch.var_mean(values, _pooled(values), correction=0)
        # Equal counts: the variance of all is the mean variance plus that of the means.
        local = torch.stack([mean, variance]).unsqueeze(0)
        means, variances = all_rows(local, group).unbind(1)
        mean = means.mean(0)
        variance = variances.mean(0) + (means - mean).square().mean(0)
        inverse = torch.rsqrt(variance + eps)
        scale = inverse if weight is None else inverse * weight
        shift = -mean * scale if bias is None else bias - mean * scale
        # Written into a tensor of its own: a view could not be changed in place later,
        # as ReLU does.
        out = torch.empty_like(batch)
        torch.addcmul(
            _broadcast(shift, values),
            values,
            _broadcast(scale, values),
            out=torch.unflatten(out, 0, (n_views, -1)),
        )
        ctx.save_for_backward(batch, mean, inverse, scale)
        ctx.n_views, ctx.group, ctx.has_bias = n_views, group, bias is not None
        ctx.has_weight = weight is not None
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        batch, mean, inverse, scale = ctx.saved_tensors
        values = _by_view(batch, ctx.n_views)
        gradient = _by_view(gradient, ctx.n_views)
        pooled = _pooled(values)
        centred = values - _broadcast(mean, values)
        sums = gradient.sum(pooled)
        products = (gradient * centred).sum(pooled) * inverse
        count = values[0].numel() // mean.shape[1] * n_processes(ctx.group)
        shared = all_reduced(torch.stack([sums, products]), ctx.group) / count
        slope = _broadcast(shared[1] * inverse, values)
        rest = gradient - _broadcast(shared[0], values) - centred * slope
        of_batch = (rest * _broadcast(scale, values)).flatten(0, 1).to(batch.dtype)
        of_weight = products.sum(0) if ctx.has_weight else None
        of_bias = sums.sum(0) if ctx.has_bias else None
        return of_batch, of_weight, of_bias, None, None, None


class _NormaliseViews(Function):
    """torch's own CPU kernel for every view, written into one tensor.

    Joining the results of separate calls would copy every activation once more.
    """

    @staticmethod
    def forward(
        ctx: Any,
        batch: Tensor,
        weight: Tensor,
        bias: Tensor,
        running: tuple[Tensor | None, Tensor | None],
        momentum: float,
        eps: float,
        n_views: int,
    ) -> Tensor:
        out = torch.empty_like(batch)
        statistics = weight.new_empty(2, n_views, len(weight))
        parts = batch.chunk(n_views), out.chunk(n_views), *statistics
        for view, target, mean, inverse in zip(*parts, strict=True):
            torch.ops.aten.native_batch_norm.out(
                *(view, weight, bias, *running, True, momentum, eps),
                out=target,
                save_mean=mean,
                save_invstd=inverse,
            )
        ctx.save_for_backward(batch, weight, statistics)
        ctx.eps, ctx.n_views = eps, n_views
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        batch, weight, statistics = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], True, True]
        of_batch = torch.empty_like(batch) if wanted[0] else None
        of_weight, of_bias = torch.zeros_like(weight), torch.zeros_like(weight)
        parts = gradient.chunk(ctx.n_views), batch.chunk(ctx.n_views), *statistics
        for place, (of_view, view, mean, inverse) in enumerate(
            zip(*parts, strict=True)
        ):
            found, weights, biases = torch.ops.aten.native_batch_norm_backward(
                *(of_view, view, weight, None, None, mean, inverse, True, ctx.eps),
                wanted,
            )
            if of_batch is not None:
                # Copied while it is in the processor's cache, then freed for the next.
                of_batch[place * len(view) : (place + 1) * len(view)] = found
            of_weight += weights
            of_bias += biases
        return of_batch, of_weight, of_bias, None, None, None, None


def normalise_over(
    batch: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    eps: float = 1e-5,
    n_views: int = 1,
    group: Group = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Batch normalisation with statistics of each view over all processes.

    Parameters
    ----------
    batch : (n_views * n, n_channels, ...); the rows of a view are consecutive
    weight, bias : (n_channels,) or None
    eps : added to the variances
    n_views : number of views, each with statistics of its own
    group : processes whose rows are joined; each holds equally many

    Returns
    -------
    normalised : like `batch`
    mean, variance : (n_views, n_channels), not differentiable; variance with divisor N
    """
    normalised: Tensor
    normalised, mean, variance = _NormaliseOver.apply(
        batch, weight, bias, eps, n_views, group
    )
    return normalised, mean, variance


def normalise_views(
    batch: Tensor,
    weight: Tensor,
    bias: Tensor,
    running: tuple[Tensor | None, Tensor | None],
    *,
    momentum: float,
    eps: float,
    n_views: int,
) -> Tensor:
    """Batch normalisation of each view by torch's kernel, on a CPU.

    Equal bit by bit to calls for one view after the other.

    Parameters
    ----------
    batch : (n_views * n, n_channels, ...); the rows of a view are consecutive
    weight, bias : (n_channels,)
    running : mean and variance (n_channels,), moved towards those of each view in turn
    momentum : share of the way
    eps : added to the variances
    n_views : number of views, each with statistics of its own

    Returns
    -------
    like `batch`
    """
    normalised: Tensor = _NormaliseViews.apply(
        batch, weight, bias, running, momentum, eps, n_views
    )
    return normalised


def standardised_columns(rows: Tensor, epsilon: float, group: Group) -> Tensor:
    """Columns of the (n, d) rows of all processes brought to mean 0 and variance 1."""
    if group is None:
        return functional.batch_norm(rows, None, None, training=True, eps=epsilon)
    return normalise_over(rows, eps=epsilon, group=group)[0]


def _by_view(batch: Tensor, n_views: int) -> Tensor:
    """(n_views, n, n_channels, ...) in at least single precision, strides kept."""
    precise = batch.to(torch.promote_types(batch.dtype, torch.float32))
    return torch.unflatten(precise, 0, (n_views, -1))


def _pooled(values: Tensor) -> tuple[int, ...]:
    """All axes but views and channels."""
    return (1, *range(3, values.ndim))


def _broadcast(statistic: Tensor, values: Tensor) -> Tensor:
    """(n_views or 1, n_channels) as a factor of `values`."""
    return statistic.view(-1, 1, statistic.shape[-1], *[1] * (values.ndim - 3))
