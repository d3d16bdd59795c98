"""Running a training: trained, left untrained, or measured for what it would cost."""

import logging
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import update_bn

from ce_align.config import write_settings
from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
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
    check_images,
    class_names,
    data_digest,
    image_labels,
    in_memory,
)
from ce_align.trainer.distributed import SlurmJob, cluster_of
from ce_align.trainer.memory import forget_peak, peak_bytes
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.monitor import Labelled, health_of, normalise_pixels
from ce_align.trainer.networks import Embeddings, PairedNetwork
from ce_align.trainer.objectives import gradient_norms
from ce_align.trainer.presets import (
    LOGGERS,
    Hardware,
    TrainConfig,
    augments_on_device,
    n_workers,
    resolve_devices,
)
from ce_align.trainer.views import (
    Batch,
    PairedViews,
    PairPlan,
    PixelBatch,
    Step,
    view_loader,
)

__all__ = ["SETTINGS", "calibrate", "estimate", "fit", "untrained"]

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
#: Pairs of the first measured steps; every further size is twice as large, until there
#: are enough and a step takes these seconds, or is as large as that of the training.
FIRST_PAIRS, N_SIZES, SECONDS = 4, 3, 1.0
#: Steps that are timed of each size.
TIMED_STEPS = 2


@dataclass(frozen=True, eq=False)
class _Prepared:
    """Settings, images and devices that fit one another.

    `images` are decoded, if they fit into memory; `labels` are −1 where there are none,
    with 0 classes. `kind` and `devices` are those of the processes on a machine.
    """

    config: TrainConfig
    images: ImageSet
    labels: NDArray[np.int64]
    n_classes: int
    hardware: Hardware
    kind: str
    devices: int

    @classmethod
    def of(cls, config: TrainConfig, images: ImageSet, hardware: Hardware) -> Self:
        """Look at everything before anything is written."""
        kind, devices = resolve_devices(hardware)
        if config.precision == "fp16" and kind == "cpu":
            raise ConfigError("fp16 needs a GPU; use --precision bf16 or 32")
        augments_on_device(hardware, kind)
        check_images(images, config.view_size)
        labels, n_classes = image_labels(images)
        found = cls(config, images, labels, n_classes, hardware, kind, devices)
        found.plan()
        return replace(found, images=in_memory(images))

    @property
    def n_processes(self) -> int:
        """Processes on all machines."""
        return self.devices * self.hardware.nodes

    def plan(self, process: int = 0) -> PairPlan:
        """Which images meet in the steps of one process."""
        config = self.config
        return PairPlan(
            len(self.images),
            config.pairs_per_step,
            config.seed,
            families=config.families,
            n_processes=self.n_processes,
            process=process,
        )

    def module(self, validation: ImageSet | None) -> PairedTraining:
        """The network with its first weights, which follow from the seed."""
        module = PairedTraining(
            self.config,
            self.plan().steps_per_epoch,
            self.n_classes,
            log_every=self.hardware.log_every,
        )
        on_device = augments_on_device(self.hardware, self.kind)
        module.augmented_on = self.kind if on_device else "cpu"
        if self.n_classes:
            module.bank = Labelled(self.images, self.labels)
            if validation is not None:
                module.validation = _labelled_alike(validation, self.images)
        return module

    def views(self, plan: PairPlan) -> PairedViews:
        """The views of the steps of `plan`."""
        return PairedViews(
            self.images,
            plan,
            self.labels,
            self.config.view_size,
            on_device=augments_on_device(self.hardware, self.kind),
        )

    def on_device(self, batch: Step) -> Batch:
        """A batch where the network is, its views rendered."""
        if isinstance(batch, CeAlignError):
            raise batch
        if isinstance(batch, PixelBatch):
            return batch.to(self.kind).rendered(self.config.view_size)
        return Batch(*(tensor.to(self.kind) for tensor in batch))


def _labelled_alike(validation: ImageSet, images: ImageSet) -> Labelled:
    """Validation images with the class numbers of the training images."""
    own = class_names(validation)
    numbers = {name: i for i, name in enumerate(sorted(set(class_names(images))))}
    unknown = sorted(set(own) - numbers.keys())
    if unknown or not own:
        raise ConfigError(
            f"validation images {validation.identifier} have "
            f"{'the unknown class ' + unknown[0] if unknown else 'no classes'}; give "
            "folders of the same names as those of the training images"
        )
    return Labelled(in_memory(validation), np.array([numbers[name] for name in own]))


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
    prepared = _Prepared.of(config, images, hardware)
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


def _trainer(prepared: _Prepared, folder: Path, callbacks: list[Callback]) -> Trainer:
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
    prepared = _Prepared.of(config, images, hardware or Hardware())
    module = prepared.module(validation).to(prepared.kind)
    plan = replace(prepared.plan(), n_processes=1)
    views = prepared.views(plan)
    enough = -(-N_VIEWS // (4 * plan.pairs_per_step))
    seen = calibrate(
        module.network,
        (
            normalise_pixels(prepared.on_device(views[0, step]).views.flatten(0, 1))
            for step in range(min(plan.steps_per_epoch, enough))
        ),
    )
    features, embeddings = seen.features.flatten(0, 1), seen.invariant.flatten(0, 1)
    module.latest = health_of(features, embeddings) | module.accuracies()
    return module


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


@dataclass(frozen=True)
class Estimate:
    """Plan of a training.

    Attributes
    ----------
    steps_per_epoch, steps : whole steps
    peak_rate : learning rate at the end of the warm-up
    warmup_steps : of linear rise
    memory_bytes : most that a process takes at a time: on a GPU what is reserved there,
        otherwise all of the process, libraries too; its workers are others
    step_seconds : of one process on its share, without rendering
    render_seconds : of one worker for that share
    share, measured_pairs : pairs of a process in a pass, and in the largest measured
        passes; beyond them cost grows in proportion
    """

    steps_per_epoch: int
    steps: int
    peak_rate: float
    warmup_steps: int
    memory_bytes: int
    step_seconds: float
    render_seconds: float
    share: int
    measured_pairs: int

    def seconds(self, workers: int) -> float:
        """Duration of the training; rendering and steps overlap if there are workers.

        Without workers one waits for the other.
        """
        if not workers:
            return self.steps * (self.step_seconds + self.render_seconds)
        return self.steps * max(self.step_seconds, self.render_seconds / workers)


@dataclass(frozen=True)
class _Measured:
    """Cost of steps of one size."""

    pairs: int
    peak_bytes: int
    step_seconds: float
    render_seconds: float


def estimate(config: TrainConfig, images: ImageSet, hardware: Hardware) -> Estimate:
    """Measure a few steps on one process of what `hardware` has.

    Raises
    ------
    ConfigError, DataError
        As the training would.
    """
    prepared = _Prepared.of(config, images, hardware)
    plan = prepared.plan()
    share = config.pairs_per_step // prepared.n_processes
    module = prepared.module(None).to(prepared.kind)
    optimizer = module.configure_optimizers()
    measured: list[_Measured] = []
    pairs = min(share, FIRST_PAIRS)
    while not measured or measured[-1].pairs < pairs:
        measured.append(_measure(prepared, module, optimizer, pairs))
        if len(measured) < N_SIZES or measured[-1].step_seconds < SECONDS:
            pairs = min(share, 2 * pairs)
    last = measured[-1]
    memory = last.peak_bytes
    if last.pairs < share:  # weights stay, activations grow
        before = measured[-2]
        growth = (last.peak_bytes - before.peak_bytes) / (last.pairs - before.pairs)
        memory = round(last.peak_bytes + max(growth, 0) * (share - last.pairs))
    scale = share / last.pairs
    return Estimate(
        steps_per_epoch=plan.steps_per_epoch,
        steps=config.epochs * plan.steps_per_epoch,
        peak_rate=module.peak_rate,
        warmup_steps=config.warmup_epochs * plan.steps_per_epoch,
        memory_bytes=memory,
        step_seconds=last.step_seconds * scale,
        render_seconds=last.render_seconds * scale,
        share=share,
        measured_pairs=last.pairs,
    )


def _measure(
    prepared: _Prepared,
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    pairs: int,
) -> _Measured:
    """Cost of steps of so many pairs, after one that compiles and allocates."""
    plan = replace(prepared.plan(), pairs_per_step=pairs, n_processes=1)
    views = prepared.views(plan)
    steps, renders = [], []
    for step in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        batch = views[0, step % plan.steps_per_epoch]
        rendered = time.perf_counter()
        batch = prepared.on_device(batch)
        # Gradients and the optimiser's state are there before memory is measured.
        if step == 1:
            forget_peak(prepared.kind)
        _one_step(module, optimizer, batch, record=step == 1)
        if step:
            renders.append(rendered - start)
            steps.append(time.perf_counter() - rendered)
    return _Measured(pairs, peak_bytes(prepared.kind), min(steps), min(renders))


def _one_step(
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    *,
    record: bool,
) -> None:
    """A step of training, with the gradients' lengths if it is one that is recorded."""
    types: dict[str, Any] = {"bf16": torch.bfloat16, "fp16": torch.float16}
    half = types.get(module.config.precision)
    device = batch.views.device.type
    with torch.autocast(device, dtype=half, enabled=half is not None):
        terms = module.loss_terms(batch)[0]
    if record:
        gradient_norms(terms, module.network.backbone.parameters())
    optimizer.zero_grad()
    torch.autograd.backward(terms.total)
    # Nothing is learned: a step of length zero costs the same.
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    optimizer.step()
    if module.momentum is not None:
        module.momentum.update(module.network)
    if device == "cuda":
        torch.cuda.synchronize()
