"""Do networks with more of a measure predict the brain better?"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import DataError
from ce_align.metrics.resampling import MIN_UNITS, bootstrap_interval
from ce_align.metrics.significance import (
    benjamini_hochberg,
    checked_vector,
    within_group_permutation_p,
)

__all__ = ["Association", "correlate"]

FloatArray = NDArray[np.float64]


@dataclass(frozen=True)
class Association:
    """Correlation of one measure with one predictivity across networks.

    Attributes
    ----------
    measure, target : what was correlated
    n_networks : number of networks
    pearson, low, high : Pearson correlation and its bootstrap interval over networks
    abs_pearson, r_squared : |r| and r² of the same
    spearman : rank correlation
    within_pearson : correlation after subtracting the mean of each group (objective)
        from both sides; NaN where one side does not vary within any group
    p : of the permutation test that exchanges networks within their group only
    q : false discovery rate of `p` over the table (Benjamini–Hochberg)
    """

    measure: str
    target: str
    n_networks: int
    pearson: float
    low: float
    high: float
    abs_pearson: float
    r_squared: float
    spearman: float
    within_pearson: float
    p: float
    q: float


def correlate(
    measures: Mapping[str, ArrayLike],
    targets: Mapping[str, ArrayLike],
    groups: ArrayLike,
    rng: np.random.Generator,
    *,
    n_resamples: int = 2000,
    n_permutations: int = 10_000,
    level: float = 0.95,
) -> tuple[Association, ...]:
    """Correlate every measure with every target across networks.

    Parameters
    ----------
    measures : name -> (n_networks,), a number for each network
    targets : name -> (n_networks,), predictivity of the same networks in the same order
    groups : (n_networks,), training objective of each network
    rng : random generator
    n_resamples, level : of the bootstrap over networks
    n_permutations : of the test within groups

    Returns
    -------
    One record for each measure and target, measures outermost.

    Raises
    ------
    DataError
        For fewer than five networks, unequal lengths, NaN, values that do not vary, or
        groups of one network only.

    Notes
    -----
    The interval is Fisher's z ± Student's quantile times the bootstrap standard error
    of z. It takes networks for independent, which networks of one objective are not
    quite; `within_pearson` and `p` do not depend on differences between objectives.
    """
    labels = np.asarray(groups)
    left = {name: _checked(values, name, labels) for name, values in measures.items()}
    right = {name: _checked(values, name, labels) for name, values in targets.items()}
    records = [
        _associate(
            (measure, x), (target, y), labels, rng, n_resamples, n_permutations, level
        )
        for measure, x in left.items()
        for target, y in right.items()
    ]
    q = benjamini_hochberg([record.p for record in records])
    return tuple(
        replace(record, q=float(value))
        for record, value in zip(records, q, strict=True)
    )


def _associate(
    measure: tuple[str, FloatArray],
    target: tuple[str, FloatArray],
    groups: NDArray[np.generic],
    rng: np.random.Generator,
    n_resamples: int,
    n_permutations: int,
    level: float,
) -> Association:
    from scipy import stats

    (name_x, x), (name_y, y) = measure, target
    interval = bootstrap_interval(
        lambda index: _pearson(x[index], y[index]),
        len(x),
        rng,
        n_resamples=n_resamples,
        level=level,
        transform=(np.arctanh, np.tanh),
    )
    r = interval.estimate
    ranks = stats.rankdata(x), stats.rankdata(y)
    within = float(_pearson(_centred(x, groups), _centred(y, groups)))
    p = within_group_permutation_p(_pearson, x, y, groups, rng, n_permutations)
    if np.isnan(within):  # every permutation is the data again, up to rounding
        p = 1.0
    return Association(
        measure=name_x,
        target=name_y,
        n_networks=len(x),
        pearson=r,
        low=interval.low,
        high=interval.high,
        abs_pearson=abs(r),
        r_squared=r**2,
        spearman=float(_pearson(*ranks)),
        within_pearson=within,
        p=p,
        q=p,
    )


def _pearson(x: FloatArray, y: FloatArray) -> FloatArray:
    """Pearson correlation along the last axis; NaN where one side is constant."""
    x = x - x.mean(axis=-1, keepdims=True)
    y = y - y.mean(axis=-1, keepdims=True)
    scale = np.sqrt(np.sum(x**2, axis=-1) * np.sum(y**2, axis=-1))
    r = np.divide(
        np.sum(x * y, axis=-1), scale, out=np.full_like(scale, np.nan), where=scale > 0
    )
    return np.asarray(np.clip(r, -1.0, 1.0), dtype=np.float64)


def _centred(values: FloatArray, groups: NDArray[np.generic]) -> FloatArray:
    """Values minus the mean of their group, exactly zero where a group is constant."""
    centred = np.empty_like(values)
    for label in np.unique(groups):
        members = groups == label
        group = values[members]
        centred[members] = 0.0 if np.ptp(group) == 0 else group - group.mean()
    return centred


def _checked(values: ArrayLike, name: str, groups: NDArray[np.generic]) -> FloatArray:
    data = checked_vector(values, name, MIN_UNITS)
    if groups.shape != data.shape:
        raise DataError(
            f"{name} has {len(data)} networks but groups has the shape {groups.shape}; "
            "give one value and one objective for each network, in one order"
        )
    if np.ptp(data) == 0:
        raise DataError(f"{name} is the same for all networks; it has no correlation")
    return data
