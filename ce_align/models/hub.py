"""Networks of timm, and folders in the layout of the hub: read and written.

Such a folder has ``config.json`` (timm's architecture and preprocessing) and
``model.safetensors``; ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads
it, too. What we know beyond that (objective, λ, layers) stands in ``config.json`` under
``ce_align``.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from torch import nn

from ce_align.errors import AccessError, ConfigError, DataError, first_line
from ce_align.files import atomic_path, check_regular, read_text
from ce_align.models.architectures import (
    imported_timm,
    stage_layers,
    timm_network,
)
from ce_align.models.catalogue import EXPORTED
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.names import HUB, LOCAL_HUB, OWN_BACKBONES
from ce_align.results import NetworkFacts

__all__ = [
    *("fed_by_timm", "load_hub", "load_timm", "timm_preprocessing", "write_hub"),
]

Loaded = TypeVar("Loaded")

#: What timm notes of where weights are from: no part of what a network is.
PLACES = ("file", "source", "url", "hf_hub_id", "hf_hub_filename", "state_dict")

#: Seconds in which the hub must respond.
PATIENCE = 10


def load_timm(name: str, seed: int) -> Network:
    """Network of timm by its name, with ``:none`` of random weights."""
    architecture, _, wanted = name.partition(":")
    if wanted not in ("", "none"):
        raise ConfigError(f"timm/{name}: expected nothing or none after the colon")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = _cached_first(
                lambda: timm_network(architecture, pretrained=not wanted)
            )
        except (OSError, RuntimeError) as error:
            raise AccessError(
                f"the weights of timm/{name} are not on this machine and cannot be "
                f"downloaded: {first_line(error)}; use timm/{architecture}:none for "
                "random ones"
            ) from error
    backbone, _, tag = architecture.partition(".")
    stated: Any = module.pretrained_cfg
    facts = NetworkFacts(
        backbone=backbone,
        pretraining=str(stated.get("tag") or tag) or None,
    )
    if wanted:
        facts = NetworkFacts(
            backbone=backbone, epochs=0, pretraining="none", network_seed=seed
        )
    fed, layers = fed_by_timm(module, f"timm/{name}"), stage_layers(module)
    return Network(f"timm/{name}", module, fed, layers, facts=facts)


def load_hub(name: str) -> Network:
    """Network of ``hf-hub:OWNER/REPO`` (with ``@REVISION``), or ``local-dir:FOLDER``.

    Raises
    ------
    ConfigError
        If there is no such folder, or timm is not installed.
    AccessError
        If the repository is neither in the hub's cache nor within reach.
    DataError
        If the folder does not hold a network that timm builds.
    """
    timm = imported_timm(name)
    local = name.startswith(LOCAL_HUB)
    stated = name.removeprefix(LOCAL_HUB if local else HUB)
    folder = Path(stated) if local else _downloaded(stated)
    if not (folder / "config.json").is_file():
        raise ConfigError(f"there is no {folder / 'config.json'}, as the hub has")
    try:
        for file in folder.iterdir():  # timm may open any
            if not file.is_dir():
                check_regular(file)
        config = json.loads(read_text(folder / "config.json"))
        if not timm.is_model(config["architecture"]):
            raise DataError(
                f"timm has no network {config['architecture']!r}; if ce-align wrote "
                f"the folder, its name alone is that of the network: {folder}"
            )
        known = config.get("ce_align", {})
        layers = {str(k): str(v) for k, v in known.get("layers", {}).items()}
        module = timm.create_model(f"{LOCAL_HUB}{folder}", pretrained=True)
    except DataError:
        raise
    except Exception as error:  # timm raises whatever a file of others leads to
        raise DataError(
            f"{folder} holds no network that timm builds: "
            f"{first_line(error) or type(error).__name__}"
        ) from error
    # Equal weights are one network, wherever they lie.
    module.pretrained_cfg = module.default_cfg = {
        k: v for k, v in dict(module.pretrained_cfg).items() if k not in PLACES
    }
    facts = NetworkFacts(backbone=str(config["architecture"]))
    told = {k: v for k, v in known.get("facts", {}).items() if hasattr(facts, k)}
    facts = NetworkFacts(**{"backbone": facts.backbone, **told})
    fed = fed_by_timm(module, name)
    return Network(name, module, fed, layers or stage_layers(module), facts=facts)


def _downloaded(repository: str) -> Path:
    """Folder of a repository in the hub's cache, where it is brought if it is not."""
    import huggingface_hub as hub
    from huggingface_hub.errors import EntryNotFoundError

    name, _, revision = repository.partition("@")

    def bring(file: str) -> Path:
        return Path(hub.hf_hub_download(name, file, revision=revision or None))

    def whole() -> Path:
        config, missing = bring("config.json"), None
        for weights in (EXPORTED, "pytorch_model.bin"):
            try:
                if bring(weights).parent == config.parent:
                    return config.parent
            except EntryNotFoundError as error:
                missing = missing or error
        raise missing or EntryNotFoundError(f"{repository} has no {EXPORTED}")

    try:
        return _cached_first(whole)
    except Exception as error:  # of the hub's client, or of its transport
        raise AccessError(
            f"{HUB}{repository} is neither in the hub's cache nor to be had: "
            f"{first_line(error)}"
        ) from error


def _cached_first(load: Callable[[], Loaded]) -> Loaded:
    """Load from the hub's cache or, if something is not there, from the hub.

    The hub's client asks the hub for what it has, too, and offline asks for minutes.
    """
    import requests
    from huggingface_hub import constants
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    stated: bool = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        return load()
    except (LocalEntryNotFoundError, OfflineModeIsEnabled):
        if stated:
            raise
    finally:
        constants.HF_HUB_OFFLINE = stated
    try:
        requests.head(constants.ENDPOINT, timeout=PATIENCE)
    except requests.RequestException:
        raise ConnectionError(f"{constants.ENDPOINT} is out of reach") from None
    return load()


def fed_by_timm(module: nn.Module, name: str) -> Preprocessing:
    """Size and colours that timm states, of whole images."""
    stated = _stated_input(module, name)
    return Preprocessing(
        input_size=stated["input_size"][1:], mean=stated["mean"], std=stated["std"]
    )


def _stated_input(module: nn.Module, name: str) -> dict[str, Any]:
    found = imported_timm(name).data.resolve_model_data_config(module)
    return dict(found)


def timm_preprocessing(module: nn.Module, name: str) -> Preprocessing:
    """What timm states of a network's input: size, colours, interpolation and crop.

    Raises
    ------
    ConfigError
        If the network is not timm's.
    DataError
        If it is fed in a way that we do not know.
    """
    if not getattr(module, "pretrained_cfg", None):
        raise ConfigError(
            f"{name} is no network of timm, which would state its preprocessing"
        )
    stated = _stated_input(module, name)
    try:
        return Preprocessing(
            input_size=stated["input_size"][1:],
            mean=stated["mean"],
            std=stated["std"],
            interpolation=stated["interpolation"],
            crop_pct=stated["crop_pct"],
            crop_mode=stated["crop_mode"],
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise DataError(
            f"{name} is fed in a way that is not known here: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error


def write_hub(
    network: Network,
    folder: Path,
    card: Callable[[bool], str],
    metadata: Mapping[str, Any],
) -> bool:
    """Write a network as a folder of the hub.

    Parameters
    ----------
    card : gives README.md, told whether timm loads the folder
    metadata : of ``model.safetensors``, by which the folder is a network here, too

    Returns
    -------
    Whether timm loads it. An architecture that is ours alone is loaded here.

    Raises
    ------
    ConfigError
        If nobody could build the network again, or timm is not installed.
    """
    module, state = network.module, network.module.state_dict()
    architecture = network.facts.backbone or ""
    fed = network.preprocessing
    data = {
        "input_size": [3, *fed.size],
        "mean": list(fed.mean),
        "std": list(fed.std),
        "interpolation": fed.interpolation,
        # Without a crop, the whole image is squeezed into the input.
        "crop_pct": fed.crop_pct or 1.0,
        "crop_mode": fed.crop_mode if fed.crop_pct else "squash",
    }
    facts = {k: v for k, v in network.facts.columns().items() if v is not None}
    ours = {"layers": dict(network.layers), "facts": facts}
    twin = module if hasattr(module, "pretrained_cfg") else _twin(architecture, state)
    if hasattr(module, "pretrained_cfg"):
        said = dict(metadata)
    elif _is_known(architecture):  # here it is built by its name
        said = {"architecture": architecture, **metadata}
    else:
        raise ConfigError(
            f"nobody could build {network.name} again from a folder: its architecture "
            f"{architecture or 'has no name'} is neither torchvision's nor timm's"
        )
    with atomic_path(folder / "config.json") as temporary:
        if twin is None:
            whole = {**said, "ce_align": ours}
            temporary.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
        else:
            from timm.models._hub import save_config_for_hf

            given = {"pretrained_cfg": data, "ce_align": ours}
            save_config_for_hf(twin, str(temporary), model_config=given)
    save_safetensors(folder / EXPORTED, state, said)
    with atomic_path(folder / "README.md") as temporary:
        temporary.write_text(card(twin is not None), encoding="utf-8")
    return twin is not None


def _is_known(architecture: str) -> bool:
    from ce_align.vision import models

    known = {*OWN_BACKBONES, *models.list_models(module=models)}
    return architecture in known


def _twin(architecture: str, state: Mapping[str, torch.Tensor]) -> nn.Module | None:
    """Network of timm with these weights, whose keys are torchvision's; or None."""
    timm = imported_timm("a folder for the hub")
    # Others of the same name, such as vision transformers, have other keys.
    if not architecture or not timm.is_model(architecture):
        return None
    head = state.get("fc.weight")
    n_classes = 0 if head is None else len(head)
    with torch.random.fork_rng(devices=[]):
        module: nn.Module = timm.create_model(architecture, num_classes=n_classes)
    try:
        module.load_state_dict(dict(state))
    except RuntimeError:
        return None
    return module.eval()
