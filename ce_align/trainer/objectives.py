"""The three objectives as pure functions, and the registry of all.

An objective takes two batches of embeddings whose equal rows belong together (MMCR also
those of the momentum networks) and returns the scalar to be minimised. Half-precision
embeddings are converted first and autocast is off inside: no sum is taken in half
precision. With a group every process gives its rows and gets the loss of all rows; see
`ce_align.trainer.gather` for the gradients.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

from ce_align.errors import ConfigError, DataError
from ce_align.trainer.boundary import check_positive, checked_batches
from ce_align.trainer.gather import (
    Group,
    full_precision,
    gather_rows,
    mean_over,
    n_processes,
    sum_over,
)
from ce_align.trainer.normalisation import standardised_columns
from ce_align.trainer.objective import Objective
from ce_align.trainer.reductions import (
    gram_inner_product,
    log_sum_exp_others,
    matrix_product,
    nuclear_norm,
    unit_rows,
)

__all__ = [
    "OBJECTIVES",
    "Objective",
    "barlow_twins",
    "find_objective",
    "mmcr",
    "register_objective",
    "simclr",
]


def simclr(
    view_a: Tensor,
    view_b: Tensor,
    *,
    temperature: float = 0.15,
    group: Group = None,
) -> Tensor:
    """Normalised temperature-scaled cross entropy (NT-Xent).

    Every one of the 2n embeddings must find its partner among the other 2n − 1 by
    cosine similarity. Independent of the length of each embedding.

    Parameters
    ----------
    view_a, view_b : (n, d); rows n belong together
    temperature : positive divisor of the similarities
    group : processes whose rows are joined; each holds n

    Returns
    -------
    () mean over all embeddings of all processes, in nats

    Raises
    ------
    DataError
        If the shapes do not fit.
    ConfigError
        If the temperature is not positive.

    References
    ----------
    Chen et al. (2020), A simple framework for contrastive learning.
    """
    check_positive("temperature", temperature)
    view_a, view_b = checked_batches("simclr", group, view_a=view_a, view_b=view_b)
    with full_precision(view_a):
        near_a, near_b = unit_rows(view_a), unit_rows(view_b)
        rows = torch.cat([near_a, near_b]) / math.sqrt(temperature)
        partner = (near_a * near_b).sum(1).mean() / temperature
        return mean_over(log_sum_exp_others(rows, group).mean() - partner, group)


def barlow_twins(
    view_a: Tensor,
    view_b: Tensor,
    *,
    off_diagonal: float = 5e-3,
    scale: float = 0.048,
    epsilon: float = 1e-5,
    group: Group = None,
) -> Tensor:
    """Distance of the cross-correlation of two views from the identity.

    scale · (Σᵢ (Cᵢᵢ − 1)² + off_diagonal · Σᵢ≠ⱼ Cᵢⱼ²), C (d, d) the correlation over
    the rows of all processes. Independent of shift and scale of every column (but for
    `epsilon`). The squares of C come from n×n Gram matrices where those are cheaper.

    Parameters
    ----------
    view_a, view_b : (n, d); rows n belong together
    off_diagonal : weight of the off-diagonal squares
    scale : factor of the loss
    epsilon : positive, added to the variances as batch normalisation does
    group : processes whose rows are joined; each holds n

    Returns
    -------
    () loss

    Raises
    ------
    DataError
        If the shapes do not fit.
    ConfigError
        If `epsilon` is not positive.

    References
    ----------
    Zbontar et al. (2021), Barlow Twins: self-supervised learning via redundancy
    reduction.
    """
    check_positive("epsilon", epsilon)
    view_a, view_b = checked_batches(
        "barlow_twins", group, view_a=view_a, view_b=view_b
    )
    with full_precision(view_a):
        n_all = len(view_a) * n_processes(group)
        near_a, near_b = (
            standardised_columns(view, epsilon, group) for view in (view_a, view_b)
        )
        if _grams_are_cheaper(n_all, view_a.shape[1]):
            diagonal = sum_over((near_a * near_b).sum(0), group) / n_all
            squares = gram_inner_product(near_a, near_b, group) / n_all**2
        else:
            correlation = sum_over(matrix_product(near_a.mT, near_b), group) / n_all
            diagonal, squares = correlation.diagonal(), correlation.square().sum()
        on = (diagonal - 1).square().sum()
        return scale * (on + off_diagonal * (squares - diagonal.square().sum()))


def mmcr(
    view_a: Tensor,
    view_b: Tensor,
    momentum_a: Tensor | None = None,
    momentum_b: Tensor | None = None,
    *,
    group: Group = None,
) -> Tensor:
    """Minus the nuclear norm of the centroids: maximum manifold capacity.

    A centroid is the mean of an image's embeddings, each brought to unit length, over
    both views and, if given, both views of the momentum networks. Independent of the
    length of each embedding and of a common rotation. The second term of the method,
    the nuclear norms within images, has weight 0 in the paper and is left out.

    Parameters
    ----------
    view_a, view_b : (n, d); rows n belong together
    momentum_a, momentum_b : (n, d), both or neither; they receive no gradient
    group : processes whose rows are joined; each holds n

    Returns
    -------
    () loss, between −n·√(min(n, d)/n) and 0 for the n rows of all processes

    Raises
    ------
    DataError
        If the shapes do not fit, or one momentum batch is missing.

    References
    ----------
    Yerxa et al. (2023), Learning efficient coding of natural images with maximum
    manifold capacity representations.
    """
    if (momentum_a is None) != (momentum_b is None):
        raise DataError(
            "mmcr got the momentum embeddings of one view only; give both or neither"
        )
    given = {"view_a": view_a, "view_b": view_b}
    if momentum_a is not None and momentum_b is not None:
        given |= {"momentum_a": momentum_a.detach(), "momentum_b": momentum_b.detach()}
    views = checked_batches("mmcr", group, **given)
    with full_precision(view_a):
        units = [unit_rows(view) for view in views]
        centroids = sum(units[1:], units[0]) / len(units)
        return -nuclear_norm(gather_rows(centroids, group))


_REGISTERED = {
    objective.name: objective
    for objective in [
        Objective("mmcr", mmcr, (8192, 8192, 512), ema=0.99),
        Objective("barlow", barlow_twins, (8192, 8192, 8192)),
        Objective("simclr", simclr, (8192, 8192, 512)),
    ]
}
#: The objectives by name, with the settings of the paper.
OBJECTIVES: Mapping[str, Objective] = MappingProxyType(_REGISTERED)


def register_objective(objective: Objective) -> None:
    """Add an objective of one's own, which trainings then take by name.

    Raises
    ------
    ConfigError
        If there is one of that name.
    """
    if objective.name in OBJECTIVES:
        raise ConfigError(
            f"there is an objective {objective.name!r} already; choose another name"
        )
    _REGISTERED[objective.name] = objective


def find_objective(name: str) -> Objective:
    """The objective of that name.

    Raises
    ------
    ConfigError
        If there is none, with those that there are.
    """
    if name not in OBJECTIVES:
        raise ConfigError(
            f"unknown objective {name!r}; choose from {', '.join(OBJECTIVES)}"
        )
    return OBJECTIVES[name]


def _grams_are_cheaper(n_rows: int, n_columns: int) -> bool:
    """Whether two Gram matrices cost less than one cross-correlation."""
    # Forward and backward take four products of n²d against three of nd².
    return 4 * n_rows < 3 * n_columns
