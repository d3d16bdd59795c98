"""Contrastive-equivariant loss: the same objective on embeddings and on differences."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ce_align.errors import ConfigError, DataError
from ce_align.trainer.gather import Group, all_reduced, n_processes
from ce_align.trainer.objectives import Objective

__all__ = [
    "VIEWS",
    "LossTerms",
    "check_weight",
    "combined_loss",
    "equivariant_loss",
    "gradient_norms",
    "invariant_loss",
]

#: The four views of an item in the order of every stack: image and augmentation.
VIEWS = ("1A", "1B", "2A", "2B")


@dataclass(frozen=True)
class LossTerms:
    """The combined loss and its terms, each a () tensor with its gradient.

    A term of weight 0 is not computed and is None.
    """

    total: Tensor
    invariant: Tensor | None
    equivariant: Tensor | None


def check_weight(equivariance_weight: float) -> None:
    """Raise ConfigError unless the weight lies in [0, 1]."""
    if not 0 <= equivariance_weight <= 1:
        raise ConfigError(
            f"the equivariance weight is {equivariance_weight}; give a number from 0 "
            "(the invariant loss alone) to 1 (the equivariant loss alone)"
        )


def invariant_loss(
    objective: Objective,
    embeddings: Tensor,
    momentum: Tensor | None = None,
    *,
    group: Group = None,
) -> Tensor:
    """Objective of views A against views B, 2n rows: those of image 1, then image 2.

    Parameters
    ----------
    embeddings : (4, n, d) of the invariant head in the order of `VIEWS`
    momentum : (4, n, d) of the momentum networks, if the objective has an EMA
    group : processes whose rows are joined; each holds n

    Raises
    ------
    DataError
        If the shapes do not fit, or `momentum` is missing or not wanted.
    """
    batches: list[Tensor] = []
    for views in _stacks(objective, embeddings, momentum):
        a_1, b_1, a_2, b_2 = views.unbind()
        batches += [torch.cat([a_1, a_2]), torch.cat([b_1, b_2])]
    return objective.loss(*batches, group=group)


def equivariant_loss(
    objective: Objective,
    embeddings: Tensor,
    momentum: Tensor | None = None,
    *,
    group: Group = None,
) -> Tensor:
    """Objective of the difference vectors A − B of image 1 against those of image 2.

    Parameters and errors are those of `invariant_loss`, for the equivariant head.
    """
    batches: list[Tensor] = []
    for views in _stacks(objective, embeddings, momentum):
        # Differences of half-precision embeddings would lose the digits they share.
        a_1, b_1, a_2, b_2 = views.to(_at_least_single(views)).unbind()
        batches += [a_1 - b_1, a_2 - b_2]
    return objective.loss(*batches, group=group)


def combined_loss(
    objective: Objective,
    invariant: Tensor,
    equivariant: Tensor,
    equivariance_weight: float,
    *,
    momentum_invariant: Tensor | None = None,
    momentum_equivariant: Tensor | None = None,
    group: Group = None,
) -> LossTerms:
    """(1 − λ) · invariant loss + λ · equivariant loss; a term of weight 0 is free.

    Parameters
    ----------
    objective : of both terms
    invariant, equivariant : (4, n, d) embeddings of either head in the order of `VIEWS`
    equivariance_weight : λ in [0, 1]
    momentum_invariant, momentum_equivariant : (4, n, d), the same of the momentum
        networks; needed if the objective has an EMA, refused otherwise
    group : processes whose rows are joined; each holds n

    Raises
    ------
    ConfigError
        If the weight lies outside [0, 1].
    DataError
        If the shapes do not fit, or momentum embeddings are missing or not wanted.

    References
    ----------
    Yerxa et al. (2024), Contrastive-equivariant self-supervised learning improves
    alignment with primate visual area IT.
    """
    check_weight(equivariance_weight)
    if equivariance_weight == 1:
        changes = equivariant_loss(
            objective, equivariant, momentum_equivariant, group=group
        )
        return LossTerms(changes, None, changes)
    views = invariant_loss(objective, invariant, momentum_invariant, group=group)
    if equivariance_weight == 0:
        return LossTerms(views, views, None)
    changes = equivariant_loss(
        objective, equivariant, momentum_equivariant, group=group
    )
    total = (1 - equivariance_weight) * views + equivariance_weight * changes
    return LossTerms(total, views, changes)


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


def _at_least_single(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
