"""Our networks as Brain-Score's brain models, and Brain-Score's networks as ours."""

import copy
import re
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.upstream import import_brainscore, installed_plugins
from ce_align.checks import named_some, nearest_names
from ce_align.errors import AccessError, CeAlignError, ConfigError
from ce_align.files import read_bytes

if TYPE_CHECKING:
    from ce_align.models.networks import Network
    from ce_align.models.preprocessing import Preprocessing

__all__ = ["REGIONS", "Region", "brain_model", "load_brainscore_network"]

#: Regions that a brain model of Brain-Score commits layers to.
Region = Literal["V1", "V2", "V4", "IT"]
REGIONS: tuple[Region, ...] = ("V1", "V2", "V4", "IT")


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
    layers : region to layer, instead of the network's own
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
    # It becomes part of file names.
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", network.name).strip("-")
    identifier = f"{readable}-{network.digest}"
    module = network.module
    if next(module.parameters(), None) is None:
        # Brain-Score asks the first parameter for the precision of inputs.
        module = copy.deepcopy(module)
        module.register_parameter("unused", torch.nn.Parameter(torch.empty(0)))
    wrapper = pytorch.PytorchWrapper(
        identifier=identifier,
        model=module,
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


def _prepare(paths: Sequence[str], network: "Network") -> NDArray[np.float32]:
    """Input (n, channels, height, width) of a network from image files."""
    from ce_align.data.imagesets import decode_image
    from ce_align.models.activations import network_inputs

    images = [decode_image(read_bytes(Path(path)), str(path)) for path in paths]
    pixels = np.stack([network.preprocessing.resize(image) for image in images])
    device = next((str(p.device) for p in network.module.parameters()), "cpu")
    inputs = network_inputs(network.module, network.preprocessing, pixels, device)
    # Brain-Score gives them the precision of the weights again.
    prepared: NDArray[np.float32] = inputs.float().cpu().numpy()
    return prepared


def load_brainscore_network(name: str, seed: int = 0) -> "Network":
    """Network ``brainscore/NAME`` with the layers that Brain-Score commits.

    The published contrastive-equivariant networks come from our own catalogue: their
    plugins in Brain-Score would execute code in the authors' pickles.

    Parameters
    ----------
    name : identifier in Brain-Score's registry
    seed : of random weights

    Raises
    ------
    ConfigError
        If there is no such network, or it is no torch network on images that are
        resized and normalised.
    AccessError
        If its weights are not here and cannot be downloaded.
    CeAlignError
        If it needs a package that is not installed.
    """
    from ce_align.models.catalogue import find_published
    from ce_align.models.load import load_network
    from ce_align.models.networks import Network

    published = find_published(name)
    if published is not None:
        return load_network(published.name, seed=seed)
    commitment = _load_plugin(name, seed)
    wrapper = getattr(commitment, "activations_model", None)
    pytorch = import_brainscore("model_helpers.activations.pytorch")
    if not isinstance(wrapper, pytorch.PytorchWrapper):
        raise ConfigError(
            f"brainscore/{name} is not a torch network on images ("
            f"{type(wrapper or commitment).__name__}); score it with Brain-Score itself"
        )
    preprocessing = _preprocessing(name, wrapper._extractor.preprocess)
    # Layers already committed; Brain-Score would otherwise search for them.
    model = getattr(commitment.layer_model, "_layer_model", commitment.layer_model)
    committed = dict(getattr(model, "region_layer_map", {}))
    existing = {layer for layer, _ in wrapper._model.named_modules()}
    layers: dict[str, str] = {
        region: layer
        for region, layer in committed.items()
        if region in REGIONS and isinstance(layer, str) and layer in existing
    }
    return Network(f"brainscore/{name}", wrapper._model, preprocessing, layers)


def _load_plugin(name: str, seed: int) -> Any:
    import torch

    brainscore = import_brainscore()
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(action="ignore"),  # plugins use what is deprecated
        ):
            torch.manual_seed(seed)
            brainscore.import_plugin("brainscore_vision", "models", name)
            return brainscore.model_registry[name]()
    except AssertionError as error:
        known = installed_plugins("model")
        if name in known:
            raise
        near = ", ".join(nearest_names(name, known))
        message = f"Brain-Score has no network {name!r}; nearest: {near}"
        raise ConfigError(message) from error
    except ImportError as error:
        raise CeAlignError(
            f"brainscore/{name} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:
        # Brain-Score wraps failed downloads in bare exceptions; others keep their type.
        if not isinstance(error, OSError) and type(error) is not Exception:
            raise
        first = str(error).partition("\n")[0]
        raise AccessError(
            f"the weights of brainscore/{name} are not on this machine and cannot be "
            f"downloaded: {first}"
        ) from error


def _preprocessing(name: str, prepare: Any) -> "Preprocessing":
    """Settings of Brain-Score's usual preparation of images."""
    from ce_align.models.preprocessing import Preprocessing

    pytorch = import_brainscore("model_helpers.activations.pytorch")
    settings = dict(getattr(prepare, "keywords", {}))
    usual = (
        getattr(prepare, "func", None) is pytorch.load_preprocess_images
        and not prepare.args
        and settings.pop("preprocess_type", "imagenet") == "imagenet"
        and set(settings) <= {"image_size", "normalize_mean", "normalize_std"}
        and isinstance(settings.get("image_size"), int)
    )
    if not usual:
        raise ConfigError(
            f"brainscore/{name} prepares images in a way of its own, which is not "
            "reproduced here; score it with Brain-Score itself"
        )
    normalisation: dict[str, Any] = {
        ours: tuple(settings[theirs])
        for ours, theirs in (("mean", "normalize_mean"), ("std", "normalize_std"))
        if theirs in settings
    }
    return Preprocessing(input_size=settings["image_size"], **normalisation)
