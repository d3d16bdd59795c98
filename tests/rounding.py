"""How far two ways to compute the same in float32 may be apart, on any processor."""

import numpy as np
from torch import nn

__all__ = ["rounding"]

#: Half the distance from 1 to the next float32: what one operation is off by, at most.
UNIT = float(np.finfo(np.float32).eps) / 2

#: Standard deviations within which the farthest of ten million answers lies.
FARTHEST = 5.5


def rounding(module: nn.Module) -> float:
    """Largest difference between two computations, as a share of the largest answer.

    Processors add the products of a sum in orders of their own. A sum of n products is
    rounded n times, up and down alike, so its error is a walk of √n steps; the layers
    of a network walk on from where the one before arrived, and both computations walk.
    """
    n = sum(values[0].numel() for values in module.parameters() if values.ndim > 1)
    return FARTHEST * float(np.sqrt(2 * n)) * UNIT
