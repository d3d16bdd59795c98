"""Outputs of named layers during one pass through a network."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Literal, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ce_align.errors import CeAlignError, DataError, PassError, first_line
from ce_align.foreign import guard, quiet_stdout
from ce_align.models.preprocessing import Preprocessing

__all__ = [
    *("ActivationReader", "BatchRunner", "LayerFailure", "Pool"),
    *("first_tensor", "joined", "network_inputs", "summarise", "takes"),
]

Pool = Literal["average"] | None

#: Told of a layer that has no features, and why.
LayerFailure = Callable[[str, DataError], None]


class _AllReadError(BaseException):
    """Ends a forward pass after the last layer that is wanted.

    No subclass of Exception: a network may catch those in its own code.
    """


def first_tensor(output: Any, layer: str) -> torch.Tensor:
    """First tensor of a layer's output: itself, or of a tuple, mapping or dataclass.

    Raises
    ------
    DataError
        If there is none, or it has no dense real numbers.
    """
    found = next(_tensors(output), None)
    if found is None:
        raise DataError(
            f"layer {layer} returns a {type(output).__name__} without any tensor; name "
            "another layer, such as a part of it"
        )
    kinds = {
        "complex": found.is_complex(),
        "nested": found.is_nested,
        "sparse": found.layout != torch.strided,
        "no": found.is_meta,
    }
    for kind in (kind for kind, is_so in kinds.items() if is_so):
        raise DataError(
            f"layer {layer} returns {kind} numbers; expected dense real ones"
        )
    return found.dequantize() if found.is_quantized else found


def _tensors(output: Any) -> Iterator[torch.Tensor]:
    parts: Any = ()
    if isinstance(output, torch.Tensor):
        yield output
    elif isinstance(output, Mapping):  # what transformers return is one, too
        parts = output.values()
    elif isinstance(output, tuple | list):
        parts = output
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        parts = [getattr(output, part.name) for part in dataclasses.fields(output)]
    for part in parts:
        yield from _tensors(part)


def summarise(
    output: Any,
    layer: str,
    n_images: int,
    pool: Pool,
    axis: int = 0,
    size: tuple[int, int] = (1, 1),
) -> torch.Tensor:
    """Copy (n, d) in float32 of a layer's output, the first tensor of it.

    Maps (n, channels, height, width) and tokens (n, tokens, d) are flattened in this
    order, as Brain-Score does, or averaged over places or tokens.

    Parameters
    ----------
    axis : of images, which comes first in the result: 1 for tokens (tokens, n, d)
    size : height and width of the inputs, to which maps are similar

    Raises
    ------
    DataError
        If the output has no tensor of real numbers with a row an image, or it is
        unclear which of its axes are places.
    """
    output = first_tensor(output, layer)
    if output.ndim <= axis or output.shape[axis] != n_images:
        raise DataError(
            f"layer {layer} returns {output.dtype} {tuple(output.shape)}; expected "
            f"real numbers with one row for each of {n_images} images"
        )
    if not output.numel():
        raise DataError(f"layer {layer} returns nothing: shape {tuple(output.shape)}")
    output = output.movedim(axis, 0)
    if pool == "average" and output.ndim > 2:
        output = output.float().mean(_places(output, layer, size))
    # A copy in any case: later layers may work in place.
    copy = torch.empty(output.shape, dtype=torch.float32, device=output.device)
    return copy.copy_(output).reshape(n_images, -1)


def _places(output: torch.Tensor, layer: str, size: tuple[int, int]) -> tuple[int, ...]:
    """Axes of places: after the channels or, if similar to the inputs, before them."""
    if output.ndim == 3:
        return (1,)
    if output.ndim == 4:
        _, a, b, c = output.shape
        first = _similar((b, c), size)
        last = _similar((a, b), size)  # such as a Swin transformer's
        # Of square maps, channels come first unless only the other is square.
        if first and (size[0] == size[1] or not last):
            return (2, 3)
        if last and not first:
            return (1, 2)
    raise DataError(
        f"layer {layer} returns {tuple(output.shape)}; it is unclear which axes are "
        "places, so its average is undefined: use it without pooling"
    )


def _similar(places: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether one stride leads from inputs of a size to so many places."""
    if size[0] == size[1]:
        return places[0] == places[1]
    # A stride s leaves n of length places, with length / (n + 1) < s < length / (n - 1)
    # whatever the padding.
    (low, high), (low_2, high_2) = (
        (length / (n + 1), length / (n - 1) if n > 1 else float("inf"))
        for n, length in zip(places, size, strict=True)
    )
    return low < high_2 and low_2 < high


class ActivationReader:
    """Reads layers of a module in evaluation mode, all in one pass; a context manager.

    If a layer is called several times in a pass, its last output counts. The pass ends
    after the last layer that is wanted, once a first pass has shown that every one is
    called only once. What the network's code prints goes to standard error.

    Parameters
    ----------
    pool : None flattens, ``average`` averages over places, ``raw`` leaves outputs as
        they are, with the images on whatever axis
    axes : axis of images in the output of a layer; 0 for those that are not named
    compile : let torch.compile make the pass, if it can
    on_error
        called with a layer that takes no part in the pass or whose output is no
        feature, and why; the layer is left out and the others are read. None raises
        for the first.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        pool: Pool | Literal["raw"] = None,
        *,
        axes: Mapping[str, int] | None = None,
        compile: bool = False,
        on_error: LayerFailure | None = None,
    ) -> None:
        self.module = module
        self._layers = list(dict.fromkeys(layers))
        self._axes = dict(axes or {})
        self._pool = pool
        self._compile = compile
        self._on_error = on_error
        self._forward: Any = module
        self._hooks = ExitStack()
        self._n_calls: dict[str, int] = {}
        self._outputs: dict[str, torch.Tensor | DataError] = {}
        self._inputs = torch.empty(0)
        self._may_stop = False

    def __enter__(self) -> Self:
        for layer in list(self._layers):
            part = self.module.get_submodule(layer)
            try:
                handle = part.register_forward_hook(self._hook(layer))
            except RuntimeError as error:  # such as a part that is TorchScript
                text = f"layer {layer} cannot be read: {first_line(error)}"
                self._fail(layer, DataError(text))
                continue
            self._hooks.callback(handle.remove)
        if self._compile:
            self._forward = torch.compile(self.module)
        return self

    def __exit__(self, *_: object) -> None:
        self._hooks.close()

    def __call__(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Output (n, d) of each layer for a batch of inputs, on its device.

        Raises
        ------
        PassError
            If the network's own code fails.
        DataError
            Without `on_error`: if a layer takes no part in the pass, or see
            :func:`summarise`.
        """
        self._pass(inputs)
        read: dict[str, torch.Tensor] = {}
        for layer in list(self._layers):
            found = self._outputs.get(layer)
            if isinstance(found, torch.Tensor):
                read[layer] = found
            else:
                unused = f"layer {layer} takes no part in the pass of an image"
                self._fail(layer, found or DataError(unused))
        if not self._may_stop:
            once = all(self._n_calls[layer] == 1 for layer in self._layers)
            self._may_stop = once and not self._compile
        return read

    def _fail(self, layer: str, error: DataError) -> None:
        """Leave a layer out, and say why, or raise."""
        if self._on_error is None:
            raise error
        self._layers.remove(layer)
        self._on_error(layer, error)

    def _pass(self, inputs: torch.Tensor) -> None:
        """Let the network look at the inputs; the hooks keep its outputs."""
        self._outputs, self._inputs = {}, inputs
        self._n_calls = dict.fromkeys(self._layers, 0)
        passing = (_AllReadError, torch.OutOfMemoryError)
        try:
            with (
                quiet_stdout(),
                torch.inference_mode(),
                guard("the pass", PassError, passing),
            ):
                # A copy: the network's own code may work on its input in place.
                self._forward(inputs.clone())
        except _AllReadError:
            pass
        except PassError:
            if self._forward is self.module:
                raise
            # What cannot be compiled may still run.
            self._forward, self._compile = self.module, False
            self._pass(inputs)

    def _hook(self, layer: str) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if layer not in self._n_calls:
                return
            self._n_calls[layer] += 1
            self._outputs[layer] = self._summary(output, layer)
            if self._may_stop and len(self._outputs) == len(self._layers):
                raise _AllReadError

        return read

    def _summary(self, output: Any, layer: str) -> torch.Tensor | DataError:
        try:
            if self._pool == "raw":
                # A copy: later layers may work in place.
                return first_tensor(output, layer).detach().clone()
            return summarise(
                output,
                layer,
                len(self._inputs),
                self._pool,
                self._axes.get(layer, 0),
                (self._inputs.shape[-2], self._inputs.shape[-1]),
            )
        except DataError as error:
            # Another call of the layer in this pass may still be one.
            return error
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # kinds of tensors are without number
            return DataError(f"the output of layer {layer} is no feature: {error}")


#: Channels that modules take, once they have been tried.
_CHANNELS: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()


def network_inputs(
    module: nn.Module,
    preprocessing: Preprocessing,
    pixels: NDArray[np.uint8],
    device: str,
) -> torch.Tensor:
    """Inputs (n, channels, height, width) of a module, of the type that it takes.

    They have the type of its first floating parameter, such as float16, the memory
    order of its weights, and three channels or one of luminance.

    Raises
    ------
    DataError
        If it takes neither three channels nor one.
    """
    # Pixels of Pillow cannot be written to, of which torch warns.
    writable = np.require(pixels, requirements=["C", "W"])
    found = torch.from_numpy(writable).to(device)
    inputs = _as_taken(preprocessing.normalise(found), module)
    if _channels(module, inputs) == 3:
        return inputs
    return _as_taken(preprocessing.normalise(found, luminance=True), module)


def _as_taken(inputs: torch.Tensor, module: nn.Module) -> torch.Tensor:
    """Inputs of the type and memory order of a module's weights."""
    weights = [v for v in module.parameters() if v.is_floating_point()]
    maps = any(v.ndim == 4 and not v.is_contiguous() for v in weights)
    # A network's own code may call view(), which needs the usual order.
    order = torch.channels_last if maps else torch.contiguous_format
    dtype = weights[0].dtype if weights else torch.float32
    return inputs.to(dtype).contiguous(memory_format=order)


def _channels(module: nn.Module, example: torch.Tensor) -> int:
    """Channels that a module takes: 3 for colour, 1 for luminance.

    A module whose first convolution takes another number than three is tried with
    three: its own code may turn colour into what it wants.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    first = next((m for m in module.modules() if isinstance(m, kinds)), None)
    wanted = 3 if first is None else first.in_channels
    if wanted == 3:
        return 3
    if module not in _CHANNELS:
        _CHANNELS[module] = 3 if takes(module, example[:1]) else wanted
    if _CHANNELS[module] not in (1, 3):
        raise DataError(
            f"its first convolution takes {wanted} channels; expected 3 of colour or 1 "
            "of luminance: wrap it in a module that makes its input from colour"
        )
    return _CHANNELS[module]


def takes(module: nn.Module, example: torch.Tensor) -> bool:
    """Whether a module takes such inputs without an error."""
    try:
        with ActivationReader(module, []) as read:
            read(example)
    except DataError:
        return False
    return True


def joined(parts: Sequence[dict[str, NDArray[np.float32]]]) -> dict[str, Any]:
    """Features (n, d) of the layers that have them in every part."""
    if len(parts) == 1:
        return parts[0]
    whole = [name for name in parts[0] if all(name in part for part in parts)]
    return {name: np.concatenate([part[name] for part in parts]) for name in whole}


class BatchRunner:
    """Feeds pixels to a reader, so many at a time.

    The batches are smaller where the device's memory is full.
    """

    def __init__(
        self,
        reader: ActivationReader,
        preprocessing: Preprocessing,
        device: str,
        batch_size: int,
    ) -> None:
        self._reader, self._preprocessing = reader, preprocessing
        self._device = device
        self._largest = batch_size

    def __call__(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        """Features (n, d) of each layer for pixels (n, height, width, 3)."""
        parts: list[dict[str, NDArray[np.float32]]] = []
        start = 0
        while start < len(pixels):
            size = min(self._largest, len(pixels) - start)
            try:
                parts.append(self._features(pixels[start : start + size]))
            except torch.OutOfMemoryError as error:
                self._halve(size, error)
                continue
            start += size
        return joined(parts)

    def _features(self, pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.float32]]:
        module, preprocessing = self._reader.module, self._preprocessing
        inputs = network_inputs(module, preprocessing, pixels, self._device)
        return {name: v.cpu().numpy() for name, v in self._reader(inputs).items()}

    def _halve(self, size: int, error: Exception) -> None:
        if size == 1:
            raise CeAlignError(
                f"one image does not fit into the memory of {self._device}; use "
                "another device"
            ) from error
        self._largest = size // 2
        torch.cuda.empty_cache()
