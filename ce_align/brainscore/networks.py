"""Brain-Score's networks as ours."""

import re
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ce_align.brainscore.brainmodels import REGIONS
from ce_align.brainscore.upstream import import_brainscore
from ce_align.checks import nearest_names
from ce_align.errors import AccessError, CeAlignError, ConfigError

if TYPE_CHECKING:
    from ce_align.models.networks import Network
    from ce_align.models.preprocessing import Preprocessing

__all__ = ["load_brainscore_network"]


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
    existing = {layer for layer, _ in wrapper._model.named_modules()}
    layers = {
        region: layer
        for region, layer in _region_layers(commitment).items()
        if region in REGIONS and layer in existing
    }
    return Network(f"brainscore/{name}", wrapper._model, preprocessing, layers)


def _load_plugin(name: str, seed: int) -> Any:
    import torch

    brainscore = import_brainscore()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # plugins use much that is deprecated
            torch.manual_seed(seed)
            brainscore.import_plugin("brainscore_vision", "models", name)
            return brainscore.model_registry[name]()
    except AssertionError as error:
        known = _registered_networks()
        if name in known:
            raise
        near = ", ".join(nearest_names(name, known))
        raise ConfigError(
            f"Brain-Score has no network {name!r}; nearest: {near}"
        ) from error
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


def _registered_networks() -> list[str]:
    """Identifiers that Brain-Score's model plugins register, without running them."""
    folder = Path(str(import_brainscore().__file__)).parent / "models"
    pattern = re.compile(r"""^model_registry\[['"]([^'"]+)['"]\]""", re.MULTILINE)
    return [
        name
        for path in sorted(folder.glob("*/__init__.py"))
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    ]


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


def _region_layers(commitment: Any) -> dict[str, str]:
    """Layers already committed; Brain-Score would otherwise search for them."""
    model = commitment.layer_model
    model = getattr(model, "_layer_model", model)
    found = dict(getattr(model, "region_layer_map", {}))
    return {region: layer for region, layer in found.items() if isinstance(layer, str)}
