"""Networks of torchvision by name, and weights fitted into them."""

import sys
from collections import Counter
from collections.abc import Mapping
from typing import Any, cast

import torch

from ce_align.backbones import TinyResNet
from ce_align.checks import named_some, nearest_names
from ce_align.errors import AccessError, ConfigError, DataError

__all__ = [
    "build_architecture",
    "stage_layers",
    "torchvision_network",
    "torchvision_weights",
]

#: Stages of a residual network by depth. A convention, not a fitted commitment.
STAGES = {"V1": "layer1", "V2": "layer2", "V4": "layer3", "IT": "layer4"}


def stage_layers(module: torch.nn.Module) -> dict[str, str]:
    """Layer of each region in a residual network of four stages; none in others."""
    names = dict(module.named_children())
    return dict(STAGES) if set(STAGES.values()) <= names.keys() else {}


def _check_name(name: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = nearest_names(name, known) or known
        raise ConfigError(
            f"torchvision has no network {name!r}; nearest: {named_some(near)}"
        )


def torchvision_weights(name: str, weights: str = "DEFAULT") -> Any:
    """Torchvision's description of published weights: address, size, normalisation.

    Raises
    ------
    ConfigError
        If there is no such network, or it has no such weights; with the nearest.
    """
    from torchvision import models

    _check_name(name)
    published = models.get_model_weights(name)
    if weights not in published.__members__:
        known = [*published.__members__, "none"]
        raise ConfigError(
            f"torchvision has no weights {weights!r} for {name}; choose from "
            f"{', '.join(known)}"
        )
    return published[weights]


def torchvision_network(
    name: str, n_classes: int | None = None, *, weights: Any = None, seed: int = 0
) -> torch.nn.Module:
    """Network of torchvision in evaluation mode.

    Parameters
    ----------
    name : torchvision's name
    n_classes : of its classifier; None for that of the weights
    weights : from :func:`torchvision_weights`; None for random ones
    seed : of the random weights; the global generator is left as it was

    Raises
    ------
    ConfigError
        If torchvision has no such network; with the nearest names.
    AccessError
        If the weights are not on this machine and cannot be downloaded.
    """
    from torchvision import models

    _check_name(name)
    options: dict[str, Any] = {} if n_classes is None else {"num_classes": n_classes}
    if weights is not None:
        options["progress"] = sys.stderr.isatty()
    elif name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # otherwise they warn and do the same
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = models.get_model(name, weights=weights, **options)
        except (OSError, RuntimeError) as error:
            if weights is None:
                raise
            raise AccessError(
                f"the weights of torchvision/{name} are not on this machine and "
                f"cannot be downloaded from {weights.url}: {error}; use "
                f"torchvision/{name}:none for random ones"
            ) from error
    return cast(torch.nn.Module, network.eval())


def build_architecture(
    architecture: str, state: Mapping[str, torch.Tensor], what: str
) -> torch.nn.Module:
    """Network of torchvision, or ``tiny``, with the given weights, for evaluation.

    A prefix of the keys that a trainer added (``module.``, ``backbone.``) is found by
    comparison with the architecture, and what lies beside it is left out. The
    classifier takes the number of classes of the weights; it becomes the identity where
    they have none, as after self-supervised training.

    Parameters
    ----------
    architecture : torchvision's name, or ``tiny`` for `ce_align.backbones.TinyResNet`
    state : tensors by name
    what : where they are from, for messages

    Raises
    ------
    ConfigError
        If torchvision has no such architecture.
    DataError
        If any other weight is missing, left over or of another shape.
    """
    network = _random_network(architecture)
    *_, (head, _) = network.named_children()
    own = network.state_dict()
    fitting = _without_prefix(state, own, what)
    head_weights = [key for key in own if key.startswith(f"{head}.")]
    if not any(key.startswith(f"{head}.") for key in fitting):
        setattr(network, head, torch.nn.Identity())
    elif head_weights[-1] in fitting:
        n_classes = len(fitting[head_weights[-1]])
        if n_classes != len(own[head_weights[-1]]):
            network = _random_network(architecture, n_classes)
    expected = network.state_dict()
    counters = [key for key in expected if key.endswith("num_batches_tracked")]
    # Files from before torch 0.4.1 have no such counters, which inference ignores.
    fitting = {**{key: expected[key] for key in counters}, **fitting}
    _check_fit(expected, fitting, f"{architecture} ({what})")
    network.load_state_dict(fitting)
    return network.eval()


def _random_network(name: str, n_classes: int | None = None) -> torch.nn.Module:
    if name != "tiny":
        return torchvision_network(name, n_classes)
    with torch.random.fork_rng(devices=[]):
        return TinyResNet(n_classes=n_classes or 1000).eval()


def _without_prefix(
    state: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], what: str
) -> dict[str, torch.Tensor]:
    """The part of `state` whose keys, below one prefix, are most like the network's."""
    found: Counter[str] = Counter()
    for key in state:
        parts = key.split(".")
        for start in range(len(parts)):
            if ".".join(parts[start:]) in own:
                found[".".join([*parts[:start], ""]) if start else ""] += 1
    best = [p for p, count in found.items() if count == max(found.values())]
    prefix = min(best, key=len, default="")
    # A momentum copy often has the same name with something added.
    others = [p for p in best if not p.startswith(prefix.removesuffix("."))]
    if others:
        raise DataError(
            f"{what} holds several networks, below {named_some(best)}; save one alone"
        )
    return {
        key.removeprefix(prefix): values
        for key, values in state.items()
        if key.startswith(prefix)
    }


def _check_fit(
    expected: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor], what: str
) -> None:
    missing = [key for key in expected if key not in state]
    extra = [key for key in state if key not in expected]
    shapes = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in state and state[key].shape != expected[key].shape
    ]
    faults = (("missing", missing), ("left over", extra), ("of another shape", shapes))
    found = [f"{len(k)} {fault} ({named_some(k)})" for fault, k in faults if k]
    if found:
        raise DataError(f"the weights do not fit {what}: {'; '.join(found)}")
