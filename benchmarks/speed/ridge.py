"""Ridge predictivity over ten splits, against scikit-learn's RidgeCV and Ridge.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.ridge``. scikit-learn fits one
split and its time is multiplied by the number of splits; everything else is timed
whole.
"""

import argparse
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.speed._machine import best_of, describe
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.predictivity import brainscore_splits
from ce_align.metrics.ridge import RidgeFit, kernel_ridge, leave_one_out_alphas

Array = NDArray[np.float64]


def compare(
    features: NDArray[np.float32],
    responses: Array,
    alphas: Array,
    model: Any,
    gram_dtype: str,
) -> None:
    """Time both routes for these strengths and compare what they choose and predict."""
    splits = brainscore_splits(len(features))
    train, test = splits[0]
    wide = features.astype(np.float64)
    start = time.perf_counter()
    model.fit(wide[train], responses[train])
    expected = model.predict(wide[test])
    theirs = len(splits) * (time.perf_counter() - start)
    fits: list[RidgeFit] = []

    def ours() -> None:
        gram = centred_gram(features, dtype=gram_dtype)
        fits.append(kernel_ridge(gram, responses, splits, alphas=alphas))

    seconds = best_of(ours, 1)
    change = np.abs(fits[0].predictions[0] - expected).max() / responses.std()
    chosen = getattr(model, "alpha_", model.alpha if len(alphas) == 1 else None)
    print(
        f"{type(model).__name__}, {len(alphas)} strengths, {len(splits)} splits: "
        f"{theirs:.0f} s †; Gram in {gram_dtype}: {seconds:.1f} s, "
        f"{theirs / seconds:.1f}× †; strengths of split 1 {chosen:.3g} and "
        f"{fits[0].alphas[0]:.3g}; |Δprediction| ≤ {change:.1e} standard deviations"
    )


def main() -> None:
    """Read the sizes, and measure."""
    from sklearn.linear_model import Ridge, RidgeCV

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=25_088)
    parser.add_argument("--stimuli", type=int, default=3200)
    parser.add_argument("--neuroids", type=int, default=168)
    parser.add_argument("--gram-dtype", default="float64")
    sizes = parser.parse_args()
    print(describe())
    print(
        f"{sizes.stimuli} stimuli × {sizes.features} features, "
        f"{sizes.neuroids} neuroids"
    )
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((sizes.stimuli, 200)) * np.arange(1, 201) ** -0.6
    mixing = rng.standard_normal((200, sizes.features))
    features = np.maximum(latents @ mixing, 0).astype(np.float32)
    responses = latents @ rng.standard_normal((200, sizes.neuroids))
    responses += rng.standard_normal(responses.shape)
    alphas = leave_one_out_alphas(centred_gram(features))
    for strengths, model in (
        (alphas, RidgeCV(alphas)),
        (np.array([1.0]), Ridge(alpha=1.0)),
    ):
        compare(features, responses, strengths, model, sizes.gram_dtype)
    print("† extrapolated from one split")


if __name__ == "__main__":
    main()
