"""One network for every equivariance weight: its parameters are points of a line.

Both ends are trained at once. In every step λ is drawn, and the network is where λ
divides the line; what it learns there moves both ends (Wortsman et al. 2021, Learning
neural network subspaces; λ drawn anew as in Dosovitskiy and Djolonga 2020, You only
train once). At any λ it is an ordinary network of ordinary weights.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

__all__ = ["draw_weight", "move_to", "ordinary_state", "spread", "weights_of_line"]

#: Part of the names of both ends in torch.
BELOW = "parametrizations."
#: Share of the steps at λ = 0, the end that all else is compared with.
AT_ZERO = 1 / 3
#: λ of these steps: at 0 itself the equivariant head would wait for gradients.
NEARLY_ZERO = 1e-9


class Between(nn.Module):
    """A parameter that lies between the one it replaces and another, equal at first."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.other = nn.Parameter(weight.detach().clone())
        self.share = 0.0

    def forward(self, weight: Tensor) -> Tensor:
        """The parameter at `share` of the way."""
        return torch.lerp(weight, self.other, self.share)


def spread(network: nn.Module) -> None:
    """Give every parameter of a network a second end."""
    for module in list(network.modules()):
        for name, value in list(module.named_parameters(recurse=False)):
            parametrize.register_parametrization(module, name, Between(value))


def move_to(network: nn.Module, share: float) -> None:
    """Place a network at `share` of the way from its first end to its second."""
    for module in network.modules():
        if isinstance(module, Between):
            module.share = share


def ordinary_state(network: nn.Module) -> dict[str, Tensor]:
    """State of an ordinary network, which has the parameters of where `network` is."""
    state = {k: v for k, v in network.state_dict().items() if BELOW not in k}
    for place, module in network.named_modules():
        if parametrize.is_parametrized(module):
            for name in cast(Any, module.parametrizations):
                value = getattr(module, name).detach()
                state[f"{place}.{name}".removeprefix(".")] = value
    return state


def draw_weight(largest: float, seed: int, step: int) -> float:
    """λ of a step: 0 in a third of them, else evenly up to the largest."""
    rng = np.random.default_rng([seed, step])
    return NEARLY_ZERO if rng.random() < AT_ZERO else float(rng.uniform(0, largest))


def weights_of_line(largest: float) -> list[float]:
    """λ at which networks of a line are kept: every tenth, and the largest.

    >>> weights_of_line(0.25)
    [0.0, 0.1, 0.2, 0.25]
    """
    tenths = [k / 10 for k in range(11) if k / 10 < largest]
    return [*tenths, largest]
