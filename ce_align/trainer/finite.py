"""Stopping at a loss that is not finite, without making a GPU wait."""

import math

from torch import Tensor

from ce_align.errors import CeAlignError
from ce_align.trainer.equivariance import LossTerms

__all__ = ["FiniteGuard", "value_of"]


def value_of(term: Tensor | None) -> float:
    """Value of a () term; NaN for one that was not computed."""
    return math.nan if term is None else float(term.detach())


class FiniteGuard:
    """Looks at the loss of every step; on a GPU one step late.

    Reading a loss there as soon as it is asked for would make the GPU wait for the
    next batch.

    Parameters
    ----------
    steps_per_epoch : to name the epoch of a step
    """

    def __init__(self, steps_per_epoch: int) -> None:
        self._steps_per_epoch = steps_per_epoch
        self._pending: tuple[int, LossTerms] | None = None

    def check(self, step: int, terms: LossTerms, last_checkpoint: str | None) -> None:
        """Check this step on a CPU, the one before on a GPU.

        Raises
        ------
        CeAlignError
            If the loss is not finite: with step, terms and the last checkpoint.
        """
        if not terms.total.is_cuda:
            self._pending = step, terms
            self.flush(last_checkpoint)
            return
        self.flush(last_checkpoint)
        invariant, equivariant = (
            None if term is None else term.detach()
            for term in (terms.invariant, terms.equivariant)
        )
        self._pending = step, LossTerms(terms.total.detach(), invariant, equivariant)

    def flush(self, last_checkpoint: str | None) -> None:
        """Check the step that waits, if one does; raises as `check`."""
        if self._pending is None:
            return
        step, terms = self._pending
        self._pending = None
        if math.isfinite(value_of(terms.total)):
            return
        raise CeAlignError(
            f"the loss is not finite at step {step} (epoch "
            f"{step // self._steps_per_epoch}): invariant {value_of(terms.invariant)}, "
            f"equivariant {value_of(terms.equivariant)}; last good checkpoint: "
            f"{last_checkpoint or 'none yet'}; use --precision 32 or a lower learning "
            "rate"
        )
