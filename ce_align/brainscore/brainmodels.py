"""Our networks as Brain-Score's brain models."""

import copy
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.upstream import import_brainscore
from ce_align.checks import named_some
from ce_align.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from ce_align.models.networks import Network

__all__ = ["REGIONS", "brain_model"]

#: Regions that a brain model of Brain-Score commits layers to.
REGIONS = ("V1", "V2", "V4", "IT")


def brain_model(
    network: "Network",
    *,
    layers: Mapping[str, str] | None = None,
    degrees: float = 8,
    batch_size: int = 16,
    device: str | None = None,
) -> Any:
    """Brain-Score ``ModelCommitment`` of a network.

    Its identifier ends in the digest of weights and preprocessing, because Brain-Score
    caches activations and scores by that name alone.

    Parameters
    ----------
    network : the network
    layers : region (V1, V2, V4, IT) to layer, instead of the network's own
    degrees : visual angle that the network's input stands for
    batch_size : images at once, also those of Brain-Score's trial run for memory
    device : of torch; None for Brain-Score's choice, which is a GPU if there is one

    Raises
    ------
    ConfigError
        If no layer is committed to any region, or a layer does not exist.
    """
    import torch

    committed = dict(network.layers if layers is None else layers)
    if not committed:
        raise ConfigError(
            f"{network.name} commits no layer to a region; name one, such as "
            f"{named_some(network.block_names()[::-1])}"
        )
    unknown = sorted(set(committed) - set(REGIONS))
    if unknown:
        raise ConfigError(f"no region is called {unknown}; regions are {REGIONS}")
    network.check_layers(list(committed.values()))
    pytorch = import_brainscore("model_helpers.activations.pytorch")
    transformation = import_brainscore("model_helpers.brain_transformation")
    identifier = _identifier(network)
    wrapper = pytorch.PytorchWrapper(
        identifier=identifier,
        model=_with_parameters(network.module),
        preprocessing=partial(_prepare, network=network),
        batch_size=batch_size,
    )
    wrapper.image_size = network.preprocessing.input_size
    if device is not None:
        wrapper._device = torch.device(device)
        wrapper._model.to(device)
    return transformation.ModelCommitment(
        identifier=identifier,
        activations_model=wrapper,
        layers=list(dict.fromkeys(committed.values())),
        region_layer_map=committed,
        visual_degrees=degrees,
    )


def _with_parameters(module: "nn.Module") -> "nn.Module":
    """The module, or a copy with an empty parameter if it has none.

    Brain-Score asks the first parameter for the precision of inputs.
    """
    import torch

    if next(module.parameters(), None) is not None:
        return module
    module = copy.deepcopy(module)
    module.register_parameter("unused", torch.nn.Parameter(torch.empty(0)))
    return module


def _identifier(network: "Network") -> str:
    # It becomes part of file names.
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", network.name).strip("-")
    return f"{readable}-{network.digest}"


def _prepare(paths: Sequence[str], network: "Network") -> NDArray[np.float32]:
    """Input (n, channels, height, width) of a network from image files."""
    from ce_align.data.imagesets import decode_image
    from ce_align.models.activations import network_inputs

    images = [decode_image(Path(path).read_bytes(), str(path)) for path in paths]
    pixels = np.stack([network.preprocessing.resize(image) for image in images])
    device = next((str(p.device) for p in network.module.parameters()), "cpu")
    inputs = network_inputs(network.module, network.preprocessing, pixels, device)
    # Brain-Score gives them the precision of the weights again.
    prepared: NDArray[np.float32] = inputs.float().cpu().numpy()
    return prepared
