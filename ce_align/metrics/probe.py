"""Linear probes of features: how well classes are told apart by a linear readout."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import ConfigError, DataError

if TYPE_CHECKING:
    from ce_align.metrics.softmax_regression import Fit

__all__ = ["STRENGTHS", "LinearProbe", "ProbeProblem", "accuracies"]

FloatArray = NDArray[np.float64]

#: Strengths λ of the L2 penalty among which validation chooses.
STRENGTHS: FloatArray = np.logspace(-6, 5, 45)

#: Products have at least about so many columns, or they wait for memory.
COLUMNS = 64

#: After more passes, the metric is made anew where the search has come to.
SLOW = 20

#: Values beyond it overflow in products of single precision.
LARGEST = 1e15


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Multinomial logistic regression on features.

    Attributes
    ----------
    weights : (n_features, n_classes)
    intercepts : (n_classes,)
    strength : λ of the L2 penalty; scikit-learn's C is its inverse
    objective : Σ −log p(y | x) + λ/2 ‖weights‖² over the images it was fitted to
    gradient : largest absolute entry of the objective's gradient
    n_passes : over the features that it took
    converged : whether the tolerance was met
    """

    weights: FloatArray
    intercepts: FloatArray
    strength: float
    objective: float
    gradient: float
    n_passes: int
    converged: bool

    def classify(self, features: NDArray[Any]) -> NDArray[np.intp]:
        """Most probable class (n,) of features (n, n_features)."""
        outputs = features @ self.weights.astype(features.dtype)
        found: NDArray[np.intp] = (outputs + self.intercepts).argmax(axis=1)
        return found


class ProbeProblem:
    """Features and their classes on a device, to be fitted at many strengths.

    Features are neither standardised nor scaled to unit length; centring, which is
    done for accuracy, does not move the optimum, for intercepts are not penalised.

    Parameters
    ----------
    features : (n_images, n_features), finite
    labels : (n_images,) classes, numbers from 0
    n_classes : of the labels; None counts up to the largest
    device : of torch, such as ``cpu`` or ``cuda``

    Raises
    ------
    DataError
        If shapes do not agree, values are not finite or above 1e15, or there are fewer
        than two classes.
    """

    def __init__(
        self,
        features: NDArray[Any],
        labels: ArrayLike,
        *,
        n_classes: int | None = None,
        device: str = "cpu",
    ) -> None:
        import torch

        from ce_align.metrics.softmax_loss import Design, weighted_metric

        classes = _checked_labels(labels, features, n_classes)
        self._mean = features.mean(axis=0, dtype=np.float64)
        values = np.subtract(
            features, self._mean, dtype=np.float32, casting="same_kind"
        )
        self._design = Design(
            torch.from_numpy(values).to(device),
            torch.from_numpy(classes).to(device),
            n_classes or int(classes.max()) + 1,
        )
        self._metric = weighted_metric(self._design)

    def fit(
        self,
        strengths: ArrayLike = STRENGTHS,
        *,
        rows: NDArray[np.intp] | None = None,
        tolerance: float = 1e-7,
        max_passes: int = 1000,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[LinearProbe]:
        """Probes at several strengths, from the strongest on, each warm-started.

        Parameters
        ----------
        strengths : (n_strengths,) λ, positive
        rows : images to fit to; None for all
        tolerance : a search ends when the next step is expected to lower the objective
            by less than this share of it, and the last one did
        max_passes : over the features for one strength, at most
        progress : told of strengths done, and of all

        Returns
        -------
        Probes in the order of `strengths`.

        Raises
        ------
        ConfigError
            If a strength is not positive.
        """
        import torch

        from ce_align.metrics.softmax_loss import weighted_metric
        from ce_align.metrics.softmax_regression import minimise

        values = np.atleast_1d(np.asarray(strengths, dtype=np.float64))
        if values.ndim != 1 or not values.size or not (values > 0).all():
            raise ConfigError(f"strengths must be positive, found {strengths!r}")
        design = self._design if rows is None else self._design.subset(rows)
        order = np.argsort(-values)
        at_once = min(max(COLUMNS // design.n_classes, 1), len(order))
        start = torch.zeros(
            (design.values.shape[1] + 1, design.n_classes),
            dtype=torch.float64,
            device=design.values.device,
        )
        metric = self._metric
        probes: dict[int, LinearProbe] = {}
        for first in range(0, len(order), at_once):
            chosen = order[first : first + at_once].tolist()
            fits = minimise(
                design,
                [float(values[k]) for k in chosen],
                start,
                metric,
                tolerance=tolerance,
                max_passes=max_passes,
            )
            start = fits[-1].parameters
            if max(fit.n_passes for fit in fits) > SLOW:
                metric = weighted_metric(design, start)
            probes |= dict(zip(chosen, map(self._probe, fits), strict=True))
            if progress is not None:
                progress(len(probes), len(order))
        return [probes[k] for k in range(len(order))]

    def _probe(self, fit: "Fit") -> LinearProbe:
        parameters = fit.parameters.cpu().numpy()
        weights = parameters[:-1]
        return LinearProbe(
            weights,
            parameters[-1] - self._mean @ weights,
            fit.strength,
            fit.objective,
            fit.gradient,
            fit.n_passes,
            fit.converged,
        )


def accuracies(
    found: NDArray[np.intp], labels: NDArray[Any]
) -> tuple[float, float, float]:
    """Share of images named rightly, its mean over classes, and the latter's error.

    Parameters
    ----------
    found, labels : (n,) classes

    Returns
    -------
    top1, mean_per_class, error
        `error` is the standard error of `mean_per_class` from drawing other test images
        of the same classes; that of `top1` is √(top1 (1 − top1) / n).
    """
    hits = (found == labels).astype(np.float64)
    _, inverse, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = np.bincount(inverse, weights=hits) / counts
    error = float(np.sqrt((shares * (1 - shares) / counts).sum()) / len(counts))
    return float(hits.mean()), float(shares.mean()), error


def _checked_labels(
    labels: ArrayLike, features: NDArray[Any], n_classes: int | None
) -> NDArray[np.int64]:
    classes = np.asarray(labels)
    if features.ndim != 2 or classes.shape != features.shape[:1] or not features.size:
        raise DataError(
            f"features {features.shape} and labels {classes.shape} do not agree; "
            "expected (n_images, n_features) and (n_images,)"
        )
    if classes.dtype.kind not in "iu" or classes.min() < 0:
        raise DataError("labels must be numbers of classes, from 0")
    n_known = n_classes or int(classes.max()) + 1
    if n_known < 2 or classes.max() >= n_known:
        raise DataError(
            f"labels reach {classes.max()} with {n_known} classes; a probe needs two "
            "classes or more, numbered from 0"
        )
    check_finite(features, "features")
    largest = float(np.abs(features).max())
    if largest > LARGEST:
        raise DataError(f"features reach {largest:.1e}; scale them below {LARGEST:.0e}")
    return classes.astype(np.int64)
