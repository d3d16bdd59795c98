"""PLS predictivity over ten splits, against scikit-learn as Brain-Score calls it.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.pls``. scikit-learn fits one
split and its time is multiplied by the number of splits; everything else is timed
whole. With ``--memory`` nothing is compared: the features lie in a file, and the peak
memory of the process is stated as a multiple of that file.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed._machine import best_of, describe
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.pls import kernel_pls
from ce_align.metrics.predictivity import (
    brainscore_splits,
    cross_validated_r,
    summarise,
)

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


def speed(planted: Planted, repeats: int) -> None:
    """Time both routes and compare their correlations and iterations."""
    from sklearn.cross_decomposition import PLSRegression

    responses = planted.responses
    n_stimuli = len(responses)
    features = np.vstack([planted.rows(start) for start in range(0, n_stimuli, ROWS)])
    splits = brainscore_splits(n_stimuli)
    train, test = splits[0]

    start = time.perf_counter()
    model = PLSRegression(n_components=25, scale=False)
    model.fit(features[train], responses[train])
    predicted = model.predict(features[test])
    one_split = time.perf_counter() - start
    theirs = len(splits) * one_split
    expected = columnwise_pearson_r(np.asarray(predicted, float), responses[test])
    print(f"scikit-learn, 1 split: {one_split:.1f} s; {len(splits)}: {theirs:.0f} s †")

    scores = {}
    for dtype in ("float64", "float32"):
        gram = centred_gram(features, dtype=dtype)
        forming = best_of(lambda: centred_gram(features, dtype=dtype), repeats)  # noqa: B023
        fitting = best_of(
            lambda: kernel_pls(gram, responses, splits, gram_dtype=dtype),  # noqa: B023
            repeats,
        )
        fit = kernel_pls(gram, responses, splits, gram_dtype=dtype)
        r = [
            columnwise_pearson_r(predicted, responses[test])
            for predicted, (_, test) in zip(fit.predictions, splits, strict=True)
        ]
        scores[dtype] = summarise(r)[0]
        print(
            f"Gram in {dtype}: {forming:.2f} s + {fitting:.2f} s for {len(splits)} "
            f"splits, {theirs / (forming + fitting):.0f}× †; "
            f"|Δr| of split 1 ≤ {np.abs(r[0] - expected).max():.1e}; iterations "
            f"{'equal' if fit.n_iter[0] == tuple(model.n_iter_) else 'DIFFER'} "
            f"({sum(model.n_iter_)})"
        )
    change = abs(scores["float64"] - scores["float32"])
    print(f"score {scores['float64']:.4f}, |Δscore| of the float32 Gram {change:.1e}")
    print("† extrapolated from one split")


def memory(planted: Planted, n_features: int) -> None:
    """State the peak memory of scoring features that lie in a file."""
    n_stimuli = len(planted.responses)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.float32"
        with path.open("wb") as file:
            for start in range(0, n_stimuli, ROWS):
                planted.rows(start).tofile(file)
        size = path.stat().st_size
        features = np.memmap(path, np.float32, "r", shape=(n_stimuli, n_features))
        before = _peak_memory()
        start_time = time.perf_counter()
        r = cross_validated_r(features, planted.responses, brainscore_splits(n_stimuli))
        seconds = time.perf_counter() - start_time
        print(
            f"features {size / 1e9:.2f} GB; peak memory {_peak_memory() / 1e9:.2f} GB "
            f"({_peak_memory() / size:.2f}×), {before / 1e9:.2f} GB before; "
            f"{seconds:.1f} s, score {summarise(r)[0]:.4f}"
        )


def _peak_memory() -> int:
    """Largest resident set of this process so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def main() -> None:
    """Read the sizes, and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int)
    parser.add_argument("--stimuli", type=int, default=3200)
    parser.add_argument("--neuroids", type=int, default=168)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    sizes = parser.parse_args()
    n_features = sizes.features or (100_352 if sizes.memory else 25_088)
    print(describe())
    print(f"{sizes.stimuli} stimuli × {n_features} features, {sizes.neuroids} neuroids")
    planted = Planted(sizes.stimuli, n_features, sizes.neuroids)
    if sizes.memory:
        memory(planted, n_features)
    else:
        speed(planted, sizes.repeats)


if __name__ == "__main__":
    main()
