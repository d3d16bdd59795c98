"""A path of linear probes, against scikit-learn's LogisticRegression, warm-started.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.probe``. Both go the whole way
from the strongest to the weakest of 45 strengths and start each from their own weights
at the one before; intercepts are fitted, features are not standardised. scikit-learn's
tolerance is its default, with which many of its fits end where they began: ours must
not end higher.
"""

import warnings

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed._measure import Measured, Rows, best_of, main
from ce_align.metrics.linear_probe import STRENGTHS, LinearProbe, ProbeProblem

Features = NDArray[np.float32]
Labels = NDArray[np.int64]


def synthetic(n: int, d: int, n_classes: int) -> tuple[Features, Labels]:
    """Rectified mixtures of 200 latents that also decide the class, with noise."""
    rng = np.random.default_rng(0)
    scales = np.arange(1, 201, dtype=np.float32) ** -0.6
    latents = rng.standard_normal((n, 200), dtype=np.float32) * scales
    features = latents @ rng.standard_normal((200, d), dtype=np.float32)
    outputs = latents @ rng.standard_normal((200, n_classes), dtype=np.float32)
    noise = rng.gumbel(size=outputs.shape)
    return np.maximum(features, 0), (2 * outputs + noise).argmax(axis=1)


def objective(
    features: Features,
    labels: Labels,
    weights: NDArray[np.float64],
    intercepts: NDArray[np.float64],
    strength: float,
) -> float:
    """Sum of losses and penalty, in double precision."""
    from scipy.special import logsumexp

    loss = 0.5 * strength * float(np.square(weights).sum())
    for start in range(0, len(features), 5000):
        rows = slice(start, start + 5000)
        outputs = features[rows].astype(np.float64) @ weights + intercepts
        right = outputs[np.arange(len(outputs)), labels[rows]]
        loss += float((logsumexp(outputs, axis=1) - right).sum())
    return loss


def rows(
    images: int = 5000,
    features: int = 1280,
    classes: int = 10,
    tolerance: float = 1e-7,
    their_tolerance: float = 1e-4,
    max_iterations: int = 1000,
    data: str = "",
    small: str = "2000x64x10 500x512x10",
) -> Rows:
    """Paths on small sets and on a large one, or on an npz of train and train_y."""
    warnings.simplefilter("ignore")
    sizes = [tuple(map(int, size.split("x"))) for size in small.split()]
    for n, d, k in [*sizes, (images, features, classes)]:
        if data and (n, d, k) not in sizes:
            with np.load(data) as stored:
                values, labels = stored["train"][:n], stored["train_y"][:n]
        else:
            values, labels = synthetic(n, d, k)
        paths: list[list[LinearProbe]] = []

        def ours() -> None:
            problem = ProbeProblem(values, labels)  # noqa: B023
            found = problem.fit(STRENGTHS[::-1], tolerance=tolerance)
            paths.append(found)  # noqa: B023

        seconds = best_of(ours, 3 if n < 10_000 else 1)
        path = paths[0]
        theirs, worst, best = by_scikit_learn(
            values, labels, path, their_tolerance, max_iterations
        )
        n_missed = sum(not probe.converged for probe in path)
        yield Measured(
            f"{len(path)} linear probes of {labels.max() + 1} classes, "
            f"{values.shape[0]} × {values.shape[1]}",
            seconds,
            peer="scikit-learn LogisticRegression, warm-started, its tolerance",
            theirs=theirs,
            at_least=1,
            apart=max(worst, 0.0),
            within=1e-4,
            note=f"{sum(p.n_passes for p in path)} passes, {n_missed} missed the "
            "tolerance; apart is how much higher our objective is at worst, theirs is "
            f"{best:.2g} times ours",
        )


def by_scikit_learn(
    features: Features,
    labels: Labels,
    path: list[LinearProbe],
    tolerance: float,
    max_iterations: int,
) -> tuple[float, float, float]:
    """Seconds for the path, and objectives.

    They are the share by which ours is higher at worst, and theirs over ours at best.
    """
    from sklearn.linear_model import LogisticRegression

    wide = features.astype(np.float64)
    model = LogisticRegression(warm_start=True, tol=tolerance, max_iter=max_iterations)
    total, worst, best = 0.0, -np.inf, 0.0
    for probe in path:
        model.set_params(C=1 / probe.strength)
        total += best_of(lambda: model.fit(wide, labels), 1)
        found = objective(
            features, labels, model.coef_.T, model.intercept_, probe.strength
        )
        own = objective(
            features, labels, probe.weights, probe.intercepts, probe.strength
        )
        worst, best = max(worst, (own - found) / found), max(best, found / own)
    return total, worst, best


if __name__ == "__main__":
    main(rows)
