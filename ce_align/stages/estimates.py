"""What a measure gives: means over images, pairs and runs, with their intervals."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ce_align.metrics.inference import (
    MIN_PAIRED,
    MIN_UNITS,
    Interval,
    crossed_interval,
    mean_interval,
    pair_interval,
    unit_interval,
)

if TYPE_CHECKING:
    import xarray as xr

__all__ = [
    *("Estimate", "HeldOut", "IntervalKind", "Measured", "Measurement"),
    *("mean_over_pairs", "mean_over_runs", "mean_over_units", "without_interval"),
]

IntervalKind = Literal["population", "comparisons"]

#: Fewer images, or views, held out do not show how certain a regression is: with 40
#: images, intervals of single parameters covered 88 to 99 % in simulations.
MIN_HELD_OUT, MIN_VIEWS = 50, 50
#: Variance of runs, in that which their held-out images explain: by chance below 4.
MAX_SPREAD = 4.0


class Estimate(NamedTuple):
    """A mean with its interval, what that is over, and why there is none."""

    interval: Interval
    over: str | None
    note: str | None


@dataclass(frozen=True)
class Measurement:
    """One number of a measure.

    Attributes
    ----------
    metric : its name
    estimate : the number with its interval, whose bounds are NaN if there is none
    n_points, n_comparisons : as in `ce_align.stages.measures.MeasureRow`
    relative : whether it is a difference from the baseline
    note : what a reader must know of the number
    """

    metric: str
    estimate: Estimate
    n_points: int
    n_comparisons: int
    relative: bool = False
    note: str | None = None


@dataclass
class Measured:
    """All numbers of one measure of one network, and the arrays behind them."""

    numbers: list[Measurement] = field(default_factory=list)
    arrays: "dict[str, xr.DataArray]" = field(default_factory=dict)


def mean_over_units(
    values: NDArray[np.float64],
    kind: IntervalKind,
    seed: int,
    effects: NDArray[np.float64] | None = None,
) -> Estimate:
    """Mean of one value for each image, with its interval.

    Parameters
    ----------
    values : (n_images,); NaN are left out
    kind : of interval, as settings have it
    seed : of the bootstrap
    effects : (n_all_images,), mean zero: what each image adds to the values of all by
        being part of a cloud that they are compared with; first those that have a value
    """
    kept = np.isfinite(values)
    if not kept.any():
        return without_interval(float("nan"), 0, "no comparison is defined")
    if effects is not None:
        rest = np.arange(len(values), len(effects))
        order = [np.flatnonzero(kept), np.flatnonzero(~kept), rest]
        effects = effects[np.concatenate(order)]
    values = values[kept]
    if kind == "comparisons":
        return Estimate(mean_interval(values), "comparisons", None)
    moved = values
    if effects is not None:
        moved = values.mean() + effects
        moved[: len(values)] += len(effects) / len(values) * (values - values.mean())
    if len(values) < MIN_UNITS:
        return without_interval(float(values.mean()), len(values), "too few images")
    if not np.isfinite(moved).all():
        why = "too few points to tell what each image adds to a cloud"
        return without_interval(float(values.mean()), len(values), why)
    rng = np.random.default_rng([seed, len(values)])
    return Estimate(unit_interval(moved, rng), "images", None)


def mean_over_pairs(
    values: NDArray[np.float64],
    pairs: NDArray[Any],
    kind: IntervalKind,
    seed: int,
    units: str = "images",
) -> Estimate:
    """Mean of one value for each pair of images or classes, with its interval."""
    kept = np.isfinite(values)
    if not kept.any():
        return without_interval(float("nan"), 0, "no comparison is defined")
    values, pairs = values[kept], pairs[kept]
    if kind == "comparisons":
        return Estimate(mean_interval(values), "comparisons", None)
    n = len(np.unique(pairs))
    if n < MIN_PAIRED:
        why = f"fewer than {MIN_PAIRED} {units}"
        return without_interval(float(values.mean()), n, why)
    rng = np.random.default_rng([seed, len(values)])
    return Estimate(pair_interval(values, pairs, rng), units, None)


class HeldOut(NamedTuple):
    """What one run found on the images that it held out.

    Attributes
    ----------
    value : explained variance, or NaN
    effects : (n_images,) or (n_images, n_transformations), what each image, or each
        combination, adds to the value; zero for those that were not held out
    n_views : views that were held out
    """

    value: float
    effects: NDArray[np.float64]
    n_views: int


def mean_over_runs(runs: Sequence[HeldOut], test_share: float, seed: int) -> Estimate:
    """Mean over runs that hold out different images, with its interval over images.

    Runs share images, so their own spread says too little. An image adds to every run
    that held it out, and images are independent of each other. What the images add by
    training counts as much as the share of them that is not held out lets expect.

    Parameters
    ----------
    runs : of one regression
    test_share : of the images that each run holds out
    seed : of the bootstrap

    Notes
    -----
    For many runs it is the interval of Nadeau and Bengio (2003), Machine Learning 52,
    whose variance of the spread of a few runs is replaced by that over images.
    """
    mean = float(np.mean([run.value for run in runs]))
    # A training image adds 1 / n_train of what a held-out one adds 1 / n_test of.
    effects = np.mean([run.effects for run in runs], axis=0) / np.sqrt(1 - test_share)
    why = _untrusted(runs, mean, effects)
    if why:
        return without_interval(mean, len(effects), why)
    held_out = np.any(effects.reshape(len(effects), -1) != 0, axis=1)
    n = int(held_out.sum())
    rng = np.random.default_rng([seed, n])
    if effects.ndim == 2:
        found = crossed_interval(mean, effects, rng)
        return Estimate(found, "images and transformations", None)
    return Estimate(unit_interval(mean + n * effects[held_out], rng), "images", None)


def _untrusted(
    runs: Sequence[HeldOut], mean: float, effects: NDArray[np.float64]
) -> str | None:
    """Why the effects of held-out images do not show how certain a mean of runs is."""
    if not np.isfinite(mean):
        return "some run has no value"
    table = effects.reshape(len(effects), -1)
    if np.any(table != 0, axis=1).sum() < MIN_HELD_OUT:
        return f"fewer than {MIN_HELD_OUT} images held out"
    if effects.ndim == 2 and np.any(table != 0, axis=0).sum() < MIN_PAIRED:
        return f"fewer than {MIN_PAIRED} transformations"
    if np.mean([run.n_views for run in runs]) < MIN_VIEWS:
        return f"fewer than {MIN_VIEWS} views held out"
    if mean < 0:
        return "the mean predicts better, so all hangs on the training images"
    spread = np.var([run.value for run in runs])
    by_image = [run.effects.reshape(len(run.effects), -1).sum(axis=1) for run in runs]
    expected = np.mean(np.sum(np.square(by_image), axis=1))
    if len(runs) > 1 and spread > MAX_SPREAD * expected:
        return "runs differ by more than the images that they hold out explain"
    return None


def without_interval(value: float, n_units: int, why: str) -> Estimate:
    """A number without an interval, and the reason in a note."""
    interval = Interval(value, float("nan"), float("nan"), 0.95, n_units)
    return Estimate(interval, None, f"no interval: {why}")
