"""Layers with batch statistics per view, and over all processes."""

import torch
from torch import Tensor, nn

from ce_align.errors import DataError
from ce_align.trainer.gather import Group, n_processes
from ce_align.trainer.normalisation import normalise_over, normalise_views

__all__ = ["ViewBatchNorm", "ViewLinear", "convert_to_views", "set_group"]


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
            return self._each_view(input)
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

    def _each_view(self, input: Tensor) -> Tensor:
        """Every view through torch's kernel, which also tracks the statistics."""
        if self.n_views == 1:
            return super().forward(input)
        on_cpu = input.device.type == "cpu"
        if self.momentum is None or not (self.affine and on_cpu):
            views = input.chunk(self.n_views)
            return torch.cat([super(ViewBatchNorm, self).forward(v) for v in views])
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(self.n_views)
        return normalise_views(
            input,
            self.weight,
            self.bias,
            (self.running_mean, self.running_var),
            momentum=self.momentum,
            eps=self.eps,
            n_views=self.n_views,
        )

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
