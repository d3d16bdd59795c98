"""Representational analyses: views are made once and shown to all networks."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.augment import TRANSFORMS_VERSION
from ce_align.config import COMMITTED, ConfigId
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, DataError
from ce_align.files import cache_folder
from ce_align.results import ResultStore, joined_notes
from ce_align.stages.estimates import Measured, Measurement
from ce_align.stages.measures import MEASURES, AnalysisConfig, Measure, MeasureRow
from ce_align.stages.responses import (
    NetworkResponses,
    ResponseStore,
    respond,
)
from ce_align.stages.running import NetworkLayer, Run
from ce_align.stages.views import RESPONSES_VERSION, ViewPlan, ViewSet, class_labels

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Job", "analyze", "execute", "shared"]

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "analyses 6"


@dataclass(frozen=True)
class Job:
    """One kind of measure of one network, with the baseline of its differences."""

    config: AnalysisConfig
    network: NetworkLayer
    baseline: NetworkLayer | None = None

    @property
    def measure(self) -> Measure:
        """What is measured."""
        return MEASURES[self.config.metric]

    @property
    def view_names(self) -> tuple[str, ...]:
        """Names of the views that it takes."""
        return self.measure.view_names(self.config.family)

    @property
    def networks(self) -> list[NetworkLayer]:
        """What its rows depend on."""
        return [self.network, *([self.baseline] if self.baseline else [])]


def shared(config: AnalysisConfig) -> Hashable:
    """What configurations have in common whose networks look at the same views."""
    own = {"metric": "", "model": "", "layer": "", "baseline": None}
    return config.model_copy(update=own)


def execute(configs: Sequence[AnalysisConfig], run: Run) -> None:
    """Measure networks on identical views."""
    first = configs[0]
    images = run.images(first.images, first.comparisons)
    run.notify(f"images: {first.images} ({len(images)})")
    every = len(images) > first.comparisons and first.centroids == "all"
    if every and any("centroids" in MEASURES[one.metric].views for one in configs):
        run.notify(
            f"centroids: of all {len(images)} images, {first.views} views each; "
            f"--centroids compared takes those of {first.comparisons}"
        )
    jobs: list[Job] = []
    for config in configs:
        with run.attempt(f"{config.model}, {config.metric}", config):
            jobs += _jobs(config, run)
    if jobs:
        run.outcome.rows += analyze(jobs, images, run)


def _jobs(config: AnalysisConfig, run: Run) -> Iterator[Job]:
    """A job for each layer; one without its baseline, if that fails."""
    from ce_align.models.networks import asked_layers

    network = run.network(config.model, config.seed, live=True)
    for layer in asked_layers(network, config.layer, "IT"):
        network_layer = _network_layer(config.model, layer, config.seed, run)
        baseline = None
        if config.baseline is not None:
            with run.attempt(config.baseline):
                # Each network's own layer, or one that was chosen for both.
                own = COMMITTED if layer == network.layers.get("IT") else layer
                baseline = _network_layer(config.baseline, own, config.seed, run)
        named = {"layer": layer, "baseline": config.baseline if baseline else None}
        yield Job(config.model_copy(update=named), network_layer, baseline)
    run.store.clear_failure(config.stage, config)


def _network_layer(name: str, layer: str, seed: int, run: Run) -> NetworkLayer:
    network = run.network(name, seed, live=True)

    def load() -> NetworkLayer:
        chosen = network.layer_for("IT") if layer == COMMITTED else layer
        return NetworkLayer.of(network, chosen, allow_unstable=run.allow_unstable)

    return run.load(name, ("layer", name, layer, seed), load)


def analyze(jobs: Sequence[Job], images: ImageSet, run: Run) -> list[MeasureRow]:
    """Measure networks on identical views.

    What fails for one network is noted, and the others are still measured.

    Parameters
    ----------
    jobs : kinds of measures and networks; their settings agree but for metric, model,
        layer and baseline
    images : to augment; a column ``object_name`` or ``label`` gives the classes
    run : where rows, arrays and ledgers go, and the networks' responses, so that a run
        can be resumed

    Raises
    ------
    DataError
        If there are too few images.
    """
    responses = ResponseStore(run.responses or cache_folder("responses"))
    # Two names of one network have one identity.
    keyed = {
        (key := _config_id(job, images), job.config.model): (job, key) for job in jobs
    }
    known: dict[tuple[str, str], list[MeasureRow]] = {}
    for place, (job, key) in keyed.items():
        rows = run.recall(
            job.config, key, MeasureRow, job.networks, origin=images.origin
        )
        if rows:
            known[place] = rows
    pending = {place: one for place, one in keyed.items() if place not in known}
    if pending:
        asked = [job for job, _ in pending.values()]
        reading = _Reading.of(asked, images, run.store, responses)
        reading.failed |= respond(
            [network for job in asked for network in job.networks],
            list(reading.sets.values()),
            responses,
            hardware=run.hardware,
            force=run.force,
            progress=run.progress,
            notify=run.notify,
        )
        for done, (place, (job, key)) in enumerate(pending.items()):
            run.progress("measures", done, len(pending))
            with run.attempt(f"{job.config.model}, {job.config.metric}", job.config):
                known[place] = reading.keep(job, key, run)
        run.progress("measures", len(pending), len(pending))
    run.outcome.notes += _left_out(jobs, images)
    return [row for place in keyed for row in known.get(place, [])]


def _left_out(jobs: Sequence[Job], images: ImageSet) -> Iterator[str]:
    """Distances that are not measured, and why."""
    of_classes = [job for job in jobs if "classes" in job.measure.views]
    if of_classes:
        with suppress(DataError):  # told of as a failure
            reason = ViewPlan(images, of_classes[0].config).without_classes
            if reason:
                yield f"no class–class distances: {reason}"


def _config_id(job: Job, images: ImageSet) -> ConfigId:
    labels = class_labels(images)
    algorithm = (
        f"{ALGORITHM}, views {TRANSFORMS_VERSION}, responses {RESPONSES_VERSION}"
    )
    return job.config.fingerprint(
        weights=job.network.digest,
        baseline=job.baseline.digest if job.baseline else "",
        images=images.digest,
        # The digest of images leaves their labels out.
        labels="" if labels is None else digest_json(labels.astype(str).tolist()),
        algorithm=", ".join(filter(None, (algorithm, job.measure.version))),
    )


@dataclass
class _Reading:
    """Stored responses, one network at a time."""

    plan: ViewPlan
    sets: dict[str, ViewSet]
    responses: ResponseStore
    failed: dict[str, CeAlignError] = field(default_factory=dict)
    #: What was read of each network for each measure: a baseline is read once.
    known: dict[tuple[str, str], Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        jobs: Sequence[Job],
        images: ImageSet,
        store: ResultStore,
        responses: ResponseStore,
    ) -> "_Reading":
        """Plan the views that jobs look at; their ledgers lie beside the results."""
        plan = ViewPlan(images, jobs[0].config)
        names = dict.fromkeys(name for job in jobs for name in job.view_names)
        sets = {
            name: views for name in names if (views := plan.views(name)) is not None
        }
        for views in sets.values():
            folder = store.folder / jobs[0].config.stage / "ledgers"
            path = folder / f"{views.digest}.npz"
            if not path.exists():
                views.ledger.save(path)
        return cls(plan, sets, responses)

    def keep(self, job: Job, config_id: ConfigId, run: Run) -> list[MeasureRow]:
        """Measure, and store the rows with the arrays behind them."""
        measured = self._measure(job)
        used = {
            name: self.sets[name].digest for name in job.view_names if name in self.sets
        }
        identity = {
            "config_id": config_id,
            "model_digest": job.network.probe.digest,
            "images_digest": self.plan.images.digest,
            "views_digest": combine_digests(*used.values()),
        }
        own = [one.note for one in job.networks]
        rows = [_row(number, job, own, identity) for number in measured.numbers]
        arrays = self._dataset(measured, used)
        origin = self.plan.images.origin
        return run.keep(
            job.config, config_id, rows, job.networks, arrays, origin=origin
        )

    def _dataset(self, measured: Measured, used: dict[str, str]) -> "xr.Dataset":
        import xarray as xr

        names = {"image": np.array(self.plan.chosen.ids, dtype=object)}
        if "classes" in used and self.plan.classes is not None:
            names["class"] = np.array(list(self.plan.classes), dtype=object)
        return xr.Dataset(
            dict(measured.arrays),
            coords={f"{axis}_id": (axis, values) for axis, values in names.items()},
            attrs={f"ledger_{name}": digest for name, digest in used.items()},
        )

    def _measure(self, job: Job) -> Measured:
        own = self._read(job.measure, job.network)
        if job.measure.against is None:
            measured: Measured = own
            return measured
        other = self._read(job.measure, job.baseline) if job.baseline else None
        return job.measure.against(own, other, job.config)

    def _read(self, measure: Measure, network: NetworkLayer) -> Any:
        """What a measure reads of a network, once."""
        if network.digest in self.failed:
            raise self.failed[network.digest]
        key = (measure.name, network.digest)
        if key not in self.known:
            responses = NetworkResponses(network, self.plan, self.sets, self.responses)
            try:
                self.known[key] = measure.read(responses, self.plan.config)
            except DataError as error:
                message = f"{network.name} {network.layer}, {error}"
                raise DataError(message) from error
        return self.known[key]


def _row(
    number: Measurement,
    job: Job,
    notes: Sequence[str | None],
    identity: Mapping[str, Any],
) -> MeasureRow:
    config, found = job.config, number.estimate
    baseline = job.baseline if number.relative else None
    return MeasureRow(
        model=config.model,
        metric=number.metric,
        value=_finite(found.interval.estimate),
        layer=config.layer,
        low=_finite(found.interval.low),
        high=_finite(found.interval.high),
        n_points=number.n_points,
        n_comparisons=number.n_comparisons,
        n_units=found.interval.n_units,
        baseline=config.baseline if number.relative else None,
        baseline_digest=baseline.probe.digest if baseline else None,
        images=config.images,
        interval=found.over,
        seed=config.seed,
        note=joined_notes(number.note, *notes),
        **identity,
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
