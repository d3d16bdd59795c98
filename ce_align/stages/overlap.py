"""Which part of a recording two networks explain alone, and which both."""

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt

from ce_align.config import COMMITTED, Spelled, StageConfig
from ce_align.data.joining import equal_files, join_equal_images
from ce_align.data.recordings import Recording
from ce_align.metrics.inference import MIN_UNITS, sign_flip_p, unit_interval
from ce_align.metrics.overlap import variance_overlap
from ce_align.results import Row, joined_notes
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.score import features_of

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["OverlapConfig", "OverlapRow", "execute", "overlap", "shared"]

ALGORITHM = "overlap 3"

#: What is reported, in the order of the rows.
PARTS = ("r2_a", "r2_b", "r2_joint", "unique_a", "unique_b", "shared", "difference")


class OverlapConfig(StageConfig):
    """Settings of a comparison of two networks."""

    stage: ClassVar = "overlap"

    model_a: Annotated[str, Spelled("--model")] = Field(
        description="Network, once for each of the two."
    )
    model_b: Annotated[str, Spelled("--model")]
    recording: str = Field(
        description="Recording: name, glob, group, brainscore/ID or a .nc file."
    )
    label_a: Annotated[str | None, Spelled("--label")] = Field(
        default=None,
        exclude=True,
        min_length=1,
        description="Short name of each network in tables and figures.",
    )
    label_b: Annotated[str | None, Spelled("--label")] = Field(
        default=None, exclude=True, min_length=1
    )
    layer_a: Annotated[str, Spelled("--layer")] = Field(
        default=COMMITTED,
        description="Layer of each network; 'committed' for that of the region.",
    )
    layer_b: Annotated[str, Spelled("--layer")] = COMMITTED
    folds: int = Field(default=5, ge=2, description="Folds of stimuli.")
    seed: NonNegativeInt = Field(default=0, description="Seed of the folds.")


class OverlapRow(Row):
    """Mean over neuroids of one part of the explained variance.

    `metric` names the part: ``r2_a``, ``r2_b`` and ``r2_joint`` of held-out stimuli;
    ``unique_a`` and ``unique_b``, what the joint regression adds to the other network;
    ``shared``, what either explains; ``difference``, ``unique_a − unique_b``, which is
    ``r2_a − r2_b``, too, with `p` of flipped signs. `low` and `high` are a 95 %
    interval over what `interval` names: ``neuroids``, if others of the same population
    had been recorded with these stimuli and folds; None for fewer than five.
    """

    stage: str = OverlapConfig.stage
    other: str
    recording: str
    region: str
    layer: str
    other_layer: str
    low: float | None
    high: float | None
    interval: str | None = None
    p: float | None = None
    n_stimuli: int
    n_neuroids: int
    seed: int
    model_digest: str
    other_digest: str
    recording_digest: str
    other_objective: str | None = None
    other_equivariance_weight: float | None = None
    other_label: str | None = None


def shared(config: OverlapConfig) -> Hashable:
    """What configurations have in common that are computed together: all of it."""
    return config


def execute(configs: Sequence[OverlapConfig], run: Run) -> None:
    """Partition the explained variance of a recording between two networks."""
    for config in configs:
        names = (config.model_a, config.model_b)
        with run.attempt(f"{' and '.join(names)} × {config.recording}", config):
            recording = run.recording(config.recording)
            networks = [run.network(name, config.seed) for name in names]
            layers = [
                network.layer_for(recording.region) if layer == COMMITTED else layer
                for network, layer in zip(
                    networks, (config.layer_a, config.layer_b), strict=True
                )
            ]
            named = {"layer_a": layers[0], "layer_b": layers[1]}
            resolved = config.model_copy(update=named)
            run.outcome.rows += overlap(networks, recording, resolved, run)
            run.store.clear_failure(config.stage, config)


def overlap(
    networks: "Sequence[Network]", recording: Recording, config: OverlapConfig, run: Run
) -> list[OverlapRow]:
    """Partition the explained variance of a recording between two networks.

    Stimuli that show one image are one stimulus, in one fold.

    Parameters
    ----------
    networks : the two that `config` names, in that order
    recording : the responses
    config : layers, folds and seed
    run : where rows, and the parts of every neuroid, go

    Raises
    ------
    DataError
        If the recording cannot be predicted from these features.
    """
    import xarray as xr

    from ce_align.models.features import ALGORITHM_VERSION

    recording = join_equal_images(recording, equal_files(recording.images))
    asked = [
        NetworkLayer.of(network, layer, allow_unstable=run.allow_unstable)
        for network, layer in zip(
            networks, (config.layer_a, config.layer_b), strict=True
        )
    ]
    digests = [one.probe.digest for one in asked]
    config_id = config.fingerprint(
        weights_a=digests[0],
        weights_b=digests[1],
        recording=recording.digest,
        algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}",
    )
    origin = recording.origin
    known = run.recall(config, config_id, OverlapRow, asked, origin=origin)
    stored = known and run.store.has_arrays(config.stage, known[0].config_id)
    if known and (len(known) == len(PARTS) or not stored):
        return known
    rng = np.random.default_rng(config.seed)
    folds = rng.permutation(np.arange(len(recording.images)) % config.folds)
    found: Any
    if known:  # before there was a difference; the parts of each neuroid are stored
        run.outcome.n_stored -= 1
        if known[0].config_id == config_id.spelled:
            config_id = config_id.spelled
        found = run.store.arrays(config.stage, known[0].config_id)
    else:
        a, b = (
            features_of(one.network, recording, [one.layer], run, one.probe)[
                one.layer
            ].values
            for one in asked
        )
        found = variance_overlap(a, b, recording.averaged(), folds)
    parts = {name: np.asarray(getattr(found, name)) for name in PARTS[:-1]}
    parts["difference"] = parts["unique_a"] - parts["unique_b"]
    identity = {
        "config_id": config_id,
        "model_digest": digests[0],
        "other_digest": digests[1],
        "recording_digest": recording.digest,
    }
    rows = [
        _row(name, values, recording, config, rng, identity)
        for name, values in parts.items()
    ]
    names = np.array(recording.neuroid_ids, dtype=object)
    arrays = xr.Dataset(
        {name: ("neuroid", values) for name, values in parts.items()},
        coords={"neuroid_id": ("neuroid", names)},
    )
    own = [one.note for one in asked]
    rows = [
        row.model_copy(update={"note": joined_notes(row.note, *own)}) for row in rows
    ]
    return run.keep(config, config_id, rows, asked, arrays, origin=origin)


def _row(
    name: str,
    values: NDArray[np.float64],
    recording: Recording,
    config: OverlapConfig,
    rng: np.random.Generator,
    identity: dict[str, Any],
) -> OverlapRow:
    low = high = over = p = None
    if len(values) >= MIN_UNITS:
        found = unit_interval(values, rng)
        low, high, over = found.low, found.high, "neuroids"
        if name == "difference":
            p = sign_flip_p(values, rng)
    return OverlapRow(
        model=config.model_a,
        metric=f"overlap_{name}",
        value=float(values.mean()),
        other=config.model_b,
        recording=config.recording,
        region=recording.region,
        layer=config.layer_a,
        other_layer=config.layer_b,
        low=low,
        high=high,
        interval=over,
        p=p,
        n_stimuli=len(recording.images),
        n_neuroids=len(values),
        seed=config.seed,
        note=joined_notes(*recording.notes),
        **identity,
    )
