"""Running a training: trained, or left untrained; statistics of what was trained."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor
from torch.optim.swa_utils import update_bn

from ce_align.config import write_settings
from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError
from ce_align.progress import Progress, silent
from ce_align.trainer.callbacks import (
    CheckpointWriter,
    Consensus,
    DirectIO,
    StopSignals,
    checkpoint_paths,
    starting_point,
)
from ce_align.trainer.data import (
    data_digest,
)
from ce_align.trainer.distributed import SlurmJob, cluster_of
from ce_align.trainer.line import weights_of_line
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.monitor import health_of
from ce_align.trainer.networks import Embeddings, PairedNetwork, set_group
from ce_align.trainer.prepared import Prepared
from ce_align.trainer.presets import (
    LOGGERS,
    Hardware,
    TrainConfig,
    n_workers,
)
from ce_align.trainer.views import (
    view_loader,
)

__all__ = ["SETTINGS", "calibrate", "fit", "networks_of_line", "untrained"]

#: File in the folder of a training that `ce-align train --config` takes.
SETTINGS = "config.yaml"

#: Names of precisions in Lightning.
PRECISIONS: dict[str, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "32": "32-true",
}
#: Views whose statistics an untrained network is given, if an epoch has as many.
N_VIEWS = 4096


def fit(
    config: TrainConfig,
    images: ImageSet,
    folder: Path,
    hardware: Hardware | None = None,
    *,
    validation: ImageSet | None = None,
    digest: str | None = None,
    online: Callable[[PairedTraining], dict[str, float]] | None = None,
    notify: Callable[[str], None] = print,
    progress: Progress = silent,
) -> PairedTraining:
    """Train from where the folder's checkpoints end; the training at its end.

    Parameters
    ----------
    config : settings
    images : to train on
    folder : of checkpoints and logs
    hardware : where and how
    validation : labelled images for probe and nearest neighbours
    digest : of the images, if it is known
    online : gives further numbers at the end of an epoch, on the first process
    notify : told what a person should know
    progress : told of steps, with the epoch's mean loss and the speed

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
    module.notify, module.online = notify, online
    start = starting_point(folder, config, digest, resume, notify)
    if start is not None:
        module.last_checkpoint = str(start)
        notify(f"resuming from {start}")
    if config.gradient != "full":
        notify(f"gradient {config.gradient_rule}")
    # What Lightning says is about choices that were made on purpose.
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"lightning\..*")
    warnings.filterwarnings(
        "ignore", category=UserWarning, module=r"torch\.utils\.data"
    )
    stop, consensus = StopSignals(job), Consensus()
    writer = CheckpointWriter(folder / "checkpoints", digest, stop, consensus)
    trainer = _trainer(prepared, folder, [consensus, _Told(progress), writer])
    loader = view_loader(
        prepared.views(prepared.plan(trainer.global_rank)),
        module.position,
        workers=n_workers(hardware, prepared.devices),
        pin_memory=prepared.kind == "cuda",
    )
    try:  # before an epoch has passed
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        if trainer.is_global_zero:
            write_settings(folder / SETTINGS, config)
    except OSError as error:
        raise ConfigError(
            f"cannot use {folder} for a training: {error.strerror or error}; choose "
            "another --out"
        ) from error
    logs = trainer.logger is not None and trainer.is_global_zero
    logged = _logging_to(trainer.logger, config) if logs else nullcontext()
    with logged, stop.listening():
        trainer.fit(module, loader, ckpt_path=start, weights_only=True)
    return module


def _trainer(prepared: Prepared, folder: Path, callbacks: list[Callback]) -> Trainer:
    config, hardware = prepared.config, prepared.hardware
    kind, devices = prepared.kind, prepared.devices
    plugins: list[Any] = [DirectIO()]
    if cluster := cluster_of(devices, hardware.nodes):
        plugins.append(cluster)
    return Trainer(
        accelerator=kind,
        devices=devices,
        num_nodes=hardware.nodes,
        # Statistics are joined in the layers: their buffers agree by themselves.
        strategy=DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
        if prepared.n_processes > 1
        else "auto",
        precision=PRECISIONS[config.precision],
        max_epochs=config.epochs,
        logger=_logger_of(hardware, folder),
        callbacks=callbacks,
        plugins=plugins,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        benchmark=kind == "cuda",
    )


class _Told(Callback):
    """Tells how far a training is: epoch, its mean loss so far, and speed."""

    #: Seconds between; reading a loss waits for the GPU.
    INTERVAL = 0.5

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._losses: Tensor | float = 0.0
        self._n_losses, self._since = 0, (0, 0.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to measure where the training goes on."""
        self._since = trainer.global_step, time.monotonic()
        self._tell(trainer, "")

    def on_train_epoch_start(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> None:
        """Begin a mean over the epoch."""
        self._losses, self._n_losses = 0.0, 0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add a loss to the mean, and tell it now and then."""
        if not isinstance(pl_module, PairedTraining):
            return
        self._losses, self._n_losses = self._losses + pl_module.loss, self._n_losses + 1
        step, now = trainer.global_step, time.monotonic()
        before, then = self._since
        if now - then < self.INTERVAL and step < trainer.estimated_stepping_batches:
            return
        self._since = step, now
        speed = pl_module.images_per_step * (step - before) / max(now - then, 1e-9)
        loss = float(self._losses) / self._n_losses
        self._tell(trainer, f"  loss {loss:.4g}  {speed:.0f} images/s")

    def _tell(self, trainer: Trainer, state: str) -> None:
        if trainer.is_global_zero:
            epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
            n_steps = int(trainer.estimated_stepping_batches)
            self._progress("training", trainer.global_step, n_steps, epoch + state)


def _logger_of(hardware: Hardware, folder: Path) -> Logger:
    """The logger that was asked for, writing into `folder`."""
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
def _logging_to(logger: Logger | None, config: TrainConfig) -> Iterator[None]:
    """Begin to log, with the settings of the training, and end it."""
    if logger is None:
        yield
        return
    try:
        logger.log_hyperparams(config.model_dump(mode="json"))
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


def untrained(
    config: TrainConfig,
    images: ImageSet,
    folder: Path,
    hardware: Hardware | None = None,
    *,
    validation: ImageSet | None = None,
) -> PairedTraining:
    """The first weights of a training, with statistics of its first views.

    Parameters
    ----------
    config : settings of the training, but for its epochs
    images : that it would see
    folder : where the network will be kept
    hardware : one process of it is used
    validation : labelled images for nearest neighbours

    Returns
    -------
    A training at its beginning; its `latest` has the health of the representation and
    the accuracy of nearest neighbours

    Raises
    ------
    ConfigError, DataError
        If settings or images do not fit, or the folder holds a training.
    """
    if checkpoint_paths(folder / "checkpoints"):
        raise ConfigError(
            f"{folder} holds a training; choose another --out for the untrained network"
        )
    prepared = Prepared.of(config, images, hardware or Hardware())
    module = prepared.module(validation).to(prepared.kind)
    seen = calibrate(module.network, prepared.first_images(N_VIEWS))
    features, embeddings = seen.features.flatten(0, 1), seen.invariant.flatten(0, 1)
    module.latest = health_of(features, embeddings) | module.accuracies()
    return module


def networks_of_line(
    module: PairedTraining, images: ImageSet, hardware: Hardware | None = None
) -> Iterator[float]:
    """Make a trained module the network of one λ after the other, and yield each.

    Its running statistics are then those of that network on the first views of the
    training, since every λ has its own. One process does this, without the others.

    Parameters
    ----------
    module : of a training that draws λ
    images : that it was trained on
    hardware : on which it was
    """
    config = module.config
    prepared = Prepared.of(config, images, hardware or Hardware())
    set_group(module, None)
    module.to(prepared.kind)
    for weight in weights_of_line(config.equivariance_weight):
        module.move_to(weight)
        calibrate(module.network, prepared.first_images(N_VIEWS))
        yield weight


def calibrate(network: PairedNetwork, batches: Iterable[Tensor]) -> Embeddings:
    """Give batch normalisation the mean statistics of some batches; weights stay.

    Without it the running statistics are 0 and 1, as no layer's are, and comparing with
    a trained network would compare statistics. Batches are (4 * n_pairs, 3, height,
    width). The embeddings of the last one are returned, and the network is in training
    mode afterwards.
    """
    seen: list[Embeddings] = []

    def keep(module: torch.nn.Module, given: Any, embeddings: Embeddings) -> None:
        seen[:] = [embeddings]

    hook = network.train().register_forward_hook(keep)
    update_bn(batches, network)
    hook.remove()
    return seen[0]
