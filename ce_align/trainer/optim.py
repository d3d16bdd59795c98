"""LARS, and the learning rate of every step."""

import math
from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor
from torch.optim import Optimizer

from ce_align.errors import ConfigError

__all__ = ["LARS", "base_learning_rate", "learning_rate_share"]

#: Learning rate for 256 pairs a step, and the pairs it stands for.
RATE_PER_UNIT, PAIRS_PER_UNIT = 1.2, 256


def base_learning_rate(pairs_per_step: int) -> float:
    """Peak learning rate of LARS: 1.2 for every 256 pairs in a step.

    `pairs_per_step` counts the pairs of all processes.

    >>> base_learning_rate(1024)
    4.8
    """
    if pairs_per_step < 1:
        raise ConfigError(f"pairs per step is {pairs_per_step}; give at least 1")
    return RATE_PER_UNIT * pairs_per_step / PAIRS_PER_UNIT


def learning_rate_share(
    step: int, n_steps: int, n_warmup: int, final_share: float = 1e-3
) -> float:
    """Share of the peak learning rate in step `step`, counted from 0.

    Rises linearly from 0 to 1 over `n_warmup` steps, then falls along half a cosine to
    `final_share`, which it would reach in step `n_steps` and keeps from there on.

    Raises
    ------
    ConfigError
        If the warm-up does not fit into the steps, or `final_share` not into [0, 1].
    """
    if not 0 <= n_warmup < n_steps:
        raise ConfigError(
            f"a warm-up of {n_warmup} steps does not fit into {n_steps} steps; shorten "
            "it or train longer"
        )
    if not 0 <= final_share <= 1:
        raise ConfigError(f"the final share is {final_share}; give one from 0 to 1")
    if step < n_warmup:
        return max(step, 0) / n_warmup
    progress = min((step - n_warmup) / (n_steps - n_warmup), 1.0)
    return final_share + (1 - final_share) * (1 + math.cos(math.pi * progress)) / 2


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling as the authors of the method's networks use it.

    For a parameter w of two or more dimensions with gradient g, ::

        u = g + weight_decay · w
        u = u · trust_coefficient · ‖w‖ / ‖u‖      (unless either length is 0)
        v = momentum · v + u,  w = w − lr · v

    Parameters of fewer dimensions (biases, batch normalisation) get u = g: neither
    decay nor adaptation.

    Notes
    -----
    The trust ratio is that of gradient *and* decay together, ‖w‖ / ‖g + decay · w‖. The
    optimisers of timm and lightly divide by ‖g‖ + decay · ‖w‖ + eps instead, which is
    larger wherever the two are not parallel, and decide by the decay of the group
    rather than by dimension which parameters are adapted. With a decay of 0 the rules
    agree but for eps; theirs then adapt nothing.

    Parameters
    ----------
    params : parameters, or groups of them
    lr : learning rate, see `base_learning_rate`
    momentum, weight_decay, trust_coefficient : see above; those of the paper

    Raises
    ------
    ConfigError
        If a setting is negative or not a number.

    References
    ----------
    You, Gitman and Ginsburg (2017), Large batch training of convolutional networks.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 1e-6,
        trust_coefficient: float = 1e-3,
    ) -> None:
        settings = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust_coefficient": trust_coefficient,
        }
        for name, value in settings.items():
            if not 0 <= value < math.inf:
                raise ConfigError(f"{name} is {value}; give 0 or a positive number")
        super().__init__(params, settings)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Move the parameters along their gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            moved = [p for p in group["params"] if p.grad is not None]
            adapted = [p for p in moved if p.ndim > 1]
            plain = [p for p in moved if p.ndim <= 1]
            self._move(adapted, _adapted_updates(adapted, group), group)
            self._move(plain, [p.grad for p in plain], group)
        return loss

    def _move(
        self, parameters: list[Tensor], updates: list[Tensor], group: dict[str, Any]
    ) -> None:
        """One step with momentum; all tensors in a few calls, none read by the host."""
        if not parameters:
            return
        velocities = []
        for parameter in parameters:
            state = self.state[parameter]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(parameter)
            velocities.append(state["momentum_buffer"])
        torch._foreach_mul_(velocities, group["momentum"])
        torch._foreach_add_(velocities, updates)
        torch._foreach_add_(parameters, velocities, alpha=-group["lr"])


def _adapted_updates(parameters: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
    """Gradient with decay, scaled to the trusted share of the parameter's length."""
    if not parameters:
        return []
    gradients = [p.grad for p in parameters if p.grad is not None]
    updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
    lengths = torch._foreach_norm(parameters), torch._foreach_norm(updates)
    ratios = [
        torch.where((w > 0) & (u > 0), group["trust_coefficient"] * w / u, 1.0)
        for w, u in zip(*lengths, strict=True)
    ]
    torch._foreach_mul_(updates, ratios)
    return list(updates)
