"""What training needs to know of an objective."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import Tensor

from ce_align.errors import ConfigError

__all__ = ["Objective"]


@dataclass(frozen=True)
class Objective:
    """One objective: its loss, and the networks that the loss needs.

    Attributes
    ----------
    name : as commands name it
    loss : function of two (or, with momentum, four) batches of embeddings
    head_widths : outputs of the linear layers of each head
    ema : share that the momentum networks keep at every step; None for no such networks
    separable : whether the loss is the mean over rows of a function of each row alone
    """

    name: str
    loss: Callable[..., Tensor]
    head_widths: tuple[int, ...]
    ema: float | None = None
    separable: bool = False

    def __post_init__(self) -> None:
        if not self.head_widths or min(self.head_widths) < 1:
            raise ConfigError(
                f"head widths are {self.head_widths}; give at least one, all positive"
            )
        if self.ema is None:
            return
        if not 0 <= self.ema <= 1:
            raise ConfigError(f"ema is {self.ema}; give a share from 0 to 1, or none")
        if "momentum_a" not in self._arguments():
            raise ConfigError(
                f"{self.name} has no use for momentum networks; leave ema out"
            )

    def check_passes(self, n_passes: int) -> None:
        """Raise ConfigError unless a step may be shared out among that many passes."""
        if n_passes > 1 and not self.separable:
            raise ConfigError(
                f"{self.name} compares the pairs of a step with one another: "
                f"{n_passes} passes of fewer pairs would train another loss. Leave "
                "--accumulate out, and give fewer --pairs-per-step (the learning rate "
                "of LARS follows) or more --devices, which share one step exactly"
            )

    def configured(self, **changes: Any) -> "Objective":
        """The objective with other head widths, EMA or options of its loss.

        Raises
        ------
        ConfigError
            If the loss has no such option; with those that it has.
        """
        fields = {k: changes.pop(k) for k in ("head_widths", "ema") if k in changes}
        arguments = self._arguments().values()
        options = {a.name for a in arguments if a.kind is a.KEYWORD_ONLY} - {"group"}
        if unknown := sorted(set(changes) - options):
            raise ConfigError(
                f"{self.name} has no option {unknown[0]!r}; choose from "
                f"{', '.join(['head_widths', 'ema', *sorted(options)])}"
            )
        loss = partial(self.loss, **changes) if changes else self.loss
        return replace(self, loss=loss, **fields)

    def _arguments(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.loss).parameters
