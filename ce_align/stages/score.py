"""IT predictivity: how well a network's features predict a recording."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import (
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_serializer,
)
from pydantic_core.core_schema import SerializerFunctionWrapHandler

from ce_align.checks import named_some
from ce_align.config import COMMITTED, ConfigId, NetworkConfig
from ce_align.data.joining import equal_files
from ce_align.data.recordings import Protocol, Recording
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.metrics.ceiling import (
    Ceiling,
    chance_of_ceiling,
    predictor_ceiling,
    repeated_ceiling,
    stated_ceiling,
    variance_ceiling,
)
from ce_align.metrics.gram import Splits, centred_gram
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    normalised_score,
    summarise,
    working_bytes,
)
from ce_align.results import Row, joined_notes
from ce_align.stages.running import NetworkLayer, Run

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr
    from numpy.typing import NDArray

    from ce_align.models.features import Features
    from ce_align.models.networks import Network
    from ce_align.stages.official import OfficialConfig

__all__ = [
    *("VISUAL_DEGREES", "ScoreConfig", "ScoreRow", "execute", "score", "shared"),
    *("with_ceiling_kinds", "with_layers"),
]

#: A configuration that names one layer of one network, for one recording.
LayerConfig = TypeVar("LayerConfig", "ScoreConfig", "OfficialConfig")

Regression = Literal["pls", "ridge", "ridgecv", "reverse_pls", "neuron_to_neuron"]

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "predictivity 2"

#: A ceiling with a larger p is not told from chance.
CHANCE = 0.05
#: Ceilings of the two kinds that differ by more are both stated.
NOTED_DIFFERENCE = 0.02

#: Visual angle of every network's input, as Brain-Score assumes for its models.
VISUAL_DEGREES = 8.0


class ScoreConfig(NetworkConfig):
    """Settings that a score depends on; the defaults are Brain-Score's.

    `layer` is a layer's name, ``committed`` for the one committed for the region,
    ``all`` for every block, or a pattern such as ``blocks.*``.
    """

    stage: ClassVar = "score"
    narrowing: ClassVar = ("region", "animal", "reliability", "neuroids", "time")

    recording: str = Field(
        description="Recording: name, glob, group, brainscore/ID or a .nc file."
    )
    layer: str = Field(
        default=COMMITTED,
        description="Layer to read: 'all' for every block, or a pattern such as "
        "'blocks.*', in one pass; 'committed' for that of the region.",
    )
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
    seed: NonNegativeInt = Field(default=1, description="Seed of splits and weights.")
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

    @model_serializer(mode="wrap")
    def _without_what_is_not_asked(
        self, dump: SerializerFunctionWrapHandler
    ) -> dict[str, Any]:
        settings: dict[str, Any] = dump(self)
        return {
            name: value
            for name, value in settings.items()
            if name not in (*self.narrowing, "regression") or value is not None
        }

    def fingerprint(self, **content: str) -> ConfigId:
        """Identity of a result; without a regression that of PLS."""
        if self.regression is None:
            known = self.model_copy(update={"regression": "pls"})
            return known.fingerprint(**content)
        return super().fingerprint(**content)

    def for_recording(self, recording: Recording) -> "ScoreConfig":
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


class ScoreRow(Row):
    """Predictivity of one layer for one recording.

    `value` is raw² / ceiling, unclipped. It is None, and `note` says why, where the
    ceiling is not positive or there is none, as without repetitions. `raw` is the mean
    over splits of the median over neuroids of Pearson r, and `error` its standard error
    over splits; None of one fixed split. The ceiling comes from the repetitions of
    `n_ceiling_stimuli` stimuli in the way that `ceiling_kind` names; `note` marks what
    a reader should know.

    `animal` is None of all neuroids together, which is Brain-Score's number. It names
    one animal, or is ``mean`` for the mean over animals, where `error` is the standard
    error of `raw` over them. `time_start` and `time_end` are in ms after onset.
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


def with_ceiling_kinds(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Stored rows with the kind of their ceilings, which in 0.1 were all split-half."""
    kinds = rows.get("ceiling_kind")
    if kinds is None:
        return rows.assign(ceiling_kind="split-half")
    return rows.assign(ceiling_kind=kinds.fillna("split-half"))


def shared(config: ScoreConfig) -> Hashable:
    """What configurations have in common that share a network in memory."""
    return config.model, config.seed


def execute(configs: Sequence[ScoreConfig], run: Run) -> None:
    """Score layers of one network against recordings; all of one in a pass."""
    model, seed = configs[0].model, configs[0].seed
    groups: dict[ScoreConfig, list[ScoreConfig]] = {}
    for config in configs:
        but_layer = config.model_copy(update={"layer": ""})
        groups.setdefault(but_layer, []).append(config)
    ready = []
    for first, group in groups.items():
        with run.attempt(f"{model} × {first.recording}", *group):
            recording = run.recording(first.recording)
            ready.append((list(_parts(recording, first)), first, group))
    if not ready:  # nothing to predict: the network need not be loaded
        return
    network = run.network(model, seed)
    for parts, first, group in ready:
        with run.attempt(f"{model} × {first.recording}", *group):
            asked = {
                found: part
                for narrowed, part in parts
                for found in with_layers(
                    [config.model_copy(update=narrowed) for config in group],
                    network,
                    part,
                    run,
                )
            }
            run.outcome.rows += score(network, asked, run)


def _parts(
    recording: Recording, config: ScoreConfig
) -> Iterator[tuple[dict[str, str], Recording]]:
    """What is scored of a recording: a region each, and a time bin each.

    Comes with the settings that ask for just this part.
    """
    ids = None if config.neuroids is None else _listed(Path(config.neuroids))
    chosen = recording.select(
        region=config.region,
        animal=config.animal,
        reliability=config.reliability,
        neuroids=ids,
    )
    if config.reliability is not None:
        note = f"neuroids with a stated reliability above {config.reliability:g}"
        chosen = replace(chosen, notes=(*chosen.notes, note))
    for region in chosen.regions:
        narrowed = {"region": region} if len(chosen.regions) > 1 else {}
        part = chosen.select(region=region)
        for time, selected in _times(part, config.time):
            yield narrowed | time, selected


def _listed(path: Path) -> list[str]:
    """Ids in a file, one a line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"cannot read the ids of neuroids in {path}: {error}; give a text file "
            "with one a line"
        ) from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def _times(
    recording: Recording, time: str | None
) -> Iterator[tuple[dict[str, str], Recording]]:
    """Time bins that are asked for, or the recording if it has none."""
    bins = recording.time_bins
    if bins is None and time is None:
        yield {}, recording
        return
    if bins is None:
        raise ConfigError(f"{recording.identifier} has no time bins; leave out --time")
    if time is None:
        raise ConfigError(
            f"{recording.identifier} has {len(bins)} time bins from {bins.min():g} to "
            f"{bins.max():g} ms; give --time all, the number of one, or START:END"
        )
    if time == "all":
        for place in range(len(bins)):
            yield {"time": str(place)}, recording.select(time=place)
        return
    try:
        edges = [float(edge) for edge in time.split(":")]
        (start, end) = edges if len(edges) == 2 else (int(time), None)
    except ValueError:
        raise ConfigError(
            f"--time must be all, the number of a bin, or START:END in ms; found {time}"
        ) from None
    if end is None:
        yield {}, recording.select(time=int(start))
    else:
        yield {}, recording.select(time=(start, end))


def with_layers(
    configs: Sequence[LayerConfig],
    network: "Network",
    recording: Recording,
    run: Run,
) -> list[LayerConfig]:
    """Configurations with the layers that they stand for, each once.

    A layer that does not exist is a failure of its configuration.
    """
    from ce_align.models.networks import asked_layers

    found: dict[LayerConfig, None] = {}
    for config in configs:
        with run.attempt(network.name, config):
            for layer in asked_layers(network, config.layer, recording.region):
                found[config.model_copy(update={"layer": layer})] = None
            if config not in found:
                run.store.clear_failure(config.stage, config)
    return list(found)


def score(
    network: "Network", asked: Mapping[ScoreConfig, Recording], run: Run
) -> list[ScoreRow]:
    """Score layers of one network against a recording, or against parts of one.

    Features of all layers come from one pass over the images. A configuration that is
    in the store is answered from there, as long as the network answers as it did; each
    layer is stored as soon as it is computed, so that an interrupted run loses at most
    one. A layer that fails does not keep the others from their rows.

    Parameters
    ----------
    network : network whose layers the configurations name
    asked : for each configuration the part of the recording that it is about. They
        differ only in the layer and the part; the parts have the same images
    run : where rows, and r of every split and neuroid, go

    Raises
    ------
    ConfigError
        If a layer, or the column to stratify by, does not exist.
    DataError
        If the recording cannot be scored with these settings.
    """
    from ce_align.models.features import ALGORITHM_VERSION, extract

    if not asked:
        return []
    resolved = {config.for_recording(part): part for config, part in asked.items()}
    for config in asked.keys() - resolved.keys():
        run.store.clear_failure(config.stage, config)
    asked = resolved
    layers = list(dict.fromkeys(config.layer for config in asked))
    probe = network.probe(layers, allow_unstable=run.allow_unstable)
    ids = {
        config: config.fingerprint(
            weights=probe.digest,
            recording=recording.digest,
            algorithm=f"{ALGORITHM}, features {ALGORITHM_VERSION}",
        )
        for config, recording in asked.items()
    }
    known = {name: [NetworkLayer(network, name, probe)] for name in layers}
    rows: dict[ScoreConfig, list[ScoreRow]] = {}
    for config, recording in asked.items():
        stored = run.recall(
            config,
            ids[config],
            ScoreRow,
            known[config.layer],
            origin=recording.origin,
        )
        if stored:
            rows[config] = stored
    missing = [config for config in asked if config not in rows]
    if missing:
        # Everything that can be refused is refused before hours of extraction.
        targets: dict[str, _Target] = {}
        for config in missing:
            recording = asked[config]
            if recording.digest not in targets:
                targets[recording.digest] = _Target.of(recording, config)
            if config.layer in probe.behaviours:
                target = targets[recording.digest]
                target.check_memory(probe.behaviours[config.layer].width, config)
        failed: dict[str, CeAlignError] = {}
        features = extract(
            network,
            recording.images.on_screen(recording.degrees, VISUAL_DEGREES),
            list(dict.fromkeys(config.layer for config in missing)),
            device=run.hardware.device,
            batch_size=run.hardware.batch_size,
            compile=run.hardware.compiled,
            overwrite=run.force,
            probe=probe,
            failures=failed,
            progress=lambda done, total: run.progress(
                f"{network.name} images", done, total
            ),
            notify=run.notify,
        )
        what = f"{network.name} × {recording.identifier}"
        # One layer at a time, whose Gram matrix all parts of the recording share.
        missing.sort(key=lambda config: layers.index(config.layer))
        grams: dict[str, Callable[[], Any]] = {}
        for done, config in enumerate(missing):
            run.progress(what, done, len(missing))
            layer = config.layer
            with run.attempt(f"{network.name} {layer} × {config.recording}", config):
                if layer in failed:
                    raise failed[layer]
                if layer not in grams:
                    values = features[layer].values
                    form = partial(centred_gram, values, dtype=config.gram_dtype)
                    grams = {layer: cache(form)}
                target = targets[asked[config].digest]
                r = target.predict(features[layer], config, grams[layer])
                found = target.rows(r, probe.digest, config, ids[config])
                noted = [
                    row.model_copy(
                        update={"note": joined_notes(row.note, probe.note(layer))}
                    )
                    for row in found
                ]
                rows[config] = run.keep(
                    config,
                    ids[config],
                    noted,
                    known[layer],
                    target.arrays(r, config),
                    origin=target.recording.origin,
                )
        run.progress(what, 1, 1)
    return [row for config in asked for row in rows.get(config, ())]


def _splits(recording: Recording, config: ScoreConfig) -> Splits:
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
class _Target:
    """What is computed of a recording once, for all layers."""

    recording: Recording
    averaged: "NDArray[np.float64]"
    splits: Splits
    ceiling: Ceiling | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, recording: Recording, config: ScoreConfig) -> "_Target":
        protocol = recording.protocol
        notes = [*recording.notes]
        if protocol is not None:
            notes += _against_protocol(recording, protocol, config)
        notes += _equal_images(recording)
        averaged = recording.averaged()
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
        return cls(recording, averaged, splits, ceiling, (*notes, *why))

    def check_memory(self, n_features: int, config: ScoreConfig) -> None:
        """Raise CeAlignError if the regression would not fit into the memory."""
        from ce_align.models.memory import check_memory

        n_stimuli, n_neuroids = self.averaged.shape
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

    def predict(
        self,
        features: "Features",
        config: ScoreConfig,
        gram: "Callable[[], NDArray[np.float64]]",
    ) -> "NDArray[np.float64]":
        """Pearson r, (n_splits, n_neuroids), or of the units that are predicted."""
        return cross_validated_r(
            features.values,
            self.averaged,
            self.splits,
            regression=config.regression or "pls",
            groups=self.recording.neuroids["animal"] if self.by_animal else None,
            mode=config.pls_mode,
            n_components=config.components,
            alpha=config.alpha,
            gram_dtype=config.gram_dtype,
            gram=gram,
        )

    def rows(
        self,
        r: "NDArray[np.float64]",
        model_digest: str,
        config: ScoreConfig,
        config_id: str,
    ) -> list[ScoreRow]:
        """Of all neuroids together; and of each of several animals, and their mean."""
        whole = self.row(r, model_digest, config, config_id)
        animals = self.recording.animals
        if len(animals) < 2 or config.regression == "reverse_pls":
            return [whole]
        held = np.asarray(self.recording.neuroids["animal"]).astype(str)
        found = [whole]
        for animal in animals:
            own = self.of(self.recording.select(animal=animal), config)
            row = own.row(r[:, held == animal], model_digest, config, config_id)
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

    def row(
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
                notes.append(f"score {value:.3g} is above 1: raw² exceeds the ceiling")
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
            error=None if self.recording.split is not None else error,
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
    recording: Recording, protocol: Protocol, config: ScoreConfig
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


def _other_splits(protocol: Protocol, config: ScoreConfig) -> list[str]:
    """Say that splits are not the benchmark's own."""
    defaults = ScoreConfig.model_fields
    changed = [
        f"--{name}"
        for name in ("splits", "seed", "stratify")
        if getattr(config, name) != defaults[name].default
    ]
    own = f"not the splits of Brain-Score's {protocol.benchmark}"
    return [f"{own} ({', '.join(changed)})"] if changed else []


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
    recording: Recording, config: ScoreConfig
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
    recording: Recording, config: ScoreConfig
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
