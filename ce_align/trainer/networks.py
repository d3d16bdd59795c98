"""Backbones, heads, and their momentum copy."""

import copy
from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torchvision.models import resnet

from ce_align.backbones import TinyResNet
from ce_align.errors import ConfigError
from ce_align.trainer.batchnorm import convert_to_views
from ce_align.trainer.equivariance import VIEWS
from ce_align.trainer.objectives import Objective

__all__ = [
    "BACKBONES",
    "Embeddings",
    "MomentumCopy",
    "PairedNetwork",
    "TinyResNet",
    "build_backbone",
    "build_head",
]

#: Backbones by name: the residual networks of torchvision and a tiny one.
BACKBONES = ("tiny", *(name for name in resnet.__all__ if name.islower()))


def build_backbone(name: str) -> tuple[nn.Module, int]:
    """Residual network without classifier.

    The last scale of each branch is zero, except in the tiny network, whose short
    training leaves zeroed branches no time to grow.

    Random weights come from torch's global generator, which the caller seeds.

    Parameters
    ----------
    name : one of `BACKBONES`

    Returns
    -------
    backbone : (n, 3, height, width) to (n, n_features)
    n_features : after global average pooling

    Raises
    ------
    ConfigError
        If the name is unknown; with those that there are.
    """
    if name not in BACKBONES:
        raise ConfigError(
            f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}"
        )
    if name == "tiny":
        backbone: nn.Module = TinyResNet()
    else:
        backbone = getattr(resnet, name)(zero_init_residual=True)
    n_features = cast(nn.Linear, backbone.fc).in_features
    backbone.fc = nn.Identity()
    return backbone, n_features


def build_head(n_features: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear, batch normalisation, ReLU, and so on; the last layer is linear.

    No linear layer has a bias.

    Parameters
    ----------
    n_features : inputs
    widths : outputs of the linear layers
    """
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in zip([n_features, *widths], widths, strict=False):
        layers += [nn.Linear(n_inputs, n_outputs, bias=False)]
        layers += [nn.BatchNorm1d(n_outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-2])


class Embeddings(NamedTuple):
    """What a network makes of a batch of four views.

    Attributes
    ----------
    features : (4, n, n_features) of the backbone
    invariant, equivariant : (4, n, d) of either head, in the order of the views
    """

    features: Tensor
    invariant: Tensor
    equivariant: Tensor


class PairedNetwork(nn.Module):
    """A backbone with an invariant and an equivariant head of equal architecture.

    A training batch holds four views in consecutive blocks, in the order of
    `ce_align.trainer.equivariance.VIEWS`. It takes one pass, in which every view has
    batch statistics of its own: the result is that of four passes, in that order.

    Parameters
    ----------
    backbone : (n, 3, height, width) to (n, n_features); its layers are converted
    n_features : outputs of the backbone
    head_widths : outputs of the linear layers of each head
    """

    def __init__(
        self, backbone: nn.Module, n_features: int, head_widths: Sequence[int]
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head_invariant = build_head(n_features, head_widths)
        self.head_equivariant = build_head(n_features, head_widths)
        convert_to_views(self, len(VIEWS))

    @classmethod
    def build(cls, backbone: str, objective: Objective) -> "PairedNetwork":
        """The network that `objective` trains, on a backbone of that name."""
        module, n_features = build_backbone(backbone)
        return cls(module, n_features, objective.head_widths)

    def forward(self, images: Tensor) -> Embeddings:
        """Embeddings of (4 * n, 3, height, width) images."""
        features = self.backbone(images)
        heads = [
            # A head that rests keeps no activations for a backward pass.
            head(features if _learns(head) else features.detach())
            for head in (self.head_invariant, self.head_equivariant)
        ]
        stacks = [torch.unflatten(x, 0, (len(VIEWS), -1)) for x in (features, *heads)]
        return Embeddings(*stacks)


class MomentumCopy(nn.Module):
    """A copy of a network, backbone and heads, whose parameters follow it slowly.

    The copy runs in training mode without gradient. Its running statistics are its
    own: they come from its own passes, for the weights that it has.

    Parameters
    ----------
    network : to be copied, before `set_group`
    ema : share of its parameters that the copy keeps at every update
    """

    def __init__(self, network: PairedNetwork, ema: float) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).requires_grad_(False)
        self.ema = ema

    @torch.no_grad()
    def forward(self, images: Tensor) -> Embeddings:
        """Embeddings of (4 * n, 3, height, width) images, without gradient."""
        embeddings: Embeddings = self.network(images)
        return embeddings

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Move the parameters towards those of `network`, after an optimiser step."""
        own: list[Tensor] = list(self.network.parameters())
        torch._foreach_lerp_(own, list(network.parameters()), 1 - self.ema)


def _learns(module: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in module.parameters())
