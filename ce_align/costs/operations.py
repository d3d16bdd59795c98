"""Operations and features of a network, counted without running it."""

import copy
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ce_align.models.architectures import timm_network
from ce_align.names import OWN_BACKBONES

__all__ = ["activations_of", "backbone", "counted", "operations_of", "width_of"]


def operations_of(network: nn.Module, size: int) -> float:
    """Operations (two for a product and a sum) for one image, without running it."""
    return counted(network, size)[0]


@cache
def counted(network: nn.Module, size: int) -> tuple[float, dict[str, torch.Size]]:
    """Operations, and the shape of what each layer gives, for one image.

    Those of a layer that is asked several times count once.
    """
    empty = copy.deepcopy(network).to("meta").eval()
    sizes: dict[str, torch.Size] = {}

    def note(name: str) -> Any:
        def hook(_: Any, __: Any, output: Any) -> None:
            if isinstance(output, torch.Tensor):
                sizes[name] = output.shape

        return hook

    for name, module in empty.named_modules():
        module.register_forward_hook(note(name))
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        empty(torch.empty(1, 3, size, size, device="meta"))
    return float(counter.get_total_flops()), sizes


def activations_of(network: nn.Module, size: int) -> int:
    """Values that training keeps of one image: outputs of the innermost layers."""
    inner = {name for name, m in network.named_modules() if not list(m.children())}
    _, sizes = counted(network, size)
    return sum(shape.numel() for name, shape in sizes.items() if name in inner)


@cache
def backbone(name: str) -> nn.Module:
    """A network of that architecture; of random weights."""
    from ce_align.backbones import own_backbone
    from ce_align.vision import models

    with torch.device("meta"):
        if name in OWN_BACKBONES:
            return own_backbone(name)
        network: nn.Module
        if name.startswith("timm/"):
            network = timm_network(name.removeprefix("timm/"))
        else:
            network = models.get_model(name, weights=None)
        return network


def width_of(network: nn.Module) -> int:
    """Features that a network gives to its classifier."""
    last = [m for m in network.modules() if isinstance(m, nn.Linear)][-1]
    return last.in_features
