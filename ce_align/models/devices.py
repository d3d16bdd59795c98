"""Where networks run, and how they are prepared for it."""

import copy
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ce_align.errors import ConfigError
from ce_align.models.activations import network_inputs, takes
from ce_align.models.folding import accelerated, channels_last
from ce_align.models.networks import Network

__all__ = ["full_precision", "prepared", "resolve_device"]


def resolve_device(device: str) -> str:
    """Device by name; a GPU, if there is one, for ``auto``.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = device.partition(":")
    n_gpus = torch.cuda.device_count()
    known = device in ("cpu", "mps" if torch.backends.mps.is_available() else "cpu")
    known = known or (kind == "cuda" and n_gpus > 0)
    if not known or (index and index not in map(str, range(n_gpus))):
        raise ConfigError(
            f"no device {device!r} here; choose cpu or one of {n_gpus} GPUs"
        )
    return device


def prepared(
    network: Network, layers: list[str], device: str, pixels: NDArray[np.uint8]
) -> torch.nn.Module:
    """Copy of a network on a device, made faster where that does not show.

    What cannot be copied is moved itself.

    Parameters
    ----------
    network : to copy
    layers : that will be read, and must stay as they are
    device : as `resolve_device` gives it
    pixels : (height, width, 3) of one input, to try the copy on

    Raises
    ------
    DataError
        If the network's own code fails, or it takes other inputs than images.
    """
    if device == "cpu":
        module = network.module.to("cpu")
        example = network_inputs(module, network.preprocessing, pixels[None], "cpu")
        return accelerated(module, layers, example)
    module = _moved(network.module, device)
    with full_precision(device):
        example = network_inputs(module, network.preprocessing, pixels[None], device)
        fast = channels_last(module)
        if fast is not None and takes(fast, example):
            return fast
    return module.to(memory_format=torch.contiguous_format)


def _moved(module: torch.nn.Module, device: str) -> torch.nn.Module:
    try:
        return copy.deepcopy(module).to(device)
    except torch.OutOfMemoryError:
        raise
    except Exception:  # such as a module that holds a lock, or weights with a history
        return module.to(device)


def full_precision(device: str) -> AbstractContextManager[Any]:
    """On a GPU, convolutions in float32: TF32 would keep 3 digits."""
    if not device.startswith("cuda"):
        return nullcontext()
    flags: AbstractContextManager[Any] = torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )
    return flags
