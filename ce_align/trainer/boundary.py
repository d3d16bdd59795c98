"""What the objectives ask of their input."""

import torch
from torch import Tensor

from ce_align.errors import ConfigError, DataError
from ce_align.trainer.gather import Group, n_processes

__all__ = ["check_positive", "checked_batches"]


def check_positive(name: str, value: float) -> None:
    """Raise ConfigError unless `value` is positive."""
    if not value > 0:
        raise ConfigError(f"{name} is {value}; give a positive number")


def checked_batches(loss: str, group: Group, **batches: Tensor) -> list[Tensor]:
    """Batches of embeddings in float32 or float64, if they fit one another.

    Parameters
    ----------
    loss : name of the objective, for the message
    group : processes whose rows are joined
    batches : (n, d) each, by name

    Raises
    ------
    DataError
        Unless all are real and of one shape, with two rows or more over all processes.
    """
    first_name, first = next(iter(batches.items()))
    for name, batch in batches.items():
        if batch.ndim != 2 or not batch.is_floating_point():
            raise DataError(
                f"{loss} needs real (n, d) embeddings, but {name} is {batch.dtype} of "
                f"shape {tuple(batch.shape)}"
            )
        if batch.shape != first.shape:
            raise DataError(
                f"{loss} needs batches of equal shape, but {first_name} has "
                f"{tuple(first.shape)} and {name} has {tuple(batch.shape)}"
            )
    if len(first) * n_processes(group) < 2 or first.shape[1] < 1:
        raise DataError(
            f"{loss} compares rows and needs at least two, but {first_name} has shape "
            f"{tuple(first.shape)}; use a larger batch"
        )
    half = (torch.float16, torch.bfloat16)
    return [
        batch.float() if batch.dtype in half else batch for batch in batches.values()
    ]
