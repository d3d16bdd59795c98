"""Features that were computed elsewhere, in the place of a network."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import check_finite
from ce_align.digests import combine_digests, digest_array
from ce_align.errors import ConfigError, DataError
from ce_align.results import NetworkFacts

if TYPE_CHECKING:
    from ce_align.data.imagesets import ImageSet
    from ce_align.models.features import Features
    from ce_align.models.networks import Probe

__all__ = ["FeatureArray"]

#: Name of the only layer.
LAYER = "features"


@dataclass(frozen=True, eq=False)
class FeatureArray:
    """Features of the stimuli of a recording, by whatever computed them.

    Attributes
    ----------
    name : stands for the network in rows
    values : (n_stimuli, n_features), in the order of the recording's stimuli

    Raises
    ------
    DataError
        If `values` is no such array, or not finite.
    """

    name: str
    values: NDArray[Any]
    layers: dict[str, str] = field(default_factory=dict, init=False)
    facts: NetworkFacts = field(default_factory=NetworkFacts, init=False)

    def __post_init__(self) -> None:
        values = np.asarray(self.values)
        if values.ndim != 2 or not values.size or values.dtype.kind not in "fiu":
            raise DataError(
                f"features of {self.name} must be numbers (n_stimuli, n_features), "
                f"found {values.dtype} {values.shape}"
            )
        check_finite(values, f"features of {self.name}")
        object.__setattr__(self, "values", values.astype(np.float32))

    @cached_property
    def digest(self) -> str:
        """Identity: of the values alone."""
        return combine_digests("features", digest_array(self.values))

    def layer_for(self, region: str) -> str:
        """The only layer, whatever the region."""
        return LAYER

    def block_names(self) -> list[str]:
        """The only layer."""
        return [LAYER]

    def check_layers(self, layers: Sequence[str]) -> None:
        """Raise ConfigError unless every layer is the only one."""
        for layer in layers:
            if layer != LAYER:
                raise ConfigError(
                    f"{self.name} is an array of features and has no layer {layer!r}"
                )

    def probe(self, layers: Sequence[str], *, allow_unstable: bool = False) -> "Probe":
        """What it is, as a network would say it of itself."""
        import torch

        from ce_align.models.networks import Behaviour, Probe

        self.check_layers(layers)
        behaviour = Behaviour.of(torch.from_numpy(self.values[:2]))
        return Probe(self.digest, behaviours={LAYER: behaviour}, axes={LAYER: 0})

    def features(self, images: "ImageSet") -> "dict[str, Features]":
        """The features of images, which are those of the recording.

        Raises
        ------
        DataError
            If there are more or fewer.
        """
        from ce_align.models.features import Features

        if len(images) != len(self.values):
            raise DataError(
                f"{self.name} has features of {len(self.values)} stimuli, but "
                f"{images.identifier} has {len(images)}; give a row for each, in the "
                "order of its stimuli"
            )
        return {LAYER: Features(self.values, self.name, LAYER, images.ids, self.digest)}
