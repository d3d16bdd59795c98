"""Where and how a training runs: devices, workers, logger."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from ce_align.errors import ConfigError
from ce_align.trainer.module import LOG_EVERY

__all__ = [
    "LOGGERS",
    "Hardware",
    "augments_on_device",
    "logger_of",
    "logging_to",
    "n_workers",
    "resolve_devices",
]

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
    """Kind of device, and how many a node.

    Raises
    ------
    ConfigError
        If there are not as many.
    """
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
    """Whether views are rendered where the network is, a device of that kind.

    Raises
    ------
    ConfigError
        If `hardware` names another place.
    """
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
    n_cores = int(own) if own.isdecimal() else _n_cores() // devices
    return max(0, min(n_cores - 1, MOST_WORKERS))


def _n_cores() -> int:
    """Cores that this process may use, which a cluster restricts."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def logger_of(hardware: Hardware, folder: Path) -> Logger:
    """The logger that was asked for, writing into `folder`.

    Raises
    ------
    ConfigError
        If there is no such logger, or its package is missing.
    """
    name = hardware.logger
    if name not in LOGGERS:
        raise ConfigError(f"unknown logger {name!r}; choose from {', '.join(LOGGERS)}")
    if name == "csv":
        return CSVLogger(folder, name="log", flush_logs_every_n_steps=1)
    try:
        import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"--logger {name} needs its package: pip install {name}"
        ) from error
    if name == "tensorboard":
        return TensorBoardLogger(folder, name="log")
    return WandbLogger(name=folder.name, save_dir=folder, project="ce-align")


@contextmanager
def logging_to(logger: Logger, settings: dict[str, Any]) -> Iterator[None]:
    """Begin to log, with the settings of the training, and end it.

    Raises
    ------
    ConfigError
        If the service behind the logger refuses.
    """
    try:
        logger.log_hyperparams(settings)
    except Exception as error:  # wandb has a class for each of its refusals
        if not isinstance(logger, WandbLogger):
            raise
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"wandb does not start ({reason}); log in, or set WANDB_MODE=offline"
        ) from error
    try:
        yield
    finally:
        if isinstance(logger, WandbLogger):
            # Otherwise another training of this process would go on with its run.
            logger.experiment.finish()
