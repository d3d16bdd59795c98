"""The same architecture with random weights: what a score is worth without training."""

from dataclasses import replace

from ce_align.errors import ConfigError
from ce_align.models.networks import Network
from ce_align.results import NetworkFacts

__all__ = ["redrawn"]


def redrawn(network: Network, name: str, seed: int) -> Network:
    """A network with every weight drawn anew, as its modules do it when they are made.

    Raises
    ------
    ConfigError
        If it holds parameters that no module can draw anew.
    """
    import torch

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
