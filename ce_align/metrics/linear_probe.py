"""Linear probes: how well a linear readout of features tells classes apart.

A probe is multinomial logistic regression with an L2 penalty. Its objective is
scikit-learn's, with strength λ = 1 / C:

    Σ_i −log p(y_i | x_i) + λ/2 ‖W‖²,   p(· | x) = softmax(xᵀW + b),

a sum over images, not a mean; the intercepts b are not penalised. L-BFGS starts from
the inverse of Σ_i w (x_i − x̄)(x_i − x̄)ᵀ + λ, which needs one eigendecomposition for
all strengths: the spread of a covariance's eigenvalues is what makes gradient methods
slow on features. A search starts where the minima of the two stronger penalties lead to
and with the curvature that was met on the way, from which the other penalty differs by
a multiple of the identity. Products and directions have single precision; losses,
gradients and steps are summed in double precision.

Reference: Liu and Nocedal (1989), On the limited memory BFGS method.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import Array, Indices

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["STRENGTHS", "LinearProbe", "ProbeProblem"]

#: Strengths λ of the L2 penalty among which validation chooses.
STRENGTHS: Array = np.logspace(-6, 5, 45)
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
#: Features of fewer entries are worked on by one thread: a pass over them ends before
#: several have met.
SMALL = 2**20
#: Ratio of penalties beyond which single precision loses what does not depend on them.
FAR = 1e3
#: Smaller eigenvalues, relative to the largest, are rounding of single precision.
FLOOR = 1e-7


@dataclass(frozen=True, eq=False)
class _Design:
    """Centred features (n, d) float32 on a device, and the class of each row."""

    values: "Tensor"
    labels: "Tensor"
    n_classes: int

    def subset(self, rows: Indices) -> "_Design":
        """Design of some rows."""
        return _Design(self.values[rows], self.labels[rows], self.n_classes)

    def blocks(self) -> "Iterator[tuple[Tensor, Tensor]]":
        """Rows that are worked on together, and their labels."""
        n, d = self.values.shape
        on_cpu = self.values.device.type == "cpu"
        rows = max(BLOCK_ENTRIES // d, 1) if on_cpu else n
        for begin in range(0, n, rows):
            end = begin + rows
            yield self.values[begin:end], self.labels[begin:end]


@dataclass(frozen=True, eq=False)
class _Metric:
    """Mean of w (x − m)(x − m)ᵀ over rows in its eigenbasis, around the mean m."""

    eigenvalues: "Tensor"
    basis: "Tensor"
    centre: "Tensor"


def _weighted_metric(design: _Design, point: "Tensor | None" = None) -> _Metric:
    """Metric with w = 1, or with Σ p(1 − p), how a row's loss curves at a point."""
    import torch

    d = design.values.shape[1]
    first = design.values.new_zeros(d, dtype=torch.float64)
    second, total = first.new_zeros(d, d), first.new_zeros(())
    for block, _ in design.blocks():
        weights = block.new_ones(len(block))
        if point is not None:
            narrow = point.to(block.dtype)
            p = torch.addmm(narrow[-1:].mT, narrow[:-1].mT, block.mT).softmax(0)
            weights = (p * (1 - p)).sum(0)
        weighted = block * weights[:, None]
        second += weighted.mT @ block
        first += weighted.sum(0, dtype=torch.float64)
        total += weights.sum(dtype=torch.float64)
    centre = first / total
    covariance = second / total - centre.outer(centre)
    eigenvalues, basis = torch.linalg.eigh(covariance.to(design.values.dtype))
    floor = float(FLOOR * eigenvalues[-1].clamp_min(0))
    return _Metric(eigenvalues.double().clamp_min(floor), basis, centre)


def _losses(
    design: _Design, point: "Tensor", dtype: "torch.dtype"
) -> "tuple[float, Tensor, Tensor]":
    """Sum of losses at a point (d + 1, n_classes), its gradient, and Σ p(1 − p).

    Products have `dtype`, sums over blocks double precision.
    """
    import torch

    # Few rows times a matrix; a matrix times few columns takes four times as long.
    rows = point.mT.contiguous()
    weights, intercepts = rows[:, :-1].to(dtype), rows[:, -1:].to(dtype)
    loss, gradient = rows.new_zeros(()), torch.zeros_like(rows)
    spread = torch.zeros_like(rows[:, -1])
    for block, labels in design.blocks():
        values = block.to(dtype)
        logits = torch.addmm(intercepts, weights, values.mT)
        loss += _softmax_residuals(logits, labels[None])
        gradient[:, :-1] += logits @ values
        gradient[:, -1] += logits.sum(1, dtype=torch.float64)
        spread += (logits.abs() - logits.square()).sum(1, dtype=torch.float64)
    return float(loss), gradient.mT.contiguous(), spread


def _softmax_residuals(logits: "Tensor", labels: "Tensor") -> "Tensor":
    """Sum of losses; logits (n_classes, n) become p − y for labels (1, n)."""
    import torch

    top = logits.amax(0, keepdim=True)
    behind = top - logits.gather(0, labels)
    logits.sub_(top).exp_()
    # Without the right class, so that nothing cancels where it is almost certain.
    logits.scatter_(0, labels, 0.0)
    others = logits.sum(0, keepdim=True)
    total = others + behind.neg().exp_()
    losses = others.log1p().where(behind == 0, total.log() + behind)
    logits.div_(total)
    logits.scatter_(0, labels, -others / total)
    return losses.sum(dtype=torch.float64)


class _Pairs:
    """The last steps of a search, and how each changed the gradient.

    Those of a vector with all of them are one product, and the recursion of L-BFGS is a
    triangular system of their products with one another.
    """

    def __init__(self, like: "Tensor", strength: float) -> None:
        self._shape = like.shape
        self._strength = strength
        # Single precision, as the metric's: a direction need not be exact.
        self._steps = like.new_zeros(0, like.numel()).float()
        self._changes = self._steps
        self._products = np.zeros((0, 0))
        self._n_made = 0

    def __len__(self) -> int:
        return min(self._n_made, MEMORY)

    def _order(self) -> Indices:
        """Rows from the oldest to the newest."""
        return (np.arange(len(self)) + max(self._n_made - MEMORY, 0)) % MEMORY

    def add(self, step: "Tensor", change: "Tensor") -> None:
        """Take a pair in place of the oldest, once there are `MEMORY`."""
        import torch

        n, place = len(self), self._n_made % MEMORY
        if n == len(self._steps) < MEMORY:  # twice as many, for few need all
            more = min(max(n, 4), MEMORY - n)
            wide = self._steps.new_zeros(more, self._steps.shape[1])
            self._steps = torch.cat([self._steps, wide])
            self._changes = torch.cat([self._changes, wide])
            self._products = np.pad(self._products, (0, more))
        self._steps[place], self._changes[place] = step.flatten(), change.flatten()
        self._n_made += 1
        n = len(self)
        self._products[:n, place] = (self._steps[:n] @ self._changes[place]).cpu()

    def move(self, strength: float) -> None:
        """Take another penalty; of a far stronger one, rounding is left."""
        if self._strength > FAR * strength:
            self._n_made = 0
        more, self._strength = strength - self._strength, strength
        n_weights = (self._shape[0] - 1) * self._shape[1]
        self._changes[:, :n_weights].add_(self._steps[:, :n_weights], alpha=more)
        self._products = (self._steps @ self._changes.mT).double().cpu().numpy()

    def direction(
        self, gradient: "Tensor", precondition: "Callable[[Tensor], Tensor]"
    ) -> "Tensor":
        """Towards the minimum, from a gradient."""
        import torch
        from scipy.linalg import blas

        order, n = self._order(), len(self)
        if not n:
            return -precondition(gradient[None].float())[0].to(gradient.dtype)
        steps, changes = self._steps[:n], self._changes[:n]
        upper = np.asfortranarray(self._products[np.ix_(order, order)])
        flat = gradient.flatten().float()

        def times(matrix: "Tensor", vector: "Tensor") -> Array:
            return (matrix @ vector).cpu().numpy()[order].astype(np.float64)

        def combined(matrix: "Tensor", weights: Array) -> "Tensor":
            placed = np.empty(n, np.float32)
            placed[order] = weights
            return matrix.mT @ torch.from_numpy(placed).to(matrix.device)

        shares = blas.dtrsv(upper, times(steps, flat))
        left = flat - combined(changes, shares)
        last = changes[order[-1]]
        both = precondition(torch.stack([left, last]).view(2, *self._shape))
        turned, of_last = both.view(2, -1)
        turned *= float(upper[-1, -1]) / _dot(last, of_last)
        lacking = upper.diagonal() * shares - times(changes, turned)
        shares = blas.dtrsv(upper, lacking, trans=1)
        direction: Tensor = turned + combined(steps, shares)
        return -direction.view(self._shape).to(gradient.dtype)


class _Search:
    """L-BFGS at one strength: it proposes a trial and is told what is there.

    It starts in single precision and goes on in double where rounding gets in the way.
    """

    def __init__(
        self,
        metric: _Metric,
        strength: float,
        start: "Tensor",
        tolerance: float,
        pairs: _Pairs,
    ) -> None:
        self._metric, self.strength, self._tolerance = metric, strength, tolerance
        self.trial = start.clone()
        self.converged = self.ended = self.wide = False
        self.n_passes = 0
        self.point, self.value = self.trial, float("inf")
        self.gradient = self._direction = start.new_zeros(start.shape)
        self._scale = start.new_ones(start.shape).float()
        self._slope, self._step = 0.0, 1.0
        self.pairs = pairs
        pairs.move(strength)
        self._n_small = 0

    def report(self, loss: float, gradient: "Tensor", spread: "Tensor") -> None:
        """Take what `_losses` finds at the trial; the gradient is overwritten."""
        import torch

        self.n_passes += 1
        penalised = self.trial[:-1]
        value = loss + 0.5 * self.strength * _dot(penalised, penalised)
        gradient[:-1] += self.strength * penalised
        if self.n_passes == 1:
            # Inverse curvature along each axis of the metric, for each class.
            weight = spread.clamp_min(TINY)
            bend = self._metric.eigenvalues[:, None] * weight + self.strength
            self._scale = torch.cat([bend, weight[None]]).reciprocal().float()
        enough = SUFFICIENT * self._step * self._slope
        if not value <= self.value + enough:  # it may be no number
            self._shorten(value)
            return
        moved, change = self.trial - self.point, gradient - self.gradient
        if np.isfinite(self.value) and _dot(change, moved) > 0:
            self.pairs.add(moved, change)
        small = self.value - value <= self._tolerance * value
        self._n_small = self._n_small + 1 if small else 0
        self.point, self.value, self.gradient = self.trial, value, gradient
        self._turn()

    def _precondition(self, gradients: "Tensor") -> "Tensor":
        """The metric's inverse times gradients, (n, d + 1, n_classes)."""
        import torch

        basis = self._metric.basis
        centre = self._metric.centre.to(basis.dtype)
        # Weights and intercepts are independent once features are centred.
        of_intercepts = gradients[:, -1:]
        of_weights = gradients[:, :-1] - centre[:, None] * of_intercepts
        # Few rows times a matrix; a matrix times few columns takes four times as long.
        turned = of_weights.mT.contiguous() @ basis
        turned *= self._scale[:-1].mT
        weights = (turned @ basis.mT).mT
        intercepts = self._scale[-1] * of_intercepts - (centre @ weights)[:, None]
        return torch.cat([weights, intercepts], dim=1)

    def _turn(self) -> None:
        """Choose the next direction and its first trial."""
        direction = self.pairs.direction(self.gradient, self._precondition)
        slope = _dot(direction, self.gradient)
        if not slope < 0:
            self.pairs = _Pairs(direction, self.strength)
            direction = self.pairs.direction(self.gradient, self._precondition)
            slope = _dot(direction, self.gradient)
        small = -0.5 * slope <= self._tolerance * self.value
        if small and (self._n_small or slope == 0):
            self.converged = self.ended = True
            return
        self._direction, self._slope, self._step = direction, slope, 1.0
        self.trial = self.point + direction

    def _shorten(self, value: float) -> None:
        """Go less far, to the minimum of the parabola through what is known."""
        step, slope = self._step, self._slope
        bend = value - self.value - step * slope
        best = -0.5 * slope * step**2 / bend if np.isfinite(bend) else 0.0
        self._step = min(max(best, 0.1 * step), 0.5 * step)
        self.trial = self.point + self._step * self._direction
        if self._step >= SHORTEST:
            return
        if self.wide:
            self.ended = True
            return
        # The same point again, in double precision.
        self.wide, self.trial = True, self.point
        self.value, self._slope = float("inf"), 0.0


def _ahead(path: Sequence[_Search], strength: float) -> "Tensor":
    """Where the minimum at a strength is if it goes on from the last two as it went.

    That is nearly a straight line in the logarithm of the strength; nobody knows what
    comes beyond as far again.
    """
    last = path[-1]
    if len(path) < 2 or path[-2].strength == last.strength:
        return last.point
    way = np.log(strength / last.strength) / np.log(last.strength / path[-2].strength)
    return last.point + min(float(way), 1.0) * (last.point - path[-2].point)


def _dot(a: "Tensor", b: "Tensor") -> float:
    return float(a.flatten().dot(b.flatten()))


@contextmanager
def _as_many_threads_as_help(design: _Design) -> Iterator[None]:
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(1 if design.values.numel() < SMALL else n_threads)
    try:
        yield
    finally:
        torch.set_num_threads(n_threads)


def _minimise(design: _Design, search: _Search, max_passes: int) -> None:
    """Follow a search to its end, or for some passes over the features."""
    import torch

    while not search.ended and search.n_passes < max_passes:
        dtype = torch.float64 if search.wide else torch.float32
        search.report(*_losses(design, search.trial, dtype))


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Multinomial logistic regression on features.

    Attributes
    ----------
    weights, intercepts : (n_features, n_classes) and (n_classes,)
    strength : λ of the L2 penalty; scikit-learn's C is its inverse
    objective : Σ −log p(y | x) + λ/2 ‖weights‖² over the images it was fitted to
    gradient : largest absolute entry of the objective's gradient
    n_passes : over the features that it took
    converged : whether the expected decrease fell below the tolerance
    """

    weights: Array
    intercepts: Array
    strength: float
    objective: float
    gradient: float
    n_passes: int
    converged: bool

    def classify(self, features: NDArray[Any]) -> Indices:
        """Most probable class (n,) of features (n, n_features)."""
        outputs = features @ self.weights.astype(features.dtype)
        found: Indices = (outputs + self.intercepts).argmax(axis=1)
        return found


class ProbeProblem:
    """Features and their classes on a device, to be fitted at many strengths.

    Features are centred for accuracy, which does not move the optimum, for intercepts
    are not penalised; they are neither standardised nor scaled to unit length.

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

        classes, n_known = _checked_labels(labels, features, n_classes)
        self._mean = features.mean(axis=0, dtype=np.float64)
        values = np.subtract(features, self._mean, dtype=np.float32)
        self._design = _Design(
            torch.from_numpy(values).to(device),
            torch.from_numpy(classes).to(device),
            n_known,
        )
        self._metric = _weighted_metric(self._design)

    def fit(
        self,
        strengths: ArrayLike = STRENGTHS,
        *,
        rows: Indices | None = None,
        tolerance: float = 1e-7,
        max_passes: int = 1000,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[LinearProbe]:
        """Probes at several strengths, from the strongest on, each warm-started.

        Parameters
        ----------
        strengths : (n_strengths,) λ, positive; probes come in their order
        rows : images to fit to; None for all
        tolerance : a search ends when the next step is expected to lower the objective
            by less than this share of it, and the last one did
        max_passes : over the features for one strength, at most
        progress : told of strengths done, and of all

        Raises
        ------
        ConfigError
            If a strength is not positive.
        """
        values = np.atleast_1d(np.asarray(strengths, dtype=np.float64))
        if values.ndim != 1 or not values.size or not (values > 0).all():
            raise ConfigError(f"strengths must be positive, found {strengths!r}")
        design = self._design if rows is None else self._design.subset(rows)
        order = np.argsort(-values)
        metric = self._metric
        start = metric.centre.new_zeros(len(metric.centre) + 1, design.n_classes)
        pairs = _Pairs(start, float(values[order[0]]))
        path: list[_Search] = []
        probes: dict[int, LinearProbe] = {}
        for place in order.tolist():
            strength = float(values[place])
            start = _ahead(path, strength) if path else start
            search = _Search(metric, strength, start, tolerance, pairs)
            with _as_many_threads_as_help(design):
                _minimise(design, search, max_passes)
                if search.n_passes > SLOW:
                    metric = _weighted_metric(design, search.point)
            path, pairs = [*path[-1:], search], search.pairs
            probes[place] = self._probe(search)
            if progress is not None:
                progress(len(probes), len(order))
        return [probes[k] for k in range(len(order))]

    def _probe(self, search: _Search) -> LinearProbe:
        parameters = search.point.cpu().numpy()
        weights, intercepts = parameters[:-1], parameters[-1]
        return LinearProbe(
            weights,
            intercepts - self._mean @ weights,
            strength=search.strength,
            objective=search.value,
            gradient=float(search.gradient.abs().max()),
            n_passes=search.n_passes,
            converged=search.converged,
        )


def _checked_labels(
    labels: ArrayLike, features: NDArray[Any], n_classes: int | None
) -> tuple[NDArray[np.int64], int]:
    """The classes and their number, once they fit the features."""
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
    return classes.astype(np.int64), n_known
