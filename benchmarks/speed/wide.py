"""Predictivity of more neuroids than stimuli: time and peak memory, two routes.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.wide``. The size is that of the
IT units of Li2026; the features lie in a file. Each regression runs in a process of its
own, whose peak memory is stated beside what the features and the responses take.

scikit-learn fits one split of a tenth and of a twentieth of the neuroids. Its time at
full size, marked †, is that times the number of splits: of ridge on the line through
both sizes, of PLS, whose iterations pass over features and neuroids, in proportion to
the sum of these. Its memory is not measured.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.speed._measure import (
    Measured,
    Rows,
    best_of,
    main,
    peak_memory,
    run_command,
)
from benchmarks.speed.pls import ROWS, Planted
from ce_align.metrics.predictivity import (
    BRAINSCORE_ALPHAS,
    brainscore_splits,
    cross_validated_r,
)


def plant(folder: Path, stimuli: int, features: int, neuroids: int) -> None:
    """Write features and responses."""
    planted = Planted(stimuli, features, neuroids)
    shape = (stimuli, features)
    values = np.empty(shape, dtype=np.float32)
    for start in range(0, stimuli, ROWS):
        values[start : start + ROWS] = planted.rows(start)
    np.save(folder / "features.npy", values)
    np.save(folder / "responses.npy", planted.responses)


def measure(folder: Path, regression: str) -> None:
    """Score all splits; print seconds and peak memory, GB."""
    features = np.load(folder / "features.npy", mmap_mode="r")
    responses = np.load(folder / "responses.npy")
    splits = brainscore_splits(len(features))
    seconds = best_of(
        lambda: cross_validated_r(features, responses, splits, regression=regression), 1
    )
    print(seconds, peak_memory())


def scikit_learn(folder: Path, regression: str) -> float:
    """Seconds at full size, from splits of fewer neuroids."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.linear_model import RidgeCV

    features = np.load(folder / "features.npy").astype(np.float64)
    responses = np.load(folder / "responses.npy")
    splits, n_neuroids = brainscore_splits(len(features)), responses.shape[1]
    train, test = splits[0]
    sizes = [n_neuroids // 20, n_neuroids // 10]
    pls = regression == "pls"
    model = PLSRegression(25, scale=False) if pls else RidgeCV(BRAINSCORE_ALPHAS)

    def split(size: int) -> None:
        model.fit(features[train], responses[train, :size])
        model.predict(features[test])

    seconds = [best_of(lambda: split(size), 1) for size in sizes]  # noqa: B023
    slope, constant = np.polyfit(sizes, seconds, 1)
    n_features = features.shape[1]
    along = seconds[1] * (n_features + n_neuroids) / (n_features + sizes[1])
    return len(splits) * float(along if pls else constant + slope * n_neuroids)


def rows(stimuli: int = 1000, features: int = 25_088, neuroids: int = 21_059) -> Rows:
    """Seconds and memory of either regression."""
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), stimuli, features, neuroids)
        own = [sys.executable, "-m", "benchmarks.speed.wide", "--measure", folder]
        size = f"{stimuli} stimuli × {features} features × {neuroids} neuroids"
        for regression in ("ridgecv", "pls"):
            seconds, used = map(float, run_command([*own, regression]).split())
            yield Measured(
                f"{regression}, 10 splits of {size}",
                seconds,
                peer="scikit-learn",
                theirs=scikit_learn(Path(folder), regression),
                note="the peer's time is of one split of fewer neuroids, extrapolated",
            )
            yield Measured(
                f"{regression}, peak memory of {size}",
                used,
                "GB",
                floor=4 * stimuli * (features + 2 * neuroids) / 1e9,
                of_floor="features and responses",
                note=f"the coefficients of one split would take "
                f"{8 * features * neuroids / 1e9:.1f} GB",
            )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(Path(sys.argv[2]), sys.argv[3])
    else:
        main(rows)
