"""Running a training: devices, precision, loggers, resuming."""

import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only

from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError
from ce_align.trainer.checkpointing import (
    CheckpointWriter,
    DirectIO,
    checkpoint_paths,
    starting_point,
)
from ce_align.trainer.hardware import (
    Hardware,
    logger_of,
    logging_to,
    n_workers,
)
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.preparation import Prepared
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.processes import Council
from ce_align.trainer.slurm import SlurmJob, cluster_of
from ce_align.trainer.stopping import StopSignals
from ce_align.trainer.views import data_digest, view_loader

__all__ = ["fit"]

#: Names of precisions in Lightning.
PRECISIONS: dict[str, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "32": "32-true",
}


def fit(
    config: TrainConfig,
    images: ImageSet,
    folder: Path,
    hardware: Hardware | None = None,
    *,
    validation: ImageSet | None = None,
    digest: str | None = None,
    notify: Callable[[str], None] = print,
) -> PairedTraining:
    """Train from where the folder's checkpoints end.

    Parameters
    ----------
    config : settings
    images : to train on
    folder : of checkpoints and logs
    hardware : where and how
    validation : labelled images for probe and nearest neighbours
    digest : of the images, if it is known
    notify : told what a person should know

    Returns
    -------
    The training at its end.

    Raises
    ------
    ConfigError, DataError
        If settings, images or checkpoints do not fit.
    CeAlignError
        If the loss is not finite, the disk is full, or a signal asked to stop.
    """
    hardware = hardware or Hardware()
    notify = rank_zero_only(notify)
    digest = digest or data_digest(images)
    job = SlurmJob.detect()
    resume = hardware.resume
    if job and job.n_restarts and checkpoint_paths(folder / "checkpoints"):
        resume = "auto"  # the command was meant for the first start of the job
    prepared = Prepared.of(config, images, hardware)
    module = prepared.module(validation)
    module.notify = notify
    start = starting_point(folder, config, digest, resume, notify)
    if start is not None:
        module.last_checkpoint = str(start)
        notify(f"resuming from {start}")
    _quieten()
    stop, council = StopSignals(job), Council()
    writer = CheckpointWriter(folder / "checkpoints", digest, stop, council)
    trainer = _trainer(prepared, folder, [council, writer])
    loader = view_loader(
        prepared.views(prepared.plan(trainer.global_rank)),
        module.position,
        workers=n_workers(hardware, prepared.devices),
        pin_memory=prepared.kind == "cuda",
    )
    _make(folder)
    logger: AbstractContextManager[None] = nullcontext()
    if trainer.logger is not None and trainer.is_global_zero:
        logger = logging_to(trainer.logger, config.model_dump(mode="json"))
    with logger, stop.listening():
        trainer.fit(module, loader, ckpt_path=start, weights_only=True)
    return module


def _make(folder: Path) -> None:
    """Find out before an epoch has passed that nothing can be written."""
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"cannot use {folder} for a training: {error.strerror or error}; choose "
            "another --out"
        ) from error


def _trainer(prepared: Prepared, folder: Path, callbacks: list[Callback]) -> Trainer:
    config, hardware = prepared.config, prepared.hardware
    kind, devices = prepared.kind, prepared.devices
    strategy: Strategy | str = "auto"
    if prepared.n_processes > 1:
        # Statistics are joined in the layers: their buffers agree by themselves.
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    plugins: list[Any] = [DirectIO()]
    cluster = cluster_of(devices, hardware.nodes)
    if cluster is not None:
        plugins.append(cluster)
    shown = sys.stderr.isatty()
    if shown:
        callbacks = [*callbacks, _Bar()]
    return Trainer(
        accelerator=kind,
        devices=devices,
        num_nodes=hardware.nodes,
        strategy=strategy,
        precision=PRECISIONS[config.precision],
        max_epochs=config.epochs,
        accumulate_grad_batches=config.accumulate,
        logger=logger_of(hardware, folder),
        callbacks=callbacks,
        plugins=plugins,
        default_root_dir=folder,
        enable_progress_bar=shown,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        benchmark=kind == "cuda",
    )


def _quieten() -> None:
    """Silence what Lightning says about choices that were made on purpose."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings(
        "ignore", category=UserWarning, module=r"torch\.utils\.data"
    )


class _Bar(TQDMProgressBar):
    """Progress with images a second and the loss."""

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, Any]:
        if not isinstance(pl_module, PairedTraining):
            return {}
        shown = {"loss": "loss", "images_per_second": "images/s"}
        found = pl_module.latest
        return {title: found[name] for name, title in shown.items() if name in found}
