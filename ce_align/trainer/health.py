"""Whether a network still tells images apart."""

import torch
from torch import Tensor

__all__ = [
    "collapse_warning",
    "effective_rank",
    "health_of",
    "mean_norm",
    "relative_spread",
]

#: Below two effective dimensions or this spread a representation counts as collapsed.
#: Both lie far below what any network shows that learns, or has not begun to: an
#: untrained tiny network has about ten dimensions and a spread above a tenth.
LEAST_RANK, LEAST_SPREAD = 2.0, 0.01


def effective_rank(rows: Tensor) -> float:
    """Exponential of the entropy of the spectrum of the covariance of (n, d) rows.

    1 if all variance lies along one direction, min(n − 1, d) if it is even; 0 if
    there is none, which is collapse.

    References
    ----------
    Roy and Vetterli (2007), The effective rank.
    """
    centred = rows.double() - rows.double().mean(0)
    variances = torch.linalg.svdvals(centred).square()
    total = variances.sum()
    if not total > 0:
        return 0.0
    shares = variances / total
    return float(torch.special.entr(shares).sum().exp())


def mean_norm(rows: Tensor) -> float:
    """Mean length of (n, d) rows."""
    return float(torch.linalg.vector_norm(rows.double(), dim=1).mean())


def relative_spread(rows: Tensor) -> float:
    """Root mean square distance of (n, d) rows from their mean, over that from zero.

    From 0, where all rows are equal (what is left is rounding, whose effective rank is
    high), to 1, where their mean is zero.
    """
    values = rows.double()
    whole = values.square().sum()
    if not whole > 0:
        return 0.0
    return float(((values - values.mean(0)).square().sum() / whole).sqrt())


def health_of(features: Tensor, embeddings: Tensor) -> dict[str, float]:
    """Effective rank of (n, d) features, and mean length of (n, d') embeddings."""
    return {
        "effective_rank": effective_rank(features),
        "embedding_norm": mean_norm(embeddings),
    }


def collapse_warning(**rows: Tensor) -> str | None:
    """One line if any of several sets of (n, d) rows, named here, has collapsed."""
    found = []
    for name, values in rows.items():
        rank, spread = effective_rank(values), relative_spread(values)
        if rank < LEAST_RANK or spread < LEAST_SPREAD:
            found.append(f"{name} (effective rank {rank:.3g}, spread {spread:.2g})")
    if not found:
        return None
    return (
        f"warning: collapsed {' and '.join(found)}: all images look alike; expected "
        f"are a rank of at least {LEAST_RANK:g} and a spread of {LEAST_SPREAD:g}; try "
        "a lower learning rate or more pairs a step"
    )
