"""Linear evaluation: validation chooses the strength of a probe, test images judge it.

Of each run, probes at all strengths are fitted to training images, validation images
choose one strength, and the probe of that strength is fitted again to training and
validation images together. Ties go to the strongest penalty.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.probe import STRENGTHS, LinearProbe, ProbeProblem, accuracies
from ce_align.progress import Progress, silent

__all__ = ["Evaluation", "Sample", "evaluate_linearly", "stratified_split"]


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
    strengths : chosen λ
    top1, mean_per_class : accuracy on test images
    error : standard error of `mean_per_class` over test images
    validation : (n_runs, n_strengths) top-1 on validation images
    n_train, n_validation : images that a path is fitted to, and that choose
    n_unconverged : fits, of all runs, that missed their tolerance
    """

    n_train: int
    n_validation: int
    n_unconverged: int = 0
    strengths: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    mean_per_class: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)


def stratified_split(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that are kept and rows that are split off, the same share of each class.

    Parameters
    ----------
    labels : (n,) classes
    share : to be split off, rounded, but at least one row and not all of a class; a
        class of one row keeps it
    rng : draws the rows

    Returns
    -------
    kept, split_off : ascending row numbers
    """
    drawn = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n = min(max(round(share * len(rows)), 1), len(rows) - 1)
        drawn.append(rows[:n])
    split_off = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), split_off), split_off


def evaluate_linearly(
    train: Sample,
    validation: Sample | None,
    test: Sample,
    *,
    n_classes: int,
    n_runs: int = 5,
    validation_share: float = 0.1,
    seed: int = 0,
    strengths: NDArray[np.float64] = STRENGTHS,
    device: str = "cpu",
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy of linear probes over several runs.

    Runs differ in nothing but the images that choose the strength, for the fit itself
    is deterministic: the first run uses the official validation images if there are
    any, every other run draws as many of each class from training and validation images
    together. All are fitted again to the same images and judged by the same test.

    Parameters
    ----------
    train, validation, test : features and classes; validation may be None
    n_classes : of the labels
    n_runs : at least one
    validation_share : of each class, where there are no official validation images
    seed : of the draws
    strengths : (n_strengths,) λ to choose from
    device : of torch
    progress : told of fits done

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
    pooled = _pooled(train, validation)
    if test.features.shape[1:] != pooled.features.shape[1:]:
        raise DataError(
            f"test features have shape {test.features.shape} but those for training "
            f"{pooled.features.shape}; read the same layer"
        )
    problem = ProbeProblem(
        pooled.features, pooled.labels, n_classes=n_classes, device=device
    )
    splits = list(_splits(train, validation, n_runs, validation_share, seed))
    total = n_runs * (len(strengths) + 1)
    found = Evaluation(len(splits[0][0]), len(splits[0][1]))
    final: dict[float, LinearProbe] = {}
    for run, (rows, held_out) in enumerate(splits):
        start = run * (len(strengths) + 1)

        def show(done: int, _: int, start: int = start) -> None:
            progress("fits", start + done, total)

        path = problem.fit(strengths, rows=rows, progress=show)
        seen, wanted = pooled.features[held_out], pooled.labels[held_out]
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


def _pooled(train: Sample, validation: Sample | None) -> Sample:
    if validation is None:
        return train
    return Sample(
        np.concatenate([train.features, validation.features]),
        np.concatenate([train.labels, validation.labels]),
    )


def _splits(
    train: Sample, validation: Sample | None, n_runs: int, share: float, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows of the pooled images to fit and to choose with, for every run."""
    n_train = len(train.labels)
    labels = train.labels
    first = 0
    if validation is not None:
        n = n_train + len(validation.labels)
        yield np.arange(n_train), np.arange(n_train, n)
        share = len(validation.labels) / n
        labels = np.concatenate([labels, validation.labels])
        first = 1
    if np.bincount(labels).max() < 2:
        raise DataError("every class has one image only; none is left to validate with")
    for run in range(first, n_runs):
        yield stratified_split(labels, share, np.random.default_rng([seed, run]))
