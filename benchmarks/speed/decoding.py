"""Ridge decoding of 12 augmentation parameters, leave-one-out over 20 strengths.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.decoding``. 50 views of each of
1000 images, 1024 clean and 1024 view features: a design of 50,000 × 2048, which
scikit-learn needs in full. The last rows repeat the fit on 2048 features without
structure, where no image repeats.
"""

from itertools import product

import numpy as np

from benchmarks.speed._measure import Measured, Rows, best_of, main
from ce_align.metrics.paired_design import LinearFit, PairedDesign, Precision, fit_ridge

STRENGTHS = np.logspace(-2, 6, 20)
PRECISIONS: tuple[Precision, ...] = ("double", "single")
#: Largest difference of coefficients, relative to the largest coefficient.
WITHIN = 1e-6


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
            at_least=8 if paired else None,
            apart=float(apart / np.abs(theirs.coef_).max()),
            within=WITHIN,
        )


if __name__ == "__main__":
    main(rows)
