"""Representational analyses: views are made once and all networks answer them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import AugmentationLedger, nested, outer, sample
from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.progress import Progress, silent
from ce_align.results import ResultStore
from ce_align.stages.measures import AnalysisConfig, Measured, MeasureRow, Metric
from ce_align.stages.readout import decode, factorize, measure_dimensionality, steer
from ce_align.stages.variability import Answers, Comparison, compare, measure_shapes
from ce_align.stages.views import Responses, Subject, ViewSet, respond

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["METRICS", "Hardware", "Job", "analyze"]

STAGE = "analyze"

#: Changes whenever the same settings and data would give another number.
ALGORITHM = "analyses 1"

#: Images of a class that are compared with those of another, at most.
MAX_CLASS_SIZE = 50

#: Families whose factorization and dimensionality are measured.
GEOMETRY_FAMILIES = ("strong", "weak", "spatial", "photometric")

#: Views that each kind of measure looks at.
METRICS: dict[Metric, tuple[str, ...]] = {
    "bures": ("strong", "crossed", "classes"),
    "decoding": ("clean", "strong"),
    "factorization": GEOMETRY_FAMILIES,
    "dimensionality": GEOMETRY_FAMILIES,
    "steerability": ("clean", "shared"),
}


@dataclass(frozen=True)
class Hardware:
    """Where and how fast views are made and read; does not change the numbers."""

    device: str = "auto"
    batch_size: int | None = None
    workers: int = 1


@dataclass(frozen=True)
class Job:
    """One kind of measure of one network, with the baseline of its differences."""

    config: AnalysisConfig
    subject: Subject
    baseline: Subject | None = None


@dataclass(frozen=True, eq=False)
class _Plan:
    """The views that settings ask for; equal for every network."""

    images: ImageSet
    config: AnalysisConfig

    @cached_property
    def chosen(self) -> ImageSet:
        """Images that are augmented: as many as comparisons, if there are."""
        n = min(len(self.images), self.config.comparisons)
        if n < 5:
            raise DataError(
                f"{self.images.identifier} has {len(self.images)} images and "
                f"{self.config.comparisons} comparisons are asked for; analyses need "
                "5 images or more"
            )
        rng = np.random.default_rng([self.config.seed, 5])
        rows = rng.choice(len(self.images), n, replace=False)
        return self.images.select(np.sort(rows).tolist())

    @cached_property
    def class_rows(self) -> NDArray[np.intp] | None:
        """Rows (n_classes, n) of equally many images of each class, or None."""
        columns = self.images.columns
        labels = columns.get("object_name", columns.get("label"))
        if labels is None:
            return None
        rng = np.random.default_rng([self.config.seed, 6])
        names, counts = np.unique(labels, return_counts=True)
        names = names[counts >= 4]
        if self.config.classes is not None:
            names = rng.permutation(names)[: self.config.classes]
        if len(names) < 5:
            return None
        members = [np.flatnonzero(labels == name) for name in np.sort(names)]
        n = min(MAX_CLASS_SIZE, min(map(len, members)))
        rows: NDArray[np.intp] = np.stack(
            [np.sort(rng.permutation(m)[:n]) for m in members]
        )
        return rows

    def views(self, name: str) -> ViewSet | None:
        """View set by name; None for classes where images have none."""
        config = self.config
        if name == "classes":
            if self.class_rows is None:
                return None
            images = self.images.select(self.class_rows.ravel().tolist())
            return self._set(name, images, AugmentationLedger.identity(len(images)))
        n = len(self.chosen)
        if name == "clean":
            return self._set(name, self.chosen, AugmentationLedger.identity(n))
        # Each kind of views has draws of its own, equal for all networks.
        rng = np.random.default_rng([config.seed, *name.encode()])
        if name == "crossed":
            every = [self._crossed(rng) for _ in range(n)]
            ledger = AugmentationLedger.concat(every)
            crossed = self._set(name, self.chosen, ledger)
            return replace(crossed, crossed=(config.crops, config.photometrics))
        if name == "shared":
            draws = sample("strong", config.views, rng)
            return self._set(name, self.chosen, AugmentationLedger.concat([draws] * n))
        return self._set(name, self.chosen, sample(name, n * config.views, rng))

    def _set(self, name: str, images: ImageSet, ledger: AugmentationLedger) -> ViewSet:
        return ViewSet(name, images, ledger, self.config.size)

    def _crossed(self, rng: np.random.Generator) -> AugmentationLedger:
        crops = sample("spatial", self.config.crops, rng)
        if self.config.independent_photometrics:
            n = self.config.crops * self.config.photometrics
            return nested(crops, sample("photometric", n, rng))
        return outer(crops, sample("photometric", self.config.photometrics, rng))


@dataclass
class Report:
    """Rows in the order of the jobs, and how many jobs were in the store."""

    rows: list[MeasureRow] = field(default_factory=list)
    n_stored: int = 0


def analyze(
    jobs: Sequence[Job],
    images: ImageSet,
    store: ResultStore,
    responses: Responses,
    *,
    hardware: Hardware | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Report:
    """Measure networks on identical views.

    Parameters
    ----------
    jobs : kinds of measures and networks; their settings agree but for metric, model,
        layer and baseline
    images : to augment; a column ``object_name`` or ``label`` gives the classes
    store : where rows, arrays and ledgers go
    responses : where the networks' answers are kept, so that a run can be resumed
    hardware : device, batch size and rendering threads
    force : compute stored rows again
    progress : told of images and measures done

    Raises
    ------
    DataError
        If there are too few images, or a network's responses cannot be compared.
    """
    hardware = hardware or Hardware()
    report = Report()
    ids = [_config_id(job, images) for job in jobs]
    known = {
        config_id: rows
        for config_id in ids
        if not force and (rows := store.get(STAGE, config_id, MeasureRow))
    }
    pending = [
        (job, key) for job, key in zip(jobs, ids, strict=True) if key not in known
    ]
    if pending:
        plan = _Plan(images, jobs[0].config)
        sets = {
            name: views
            for name in dict.fromkeys(_view_names([job for job, _ in pending]))
            if (views := plan.views(name)) is not None
        }
        for views in sets.values():
            _save_ledger(views, store)
        subjects = list(_subjects([job for job, _ in pending]))
        respond(
            subjects,
            list(sets.values()),
            responses,
            device=hardware.device,
            batch_size=hardware.batch_size,
            workers=hardware.workers,
            progress=progress,
        )
        reading = _Reading(plan, sets, responses)
        for done, (job, config_id) in enumerate(pending):
            progress("measures", done, len(pending))
            measured = reading.measure(job)
            digests = (job.subject.network.digest, images.digest)
            rows = measured.rows(job.config, config_id, digests)
            arrays = _dataset(measured, sets, job)
            store.put(STAGE, config_id, job.config, rows, arrays)
            known[config_id] = rows
        progress("measures", len(pending), len(pending))
    report.n_stored = len(jobs) - len(pending)
    for config_id in ids:
        report.rows += known[config_id]
    return report


def _config_id(job: Job, images: ImageSet) -> str:
    baseline = job.baseline.digest if job.baseline else ""
    return job.config.fingerprint(
        weights=job.subject.digest,
        baseline=baseline,
        images=images.digest,
        algorithm=ALGORITHM,
    )


def _view_names(jobs: Sequence[Job]) -> Iterator[str]:
    for job in jobs:
        yield from METRICS[job.config.metric]


def _subjects(jobs: Sequence[Job]) -> Iterator[Subject]:
    for job in jobs:
        yield job.subject
        if job.baseline is not None:
            yield job.baseline


def _save_ledger(views: ViewSet, store: ResultStore) -> None:
    """Keep what was done to every view beside the results."""
    path = store.folder / STAGE / "ledgers" / f"{views.digest}.npz"
    if not path.exists():
        views.ledger.save(path)


def _dataset(measured: Measured, sets: dict[str, ViewSet], job: Job) -> "xr.Dataset":
    import xarray as xr

    used = {n: sets[n].digest for n in METRICS[job.config.metric] if n in sets}
    attributes = {f"ledger_{name}": digest for name, digest in used.items()}
    return xr.Dataset(dict(measured.arrays), attrs=attributes)


@dataclass(frozen=True)
class _Reading:
    """Stored answers, one network at a time."""

    plan: _Plan
    sets: dict[str, ViewSet]
    responses: Responses
    compared: dict[str, dict[str, Comparison]] = field(default_factory=dict)

    def measure(self, job: Job) -> Measured:
        config = job.config
        if config.metric == "bures":
            baseline = self._compared(job.baseline, config) if job.baseline else None
            own = self._compared(job.subject, config)
            return measure_shapes(own, baseline, config)
        if config.metric in ("decoding", "steerability"):
            clean, views = METRICS[config.metric]
            read = decode if config.metric == "decoding" else steer
            return read(
                self._load(job.subject, clean)[:, 0],
                self._load(job.subject, views),
                self.sets[views].ledger,
                config,
            )
        families = {name: self._load(job.subject, name) for name in GEOMETRY_FAMILIES}
        if config.metric == "factorization":
            return factorize(families, config)
        return measure_dimensionality(families, config)

    def _load(self, subject: Subject, name: str) -> NDArray[np.float32]:
        return self.responses.load(subject, self.sets[name])

    def _compared(
        self, subject: Subject, config: AnalysisConfig
    ) -> dict[str, Comparison]:
        # A baseline is compared once, whatever the number of networks.
        if subject.digest not in self.compared:
            self.compared[subject.digest] = compare(self._answers(subject), config)
        return self.compared[subject.digest]

    def _answers(self, subject: Subject) -> Answers:
        by_class = None
        if "classes" in self.sets and self.plan.class_rows is not None:
            flat = self._load(subject, "classes")
            by_class = flat.reshape(*self.plan.class_rows.shape, -1)
        return Answers(
            self._load(subject, "strong"), self._load(subject, "crossed"), by_class
        )
