"""The number that Brain-Score's own benchmark object gives, beside ours."""

from collections.abc import Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING

from ce_align.config import StageConfig
from ce_align.data.recordings import Recording
from ce_align.progress import Progress, silent
from ce_align.results import ResultStore, Row
from ce_align.stages.hardware import Hardware

if TYPE_CHECKING:
    from ce_align.models.networks import Network

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
    progress: Progress = silent,
) -> tuple[list[OfficialRow], int]:
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
    progress : told of what Brain-Score does

    Returns
    -------
    rows, n_stored : in the order of `configs`; how many were in the store already

    Raises
    ------
    ConfigError, DataError, CeAlignError
        See `ce_align.brainscore.official.official_scores`.
    """
    from ce_align.brainscore.official import official_scores

    release = version("brainscore-vision")
    identity = {
        "weights": network.digest,
        "recording": recording.digest,
        "brainscore": release,
    }
    ids = {config: config.fingerprint(**identity) for config in configs}
    rows: dict[OfficialConfig, OfficialRow] = {}
    for config, config_id in ids.items():
        stored = None if force else store.get(STAGE, config_id, OfficialRow)
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
        )
        for config, score in zip(missing, scores, strict=True):
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
            )
            store.put(STAGE, ids[config], config, [row])
            rows[config] = row
    return [rows[config] for config in configs], len(configs) - len(missing)
