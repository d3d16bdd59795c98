"""Views of images: which belong to which, which are held out, and R² among them."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import DataError

__all__ = [
    *("check_varied", "check_views", "image_splits", "is_constant"),
    *("r2_effects", "r2_scores", "split_views"),
]

FloatArray = NDArray[np.float64]


def image_splits(
    n_images: int, n_splits: int, test_fraction: float, rng: np.random.Generator
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Random disjoint training and test images, once for every run.

    Parameters
    ----------
    n_images : images to split
    n_splits : runs
    test_fraction : share of the images that is held out, rounded up
    rng : random generator

    Raises
    ------
    DataError
        If either side would be empty.
    """
    n_test = int(np.ceil(n_images * test_fraction))
    if not 0 < n_test < n_images or n_splits < 1:
        raise DataError(
            f"cannot hold out a share of {test_fraction} of {n_images} images "
            f"{n_splits} times; expected a share in (0, 1) that leaves both sides some"
        )
    orders = [rng.permutation(n_images) for _ in range(n_splits)]
    return [(np.sort(order[n_test:]), np.sort(order[:n_test])) for order in orders]


def r2_scores(observed: FloatArray, predicted: FloatArray) -> FloatArray:
    """R² of every column, NaN where the observed column is constant.

    Parameters
    ----------
    observed, predicted : (n_rows, n_columns)
    """
    total = np.sum((observed - observed.mean(axis=0)) ** 2, axis=0)
    residual = np.sum((observed - predicted) ** 2, axis=0)
    defined = ~is_constant(observed)
    return 1.0 - np.divide(
        residual, total, out=np.full(len(total), np.nan), where=defined
    )


def r2_effects(
    observed: FloatArray, predicted: FloatArray, image: NDArray[np.intp], n_images: int
) -> FloatArray:
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


def check_views(clean: NDArray[Any], views: NDArray[Any], index: NDArray[Any]) -> None:
    """Check that every view belongs to an image and that responses are finite.

    Raises
    ------
    DataError
        Otherwise.
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


def check_varied(*responses: NDArray[Any]) -> None:
    """Check that responses, each (n_rows, n_features), differ by more than rounding.

    Raises
    ------
    DataError
        If all rows of all of them are alike.
    """
    first = responses[0][:1].astype(np.float64)
    step = max(
        np.finfo(x.dtype if x.dtype.kind == "f" else np.float64).eps for x in responses
    )
    away = max(float(np.abs(x - first).max()) for x in responses)
    size = max(float(np.abs(x).max()) for x in responses)
    if away <= 8 * step * size:
        raise DataError(
            "all responses are the same, whatever image is shown: the network has "
            "collapsed, so leave it out"
        )


def split_views(
    index: NDArray[Any], train_images: ArrayLike, test_images: ArrayLike, n_images: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Masks of the views of training images and of test images.

    Raises
    ------
    DataError
        If the images overlap, do not exist or have too few views.
    """
    train, test = np.unique(train_images), np.unique(test_images)
    shared = np.intersect1d(train, test)
    if shared.size:
        raise DataError(
            f"{shared.size} images are both in train_images and in test_images; hold "
            "out whole images, with all of their views"
        )
    known = np.isin(np.concatenate([train, test]), np.arange(n_images))
    if not known.all():
        raise DataError(
            f"train_images and test_images must be rows 0 … {n_images - 1} of clean; "
            f"{int((~known).sum())} are not"
        )
    masks = np.isin(index, train), np.isin(index, test)
    if min(mask.sum() for mask in masks) < 2:
        raise DataError(
            f"expected 2 views or more on both sides, found {masks[0].sum()} to train "
            f"and {masks[1].sum()} to test; name images that have views"
        )
    return masks


def is_constant(columns: FloatArray) -> NDArray[np.bool_]:
    """Whether each column (n_rows, n_columns) varies by no more than rounding."""
    span = columns.max(axis=0) - columns.min(axis=0)
    size = np.abs(columns).max(axis=0)
    return np.asarray(span <= 8 * np.finfo(np.float64).eps * size, dtype=bool)
