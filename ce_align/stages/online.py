"""The probe that was trained along with a network, among all other results."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import ClassVar

from ce_align.config import StageConfig
from ce_align.errors import DataError
from ce_align.results import ResultStore
from ce_align.stages.earlier import stored_documents
from ce_align.stages.running import Run
from ce_align.stages.train import TrainRow
from ce_align.trainer.presets import TrainConfig

__all__ = ["OnlineConfig", "execute", "shared"]


class OnlineConfig(StageConfig):
    """Folder of a training, whose numbers at its end are copied to the store."""

    stage: ClassVar = "online"

    model: str


def shared(config: OnlineConfig) -> Hashable:
    """What configurations have in common that are read together: all of it."""
    return config


def execute(configs: Sequence[OnlineConfig], run: Run) -> None:
    """Copy the numbers at the end of trainings from their folders to the store.

    Among them is the accuracy of the probe that was trained along: ``probe_top1`` on
    validation images, ``probe_train_top1`` on the views of training.
    """
    for config in configs:
        with run.attempt(config.model):
            run.outcome.rows += _adopted(config.model, run.store)
            run.outcome.n_done += 1


def _adopted(model: str, store: ResultStore) -> list[TrainRow]:
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
        found = [TrainRow(**{**row, "model": model}) for row in document["rows"]]
        config = TrainConfig(**document["config"])
        store.put(stage, document["config_id"], config, found)
        rows += found
    return rows
