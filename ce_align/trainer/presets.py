"""What a training is, as settings and named sets of them, and where it runs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ce_align.config import Spelled, StageConfig
from ce_align.errors import ConfigError

__all__ = [
    "AUTHORS_PROCESSES",
    "LOGGERS",
    "LOG_EVERY",
    "PRESETS",
    "PRESET_OPTIONS",
    "Hardware",
    "TrainConfig",
    "augments_on_device",
    "n_workers",
    "preset_config",
    "resolve_devices",
]

Weight = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

#: What trainings of 0.1 had beside their settings, at the one value that every command
#: gave it. It is read and written still: ids of trainings and checkpoints depend on it.
_FORMER: Mapping[str, Any] = MappingProxyType({"accumulate": 1})


#: Processes, one for each GPU, that trained every network of the paper.
AUTHORS_PROCESSES = 8


class TrainConfig(StageConfig):
    """Settings of one training; whatever else decides the weights is their data.

    A step sees two images a pair, and two views an image. Objectives are those of
    `ce_align.trainer.objectives.OBJECTIVES`, backbones those of
    `ce_align.trainer.networks.BACKBONES`.
    """

    stage: ClassVar = "train"
    later: ClassVar = MappingProxyType({"weighting": "losses", "gradient": "full"})

    objective: str = Field(
        description="Loss of both terms: mmcr, barlow or simclr; augself and equimod "
        "predict what augmentations do."
    )
    equivariance_weight: Annotated[Weight, Spelled("--weight")] = Field(
        description="Equivariance weight λ, from 0 (invariant) to 1."
    )
    weighting: Literal["losses", "gradients", "drawn"] = Field(
        default="losses",
        description="What λ is a share of: losses, as in the paper; or gradients, the "
        "lengths of both terms' gradients, so that it means the same for every loss. "
        "drawn: of losses, a new λ up to --weight in each step, and one network for "
        "all of them, kept at every tenth.",
    )
    images: str = Field(
        description="Folder, zip, folder of ce-align pack, or 'simulated'."
    )
    backbone: str = Field(
        default="resnet50",
        description="Residual network of torchvision, 'tiny', 'resnet18_cifar', or "
        "timm/NAME.",
    )
    view_size: Annotated[int, Spelled("--size")] = Field(
        default=224, ge=8, le=4096, description="Pixels of a view."
    )
    families: tuple[str, str] = Field(
        default=("strong_a", "strong_b"),
        description="Augmentations of views A and B.",
    )
    epochs: NonNegativeInt = Field(
        default=100, description="Epochs; 0 for the network before training."
    )
    pairs_per_step: PositiveInt = Field(
        default=1024, description="Pairs a step, over all processes."
    )
    optimizer: Literal["lars", "adamw"] = Field(
        default="lars", description="adamw is for small networks."
    )
    learning_rate: PositiveFloat | None = Field(
        default=None,
        description="Peak, in place of the rule of LARS: 1.2 for every 256 pairs a "
        "step.",
    )
    weight_decay: float = Field(
        default=1e-6, ge=0, description="Weight decay of the optimiser."
    )
    momentum: float = Field(default=0.9, ge=0, lt=1, description="Momentum of LARS.")
    warmup_epochs: NonNegativeInt = Field(
        default=10, description="Epochs of linear rise before the cosine."
    )
    final_share: Weight = Field(
        default=1e-3, description="Of the peak learning rate, at the end."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="Changes of the objective: head_widths, ema, temperature, …",
    )
    gradient: Literal["full", "authors"] = Field(
        default="full",
        description="full: the exact gradient of the loss. authors: that of their code "
        "on 8 GPUs, 1/8 of it for mmcr and barlow, and without rows of other GPUs for "
        "simclr; biases and batch normalisation, which LARS does not adapt, learn "
        "slower by it.",
    )
    precision: Literal["bf16", "fp16", "32"] = Field(
        default="32",
        description="Arithmetic of the network; losses always have single precision.",
    )
    probe: bool = Field(
        default=True,
        description="Train a linear classifier along if images have labels.",
    )
    seed: NonNegativeInt = Field(
        default=0, description="Of weights, halves and augmentations."
    )

    @property
    def of_weighting(self) -> str:
        """What the names of folders have of the weighting."""
        return {"losses": "", "gradients": "_balanced", "drawn": "_line"}[
            self.weighting
        ]

    @property
    def gradient_rule(self) -> str:
        """What the parameters follow, in words."""
        if self.gradient == "full":
            return "full"
        n = AUTHORS_PROCESSES
        lacks = (
            f"without that by the rows of {n - 1} of {n}"
            if self.objective == "simclr"
            else f"1/{n} of the full one"
        )
        return f"as in the authors' code on {n} GPUs, {lacks} (or --gradient full)"

    @model_validator(mode="before")
    @classmethod
    def _without_former(cls, given: Any) -> Any:
        if not isinstance(given, Mapping):
            return given
        return {k: v for k, v in given.items() if k not in _FORMER or v != _FORMER[k]}

    @model_serializer(mode="wrap")
    def _with_former(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {**dump(self), **_FORMER}

    @model_validator(mode="after")
    def _rate_is_known(self) -> "TrainConfig":
        if self.optimizer == "adamw" and self.learning_rate is None:
            raise ValueError("adamw has no rule for its learning rate; give one")
        if self.weighting == "drawn" and not 0 < self.equivariance_weight < 1:
            raise ValueError(
                f"weights are drawn from 0 to {self.equivariance_weight:g}; give a "
                "largest one between 0 and 1, such as 0.6"
            )
        if self.warmup_epochs >= max(self.epochs, 1):
            raise ValueError(
                f"a warm-up of {self.warmup_epochs} epochs does not fit into "
                f"{self.epochs}"
            )
        return self


_PAPER: dict[str, Any] = {"epochs": 100, "warmup_epochs": 10, "gradient": "authors"}
_TINY: dict[str, Any] = {
    "backbone": "tiny",
    "view_size": 32,
    "families": ("tiny_a", "tiny_b"),
    "epochs": 8,
    "pairs_per_step": 64,
    "optimizer": "adamw",
    "learning_rate": 2e-3,
    "weight_decay": 1e-4,
    "warmup_epochs": 0,
}
#: Settings of our own between both, by what is usual for such images and networks; the
#: paper has none of them.
_CIFAR: dict[str, Any] = {
    **_TINY,
    "backbone": "resnet18_cifar",
    "epochs": 200,
    "pairs_per_step": 256,
    "learning_rate": 1e-3,
    "warmup_epochs": 10,
}
_IN100_64: dict[str, Any] = {**_CIFAR, "backbone": "resnet18", "view_size": 64}
_IN100: dict[str, Any] = {"epochs": 200, "warmup_epochs": 10, "pairs_per_step": 96}
_VIT: dict[str, Any] = {
    **_IN100,
    "backbone": "timm/vit_small_patch16_224",
    "optimizer": "adamw",
    "learning_rate": 1.5e-4,
    "weight_decay": 0.1,
    "warmup_epochs": 20,
}
#: Settings of each preset that differ from the defaults, which are the paper's.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper-in1k": _PAPER,
        "paper-in100": {**_PAPER, "epochs": 200},
        "weak": {**_PAPER, "families": ("weak_a", "weak_b")},
        "in100": _IN100,
        "in100-64": _IN100_64,
        "vit-s": _VIT,
        "cifar": _CIFAR,
        "tiny": _TINY,
    }
)
#: Changes of the objectives on ImageNet-100, where the authors give MMCR smaller heads.
_IN100_OPTIONS: Mapping[str, dict[str, Any]] = {"mmcr": {"head_widths": (4096, 512)}}
#: Changes of the objectives at small scale. With 64 pairs a step the embeddings must
#: have few dimensions: those of MMCR far fewer than pairs, and the correlations of
#: Barlow Twins would otherwise be mostly noise. Of fewer dimensions each has fewer
#: others to be decorrelated from: with the paper's weight for that, made for 8192, the
#: features keep a handful of directions.
_TINY_OPTIONS: Mapping[str, dict[str, Any]] = {
    "simclr": {"head_widths": (512, 512, 128), "temperature": 0.2},
    "barlow": {"head_widths": (512, 512, 128), "off_diagonal": 0.02},
    "mmcr": {"head_widths": (512, 512, 16), "ema": None},
    "augself": {"head_widths": (512, 512, 128), "temperature": 0.2},
    "equimod": {"head_widths": (512, 512, 128), "temperature": 0.2},
}
#: Of steps of about a hundred pairs or some more, between the two.
_MIDDLE_OPTIONS: Mapping[str, dict[str, Any]] = {
    "simclr": {"head_widths": (2048, 2048, 128), "temperature": 0.2},
    "barlow": {"head_widths": (2048, 2048, 512), "off_diagonal": 0.0125},
    "mmcr": {"head_widths": (2048, 2048, 32)},
    "augself": {"head_widths": (2048, 2048, 128), "temperature": 0.2},
    "equimod": {"head_widths": (2048, 2048, 128), "temperature": 0.2},
}
PRESET_OPTIONS: Mapping[str, Mapping[str, dict[str, Any]]] = {
    "paper-in100": _IN100_OPTIONS,
    **dict.fromkeys(("in100", "in100-64", "vit-s", "cifar"), _MIDDLE_OPTIONS),
    "tiny": _TINY_OPTIONS,
}


def preset_config(preset: str, objective: str, **changes: Any) -> TrainConfig:
    """Settings of a preset, changed where asked.

    The objective decides the heads of most presets. Changes are fields of
    `TrainConfig`; None keeps the preset's. Other `epochs` shorten the warm-up to at
    most a tenth of them.

    Raises
    ------
    ConfigError
        If there is no such preset; with those that there are.
    pydantic.ValidationError
        If a setting is out of its range.
    """
    if preset not in PRESETS:
        raise ConfigError(
            f"unknown preset {preset!r}; choose from {', '.join(PRESETS)}"
        )
    settings = dict(PRESETS[preset])
    given = {name: value for name, value in changes.items() if value is not None}
    if isinstance(given.get("epochs"), int) and "warmup_epochs" not in given:
        settings["warmup_epochs"] = min(
            settings["warmup_epochs"], given["epochs"] // 10
        )
    settings["options"] = PRESET_OPTIONS.get(preset, {}).get(str(objective), {})
    return TrainConfig(objective=objective, **{**settings, **given})


#: Steps between two records, which cost two further backward passes.
LOG_EVERY = 50
LOGGERS = ("csv", "tensorboard", "wandb")
#: Workers that render for one process unless another number is asked for, at most.
MOST_WORKERS = 12


@dataclass(frozen=True)
class Hardware:
    """Where and how a training runs; the weights depend on it by rounding at most.

    Attributes
    ----------
    devices : GPUs a node, or processes on a CPU; None for all GPUs, or one process
    nodes : machines
    workers : processes that render views, for each training process; None to choose
    logger : one of `LOGGERS`
    resume : ``auto``, ``never``, or a checkpoint
    log_every : steps between two records
    augment : ``cpu``, where workers render the views; ``device``, where the network is;
        ``auto`` for a GPU if there is one
    """

    devices: int | None = None
    nodes: int = 1
    workers: int | None = None
    logger: str = "csv"
    resume: str = "auto"
    log_every: int = LOG_EVERY
    augment: str = "auto"


def resolve_devices(hardware: Hardware) -> tuple[str, int]:
    """Kind of device, and how many a node; ConfigError if there are not as many."""
    import torch

    n_gpus = torch.cuda.device_count()
    kind, present = ("cuda", n_gpus) if n_gpus else ("cpu", os.cpu_count() or 1)
    wanted = hardware.devices or (n_gpus or 1)
    if wanted > present:
        what = "GPUs" if kind == "cuda" else "processor cores and no GPU"
        raise ConfigError(
            f"{wanted} devices asked for, but there are {present} {what}; use "
            f"--devices {present} or fewer"
        )
    return kind, wanted


def augments_on_device(hardware: Hardware, kind: str) -> bool:
    """Whether views are rendered where the network is, a device of that kind."""
    places = {"auto": kind == "cuda", "cpu": False, "device": True}
    if hardware.augment not in places:
        raise ConfigError(
            f"cannot augment on {hardware.augment!r}; choose from {', '.join(places)}"
        )
    return places[hardware.augment]


def n_workers(hardware: Hardware, devices: int) -> int:
    """Processes that render views for each of `devices` training processes."""
    if hardware.workers is not None:
        return hardware.workers
    own = os.environ.get("SLURM_CPUS_PER_TASK", "")
    if own.isdecimal():
        n_cores = int(own)
    elif hasattr(os, "sched_getaffinity"):  # cores that a cluster leaves us
        n_cores = len(os.sched_getaffinity(0)) // devices
    else:
        n_cores = (os.cpu_count() or 1) // devices
    return max(0, min(n_cores - 1, MOST_WORKERS))
