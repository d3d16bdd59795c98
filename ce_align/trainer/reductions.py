"""Reductions and normalisations with gradients of their own.

torch's SyncBatchNorm refuses CPU tensors; `normalise_over` runs the same code on every
device, so what the CPU tests prove holds for the GPU path too.
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.nn import functional

from ce_align.trainer.distributed import (
    Group,
    all_reduced,
    all_rows,
    full_precision,
    n_processes,
    rank_in,
)

__all__ = [
    "gram_inner_product",
    "log_sum_exp_others",
    "matrix_product",
    "normalise_over",
    "normalise_views",
    "nuclear_norm",
    "standardised_columns",
    "unit_rows",
]

#: Rows shorter than this have no direction.
SHORTEST = 1e-12

#: Eigenvalues of a Gram matrix below this many rounding errors of the largest are
#: taken for zero: those of rank-deficient matrices of up to 2048×512 stay under 4.1.
NULL_ROUNDINGS = 16


class _NuclearNorm(Function):
    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        rows, columns = matrix.shape
        ctx.wide = columns > rows
        gram = matrix @ matrix.mT if ctx.wide else matrix.mT @ matrix
        # The decomposition refuses NaN; the loss must show it instead.
        finite = gram.isfinite().all()
        gram = torch.where(finite, gram, 0)
        # The product keeps the precision of the input; float64 costs little for the
        # small decomposition and spends none of the digits that the product has.
        values, vectors = torch.linalg.eigh(gram.double())
        largest = values[-1]
        cut = NULL_ROUNDINGS * torch.finfo(matrix.dtype).eps * largest
        singular = torch.where(values > cut, values, 0).sqrt()
        singular = torch.where(finite, singular, math.nan)
        inverse = torch.where(singular == 0, 0, 1 / singular)
        ctx.save_for_backward(matrix, vectors, inverse)
        norm: Tensor = singular.sum().to(matrix.dtype)
        return norm

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        matrix, vectors, inverse = ctx.saved_tensors
        with full_precision(matrix):
            root = ((vectors * inverse) @ vectors.mT).to(matrix.dtype) * gradient
            product: Tensor = root @ matrix if ctx.wide else matrix @ root
            return product


def nuclear_norm(matrix: Tensor) -> Tensor:
    """Sum of singular values, by the smaller Gram matrix.

    The gradient is U Vᵀ over the directions of singular values that are not zero: the
    subgradient of least norm, finite for every finite matrix and zero for a zero one.
    Singular values below 1.4e-3 (float32) or 6e-8 (float64) of the largest cannot be
    told from zero in a Gram matrix and count as zero. float32 or float64.
    """
    with full_precision(matrix):
        norm: Tensor = _NuclearNorm.apply(matrix)
    return norm


class _GramInnerProduct(Function):
    @staticmethod
    def forward(ctx: Any, rows_a: Tensor, rows_b: Tensor, group: Group) -> Tensor:
        every_a, every_b = all_rows(rows_a, group), all_rows(rows_b, group)
        gram_a, gram_b = rows_a @ every_a.mT, rows_b @ every_b.mT
        ctx.group = group
        ctx.save_for_backward(every_a, every_b, gram_a, gram_b)
        # Row by row: one long float32 sum over all entries would lose digits.
        inner = torch.linalg.vecdot(gram_a, gram_b).sum()
        return all_reduced(inner, group)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        every_a, every_b, gram_a, gram_b = ctx.saved_tensors
        # Both Gram matrices are symmetric, so one product serves rows and columns,
        # and these rows' share of the gradient needs no other process.
        with full_precision(every_a):
            twice = 2 * all_reduced(gradient, ctx.group)
            return twice * (gram_b @ every_a), twice * (gram_a @ every_b), None


def gram_inner_product(rows_a: Tensor, rows_b: Tensor, group: Group = None) -> Tensor:
    """‖Aᵀ B‖² without the matrix Aᵀ B: the inner product of A Aᵀ and B Bᵀ.

    A and B are the (n, d) rows of all processes; each gives its own.
    """
    with full_precision(rows_a):
        product: Tensor = _GramInnerProduct.apply(rows_a, rows_b, group)
    return product


class _MatrixProduct(Function):
    @staticmethod
    def forward(ctx: Any, left: Tensor, right: Tensor) -> Tensor:
        ctx.save_for_backward(left, right)
        return left @ right

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        left, right = ctx.saved_tensors
        with full_precision(left):
            return gradient @ right.mT, left.mT @ gradient


def matrix_product(left: Tensor, right: Tensor) -> Tensor:
    """Product of (n, k) and (k, m) that autocast changes in neither pass.

    Switching autocast off around a plain product protects its forward pass alone.
    """
    with full_precision(left):
        product: Tensor = _MatrixProduct.apply(left, right)
    return product


class _LogSumExpOthers(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, shares: Tensor | None, group: Group) -> Tensor:
        every = all_rows(rows, group)
        similarity = rows @ every.mT
        similarity.diagonal(rank_in(group) * len(rows)).fill_(-math.inf)
        sums = similarity.logsumexp(1)
        ctx.group, ctx.shares = group, shares
        ctx.save_for_backward(every, similarity, sums)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        every, similarity, sums = ctx.saved_tensors
        shared = all_rows(torch.stack([sums, gradient], 1), ctx.group)
        # A row acts in its own sum and in those of all others: similarity is symmetric,
        # so both parts come from the rows of the matrix that are here.
        weights = (similarity - sums[:, None]).exp_().mul_(gradient[:, None])
        of_others = (similarity - shared[:, 0]).exp_().mul_(shared[:, 1])
        if ctx.shares is not None:
            of_others *= ctx.shares[:, None] == all_rows(ctx.shares, ctx.group)
        weights += of_others
        with full_precision(every):
            return weights @ every, None, None


def log_sum_exp_others(
    rows: Tensor, shares: Tensor | None = None, group: Group = None
) -> Tensor:
    """Logarithm of the summed exponentials of a row's products with all other rows.

    (n,) for the (n, d) rows of this process; the others are those of all processes.
    With the (n,) numbers `shares`, the sum of a row has no gradient with respect to
    rows of other numbers.
    """
    with full_precision(rows):
        sums: Tensor = _LogSumExpOthers.apply(rows, shares, group)
    return sums


class _UnitRows(Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        inverse = torch.where(length > SHORTEST, 1 / length, 0)
        units = rows * inverse
        ctx.save_for_backward(units, inverse)
        return units

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        units, inverse = ctx.saved_tensors
        along = (gradient * units).sum(1, keepdim=True)
        return torch.addcmul(gradient, units, along, value=-1).mul_(inverse)


def unit_rows(rows: Tensor) -> Tensor:
    """Rows of (n, d) divided by their lengths.

    Rows without direction become zero and receive no gradient.
    """
    units: Tensor = _UnitRows.apply(rows)
    return units


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
    found: tuple[Tensor, Tensor, Tensor]
    found = _NormaliseOver.apply(batch, weight, bias, eps, n_views, group)
    return found


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

    Equal bit by bit to calls for one view after the other. `running` are mean and
    variance (n_channels,), which move towards those of each view in turn, the share
    `momentum` of the way; all else as in `normalise_over`.
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
