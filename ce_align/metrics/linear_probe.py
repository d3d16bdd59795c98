"""Linear probes: how well a linear readout of features tells classes apart.

A probe is multinomial logistic regression with an L2 penalty. Its objective is
scikit-learn's, with strength λ = 1 / C:

    Σ_i −log p(y_i | x_i) + λ/2 ‖W‖²,   p(· | x) = softmax(xᵀW + b),

a sum over images, not a mean; the intercepts b are not penalised. L-BFGS starts from
the inverse of Σ_i w (x_i − x̄)(x_i − x̄)ᵀ + λ, which needs one eigendecomposition for
all strengths: the spread of a covariance's eigenvalues is what makes gradient methods
slow on features. Several strengths are followed at once and share every pass over the
features. Products have single precision; losses, gradients and steps are summed in
double precision.

Of each run, probes at all strengths are fitted to training images, validation images
choose one strength, and the probe of that strength is fitted again to training and
validation images together. Ties go to the strongest penalty.

Reference: Liu and Nocedal (1989), On the limited memory BFGS method.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import ConfigError, DataError
from ce_align.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    from torch import Tensor


__all__ = [
    *("STRENGTHS", "Evaluation", "LinearProbe", "ProbeProblem", "Sample"),
    *("accuracies", "evaluate_linearly", "stratified_split"),
]

FloatArray = NDArray[np.float64]

#: Strengths λ of the L2 penalty among which validation chooses.
STRENGTHS: FloatArray = np.logspace(-6, 5, 45)

#: Products have at least about so many columns, or they wait for memory.
COLUMNS = 64

#: After more passes, the metric is made anew where the search has come to.
SLOW = 20

#: Values beyond it overflow in products of single precision.
LARGEST = 1e15

#: Pairs of steps and gradients' changes that a direction is made from.
MEMORY = 80

#: Share of the decrease along the direction that a step must reach (Armijo).
SUFFICIENT = 1e-4

#: A class that is never in doubt bends nothing; its weight is kept above this.
TINY = 1e-30

#: A step that has to be shorter than this is lost in rounding.
SHORTEST = 1e-3

#: Entries of features at a time: both products of a block find it in the cache.
BLOCK_ENTRIES = 2**21

#: Smaller eigenvalues, relative to the largest, are rounding of single precision.
FLOOR = 1e-7


@dataclass(frozen=True, eq=False)
class Design:
    """Centred features on a device.

    Attributes
    ----------
    values : (n, d) float32
    labels : (n,) class of each row
    n_classes : of the labels
    """

    values: "Tensor"
    labels: "Tensor"
    n_classes: int

    def subset(self, rows: NDArray[np.intp]) -> "Design":
        """Design of some rows."""
        import torch

        chosen = torch.from_numpy(rows).to(self.values.device)
        return Design(self.values[chosen], self.labels[chosen], self.n_classes)

    def blocks(self) -> "Iterator[tuple[Tensor, Tensor]]":
        """Rows that are worked on together, and their labels."""
        n, d = self.values.shape
        on_cpu = self.values.device.type == "cpu"
        rows = max(BLOCK_ENTRIES // d, 1) if on_cpu else n
        for begin in range(0, n, rows):
            end = begin + rows
            yield self.values[begin:end], self.labels[begin:end]


@dataclass(frozen=True, eq=False)
class Metric:
    """Mean of w (x − m)(x − m)ᵀ over rows, in its eigenbasis.

    Attributes
    ----------
    eigenvalues, basis : (d,) float64 and (d, d)
    centre : (d,) float64, the weighted mean m
    """

    eigenvalues: "Tensor"
    basis: "Tensor"
    centre: "Tensor"


def weighted_metric(design: Design, point: "Tensor | None" = None) -> Metric:
    """Metric with w = 1, or with the curvature of the loss of each row at a point.

    Parameters
    ----------
    design : features and classes
    point : (d + 1, n_classes); weights are Σ p(1 − p) over classes, of mean 1
    """
    import torch

    d = design.values.shape[1]
    first = design.values.new_zeros(d, dtype=torch.float64)
    second, total = first.new_zeros(d, d), first.new_zeros(())
    for block, _ in design.blocks():
        weights = block.new_ones(len(block))
        if point is not None:
            narrow = point.to(block.dtype)
            p = torch.addmm(narrow[-1], block, narrow[:-1]).softmax(1)
            weights = (p * (1 - p)).sum(1)
        weighted = block * weights[:, None]
        second += weighted.mT @ block
        first += weighted.sum(0, dtype=torch.float64)
        total += weights.sum(dtype=torch.float64)
    centre = first / total
    covariance = second / total - torch.outer(centre, centre)
    eigenvalues, basis = torch.linalg.eigh(covariance.to(design.values.dtype))
    floor = float(FLOOR * eigenvalues[-1].clamp_min(0))
    return Metric(eigenvalues.double().clamp_min(floor), basis, centre)


def evaluate(
    design: Design, points: "Sequence[Tensor]", dtype: "torch.dtype"
) -> "tuple[list[float], Tensor, Tensor]":
    """Sum of losses and their gradients at several points, in one pass.

    Parameters
    ----------
    design : features and classes
    points : (d + 1, n_classes) each
    dtype : of the products; sums over blocks have double precision

    Returns
    -------
    losses, (n_points, d + 1, n_classes) gradients, (n_points, n_classes) sums of
    p(1 − p)
    """
    import torch

    n_points, n_classes = len(points), design.n_classes
    stacked = torch.cat(list(points), dim=1)
    weights, intercepts = stacked[:-1].to(dtype), stacked[-1].to(dtype)
    losses = stacked.new_zeros(n_points)
    gradient = torch.zeros_like(stacked)
    spread = torch.zeros_like(stacked[-1])
    for block, labels in design.blocks():
        rows = block.to(dtype)
        logits = torch.addmm(intercepts, rows, weights)
        residuals = logits.view(len(block), n_points, n_classes)
        right = labels[:, None, None].expand(-1, n_points, 1)
        losses += _softmax_residuals(residuals, right)
        gradient[:-1] += rows.mT @ logits
        gradient[-1] += logits.sum(0, dtype=torch.float64)
        spread += (logits.abs() - logits.square()).sum(0, dtype=torch.float64)
    shaped = gradient.view(-1, n_points, n_classes).permute(1, 0, 2).contiguous()
    return losses.tolist(), shaped, spread.view(n_points, n_classes)


def _softmax_residuals(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """Sum of losses at each point; `logits` become p − onehot(label).

    Parameters
    ----------
    logits : (rows, n_points, n_classes), overwritten
    labels : (rows, n_points, 1)

    Returns
    -------
    (n_points,) float64
    """
    import torch

    top = logits.amax(-1, keepdim=True)
    behind = top - logits.gather(-1, labels)
    logits.sub_(top).exp_()
    # Without the right class, so that nothing cancels where it is almost certain.
    logits.scatter_(-1, labels, 0.0)
    others = logits.sum(-1, keepdim=True)
    total = others + behind.neg().exp_()
    losses = torch.where(behind == 0, torch.log1p(others), torch.log(total) + behind)
    logits.div_(total)
    logits.scatter_(-1, labels, -others / total)
    return losses.sum((0, 2), dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class Fit:
    """Weights at one strength.

    Attributes
    ----------
    parameters : (d + 1, n_classes) float64, the last row the intercepts of centred
        features
    strength : λ
    objective : at the parameters
    gradient : largest absolute entry of the objective's gradient
    n_passes : evaluations that it took
    converged : whether the expected decrease fell below the tolerance
    """

    parameters: "Tensor"
    strength: float
    objective: float
    gradient: float
    n_passes: int
    converged: bool


def minimise(
    design: Design,
    strengths: Sequence[float],
    start: "Tensor",
    metric: Metric,
    *,
    tolerance: float,
    max_passes: int,
) -> list[Fit]:
    """Minimise the objective at several strengths at once.

    Parameters
    ----------
    design : features and classes
    strengths : λ, positive
    start : (d + 1, n_classes) parameters that all start from
    metric : what curvature is like near the start
    tolerance : stop once the next step is expected to lower the objective by less
        than this share of it
    max_passes : over the features, at most

    Returns
    -------
    One fit for each strength, in their order.
    """
    import torch

    searches = [_Search(metric, strength, start, tolerance) for strength in strengths]
    for _ in range(max_passes):
        for wide, dtype in ((False, torch.float32), (True, torch.float64)):
            active = [s for s in searches if not s.ended and s.wide == wide]
            if not active:
                continue
            trials = [search.trial for search in active]
            for search, *found in zip(
                active, *evaluate(design, trials, dtype), strict=True
            ):
                search.report(*found)
        if all(search.ended for search in searches):
            break
    return [search.fit() for search in searches]


class _Search:
    """L-BFGS at one strength: it proposes a trial and is told what is there.

    It starts in single precision and goes on in double where rounding gets in the way.
    """

    def __init__(
        self, metric: Metric, strength: float, start: "Tensor", tolerance: float
    ) -> None:
        self._metric, self._strength, self._tolerance = metric, strength, tolerance
        self.trial = start.clone()
        self.converged = self.ended = self.wide = False
        self.n_passes = 0
        self._point, self._value = self.trial, float("inf")
        self._gradient = self._direction = start.new_zeros(start.shape)
        self._scale = start.new_ones(start.shape)
        self._slope, self._step = 0.0, 1.0
        self._pairs: deque[tuple[Tensor, Tensor, float]] = deque(maxlen=MEMORY)
        self._n_small = 0

    def report(self, loss: float, gradient: "Tensor", spread: "Tensor") -> None:
        """Take what is at the trial point, without the penalty.

        Parameters
        ----------
        loss : sum over images
        gradient : (d + 1, n_classes), overwritten
        spread : (n_classes,) sum of p(1 − p) over images
        """
        self.n_passes += 1
        penalised = self.trial[:-1]
        value = loss + 0.5 * self._strength * _dot(penalised, penalised)
        gradient[:-1] += self._strength * penalised
        if self.n_passes == 1:
            self._set_scale(spread)
        enough = SUFFICIENT * self._step * self._slope
        if not value <= self._value + enough:  # it may be no number
            self._shorten(value)
            return
        moved, change = self.trial - self._point, gradient - self._gradient
        product = _dot(change, moved)
        if product > 0 and np.isfinite(self._value):
            self._pairs.append((moved, change, product))
        self._n_small = self._n_small + 1 if self._is_small(value) else 0
        self._point, self._value, self._gradient = self.trial, value, gradient
        self._turn()

    def _is_small(self, value: float) -> bool:
        return self._value - value <= self._tolerance * value

    def _set_scale(self, spread: "Tensor") -> None:
        """Inverse curvature along each axis of the metric, for each class."""
        import torch

        weight = spread.clamp_min(TINY)
        bend = self._metric.eigenvalues[:, None] * weight + self._strength
        self._scale = torch.cat([bend, weight[None]]).reciprocal()

    def _precondition(self, gradient: "Tensor") -> "Tensor":
        import torch

        basis, centre = self._metric.basis, self._metric.centre
        # Weights and intercepts are independent once features are centred.
        of_weights = gradient[:-1] - torch.outer(centre, gradient[-1])
        turned = (basis.mT @ of_weights.to(basis.dtype)).double()
        weights = (basis @ (self._scale[:-1] * turned).to(basis.dtype)).double()
        intercepts = self._scale[-1] * gradient[-1] - centre @ weights
        return torch.cat([weights, intercepts[None]])

    def _turn(self) -> None:
        """Choose the next direction and its first trial."""
        direction = self._gradient.neg()
        shares = []
        for moved, change, product in reversed(self._pairs):
            shares.append(_dot(moved, direction) / product)
            direction.sub_(change, alpha=shares[-1])
        direction = self._precondition(direction)
        if self._pairs:
            _, change, product = self._pairs[-1]
            direction *= product / _dot(change, self._precondition(change))
        for (moved, change, product), share in zip(
            self._pairs, reversed(shares), strict=True
        ):
            direction.add_(moved, alpha=share - _dot(change, direction) / product)
        slope = _dot(direction, self._gradient)
        if not slope < 0:
            self._pairs.clear()
            direction = self._precondition(self._gradient.neg())
            slope = _dot(direction, self._gradient)
        small = -0.5 * slope <= self._tolerance * self._value
        if small and (self._n_small or slope == 0):
            self.converged = self.ended = True
            return
        self._direction, self._slope, self._step = direction, slope, 1.0
        self.trial = self._point + direction

    def _shorten(self, value: float) -> None:
        """Go less far, to the minimum of the parabola through what is known."""
        step, slope = self._step, self._slope
        bend = value - self._value - step * slope
        best = -0.5 * slope * step**2 / bend if np.isfinite(bend) else 0.0
        self._step = min(max(best, 0.1 * step), 0.5 * step)
        self.trial = self._point + self._step * self._direction
        if self._step < SHORTEST:
            if self.wide:
                self.ended = True
                return
            # The same point again, in double precision.
            self.wide, self.trial = True, self._point
            self._value, self._slope = float("inf"), 0.0

    def fit(self) -> Fit:
        """Where the search stands."""
        return Fit(
            self._point,
            self._strength,
            self._value,
            float(self._gradient.abs().max()),
            self.n_passes,
            self.converged,
        )


def _dot(a: "Tensor", b: "Tensor") -> float:
    import torch

    return float(torch.dot(a.flatten(), b.flatten()))


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


@dataclass(frozen=True)
class Sample:
    """Features (n_images, n_features) and the class (n_images,) of each row."""

    features: NDArray[Any]
    labels: NDArray[np.int64]


@dataclass
class Evaluation:
    """What the runs of a linear evaluation found, one entry each.

    Attributes
    ----------
    strengths : chosen λ
    top1, mean_per_class : accuracy on test images
    error : standard error of `mean_per_class` over test images
    validation : (n_runs, n_strengths) top-1 on validation images
    n_train, n_validation : images that a path is fitted to, and that choose
    n_unconverged : fits, of all runs, that missed their tolerance
    """

    n_train: int
    n_validation: int
    n_unconverged: int = 0
    strengths: list[float] = field(default_factory=list)
    top1: list[float] = field(default_factory=list)
    mean_per_class: list[float] = field(default_factory=list)
    error: list[float] = field(default_factory=list)
    validation: list[list[float]] = field(default_factory=list)


def stratified_split(
    labels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows that are kept and rows that are split off, the same share of each class.

    Parameters
    ----------
    labels : (n,) classes
    share : to be split off, rounded, but at least one row and not all of a class; a
        class of one row keeps it
    rng : draws the rows

    Returns
    -------
    kept, split_off : ascending row numbers
    """
    drawn = []
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        n = min(max(round(share * len(rows)), 1), len(rows) - 1)
        drawn.append(rows[:n])
    split_off = np.sort(np.concatenate(drawn))
    return np.setdiff1d(np.arange(len(labels)), split_off), split_off


def evaluate_linearly(
    train: Sample,
    validation: Sample | None,
    test: Sample,
    *,
    n_classes: int,
    n_runs: int = 5,
    validation_share: float = 0.1,
    seed: int = 0,
    strengths: NDArray[np.float64] = STRENGTHS,
    device: str = "cpu",
    progress: Progress = silent,
) -> Evaluation:
    """Accuracy of linear probes over several runs.

    Runs differ in nothing but the images that choose the strength, for the fit itself
    is deterministic: the first run uses the official validation images if there are
    any, every other run draws as many of each class from training and validation images
    together. All are fitted again to the same images and judged by the same test.

    Parameters
    ----------
    train, validation, test : features and classes; validation may be None
    n_classes : of the labels
    n_runs : at least one
    validation_share : of each class, where there are no official validation images
    seed : of the draws
    strengths : (n_strengths,) λ to choose from
    device : of torch
    progress : told of fits done

    Raises
    ------
    ConfigError
        If there is no run, or the share is not between 0 and 1.
    DataError
        If features or labels do not fit, or no class has two images.
    """
    if n_runs < 1 or not 0 < validation_share < 1:
        raise ConfigError(
            "linear evaluation needs a run or more and a share between 0 and 1, found "
            f"{n_runs} and {validation_share}"
        )
    pooled = _pooled(train, validation)
    if test.features.shape[1:] != pooled.features.shape[1:]:
        raise DataError(
            f"test features have shape {test.features.shape} but those for training "
            f"{pooled.features.shape}; read the same layer"
        )
    problem = ProbeProblem(
        pooled.features, pooled.labels, n_classes=n_classes, device=device
    )
    splits = list(_splits(train, validation, n_runs, validation_share, seed))
    total = n_runs * (len(strengths) + 1)
    found = Evaluation(len(splits[0][0]), len(splits[0][1]))
    final: dict[float, LinearProbe] = {}
    for run, (rows, held_out) in enumerate(splits):
        start = run * (len(strengths) + 1)

        def show(done: int, _: int, start: int = start) -> None:
            progress("fits", start + done, total)

        path = problem.fit(strengths, rows=rows, progress=show)
        seen, wanted = pooled.features[held_out], pooled.labels[held_out]
        shares = [float((probe.classify(seen) == wanted).mean()) for probe in path]
        best = max(range(len(path)), key=lambda k: (shares[k], path[k].strength))
        strength = path[best].strength
        if strength not in final:
            final[strength] = problem.fit([strength], tolerance=1e-8)[0]
        progress("fits", start + len(strengths) + 1, total)
        judged = accuracies(final[strength].classify(test.features), test.labels)
        found.strengths.append(strength)
        found.validation.append(shares)
        found.top1.append(judged[0])
        found.mean_per_class.append(judged[1])
        found.error.append(judged[2])
        found.n_unconverged += sum(not probe.converged for probe in path)
    found.n_unconverged += sum(not probe.converged for probe in final.values())
    return found


def _pooled(train: Sample, validation: Sample | None) -> Sample:
    if validation is None:
        return train
    return Sample(
        np.concatenate([train.features, validation.features]),
        np.concatenate([train.labels, validation.labels]),
    )


def _splits(
    train: Sample, validation: Sample | None, n_runs: int, share: float, seed: int
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Rows of the pooled images to fit and to choose with, for every run."""
    n_train = len(train.labels)
    labels = train.labels
    first = 0
    if validation is not None:
        n = n_train + len(validation.labels)
        yield np.arange(n_train), np.arange(n_train, n)
        share = len(validation.labels) / n
        labels = np.concatenate([labels, validation.labels])
        first = 1
    if np.bincount(labels).max() < 2:
        raise DataError("every class has one image only; none is left to validate with")
    for run in range(first, n_runs):
        yield stratified_split(labels, share, np.random.default_rng([seed, run]))
