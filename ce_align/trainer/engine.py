"""Running a training: devices, precision, loggers, resuming."""

import logging
import sys
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal

import torch
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
    newest_readable,
    read_resumable,
)
from ce_align.trainer.hardware import (
    Hardware,
    augments_on_device,
    logger_of,
    logging_to,
    n_workers,
    resolve_devices,
)
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.online import Labelled
from ce_align.trainer.pairs import PairPlan
from ce_align.trainer.pixels import in_memory
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.processes import Council
from ce_align.trainer.slurm import SlurmJob, cluster_of
from ce_align.trainer.stopping import StopSignals
from ce_align.trainer.views import (
    LABEL_COLUMNS,
    PairedViews,
    check_images,
    data_digest,
    image_labels,
    view_loader,
)

__all__ = ["fit", "plan_of"]

#: Names of precisions in Lightning.
PRECISIONS: dict[str, Literal["bf16-mixed", "16-mixed", "32-true"]] = {
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
    "32": "32-true",
}


def plan_of(
    config: TrainConfig, n_images: int, n_processes: int = 1, process: int = 0
) -> PairPlan:
    """The plan of pairs of a training on one of its processes.

    Raises
    ------
    ConfigError
        If the images do not fill one step, or a step cannot be shared out.
    """
    return PairPlan(
        n_images,
        config.pairs_per_step,
        config.seed,
        families=config.families,
        n_processes=n_processes,
        process=process,
        n_passes=config.accumulate,
    )


def fit(
    config: TrainConfig,
    images: ImageSet,
    folder: Path,
    hardware: Hardware | None = None,
    *,
    validation: ImageSet | None = None,
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
    kind, devices = resolve_devices(hardware)
    if config.precision == "fp16" and kind == "cpu":
        raise ConfigError("fp16 needs a GPU; use --precision bf16 or 32")
    n_processes = devices * hardware.nodes
    check_images(images, config.view_size)
    plan = plan_of(config, len(images), n_processes)
    labels, n_classes = image_labels(images)
    module = PairedTraining(
        config, plan.steps_per_epoch, n_classes, log_every=hardware.log_every
    )
    if n_classes:
        module.validation = _labelled_alike(validation, images)
    digest = data_digest(images)
    job = SlurmJob.detect()
    resume = hardware.resume
    if job and job.n_restarts and checkpoint_paths(folder / "checkpoints"):
        resume = "auto"  # the command was meant for the first start of the job
    start = _start(folder, config, digest, resume, notify)
    if start is not None:
        module.last_checkpoint = str(start)
        notify(f"resuming from {start}")
    _quieten()
    stop, council = StopSignals(job), Council()
    writer = CheckpointWriter(folder / "checkpoints", digest, stop, council)
    trainer = _trainer(config, folder, hardware, (kind, devices), [council, writer])
    module.notify = notify
    on_device = augments_on_device(hardware, kind)
    module.augmented_on = kind if on_device else "cpu"
    images = in_memory(images)
    if n_classes:
        module.bank = Labelled(images, labels)
    views = PairedViews(
        images,
        plan_of(config, len(images), n_processes, trainer.global_rank),
        labels,
        config.view_size,
        on_device=on_device,
    )
    loader = view_loader(
        views,
        module.position,
        workers=n_workers(hardware, devices),
        pin_memory=kind == "cuda",
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


def _start(
    folder: Path,
    config: TrainConfig,
    data: str,
    resume: str,
    notify: Callable[[str], None],
) -> Path | None:
    """The checkpoint to resume from."""
    own = folder / "checkpoints"
    if resume == "auto":
        return newest_readable(own, config, data, notify)
    if resume == "never":
        if checkpoint_paths(own):
            raise ConfigError(
                f"{folder} holds a training already; choose another --out, delete it, "
                "or use --resume auto"
            )
        return None
    path = Path(resume)
    if not path.is_file():
        raise ConfigError(
            f"there is no checkpoint {path}; use --resume auto, never or a file"
        )
    read_resumable(path, config, data)
    return path


def _trainer(
    config: TrainConfig,
    folder: Path,
    hardware: Hardware,
    found: tuple[str, int],
    callbacks: list[Callback],
) -> Trainer:
    kind, devices = found
    strategy: Strategy | str = "auto"
    if devices * hardware.nodes > 1:
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


def _labelled_alike(validation: ImageSet | None, images: ImageSet) -> Labelled | None:
    """Validation images with the class numbers of the training images."""
    if validation is None:
        return None
    names, own = _class_names(images), _class_names(validation)
    numbers = {name: number for number, name in enumerate(sorted(set(names)))}
    unknown = sorted(set(own) - numbers.keys())
    if unknown or not own:
        raise ConfigError(
            f"validation images {validation.identifier} have "
            f"{'the unknown class ' + unknown[0] if unknown else 'no classes'}; give "
            "folders of the same names as those of the training images"
        )
    labels = torch.tensor([numbers[name] for name in own]).numpy()
    return Labelled(in_memory(validation), labels)


def _class_names(images: ImageSet) -> list[str]:
    for column in LABEL_COLUMNS:
        if column in images.columns:
            return [str(name) for name in images.columns[column]]
    return []


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
