"""Settings of scores, and their rows."""

from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_serializer,
)
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ce_align.config import COMMITTED, ConfigId, NetworkConfig, StageConfig
from ce_align.data.recordings import Protocol, Recording
from ce_align.errors import ConfigError
from ce_align.results import Row

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *(
        "BEST",
        "ComparisonConfig",
        "PredictivityConfig",
        "RecordingConfig",
        "ScoreConfig",
    ),
    *("ScoreRow", "with_ceiling_kinds"),
]

#: Stands for the layer that predicts other images best.
BEST = "best"

Regression = Literal["pls", "ridge", "ridgecv", "reverse_pls", "neuron_to_neuron"]


class RecordingConfig(StageConfig):
    """What of a recording is looked at, and the seed of draws.

    `left_open` names settings that are no part of the identity where they are None.
    """

    narrowing: ClassVar = ("region", "animal", "reliability", "neuroids", "time")
    left_open: ClassVar[tuple[str, ...]] = ()

    recording: str = Field(
        description="Recording: name, glob, group, brainscore/ID or a .nc file."
    )
    region: str | None = Field(
        default=None,
        description="Region of the neuroids; without it each that is recorded.",
    )
    animal: str | None = Field(default=None, description="Animal of the neuroids.")
    reliability: float | None = Field(
        default=None, description="Keep neuroids whose stated reliability is larger."
    )
    neuroids: str | None = Field(
        default=None,
        description="File with the ids of the neuroids to keep, one a line.",
    )
    time: str | None = Field(
        default=None,
        description="Of a recording with time bins: 'all' for each, the number of one, "
        "or START:END in ms to average over.",
    )

    seed: NonNegativeInt = Field(default=1, description="Seed of splits and weights.")

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked(
        self, dump: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        settings: dict[str, Any] = dump(self)
        return {
            name: value
            for name, value in settings.items()
            if name not in (*self.narrowing, *self.left_open) or value is not None
        }


class PredictivityConfig(RecordingConfig):
    """How a recording is predicted, by whatever network; Brain-Score's defaults."""

    left_open: ClassVar = ("regression",)

    regression: Regression | None = Field(
        default=None,
        description="How neuroids are predicted; without it as by the recording's own "
        "benchmark, else pls.",
    )
    pls_mode: Literal["nipals", "exact"] = Field(
        default="nipals", description="nipals is Brain-Score's number."
    )
    components: PositiveInt = Field(default=25, description="PLS components.")
    alpha: PositiveFloat | None = Field(
        default=None,
        description="Fixed ridge strength, in place of one chosen by leave-one-out; "
        "Brain-Score's ridge is 1.",
    )
    splits: PositiveInt = Field(default=10, description="Random 90/10 splits.")
    stratify: str | None = Field(
        default=None,
        description="Column to balance splits over, in place of the recording's; "
        "'none' for none.",
    )
    gram_dtype: Literal["float64", "float32"] = Field(
        default="float64",
        description="float32 is twice as fast, scores move by up to 1e-5.",
    )
    ceiling: Literal["auto", "split-half", "variance", "stated"] = Field(
        default="auto",
        description="split-half is Brain-Score's; variance is right for unequal or odd "
        "repetitions; auto takes split-half where these make two halves, or the "
        "recording is Brain-Score's; stated is by the recording's own reliabilities.",
    )

    def fingerprint(self, **content: str) -> ConfigId:
        """Identity of a result; without a regression that of PLS."""
        if self.regression is None:
            known = self.model_copy(update={"regression": "pls"})
            return known.fingerprint(**content)
        return super().fingerprint(**content)

    def for_recording(self, recording: Recording) -> Self:
        """Settings with the metric of the recording's benchmark, unless one is asked.

        Raises ConfigError if that is none of ours.
        """
        if self.regression is not None:
            return self
        protocol = recording.protocol or Protocol("")
        if protocol.regression is None:
            raise ConfigError(
                f"{recording.identifier} is scored by Brain-Score with "
                f"{protocol.metric}, which differs from every regression here; "
                "--official gives its own number, --regression another one"
            )
        found: dict[str, Any] = {"regression": protocol.regression}
        for name in ("components", "alpha"):
            if getattr(self, name) == type(self).model_fields[name].default:
                found[name] = getattr(protocol, name)
        return self.model_copy(update=found)

    @property
    def regression_name(self) -> str:
        """Regression with its variant, as rows and tables show it."""
        if self.regression in (None, "pls"):
            return "pls" if self.pls_mode == "nipals" else "pls_exact"
        if self.regression == "ridge" and self.alpha is not None:
            return f"ridge_alpha{self.alpha:g}"
        return self.regression


class _LayerConfig(NetworkConfig):
    """A layer of a network; a class of its own for the order of the options."""

    layer: str = Field(
        default=COMMITTED,
        description="Layer to read: 'all' for every block, or a pattern such as "
        "'blocks.*', in one pass; 'committed' for that of the region.",
    )


class ComparisonConfig(RecordingConfig, _LayerConfig):
    """Settings of a stage that compares a layer of a network with a recording.

    `layer` is a layer's name, ``committed`` for the one committed for the region,
    ``all`` for every block, or a pattern such as ``blocks.*``.
    """


class ScoreConfig(PredictivityConfig, ComparisonConfig):
    """Settings that a score depends on; the defaults are Brain-Score's."""

    stage: ClassVar = "score"

    layer: str = Field(
        default=COMMITTED,
        description="Layer to read: 'all' for every block, or a pattern such as "
        "'blocks.*', in one pass; 'best' for the block that the training images of "
        "each split choose; 'committed' for that of the region.",
    )


class ScoreRow(Row):
    """Predictivity of one layer for one recording.

    `value` is raw² / ceiling, unclipped. It is None, and `note` says why, where the
    ceiling is not positive or there is none, as without repetitions. `raw` is the mean
    over splits of the median over neuroids of Pearson r, and `error` its standard error
    over splits; None of one split. The ceiling comes from the repetitions of
    `n_ceiling_stimuli` stimuli in the way that `ceiling_kind` names; `note` marks what
    a reader should know.

    `animal` is None of all neuroids together, which is Brain-Score's number. It names
    one animal, or is ``mean`` for the mean over animals, where `error` is the standard
    error of `raw` over them. `time_start` and `time_end` are in ms after onset.

    `layer` is ``best`` where every split is scored at the block that predicts best
    within its training images; which these are is beside the row.

    `layer_depth` is the place of the layer among the network's modules in their order,
    counted to the last of its own parts, so that a stage has that of its last block.
    """

    stage: str = ScoreConfig.stage
    recording: str
    region: str
    layer: str
    raw: float
    error: float | None
    ceiling: float | None
    n_stimuli: int
    n_neuroids: int
    n_splits: int
    regression: str
    seed: int
    model_digest: str
    recording_digest: str
    ceiling_kind: str | None = None
    n_ceiling_stimuli: int | None = None
    animal: str | None = None
    time_start: float | None = None
    time_end: float | None = None
    layer_depth: int | None = None


def with_ceiling_kinds(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Stored rows with the kind of their ceilings, which in 0.1 were all split-half."""
    kinds = rows.get("ceiling_kind")
    if kinds is None:
        return rows.assign(ceiling_kind="split-half")
    return rows.assign(ceiling_kind=kinds.fillna("split-half"))
