"""Representational analyses: views are made once and all networks answer them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import TRANSFORMS_VERSION
from ce_align.checks import named_some
from ce_align.config import ConfigId
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, DataError, noted
from ce_align.models.catalogue import equivariance_weight_of
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.results import ResultStore, joined_notes
from ce_align.stages.hardware import Hardware
from ce_align.stages.known import Probed, recall, remember
from ce_align.stages.measures import AnalysisConfig, Measured, MeasureRow
from ce_align.stages.plan import GEOMETRY_FAMILIES, ViewPlan, class_labels, view_names
from ce_align.stages.readout import decode, factorize, measure_dimensionality, steer
from ce_align.stages.responses import Responses, Subject, respond
from ce_align.stages.variability import Answers, Comparison, compare, measure_shapes
from ce_align.stages.views import RESPONSES_VERSION, ViewSet

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["AnalysisReport", "Job", "analyze"]

STAGE = "analyze"

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


@dataclass
class AnalysisReport:
    """Rows of analyses, and what could not be measured.

    Attributes
    ----------
    rows : in the order of the jobs
    n_stored : how many jobs were in the store already
    failures : what was asked for, and why there is no row of it
    left_out : measures that nobody asked for by name, and why there are no rows of them
    """

    rows: list[MeasureRow] = field(default_factory=list)
    n_stored: int = 0
    failures: list[tuple[str, CeAlignError]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def analyze(
    jobs: Sequence[Job],
    images: ImageSet,
    store: ResultStore,
    responses: Responses,
    *,
    hardware: Hardware | None = None,
    force: bool = False,
    progress: Progress = silent,
    notify: Notify = quiet,
) -> AnalysisReport:
    """Measure networks on identical views.

    What fails for one network is reported, and the others are still measured.

    Parameters
    ----------
    jobs : kinds of measures and networks; their settings agree but for metric, model,
        layer and baseline
    images : to augment; a column ``object_name`` or ``label`` gives the classes
    store : where rows, arrays and ledgers go
    responses : where the networks' answers are kept, so that a run can be resumed
    hardware : device, batch size and rendering threads
    force : compute stored rows again, and ask the networks again
    progress : told of images and measures done
    notify : told of networks that answer otherwise than before

    Raises
    ------
    DataError
        If there are too few images.
    """
    ids = [_config_id(job, images) for job in jobs]
    known = {}
    for job, key in zip(jobs, ids, strict=True):
        if not force and key not in known:
            rows = recall(
                store, STAGE, job.config, key, MeasureRow, job.networks, notify
            )
            if rows:
                known[key] = rows
    report = AnalysisReport(n_stored=len(known))
    pending = [
        (job, key) for job, key in zip(jobs, ids, strict=True) if key not in known
    ]
    if pending:
        reading = _read([job for job, _ in pending], images, store, responses)
        reading.failed |= respond(
            list(_subjects([job for job, _ in pending])),
            list(reading.sets.values()),
            responses,
            hardware=hardware or Hardware(),
            force=force,
            progress=progress,
            notify=notify,
        )
        for done, (job, key) in enumerate(pending):
            progress("measures", done, len(pending))
            with noted(f"{job.config.model}, {job.config.metric}", report.failures):
                known[key] = reading.put(job, key, store)
        progress("measures", len(pending), len(pending))
    for key in ids:
        report.rows += known.get(key, [])
    report.left_out += _left_out(jobs, images)
    return report


def _left_out(jobs: Sequence[Job], images: ImageSet) -> Iterator[str]:
    """Distances that are not measured, and why."""
    distances = [job for job in jobs if job.config.metric == "bures"]
    if not distances:
        return
    with suppress(DataError):  # told of as a failure
        reason = ViewPlan(images, distances[0].config).without_classes
        if reason:
            yield f"no distances of classes: {reason}"
    alone = [job.config.model for job in distances if job.baseline is None]
    # One of λ = 0 is what others differ from.
    alone = [name for name in alone if equivariance_weight_of(name) != 0]
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
        path = store.folder / STAGE / "ledgers" / f"{views.digest}.npz"
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

    def put(
        self, job: Job, config_id: ConfigId, store: ResultStore
    ) -> list[MeasureRow]:
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
        remember(store, STAGE, job.config, config_id, rows, job.networks, arrays)
        return rows

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
        if config.metric == "factorization":
            return factorize(families, config)
        return measure_dimensionality(families, config)

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
