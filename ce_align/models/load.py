"""From names to networks: published, of libraries, of checkpoints, of users' files."""

import inspect
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from pydantic import Field, ValidationError
from torch import nn

from ce_align.checks import named_some, nearest_names
from ce_align.errors import ConfigError, DataError
from ce_align.foreign import guard, guarded, quiet_stdout
from ce_align.models.architectures import (
    build_architecture,
    fitting_architecture,
    gabor,
    pixels,
    stage_layers,
    torchvision_network,
    torchvision_weights,
    v1_like,
)
from ce_align.models.catalogue import (
    EXPORTED,
    FILE_SUFFIXES,
    GROUPS,
    PUBLISHED,
    Published,
    find_published,
    stated_settings,
    training_facts,
)
from ce_align.models.checkpoints import read_checkpoint
from ce_align.models.fetching import fetch
from ce_align.models.given import FEATURE_FILES
from ce_align.models.hub import (
    fed_by_timm,
    load_hub,
    load_timm,
    timm_preprocessing,
)
from ce_align.models.localcode import LocalCode
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.models.untrained import untrained
from ce_align.names import (
    BRAIN,
    FEATURES,
    HUB,
    LOCAL_HUB,
    REFERENCES,
    UNTRAINED,
    NetworkName,
    split_name,
)
from ce_align.progress import Progress, silent
from ce_align.results import NetworkFacts

__all__ = [
    *("SOURCES", "Loader", "described_network", "load_network", "named_part"),
    "register_source",
]


class Description(Preprocessing):
    """What the attribute ``ce_align`` of a user's module may say."""

    layers: dict[str, str] = Field(default_factory=dict)


def described_network(
    name: str, module: nn.Module, description: Any, code: LocalCode | None = None
) -> Network:
    """Network from a module and what it says of its input and layers.

    Any of ``input_size``, ``mean``, ``std`` (of RGB in [0, 1]), ``interpolation`` and
    ``layers`` (region to layer); the rest is ImageNet's.
    """
    try:
        checked = Description.model_validate(description)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "it"
        message = first["msg"].removeprefix("Value error, ")
        raise DataError(
            f"{name} describes itself wrongly: {where}: {message}; expected "
            f"{', '.join(Description.model_fields)}"
        ) from error
    values = checked.model_dump()
    layers = values.pop("layers")
    return Network(name, module, Preprocessing(**values), layers, code)


def _load_user_file(path: Path, attribute: str, *, seed: int = 0) -> Network:
    """Network that a callable of a Python file returns.

    The callable takes no argument and returns a torch module, which may carry an
    attribute ``ce_align`` with its description. Random weights follow from `seed`; the
    global generator is left as it was. The file runs with its own folder importable.
    """
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    name = f"{path}:{attribute}"
    code = LocalCode(path)
    with guard(name), quiet_stdout(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        with code.loading() as file:
            module = _callable(file, attribute, path)()
        if not isinstance(module, nn.Module):
            raise DataError(
                f"{name} returned a {type(module).__name__}; expected a torch.nn.Module"
            )
        return described_network(name, module, getattr(module, "ce_align", {}), code)


def _callable(module: ModuleType, attribute: str, path: Path) -> Callable[[], Any]:
    build = getattr(module, attribute, None)
    own = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", "") == module.__name__
    ]
    if not callable(build):
        near = nearest_names(attribute, own) or own
        raise ConfigError(
            f"{path} has no callable {attribute!r}; it has {', '.join(near) or 'none'}"
        )
    required = [
        parameter.name
        for parameter in inspect.signature(build).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    if required:
        raise ConfigError(
            f"{path}:{attribute} needs the arguments {', '.join(required)}; name a "
            "callable that needs none"
        )
    found: Callable[[], Any] = build
    return found


#: Takes what follows ``prefix/`` and the seed of random weights.
Loader = Callable[[str, int], Network]

_log = logging.getLogger(__name__)

#: Metadata of a safetensors file that describes a network's input and layers.
DESCRIBED = ("input_size", "mean", "std", "interpolation", "layers")


def _load_torchvision(name: str, seed: int) -> Network:
    architecture, _, wanted = name.partition(":")
    random = wanted == "none"
    weights = torchvision_weights(
        architecture, "DEFAULT" if random else wanted or "DEFAULT"
    )
    expected = weights.transforms()
    module = torchvision_network(
        architecture, weights=None if random else weights, seed=seed
    )
    preprocessing = Preprocessing(
        input_size=expected.crop_size[0],
        mean=tuple(expected.mean),
        std=tuple(expected.std),
    )
    facts = _backbone_facts(architecture, None if random else weights.name, seed)
    layers = stage_layers(module)
    return Network(f"torchvision/{name}", module, preprocessing, layers, facts=facts)


def _backbone_facts(backbone: str, weights: str | None, seed: int) -> NetworkFacts:
    """Facts of a library's network, with its weights by name or random ones."""
    if weights is None:
        return NetworkFacts(
            backbone=backbone, epochs=0, pretraining="none", network_seed=seed
        )
    return NetworkFacts(backbone=backbone, pretraining=weights or None)


#: Loader of each prefix of names.
SOURCES: dict[str, Loader] = {"torchvision": _load_torchvision, "timm": load_timm}


def register_source(prefix: str, loader: Loader) -> None:
    """Let ``prefix/NAME`` name networks.

    Parameters
    ----------
    prefix : without slash
    loader : takes NAME and the seed of random weights; called when one is asked for
    """
    SOURCES[prefix] = guarded(loader, f"the network source {prefix!r}", Network)


def load_network(name: str, *, seed: int = 0, progress: Progress = silent) -> Network:
    """Network by its name.

    Parameters
    ----------
    name
        a published network or its Brain-Score identifier, downloaded if it is not on
        this machine; ``torchvision/NAME`` with
        ``:WEIGHTS`` or ``:none`` (random); ``timm/NAME``; a registered source;
        ``hf-hub:OWNER/REPO`` or ``local-dir:FOLDER``, as timm knows them;
        ``checkpoint.safetensors`` or ``checkpoint.pt:architecture``, with ``@teacher``
        for one of several networks in it; the folder of a training;
        ``file.py:callable``; ``pixels``; ``gabor``; ``v1_like``. With ``@PART`` it is a
        part of that network, with ``+timm`` it is fed as timm states;
        ``untrained/SEED:NAME`` is any of these with its weights drawn anew
    seed : of random weights
    progress : told of megabytes while a published network is downloaded

    Raises
    ------
    ConfigError
        If the name means no network; with the nearest names.
    DataError
        If a file does not hold the network it should.
    AccessError
        If weights are neither on this machine nor can be downloaded.
    """
    asked = split_name(name)
    source = asked.source
    file = source.partition(":")[0]
    if asked.part and file.endswith(FILE_SUFFIXES) and not file.endswith(".py"):
        # Of a checkpoint, the weights of one of several networks, such as a teacher's.
        source += f"{'' if ':' in source else ':'}@{asked.part}"
        asked = asked._replace(part="")
    found = _load_source(source, name, seed, progress)
    return named_part(found, asked, name)


def named_part(whole: Network, asked: NetworkName, name: str) -> Network:
    """The part of a network that a name asks for, with the preprocessing that it does.

    Raises
    ------
    ConfigError
        If there is no such part, or timm states no preprocessing.
    """
    found = whole.part(asked.part) if asked.part else whole
    if asked.timm:
        fed = timm_preprocessing(whole.module, whole.name)
        found = replace(found, preprocessing=fed)
    return replace(found, name=name) if asked.part or asked.timm else found


def _load_source(source: str, name: str, seed: int, progress: Progress) -> Network:
    entry = find_published(source)
    if entry is not None:
        return _load_published(entry, progress)
    if source.startswith(BRAIN):
        raise ConfigError(
            f"{name} is of animals, which have a score but are no network: ce-align "
            "score --brain"
        )
    if source.startswith(UNTRAINED):
        return untrained(
            source, lambda behind: load_network(behind, seed=seed, progress=progress)
        )
    if source in REFERENCES:
        return {"pixels": pixels, "gabor": gabor, "v1_like": v1_like}[source]()
    if source.startswith((HUB, LOCAL_HUB)):
        return load_hub(source)
    file, _, option = source.rpartition(":") if ":" in source else (source, "", "")
    if source.startswith(FEATURES) or file.endswith(FEATURE_FILES[:-1]):
        raise ConfigError(
            f"{name} has features, which have a score but are no network: "
            "ce-align score --features FILE"
        )
    if file.endswith(".py"):
        if not option:
            raise ConfigError(
                f"name the callable that builds the network: {source}:NAME"
            )
        return _load_user_file(Path(file), option, seed=seed)
    if file.endswith(FILE_SUFFIXES):
        return _load_file(name, Path(file), option)
    if (Path(source) / EXPORTED).is_file():
        return _load_file(name, Path(source) / EXPORTED, "")
    prefix, slash, rest = source.partition("/")
    if slash and prefix in SOURCES:
        return SOURCES[prefix](rest, seed)
    known = [*PUBLISHED, *REFERENCES, *(f"{p}/{rest}" for p in SOURCES if slash)]
    if source in GROUPS:
        raise ConfigError(f"{source} is a group of networks; name one of them here")
    raise ConfigError(
        f"no network is called {source!r}; nearest: "
        f"{', '.join(nearest_names(source, known)) or named_some(known)}; sources: "
        f"{', '.join(f'{p}/NAME' for p in SOURCES)}, {HUB}OWNER/REPO, "
        f"{LOCAL_HUB}FOLDER, checkpoints ({', '.join(FILE_SUFFIXES[:2])}, …), "
        "file.py:callable"
    )


def _load_published(entry: Published, progress: Progress) -> Network:
    path = fetch(entry, progress=progress)
    state = read_checkpoint(path).state
    module = build_architecture(entry.architecture, state, str(path))
    return Network(entry.name, module, layers=entry.layers, facts=entry.facts)


def _load_file(name: str, path: Path, option: str) -> Network:
    architecture, _, choice = option.partition("@")
    if not path.is_file():
        raise ConfigError(f"there is no file {path}")
    checkpoint = read_checkpoint(path)
    metadata: dict[str, Any] = dict(checkpoint.metadata)
    architecture = architecture or str(metadata.get("architecture", ""))
    listed = path.name == EXPORTED and (path.parent / "config.json").is_file()
    if not architecture and listed:  # a folder of the hub
        return replace(load_hub(f"{LOCAL_HUB}{path.parent}"), name=name)
    if not architecture:
        found = fitting_architecture(checkpoint.state)
        raise ConfigError(
            f"{path} does not say its architecture; "
            + (
                f"its weights have the shapes of {found}: {path}:{found}"
                if found
                else f"name it, such as resnet50: {path}:ARCHITECTURE; or give "
                "FILE.py:FUNCTION, which returns a network of your own with its weights"
            )
        )
    said: list[str] = []
    module = build_architecture(
        architecture, checkpoint.state, str(path), choice, said.append
    )
    for text in said:
        _log.warning(text)
    described = {key: metadata[key] for key in DESCRIBED if key in metadata}
    usual = {"layers": stage_layers(module)}
    if hasattr(module, "pretrained_cfg"):
        usual |= fed_by_timm(module, name).model_dump()
    description = {**usual, **described}
    network = described_network(name, module, description)
    backbone = architecture.removeprefix("timm/")
    facts = training_facts({"backbone": backbone, **stated_settings(metadata)})
    return replace(network, remark="; ".join(said), facts=facts)
