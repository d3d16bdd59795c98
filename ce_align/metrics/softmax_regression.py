"""Multinomial logistic regression with L2, for many strengths at once.

The objective is scikit-learn's, with strength λ = 1 / C:

    Σ_i −log p(y_i | x_i) + λ/2 ‖W‖²,   p(· | x) = softmax(xᵀW + b),

a sum over images, not a mean; the intercepts b are not penalised. L-BFGS starts from
the inverse of Σ_i w (x_i − x̄)(x_i − x̄)ᵀ + λ, which needs one eigendecomposition for
all strengths: the spread of a covariance's eigenvalues is what makes gradient methods
slow on features. Several strengths are followed at once and share every pass over the
features. Products have single precision; losses, gradients and steps are summed in
double precision.

Reference: Liu and Nocedal (1989), On the limited memory BFGS method.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ce_align.metrics.softmax_loss import Design, Metric, evaluate

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Fit", "minimise"]

#: Pairs of steps and gradients' changes that a direction is made from.
MEMORY = 80
#: Share of the decrease along the direction that a step must reach (Armijo).
SUFFICIENT = 1e-4
#: A class that is never in doubt bends nothing; its weight is kept above this.
TINY = 1e-30
#: A step that has to be shorter than this is lost in rounding.
SHORTEST = 1e-3


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
