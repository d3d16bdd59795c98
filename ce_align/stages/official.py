"""The number that Brain-Score's own benchmark object gives, beside ours."""

from collections.abc import Hashable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, ClassVar

from ce_align.config import COMMITTED, NetworkConfig
from ce_align.errors import CeAlignError, DataError
from ce_align.results import Row, joined_notes
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.score import with_layers
from ce_align.stages.scores import ScoreConfig

if TYPE_CHECKING:
    from ce_align.models.networks import Probe

__all__ = ["OfficialConfig", "OfficialRow", "execute", "shared"]


class OfficialConfig(NetworkConfig):
    """What was run; the settings are the benchmark's own."""

    stage: ClassVar = "official"

    model: str
    recording: str
    layer: str = COMMITTED


class OfficialRow(Row):
    """Score of one layer by Brain-Score's benchmark object.

    `value` is its score; `raw`, `error` and `ceiling` are None where the benchmark does
    not state one number.
    """

    stage: str = OfficialConfig.stage
    recording: str
    region: str
    layer: str
    benchmark: str
    raw: float | None
    error: float | None
    ceiling: float | None
    brainscore: str
    model_digest: str
    recording_digest: str


def shared(config: OfficialConfig) -> Hashable:
    """What configurations have in common that are scored together."""
    return config.model, config.recording


def execute(configs: Sequence[OfficialConfig], run: Run) -> None:
    """Score layers of one network with Brain-Score's own benchmark object.

    Each layer is stored as soon as it is computed.
    """
    from ce_align.brainscore.official import official_scores

    recording = run.recording(configs[0].recording)
    network = run.network(
        configs[0].model, ScoreConfig.model_fields["seed"].default, live=True
    )
    configs = with_layers(configs, network, recording, run)
    probe = network.probe(
        [config.layer for config in configs], allow_unstable=run.allow_unstable
    )
    release = version("brainscore-vision")
    identity = {
        "weights": probe.digest,
        "recording": recording.digest,
        "brainscore": release,
    }
    ids = {config: config.fingerprint(**identity) for config in configs}
    asked = {c: [NetworkLayer(network, c.layer, probe)] for c in configs}
    origin = recording.origin
    rows: dict[OfficialConfig, OfficialRow] = {}
    missing: dict[str, OfficialConfig] = {}
    for config, config_id in ids.items():
        with run.attempt(_named(config), config):
            _check_fit(probe, config.layer)
            stored = run.recall(
                config, config_id, OfficialRow, asked[config], origin=origin
            )
            if stored:
                rows[config] = stored[0]
            else:
                missing[config.layer] = config

    def refused(layer: str, error: CeAlignError) -> None:
        with run.attempt(_named(missing[layer]), missing[layer]):
            raise error

    scores = official_scores(
        network,
        configs[0].recording,
        recording,
        list(missing),
        device=run.hardware.device,
        progress=run.progress,
        on_error=refused,
    )
    for score in scores if missing else ():
        config = missing[score.layer]
        row = OfficialRow(
            model=config.model,
            metric="brainscore",
            value=score.value,
            config_id=ids[config],
            recording=config.recording,
            region=recording.region,
            layer=config.layer,
            benchmark=score.benchmark,
            raw=score.raw,
            error=score.error,
            ceiling=score.ceiling,
            brainscore=release,
            model_digest=identity["weights"],
            recording_digest=identity["recording"],
            note=joined_notes(
                f"score {score.value:.3g} is above 1" if score.value > 1 else None,
                probe.note(config.layer),
            ),
        )
        (rows[config],) = run.keep(
            config, ids[config], [row], asked[config], origin=origin
        )
    run.outcome.rows += [rows[config] for config in configs if config in rows]


def _named(config: OfficialConfig) -> str:
    return f"{config.model} {config.layer} × {config.recording}"


def _check_fit(probe: "Probe", layer: str) -> None:
    """Raise DataError if Brain-Score cannot be shown a layer."""
    if layer in probe.failures:
        raise probe.failures[layer]
    if probe.axes[layer]:
        raise DataError(
            f"layer {layer} has images on axis {probe.axes[layer]}, but Brain-Score "
            "takes the first; score it without --official"
        )
