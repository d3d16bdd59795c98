"""Linear regression on [clean, view] features without writing the design matrix.

Row k of the design is the clean features of the image of view k beside the features of
the view itself. The clean half repeats for every view of an image, so its share of all
products is computed once an image. Features and targets are centred; one Gram matrix
(of features or of rows, whichever is smaller) and its eigendecomposition serve every
ridge strength and target. Images are held out with all of their views.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite, rounding_step
from ce_align.errors import DataError
from ce_align.metrics.gram import Array, Indices, mirror_upper

__all__ = [
    *("ROUNDING_STEPS", "LinearFit", "PairedDesign", "Precision", "check_varied"),
    *("fit_least_squares", "fit_ridge", "image_splits", "is_constant"),
    *("r2_effects", "r2_scores", "split_views"),
]

Precision = Literal["double", "single"]
Float = type[np.floating[Any]]

#: Rows that are in memory at once in double precision, beside the features themselves.
#: Of more, every product is new memory from the system, a third of the time.
BLOCK_ROWS = 512
#: Columns of predictions (strengths × targets) that are in memory at once.
BLOCK_COLUMNS = 512
#: Steps of iterative refinement that give back the digits lost by normal equations.
REFINEMENTS = 2
#: What spreads by fewer rounding steps of the responses is noise.
ROUNDING_STEPS = 8


@dataclass(frozen=True)
class LinearFit:
    """Coefficients of targets on a design.

    Attributes
    ----------
    coefficients, intercept : (n_features, n_targets) and (n_targets,)
    strengths : (n_targets,), ridge strength; zero for least squares
    loo_errors : (n_strengths, n_targets), mean squared leave-one-out error; None for
        least squares
    """

    coefficients: Array
    intercept: Array
    strengths: Array
    loo_errors: Array | None = None

    def predict(self, design: "PairedDesign") -> Array:
        """Predictions (n_rows, n_targets) for the rows of another design."""
        return design.times(self.coefficients, centred=False) + self.intercept


class PairedDesign:
    """The rows [clean[image_index[k]], views[k]], centred, as an operator.

    Parameters
    ----------
    clean : (n_images, n_clean_features); may have no features
    views : (n_rows, n_view_features)
    image_index : (n_rows,), row of `clean` that belongs to each view
    """

    def __init__(
        self, clean: NDArray[Any], views: NDArray[Any], image_index: Indices
    ) -> None:
        used, self._image = np.unique(image_index, return_inverse=True)
        self._clean = clean[used].astype(np.float64)
        self._views = views
        self._counts = np.bincount(self._image).astype(np.float64)
        self.n_rows, self.n_clean = len(views), clean.shape[1]
        self.n_features = self.n_clean + views.shape[1]
        self._step = max(rounding_step(clean), rounding_step(views))
        of_clean = self._counts @ self._clean / self.n_rows
        of_views = views.mean(axis=0, dtype=np.float64)
        self.mean = np.concatenate([of_clean, of_views])

    def rounding(self) -> float:
        """Singular value that the rounding of responses may reach.

        That of a matrix of independent entries, each `ROUNDING_STEPS` in size, such as
        float32 responses computed on another machine differ by.
        """
        views = float(np.sum(np.square(self._views, dtype=np.float64)))
        total = views + float(self._counts @ np.sum(self._clean**2, axis=1))
        size = np.sqrt(total / (self.n_rows * self.n_features))
        sides = np.sqrt(self.n_rows) + np.sqrt(self.n_features)
        return float(ROUNDING_STEPS * self._step * size * sides)

    def _centred_clean(self) -> Array:
        return np.asarray(self._clean - self.mean[: self.n_clean])

    def _blocks(self, dtype: Float = np.float64) -> Iterator[tuple[slice, Any]]:
        """Row blocks of the centred views; each takes the place of the one before."""
        mean = self.mean[self.n_clean :]
        wide = np.empty((BLOCK_ROWS, len(mean)))
        memory = wide if dtype == np.float64 else np.empty(wide.shape, dtype)
        for start in range(0, self.n_rows, BLOCK_ROWS):
            part = self._views[start : start + BLOCK_ROWS]
            block, kept = wide[: len(part)], memory[: len(part)]
            block[...] = part
            block -= mean
            if kept.dtype != block.dtype:
                kept[...] = block
            yield slice(start, start + len(part)), kept

    def gram_of_features(self, dtype: Float) -> Array:
        """XᵀX, (n_features, n_features)."""
        from scipy import sparse
        from scipy.linalg import get_blas_funcs

        syrk = get_blas_funcs("syrk", dtype=dtype)
        n, clean = self.n_clean, self._centred_clean()
        of_views = np.zeros((self.n_features - n,) * 2, dtype, order="F")
        sums = np.zeros((len(clean), self.n_features - n))
        for rows, block in self._blocks(dtype):
            syrk(1.0, block.T, beta=1.0, c=of_views, overwrite_c=True)
            image = self._image[rows]
            one = np.ones(len(image), dtype)
            adding = sparse.csr_matrix((one, (image, np.arange(len(image)))))
            sums[: adding.shape[0]] += adding @ block
        weighted = (clean * np.sqrt(self._counts)[:, None]).astype(dtype)
        gram = np.empty((self.n_features, self.n_features))
        gram[:n, :n] = weighted.T @ weighted
        gram[:n, n:] = clean.T.astype(dtype) @ sums.astype(dtype)
        gram[n:, :n] = gram[:n, n:].T
        gram[n:, n:] = mirror_upper(of_views)
        return gram

    def gram_of_rows(self, dtype: Float) -> Array:
        """XXᵀ, (n_rows, n_rows)."""
        clean = self._centred_clean().astype(dtype)
        views = (self._views - self.mean[self.n_clean :]).astype(dtype)
        gram = (clean @ clean.T)[np.ix_(self._image, self._image)]
        return np.asarray(gram + views @ views.T, dtype=np.float64)

    def products(self, matrix: Array, dtype: Float) -> Iterator[tuple[slice, Any]]:
        """Row blocks of X @ matrix; each takes the place of the one before."""
        from scipy.linalg import get_blas_funcs

        gemm = get_blas_funcs("gemm", dtype=dtype)
        factor: NDArray[Any] = matrix.astype(dtype, order="C", copy=False)
        of_clean = self._centred_clean().astype(dtype) @ factor[: self.n_clean]
        memory = np.empty((BLOCK_ROWS, matrix.shape[1]), dtype)
        for rows, block in self._blocks(dtype):
            product = memory[: len(block)]
            # "clip" writes without a copy; the transposes are in Fortran order.
            np.take(of_clean, self._image[rows], axis=0, out=product, mode="clip")
            into = {"beta": 1.0, "c": product.T, "overwrite_c": True}
            gemm(1.0, factor[self.n_clean :].T, block.T, **into)
            yield rows, product

    def times(self, matrix: Array, *, centred: bool = True) -> Array:
        """X @ matrix, (n_rows, n_columns)."""
        result = np.empty((self.n_rows, matrix.shape[1]))
        for rows, product in self.products(matrix, np.float64):
            result[rows] = product
        return result if centred else result + self.mean @ matrix

    def transposed_times(self, targets: Array, *, less: Array | None = None) -> Array:
        """Xᵀ (targets − X @ less), (n_features, n_columns), in one pass."""
        n, clean = self.n_clean, self._centred_clean()
        sums = np.zeros((len(clean), targets.shape[1]))
        result = np.zeros((self.n_features, targets.shape[1]))
        of_clean = clean @ less[:n] if less is not None else clean
        for rows, block in self._blocks():
            left, image = targets[rows], self._image[rows]
            if less is not None:
                left = left - block @ less[n:] - of_clean[image]
            np.add.at(sums, image, left)
            result[n:] += block.T @ left
        result[:n] = clean.T @ sums
        return result


def fit_least_squares(design: PairedDesign, targets: Array) -> LinearFit:
    """Least squares of minimum norm of targets (n_rows, n_targets), with intercept.

    Directions of the design whose singular value is below √(n ε) of the largest (about
    1e-6; n the smaller side of the design, ε the step of double precision) count as
    absent: normal equations cannot tell them from rounding. So do those that the
    rounding of the responses themselves may make: responses with a large mean have
    hundreds, which would be fitted as if they said something, and differ from machine
    to machine.
    """
    values, axes = _principal_axes(design, np.float64)
    keep = values > max(_cutoff(values, np.float64), design.rounding() ** 2)
    none = np.zeros(targets.shape[1])
    of_targets = design.transposed_times(targets - targets.mean(axis=0))
    return _solve(design, targets, of_targets, values[keep], axes[:, keep], none)


def fit_ridge(
    design: PairedDesign,
    targets: Array,
    strengths: Array | None = None,
    *,
    per_target: bool = False,
    precision: Precision = "double",
) -> LinearFit:
    """Ridge regression with the strength of least leave-one-out error.

    Parameters
    ----------
    design, targets : n_rows × n_features and (n_rows, n_targets)
    strengths : (n_strengths,), positive; None for 20 values from 1e-6 to 1e4 times the
        mean eigenvalue of the Gram matrix
    per_target : choose one strength for each target, not one for their mean error
    precision : ``"single"`` halves the time by forming the Gram matrix and the
        leave-one-out errors in float32; coefficients are refined in float64 either way.
        It applies where there are two rows a feature or more: with fewer, one minus the
        leverage is too small for float32

    Notes
    -----
    Errors equal those of scikit-learn's RidgeCV: residuals divided by one minus the
    leverage, which includes the intercept's 1 / n_rows.
    """
    tall = design.n_rows >= 2 * design.n_features
    dtype = np.float32 if precision == "single" and tall else np.float64
    values, axes = _principal_axes(design, dtype)
    if strengths is None:
        mean = values.sum() / min(design.n_rows, design.n_features)
        strengths = mean * np.logspace(-6, 4, 20)
    of_targets = design.transposed_times(targets - targets.mean(axis=0))
    errors = _loo_errors(design, targets, of_targets, values, axes, strengths, dtype)
    if per_target:
        chosen = strengths[errors.argmin(axis=0)]
    else:
        best = strengths[errors.mean(axis=1).argmin()]
        chosen = np.full(targets.shape[1], best)
    return _solve(design, targets, of_targets, values, axes, chosen, errors)


def _cutoff(values: Array, dtype: Float) -> float:
    return float(len(values) * np.finfo(dtype).eps * values.max(initial=0.0))


def _principal_axes(design: PairedDesign, dtype: Float) -> tuple[Array, Array]:
    """Eigenvalues of XᵀX and their axes (n_features, n_axes)."""
    from scipy import linalg

    if design.n_rows >= design.n_features:
        gram = design.gram_of_features(dtype)
        values, axes = linalg.eigh(gram, overwrite_a=True, driver="evd")
        return values.clip(min=0.0), axes
    gram = design.gram_of_rows(dtype)
    values, rows = linalg.eigh(gram, overwrite_a=True, driver="evd")
    keep = values > _cutoff(values, dtype)
    axes = design.transposed_times(rows[:, keep]) / np.sqrt(values[keep])
    return values[keep], axes


def _loo_errors(
    design: PairedDesign,
    targets: Array,
    of_targets: Array,
    values: Array,
    axes: Array,
    strengths: Array,
    dtype: Float,
) -> Array:
    """Mean squared leave-one-out errors, (n_strengths, n_targets)."""
    centred = targets - targets.mean(axis=0)
    shrink = 1.0 / (values[:, None] + strengths)
    along = (axes.T @ of_targets)[:, None, :]
    kept = np.empty((design.n_rows, len(strengths)))
    narrow = shrink.astype(dtype)
    for rows, scores in design.products(axes, dtype):
        kept[rows] = 1.0 - 1.0 / design.n_rows - np.square(scores, out=scores) @ narrow
    n_targets = targets.shape[1]
    step = max(1, BLOCK_COLUMNS // n_targets)
    errors = np.zeros((len(strengths), n_targets))
    for first in range(0, len(strengths), step):
        group = slice(first, first + step)
        weights = shrink[:, group, None] * along
        coefficients = axes @ weights.reshape(len(values), -1)
        for rows, product in design.products(coefficients, dtype):
            predicted = product.reshape(len(product), -1, n_targets)
            residual = (centred[rows, None, :] - predicted) / kept[rows, group, None]
            errors[group] += np.einsum("rst,rst->st", residual, residual)
    return errors / design.n_rows


def _solve(
    design: PairedDesign,
    targets: Array,
    of_targets: Array,
    values: Array,
    axes: Array,
    strengths: Array,
    loo_errors: Array | None = None,
) -> LinearFit:
    """Coefficients for one strength a target, refined against the rows themselves."""
    mean = targets.mean(axis=0)
    centred = targets - mean
    shrink = 1.0 / (values[:, None] + strengths)
    coefficients = np.zeros((design.n_features, targets.shape[1]))
    for step in range(1 + REFINEMENTS):
        gradient = of_targets
        if step:
            gradient = design.transposed_times(centred, less=coefficients)
        gradient = gradient - strengths * coefficients
        coefficients += axes @ (shrink * (axes.T @ gradient))
    intercept = mean - design.mean @ coefficients
    return LinearFit(coefficients, intercept, strengths, loo_errors)


def image_splits(
    n_images: int, n_splits: int, test_fraction: float, rng: np.random.Generator
) -> list[tuple[Indices, Indices]]:
    """Random disjoint training and test images, once for every run.

    The share held out is rounded up; raises DataError if either side would be empty.
    """
    n_test = int(np.ceil(n_images * test_fraction))
    if not 0 < n_test < n_images or n_splits < 1:
        raise DataError(
            f"cannot hold out a share of {test_fraction} of {n_images} images "
            f"{n_splits} times; expected a share in (0, 1) that leaves both sides some"
        )
    orders = [rng.permutation(n_images) for _ in range(n_splits)]
    return [(np.sort(order[n_test:]), np.sort(order[:n_test])) for order in orders]


def split_views(
    clean: NDArray[Any],
    views: NDArray[Any],
    index: NDArray[Any],
    train_images: ArrayLike,
    test_images: ArrayLike,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks (n_views,) of the views of training images and of test images.

    Raises DataError if responses are not finite, a view belongs to no image, or images
    overlap, do not exist or have too few views.
    """
    if clean.ndim != 2 or views.ndim != 2 or clean.shape[1] != views.shape[1]:
        raise DataError(
            "clean and views must be matrices with the same features, found "
            f"{clean.shape} and {views.shape}; read both from one layer"
        )
    if index.shape != (len(views),) or index.dtype.kind not in "iu":
        raise DataError(
            f"image_index must be {len(views)} integers, one a view, found "
            f"{index.dtype} {index.shape}"
        )
    if len(index) and (index.min() < 0 or index.max() >= len(clean)):
        raise DataError(
            f"image_index must lie in 0 … {len(clean) - 1}, the rows of clean, found "
            f"{index.min()} … {index.max()}"
        )
    check_finite(clean, "clean")
    check_finite(views, "views")
    train, test = np.unique(train_images), np.unique(test_images)
    shared = np.intersect1d(train, test)
    if shared.size:
        raise DataError(
            f"{shared.size} images are both in train_images and in test_images; hold "
            "out whole images, with all of their views"
        )
    known = np.isin(np.concatenate([train, test]), np.arange(len(clean)))
    if not known.all():
        raise DataError(
            f"train_images and test_images must be rows 0 … {len(clean) - 1} of clean; "
            f"{int((~known).sum())} are not"
        )
    masks = np.isin(index, train), np.isin(index, test)
    if min(mask.sum() for mask in masks) < 2:
        raise DataError(
            f"expected 2 views or more on both sides, found {masks[0].sum()} to train "
            f"and {masks[1].sum()} to test; name images that have views"
        )
    return masks


def check_varied(*responses: NDArray[Any]) -> None:
    """Raise DataError if all rows of all responses (n_rows, n_features) are alike."""
    first = responses[0][:1].astype(np.float64)
    step = max(rounding_step(x) for x in responses)
    away = max(float(np.abs(x - first).max()) for x in responses)
    size = max(float(np.abs(x).max()) for x in responses)
    if away <= ROUNDING_STEPS * step * size:
        raise DataError(
            "all responses are the same, whatever image is shown: the network has "
            "collapsed, so leave it out"
        )


def is_constant(columns: Array) -> NDArray[np.bool_]:
    """Whether each column (n_rows, n_columns) varies by no more than rounding."""
    span = columns.max(axis=0) - columns.min(axis=0)
    size = np.abs(columns).max(axis=0)
    return np.asarray(span <= ROUNDING_STEPS * rounding_step(columns) * size, bool)


def r2_scores(observed: Array, predicted: Array) -> Array:
    """R² of every column (n_rows, n_columns), NaN where the observed is constant."""
    total = np.sum((observed - observed.mean(axis=0)) ** 2, axis=0)
    residual = np.sum((observed - predicted) ** 2, axis=0)
    undefined = np.full(len(total), np.nan)
    return 1.0 - np.divide(residual, total, out=undefined, where=~is_constant(observed))


def r2_effects(
    observed: Array, predicted: Array, image: Indices, n_images: int
) -> Array:
    """What each image adds to R² of every column by its share of the rows.

    Parameters
    ----------
    observed, predicted : (n_rows, n_columns)
    image : (n_rows,), image of each row
    n_images : of all, those without rows included

    Returns
    -------
    (n_images, n_columns)
        Sums to zero; its sum of squares is the variance of R², to first order, where
        rows come image by image from a population of images and the prediction stays
        as it is. NaN where the observed column is constant.
    """
    spread = (observed - observed.mean(axis=0)) ** 2
    total = spread.sum(axis=0)
    lost = 1.0 - r2_scores(observed, predicted)
    excess = (observed - predicted) ** 2 - lost * spread
    sums = np.zeros((n_images, observed.shape[1]))
    np.add.at(sums, image, excess)
    n = len(np.unique(image))
    scale = np.sqrt(n / max(n - 1, 1))
    defined = np.isfinite(lost)
    found = np.full_like(sums, np.nan)
    found[:, defined] = -scale * sums[:, defined] / total[defined]
    return found
