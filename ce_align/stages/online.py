"""The probe that was trained along with a network, among all other results."""

from collections.abc import Sequence
from pathlib import Path

from ce_align.errors import DataError
from ce_align.results import ResultStore
from ce_align.stages.train import STAGE as TRAIN
from ce_align.stages.train import TrainRow
from ce_align.trainer.presets import TrainConfig

__all__ = ["adopt_online"]


def adopt_online(models: Sequence[str], store: ResultStore) -> list[TrainRow]:
    """Copy the numbers at the end of trainings from their folders to the store.

    Among them is the accuracy of the probe that was trained along: ``probe_top1`` on
    validation images, ``probe_train_top1`` on the views of training.

    Parameters
    ----------
    models : folders of trainings
    store : where the rows go, as those of the stage ``train``

    Returns
    -------
    All rows, with objective and λ.

    Raises
    ------
    DataError
        If a folder has no numbers of a training.
    """
    rows: list[TrainRow] = []
    for model in models:
        documents = list(ResultStore(Path(model)).documents(TRAIN))
        if not documents:
            raise DataError(
                f"{model} has no {TRAIN}/*.json; name the folder that `ce-align train` "
                "wrote"
            )
        for document in documents:
            # The folder may have moved since; its path is the network's name.
            found = [TrainRow(**{**row, "model": model}) for row in document["rows"]]
            config = TrainConfig(**document["config"])
            store.put(TRAIN, document["config_id"], config, found)
            rows += found
    return rows
