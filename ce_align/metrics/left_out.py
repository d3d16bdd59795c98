"""What each point of a reference cloud adds to the distances of other clouds from it.

A distance from the cloud of all images' centroids is a function of those images: to
know how certain it is, one must know what it would be without each of them.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.metrics.bures import Clouds, unit_factor

__all__ = ["half_effects", "reference_effects"]

FloatArray = NDArray[np.float64]

#: Fewer points of a reference leave too few when one is left out.
MIN_REFERENCE = 4
#: Spacing of the nodes, in units of log τ: the error is about exp(−π² / spacing).
SPACING = 0.6
#: The nodes reach so far beyond the singular values, as a factor.
REACH = 30.0
#: Singular values below this share of the largest are rounding.
CUTOFF = 1e-7


def reference_effects(clouds: Clouds, reference: ArrayLike) -> FloatArray:
    """Effect of every reference point on the mean squared Bures distance of clouds.

    Parameters
    ----------
    clouds : (n_clouds, n_points, n_features), or as many arrays (n_points, n_features)
    reference : (n_reference_points, n_features)

    Returns
    -------
    (n_reference_points,)
        (n − 1) [mean of D_k − D_k], where D_k is the mean distance without point k: the
        jackknife's pseudo-values of the mean distance, minus their mean. All NaN for
        fewer than four points, or if without one of them the others are constant.

    Raises
    ------
    DataError
        As `squared_bures_distances_to_reference`.

    Notes
    -----
    Without point k the product M of reference and cloud loses a row z (scaled by
    √(n / (n − 1)), for the mean moves, too), so the sum of singular values falls by

        −(1 / π) ∫₀^∞ log[1 − zᵀ (τ² + MᵀM)⁻¹ z] dτ,

    which one matrix product gives for all points at once, by the trapezoidal rule in
    log τ, to about 1e-4 of the largest effect. No singular value is computed anew.
    """
    unit_factor(reference, "reference")  # refuses what is no cloud
    points, kept = _centred(np.asarray(reference))
    if kept is None:
        return np.full(len(points), np.nan)
    fidelity = np.zeros(len(points))
    for i, cloud in enumerate(clouds):
        factor = unit_factor(cloud, f"cloud {i}")
        fidelity += _fidelities_without(points @ factor.T)
    return _effects(fidelity / len(clouds), kept)


def half_effects(
    first: tuple[NDArray[Any], NDArray[Any]], second: tuple[NDArray[Any], NDArray[Any]]
) -> FloatArray:
    """Effects of the points of halves B, B′ on what `between_and_floor` gives.

    Parameters
    ----------
    first, second : A, A′ and B, B′, each (n_points, n_features)

    Returns
    -------
    (2, 2, n_points)
        For B and for B′: effects on D_B with the other half of A, and on D_B(B, B′), as
        `reference_effects` has them.

    Raises
    ------
    DataError
        As `squared_bures_distance`.
    """
    own = [unit_factor(half, "cloud") for half in first]
    for half in second:
        unit_factor(half, "reference")
    points, kept = zip(*(_centred(half) for half in second), strict=True)
    if kept[0] is None or kept[1] is None:
        return np.full((2, 2, len(points[0])), np.nan)
    both = points[0] @ points[1].T
    products = (points[0] @ own[1].T, both), (points[1] @ own[0].T, both.T)
    return np.array(
        [
            [_effects(_fidelities_without(product), kept[k]) for product in products[k]]
            for k in (0, 1)
        ]
    )


def _centred(cloud: NDArray[Any]) -> tuple[FloatArray, FloatArray | None]:
    """Points of unit total spread, and what of it is left without each, if any is."""
    points = cloud.astype(np.float64)
    points -= points.mean(axis=0)
    points /= np.linalg.norm(points)
    n = len(points)
    kept = 1.0 - n / (n - 1) * np.sum(points**2, axis=1)
    enough = n >= MIN_REFERENCE and kept.min() > n * np.finfo(np.float64).eps
    return points, kept if enough else None


def _effects(fidelity: FloatArray, kept: FloatArray) -> FloatArray:
    without = 2.0 - 2.0 * fidelity / np.sqrt(kept)
    effects = (len(kept) - 1) * (without.mean() - without)
    return np.asarray(effects, dtype=np.float64)


def _fidelities_without(product: NDArray[Any]) -> FloatArray:
    """Sum of singular values of M without each row, recentred, (n_rows,)."""
    squares, axes = np.linalg.eigh(product.T @ product)
    values = np.sqrt(squares.clip(min=0.0))
    there = values > CUTOFF * values[-1]
    values = values[there]
    if not values.size:
        return np.zeros(len(product))
    n = len(product)
    rows = n / (n - 1) * (product @ axes[:, there]) ** 2
    low, high = np.log(values[0] / REACH), np.log(values[-1] * REACH)
    n_nodes = int(np.ceil((high - low) / SPACING)) + 1
    nodes, step = np.exp(np.linspace(low, high, n_nodes)), (high - low) / (n_nodes - 1)
    inverse = 1.0 / (nodes**2 + values[:, None] ** 2)
    logs = np.log((1.0 - rows @ inverse).clip(min=np.finfo(np.float64).tiny))
    weights = step * nodes
    # Beyond the nodes the integrand is flat or falls as 1 / τ²: geometric series.
    weights[[0, -1]] /= 1.0 - np.exp(-step)
    return np.asarray(values.sum() + logs @ weights / np.pi, dtype=np.float64)
