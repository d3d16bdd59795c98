"""Networks that torchvision can rebuild by name, with their weights."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.files import scratch_folder
from ce_align.models.catalogue import (
    EXPORTED,
    FILE_SUFFIXES,
    Published,
    find_published,
    is_cached,
)

if TYPE_CHECKING:
    from torch import nn

    from ce_align.models.networks import Network

__all__ = ["Rebuildable", "layer_statistics", "pattern", "rebuildable"]


@dataclass(frozen=True)
class Rebuildable:
    """A network and how to build it elsewhere.

    Attributes
    ----------
    model : its name
    network : with its weights
    architecture : torchvision's name, or ``tiny``
    n_classes : of the classifier; None without one
    published : the catalogue's entry, if it is one of the authors'
    training : settings stored with the weights of one's own training
    served : the file that its address serves already, if that is where it is from
    """

    model: str
    network: "Network"
    architecture: str
    n_classes: int | None
    published: Published | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    served: Path | None = None


@contextmanager
def rebuildable(
    model: str, address: Callable[[str], str | None]
) -> Iterator[Rebuildable]:
    """A network by its name, ready for export.

    A published network that is not on this machine is taken from where its weights are
    said to be served.

    Parameters
    ----------
    model : name of a network
    address : of the weights of a plugin, by its identifier; None if it has none

    Raises
    ------
    ConfigError
        If the network has no name in torchvision.
    AccessError
        If the weights are neither on this machine nor served.
    """
    published = find_published(model)
    if published is None:
        architecture, training = _described(model)
        yield _checked(model, _load(model), architecture, training=training)
        return
    url = address(published.name.replace(".", "_"))
    if url is None or is_cached(published):
        network = _load(published.name)
        yield _checked(model, network, published.architecture, published)
        return
    with scratch_folder("served") as scratch:
        file: Path | None = scratch / "served.safetensors"
        try:
            network = _served(published, url, scratch / "served.safetensors")
        except AccessError as unserved:
            try:
                network, file = _load(published.name), None
            except AccessError as absent:
                raise AccessError(f"{unserved}, and {absent}") from absent
        yield _checked(model, network, published.architecture, published, served=file)


def _load(model: str) -> "Network":
    from ce_align.models.load import load_network

    return load_network(model)


def _described(model: str) -> tuple[str, dict[str, Any]]:
    """Architecture of a network by its name, and the settings of its training."""
    prefix, slash, rest = model.partition("/")
    if slash and prefix == "torchvision":
        return rest.partition(":")[0], {}
    path = Path(model) / EXPORTED if (Path(model) / EXPORTED).is_file() else Path(model)
    name, _, stated = str(path).rpartition(":") if ":" in str(path) else (path, "", "")
    is_file = str(name).endswith(FILE_SUFFIXES) and not str(name).endswith(".py")
    if not is_file:
        raise ConfigError(
            f"{model} cannot be submitted: a plugin rebuilds its network from "
            "torchvision, so only published networks, torchvision/NAME, trainings and "
            "checkpoints can be exported"
        )
    metadata = _metadata(Path(name))
    architecture = stated or metadata.get("architecture", "")
    if not architecture:
        raise ConfigError(
            f"{name} does not say its architecture; name it: {name}:resnet50"
        )
    try:
        config = json.loads(metadata.get("config", "{}"))
    except ValueError:
        config = {}
    return architecture, config if isinstance(config, dict) else {}


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise DataError(f"{path} is absent or no safetensors file: {error}") from error


def _served(published: Published, url: str, target: Path) -> "Network":
    """A published network from the safetensors at `url`, kept at `target`."""
    import torch

    from ce_align.models.architectures import build_architecture
    from ce_align.models.checkpoints import read_checkpoint
    from ce_align.models.networks import Network

    try:
        torch.hub.download_url_to_file(url, str(target), progress=False)
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise AccessError(
            f"{url} does not serve the weights of {published.name} ({reason})"
        ) from error
    state = read_checkpoint(target).full_state
    module = build_architecture(published.architecture, state, url)
    if state.keys() != module.state_dict().keys():
        raise DataError(
            f"{url} holds other keys than {published.architecture}; serve the file "
            "that submit writes where the network is at hand"
        )
    return Network(published.name, module, layers=published.layers)


def _checked(
    model: str, network: "Network", architecture: str, *args: Any, **kwargs: Any
) -> Rebuildable:
    """The network, if torchvision rebuilds it exactly from its name."""
    import torch

    *_, (_, head) = network.module.named_children()
    sizes = [len(values) for values in head.parameters()]
    n_classes = sizes[-1] if sizes else None
    with torch.device("meta"):
        rebuilt = _rebuilt(model, architecture, n_classes)
    if n_classes is None:
        *_, (name, _) = rebuilt.named_children()
        setattr(rebuilt, name, torch.nn.Identity())
    if str(rebuilt) != str(network.module) or _shapes(rebuilt) != _shapes(
        network.module
    ):
        raise ConfigError(
            f"{model} cannot be submitted: it is not {architecture} as torchvision "
            "builds it by name, so a plugin could not rebuild it"
        )
    return Rebuildable(model, network, architecture, n_classes, *args, **kwargs)


def _rebuilt(model: str, architecture: str, n_classes: int | None) -> "nn.Module":
    from torchvision import models

    from ce_align.backbones import TinyResNet

    if architecture == "tiny":
        return TinyResNet(n_classes=n_classes or 1)
    options = {} if n_classes is None else {"num_classes": n_classes}
    try:
        rebuilt: nn.Module = models.get_model(architecture, weights=None, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{model} cannot be submitted: torchvision does not build {architecture} "
            f"({error})"
        ) from error
    return rebuilt


def _shapes(module: "nn.Module") -> dict[str, tuple[int, ...]]:
    return {name: tuple(values.shape) for name, values in module.state_dict().items()}


def pattern(size: int) -> NDArray[np.uint8]:
    """Image (size, size, 3) whose colours change smoothly, as a plugin's tests draw."""
    y, x = np.mgrid[:size, :size] / size
    colours = (np.sin(9 * x), np.cos(7 * y), np.sin(11 * (x + y)))
    pixels = np.stack([127 + 120 * colour for colour in colours], axis=-1)
    drawn: NDArray[np.uint8] = pixels.astype(np.uint8)
    return drawn


def layer_statistics(
    network: "Network", layers: Sequence[str]
) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each layer for the pattern.

    Parameters
    ----------
    network : the network
    layers : their names

    Returns
    -------
    statistics : (mean, standard deviation) by layer, to six digits
    """
    from ce_align.data.imagesets import ImageSet
    from ce_align.models.features import extract

    pixels = pattern(network.preprocessing.edge("a plugin"))
    images = ImageSet.from_array("pattern", pixels[None])
    found = extract(network, images, list(layers), device="cpu", cache=None)
    return {
        name: (
            float(f"{found[name].values.mean():.6g}"),
            float(f"{found[name].values.std():.6g}"),
        )
        for name in layers
    }
