"""The reductions of the objectives, the costly ones with gradients of their own."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from ce_align.trainer.gather import (
    Group,
    all_reduced,
    all_rows,
    full_precision,
    rank_in,
)

__all__ = [
    "gram_inner_product",
    "log_sum_exp_others",
    "matrix_product",
    "nuclear_norm",
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
    told from zero in a Gram matrix and count as zero.

    Parameters
    ----------
    matrix : (n_rows, n_columns), float32 or float64

    Returns
    -------
    () of the same dtype
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

    Parameters
    ----------
    rows_a, rows_b : (n, d), float32 or float64, of this process
    group : processes whose rows are joined

    Returns
    -------
    () of the same dtype: the squared Frobenius norm over the rows of all processes.
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
    def forward(ctx: Any, rows: Tensor, group: Group) -> Tensor:
        every = all_rows(rows, group)
        similarity = rows @ every.mT
        similarity.diagonal(rank_in(group) * len(rows)).fill_(-math.inf)
        sums = similarity.logsumexp(1)
        ctx.group = group
        ctx.save_for_backward(every, similarity, sums)
        return sums

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        every, similarity, sums = ctx.saved_tensors
        shared = all_rows(torch.stack([sums, gradient], 1), ctx.group)
        # A row acts in its own sum and in those of all others: similarity is symmetric,
        # so both shares come from the rows of the matrix that are here.
        weights = (similarity - sums[:, None]).exp_().mul_(gradient[:, None])
        weights += (similarity - shared[:, 0]).exp_().mul_(shared[:, 1])
        with full_precision(every):
            return weights @ every, None


def log_sum_exp_others(rows: Tensor, group: Group = None) -> Tensor:
    """Logarithm of the summed exponentials of a row's products with all other rows.

    Parameters
    ----------
    rows : (n, d), float32 or float64, of this process
    group : processes whose rows are joined

    Returns
    -------
    (n,) of the same dtype; one entry for each row of this process
    """
    with full_precision(rows):
        sums: Tensor = _LogSumExpOthers.apply(rows, group)
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
