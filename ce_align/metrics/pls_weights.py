"""Weights of one PLS component, from cross-products of features and responses."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

__all__ = ["PLS_MODES", "Leading", "exact_weights", "nipals_weights"]

Array = NDArray[np.float64]
#: From `cross` and a first neuroid to weights and the number of iterations; None where
#: `cross` is zero to within rounding.
Leading = Callable[[Array, int], tuple[Array, int] | None]

#: scikit-learn's defaults, which Brain-Score leaves as they are.
MAX_ITER = 500
TOLERANCE = 1e-6


def nipals_weights(cross: Array, start: int) -> tuple[Array, int] | None:
    """Weights of neuroids where scikit-learn's power iteration stops.

    Parameters
    ----------
    cross : (n_neuroids, n_neuroids)
    start : int
        The neuroid whose response the iteration starts from.

    Returns
    -------
    weights : (n_neuroids,)
        Scaled to unit length of the feature weights that they stand for; the iteration
        compares two of those by their squared distance.
    n_iter : int
    """
    weights = np.zeros(len(cross))
    weights[start] = 1.0
    previous = image_before = weights
    for n_iter in range(1, MAX_ITER + 1):
        image = cross @ weights
        squared_length = float(weights @ image)
        if squared_length <= 0:
            return None
        scale = squared_length**-0.5
        weights, image = scale * weights, scale * image
        if len(cross) == 1 or n_iter == MAX_ITER:
            break
        if n_iter > 1 and (weights - previous) @ (image - image_before) < TOLERANCE:
            break
        previous, image_before = weights, image
        weights = image
    return weights, n_iter


def exact_weights(cross: Array, start: int) -> tuple[Array, int] | None:
    """Weights of neuroids from the dominant eigenvector, scaled like NIPALS's."""
    from scipy.linalg import eigh

    last = len(cross) - 1
    values, vectors = eigh(cross, subset_by_index=[last, last])
    if values[0] <= 0:
        return None
    return vectors[:, 0] / np.sqrt(values[0]), 1


#: Ways to find a component's weights from `cross`.
PLS_MODES: dict[str, Leading] = {"nipals": nipals_weights, "exact": exact_weights}
