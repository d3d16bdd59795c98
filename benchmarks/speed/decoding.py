"""Ridge decoding of 12 augmentation parameters, leave-one-out over 20 strengths.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.decoding``. 50 views of each of
1000 images, 1024 clean and 1024 view features: a design of 50,000 × 2048, which
scikit-learn needs in full. The last rows repeat the fit on 2048 features without
structure, where no image repeats.
"""

import numpy as np

from benchmarks.speed._machine import best_of, describe
from ce_align.metrics.paired_design import LinearFit, PairedDesign, Precision, fit_ridge

N_IMAGES, N_VIEWS, N_FEATURES, N_PARAMETERS = 1000, 50, 1024, 12
STRENGTHS = np.logspace(-2, 6, 20)
PRECISIONS: tuple[Precision, ...] = ("double", "single")


def main() -> None:
    """Measure, and print one line for each route."""
    from sklearn.linear_model import RidgeCV

    rng = np.random.default_rng(0)
    n_rows = N_IMAGES * N_VIEWS
    clean = rng.standard_normal((N_IMAGES, N_FEATURES))
    index = np.repeat(np.arange(N_IMAGES), N_VIEWS)
    targets = rng.standard_normal((n_rows, N_PARAMETERS))
    readout = rng.standard_normal((N_PARAMETERS, N_FEATURES))
    views = clean[index] + targets @ readout
    views += 20 * rng.standard_normal(views.shape)
    # Networks return single precision; scikit-learn's errors need double.
    clean, views = clean.astype(np.float32), views.astype(np.float32)
    rows, nothing = np.hstack([clean[index], views]), np.zeros((1, 0))
    full = rows.astype(np.float64)

    def ours(paired: bool, precision: Precision) -> tuple[float, LinearFit]:
        fits: list[LinearFit] = []

        def fit() -> None:
            if paired:
                design = PairedDesign(clean, views, index)
            else:
                design = PairedDesign(nothing, rows, np.zeros(n_rows, np.intp))
            fits.append(fit_ridge(design, targets, STRENGTHS, precision=precision))

        return best_of(fit, 1), fits[0]

    theirs = RidgeCV(STRENGTHS)
    reference = best_of(lambda: theirs.fit(full, targets), 1)
    print(describe())
    print(f"{full.shape} design, {N_PARAMETERS} targets, {len(STRENGTHS)} strengths")
    print(f"scikit-learn RidgeCV       {reference:7.1f} s")
    for paired in (True, False):
        for precision in PRECISIONS:
            seconds, fit = ours(paired, precision)
            apart = np.abs(fit.coefficients - theirs.coef_.T).max()
            same = "same" if fit.strengths[0] == theirs.alpha_ else "another"
            print(
                f"{'clean | view' if paired else 'unstructured'} {precision:6s}        "
                f"{seconds:7.1f} s   {reference / seconds:.1f}×   {same} strength, "
                f"coefficients within {apart:.0e}"
            )


if __name__ == "__main__":
    main()
