"""Training: settings in, a network that every other stage can name, and rows."""

import json
import math
from collections.abc import Callable
from pathlib import Path

from ce_align.augment import TRANSFORMS_VERSION
from ce_align.data.imagesets import ImageSet
from ce_align.files import atomic_path
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.load import load_network
from ce_align.results import ResultStore, Row
from ce_align.trainer.engine import fit
from ce_align.trainer.export import (
    EXPORTED,
    exported_metadata,
    exported_state,
    model_card,
)
from ce_align.trainer.hardware import Hardware
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.untrained import untrained
from ce_align.trainer.views import data_digest

__all__ = ["TrainRow", "train"]

STAGE = "train"


class TrainRow(Row):
    """One number at the end of a training.

    Attributes
    ----------
    objective, equivariance_weight, backbone, epochs, seed : settings
    data_digest : of the images
    n_images : in the data set
    model_digest : of the network that was exported; None in rows of ce_align 0.1
    """

    objective: str
    equivariance_weight: float
    backbone: str
    epochs: int
    seed: int
    data_digest: str
    n_images: int
    model_digest: str | None = None


def train(
    config: TrainConfig,
    images: ImageSet,
    folder: Path,
    hardware: Hardware | None = None,
    *,
    validation: ImageSet | None = None,
    hf: bool = False,
    notify: Callable[[str], None] = print,
) -> list[TrainRow]:
    """Train a network, or go on training it, and export it.

    With 0 epochs it is the network before training, whose first weights are those that
    the same settings with more epochs begin with; see `ce_align.trainer.untrained`.

    Parameters
    ----------
    config : settings
    images : to train on
    folder : of checkpoints, logs and ``model.safetensors``; its path names the network
    hardware : where and how
    validation : labelled images for probe and nearest neighbours
    hf : write a folder ``hf`` for sharing, too: weights, config and card
    notify : told what a person should know

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
    digest = data_digest(images)
    if config.epochs:
        module = fit(
            config,
            images,
            folder,
            hardware,
            validation=validation,
            digest=digest,
            notify=notify,
        )
    else:
        module = untrained(config, images, folder, hardware, validation=validation)
    if module.global_rank:
        return []
    passing = ("images_per_second", "learning_rate", "epoch")
    metrics = {k: v for k, v in module.latest.items() if k not in passing}
    if config.epochs and validation is not None:
        metrics |= module.accuracies()
    state = exported_state(module)
    metadata = exported_metadata(module, digest, len(images), metrics)
    save_safetensors(folder / EXPORTED, state, metadata)
    if hf:
        save_safetensors(folder / "hf" / EXPORTED, state, metadata)
        _write(folder / "hf" / "config.json", json.dumps(metadata, indent=1) + "\n")
        _write(folder / "hf" / "README.md", model_card(folder.name, metadata))
    config_id = config.fingerprint(images=digest, transforms=str(TRANSFORMS_VERSION))
    # As every other stage will load it: the folder may hold another network later.
    model_digest = load_network(str(folder)).digest
    rows = [
        TrainRow(
            model=str(folder),
            metric=name,
            value=value if math.isfinite(value) else None,
            config_id=config_id,
            objective=config.objective,
            equivariance_weight=config.equivariance_weight,
            backbone=config.backbone,
            epochs=config.epochs,
            seed=config.seed,
            data_digest=digest,
            n_images=len(images),
            model_digest=model_digest,
        )
        for name, value in metrics.items()
    ]
    ResultStore(folder).put(STAGE, config_id, config, rows)
    return rows


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text)
