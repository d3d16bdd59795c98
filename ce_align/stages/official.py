"""The number that Brain-Score's own benchmark object gives, beside ours."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from ce_align.config import StageConfig
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, DataError
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.results import ResultStore, Row, joined_notes
from ce_align.stages.hardware import Hardware
from ce_align.stages.known import Probed, recall, remember

if TYPE_CHECKING:
    from ce_align.models.networks import Network, Probe

__all__ = ["OfficialConfig", "OfficialRow", "score_officially"]

STAGE = "official"


class OfficialConfig(StageConfig):
    """What was run; the settings are the benchmark's own."""

    model: str
    recording: str
    layer: str


class OfficialRow(Row):
    """Score of one layer by Brain-Score's benchmark object.

    `value` is its score; `raw`, `error` and `ceiling` are None where the benchmark does
    not state one number.
    """

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


def score_officially(
    network: "Network",
    recording: Recording,
    configs: Sequence[OfficialConfig],
    store: ResultStore,
    *,
    hardware: Hardware | None = None,
    force: bool = False,
    allow_unstable: bool = False,
    progress: Progress = silent,
    notify: Notify = quiet,
) -> tuple[list[OfficialRow], int, list[tuple[str, CeAlignError]]]:
    """Score layers of one network with Brain-Score's own benchmark object.

    Each layer is stored as soon as it is computed.

    Parameters
    ----------
    network : network whose layers `configs` name
    recording : the responses, which tell a stored row from an outdated one
    configs : one for each layer, otherwise equal
    store : where rows go
    hardware : device; batches are Brain-Score's
    force : compute again and replace what is stored
    allow_unstable : score layers, too, whose answers are random or depend on the batch;
        their rows say so
    progress : told of what Brain-Score does
    notify : told if stored rows are of a network that answered otherwise

    Returns
    -------
    rows, n_stored, failures
        rows in the order of `configs`; how many were in the store already; layers that
        have none, and why

    Raises
    ------
    ConfigError, DataError, CeAlignError
        See `ce_align.brainscore.official.official_scores`.
    """
    from ce_align.brainscore.official import official_scores

    release = version("brainscore-vision")
    layers = [config.layer for config in configs]
    probe = network.probe(layers, allow_unstable=allow_unstable)
    failures = [(layer, _unfit(probe, layer)) for layer in layers]
    failed: list[tuple[str, CeAlignError]] = [(x, e) for x, e in failures if e]
    configs = [c for c in configs if c.layer not in dict(failed)]
    asked = {c: Probed(network.name, c.layer, probe) for c in configs}
    identity = {
        "weights": probe.digest,
        "recording": recording.digest,
        "brainscore": release,
    }
    ids = {config: config.fingerprint(**identity) for config in configs}
    rows: dict[OfficialConfig, OfficialRow] = {}
    for config, config_id in ids.items():
        if not force:
            known = [asked[config]]
            stored = recall(store, STAGE, config, config_id, OfficialRow, known, notify)
            if stored:
                rows[config] = stored[0]
    missing = [config for config in ids if config not in rows]
    if missing:
        scores = official_scores(
            network,
            missing[0].recording,
            recording,
            [config.layer for config in missing],
            device=(hardware or Hardware()).device,
            progress=progress,
            on_error=lambda layer, error: failed.append((layer, error)),
        )
        of_layer = {config.layer: config for config in missing}
        for score in scores:
            config = of_layer[score.layer]
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
            remember(store, STAGE, config, ids[config], [row], [asked[config]])
            rows[config] = row
    scored = [rows[config] for config in configs if config in rows]
    return scored, len(configs) - len(missing), failed


def _unfit(probe: "Probe", layer: str) -> DataError | None:
    """Why Brain-Score cannot be shown a layer; None if it can."""
    if layer in probe.failures:
        return probe.failures[layer]
    if probe.axes[layer]:
        return DataError(
            f"layer {layer} has images on axis {probe.axes[layer]}, but Brain-Score "
            "takes the first; score it without --official"
        )
    return None
