"""What of a recording is predicted, and how well it can be."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ce_align.checks import named_some
from ce_align.data.joining import equal_files
from ce_align.data.recordings import Protocol, Recording
from ce_align.errors import DataError
from ce_align.metrics.ceiling import (
    Ceiling,
    chance_of_ceiling,
    predictor_ceiling,
    repeated_ceiling,
    stated_ceiling,
    variance_ceiling,
)
from ce_align.metrics.gram import Splits, centred_gram
from ce_align.metrics.held_out import HeldOut
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    held_out,
    normalised_score,
    summarise,
    working_bytes,
)
from ce_align.results import joined_notes
from ce_align.stages.scores import PredictivityConfig, ScoreConfig, ScoreRow

if TYPE_CHECKING:
    import xarray as xr
    from numpy.typing import NDArray

    from ce_align.models.networks import Probe

__all__ = ["Target", "best_of", "fit", "predict"]

#: A ceiling with a larger p is not told from chance.
CHANCE = 0.05
#: Over fewer test stimuli r of a split is said to be over few.
FEW_TESTED = 10
#: Ceilings of the two kinds that differ by more are both stated.
NOTED_DIFFERENCE = 0.02
#: A layer is chosen by so many folds of the training stimuli.
FOLDS = 3


def _splits(recording: Recording, config: PredictivityConfig) -> Splits:
    """Random splits; what predicts units is divided in the order in which they came."""
    seen = np.arange(len(recording.images))
    order = recording.protocol.order if recording.protocol else None
    if config.regression == "reverse_pls" and order is not None:
        place = {key: i for i, key in enumerate(recording.images.ids)}
        seen = np.array([place[key] for key in order])
    strata = recording.strata(config.stratify)
    splits = brainscore_splits(
        len(seen),
        stratify=None if strata is None else strata[seen],
        n_splits=config.splits,
        seed=config.seed,
    )
    return [(seen[train], seen[test]) for train, test in splits]


@dataclass(frozen=True, eq=False)
class Target:
    """What is computed of a recording once, for all layers.

    `averages` are its responses over repetitions, (n_stimuli, n_neuroids).
    """

    recording: Recording
    averages: "NDArray[np.float64]"
    splits: Splits
    ceiling: Ceiling | None
    notes: tuple[str, ...]
    animals: Mapping[str, "Target"]

    @classmethod
    def of(cls, recording: Recording, config: PredictivityConfig) -> "Target":
        """Target of one region and window; DataError if it cannot be scored."""
        protocol = recording.protocol
        notes = [*recording.notes]
        if protocol is not None:
            notes += _against_protocol(recording, protocol, config)
        notes += _equal_images(recording)
        averages = recording.averaged()
        if recording.split is None:
            splits = _splits(recording, config)
            ceiling, why = _ceiling(recording, config)
        else:
            train, test = (
                np.flatnonzero(recording.split == part) for part in ("train", "test")
            )
            splits = [(train, test)]
            # What is predicted, and its reliability, are of the test stimuli.
            ceiling, why = _ceiling(recording.of_stimuli(test), config)
            notes.append(
                f"the recording's own split: {len(train)} stimuli to train, "
                f"{len(test)} to test"
            )
        notes += _few_stimuli(splits, config)
        animals = recording.animals
        if len(animals) < 2 or config.regression == "reverse_pls":
            animals = ()
        each = {name: cls.of(recording.select(animal=name), config) for name in animals}
        return cls(recording, averages, splits, ceiling, (*notes, *why), each)

    @property
    def n_values(self) -> int:
        """How many averages there are."""
        return len(self.recording.images) * len(self.recording.neuroid_ids)

    def check_memory(self, n_features: int, config: ScoreConfig) -> None:
        """Raise CeAlignError if the regression would not fit into the memory."""
        from ce_align.models.memory import check_memory

        n_stimuli = len(self.recording.images)
        n_neuroids = len(self.recording.neuroid_ids)
        working = working_bytes(
            (n_stimuli, n_features),
            n_neuroids,
            self.splits,
            regression=config.regression or "pls",
            n_components=config.components,
        )
        check_memory(
            {f"regressions of {n_stimuli} stimuli, {n_neuroids} neuroids": working},
            f"{config.layer} × {config.recording}",
            "take fewer splits or neuroids, or a machine with more",
        )

    @property
    def by_animal(self) -> bool:
        """Whether Brain-Score fits and scores each animal by itself."""
        protocol = self.recording.protocol
        return protocol is not None and protocol.by == "animal"

    def rows(
        self,
        r: "NDArray[np.float64]",
        probe: "Probe",
        config: ScoreConfig,
        config_id: str,
    ) -> list[ScoreRow]:
        """Of all neuroids together; and of each of several animals, and their mean."""
        found = self.scored(r, config, probe.digest, config_id)
        note = probe.note(config.layer)
        return [
            row.model_copy(update={"note": joined_notes(row.note, note)})
            for row in found
        ]

    def scored(
        self,
        r: "NDArray[np.float64]",
        config: ScoreConfig,
        model_digest: str = "",
        config_id: str = "",
    ) -> list[ScoreRow]:
        """The same, of a network that is known by no more than its digest."""
        whole = self._row(r, model_digest, config, config_id)
        if not self.animals:
            return [whole]
        held = np.asarray(self.recording.neuroids["animal"]).astype(str)
        found = [whole]
        for animal, own in self.animals.items():
            row = own._row(r[:, held == animal], model_digest, config, config_id)
            found.append(row.model_copy(update={"animal": animal}))
        mean = _mean_over_animals(found)
        if self.by_animal:
            note = "mean over animals, each fitted and scored by itself"
            found[0] = whole.model_copy(
                update={
                    "value": mean.value,
                    "raw": mean.raw,
                    "error": None,
                    "note": joined_notes(note, whole.note),
                }
            )
        return [*found, mean]

    def _row(
        self,
        r: "NDArray[np.float64]",
        model_digest: str,
        config: ScoreConfig,
        config_id: str,
    ) -> ScoreRow:
        raw, error = summarise(r)
        ceiling = self.ceiling
        value, notes = None, list(self.notes)
        if ceiling is not None and ceiling.value > 0:
            value = normalised_score(raw, ceiling.value)
            if value > 1:
                notes.append(
                    f"score {value:.3g} is above 1: raw² exceeds the ceiling, which is "
                    "an estimate, surer with more stimuli and repetitions"
                )
            if raw < 0:
                notes.append("raw r is negative, so that the score means nothing")
        n_partial = int(np.isnan(r).any(axis=0).sum())
        if n_partial:
            what = "units" if config.regression == "reverse_pls" else "neuroids"
            notes.append(
                f"{n_partial} of {r.shape[1]} {what} lack a correlation in some split"
            )
        return ScoreRow(
            model=config.model,
            metric="predictivity",
            value=value,
            config_id=config_id,
            recording=config.recording,
            region=self.recording.region,
            layer=config.layer,
            raw=raw,
            error=error if len(self.splits) > 1 else None,
            ceiling=None if ceiling is None else ceiling.value,
            n_stimuli=len(self.recording.images),
            n_neuroids=len(self.recording.neuroid_ids),
            n_splits=len(self.splits),
            regression=config.regression_name,
            seed=config.seed,
            model_digest=model_digest,
            recording_digest=self.recording.digest,
            ceiling_kind=None if ceiling is None else ceiling.kind,
            n_ceiling_stimuli=None if ceiling is None else ceiling.n_stimuli,
            time_start=self.recording.window and self.recording.window[0],
            time_end=self.recording.window and self.recording.window[1],
            # One "; " parts notes, as in the tables that list them.
            note="; ".join(note.replace("; ", ", ") for note in notes) or None,
        )

    def arrays(self, r: "NDArray[np.float64]", config: ScoreConfig) -> "xr.Dataset":
        """The r of every split and neuroid, or unit, beside the row."""
        import xarray as xr

        predicted = "unit" if config.regression == "reverse_pls" else "neuroid"
        variables = {"r": (("split", predicted), r)}
        if self.ceiling is not None:
            variables["ceiling"] = (
                ("ceiling_split", "neuroid"),
                self.ceiling.per_split_neuroid,
            )
        names = np.array(self.recording.neuroid_ids, dtype=object)
        return xr.Dataset(variables, coords={"neuroid_id": ("neuroid", names)})


def predict(
    targets: Sequence[Target],
    features: "NDArray[Any]",
    config: ScoreConfig,
    gram: "Callable[[], NDArray[np.float64]]",
) -> "list[NDArray[np.float64]]":
    """Pearson r of each part of one recording, (n_splits, n_neuroids) or units.

    Each part is fitted by itself; what does not depend on it is computed once.
    """
    r = cross_validated_r(
        features, *_given(targets), **_settings(targets, config, gram)
    )
    if len(targets) == 1:
        return [r]
    ends = np.cumsum([len(target.recording.neuroid_ids) for target in targets])
    return np.split(r, ends[:-1], axis=1)


def best_of(
    target: Target,
    layers: "Mapping[str, NDArray[Any]]",
    config: ScoreConfig,
    progress: Callable[[int, int], None],
) -> "tuple[NDArray[np.float64], list[str]]":
    """Predict each split from the layer that is best within its training stimuli.

    Parameters
    ----------
    target : what is predicted
    layers : features by layer, (n_stimuli, n_features)
    config : how it is predicted; its seed draws the folds
    progress : is told how many layers of how many are done

    Returns
    -------
    r : of the test stimuli, (n_splits, n_neuroids)
    chosen : the layer of each split, of the largest mean over folds of the training
        stimuli of the median over neuroids; no test stimulus is in a fold
    """
    rng = np.random.default_rng(config.seed)
    folds = []
    for train, _ in target.splits:
        parts = np.array_split(rng.permutation(train), FOLDS)
        for k, part in enumerate(parts):
            rest = np.concatenate([*parts[:k], *parts[k + 1 :]])
            folds.append((np.sort(rest), np.sort(part)))
    every = replace(target, splits=[*folds, *target.splits])
    quality, tested = [], []
    for done, values in enumerate(layers.values()):
        progress(done, len(layers))
        form = cache(partial(centred_gram, values, dtype=config.gram_dtype))
        (r,) = predict([every], values, config, form)
        inner = r[: len(folds)].reshape(len(target.splits), FOLDS, -1)
        quality.append([summarise(of_split)[0] for of_split in inner])
        tested.append(r[len(folds) :])
    best = np.argmax(quality, axis=0)
    r = np.stack([tested[k][split] for split, k in enumerate(best)])
    names = list(layers)
    return r, [names[k] for k in best]


def fit(
    target: Target,
    features: "NDArray[Any]",
    config: PredictivityConfig,
    gram: "Callable[[], NDArray[np.float64]]",
) -> HeldOut:
    """What is predicted of a recording; its r is that of `predict`."""
    return held_out(features, *_given([target]), **_settings([target], config, gram))


def _given(targets: Sequence[Target]) -> "tuple[NDArray[np.float64], Splits]":
    """Responses of parts of one recording beside each other, and the splits."""
    averages = np.concatenate([target.averages for target in targets], axis=1)
    return averages, targets[0].splits


def _settings(
    targets: Sequence[Target],
    config: PredictivityConfig,
    gram: "Callable[[], NDArray[np.float64]]",
) -> dict[str, Any]:
    """Settings of the regression of parts of one recording."""
    groups: list[str] = []
    for place, target in enumerate(targets):
        held = target.recording
        names = held.neuroids["animal"] if target.by_animal else held.neuroid_ids
        groups += [f"{place} {n if target.by_animal else ''}" for n in names]
    return {
        "regression": config.regression or "pls",
        "groups": groups if len(set(groups)) > 1 else None,
        "mode": config.pls_mode,
        "n_components": config.components,
        "alpha": config.alpha,
        "gram_dtype": config.gram_dtype,
        "gram": gram,
    }


def _mean_over_animals(rows: Sequence[ScoreRow]) -> ScoreRow:
    """Mean of the rows of animals, with its standard error; the first is of all."""
    whole, *each = rows
    values = [row.value for row in each if row.value is not None]
    raw = np.array([row.raw for row in each])
    known = len(values) == len(each)
    return whole.model_copy(
        update={
            "animal": "mean",
            "value": float(np.mean(values)) if known else None,
            "raw": float(raw.mean()),
            "error": float(raw.std(ddof=1) / np.sqrt(len(raw))),
            "ceiling": None,
            "ceiling_kind": None,
            "n_ceiling_stimuli": None,
            "note": None if known else "no score: an animal has none",
        }
    )


def _against_protocol(
    recording: Recording, protocol: Protocol, config: PredictivityConfig
) -> list[str]:
    """Say that the metric, or the splits, are not those of the benchmark."""
    asked = [protocol.regression == config.regression]
    if config.regression in ("pls", "reverse_pls"):
        asked.append(protocol.components == config.components)
    if config.regression == "ridge":
        asked.append(protocol.alpha == config.alpha)
    if not all(asked):
        return [f"not the metric of Brain-Score's {protocol.benchmark}"]
    return [] if recording.split is not None else _other_splits(protocol, config)


def _other_splits(protocol: Protocol, config: PredictivityConfig) -> list[str]:
    """Say that splits are not the benchmark's own."""
    defaults = ScoreConfig.model_fields
    changed = [
        f"--{name}"
        for name in ("splits", "seed", "stratify")
        if getattr(config, name) != defaults[name].default
    ]
    own = f"not the splits of Brain-Score's {protocol.benchmark}"
    return [f"{own} ({', '.join(changed)})"] if changed else []


def _few_stimuli(splits: Splits, config: PredictivityConfig) -> list[str]:
    """Say that what is fitted, or correlated, has few stimuli."""
    n_train, n_test = (min(map(len, part)) for part in zip(*splits, strict=True))
    found = []
    if "pls" in config.regression_name and n_train < 2 * config.components:
        found.append(
            f"{config.components} components fit {n_train} to train nearly exactly "
            "(--components asks for fewer)"
        )
    if n_test < FEW_TESTED:
        found.append(f"r of a split is over {n_test} to test")
    return [f"few stimuli: {' and '.join(found)}"] if found else []


def _equal_images(recording: Recording) -> list[str]:
    """Refuse equal images among the stimuli, or say that Brain-Score has them."""
    first = equal_files(recording.images)
    ids = recording.images.ids
    pairs = [f"{ids[i]} = {ids[j]}" for j, i in enumerate(first) if i != j]
    if not pairs:
        return []
    if recording.protocol is None:
        raise DataError(
            f"{len(pairs)} stimuli of {recording.identifier} show the image of another "
            f"({named_some(pairs)}) and would be in training and in test; join them "
            "into repetitions (join_equal_images)"
        )
    return [
        f"{len(pairs)} stimuli show the image of another ({named_some(pairs)}), which "
        "Brain-Score may have in training and in test"
    ]


def _ceiling_kind(
    recording: Recording, config: PredictivityConfig
) -> (
    Literal["auto", "split-half", "variance", "stated", "predictor-consistency"] | None
):
    """Kind of the ceiling; what is Brain-Score's own keeps its number."""
    protocol = recording.protocol
    if config.ceiling != "auto":
        return config.ceiling
    if config.regression == "reverse_pls":
        return "predictor-consistency"
    if protocol is not None and protocol.regression != "reverse_pls":
        return protocol.ceiling
    if "reliability" in recording.neuroids and not recording.has_repetitions:
        return "stated"
    return "auto"


def _ceiling(
    recording: Recording, config: PredictivityConfig
) -> tuple[Ceiling | None, list[str]]:
    """The ceiling, None if there is none, and what to say of it."""
    kind = _ceiling_kind(recording, config)
    stated = recording.neuroids.get("reliability")
    if kind is None:
        return None, ["no score: Brain-Score's ceiling is computed another way"]
    if kind == "stated":
        if stated is None:
            return None, ["no score: no reliability is stated"]
        try:
            return stated_ceiling(stated), []
        except DataError as error:
            return None, [f"no score: {error}"]
    if not recording.has_repetitions:
        return None, ["no score: no repetitions, hence no ceiling"]
    repeated, once = recording.repeated()
    try:
        if kind == "predictor-consistency":
            names = recording.images.columns.get("image_id", recording.images.ids)
            ceiling = predictor_ceiling(repeated, names)
        else:
            ceiling = repeated_ceiling(
                repeated, once, kind=kind, n_splits=config.splits, seed=config.seed
            )
    except DataError as error:
        return None, [f"no score: {error}"]
    if not np.isfinite(ceiling.value):  # halves of two stimuli that oppose each other
        return None, ["no score: the ceiling is not finite"]
    if not ceiling.value > 0:
        return ceiling, [
            f"no score: the ceiling is {ceiling.value:.3g}, so that repetitions do not "
            "agree"
        ]
    notes = []
    p = chance_of_ceiling(repeated, config.seed)
    if p is not None and p > CHANCE:
        notes.append(f"the ceiling is not told from chance (p = {p:.2g})")
    if ceiling.kind == "split-half":
        other = variance_ceiling(repeated, once).value
        if abs(other - ceiling.value) > NOTED_DIFFERENCE * ceiling.value:
            notes.append(f"--ceiling variance gives a ceiling of {other:.4f}")
    return ceiling, notes
