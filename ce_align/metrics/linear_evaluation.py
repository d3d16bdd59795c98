"""Linear evaluation: a strength is chosen by held-out images, and tested on others."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import Array, Indices
from ce_align.metrics.linear_probe import STRENGTHS, LinearProbe, ProbeProblem
from ce_align.progress import Progress, silent

__all__ = [
    *("Evaluation", "Sample", "accuracies", "evaluate_linearly", "stratified_split"),
]


def accuracies(found: Indices, labels: NDArray[Any]) -> tuple[float, float, float]:
    """Share of images named rightly, its mean over classes, and the latter's error.

    Of classes (n,). The error is the standard error from drawing other test images of
    the same classes; that of the first is √(top1 (1 − top1) / n).
    """
    hits = (found == labels).astype(np.float64)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = np.bincount(inverse, weights=hits) / counts
    error = float(np.sqrt((shares * (1 - shares) / counts).sum()) / len(counts))
    return float(hits.mean()), float(shares.mean()), error


@dataclass(frozen=True)
class Sample:
    """Features (n_images, n_features) and the class (n_images,) of each row."""

    features: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass
class Evaluation:
    """What the runs of a linear evaluation found, one entry each.

    Attributes
    ----------
    n_train, n_validation : images that a path is fitted to, and that choose
    n_unconverged : fits, of all runs, that missed their tolerance
    strengths : chosen λ
    top1, mean_per_class, error : `accuracies` on test images
    validation : (n_runs, n_strengths) top-1 on validation images
    """

    n_train: int
    n_validation: int
    n_unconverged: int = 0
    strengths: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    mean_per_class: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)


def evaluate_linearly(
    train: Sample,
    validation: Sample | None,
    test: Sample,
    *,
    n_classes: int,
    n_runs: int = 5,
    validation_share: float = 0.1,
    seed: int = 0,
    strengths: Array = STRENGTHS,
    device: str = "cpu",
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy of linear probes over several runs.

    Of each run, probes at all strengths are fitted to training images, validation
    images choose one strength, and the probe of that strength is fitted again to both
    together and judged by the test images. Ties go to the strongest penalty.

    Runs differ in nothing but the images that choose the strength, for the fit itself
    is deterministic: the first run uses the official validation images if there are
    any, every other run draws as many of each class from training and validation images
    together.

    Parameters
    ----------
    validation_share : of each class, where there are no official validation images
    seed : of the draws
    strengths : (n_strengths,) λ to choose from

    Raises
    ------
    ConfigError
        If there is no run, or the share is not between 0 and 1.
    DataError
        If features or labels do not fit, or no class has two images.
    """
    if n_runs < 1 or not 0 < validation_share < 1:
        raise ConfigError(
            "linear evaluation needs a run or more and a share between 0 and 1, found "
            f"{n_runs} and {validation_share}"
        )
    features, labels = train.features, train.labels
    if validation is not None:
        features = np.concatenate([features, validation.features])
        labels = np.concatenate([labels, validation.labels])
    if test.features.shape[1:] != features.shape[1:]:
        raise DataError(
            f"test features have shape {test.features.shape} but those for training "
            f"{features.shape}; read the same layer"
        )
    problem = ProbeProblem(features, labels, n_classes=n_classes, device=device)
    splits = list(_splits(labels, len(train.labels), n_runs, validation_share, seed))
    total = n_runs * (len(strengths) + 1)
    found = Evaluation(len(splits[0][0]), len(splits[0][1]))
    final: dict[float, LinearProbe] = {}
    for run, (rows, held_out) in enumerate(splits):
        start = run * (len(strengths) + 1)

        def show(done: int, _: int, start: int = start) -> None:
            progress("fits", start + done, total)

        path = problem.fit(strengths, rows=rows, progress=show)
        seen, wanted = features[held_out], labels[held_out]
        shares = [float((probe.classify(seen) == wanted).mean()) for probe in path]
        best = max(range(len(path)), key=lambda k: (shares[k], path[k].strength))
        strength = path[best].strength
        if strength not in final:
            final[strength] = problem.fit([strength], tolerance=1e-8)[0]
        progress("fits", start + len(strengths) + 1, total)
        judged = accuracies(final[strength].classify(test.features), test.labels)
        found.strengths.append(strength)
        found.validation.append(shares)
        found.top1.append(judged[0])
        found.mean_per_class.append(judged[1])
        found.error.append(judged[2])
        found.n_unconverged += sum(not probe.converged for probe in path)
    found.n_unconverged += sum(not probe.converged for probe in final.values())
    return found


def _splits(
    labels: NDArray[np.int64], n_train: int, n_runs: int, share: float, seed: int
) -> Iterator[tuple[Indices, Indices]]:
    """Rows to fit and to choose with, of every run; official ones follow `n_train`."""
    n, first = len(labels), 0
    if n_train < n:
        yield np.arange(n_train), np.arange(n_train, n)
        share, first = (n - n_train) / n, 1
    if np.bincount(labels).max() < 2:
        raise DataError("every class has one image only; none is left to validate with")
    for run in range(first, n_runs):
        yield stratified_split(labels, share, np.random.default_rng([seed, run]))


def stratified_split(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[Indices, Indices]:
    """Rows that are kept and rows that are split off, ascending, by class.

    Of each class (n,) in `labels` the share is split off, rounded, but at least one row
    and not all; a class of one row keeps it.
    """
    drawn = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n = min(max(round(share * len(rows)), 1), len(rows) - 1)
        drawn.append(rows[:n])
    split_off = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), split_off), split_off
