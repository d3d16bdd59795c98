"""The network before training, which trained ones are compared with."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer.batchnorm import ViewBatchNorm
from ce_align.trainer.checkpointing import checkpoint_paths
from ce_align.trainer.hardware import Hardware
from ce_align.trainer.health import health_of
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import Embeddings, PairedNetwork
from ce_align.trainer.online import normalise_pixels
from ce_align.trainer.preparation import Prepared
from ce_align.trainer.presets import TrainConfig
from ce_align.trainer.rendering import PixelBatch

__all__ = ["calibrate", "untrained"]

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
