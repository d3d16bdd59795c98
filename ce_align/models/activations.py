"""Outputs of named layers during one pass through a network."""

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ce_align.errors import CeAlignError, DataError
from ce_align.models.networks import Preprocessing

__all__ = ["ActivationReader", "BatchRunner", "Pool", "Precision", "summarise"]

Pool = Literal["average"] | None
Precision = Literal["float32", "bfloat16"]


class _AllReadError(Exception):
    """Ends a forward pass after the last layer that is wanted."""


def summarise(output: Any, layer: str, n_images: int, pool: Pool) -> torch.Tensor:
    """Copy (n, d) in float32 of a layer's output.

    Maps (n, channels, height, width) and tokens (n, tokens, d) are flattened in this
    order, as Brain-Score does, or averaged over places or tokens.

    Raises
    ------
    DataError
        If the output is not one real tensor with a row an image, or it is unclear which
        of its axes are places.
    """
    if not isinstance(output, torch.Tensor):
        raise DataError(
            f"layer {layer} returns a {type(output).__name__}; name a layer that "
            "returns one tensor, such as a part of it"
        )
    if output.ndim == 0 or len(output) != n_images or output.is_complex():
        raise DataError(
            f"layer {layer} returns {output.dtype} {tuple(output.shape)}; expected "
            f"real numbers with one row for each of {n_images} images"
        )
    if pool == "average" and output.ndim > 2:
        output = output.float().mean(_places(output, layer))
    # A copy in any case: later layers may work in place.
    copy = torch.empty(output.shape, dtype=torch.float32, device=output.device)
    return copy.copy_(output).flatten(1)


def _places(output: torch.Tensor, layer: str) -> tuple[int, ...]:
    """Axes of places: those after the channels, or of equal length before them."""
    if output.ndim == 3:
        return (1,)
    if output.ndim == 4:
        _, a, b, c = output.shape
        if b == c:
            return (2, 3)
        if a == b:  # such as a Swin transformer's
            return (1, 2)
    raise DataError(
        f"layer {layer} returns {tuple(output.shape)}; it is unclear which axes are "
        "places, so its average is undefined: use it without pooling"
    )


class ActivationReader:
    """Reads layers of a module, all in one pass; a context manager.

    If a layer is called several times in a pass, its last output counts. The pass ends
    after the last layer that is wanted, once a first pass has shown that every one is
    called only once.

    Parameters
    ----------
    module : in evaluation mode, on its device
    layers : names of its parts
    pool : None flattens, ``average`` averages over places
    compile : let torch.compile make the pass
    precision : ``bfloat16`` computes where torch deems it safe; the result is float32
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        pool: Pool = None,
        *,
        compile: bool = False,
        precision: Precision = "float32",
    ) -> None:
        self._module = module
        self._layers = layers
        self._pool = pool
        self._precision = precision
        self._compile = compile
        self._forward: Any = module
        self._hooks = ExitStack()
        self._n_calls = dict.fromkeys(layers, 0)
        self._outputs: dict[str, torch.Tensor] = {}
        self._n_images = 0
        self._may_stop = False

    def __enter__(self) -> Self:
        for layer in self._layers:
            part = self._module.get_submodule(layer)
            handle = part.register_forward_hook(self._hook(layer))
            self._hooks.callback(handle.remove)
        if self._compile:
            self._forward = torch.compile(self._module)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def __call__(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Output (n, d) of each layer for a batch of inputs, on its device.

        Raises
        ------
        DataError
            If a layer takes no part in the pass, or see :func:`summarise`.
        """
        self._outputs, self._n_images = {}, len(inputs)
        self._n_calls = dict.fromkeys(self._layers, 0)
        with torch.inference_mode(), self._autocast(inputs.device.type):
            try:
                self._forward(inputs)
            except _AllReadError:
                return self._outputs
        silent = [layer for layer in self._layers if layer not in self._outputs]
        if silent:
            raise DataError(f"layer {silent[0]} takes no part in the pass of an image")
        once = all(count == 1 for count in self._n_calls.values())
        self._may_stop = once and not self._compile
        return self._outputs

    def _hook(self, layer: str) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            self._n_calls[layer] += 1
            self._outputs[layer] = summarise(output, layer, self._n_images, self._pool)
            if self._may_stop and len(self._outputs) == len(self._layers):
                raise _AllReadError

        return read

    def _autocast(self, device_type: str) -> AbstractContextManager[Any]:
        if self._precision == "bfloat16":
            return torch.autocast(device_type, torch.bfloat16)
        return nullcontext()


class BatchRunner:
    """Feeds pixels to a reader, in smaller batches when the device's memory is full."""

    def __init__(
        self, reader: ActivationReader, preprocessing: Preprocessing, device: str
    ) -> None:
        self._reader, self._preprocessing = reader, preprocessing
        self._device = device
        self._largest: int | None = None

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Features (n, d) of each layer for pixels (n, height, width, 3)."""
        parts: list[dict[str, NDArray[np.float32]]] = []
        start = 0
        while start < len(pixels):
            size = min(self._largest or len(pixels), len(pixels) - start)
            try:
                parts.append(self._run(pixels[start : start + size]))
            except torch.OutOfMemoryError as error:
                self._halve(size, error)
                continue
            start += size
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([p[name] for p in parts]) for name in parts[0]}

    def _run(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        inputs = torch.from_numpy(pixels).to(self._device)
        outputs = self._reader(self._preprocessing.normalise(inputs))
        return {layer: values.cpu().numpy() for layer, values in outputs.items()}

    def _halve(self, size: int, error: Exception) -> None:
        if size == 1:
            raise CeAlignError(
                f"one image does not fit into the memory of {self._device}; use "
                "another device"
            ) from error
        self._largest = size // 2
        torch.cuda.empty_cache()
