"""The same architecture with random weights: what a score is worth without training."""

import copy
from collections.abc import Callable
from dataclasses import replace

from ce_align.errors import ConfigError
from ce_align.models.networks import Network
from ce_align.names import UNTRAINED
from ce_align.results import NetworkFacts

__all__ = ["untrained"]


def untrained(name: str, load: Callable[[str], Network]) -> Network:
    """The network ``untrained/SEED:NAME``: NAME with every weight drawn anew.

    Weights are drawn as the modules do it when they are made; the network that `load`
    gives by its name stays as it is.

    Raises
    ------
    ConfigError
        If that is no such name, or the network holds parameters that no module can draw
        anew.
    """
    import torch

    number, _, behind = name.removeprefix(UNTRAINED).partition(":")
    if not number.isdecimal() or not behind:
        raise ConfigError(
            f"an untrained network is named {UNTRAINED}SEED:NETWORK, such as "
            f"{UNTRAINED}1:torchvision/resnet50; found {name}"
        )
    network, seed = load(behind), int(number)
    network = replace(network, module=copy.deepcopy(network.module))
    left = {id(p) for p in network.module.parameters()}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for part in network.module.modules():
            draw = getattr(part, "reset_parameters", None)
            if callable(draw):
                draw()
                left -= {id(p) for p in part.parameters(recurse=False)}
    if left:
        raise ConfigError(
            f"{len(left)} weights of {network.name} cannot be drawn anew, for their "
            "modules have no reset_parameters; name a network with random weights of "
            "your own, such as nets.py:untrained"
        )
    facts = NetworkFacts(
        backbone=network.facts.backbone,
        epochs=0,
        pretraining="none",
        network_seed=seed,
    )
    return replace(network, name=name, facts=facts)
