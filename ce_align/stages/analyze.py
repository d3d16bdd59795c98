"""Representational analyses: views are made once and all networks answer them."""

from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import TRANSFORMS_VERSION
from ce_align.checks import named_some
from ce_align.config import COMMITTED, ConfigId
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, DataError
from ce_align.files import cache_folder
from ce_align.results import ResultStore, joined_notes
from ce_align.stages.measures import AnalysisConfig, Measured, MeasureRow
from ce_align.stages.plan import GEOMETRY_FAMILIES, ViewPlan, class_labels, view_names
from ce_align.stages.readout import decode, factorize, measure_dimensionality, steer
from ce_align.stages.responses import Responses, Subject, respond
from ce_align.stages.running import Probed, Run
from ce_align.stages.variability import Answers, Comparison, compare, measure_shapes
from ce_align.stages.views import RESPONSES_VERSION, ViewSet

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["Job", "analyze", "execute", "shared"]

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "analyses 6"


@dataclass(frozen=True)
class Job:
    """One kind of measure of one network, with the baseline of its differences."""

    config: AnalysisConfig
    subject: Subject
    baseline: Subject | None = None

    @property
    def networks(self) -> list[Probed]:
        """What its rows depend on."""
        subjects = [self.subject, *([self.baseline] if self.baseline else [])]
        return [subject.asked for subject in subjects]


def shared(config: AnalysisConfig) -> Hashable:
    """What configurations have in common whose networks look at the same views."""
    own = {"metric": "bures", "model": "", "layer": "", "baseline": None}
    return config.model_copy(update=own)


def execute(configs: Sequence[AnalysisConfig], run: Run) -> None:
    """Measure networks on identical views."""
    first = configs[0]
    images = run.images(first.images, first.comparisons)
    run.notify(f"images: {first.images} ({len(images)})")
    every = len(images) > first.comparisons and first.centroids == "all"
    if every and any(config.metric == "bures" for config in configs):
        run.notify(
            f"centroids: of all {len(images)} images, {first.views} views each; "
            f"--centroids compared takes those of {first.comparisons}"
        )
    jobs = []
    for config in configs:
        with run.attempt(f"{config.model}, {config.metric}", config):
            jobs.append(_job(config, run))
    if jobs:
        run.outcome.rows += analyze(jobs, images, run)


def _job(config: AnalysisConfig, run: Run) -> Job:
    """The networks behind a configuration; one without its baseline, if that fails."""
    network = run.network(config.model, config.seed, live=True)
    usual = network.layer_for("IT")
    layer = usual if config.layer == COMMITTED else config.layer
    subject = _subject(config.model, layer, config.seed, run)
    baseline = None
    if config.baseline is not None:
        with run.attempt(config.baseline):
            # Each network's own layer, or one that was chosen for both.
            own = COMMITTED if layer == usual else layer
            baseline = _subject(config.baseline, own, config.seed, run)
    named = {"layer": layer, "baseline": config.baseline if baseline else None}
    run.store.clear_failure(config.stage, config)
    return Job(config.model_copy(update=named), subject, baseline)


def _subject(name: str, layer: str, seed: int, run: Run) -> Subject:
    network = run.network(name, seed, live=True)
    chosen = None if layer == COMMITTED else layer
    return run.load(
        name,
        ("subject", name, layer, seed),
        lambda: Subject.of(network, chosen, allow_unstable=run.allow_unstable),
    )


def analyze(jobs: Sequence[Job], images: ImageSet, run: Run) -> list[MeasureRow]:
    """Measure networks on identical views.

    What fails for one network is noted, and the others are still measured.

    Parameters
    ----------
    jobs : kinds of measures and networks; their settings agree but for metric, model,
        layer and baseline
    images : to augment; a column ``object_name`` or ``label`` gives the classes
    run : where rows, arrays and ledgers go, and the networks' answers, so that a run
        can be resumed

    Raises
    ------
    DataError
        If there are too few images.
    """
    responses = Responses(run.responses or cache_folder("responses"))
    keyed = [(job, _config_id(job, images)) for job in jobs]
    known: dict[str, list[MeasureRow]] = {}
    for job, key in keyed:
        if key not in known:
            rows = run.recall(
                job.config, key, MeasureRow, job.networks, origin=images.origin
            )
            if rows:
                known[key] = rows
    pending = [(job, key) for job, key in keyed if key not in known]
    if pending:
        asked = [job for job, _ in pending]
        reading = _read(asked, images, run.store, responses)
        reading.failed |= respond(
            list(_subjects(asked)),
            list(reading.sets.values()),
            responses,
            hardware=run.hardware,
            force=run.force,
            progress=run.progress,
            notify=run.notify,
        )
        for done, (job, key) in enumerate(pending):
            run.progress("measures", done, len(pending))
            with run.attempt(f"{job.config.model}, {job.config.metric}", job.config):
                known[key] = reading.keep(job, key, run)
        run.progress("measures", len(pending), len(pending))
    run.outcome.notes += _left_out(jobs, images)
    keys = dict.fromkeys(key for _, key in keyed)
    return [row for key in keys for row in known.get(key, [])]


def _left_out(jobs: Sequence[Job], images: ImageSet) -> Iterator[str]:
    """Distances that are not measured, and why."""
    distances = [job for job in jobs if job.config.metric == "bures"]
    if not distances:
        return
    with suppress(DataError):  # told of as a failure
        reason = ViewPlan(images, distances[0].config).without_classes
        if reason:
            yield f"no distances of classes: {reason}"
    # One of λ = 0 is what others differ from.
    alone = [
        job.config.model
        for job in distances
        if job.baseline is None and job.subject.network.facts.equivariance_weight != 0
    ]
    if alone:
        yield (
            f"no differences of distances for {named_some(alone)}: there is no network "
            "of λ = 0 that belongs to it by name; name one with --baseline"
        )


def _config_id(job: Job, images: ImageSet) -> ConfigId:
    labels = class_labels(images)
    return job.config.fingerprint(
        weights=job.subject.digest,
        baseline=job.baseline.digest if job.baseline else "",
        images=images.digest,
        # The digest of images leaves their labels out.
        labels="" if labels is None else digest_json(labels.astype(str).tolist()),
        algorithm=f"{ALGORITHM}, views {TRANSFORMS_VERSION}, responses "
        f"{RESPONSES_VERSION}",
    )


def _subjects(jobs: Sequence[Job]) -> Iterator[Subject]:
    for job in jobs:
        yield job.subject
        if job.baseline is not None:
            yield job.baseline


def _read(
    jobs: Sequence[Job], images: ImageSet, store: ResultStore, responses: Responses
) -> "_Reading":
    """Plan the views that jobs look at, and keep beside the results what they are."""
    plan = ViewPlan(images, jobs[0].config)
    names = dict.fromkeys(name for job in jobs for name in view_names(job.config))
    sets = {name: views for name in names if (views := plan.views(name)) is not None}
    for views in sets.values():
        path = store.folder / jobs[0].config.stage / "ledgers" / f"{views.digest}.npz"
        if not path.exists():
            views.ledger.save(path)
    return _Reading(plan, sets, responses)


@dataclass
class _Reading:
    """Stored answers, one network at a time."""

    plan: ViewPlan
    sets: dict[str, ViewSet]
    responses: Responses
    failed: dict[str, CeAlignError] = field(default_factory=dict)
    compared: dict[str, dict[str, Comparison]] = field(default_factory=dict)

    def keep(self, job: Job, config_id: ConfigId, run: Run) -> list[MeasureRow]:
        """Measure, and store the rows with the arrays behind them."""
        measured = self._measure(job)
        used = {
            name: self.sets[name].digest
            for name in view_names(job.config)
            if name in self.sets
        }
        rows = measured.rows(
            job.config,
            config_id=config_id,
            model_digest=job.subject.asked.probe.digest,
            baseline_digest=job.baseline.asked.probe.digest if job.baseline else None,
            images_digest=self.plan.images.digest,
            views_digest=combine_digests(*used.values()),
        )
        own = [one.probe.note(one.layer) for one in job.networks]
        rows = [
            row.model_copy(update={"note": joined_notes(row.note, *own)})
            for row in rows
        ]
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
        config = job.config
        if config.metric == "bures":
            baseline = self._compared(job.baseline) if job.baseline else None
            return measure_shapes(self._compared(job.subject), baseline, config)
        with self._named(job.subject):
            return self._read_out(job)

    def _read_out(self, job: Job) -> Measured:
        config = job.config
        if config.metric in ("decoding", "steerability"):
            clean, views = view_names(config)
            read = decode if config.metric == "decoding" else steer
            return read(
                self._load(job.subject, clean)[:, 0],
                self._load(job.subject, views),
                self.sets[views].ledger,
                config,
            )
        # One family is in memory at a time.
        families = ((name, self._load(job.subject, name)) for name in GEOMETRY_FAMILIES)
        over_families = {
            "factorization": factorize,
            "dimensionality": measure_dimensionality,
        }
        return over_families[config.metric](families, config)

    @contextmanager
    def _named(self, subject: Subject) -> Iterator[None]:
        """Say of which network and layer an error speaks."""
        try:
            yield
        except DataError as error:
            if error is self.failed.get(subject.digest):
                raise
            message = f"{subject.network.name} {subject.layer}, {error}"
            raise DataError(message) from error

    def _load(self, subject: Subject, name: str) -> NDArray[np.float32]:
        if subject.digest in self.failed:
            raise self.failed[subject.digest]
        return self.responses.load(subject, self.sets[name])

    def _compared(self, subject: Subject) -> dict[str, Comparison]:
        # A baseline is compared once, whatever the number of networks.
        if subject.digest not in self.compared:
            answers = self._answers(subject)
            try:
                found = compare(answers, self.plan.config)
            except DataError as error:
                message = f"{subject.network.name} {subject.layer}, {error}"
                raise DataError(message) from error
            self.compared[subject.digest] = found
        return self.compared[subject.digest]

    def _answers(self, subject: Subject) -> Answers:
        by_class = None
        if "classes" in self.sets and self.plan.classes is not None:
            flat = self._load(subject, "classes")
            by_class = flat.reshape(len(self.plan.classes), -1, flat.shape[-1])
        beyond = None
        if "centroids" in self.sets:
            beyond = self._load(subject, "centroids")[:, 0]
        return Answers(
            self._load(subject, self.plan.config.family),
            self._load(subject, "crossed"),
            by_class,
            beyond,
        )
