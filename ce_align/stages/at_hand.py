"""Objects in place of names: what notebooks give to a run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.models.catalogue import facts_of
from ce_align.models.given import FeatureArray
from ce_align.names import plain_path
from ce_align.results import NetworkFacts

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ce_align.models.networks import Network
    from ce_align.results import ResultStore
    from ce_align.stages.running import Outcome

__all__ = ["AtHand", "NetworkLike", "Networks", "RecordingLike", "ResultsLike"]

NetworkLike: TypeAlias = "str | Path | Network | FeatureArray | NDArray[Any]"
Networks: TypeAlias = "NetworkLike | Sequence[NetworkLike] | Mapping[str, NetworkLike]"
RecordingLike: TypeAlias = str | Path | Recording
ResultsLike: TypeAlias = "str | Path | ResultStore | Outcome"


class AtHand:
    """Objects by the names that stand for them in configurations."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Any] = {}
        self.labels: dict[str, str] = {}

    def networks(self, networks: Any) -> list[str]:
        """Names of networks."""
        from ce_align.models.networks import Network

        if isinstance(networks, np.ndarray):
            networks = [FeatureArray("features", networks)]
        if isinstance(networks, str | Path | Network | FeatureArray):
            networks = [networks]
        if isinstance(networks, Mapping):
            names = self.networks(list(networks.values()))
            self.labels |= zip(names, networks, strict=True)
            return names
        return self.named(networks, (Network, FeatureArray), "network")

    def facts(self, network: str) -> NetworkFacts:
        """What is known of a network."""
        known = self.objects.get(("network", network))
        return facts_of(network) if known is None else known.facts

    def recordings(self, recordings: Any) -> list[str]:
        """Names of recordings."""
        if isinstance(recordings, str | Path | Recording):
            recordings = [recordings]
        return self.named(recordings, Recording, "recording")

    def named(self, things: Iterable[Any], kinds: Any, what: str) -> list[str]:
        """Names of names and objects.

        Raises
        ------
        ConfigError
            If something is neither, or two objects have one name.
        """
        found: list[str] = []
        objects, names = set[str](), set[str]()
        for thing in things:
            if isinstance(thing, kinds):
                name = plain_path(getattr(thing, "name", None) or thing.identifier)
                if self.objects.setdefault((what, name), thing) is not thing:
                    raise ConfigError(
                        f"two objects are called {name!r}; give one another name"
                    )
                found.append(name)
                objects.add(name)
            elif isinstance(thing, str | Path):
                found.append(plain_path(str(thing)))
                names.add(found[-1])
            else:
                raise ConfigError(
                    f"expected the name of a {what} or an object, found a "
                    f"{type(thing).__name__}; a torch.nn.Module becomes a network with "
                    "load_network, features one of several with FeatureArray(name, "
                    "values)"
                )
        if objects & names:
            raise ConfigError(
                f"{min(objects & names)!r} is the name of an object and of something "
                "else; give the object another name"
            )
        return found
