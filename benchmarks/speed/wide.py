"""Predictivity of more neuroids than stimuli: time and peak memory, two routes.

Run with ``OMP_NUM_THREADS=2 python -m benchmarks.speed.wide``. The size is that of the
IT units of Li2026; the features lie in a file. Each regression runs in a process of its
own, whose peak memory is stated beside what the features and the responses take.

scikit-learn fits one split of a tenth and of a twentieth of the neuroids. Its time at
full size, marked †, is that times the number of splits: of ridge on the line through
both sizes, of PLS, whose iterations pass over features and neuroids, in proportion to
the sum of these. Its memory at full size is not measured: the coefficients alone are
stated.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.speed._machine import describe
from benchmarks.speed.pls import ROWS, Planted
from ce_align.metrics.predictivity import (
    BRAINSCORE_ALPHAS,
    brainscore_splits,
    cross_validated_r,
    summarise,
)

GIGABYTE = 1e9


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
    """Score all splits, and say how long it took and how much memory."""
    features = np.load(folder / "features.npy", mmap_mode="r")
    responses = np.load(folder / "responses.npy")
    before = peak()
    start = time.perf_counter()
    r = cross_validated_r(
        features, responses, brainscore_splits(len(features)), regression=regression
    )
    seconds = time.perf_counter() - start
    held = (features.nbytes + responses.nbytes) / GIGABYTE
    print(
        f"{regression}, 10 splits: {seconds:.0f} s, peak {peak():.2f} GB ({before:.2f} "
        f"before; features and responses are {held:.2f}), raw {summarise(r)[0]:.4f}",
        flush=True,
    )


def peak() -> float:
    """Most memory that this process has had, in gigabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / GIGABYTE


def compare(folder: Path) -> None:
    """Time scikit-learn on one split of a tenth of the neuroids."""
    from sklearn.cross_decomposition import PLSRegression
    from sklearn.linear_model import RidgeCV

    features = np.load(folder / "features.npy").astype(np.float64)
    responses = np.load(folder / "responses.npy")
    splits, n_neuroids = brainscore_splits(len(features)), responses.shape[1]
    train, test = splits[0]
    coefficients = features.shape[1] * n_neuroids * 8 / GIGABYTE
    for name, model in (
        ("RidgeCV, 97 strengths", RidgeCV(BRAINSCORE_ALPHAS)),
        ("PLSRegression, 25 components", PLSRegression(25, scale=False)),
    ):
        seconds, sizes = [], [n_neuroids // 20, n_neuroids // 10]
        for size in sizes:
            start = time.perf_counter()
            model.fit(features[train], responses[train, :size])
            model.predict(features[test])
            seconds.append(time.perf_counter() - start)
        slope, constant = np.polyfit(sizes, seconds, 1)
        whole = constant + slope * n_neuroids
        if isinstance(model, PLSRegression):
            n_features = features.shape[1]
            whole = seconds[1] * (n_features + n_neuroids) / (n_features + sizes[1])
        whole *= len(splits)
        print(
            f"scikit-learn's {name}, 10 splits: {whole:.0f} s † (one split of {sizes} "
            f"neuroids: {seconds[0]:.1f} and {seconds[1]:.1f} s); coefficients of a "
            f"split are {coefficients:.1f} GB",
            flush=True,
        )


def main() -> None:
    """Read the sizes, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stimuli", type=int, default=1000)
    parser.add_argument("--features", type=int, default=25_088)
    parser.add_argument("--neuroids", type=int, default=21_059)
    parser.add_argument("--measure", nargs=2, metavar=("FOLDER", "REGRESSION"))
    asked = parser.parse_args()
    if asked.measure:
        measure(Path(asked.measure[0]), asked.measure[1])
        return
    print(describe())
    print(f"{asked.stimuli} stimuli × {asked.features} features × {asked.neuroids}")
    with tempfile.TemporaryDirectory() as folder:
        plant(Path(folder), asked.stimuli, asked.features, asked.neuroids)
        own = [sys.executable, "-m", "benchmarks.speed.wide", "--measure", folder]
        for regression in ("ridgecv", "pls"):
            sys.stdout.flush()
            subprocess.run([*own, regression], check=True)
        compare(Path(folder))


if __name__ == "__main__":
    main()
