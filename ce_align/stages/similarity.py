"""How alike a network's layer and a recording are, neither fitted to the other."""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ce_align.config import ConfigId
from ce_align.data.joining import equal_files, join_equal_images
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, DataError
from ce_align.metrics.gram import Array, Indices
from ce_align.metrics.jackknife import jackknife_interval
from ce_align.results import joined_notes
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.score import execute_parts, features_of
from ce_align.stages.similarities import (
    SIMILARITIES,
    SimilarityConfig,
    SimilarityRow,
)

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["SimilarityConfig", "execute", "shared"]

ALGORITHM = "similarity 1"

#: Stimuli are exchanged so often for a floor, repetitions halved for a ceiling.
EXCHANGES, HALVINGS = 5, 5
#: Of which the mean over animals is taken.
MEANS = ("value", "floor")
#: What an interval is over, in rows.
OVER = {"both": "stimuli and neuroids", "stimuli": "stimuli", "neuroids": "neuroids"}


def shared(config: SimilarityConfig) -> Hashable:
    """What configurations have in common that share a network in memory."""
    return config.model, config.seed


def execute(configs: Sequence[SimilarityConfig], run: Run) -> None:
    """Compare layers of one network with recordings; all layers in a pass."""
    execute_parts(configs, _compare, run)


def _compare(
    network: "Network", asked: Mapping[SimilarityConfig, Recording], run: Run
) -> list[SimilarityRow]:
    """Rows of layers of one network and one recording, or parts of it."""
    from ce_align.models.features import ALGORITHM_VERSION

    layers = list(dict.fromkeys(config.layer for config in asked))
    probe = network.probe(layers, allow_unstable=run.allow_unstable)
    sides = {part.digest: part for part in asked.values()}
    joined = equal_files(next(iter(asked.values())).images)
    compared = {k: _Compared(join_equal_images(p, joined)) for k, p in sides.items()}
    jobs: dict[SimilarityConfig, tuple[_Compared, ConfigId, NetworkLayer]] = {}
    rows: dict[SimilarityConfig, list[SimilarityRow]] = {}
    for given, recording in asked.items():
        side = compared[recording.digest]
        config = given.for_responses(side.responses)
        config_id = config.fingerprint(
            weights=probe.digest,
            recording=recording.digest,
            algorithm=f"{ALGORITHM}{SIMILARITIES[config.metric].version}, features "
            f"{ALGORITHM_VERSION}",
        )
        layer = NetworkLayer(network, config.layer, probe)
        origin = recording.origin
        stored = run.recall(config, config_id, SimilarityRow, [layer], origin=origin)
        rows[config] = stored or []
        if not stored:
            jobs[config] = side, config_id, layer
        if config != given:
            run.store.clear_failure(given.stage, given)
    failed: dict[str, CeAlignError] = {}
    if jobs:
        one = next(iter(compared.values())).recording
        wanted = list(dict.fromkeys(config.layer for config in jobs))
        features = features_of(network, one, wanted, run, probe, failures=failed)
    what = f"{network.name} × {next(iter(asked)).recording}"
    for done, (config, (side, config_id, layer)) in enumerate(jobs.items()):
        run.progress(what, done, len(jobs))
        with run.attempt(f"{what}, {config.metric} of {config.layer}", config):
            if config.layer in failed:
                raise failed[config.layer]
            found = [
                row.model_copy(
                    update={
                        "config_id": config_id,
                        "model_digest": probe.digest,
                        "note": joined_notes(row.note, layer.note),
                    }
                )
                for row in side.rows(features[config.layer].values, config)
            ]
            origin = side.recording.origin
            rows[config] = run.keep(config, config_id, found, [layer], origin=origin)
    run.progress(what, 1, 1)
    return [row for found in rows.values() for row in found]


class _Compared:
    """A recording, or a part of one, that layers are compared with.

    `responses` are (n_stimuli, n_repetitions, n_neuroids), NaN where there is none.
    """

    def __init__(self, recording: Recording) -> None:
        recording.averaged()  # refuses what has no response to some stimulus
        self.recording = recording
        held = recording.responses
        if isinstance(held, Presentations):
            held = held.rectangle(np.arange(len(recording.images)))
        self.responses: Array = held

    def rows(
        self, features: NDArray[Any], config: SimilarityConfig
    ) -> list[SimilarityRow]:
        """Of all neuroids together; and of each of several animals, and their mean."""
        similarity = SIMILARITIES[config.metric]
        network = similarity.represent(features, config)
        whole = self._row(network, self.responses, config)
        animals = self.recording.animals
        if len(animals) < 2:
            return [whole]
        held = np.asarray(self.recording.neuroids["animal"]).astype(str)
        each = [
            self._row(network, self.responses[:, :, held == name], config, name)
            for name in animals
        ]
        brains = [
            similarity.of_responses(self.responses[:, :, held == name], config)
            for name in animals
        ]
        bounds = self._between(brains, config) if similarity.graded else (None, None)
        mean = whole.model_copy(
            update={
                "animal": "mean",
                **{k: _mean(getattr(row, k) for row in each) for k in MEANS},
                "low": None,
                "high": None,
                "interval": None,
                "note": None,
                "ceiling_low": bounds[0],
                "ceiling_high": bounds[1],
                "ceiling_kind": "animals" if similarity.graded else None,
            }
        )
        return [whole, *each, mean]

    def _folds(self, config: SimilarityConfig) -> Indices:
        order = np.random.default_rng(config.seed).permutation(len(self.responses))
        return np.asarray(order % config.folds)

    def _row(
        self,
        network: Array,
        responses: Array,
        config: SimilarityConfig,
        animal: str | None = None,
    ) -> SimilarityRow:
        similarity, folds = SIMILARITIES[config.metric], self._folds(config)
        rng = np.random.default_rng(config.seed)
        n_stimuli, _, n_neuroids = responses.shape
        brain = similarity.of_responses(responses, config)
        exchanged = [
            similarity.of_stimuli(network, rng.permutation(n_stimuli))
            for _ in range(EXCHANGES if similarity.graded else 0)
        ]
        floor = [similarity.compare(one, brain, config, folds) for one in exchanged]

        @lru_cache(maxsize=16)
        def of_neuroids(chosen: bytes) -> Array:
            some = np.frombuffer(chosen, dtype=np.intp)
            if len(some) == n_neuroids:
                return brain
            return similarity.of_responses(responses[:, :, some], config)

        def value_of(stimuli: Indices, neuroids: Indices) -> float:
            both = (network, of_neuroids(neuroids.astype(np.intp).tobytes()))
            a, b = (similarity.of_stimuli(one, stimuli) for one in both)
            return similarity.compare(a, b, config, folds[stimuli])

        notes = [*self.recording.notes]
        low = high = over = None
        try:
            found = jackknife_interval(
                value_of, n_stimuli, n_neuroids, rng, over=config.interval
            )
            low, high, over = found.low, found.high, OVER[config.interval]
        except DataError as error:
            notes.append(f"no interval: {error}")
        ceiling: tuple[float, float] | tuple[None, None] = (None, None)
        try:
            if similarity.graded:
                ceiling = self._between_halves(responses, brain, config, rng)
        except DataError as error:
            notes.append(f"no ceiling: {error}")
        window = self.recording.window
        return SimilarityRow(
            model=config.model,
            metric=config.metric,
            value=similarity.compare(network, brain, config, folds),
            config_id="",
            recording=config.recording,
            region=self.recording.region,
            layer=config.layer,
            low=low,
            high=high,
            interval=over,
            floor=float(np.mean(floor)) if floor else None,
            ceiling_low=ceiling[0],
            ceiling_high=ceiling[1],
            ceiling_kind=None if ceiling[0] is None else "repetitions",
            method=similarity.method(config),
            n_stimuli=n_stimuli,
            n_neuroids=n_neuroids,
            seed=config.seed,
            model_digest="",
            recording_digest=self.recording.digest,
            animal=animal,
            time_start=window and window[0],
            time_end=window and window[1],
            # One "; " parts notes, as in the tables that list them.
            note="; ".join(note.replace("; ", ", ") for note in notes) or None,
        )

    def _between(
        self, brains: Sequence[Array], config: SimilarityConfig
    ) -> tuple[float, float]:
        """Mean similarity of each to the others, and to all, itself among them."""
        similarity, folds = SIMILARITIES[config.metric], self._folds(config)
        whole = similarity.pool(brains, config)
        low, high = [], []
        for place, own in enumerate(brains):
            others = [one for k, one in enumerate(brains) if k != place]
            pooled = similarity.pool(others, config)
            low.append(similarity.compare(pooled, own, config, folds))
            high.append(similarity.compare(whole, own, config, folds))
        return float(np.mean(low)), float(np.mean(high))

    def _between_halves(
        self,
        responses: Array,
        brain: Array,
        config: SimilarityConfig,
        rng: np.random.Generator,
    ) -> tuple[float, float]:
        """The same of halves of the repetitions: to the other, and to all of them."""
        similarity, folds = SIMILARITIES[config.metric], self._folds(config)
        shown = ~np.isnan(responses).all(axis=2)
        low, high = [], []
        for _ in range(HALVINGS):
            # Those of each stimulus in a new order, at the end what was not shown.
            order = np.where(shown, rng.random(shown.shape), 2).argsort(axis=1)
            arranged = np.take_along_axis(responses, order[:, :, None], axis=1)
            halves = arranged[:, ::2], arranged[:, 1::2]
            if any(np.isnan(half).all(axis=1).any() for half in halves):
                raise DataError("there are no two repetitions of every stimulus")
            a, b = (similarity.of_responses(half, config) for half in halves)
            low.append(similarity.compare(a, b, config, folds))
            high += [similarity.compare(one, brain, config, folds) for one in (a, b)]
        return float(np.mean(low)), float(np.mean(high))


def _mean(values: Iterable[float | None]) -> float | None:
    """Mean of values, None if there are none."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
