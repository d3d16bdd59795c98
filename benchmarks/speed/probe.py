"""A path of linear probes, against scikit-learn's LogisticRegression, warm-started.

Run with ``OMP_NUM_THREADS=2 python -m benchmarks.speed.probe``. Both go the whole way
from the strongest to the weakest of 45 strengths and start each from their own weights
at the one before; intercepts are fitted, features are not standardised. scikit-learn's
tolerance is its default, with which many of its fits end where they began; the
objectives that both reach are printed: lower is better.
"""

import argparse
import time
import warnings

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed._machine import describe
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


def theirs(
    features: Features,
    labels: Labels,
    path: list[LinearProbe],
    tolerance: float,
    max_iterations: int,
) -> float:
    """Seconds for the path, printed strength by strength."""
    from sklearn.linear_model import LogisticRegression

    wide = features.astype(np.float64)
    model = LogisticRegression(warm_start=True, tol=tolerance, max_iter=max_iterations)
    total = 0.0
    for probe in path:
        model.set_params(C=1 / probe.strength)
        begin = time.perf_counter()
        model.fit(wide, labels)
        seconds = time.perf_counter() - begin
        total += seconds
        found = objective(
            features, labels, model.coef_.T, model.intercept_, probe.strength
        )
        ours = objective(
            features, labels, probe.weights, probe.intercepts, probe.strength
        )
        print(
            f"  λ {probe.strength:.1e}: {seconds:.1f} s, {int(model.n_iter_[0])} "
            f"iterations, objective {found:.8g}; ours {ours:.8g}, "
            f"{(ours - found) / found:+.1e}",
            flush=True,
        )
    return total


def main() -> None:
    """Read the sizes, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--features", type=int, default=1280)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--tolerance", type=float, default=1e-7)
    parser.add_argument("--their-tolerance", type=float, default=1e-4)
    parser.add_argument("--max-iterations", type=int, default=1000)
    parser.add_argument("--data", help="npz with features (train) and labels (train_y)")
    sizes = parser.parse_args()
    warnings.simplefilter("ignore")
    print(describe())
    if sizes.data:
        with np.load(sizes.data) as stored:
            features = stored["train"][: sizes.images]
            labels = stored["train_y"][: sizes.images]
    else:
        features, labels = synthetic(sizes.images, sizes.features, sizes.classes)
    strengths = STRENGTHS[::-1]
    n_classes = int(labels.max()) + 1
    print(f"{features.shape} features, {n_classes} classes, {len(strengths)} strengths")
    begin = time.perf_counter()
    path = ProbeProblem(features, labels).fit(strengths, tolerance=sizes.tolerance)
    seconds = time.perf_counter() - begin
    n_missed = sum(not probe.converged for probe in path)
    print(
        f"ours: {seconds:.1f} s for the path, {sum(p.n_passes for p in path)} passes, "
        f"{n_missed} strengths missed the tolerance",
        flush=True,
    )
    print("scikit-learn:")
    measured = theirs(
        features, labels, path, sizes.their_tolerance, sizes.max_iterations
    )
    print(f"scikit-learn: {measured:.1f} s for the path: {measured / seconds:.1f}×")


if __name__ == "__main__":
    main()
