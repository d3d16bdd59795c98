"""PLS predictivity over ten splits, against scikit-learn as Brain-Score calls it.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.pls``. scikit-learn fits one
split and its time is multiplied by the number of splits; everything else is timed
whole. The peak memory is of a process of its own, whose features lie in a file.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed._measure import (
    Measured,
    Rows,
    best_of,
    main,
    peak_memory,
    run_command,
)
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.pls import PLSFit, kernel_pls
from ce_align.metrics.predictivity import brainscore_splits, cross_validated_r

N_LATENTS = 300
#: Rows that are made at a time.
ROWS = 200

Array = NDArray[np.float64]


class Planted:
    """Rectified features and noisy neuroids with common causes of falling variance."""

    def __init__(self, n_stimuli: int, n_features: int, n_neuroids: int) -> None:
        self.rng = np.random.default_rng(0)
        scales = np.arange(1, N_LATENTS + 1) ** -0.6
        self.latents = self.rng.standard_normal((n_stimuli, N_LATENTS)) * scales
        self.mixing = self.rng.standard_normal(
            (N_LATENTS, n_features), dtype=np.float32
        )
        tuning = self.rng.standard_normal((N_LATENTS, n_neuroids))
        noise = self.rng.standard_normal((n_stimuli, n_neuroids))
        self.responses: Array = self.latents @ tuning + 1.5 * noise

    def rows(self, start: int) -> NDArray[np.float32]:
        """Features of up to `ROWS` stimuli."""
        latents = self.latents[start : start + ROWS].astype(np.float32)
        features = latents @ self.mixing
        noise = self.rng.standard_normal(features.shape, dtype=np.float32)
        return np.asarray(np.maximum(features + noise, 0))


def rows(
    stimuli: int = 3200,
    features: int = 25_088,
    neuroids: int = 168,
    memory_features: int = 100_352,
) -> Rows:
    """Time with either Gram matrix, and memory for features that lie in a file."""
    from sklearn.cross_decomposition import PLSRegression

    planted = Planted(stimuli, features, neuroids)
    responses, splits = planted.responses, brainscore_splits(stimuli)
    values = np.vstack([planted.rows(start) for start in range(0, stimuli, ROWS)])
    train, test = splits[0]
    model = PLSRegression(n_components=25, scale=False)
    expected: list[Array] = []

    def theirs() -> None:
        model.fit(values[train], responses[train])
        predicted = np.asarray(model.predict(values[test]), float)
        expected.append(columnwise_pearson_r(predicted, responses[test]))

    one_split = best_of(theirs, 1)
    for dtype, goal in (("float64", 60), ("float32", 100)):
        fits: list[PLSFit] = []

        def ours() -> None:
            gram = centred_gram(values, dtype=dtype)  # noqa: B023
            fits.append(kernel_pls(gram, responses, splits, gram_dtype=dtype))  # noqa: B023

        seconds = best_of(ours, 2)
        forming = best_of(lambda: centred_gram(values, dtype=dtype), 1)  # noqa: B023
        if fits[0].n_iter[0] != tuple(model.n_iter_):
            raise ValueError(f"{dtype}: other iterations than scikit-learn's")
        r = columnwise_pearson_r(fits[0].predictions[0], responses[test])
        yield Measured(
            f"PLS, {len(splits)} splits of {stimuli} stimuli × {features} features, "
            f"{neuroids} neuroids, Gram in {dtype}",
            seconds,
            peer="scikit-learn PLSRegression, as Brain-Score calls it",
            theirs=len(splits) * one_split,
            floor=forming,
            of_floor="the Gram matrix",
            at_least=goal,
            apart=float(np.abs(r - expected[0]).max()),
            within=1e-6 if dtype == "float64" else 1e-4,
            note="equal iterations; the peer's time is of one split, multiplied",
        )
    if memory_features:
        sizes = [str(n) for n in (stimuli, memory_features, neuroids)]
        command = [sys.executable, "-m", "benchmarks.speed.pls", "--memory", *sizes]
        used, size = map(float, run_command(command).split())
        yield Measured(
            f"PLS, peak memory at {stimuli} × {memory_features} features in a file",
            used,
            "GB",
            floor=size,
            of_floor="the features",
        )


def memory(stimuli: int, features: int, neuroids: int) -> None:
    """Print the peak memory of scoring features in a file, and the file's size, GB."""
    planted = Planted(stimuli, features, neuroids)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.float32"
        with path.open("wb") as file:
            for start in range(0, stimuli, ROWS):
                planted.rows(start).tofile(file)
        size = path.stat().st_size
        values = np.memmap(path, np.float32, "r", shape=(stimuli, features))
        cross_validated_r(values, planted.responses, brainscore_splits(stimuli))
        print(peak_memory(), size / 1e9)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        memory(*map(int, sys.argv[2:]))
    else:
        main(rows)
