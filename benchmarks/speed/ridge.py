"""Ridge predictivity over ten splits, against scikit-learn's RidgeCV and Ridge.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.ridge``. scikit-learn fits one
split and its time is multiplied by the number of splits; everything else is timed
whole.
"""

from typing import Any

import numpy as np
from scipy.linalg import lapack

from benchmarks.speed._measure import Measured, Rows, best_of, main
from ce_align.metrics.gram import Array, centred_gram
from ce_align.metrics.predictivity import brainscore_splits
from ce_align.metrics.ridge import RidgeFit, kernel_ridge, leave_one_out_alphas


def inverse(gram: Array, alpha: float) -> None:
    """Cholesky's, of a Gram matrix with a strength on its diagonal."""
    matrix = np.asfortranarray(gram + alpha * np.eye(len(gram)))
    factor, _ = lapack.dpotrf(matrix, overwrite_a=1)
    lapack.dpotri(factor, overwrite_c=1)


def rows(
    stimuli: int = 3200,
    features: int = 25_088,
    neuroids: int = 168,
    gram_dtype: str = "float64",
) -> Rows:
    """Of a strength that leave-one-out chooses, and of one that is given."""
    from sklearn.linear_model import Ridge, RidgeCV

    rng = np.random.default_rng(0)
    latents = rng.standard_normal((stimuli, 200)) * np.arange(1, 201) ** -0.6
    mixing = rng.standard_normal((200, features))
    values = np.maximum(latents @ mixing, 0).astype(np.float32)
    responses = latents @ rng.standard_normal((200, neuroids))
    responses += rng.standard_normal(responses.shape)
    splits = brainscore_splits(stimuli)
    train, test = splits[0]
    wide = values.astype(np.float64)
    strengths = leave_one_out_alphas(centred_gram(values))
    gram = centred_gram(values, dtype=gram_dtype)
    forming = best_of(lambda: centred_gram(values, dtype=gram_dtype), 1)
    inverting = best_of(lambda: inverse(gram, strengths[0]), 2)
    for alphas, model, name, goal in (
        (strengths, RidgeCV(strengths), "RidgeCV", 8),
        (np.array([1.0]), Ridge(alpha=1.0), "Ridge", 12),
    ):
        expected: list[Any] = []
        fits: list[RidgeFit] = []

        def theirs() -> None:
            model.fit(wide[train], responses[train])  # noqa: B023
            expected.append(model.predict(wide[test]))  # noqa: B023

        def ours() -> None:
            formed = centred_gram(values, dtype=gram_dtype)
            fits.append(kernel_ridge(formed, responses, splits, alphas=alphas))  # noqa: B023

        one_split, seconds = best_of(theirs, 1), best_of(ours, 1)
        if len(alphas) > 1 and not np.isclose(fits[0].alphas[0], model.alpha_):
            raise ValueError(f"{name}: another strength than scikit-learn's")
        apart = np.abs(fits[0].predictions[0] - expected[0]).max() / responses.std()
        n_tried = int(np.isfinite(fits[0].squared_errors).any(axis=(0, 1)).sum())
        yield Measured(
            f"ridge, {len(alphas)} strength{'s' * (len(alphas) > 1)}, {len(splits)} "
            f"splits of {stimuli} stimuli × {features} features, {neuroids} neuroids, "
            f"Gram in {gram_dtype}",
            seconds,
            peer=f"scikit-learn {name}",
            theirs=len(splits) * one_split,
            floor=forming + n_tried * inverting,
            of_floor=f"the Gram matrix and an inverse for {n_tried} of the strengths",
            at_least=goal,
            apart=float(apart),
            within=1e-3 if gram_dtype == "float32" else 1e-6,
            note="the peer's time is of one split, multiplied",
        )


if __name__ == "__main__":
    main(rows)
