"""How far two ways to compute the same in float32 may be apart, on any processor."""

import numpy as np
from numpy.typing import NDArray
from torch import nn

__all__ = ["rounding"]

#: Half the distance from 1 to the next float32: what one operation is off by, at most.
UNIT = float(np.finfo(np.float32).eps) / 2

#: Standard deviations within which the farthest of ten million answers lies.
FARTHEST = 5.5


def rounding(module: nn.Module, answers: NDArray[np.float32]) -> float:
    """Largest difference between two computations of a network's answers.

    Processors add the products of a sum in orders of their own, and each addition is
    off by a uniform share of a unit of what has been summed so far: a variance of a
    third of a unit². Sums of products of either sign grow as √k, so what has been
    summed is on average half of the end in its square, and n additions give n / 6. The
    layers of a network go on from where the one before arrived, so their n add, and
    both computations are off: n / 3 units² of the root mean square of the answers.
    """
    n = sum(values[0].numel() for values in module.parameters() if values.ndim > 1)
    size = float(np.sqrt(np.mean(np.square(answers, dtype=np.float64))))
    return FARTHEST * float(np.sqrt(n / 3)) * UNIT * size
