"""Squared Bures distances of many pairs of clouds, against the d×d routes.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.bures``. One pair is timed for
the d×d routes and multiplied by the number of pairs; everything else is timed whole.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from benchmarks.speed._measure import Measured, Rows, best_of, in_turns, main
from ce_align.metrics.bures import squared_bures_distances

FloatArray = NDArray[np.float64]


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


def rows(clouds: int = 100, points: int = 100, features: int = 2048) -> Rows:
    """Every pair of some clouds; of the d×d routes one, multiplied."""
    rng = np.random.default_rng(0)
    scales = 1 / np.sqrt(np.arange(1, features + 1))
    drawn = rng.standard_normal((clouds, points, features)) * scales
    pairs = np.array([(i, j) for i in range(clouds) for j in range(i)])

    def products() -> None:
        for i, j in pairs:
            drawn[i] @ drawn[j].T

    def distances() -> None:
        squared_bures_distances(drawn, pairs)

    ours, floor = in_turns(distances, products, repeats=2)
    value = squared_bures_distances(drawn, pairs[:1])[0]
    job = f"Bures, {len(pairs)} pairs of {points} points in {features} dimensions"
    for peer, route, goal in (
        ("scipy sqrtm, d×d", by_sqrtm, 10_000),
        ("clamped eigh, d×d", by_eigh, 2_000),
    ):
        results: list[float] = []
        one = best_of(lambda: results.append(route(drawn[1], drawn[0])), 1)  # noqa: B023
        yield Measured(
            job,
            ours,
            peer=peer,
            theirs=len(pairs) * one,
            floor=floor,
            of_floor="its products, one pair at a time",
            at_least=goal if features >= 2048 else None,
            at_most=1.6,
            apart=abs(results[0] - value),
            within=1e-5,
            note="the peer's time is of one pair, multiplied",
        )


if __name__ == "__main__":
    main(rows)
