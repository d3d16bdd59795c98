"""Training: settings in, a network that every other stage can name, and rows."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from ce_align.augment import TRANSFORMS_VERSION
from ce_align.config import ConfigId, StageConfig, write_settings
from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.models.architectures import imported_timm
from ce_align.models.catalogue import label_of
from ce_align.models.checkpoints import read_checkpoint, save_safetensors
from ce_align.models.load import load_network
from ce_align.models.memory import available_memory
from ce_align.names import plain_path
from ce_align.progress import Notify, Progress, silent
from ce_align.results import ResultStore, Row
from ce_align.stages.earlier import stored_documents
from ce_align.stages.export import share
from ce_align.stages.online import OnlineScore
from ce_align.stages.running import Run
from ce_align.trainer.data import data_digest, open_images
from ce_align.trainer.engine import SETTINGS, fit, networks_of_line, untrained
from ce_align.trainer.memory import StepMemory
from ce_align.trainer.module import (
    EXPORTED,
    exported_metadata,
    exported_state,
)
from ce_align.trainer.presets import Hardware, TrainConfig, resolve_devices

__all__ = [
    *("OnlineConfig", "TrainOptions", "TrainRow", "execute", "free_memory"),
    *("shared", "train", "training_folder", "training_id"),
]

#: Note of numbers that a training has where each step draws λ.
ALL_WEIGHTS = "of a training in which each step draws λ, so of no one λ"


class TrainRow(Row):
    """One number at the end of a training.

    Attributes
    ----------
    seed : of the training
    data_digest : of the images
    n_images : in the data set
    n_validation : labelled images that were held out; None in rows of ce_align 0.1
    model_digest : of the network that was exported; None in rows of ce_align 0.1
    """

    stage: str = TrainConfig.stage
    seed: int
    data_digest: str
    n_images: int
    n_validation: int | None = None
    model_digest: str | None = None


@dataclass(frozen=True)
class TrainOptions:
    """How networks are trained, beyond their settings.

    Attributes
    ----------
    hardware : where and how
    folder : of the run; None for `training_folder` below the folder of runs
    validation : name of labelled images for probe and nearest neighbours
    hf : write a folder ``hf`` for the hub, too: weights, config and card
    recording : name of one that is scored while networks are trained
    score_every : epochs between these scores; None for as few as take 2 % of the time
    """

    hardware: Hardware = field(default_factory=Hardware)
    folder: Path | None = None
    validation: str | None = None
    hf: bool = False
    recording: str | None = None
    score_every: int | None = None


class OnlineConfig(StageConfig):
    """Folder of a training, whose numbers at its end are copied to the store."""

    stage: ClassVar = "online"

    model: str
    label: str | None = Field(default=None, exclude=True)


def training_folder(config: TrainConfig, runs: Path = Path("runs")) -> Path:
    """Folder of a training, whose path names the network.

    Backbone, families of views, weighting and seed are part of it unless they are the
    paper's. Where λ is drawn, folders below have the networks of smaller λ.

    >>> training_folder(TrainConfig(objective="mmcr", equivariance_weight=0.1,
    ...                             images="train", backbone="resnet34")).as_posix()
    'runs/mmcr_l0.1_resnet34'
    """
    name = f"{config.objective}_l{config.equivariance_weight:g}"
    usual = {k: f.default for k, f in TrainConfig.model_fields.items()}
    if config.backbone != usual["backbone"]:
        name += f"_{config.backbone.rpartition('/')[2]}"
    views = config.families[0].partition("_")[0]
    if config.families != usual["families"] and views != config.backbone:
        name += f"_{views}"
    name += config.of_weighting
    if config.seed != usual["seed"]:
        name += f"_seed{config.seed}"
    return runs / name


def shared(config: TrainConfig | OnlineConfig) -> Hashable:
    """What configurations have in common that are computed together: all of it."""
    return config.fingerprint().spelled


def execute(configs: Sequence[TrainConfig | OnlineConfig], run: Run) -> None:
    """Train networks, or go on training them; one that is there is not trained again.

    Rows lie in the folder of the training, and among all other results. Of trainings
    that are done they are copied there: among them is the accuracy of the probe that
    was trained along, ``probe_top1`` on validation images, ``probe_epoch_top1`` on the
    views of the last epoch, each before the probe learned from it, and
    ``probe_train_top1`` on those of the last step that was recorded. The λ that acted,
    the equivariant share of the gradient, is ``effective_weight``.
    """
    for config in configs:
        if isinstance(config, OnlineConfig):
            with run.attempt(config.model):
                run.outcome.rows += _adopted(config.model, run)
                run.outcome.n_done += 1
        else:
            _train(config, run)


def _train(config: TrainConfig, run: Run) -> None:
    options = run.training or TrainOptions()
    folder = options.folder or training_folder(config, run.runs)

    def opened(name: str, seed: int = 0) -> ImageSet:
        # Trainings of a run that have the same images open them once.
        key = ("training images", name, config.view_size, seed)
        return run.once(key, lambda: open_images(name, config.view_size, seed))

    # What a command says of its one training is not kept beside the training.
    kept = [config] if run.training is None else []
    with run.attempt(str(folder), *kept):
        images = opened(config.images, config.seed)
        validation = None
        if options.validation is not None:
            validation = opened(options.validation)
        new = training_id(config, data_digest(images))
        store, rows = ResultStore(folder), None
        for config_id in (new, new.spelled):
            if rows := store.get(config.stage, config_id, TrainRow, run.notify):
                break
        weights = folder / EXPORTED, *folder.glob(f"{folder.name}_at_*/{EXPORTED}")
        wanted = run.force or run.training is not None
        if rows and not wanted and all(_is_whole(path, run.notify) for path in weights):
            run.outcome.n_stored += 1
        else:
            if kept:
                run.notify(f"training {folder}")
            rows = train(
                config,
                images,
                folder,
                options.hardware,
                validation=validation,
                hf=options.hf,
                recording=options.recording,
                score_every=options.score_every,
                notify=run.notify,
                progress=run.progress,
            )
            run.outcome.n_done += 1
            config_id = new
        if rows:  # another process may report for this one
            run.store.put(config.stage, config_id, config, rows)
            run.store.clear_failure(config.stage, config)
            run.outcome.rows += rows


def _is_whole(path: Path, notify: Notify) -> bool:
    """Whether exported weights are there and sound; of damaged ones it is told."""
    try:
        return path.is_file() and bool(read_checkpoint(path).state)
    except DataError as error:
        notify(f"{error}; they are exported again")
        return False


def free_memory(hardware: Hardware) -> tuple[int | None, int]:
    """Bytes that each process can take, if that is known, and how many there are."""
    kind, devices = resolve_devices(hardware)
    if kind == "cuda":
        import torch

        free: int | None = torch.cuda.mem_get_info()[0]
    else:
        free = available_memory()
        free = None if free is None else free // devices
    return free, devices * hardware.nodes


def training_id(config: TrainConfig, images: str) -> ConfigId:
    """Identity of a training on images of a digest."""
    return config.fingerprint(images=images, transforms=str(TRANSFORMS_VERSION))


def train(
    config: TrainConfig,
    images: ImageSet,
    folder: Path,
    hardware: Hardware | None = None,
    *,
    validation: ImageSet | None = None,
    hf: bool = False,
    recording: str | None = None,
    score_every: int | None = None,
    notify: Notify = print,
    progress: Progress = silent,
) -> list[TrainRow]:
    """Train a network, or go on training it, and export it.

    Where λ is drawn, the networks at every tenth are exported, see `networks_of_line`:
    that of the largest λ into `folder`, others into folders below it.

    With 0 epochs it is the network before training, whose first weights are those that
    the same settings with more epochs begin with; see `engine.untrained`.

    Parameters
    ----------
    config : settings
    images : to train on
    folder : of checkpoints, logs and ``model.safetensors``; its path names the network
    hardware, validation, hf, recording, score_every : as in `TrainOptions`
    notify, progress : told what a person should know, and of steps

    Returns
    -------
    The numbers at the end; they are also in the metadata of the weights.

    Raises
    ------
    ConfigError, DataError
        If settings, images or checkpoints do not fit.
    CeAlignError
        If the loss is not finite, the disk is full, or a signal asked to stop.
    """
    if hf:
        imported_timm("a folder for the hub")  # before hours of training
    digest = data_digest(images)
    if config.epochs:
        free, n_processes = free_memory(hardware or Hardware())
        if free is not None:
            StepMemory.of(config).check(config, free, n_processes)
        online = None
        if recording is not None:
            online = OnlineScore(recording, config.view_size, score_every)
        module = fit(
            config,
            images,
            folder,
            hardware,
            validation=validation,
            digest=digest,
            online=online,
            notify=notify,
            progress=progress,
        )
    else:
        module = untrained(config, images, folder, hardware, validation=validation)
        write_settings(folder / SETTINGS, config)
    if module.global_rank:
        return []
    passing = ("images_per_second", "learning_rate", "epoch")
    metrics = {k: v for k, v in module.latest.items() if k not in passing}
    if config.epochs and validation is not None:
        metrics |= module.accuracies()
    metadata = exported_metadata(module, digest, len(images), metrics)
    if config.weighting == "drawn":
        for weight in networks_of_line(module, images, hardware):
            place = folder
            # Numbers of the training are of no λ alone.
            metadata = exported_metadata(module, digest, len(images), {})
            if weight < config.equivariance_weight:
                place = folder / f"{folder.name}_at_{weight:g}"
                place.mkdir(exist_ok=True)
            save_safetensors(place / EXPORTED, exported_state(module), metadata)
    else:
        save_safetensors(folder / EXPORTED, exported_state(module), metadata)
    config_id = training_id(config, digest)
    # As every other stage will load it: the folder may hold another network later.
    name = plain_path(str(folder))
    network = load_network(name)
    rows = [
        TrainRow(
            model=name,
            metric=metric,
            value=value if math.isfinite(value) else None,
            config_id=config_id,
            seed=config.seed,
            data_digest=digest,
            n_images=len(images),
            n_validation=None if validation is None else len(validation),
            model_digest=network.digest,
            origin=images.origin,
            note=ALL_WEIGHTS if config.weighting == "drawn" else None,
            **network.facts.columns() | {"label": label_of(name)},
        )
        for metric, value in metrics.items()
    ]
    ResultStore(folder).put(config.stage, config_id, config, rows)
    if hf:
        share(network, folder / "hf", metadata, rows, notify=notify)
    return rows


def _adopted(model: str, run: Run) -> list[TrainRow]:
    stage = TrainConfig.stage
    documents = list(stored_documents(ResultStore(Path(model)), stage))
    if not documents:
        raise DataError(
            f"{model} has no {stage}/*.json; name the folder that `ce-align train` "
            "wrote"
        )
    rows: list[TrainRow] = []
    for document in documents:
        # The folder may have moved since; its path is the network's name.
        own = {"model": model, "label": run.labels.get(model) or label_of(model)}
        found = [TrainRow(**{**row, **own}) for row in document["rows"]]
        config = TrainConfig(**document["config"])
        run.store.put(stage, document["config_id"], config, found)
        rows += found
    return rows
