"""Rows of representational measures, and what all of them share."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt

from ce_align.config import StageConfig
from ce_align.metrics.resampling import (
    Interval,
    bootstrap_interval,
    mean_interval,
    pair_bootstrap_interval,
)
from ce_align.results import Row

if TYPE_CHECKING:
    import xarray as xr

__all__ = ["AnalysisConfig", "MeasureRow", "Measured", "Measurement", "Metric"]

Metric = Literal["bures", "decoding", "factorization", "dimensionality", "steerability"]

#: Resamples of every bootstrap.
N_RESAMPLES = 2000


class AnalysisConfig(StageConfig):
    """Settings of one kind of measure of one network.

    `interval` says what a 95 % interval treats as independent: ``bootstrap`` resamples
    images (or classes); ``comparisons`` is the paper's, which takes every comparison
    for independent.
    """

    metric: Metric
    model: str
    layer: str
    baseline: str | None = None
    images: str
    comparisons: int = Field(default=800, ge=10)
    views: int = Field(default=50, ge=4)
    crops: int = Field(default=20, ge=4)
    photometrics: int = Field(default=20, ge=4)
    independent_photometrics: bool = False
    classes: PositiveInt | None = None
    runs: PositiveInt = 5
    size: PositiveInt = 224
    family: Literal["strong", "weak", "tiny"] = "strong"
    interval: Literal["bootstrap", "comparisons"] = "bootstrap"
    seed: NonNegativeInt = 0


class MeasureRow(Row):
    """One measure of one network.

    Attributes
    ----------
    value : None where it is not defined, such as R² of a parameter that never varied
    low, high : 95 % interval of `value`; None where none is defined
    n_points : points in each cloud that was compared, or training views of a
        regression; values of different n_points must not be compared
    n_comparisons, n_units : comparisons, and images, classes or runs behind them
    baseline : network that a difference was taken from, or None
    interval : what it was computed over: ``bootstrap`` over units, ``comparisons``,
        or ``runs``
    views_digest : of the views that were looked at; only values of the same views are
        compared across networks
    note : what a reader must know of the value, such as how many images were left out
    """

    layer: str
    low: float | None
    high: float | None
    n_points: int
    n_comparisons: int
    n_units: int
    baseline: str | None
    images: str
    interval: str | None
    seed: int
    model_digest: str
    images_digest: str
    views_digest: str
    note: str | None = None


@dataclass(frozen=True)
class Measurement:
    """A number with its interval, before it becomes a row.

    Attributes
    ----------
    metric : its name
    interval : bounds are NaN if there are none
    over : what the interval was computed over, None if there is none
    n_points, n_comparisons : as in `MeasureRow`
    relative : whether it is a difference from the baseline
    note : as in `MeasureRow`
    """

    metric: str
    interval: Interval
    over: str | None
    n_points: int
    n_comparisons: int
    relative: bool = False
    note: str | None = None


@dataclass
class Measured:
    """Measurements of one configuration, and the arrays behind them."""

    measurements: list[Measurement] = field(default_factory=list)
    arrays: "dict[str, xr.DataArray]" = field(default_factory=dict)

    def add(
        self,
        metric: str,
        interval: Interval,
        over: str | None,
        *,
        n_points: int,
        n_comparisons: int,
        relative: bool = False,
        note: str | None = None,
    ) -> None:
        """Add one measurement, see `Measurement`."""
        self.measurements.append(
            Measurement(metric, interval, over, n_points, n_comparisons, relative, note)
        )

    def rows(self, config: AnalysisConfig, **identity: str) -> list[MeasureRow]:
        """Rows; `identity` are the configuration's id and the digests."""
        return [
            MeasureRow(
                model=config.model,
                metric=found.metric,
                value=_finite(found.interval.estimate),
                layer=config.layer,
                low=_finite(found.interval.low),
                high=_finite(found.interval.high),
                n_points=found.n_points,
                n_comparisons=found.n_comparisons,
                n_units=found.interval.n_units,
                baseline=config.baseline if found.relative else None,
                images=config.images,
                interval=found.over,
                seed=config.seed,
                note=found.note,
                **identity,
            )
            for found in self.measurements
        ]


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def interval_over_units(
    values: NDArray[np.float64], config: AnalysisConfig
) -> Interval:
    """Mean of one value for each independent image or class, with its interval."""
    if config.interval == "comparisons":
        return mean_interval(values)
    rng = np.random.default_rng([config.seed, len(values)])
    return bootstrap_interval(
        lambda drawn: values[drawn].mean(axis=1),
        len(values),
        rng,
        n_resamples=N_RESAMPLES,
    )


def interval_over_pairs(
    values: NDArray[np.float64], pairs: NDArray[Any], config: AnalysisConfig
) -> Interval:
    """Mean of one value for each pair of images or classes, with its interval."""
    if config.interval == "comparisons":
        return mean_interval(values)
    rng = np.random.default_rng([config.seed, len(values)])
    return pair_bootstrap_interval(values, pairs, rng, n_resamples=N_RESAMPLES)


def interval_over_runs(values: Sequence[float]) -> Interval:
    """Mean over runs ± Student's quantile times its standard error; NaN for one run."""
    from scipy import stats

    found = np.asarray(values, dtype=np.float64)
    mean, n = float(found.mean()), len(found)
    half = float("nan")
    if n > 1:
        half = float(stats.t.ppf(0.975, n - 1) * found.std(ddof=1) / np.sqrt(n))
    return Interval(mean, mean - half, mean + half, 0.95, n)
