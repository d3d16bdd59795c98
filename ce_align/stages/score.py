"""IT predictivity: how well a network's features predict a recording."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import PositiveFloat, PositiveInt

from ce_align.config import StageConfig
from ce_align.data.recordings import Recording
from ce_align.metrics.ceiling import Ceiling, split_half_ceiling
from ce_align.metrics.predictivity import (
    cross_validated_r,
    normalised_score,
    summarise,
)
from ce_align.metrics.splits import brainscore_splits
from ce_align.progress import Progress, silent
from ce_align.results import ResultStore, Row
from ce_align.stages.hardware import Hardware

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from ce_align.models.features import Features
    from ce_align.models.networks import Network

__all__ = ["Outcome", "ScoreConfig", "ScoreRow", "score"]

STAGE = "score"

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "predictivity 1"

#: Visual angle of every network's input, as Brain-Score assumes for its models.
VISUAL_DEGREES = 8.0


class ScoreConfig(StageConfig):
    """Settings that a score depends on; the defaults are Brain-Score's."""

    model: str
    recording: str
    layer: str
    regression: Literal["pls", "ridge"] = "pls"
    pls_mode: Literal["nipals", "exact"] = "nipals"
    components: PositiveInt = 25
    alpha: PositiveFloat | None = None
    splits: PositiveInt = 10
    stratify: str | None = None
    seed: int = 1
    gram_dtype: Literal["float64", "float32"] = "float64"

    @property
    def regression_name(self) -> str:
        """Regression with its variant, as rows and tables show it."""
        if self.regression == "pls":
            return "pls" if self.pls_mode == "nipals" else "pls_exact"
        return "ridge" if self.alpha is None else f"ridge_alpha{self.alpha:g}"


class ScoreRow(Row):
    """Predictivity of one layer for one recording.

    `value` is raw² / ceiling, unclipped; it and `ceiling` are None for a recording
    without repetitions. `raw` is the mean over splits of the median over neuroids of
    Pearson r, and `error` its standard error over splits.
    """

    recording: str
    region: str
    layer: str
    raw: float
    error: float
    ceiling: float | None
    n_stimuli: int
    n_neuroids: int
    n_splits: int
    regression: str
    seed: int
    model_digest: str
    recording_digest: str


@dataclass(frozen=True)
class Outcome:
    """Rows of one network and recording, in the order of the configurations."""

    rows: tuple[ScoreRow, ...]
    n_stored: int


def score(
    network: "Network",
    recording: Recording,
    configs: Sequence[ScoreConfig],
    store: ResultStore,
    *,
    hardware: Hardware | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Outcome:
    """Score layers of one network against one recording.

    Features of all layers come from one pass over the images. A configuration that is
    in the store is answered from there unless `force`; each layer is stored as soon as
    it is computed, so that an interrupted run loses at most one.

    Parameters
    ----------
    network : network whose layers `configs` name
    recording : the responses
    configs : one for each layer, otherwise equal
    store : where rows, and r of every split and neuroid, go
    hardware : device and batch size
    force : compute again and replace what is stored
    progress : told of images and layers done

    Raises
    ------
    ConfigError
        If a layer, or the column to stratify by, does not exist.
    DataError
        If the recording cannot be scored with these settings.
    """
    identity = {
        "weights": network.digest,
        "recording": recording.digest,
        "algorithm": ALGORITHM,
    }
    ids = {config: config.fingerprint(**identity) for config in configs}
    rows: dict[ScoreConfig, ScoreRow] = {}
    for config, config_id in ids.items():
        stored = None if force else store.get(STAGE, config_id, ScoreRow)
        if stored:
            rows[config] = stored[0]
    missing = [config for config in configs if config not in rows]
    if missing:
        from ce_align.models.features import extract

        # Everything that can be refused is refused before hours of extraction.
        target = _Target.of(recording, missing[0])
        hardware = hardware or Hardware()
        features = extract(
            network,
            recording.images.on_screen(recording.degrees, VISUAL_DEGREES),
            [config.layer for config in missing],
            device=hardware.device,
            batch_size=hardware.batch_size,
            compile=hardware.compiled,
            progress=lambda done, total: progress(
                f"{network.name} images", done, total
            ),
        )
        for done, config in enumerate(missing):
            progress(f"{network.name} × {recording.identifier}", done, len(missing))
            r = target.predict(features[config.layer], config)
            row = target.row(r, identity["weights"], config, ids[config])
            store.put(STAGE, ids[config], config, [row], target.arrays(r))
            rows[config] = row
        progress(f"{network.name} × {recording.identifier}", 1, 1)
    return Outcome(tuple(rows[c] for c in configs), len(configs) - len(missing))


@dataclass(frozen=True, eq=False)
class _Target:
    """What is computed of a recording once, for all layers."""

    recording: Recording
    averaged: "NDArray[np.float64]"
    splits: list[tuple["NDArray[np.intp]", "NDArray[np.intp]"]]
    ceiling: Ceiling | None

    @classmethod
    def of(cls, recording: Recording, config: ScoreConfig) -> "_Target":
        averaged = recording.averaged()
        splits = brainscore_splits(
            len(recording.images),
            stratify=recording.strata(config.stratify),
            n_splits=config.splits,
            seed=config.seed,
        )
        ceiling = (
            split_half_ceiling(
                recording.responses, n_splits=config.splits, seed=config.seed
            )
            if recording.has_repetitions
            else None
        )
        return cls(recording, averaged, splits, ceiling)

    def predict(
        self, features: "Features", config: ScoreConfig
    ) -> "NDArray[np.float64]":
        """Pearson r, (n_splits, n_neuroids)."""
        return cross_validated_r(
            features.values,
            self.averaged,
            self.splits,
            regression=config.regression,
            mode=config.pls_mode,
            n_components=config.components,
            alpha=config.alpha,
            gram_dtype=config.gram_dtype,
        )

    def row(
        self,
        r: "NDArray[np.float64]",
        model_digest: str,
        config: ScoreConfig,
        config_id: str,
    ) -> ScoreRow:
        raw, error = summarise(r)
        ceiling = None if self.ceiling is None else self.ceiling.value
        return ScoreRow(
            model=config.model,
            metric="predictivity",
            value=None if ceiling is None else normalised_score(raw, ceiling),
            config_id=config_id,
            recording=config.recording,
            region=self.recording.region,
            layer=config.layer,
            raw=raw,
            error=error,
            ceiling=ceiling,
            n_stimuli=len(self.recording.images),
            n_neuroids=len(self.recording.neuroid_ids),
            n_splits=config.splits,
            regression=config.regression_name,
            seed=config.seed,
            model_digest=model_digest,
            recording_digest=self.recording.digest,
        )

    def arrays(self, r: "NDArray[np.float64]") -> "xr.Dataset":
        """The r of every split and neuroid, beside the row."""
        import xarray as xr

        variables = {"r": (("split", "neuroid"), r)}
        if self.ceiling is not None:
            variables["ceiling"] = (
                ("split", "neuroid"),
                self.ceiling.per_split_neuroid,
            )
        names = np.array(self.recording.neuroid_ids, dtype=object)
        return xr.Dataset(variables, coords={"neuroid_id": ("neuroid", names)})
