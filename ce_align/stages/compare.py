"""Which of several networks predicts a recording better, and is the difference real?"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, PositiveInt, model_validator

from ce_align.config import COMMITTED, Spelled
from ce_align.data.recordings import Recording
from ce_align.digests import digest_json
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.held_out import HeldOut
from ce_align.metrics.inference import benjamini_hochberg
from ce_align.metrics.two_factor import Factor, Resamples, resample
from ce_align.names import labelled
from ce_align.results import FACTS, SECOND, Row, joined_notes
from ce_align.stages.running import Outcome, Run
from ce_align.stages.score import features_of, parts_of, score
from ce_align.stages.scores import PredictivityConfig, ScoreConfig, ScoreRow
from ce_align.stages.targets import Target, fit

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["METRICS", "CompareConfig", "CompareRow", "execute", "shared"]

ALGORITHM = "compare 2"

#: Differences of raw r, and of scores.
METRICS = ("difference_raw", "difference_score")

#: What is drawn anew, and what rows call it.
OVER: dict[str, tuple[Factor, str]] = {
    "stimuli": ("rows", "stimuli"),
    "neuroids": ("columns", "neuroids"),
    "animals": ("columns", "animals"),
    "both": ("both", "stimuli and neuroids"),
}


class CompareConfig(PredictivityConfig):
    """Settings of a comparison of networks; those of predictions are as for scores."""

    stage: ClassVar = "compare"

    models: Annotated[tuple[str, ...], Spelled("--model")] = Field(
        description="Network, as an argument is, too; two or more, or a glob or group."
    )
    network_labels: Annotated[tuple[str, ...], Spelled("--label")] = Field(
        default=(),
        exclude=True,
        description="Short name of each network in tables, in their order; or 'LABEL = "
        "NAME' as its name.",
    )
    layers: Annotated[tuple[str, ...], Spelled("--layer")] = Field(
        default=(COMMITTED,),
        description="Layer of every network, or of each in their order; 'committed' "
        "for that of the region.",
    )
    over: Literal["stimuli", "neuroids", "animals", "both"] = Field(
        default="both",
        description="What else might have been recorded, which intervals and p are "
        "over: stimuli, neuroids, animals, or both stimuli and neuroids.",
    )
    resamples: PositiveInt = Field(
        default=1000, description="Draws of the bootstrap, of each kind."
    )

    @model_validator(mode="before")
    @classmethod
    def _several(cls, given: Any) -> Any:
        """Networks without the labels in their names, and a layer for each."""
        if not isinstance(given, Mapping) or "models" not in given:
            return given
        found, models = dict(given), given["models"]
        pairs = [labelled(m) for m in ([models] if isinstance(models, str) else models)]
        found["models"] = tuple(name for _, name in pairs)
        if any(label for label, _ in pairs):
            found["network_labels"] = tuple(label or "" for label, _ in pairs)
        return found

    @model_validator(mode="after")
    def _paired(self) -> "CompareConfig":
        if len(self.models) < 2:
            raise ConfigError(
                f"a comparison takes two networks or more, found {len(self.models)}"
                + "".join(f": {name}" for name in self.models)
            )
        for what, given in (("layer", self.layers), ("label", self.network_labels)):
            if len(given) not in {len(self.models), 1 if what == "layer" else 0}:
                raise ConfigError(
                    f"--{what} is one for each of {len(self.models)} networks, found "
                    f"{len(given)}"
                )
        if self.regression == "reverse_pls":
            raise ConfigError(
                "reverse_pls predicts the units of each network, which have no pair in "
                "another; compare by another --regression, or `ce-align score` both"
            )
        if len({*zip(self.models, self.each_layer, strict=True)}) < len(self.models):
            raise ConfigError("a network is compared with itself; name each once")
        return self

    @property
    def each_layer(self) -> tuple[str, ...]:
        """The layer of each network."""
        several = len(self.layers) > 1
        return self.layers if several else self.layers * len(self.models)

    @property
    def labels(self) -> dict[str, str]:
        """Labels that were given to networks, by their names."""
        pairs = zip(self.models, self.network_labels, strict=False)
        return {name: label for name, label in pairs if label}


class CompareRow(Row):
    """How much better one network predicts a recording than another.

    `metric` is ``difference_raw``, of raw r, or ``difference_score``, of scores with
    the ceiling held fixed: `value` is `model_value` − `other_value`, which are those of
    `ce-align score`. `low` and `high` are its 95 % interval over what `interval` names,
    networks being paired, and `p` says how surely it is not zero; `q` is the false
    discovery rate over the `n_pairs` of the comparison. The regressions are not fitted
    anew for a draw.
    """

    stage: str = CompareConfig.stage
    other: str
    recording: str
    region: str
    layer: str
    other_layer: str
    model_value: float
    other_value: float
    low: float
    high: float
    interval: str
    p: float
    q: float
    n_pairs: int
    n_stimuli: int
    n_neuroids: int
    n_animals: int | None = None
    n_splits: int
    regression: str
    seed: int
    model_digest: str
    other_digest: str
    recording_digest: str
    animal: str | None = None
    time_start: float | None = None
    time_end: float | None = None
    other_objective: str | None = None
    other_equivariance_weight: float | None = None
    other_label: str | None = None


def shared(config: CompareConfig) -> Hashable:
    """What configurations have in common that are computed together: all of it."""
    return config


def execute(configs: Sequence[CompareConfig], run: Run) -> None:
    """Compare every pair of networks on every part of a recording."""
    for config in configs:
        names = ", ".join(config.models)
        with run.attempt(f"{names} × {config.recording}", config):
            recording = run.recording(config.recording)
            for narrowed, part, time in parts_of(recording, config):
                selected = part if time is None else part.select(time=time)
                own = config.model_copy(update=narrowed)
                run.outcome.rows += _compared(selected, own, run)
            run.store.clear_failure(config.stage, config)


def _compared(recording: Recording, asked: CompareConfig, run: Run) -> list[CompareRow]:
    """Rows of every pair, from the store if their scores have not changed."""
    from ce_align.models.features import ALGORITHM_VERSION

    config = asked.for_recording(recording)
    same = config.model_dump(include=set(PredictivityConfig.model_fields))
    scores: list[ScoreRow] = []
    for name, layer in zip(config.models, config.each_layer, strict=True):
        network = run.network(name, config.seed)
        own = ScoreConfig(model=name, layer=_layer(network, layer, recording), **same)
        aside = replace(run, outcome=Outcome())
        found = score(network, {own: recording}, aside)
        if not found:
            raise aside.outcome.failures[0][1]
        scores.append(found[0])
        run.release("network")
    numbers = [(row.model_digest, row.layer, row.raw, row.value) for row in scores]
    config_id = config.fingerprint(
        recording=recording.digest,
        scores=digest_json(numbers),
        algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}",
    )
    # With the names that the networks have now.
    facts = [row.model_dump(include={"model", *FACTS}) for row in scores]
    rows = None
    if not run.force:
        rows = run.store.get(config.stage, config_id, CompareRow, run.notify)
    if rows:
        run.outcome.n_stored += 1
    else:
        target = Target.of(recording, config)
        fits = [_fitted(row, target, config, run) for row in scores]
        rows = _rows(scores, fits, target, config, config_id)
        run.outcome.n_done += 1
    pairs = [pair for _ in METRICS for pair in combinations(facts, 2)]
    rows = [
        row.model_copy(
            update={
                **own,
                "other": other["model"],
                **{f"other_{name}": other[name] for name in SECOND},
            }
        )
        for row, (own, other) in zip(rows, pairs, strict=False)
    ]
    run.store.put(config.stage, config_id, config, rows)
    return rows


def _layer(network: "Network", asked: str, recording: Recording) -> str:
    from ce_align.models.networks import asked_layers

    found = asked_layers(network, asked, recording.region)
    if len(found) > 1:
        raise ConfigError(
            f"{asked} names {len(found)} layers of {network.name}; a comparison takes "
            "one of each network, such as the best of another recording"
        )
    return found[0]


def _fitted(row: ScoreRow, target: Target, config: CompareConfig, run: Run) -> HeldOut:
    """Held-out predictions of a network, from its stored features."""
    network = run.network(row.model, config.seed)
    found = features_of(network, target.recording, [row.layer], run, again=False)
    features = found[row.layer].values
    run.release("network")
    gram = cache(partial(centred_gram, features, dtype=config.gram_dtype))
    return fit(target, features, config, gram)


def _rows(
    scores: Sequence[ScoreRow],
    fits: Sequence[HeldOut],
    target: Target,
    config: CompareConfig,
    config_id: str,
) -> list[CompareRow]:
    """A row for every pair, of raw r and, where there is a ceiling, of scores."""
    recording = target.recording
    factor, over = OVER[config.over]
    animals = recording.neuroids.get("animal")
    groups = None
    if config.over == "animals":
        if animals is None:
            raise DataError(
                f"{recording.identifier} does not say the animal of each neuroid; take "
                "--over neuroids"
            )
        groups = np.asarray(animals).astype(str)
    found = resample(
        partial(_statistic, fits, target),
        len(recording.images),
        len(recording.neuroid_ids),
        np.random.default_rng(config.seed),
        over=factor,
        groups=groups,
        n_resamples=config.resamples,
    )
    rows: list[CompareRow] = []
    for metric, start in zip(METRICS, (0, len(scores)), strict=True):
        values = [row.raw if metric == METRICS[0] else row.value for row in scores]
        if start >= len(found.estimate) or None in values:
            continue
        pairs = list(combinations(range(len(scores)), 2))
        tested = [_contrast(found, start + i, start + j) for i, j in pairs]
        q = benjamini_hochberg([p for *_, p in tested])
        for (i, j), (low, high, p), rate in zip(pairs, tested, q, strict=True):
            a, b = scores[i], scores[j]
            of_a, of_b = float(values[i] or 0), float(values[j] or 0)
            rows.append(
                CompareRow(
                    model=a.model,
                    other=b.model,
                    metric=metric,
                    value=of_a - of_b,
                    model_value=of_a,
                    other_value=of_b,
                    config_id=config_id,
                    origin=recording.origin,
                    recording=config.recording,
                    region=recording.region,
                    layer=a.layer,
                    other_layer=b.layer,
                    low=low,
                    high=high,
                    interval=over,
                    p=p,
                    q=float(rate),
                    n_pairs=len(pairs),
                    n_stimuli=a.n_stimuli,
                    n_neuroids=a.n_neuroids,
                    n_animals=None if animals is None else len(recording.animals),
                    n_splits=a.n_splits,
                    regression=a.regression,
                    seed=config.seed,
                    model_digest=a.model_digest,
                    other_digest=b.model_digest,
                    recording_digest=a.recording_digest,
                    animal=config.animal,
                    time_start=a.time_start,
                    time_end=a.time_end,
                    note=joined_notes(a.note, b.note),
                )
            )
    return rows


def _contrast(found: Resamples, i: int, j: int) -> tuple[float, float, float]:
    """Interval and p of the difference of two numbers."""
    weights = np.zeros(len(found.estimate))
    weights[i], weights[j] = 1, -1
    interval = found.interval(weights)
    return interval.low, interval.high, found.p(weights)


def _statistic(
    fits: Sequence[HeldOut],
    target: Target,
    stimuli: NDArray[np.int64],
    neuroids: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Raw r of each network, and its score, of drawn stimuli and neuroids.

    Where Brain-Score averages over animals, over those that are drawn.
    """
    parts = [(target, np.arange(neuroids.shape[1]))]
    if target.by_animal and target.animals:
        held = np.asarray(target.recording.neuroids["animal"]).astype(str)
        parts = [
            (own, np.flatnonzero(held == name)) for name, own in target.animals.items()
        ]
    drawn = np.stack([neuroids[:, places].mean(axis=1) for _, places in parts])
    raw = np.stack(
        [[fit.raw(stimuli, neuroids, places) for _, places in parts] for fit in fits]
    )
    ceilings = [part.ceiling.value if part.ceiling else np.nan for part, _ in parts]
    numbers = [raw]
    if np.greater(ceilings, 0).all():
        numbers.append(raw**2 / np.array(ceilings)[:, None])
    means = [
        np.where(drawn > 0, drawn * number, 0).sum(axis=1) / drawn.sum(axis=0)
        for number in numbers
    ]
    return np.asarray(np.concatenate(means).T)
