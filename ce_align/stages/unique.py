"""What each of several networks explains of a recording that all others do not."""

from collections.abc import Hashable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Field, NonNegativeInt, model_validator

from ce_align.config import COMMITTED, ConfigId, Spelled, StageConfig
from ce_align.data.joining import equal_files, join_equal_images
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.metrics.banded_ridge import BandedRidge, banded_ridge
from ce_align.metrics.gram import Array
from ce_align.metrics.inference import MIN_UNITS, sign_flip_p, unit_interval
from ce_align.models.catalogue import label_of
from ce_align.names import labelled, without_path
from ce_align.results import Row, joined_notes
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.score import features_of

__all__ = ["UniqueConfig", "UniqueRow", "beside_each_other", "execute", "shared"]

ALGORITHM = "unique 1"

#: Networks beyond which a regression would choose among thousands of ways to weigh.
MOST = 6

Named = tuple[str, str]


def _place_apart(pair: Named) -> tuple[str, ...]:
    """Order of networks that does not follow from their folders, if it can be told."""
    return (without_path(pair[0], "network"), pair[1], pair[0])


class UniqueConfig(StageConfig):
    """Settings of what one network explains that the networks beside it do not."""

    stage: ClassVar = "unique"

    model: str = Field(description="Network; without --beside each beside the others.")
    label: str | None = Field(
        default=None,
        exclude=True,
        min_length=1,
        description="Short name of each network in tables.",
    )
    layer: str = Field(
        default=COMMITTED,
        description="Layer of every network, or of each in their order; 'committed' "
        "for that of the region.",
    )
    beside: tuple[str, ...] = Field(description="Network that is explained away.")
    beside_layers: Annotated[tuple[str, ...], Spelled("--beside-layer")] = Field(
        default=(), description="Layer of each network beside it, in their order."
    )
    recording: str = Field(
        description="Recording: name, glob, group, brainscore/ID or a .nc file."
    )
    folds: int = Field(default=5, ge=2, description="Folds of stimuli.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the folds.")

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        layers = self.beside_layers or (COMMITTED,) * len(self.beside)
        if len(layers) != len(self.beside):
            raise ConfigError(
                f"--beside-layer is one for each of {len(self.beside)} networks, found "
                f"{len(layers)}"
            )
        # The order in which the others are named says nothing, nor where they lie.
        pairs = sorted(zip(self.beside, layers, strict=True), key=_place_apart)
        self.__dict__["beside"] = tuple(name for name, _ in pairs)
        usual = all(layer == COMMITTED for layer in layers)
        own = () if usual else tuple(layer for _, layer in pairs)
        self.__dict__["beside_layers"] = own
        if not 2 <= len(self.networks) <= MOST:
            raise ConfigError(
                f"expected 2 to {MOST} networks, found {len(self.networks)}: "
                f"{', '.join(name for name, _ in self.networks)}"
            )
        if len({*self.networks}) < len(self.networks):
            raise ConfigError("a network stands beside itself; name each once")
        return self

    @property
    def networks(self) -> tuple[Named, ...]:
        """Every network and its layer, in an order that does not depend on `model`."""
        layers = self.beside_layers or (COMMITTED,) * len(self.beside)
        beside = zip(self.beside, layers, strict=True)
        return tuple(sorted([(self.model, self.layer), *beside], key=_place_apart))


def beside_each_other(networks: Sequence[Named], **settings: Any) -> list[UniqueConfig]:
    """Each of some networks, named with its layer, beside all the others."""
    found = []
    for place, (model, layer) in enumerate(networks):
        others = [*networks[:place], *networks[place + 1 :]]
        names = tuple(labelled(name)[1] for name, _ in others)
        at = tuple(layer for _, layer in others)
        own: dict[str, Any] = {"model": model, "layer": layer, **settings}
        found.append(UniqueConfig(beside=names, beside_layers=at, **own))
    return found


class UniqueRow(Row):
    """What a network adds to the others, mean over neuroids.

    `value` is its unique part: R² of all networks together, `joint`, minus that of all
    others. `low` and `high` are its 95 % interval over `interval`, ``neuroids``: if
    others of the same population had been recorded with these stimuli and folds; `p` is
    of flipped signs; None for fewer than five. `alone` is its own R², and `part` its
    share of the joint prediction; the parts of all networks sum to `joint`. `among` are
    all networks, by their labels.
    """

    stage: str = UniqueConfig.stage
    recording: str
    region: str
    layer: str
    among: str
    n_networks: int
    low: float | None
    high: float | None
    interval: str | None = None
    p: float | None = None
    alone: float
    part: float
    joint: float
    n_stimuli: int
    n_neuroids: int
    seed: int
    model_digest: str
    recording_digest: str


def shared(config: UniqueConfig) -> Hashable:
    """What configurations have in common that one regression answers."""
    return config.networks, config.recording, config.folds, config.seed


def execute(configs: Sequence[UniqueConfig], run: Run) -> None:
    """Regress a recording on several networks, and ask of each what it adds."""
    first = configs[0]
    names = ", ".join(name for name, _ in first.networks)
    with run.attempt(f"{names} × {first.recording}", *configs):
        recording = run.recording(first.recording)
        recording = join_equal_images(recording, equal_files(recording.images))
        layers: dict[Named, NetworkLayer] = {}
        for name, layer in first.networks:
            network = run.network(name, first.seed)
            own = network.layer_for(recording.region) if layer == COMMITTED else layer
            found = NetworkLayer.of(network, own, allow_unstable=run.allow_unstable)
            layers[name, layer] = found
        _answer(configs, layers, recording, run)
        for config in configs:
            run.store.clear_failure(config.stage, config)


def _answer(
    configs: Sequence[UniqueConfig],
    layers: Mapping[Named, NetworkLayer],
    recording: Recording,
    run: Run,
) -> None:
    """Rows of every configuration, by one regression if some are not stored."""
    from ce_align.models.features import ALGORITHM_VERSION

    labels = {pair: run.labels.get(pair[0]) or label_of(pair[0]) for pair in layers}
    among = ", ".join(labels.values())
    missing: dict[UniqueConfig, tuple[ConfigId, list[NetworkLayer]]] = {}
    for config in configs:
        own = (config.model, config.layer)
        asked = [layers[own], *(layers[p] for p in config.networks if p != own)]
        config_id = config.fingerprint(
            weights=asked[0].digest,
            beside=" ".join(sorted(layer.digest for layer in asked[1:])),
            recording=recording.digest,
            algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}",
        )
        origin = recording.origin
        known = run.recall(
            config, config_id, UniqueRow, asked, origin=origin, among=among
        )
        run.outcome.rows += known or []
        if not known:
            missing[config] = config_id, asked
    if not missing:
        return
    features: dict[str, Any] = {}
    for pair, one in layers.items():
        seen = features_of(one.network, recording, [one.layer], run, one.probe)
        features[" ".join(pair)] = seen[one.layer].values
    rng = np.random.default_rng(configs[0].seed)
    n_stimuli = len(recording.images)
    folds = rng.permutation(np.arange(n_stimuli) % configs[0].folds)
    found = banded_ridge(features, recording.averaged(), folds)
    for config, (config_id, asked) in missing.items():
        place = list(layers).index((config.model, config.layer))
        row = UniqueRow(
            model=config.model,
            metric="unique_variance",
            config_id=config_id,
            recording=config.recording,
            region=recording.region,
            layer=asked[0].layer,
            among=among,
            n_networks=len(layers),
            n_stimuli=n_stimuli,
            seed=config.seed,
            model_digest=asked[0].probe.digest,
            recording_digest=recording.digest,
            note=joined_notes(*recording.notes, *(one.note for one in asked)),
            **_numbers(found, place, config.seed),
        )
        arrays = _arrays(found, place, recording.neuroid_ids)
        run.outcome.rows += run.keep(
            config, config_id, [row], asked, arrays, origin=recording.origin
        )


def _numbers(found: BandedRidge, place: int, seed: int) -> dict[str, Any]:
    """Means over neuroids of one network, with an interval and p of its unique part."""
    unique = found.unique[place]
    numbers: dict[str, Any] = {
        "value": float(unique.mean()),
        "alone": float(found.alone[place].mean()),
        "part": float(found.parts[place].mean()),
        "joint": float(found.r2.mean()),
        "n_neuroids": len(unique),
        "low": None,
        "high": None,
    }
    if len(unique) >= MIN_UNITS:
        rng = np.random.default_rng(seed)
        interval = unit_interval(unique, rng)
        numbers |= {"low": interval.low, "high": interval.high, "interval": "neuroids"}
        numbers["p"] = sign_flip_p(unique, rng)
    return numbers


def _arrays(found: BandedRidge, place: int, neuroids: Sequence[str]) -> Any:
    import xarray as xr

    parts: dict[str, Array] = {
        "unique": found.unique[place],
        "alone": found.alone[place],
        "part": found.parts[place],
        "joint": found.r2,
    }
    names = np.array(neuroids, dtype=object)
    return xr.Dataset(
        {name: ("neuroid", values) for name, values in parts.items()},
        coords={"neuroid_id": ("neuroid", names)},
    )
