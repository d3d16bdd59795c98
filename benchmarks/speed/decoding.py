"""Ridge decoding of 12 augmentation parameters, leave-one-out over 20 strengths.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.decoding``. 50 views of each of
1000 images, 1024 clean and 1024 view features: a design of 50,000 × 2048, which
scikit-learn needs in full. The last rows repeat the fit on 2048 features without
structure, where no image repeats.
"""

from itertools import product
from typing import Any

import numpy as np

from benchmarks.speed._measure import Measured, Rows, best_of, in_turns, main
from ce_align.metrics.paired_design import LinearFit, PairedDesign, Precision, fit_ridge

STRENGTHS = np.logspace(-2, 6, 20)
PRECISIONS: tuple[Precision, ...] = ("double", "single")
#: Largest difference of coefficients, relative to the largest coefficient.
WITHIN = 1e-6


def necessary(n_rows: int, paired: bool, features: int, precision: Precision) -> float:
    """Seconds of the products and the eigenvectors that a fit cannot do without.

    They are the Gram matrix of what differs from row to row, its eigenvectors, and the
    rows along these, whose squares are the leverages of every strength at once.
    """
    from scipy.linalg import eigh, get_blas_funcs

    dtype: Any = np.float32 if precision == "single" else np.float64
    syrk = get_blas_funcs("syrk", dtype=dtype)
    width = features if paired else 2 * features
    rng = np.random.default_rng(0)
    part = rng.standard_normal((min(n_rows, 4096), width))
    gram = part.T @ part + np.eye(width)
    whole = np.kron([[1.0, 0.5], [0.5, 1.0]], gram) if paired else gram
    block = part.astype(dtype)
    axes = rng.random((width, 2 * features)).astype(dtype)
    square, turn, solve = in_turns(
        lambda: syrk(1.0, block.T),
        lambda: block @ axes,
        lambda: eigh(whole, driver="evd"),
    )
    return solve + (square + turn) * n_rows / len(part)


def rows(images: int = 1000, views: int = 50, features: int = 1024) -> Rows:
    """Designs of pairs, and of as many features without structure."""
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(0)
    n_rows, n_parameters = images * views, 12
    clean = rng.standard_normal((images, features))
    index = np.repeat(np.arange(images), views)
    targets = rng.standard_normal((n_rows, n_parameters))
    readout = rng.standard_normal((n_parameters, features))
    seen = clean[index] + targets @ readout
    seen += 20 * rng.standard_normal(seen.shape)
    # Networks return single precision; scikit-learn's errors need double.
    clean, seen = clean.astype(np.float32), seen.astype(np.float32)
    both, nothing = np.hstack([clean[index], seen]), np.zeros((1, 0))
    full = both.astype(np.float64)
    theirs = RidgeCV(STRENGTHS)
    reference = best_of(lambda: theirs.fit(full, targets), 1)
    for paired, precision in product((True, False), PRECISIONS):
        fits: list[LinearFit] = []

        def fit() -> None:
            if paired:  # noqa: B023
                design = PairedDesign(clean, seen, index)
            else:
                design = PairedDesign(nothing, both, np.zeros(n_rows, np.intp))
            fits.append(fit_ridge(design, targets, STRENGTHS, precision=precision))  # noqa: B023

        seconds = best_of(fit, 1)
        kind = "[clean, view]" if paired else "unstructured features"
        apart = np.abs(fits[0].coefficients - theirs.coef_.T).max()
        if fits[0].strengths[0] != theirs.alpha_:
            raise ValueError(f"{kind}: another strength than scikit-learn's")
        yield Measured(
            f"ridge decoding, {kind} {full.shape[0]} × {full.shape[1]}, "
            f"{n_parameters} targets, {len(STRENGTHS)} strengths, {precision}",
            seconds,
            peer="scikit-learn RidgeCV",
            theirs=reference,
            floor=necessary(n_rows, paired, features, precision),
            of_floor="the Gram matrix, its eigenvectors and the rows along them",
            at_least=8 if paired else None,
            apart=float(apart / np.abs(theirs.coef_).max()),
            within=WITHIN,
        )


if __name__ == "__main__":
    main(rows)
