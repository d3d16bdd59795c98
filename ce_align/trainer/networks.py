"""Networks that are trained: backbone, heads, momentum copy, statistics per view."""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from ce_align.backbones import own_backbone
from ce_align.checks import named_some, nearest_names
from ce_align.errors import ConfigError, DataError
from ce_align.names import OWN_BACKBONES
from ce_align.trainer.distributed import Group, n_processes
from ce_align.trainer.objectives import VIEWS, Objective
from ce_align.trainer.reductions import normalise_over, normalise_views
from ce_align.vision import resnet

__all__ = [
    "BACKBONES",
    "Embeddings",
    "MomentumCopy",
    "PairedNetwork",
    "ViewBatchNorm",
    "build_backbone",
    "build_head",
    "classifier_of",
    "convert_to_views",
    "region_layers",
    "set_group",
]

#: Regions, and the stages of residual networks that stand for them.
REGIONS = ("V1", "V2", "V4", "IT")
STAGES = ("layer1", "layer2", "layer3", "layer4")
#: Backbones by name: those of our own and the residual networks of torchvision.
BACKBONES = (*OWN_BACKBONES, *(name for name in resnet.__all__ if name.islower()))
#: Batch normalisations that can have statistics for each view.
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def build_backbone(name: str) -> tuple[nn.Module, int]:
    """Network of that name without classifier, and its number of features.

    The last scale of each branch of a residual network is zero, except in the tiny
    one, whose short training leaves zeroed branches no time to grow. Networks of timm
    begin as timm initialises them. Random weights come from torch's global generator,
    which the caller seeds. ConfigError lists the names there are.
    """
    if name.startswith("timm/"):
        return _of_timm(name)
    if name not in BACKBONES:
        raise ConfigError(
            f"unknown backbone {name!r}; choose from {', '.join(BACKBONES)}, or "
            "timm/NAME"
        )
    if name in OWN_BACKBONES:
        backbone = own_backbone(name)
    else:
        backbone = getattr(resnet, name)(zero_init_residual=True)
    n_features = cast(nn.Linear, backbone.fc).in_features
    backbone.fc = nn.Identity()
    return backbone, n_features


def _of_timm(name: str) -> tuple[nn.Module, int]:
    try:
        import timm
    except ImportError as error:
        raise ConfigError(f"{name} needs timm: pip install 'ce-align[timm]'") from error
    own = name.removeprefix("timm/")
    if not timm.is_model(own):
        near = nearest_names(own, timm.list_models())
        raise ConfigError(f"timm has no network {own!r}; nearest: {named_some(near)}")
    backbone: nn.Module = timm.create_model(own, num_classes=0)
    for module in backbone.modules():
        if isinstance(module, NORMS) and type(module) not in NORMS:
            raise ConfigError(
                f"{name} normalises by {type(module).__name__}, which cannot have "
                "statistics for each view; choose a network of layer normalisation or "
                "plain batch normalisation, such as timm/vit_small_patch16_224"
            )
    width: Any = getattr(backbone, "head_hidden_size", None) or backbone.num_features
    return backbone, int(width)


def region_layers(backbone: nn.Module) -> dict[str, str]:
    """Layer that stands for each region: four stages, or blocks at each quarter.

    Nothing where neither the layers' names nor timm tell them.
    """
    stages = dict(zip(REGIONS, STAGES, strict=True))
    if all(hasattr(backbone, name) for name in STAGES):
        return stages
    known = [info["module"] for info in getattr(backbone, "feature_info", ())]
    quarters = [round(len(known) * k / 4) - 1 for k in range(1, 5)]
    if len(known) < len(REGIONS):
        return {}
    return dict(zip(REGIONS, (known[k] for k in quarters), strict=True))


def classifier_of(backbone: nn.Module) -> str:
    """Name of the linear layer that would classify the features."""
    return str(getattr(backbone, "default_cfg", {}).get("classifier") or "fc")


def build_head(n_features: int, widths: Sequence[int]) -> nn.Sequential:
    """Linear layers of these widths without bias, normalisation and ReLU between."""
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in zip([n_features, *widths], widths, strict=False):
        layers += [nn.Linear(n_inputs, n_outputs, bias=False)]
        layers += [nn.BatchNorm1d(n_outputs), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-2])


class Embeddings(NamedTuple):
    """Features (4, n, n_features) of four views, and (4, n, d) of either head."""

    features: Tensor
    invariant: Tensor
    equivariant: Tensor


class PairedNetwork(nn.Module):
    """A backbone with an invariant and an equivariant head of equal architecture.

    A training batch holds four views in consecutive blocks, in the order of
    `ce_align.trainer.objectives.VIEWS`. It takes one pass, in which every view has
    batch statistics of its own: the result is that of four passes, in that order. The
    layers of `backbone`, (n, 3, height, width) to (n, n_features), are converted.
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
        outputs = [features]
        for head in (self.head_invariant, self.head_equivariant):
            learns = next(head.parameters()).requires_grad
            # A head that rests keeps no activations for a backward pass.
            outputs.append(head(features if learns else features.detach()))
        return Embeddings(*(torch.unflatten(x, 0, (len(VIEWS), -1)) for x in outputs))


class MomentumCopy(nn.Module):
    """A copy of a network, backbone and heads, whose parameters follow it slowly.

    The copy runs in training mode without gradient. Its running statistics are its
    own: they come from its own passes, for the weights that it has. `ema` is the share
    of its parameters that the copy keeps at every update.
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


class ViewBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation of several views in one pass, as in separate passes.

    In training every view (consecutive rows) has its own statistics, and the running
    statistics see the views one after the other; in evaluation it is ordinary. Without
    a group every view runs through torch's own kernel, which makes the pass equal to
    separate ones bit by bit; with one the processes join their statistics.
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

    Parameters, buffers and their names stay as they are. What is returned is `module`,
    or what replaces it if it is itself such a layer.
    """
    for name, child in module.named_children():
        setattr(module, name, convert_to_views(child, n_views))
    twin: ViewBatchNorm | ViewLinear
    if isinstance(module, (*NORMS, ViewBatchNorm)):
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
