"""Batch statistics per view, and over all processes.

torch's SyncBatchNorm refuses CPU tensors; `normalise_over` runs the same code on every
device, so what the CPU tests prove holds for the GPU path too.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ce_align.errors import DataError
from ce_align.trainer.gather import Group, all_reduced, all_rows, n_processes

__all__ = [
    "ViewBatchNorm",
    "ViewLinear",
    "convert_to_views",
    "normalise_over",
    "set_group",
    "standardised_columns",
]


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


def standardised_columns(rows: Tensor, epsilon: float, group: Group) -> Tensor:
    """Columns of the (n, d) rows of all processes brought to mean 0 and variance 1."""
    if group is None:
        return functional.batch_norm(rows, None, None, training=True, eps=epsilon)
    return normalise_over(rows, eps=epsilon, group=group)[0]


class ViewBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of several views in one pass, as in separate passes.

    In training every view (consecutive rows) has its own statistics, and the running
    statistics see the views one after the other; in evaluation it is ordinary. Without
    a group every view runs through torch's own kernel, which makes the pass equal to
    separate ones bit by bit.

    Attributes
    ----------
    n_views : views in a training batch
    group : processes whose statistics are joined; None for this process alone
    """

    n_views: int = 1
    group: Group = None

    def _check_input_dim(self, input: Tensor) -> None:
        """Accept images and vectors alike."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalised (n_views * n, n_channels, ...)."""
        if not self.training:
            return super().forward(input)
        _check_views(input, self.n_views)
        count = input[:, 0].numel() // self.n_views * n_processes(self.group)
        if count < 2:
            raise DataError(
                f"a batch of shape {tuple(input.shape)} has one value a channel and "
                "view; batch statistics need at least two"
            )
        if self.group is None:
            views = input.chunk(self.n_views)
            outputs = [super(ViewBatchNorm, self).forward(view) for view in views]
            return outputs[0] if self.n_views == 1 else torch.cat(outputs)
        out, mean, variance = normalise_over(
            input,
            self.weight,
            self.bias,
            eps=self.eps,
            n_views=self.n_views,
            group=self.group,
        )
        self._track(mean, variance * (count / (count - 1)))
        return out

    @torch.no_grad()
    def _track(self, means: Tensor, variances: Tensor) -> None:
        """Move the running statistics towards those of each view in turn."""
        seen, running = self.num_batches_tracked, (self.running_mean, self.running_var)
        if seen is None:
            return
        for statistics in zip(means, variances, strict=True):
            seen.add_(1)
            share = 1 / float(seen) if self.momentum is None else self.momentum
            for buffer, statistic in zip(running, statistics, strict=True):
                if buffer is not None:
                    buffer.lerp_(statistic.to(buffer.dtype), share)


class ViewLinear(nn.Linear):
    """Linear layer whose product for several views equals separate products.

    On a CPU the kernel, and so the rounding, depends on the number of rows: training
    batches take one product a view there. Elsewhere one product serves all.
    """

    n_views: int = 1

    def forward(self, input: Tensor) -> Tensor:
        """Product (n_views * n, out_features)."""
        if not self.training or self.n_views == 1 or input.device.type != "cpu":
            return super().forward(input)
        _check_views(input, self.n_views)
        views = input.chunk(self.n_views)
        return torch.cat([super(ViewLinear, self).forward(view) for view in views])


def convert_to_views(module: nn.Module, n_views: int) -> nn.Module:
    """Give every batch normalisation and linear layer in `module` views, in place.

    Parameters, buffers and their names stay as they are.

    Returns
    -------
    `module`, or what replaces it if it is itself such a layer
    """
    for name, child in module.named_children():
        setattr(module, name, convert_to_views(child, n_views))
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, ViewBatchNorm)
    twin: ViewBatchNorm | ViewLinear
    if isinstance(module, kinds):
        twin = ViewBatchNorm.__new__(ViewBatchNorm)
    elif isinstance(module, nn.Linear):
        twin = ViewLinear.__new__(ViewLinear)
    else:
        return module
    twin.__dict__ = module.__dict__
    twin.n_views = n_views
    return twin


def set_group(module: nn.Module, group: Group) -> None:
    """Join the batch statistics of `module` over the processes of `group`."""
    for layer in module.modules():
        if isinstance(layer, ViewBatchNorm):
            layer.group = group


def _check_views(batch: Tensor, n_views: int) -> None:
    if batch.ndim < 2 or len(batch) % n_views or not len(batch):
        raise DataError(
            f"a batch of shape {tuple(batch.shape)} cannot be shared out among "
            f"{n_views} views; give equally many rows of each"
        )


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
