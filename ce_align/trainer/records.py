"""The numbers that are recorded while a network is trained."""

import math
import time
from collections.abc import Iterable, Mapping

from torch import Tensor

from ce_align.trainer.equivariance import LossTerms, gradient_norms
from ce_align.trainer.finite import value_of
from ce_align.trainer.gather import Group

__all__ = ["Speedometer", "defined", "epoch_line", "step_numbers"]


class Speedometer:
    """Images a second between two looks.

    Parameters
    ----------
    images_per_step : over all processes
    """

    def __init__(self, images_per_step: int) -> None:
        self._images_per_step = images_per_step
        self._last: tuple[int, float] | None = None

    def restart(self, step: int) -> None:
        """Measure from here on."""
        self._last = step, time.perf_counter()

    def read(self, step: int) -> float:
        """Speed since the last look; NaN if there was none, or no step since."""
        now, last = time.perf_counter(), self._last
        self._last = step, now
        if last is None or step <= last[0]:
            return math.nan
        return self._images_per_step * (step - last[0]) / (now - last[1])


def step_numbers(
    terms: LossTerms, parameters: Iterable[Tensor], group: Group
) -> dict[str, float]:
    """Loss, its terms and the lengths of their gradients; see `gradient_norms`."""
    of_views, of_changes = gradient_norms(terms, parameters, group=group)
    return {
        "loss": value_of(terms.total),
        "loss_invariant": value_of(terms.invariant),
        "loss_equivariant": value_of(terms.equivariant),
        "gradient_invariant": of_views,
        "gradient_equivariant": of_changes,
    }


def defined(numbers: Mapping[str, float]) -> dict[str, float]:
    """Those that are not NaN."""
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def epoch_line(epoch: int, epochs: int, numbers: Mapping[str, float]) -> str:
    """What a person is told after an epoch, counted from 1."""
    named = (
        f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in defined(numbers).items()
        if name != "epoch"
    )
    return f"epoch {epoch} of {epochs}: {', '.join(named)}"
