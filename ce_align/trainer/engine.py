"""Running a training: devices, precision, loggers, resuming."""

import logging
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_only
from numpy.typing import NDArray
from torch import Tensor

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer.callbacks import (
    CheckpointWriter,
    Council,
    DirectIO,
    StopSignals,
    checkpoint_paths,
    starting_point,
)
from ce_align.trainer.data import (
    LABEL_COLUMNS,
    check_images,
    data_digest,
    image_labels,
    in_memory,
)
from ce_align.trainer.distributed import SlurmJob, cluster_of
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.monitor import Labelled, health_of, normalise_pixels
from ce_align.trainer.networks import Embeddings, PairedNetwork, ViewBatchNorm
from ce_align.trainer.objectives import gradient_norms
from ce_align.trainer.presets import (
    LOGGERS,
    Hardware,
    TrainConfig,
    augments_on_device,
    n_workers,
    resolve_devices,
)
from ce_align.trainer.views import PairedViews, PairPlan, PixelBatch, view_loader

__all__ = [
    "Estimate",
    "Prepared",
    "calibrate",
    "estimate",
    "fit",
    "untrained",
]

#: Names of precisions in Lightning.
PRECISIONS: dict[str, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "32": "32-true",
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """Settings, images and devices that fit one another.

    Attributes
    ----------
    config : settings
    images : decoded, if they fit into memory
    labels, n_classes : class of each image; −1 and 0 without labels
    hardware : where and how
    kind, devices : of the processes on a machine
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
        """Look at everything before anything is written.

        Raises
        ------
        ConfigError, DataError
            If settings, images or devices do not fit.
        """
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
        """Which images meet in the steps of one process.

        Raises
        ------
        ConfigError
            If the images do not fill one step, or a step cannot be shared out.
        """
        config = self.config
        return PairPlan(
            len(self.images),
            config.pairs_per_step,
            config.seed,
            families=config.families,
            n_processes=self.n_processes,
            process=process,
            n_passes=config.accumulate,
        )

    def module(self, validation: ImageSet | None = None) -> PairedTraining:
        """The network with its first weights, which follow from the seed.

        Parameters
        ----------
        validation : labelled images for probe and nearest neighbours

        Raises
        ------
        ConfigError
            If settings do not fit, or the validation images have other classes.
        """
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


def _labelled_alike(validation: ImageSet, images: ImageSet) -> Labelled:
    """Validation images with the class numbers of the training images."""
    names, own = _class_names(images), _class_names(validation)
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    unknown = sorted(set(own) - numbers.keys())
    if unknown or not own:
        raise ConfigError(
            f"validation images {validation.identifier} have "
            f"{'the unknown class ' + unknown[0] if unknown else 'no classes'}; give "
            "folders of the same names as those of the training images"
        )
    labels = np.array([numbers[name] for name in own])
    return Labelled(in_memory(validation), labels)


def _class_names(images: ImageSet) -> list[str]:
    for column in LABEL_COLUMNS:
        if column in images.columns:
            return [str(name) for name in images.columns[column]]
    return []


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


#: Views whose statistics an untrained network is given, if an epoch has as many.
N_VIEWS = 4096


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
    seen = calibrate(module.network, _batches(prepared))
    features, embeddings = seen.features.flatten(0, 1), seen.invariant.flatten(0, 1)
    module.latest = health_of(features, embeddings) | module.accuracies()
    return module


@torch.no_grad()
def calibrate(network: PairedNetwork, batches: Iterable[Tensor]) -> Embeddings:
    """Give batch normalisation the mean statistics of some batches; weights stay.

    Without it the running statistics are 0 and 1, as no layer's are, and comparing with
    a trained network would compare statistics.

    Parameters
    ----------
    network : in training mode afterwards
    batches : (4 * n_pairs, 3, height, width) each, at least one

    Returns
    -------
    Of the last batch
    """
    network.train()
    layers = [x for x in network.modules() if isinstance(x, ViewBatchNorm)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # all batches weigh the same
    for batch in batches:
        embeddings: Embeddings = network(batch)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    return embeddings


def _batches(prepared: Prepared) -> Iterator[Tensor]:
    """Input of the first steps of the training."""
    plan = replace(prepared.plan(), n_processes=1, n_passes=1)
    views = prepared.views(plan)
    enough = -(-N_VIEWS // (4 * plan.pairs_per_step))
    for step in range(min(plan.steps_per_epoch, enough)):
        batch = views[0, step]
        if isinstance(batch, CeAlignError):
            raise batch
        if isinstance(batch, PixelBatch):
            batch = batch.to(prepared.kind).rendered(views.view_size)
        yield normalise_pixels(batch.views.to(prepared.kind).flatten(0, 1))


#: Pairs of the first measured steps; every further size is twice as large, until there
#: are enough and a step takes these seconds, or is as large as that of the training.
FIRST_PAIRS, N_SIZES, SECONDS = 4, 3, 1.0


#: Steps that are timed of each size.
TIMED_STEPS = 2


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
    prepared = Prepared.of(config, images, hardware)
    plan = prepared.plan()
    share = config.pairs_per_step // prepared.n_processes // config.accumulate
    module = prepared.module().to(prepared.kind)
    optimizer = module.configure_optimizers()
    measured: list[_Measured] = []
    pairs = min(share, FIRST_PAIRS)
    while not measured or measured[-1].pairs < pairs:
        views = prepared.views(
            replace(plan, pairs_per_step=pairs, n_processes=1, n_passes=1)
        )
        measured.append(_measure(module, optimizer, views, prepared.kind))
        if len(measured) < N_SIZES or measured[-1].step_seconds < SECONDS:
            pairs = min(share, 2 * pairs)
    last = measured[-1]
    scale = share * config.accumulate / last.pairs
    return Estimate(
        steps_per_epoch=plan.steps_per_epoch,
        steps=config.epochs * plan.steps_per_epoch,
        peak_rate=module.peak_rate,
        warmup_steps=config.warmup_epochs * plan.steps_per_epoch,
        memory_bytes=_extrapolated_bytes(measured, share),
        step_seconds=last.step_seconds * scale,
        render_seconds=last.render_seconds * scale,
        share=share,
        measured_pairs=last.pairs,
    )


def _extrapolated_bytes(measured: list[_Measured], share: int) -> int:
    """Memory of a step of `share` pairs: weights stay, activations grow."""
    last = measured[-1]
    if last.pairs == share:
        return last.peak_bytes
    before = measured[-2]
    growth = (last.peak_bytes - before.peak_bytes) / (last.pairs - before.pairs)
    return round(last.peak_bytes + max(growth, 0) * (share - last.pairs))


def _measure(
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    views: PairedViews,
    kind: str,
) -> _Measured:
    """Cost of steps of `views`, after one that compiles and allocates."""
    steps, renders = [], []
    for step in range(1 + TIMED_STEPS):
        start = time.perf_counter()
        batch = views[0, step % views.plan.steps_per_epoch]
        if isinstance(batch, Exception):
            raise batch
        rendered = time.perf_counter()
        if isinstance(batch, PixelBatch):
            batch = batch.to(kind).rendered(views.view_size)
        # Gradients and the optimiser's state are there before memory is measured.
        if step == 1:
            _forget_peak(kind)
        _one_step(module, optimizer, batch.views.to(kind), record=step == 1)
        if step:
            renders.append(rendered - start)
            steps.append(time.perf_counter() - rendered)
    return _Measured(
        views.plan.pairs_per_step, _peak_bytes(kind), min(steps), min(renders)
    )


def _one_step(
    module: PairedTraining,
    optimizer: torch.optim.Optimizer,
    views: Tensor,
    *,
    record: bool,
) -> None:
    """A step of training, with the gradients' lengths if it is one that is recorded."""
    types: dict[str, Any] = {"bf16": torch.bfloat16, "fp16": torch.float16}
    half = types.get(module.config.precision)
    device = views.device.type
    with torch.autocast(device, dtype=half, enabled=half is not None):
        terms = module.loss_terms(views)[0]
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


def _forget_peak(kind: str) -> None:
    """Begin to look for the highest use of memory."""
    if kind == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # only Linux forgets; elsewhere the peak is the process's
        Path("/proc/self/clear_refs").write_text("5")


def _peak_bytes(kind: str) -> int:
    """Highest use of memory since `_forget_peak`."""
    if kind == "cuda":
        return torch.cuda.max_memory_reserved()
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
