"""Objectives: the three of the paper as pure functions, and how two terms combine.

An objective takes two batches of embeddings whose equal rows belong together (MMCR also
those of the momentum networks) and returns the scalar to be minimised. Half-precision
embeddings are converted first and autocast is off inside: no sum is taken in half
precision. With a group every process gives its rows and gets the loss of all rows; see
`ce_align.trainer.distributed` for the gradients.

The contrastive-equivariant loss is the same objective on the embeddings of two views,
and on the difference vectors between views.

In the authors' code every process differentiates what it returns by its own rows alone,
and DDP takes the mean over processes. The losses of MMCR and Barlow Twins are those of
all rows on every process, so that their gradient is the full one divided by the number
of processes; that of SimCLR is the loss of a process's own rows, in which the rows of
other processes are constants. `combined_loss` does so for any number of processes,
however many there are: a network does not depend on what it was trained on.
"""

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from ce_align.errors import ConfigError, DataError
from ce_align.foreign import guarded
from ce_align.trainer.augself import ParameterPrediction
from ce_align.trainer.distributed import (
    Group,
    all_reduced,
    full_precision,
    gather_rows,
    mean_over,
    n_processes,
    rank_in,
    sum_over,
)
from ce_align.trainer.equimod import EmbeddingPrediction
from ce_align.trainer.reductions import (
    gram_inner_product,
    log_sum_exp_others,
    matrix_product,
    nuclear_norm,
    standardised_columns,
    unit_rows,
)

__all__ = [
    "OBJECTIVES",
    "VIEWS",
    "LossTerms",
    "Objective",
    "barlow_twins",
    "combined_loss",
    "find_objective",
    "gradient_norms",
    "gradient_share",
    "mmcr",
    "register_objective",
    "simclr",
]

#: The four views of an item in the order of every stack: image and augmentation.
VIEWS = ("1A", "1B", "2A", "2B")


@dataclass(frozen=True)
class Objective:
    """One objective: its loss, and the networks that the loss needs.

    Attributes
    ----------
    name : as commands name it
    loss : function of two (or, with momentum, four) batches of embeddings, with the
        keyword `group`. One that takes `shares`, too, is given the number of the
        process of the authors' that each row would belong to, where their gradient is
        wanted; that of others is divided by the number of these processes
    head_widths : outputs of the linear layers of each head
    ema : share that the momentum networks keep at every step; None for no such networks
    equivariant : makes what takes the place of the loss of difference vectors, for
        embeddings of a width: a module that is trained along, and gives the loss of
        (4, n, d) embeddings, (n, 2, n_parameters) of both views, and ``group``
    """

    name: str
    loss: Callable[..., Tensor]
    head_widths: tuple[int, ...]
    ema: float | None = None
    equivariant: Callable[[int], nn.Module] | None = None

    def __post_init__(self) -> None:
        if not self.head_widths or min(self.head_widths) < 1:
            raise ConfigError(
                f"head widths are {self.head_widths}; give at least one, all positive"
            )
        if self.ema is None:
            return
        if not 0 <= self.ema <= 1:
            raise ConfigError(f"ema is {self.ema}; give a share from 0 to 1, or none")
        if "momentum_a" not in inspect.signature(self.loss).parameters:
            raise ConfigError(
                f"{self.name} has no use for momentum networks; leave ema out"
            )

    def configured(self, **changes: Any) -> "Objective":
        """The objective with other head widths, EMA or options of its loss.

        Raises
        ------
        ConfigError
            If the loss has no such option; with those that it has.
        """
        fields = {k: changes.pop(k) for k in ("head_widths", "ema") if k in changes}
        arguments = inspect.signature(self.loss).parameters.values()
        options = {a.name for a in arguments if a.kind is a.KEYWORD_ONLY}
        options -= {"group", "shares"}
        if unknown := sorted(set(changes) - options):
            raise ConfigError(
                f"{self.name} has no option {unknown[0]!r}; choose from "
                f"{', '.join(['head_widths', 'ema', *sorted(options)])}"
            )
        loss = partial(self.loss, **changes) if changes else self.loss
        return replace(self, loss=loss, **fields)


def simclr(
    view_a: Tensor,
    view_b: Tensor,
    *,
    temperature: float = 0.15,
    shares: Tensor | None = None,
    group: Group = None,
) -> Tensor:
    """Normalised temperature-scaled cross entropy (NT-Xent), in nats.

    Every one of the 2n embeddings must find its partner among the other 2n − 1 by
    cosine similarity. Independent of the length of each embedding.

    Parameters
    ----------
    view_a, view_b : (n, d); rows n belong together
    temperature : positive divisor of the similarities
    shares : (n,) numbers; the term of a row then has no gradient with respect to rows
        of other numbers, see the head of this module
    group : processes whose rows are joined; each holds n

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
    _check_positive("temperature", temperature)
    view_a, view_b = _checked_batches("simclr", group, view_a=view_a, view_b=view_b)
    with full_precision(view_a):
        near_a, near_b = unit_rows(view_a), unit_rows(view_b)
        rows = torch.cat([near_a, near_b]) / math.sqrt(temperature)
        partner = (near_a * near_b).sum(1).mean() / temperature
        both = None if shares is None else shares.repeat(2)
        others = log_sum_exp_others(rows, both, group)
        return mean_over(others.mean() - partner, group)


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
    _check_positive("epsilon", epsilon)
    view_a, view_b = _checked_batches(
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
    () between −n·√(min(n, d)/n) and 0 for the n rows of all processes

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
    views = _checked_batches("mmcr", group, **given)
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
        # Invariant as SimCLR; what they do about equivariance is their own.
        Objective(
            "augself", simclr, (8192, 8192, 512), equivariant=ParameterPrediction
        ),
        Objective(
            "equimod",
            simclr,
            (8192, 8192, 512),
            equivariant=partial(EmbeddingPrediction, loss=simclr),
        ),
    ]
}
#: The objectives by name: three with the settings of the paper, two to compare with.
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
    name = objective.name
    loss = guarded(objective.loss, f"the objective {name!r}", Tensor)
    _REGISTERED[name] = replace(objective, loss=loss)


def find_objective(name: str) -> Objective:
    """The objective of that name; ConfigError lists those that there are."""
    if name not in OBJECTIVES:
        raise ConfigError(
            f"unknown objective {name!r}; choose from {', '.join(OBJECTIVES)}"
        )
    return OBJECTIVES[name]


@dataclass(frozen=True)
class LossTerms:
    """The combined loss and its terms, each a () tensor with its gradient.

    A term of weight 0 is not computed and is None.
    """

    total: Tensor
    invariant: Tensor | None
    equivariant: Tensor | None

    @classmethod
    def weighted(
        cls, invariant: Tensor | None, equivariant: Tensor | None, weight: float
    ) -> Self:
        """Terms and their sum, the equivariant one of that weight."""
        if invariant is None or equivariant is None:
            (total,) = (term for term in (invariant, equivariant) if term is not None)
        else:
            total = (1 - weight) * invariant + weight * equivariant
        return cls(total, invariant, equivariant)


def combined_loss(
    objective: Objective,
    invariant: Tensor,
    equivariant: Tensor,
    equivariance_weight: float,
    *,
    momentum_invariant: Tensor | None = None,
    momentum_equivariant: Tensor | None = None,
    equivariant_loss: Callable[[Tensor], Tensor] | None = None,
    gradient_shares: int = 1,
    group: Group = None,
) -> LossTerms:
    """(1 − λ) · invariant loss + λ · equivariant loss; a term of weight 0 is free.

    The invariant loss is the objective of views A against views B, 2n rows: those of
    image 1, then of image 2. The equivariant loss is that of the difference vectors
    A − B of image 1 against those of image 2.

    Parameters
    ----------
    objective : of both terms
    invariant, equivariant : (4, n, d) embeddings of either head in the order of `VIEWS`
    equivariance_weight : λ in [0, 1]
    momentum_invariant, momentum_equivariant : (4, n, d), the same of the momentum
        networks; needed if the objective has an EMA, refused otherwise
    equivariant_loss : of the (4, n, d) equivariant embeddings, in place of the loss of
        difference vectors
    gradient_shares : processes on which the authors' code would have the same gradient,
        see the head of this module; 1 for the full one. The loss is the same
    group : processes whose rows are joined; each holds n

    Raises
    ------
    ConfigError
        If λ lies outside [0, 1].
    DataError
        If the shapes do not fit, or momentum embeddings are missing or not wanted.

    References
    ----------
    Yerxa et al. (2024), Contrastive-equivariant self-supervised learning improves
    alignment with primate visual area IT.
    """
    if not 0 <= equivariance_weight <= 1:
        raise ConfigError(
            f"the equivariance weight is {equivariance_weight}; give a number from 0 "
            "(the invariant loss alone) to 1 (the equivariant loss alone)"
        )
    views = changes = None
    if equivariance_weight < 1:
        batches: list[Tensor] = []
        for stack in _stacks(objective, invariant, momentum_invariant):
            a_1, b_1, a_2, b_2 = stack.unbind()
            batches += [torch.cat([a_1, a_2]), torch.cat([b_1, b_2])]
        views = _shared_loss(objective, batches, 2, gradient_shares, group)
    if equivariance_weight > 0 and equivariant_loss is not None:
        changes = equivariant_loss(equivariant)
    elif equivariance_weight > 0:
        batches = []
        for stack in _stacks(objective, equivariant, momentum_equivariant):
            # Differences of half-precision embeddings would lose digits they share.
            single = torch.promote_types(stack.dtype, torch.float32)
            a_1, b_1, a_2, b_2 = stack.to(single).unbind()
            batches += [a_1 - b_1, a_2 - b_2]
        changes = _shared_loss(objective, batches, 1, gradient_shares, group)
    return LossTerms.weighted(views, changes, equivariance_weight)


def _shared_loss(
    objective: Objective,
    batches: list[Tensor],
    n_images: int,
    gradient_shares: int,
    group: Group,
) -> Tensor:
    """Loss of batches whose rows are those of `n_images` images, one after the other.

    Its gradient is the authors' on so many processes.
    """
    if gradient_shares == 1:
        return objective.loss(*batches, group=group)
    if "shares" in inspect.signature(objective.loss).parameters:
        n = len(batches[0]) // n_images
        items = torch.arange(n, device=batches[0].device) + rank_in(group) * n
        shares = items * gradient_shares // (n * n_processes(group))
        return objective.loss(*batches, shares=shares.repeat(n_images), group=group)
    loss = objective.loss(*batches, group=group)
    return loss.detach() + (loss - loss.detach()) / gradient_shares


def gradient_norms(
    terms: LossTerms, parameters: Iterable[Tensor], *, group: Group = None
) -> tuple[float, float]:
    """Lengths of the gradients of the invariant and of the equivariant loss.

    Neither is weighted with λ. It takes a backward pass a term, leaves the graph and
    the gradients of the parameters alone, and joins processes as training does.

    Parameters
    ----------
    terms : as `combined_loss` returned them, before the backward pass
    parameters : with respect to which; usually those of the backbone
    group : processes over which gradients are averaged

    Returns
    -------
    (invariant, equivariant); NaN for a term that was not computed
    """
    chosen = [p for p in parameters if p.requires_grad]
    invariant, equivariant = (
        math.nan if term is None else _gradient_norm(term, chosen, group)
        for term in (terms.invariant, terms.equivariant)
    )
    return invariant, equivariant


def gradient_share(weight: float, ratio: float) -> float:
    """Share of the equivariant term in the lengths of both gradients.

    Parameters
    ----------
    weight : of the equivariant loss, in [0, 1]
    ratio : length of its gradient in that of the invariant loss, neither weighted

    Notes
    -----
    The weight that makes the share λ is ``gradient_share(λ, 1 / ratio)``.

    >>> weight = gradient_share(0.3, 1 / 2.5)
    >>> round(weight, 3), round(gradient_share(weight, 2.5), 3)
    (0.146, 0.3)
    """
    return weight * ratio / (weight * ratio + 1 - weight)


def _gradient_norm(term: Tensor, parameters: list[Tensor], group: Group) -> float:
    found = torch.autograd.grad(term, parameters, retain_graph=True, allow_unused=True)
    used = [gradient.flatten() for gradient in found if gradient is not None]
    if not used:
        return 0.0
    mean = all_reduced(torch.cat(used), group) / n_processes(group)
    return float(torch.linalg.vector_norm(mean, dtype=torch.float64))


def _stacks(
    objective: Objective, embeddings: Tensor, momentum: Tensor | None
) -> list[Tensor]:
    """The stacks of four views that the objective takes."""
    if (momentum is None) != (objective.ema is None):
        wants = "needs" if momentum is None else "takes no"
        raise DataError(f"{objective.name} {wants} embeddings of momentum networks")
    stacks = [embeddings] if momentum is None else [embeddings, momentum]
    for stack in stacks:
        if stack.ndim != 3 or len(stack) != len(VIEWS):
            raise DataError(
                f"embeddings have shape {tuple(stack.shape)}; give (4, n, d), "
                f"the views {', '.join(VIEWS)} in this order"
            )
    return stacks


def _check_positive(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigError(f"{name} is {value}; give a positive number")


def _checked_batches(loss: str, group: Group, **batches: Tensor) -> list[Tensor]:
    """The (n, d) batches in float32 or float64, if they fit one another."""
    first_name, first = next(iter(batches.items()))
    for name, batch in batches.items():
        if batch.ndim != 2 or not batch.is_floating_point():
            raise DataError(
                f"{loss} needs real (n, d) embeddings, but {name} is {batch.dtype} of "
                f"shape {tuple(batch.shape)}"
            )
        if batch.shape != first.shape:
            raise DataError(
                f"{loss} needs batches of equal shape, but {first_name} has "
                f"{tuple(first.shape)} and {name} has {tuple(batch.shape)}"
            )
    if len(first) * n_processes(group) < 2 or first.shape[1] < 1:
        raise DataError(
            f"{loss} compares rows and needs at least two, but {first_name} has shape "
            f"{tuple(first.shape)}; use a larger batch"
        )
    half = (torch.float16, torch.bfloat16)
    return [
        batch.float() if batch.dtype in half else batch for batch in batches.values()
    ]


def _grams_are_cheaper(n_rows: int, n_columns: int) -> bool:
    """Whether two Gram matrices cost less than one cross-correlation."""
    # Forward and backward take four products of n²d against three of nd².
    return 4 * n_rows < 3 * n_columns
