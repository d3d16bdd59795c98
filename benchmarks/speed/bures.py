"""Squared Bures distances of many pairs of clouds, against the d×d routes.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.bures``. One pair is timed for
the d×d routes and multiplied by the number of pairs; everything else is timed whole.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from benchmarks.speed._machine import best_of, describe
from ce_align.metrics.bures import squared_bures_distances

N_CLOUDS, N_POINTS, N_FEATURES = 100, 100, 2048

FloatArray = NDArray[np.float64]
Route = Callable[[FloatArray, FloatArray], float]


def covariance(cloud: FloatArray) -> FloatArray:
    """Covariance divided by its trace."""
    matrix = np.cov(cloud, rowvar=False)
    return np.asarray(matrix / np.trace(matrix))


def by_sqrtm(cloud_1: FloatArray, cloud_2: FloatArray) -> float:
    """The textbook definition, two general square roots."""
    first, root = covariance(cloud_1), linalg.sqrtm(covariance(cloud_2))
    return 2.0 - 2.0 * float(np.trace(linalg.sqrtm(root @ first @ root)).real)


def by_eigh(cloud_1: FloatArray, cloud_2: FloatArray) -> float:
    """The same with symmetric eigendecompositions, negative eigenvalues clamped."""
    values, vectors = np.linalg.eigh(covariance(cloud_2))
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ covariance(cloud_1) @ root)
    return 2.0 - 2.0 * float(np.sqrt(inner.clip(0)).sum())


def timed(
    route: Route, cloud_1: FloatArray, cloud_2: FloatArray
) -> tuple[float, float]:
    """Seconds and result of a single call."""
    results: list[float] = []
    seconds = best_of(lambda: results.append(route(cloud_1, cloud_2)), 1)
    return seconds, results[0]


def main() -> None:
    """Measure, and print one line for each route."""
    rng = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, N_FEATURES + 1))
    clouds = rng.standard_normal((N_CLOUDS, N_POINTS, N_FEATURES)) * scales
    pairs = np.array([(i, j) for i in range(N_CLOUDS) for j in range(i)])
    few = np.array([(k, k + 50) for k in range(50)] * 16)

    def products() -> None:
        for i, j in pairs:
            clouds[i] @ clouds[j].T

    ours = best_of(lambda: squared_bures_distances(clouds, pairs), 2)
    floor = best_of(products, 2)
    paper = best_of(lambda: squared_bures_distances(clouds[:, :50], few), 3)
    value = squared_bures_distances(clouds, pairs[:1])[0]
    print(describe())
    print(f"{len(pairs)} pairs of {N_POINTS} points in {N_FEATURES} dimensions")
    print(f"ce_align               {ours:10.1f} s")
    print(f"its matrix products    {floor:10.1f} s   {ours / floor:.2f}× above")
    print(f"800 pairs of 50 points {paper:10.2f} s")
    for name, route in [("clamped eigh, d×d", by_eigh), ("scipy sqrtm, d×d", by_sqrtm)]:
        one_pair, result = timed(route, clouds[1], clouds[0])
        seconds = len(pairs) * one_pair
        print(
            f"{name:22s} {seconds:10.0f} s   {seconds / ours:.0f}× (one pair, "
            f"extrapolated; |Δ| {abs(result - value):.0e})"
        )


if __name__ == "__main__":
    main()
