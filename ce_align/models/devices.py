"""Where networks run, and how they are made faster there without that it shows."""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import (
    AbstractContextManager,
    ExitStack,
    contextmanager,
    nullcontext,
    suppress,
)
from dataclasses import replace
from math import ceil, prod
from threading import Lock
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ce_align.errors import ConfigError, DataError
from ce_align.foreign import quiet_stdout
from ce_align.models.activations import (
    ActivationReader,
    BatchRunner,
    LayerFailure,
    joined,
    network_inputs,
    takes,
)
from ce_align.models.networks import Network

__all__ = [
    *("BATCH_SIZES", "PooledReader", "accelerated", "devices_of"),
    *("full_precision", "kind_of", "reading", "resolve_device", "usual_batch"),
]

Pixels = NDArray[np.uint8]

#: Images at a time, unless it is said or they are large. On a CPU the activations of
#: more leave its caches; a GPU's memory may make it smaller.
BATCH_SIZES = {"cpu": 16, "cuda": 256, "mps": 32}
#: The same of views, whose features are averaged over places.
VIEW_BATCH_SIZES = {"cpu": 32, "cuda": 512, "mps": 32}

#: Height and width up to which batches are that large.
USUAL = 256

#: Folding moves outputs by rounding, relative to the largest; more is another network.
TOLERANCE = 1e-5


#: Every GPU that the process may use.
ALL_GPUS = "gpus"


def devices_of(device: str) -> list[str]:
    """Each of several devices, as `resolve_device` gives them."""
    return device.split(",")


def kind_of(device: str) -> str:
    """``cpu``, ``cuda`` or ``mps``, of the first of several."""
    return devices_of(device)[0].partition(":")[0]


def resolve_device(device: str) -> str:
    """Device by name; a GPU, if there is one, for ``auto``.

    Several, such as ``cuda:0,cuda:1``, share the images; ``gpus`` are all of them.

    Raises
    ------
    ConfigError
        If there is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    n_gpus = torch.cuda.device_count()
    if device == ALL_GPUS and n_gpus:
        return ",".join(f"cuda:{index}" for index in range(n_gpus))
    if "," in device:
        return ",".join(map(resolve_device, devices_of(device)))
    kind, _, index = device.partition(":")
    known = device in ("cpu", "mps" if torch.backends.mps.is_available() else "cpu")
    known = known or (kind == "cuda" and n_gpus > 0)
    if not known or (index and index not in map(str, range(n_gpus))):
        raise ConfigError(
            f"no device {device!r} here; choose cpu or one of {n_gpus} GPUs"
        )
    return device


def usual_batch(sizes: Mapping[str, int], device: str, size: tuple[int, int]) -> int:
    """Images of a size at a time: as many as fill the same memory, but no more.

    >>> [usual_batch(BATCH_SIZES, "cpu", (n, n)) for n in (32, 224, 384, 1024)]
    [16, 16, 7, 1]
    """
    largest = sizes[kind_of(device)]
    return max(1, min(largest, largest * USUAL**2 // prod(size)))


def full_precision(device: str) -> AbstractContextManager[Any]:
    """On a GPU, convolutions in float32: TF32 would keep 3 digits."""
    if not device.startswith("cuda"):
        return nullcontext()
    flags: AbstractContextManager[Any] = torch.backends.cudnn.flags(
        enabled=True, deterministic=True, allow_tf32=False
    )
    return flags


@contextmanager
def reading(
    network: Network,
    layers: list[str],
    device: str,
    example: Pixels,
    *,
    batch_size: int,
    on_error: LayerFailure | None = None,
    **options: Any,
) -> Iterator[Callable[[Pixels], dict[str, NDArray[np.float32]]]]:
    """What gives features (n, d) of layers for pixels (n, height, width, 3).

    Parameters
    ----------
    network : to read; it is not changed unless it cannot be copied
    device : as `resolve_device` gives it; each of several has a copy of the network and
        takes its share of the batches, which are the same as on one
    example : pixels (height, width, 3) with which faster copies are compared
    batch_size : images at a time on a device
    on_error, options : of :class:`ActivationReader`

    Raises
    ------
    DataError
        If the network's own code fails, or it takes other inputs than images.
    """
    devices = devices_of(device)
    networks = _for_each(network, len(devices))
    failed, lock = set[str](), Lock()

    def fail_once(layer: str, error: DataError) -> None:
        with lock:
            if layer in failed or on_error is None:
                return
            failed.add(layer)
        on_error(layer, error)

    options["on_error"] = None if on_error is None else fail_once
    with ExitStack() as stack:
        runs = []
        # What cannot be copied works on the first device alone.
        for own, place in zip(networks, devices, strict=False):
            with network.running():
                module = prepared(own, layers, place, example)
            reader = stack.enter_context(ActivationReader(module, layers, **options))
            runs.append(BatchRunner(reader, own.preprocessing, place, batch_size))
        pool = stack.enter_context(ThreadPoolExecutor(len(runs)))
        stack.enter_context(full_precision(devices[0]))

        def read(pixels: Pixels) -> dict[str, NDArray[np.float32]]:
            share = batch_size * max(1, ceil(len(pixels) / batch_size / len(runs)))
            shares = [pixels[i : i + share] for i in range(0, len(pixels), share)]
            with network.running():
                if len(shares) < 2:
                    return runs[0](pixels)
                return joined(list(pool.map(lambda run, part: run(part), runs, shares)))

        yield read


def _for_each(network: Network, n_devices: int) -> list[Network]:
    """A network for each device; itself alone if there is one, or it has no copies."""
    if n_devices == 1:
        return [network]
    copies = [_copied(network.module) for _ in range(n_devices)]
    found = [replace(network, module=one) for one in copies if one is not None]
    return found if len(found) == n_devices else [network]


def prepared(
    network: Network, layers: list[str], device: str, pixels: Pixels
) -> nn.Module:
    """Copy of a network on a device, made faster where that does not show.

    What cannot be copied is moved itself.
    """
    fed = network.preprocessing
    if device == "cpu":
        module = network.module.to("cpu")
        example = network_inputs(module, fed, pixels[None], "cpu")
        return accelerated(module, layers, example)
    copied = _copied(network.module)
    module = (network.module if copied is None else copied).to(device)
    with full_precision(device):
        example = network_inputs(module, fed, pixels[None], device)
        fast = _channels_last(module)
        if fast is not None and takes(fast, example):
            return fast
    return module.to(memory_format=torch.contiguous_format)


def accelerated(
    module: nn.Module, layers: Sequence[str], example: torch.Tensor
) -> nn.Module:
    """Faster copy of `module`, or itself where the layers would have other features.

    Raises
    ------
    DataError
        If the network's own code fails.
    """
    expected = _outputs(module, layers, example)
    example = example.contiguous(memory_format=torch.channels_last)
    # Where folding fails or shows, the memory order alone may still help.
    for folds in (True, False):
        fast = _channels_last(folded(module, layers) if folds else _copied(module))
        if fast is None:
            continue
        with suppress(DataError):
            found = _outputs(fast, layers, example)
            if expected.keys() == found.keys() and all(
                _close(values, found[layer]) for layer, values in expected.items()
            ):
                return fast
    return module


def _channels_last(module: nn.Module | None) -> nn.Module | None:
    """A module whose weights lie in memory as maps of pixels do, or None if it can't.

    Weights of three-dimensional convolutions, for example, have no such order.
    """
    if module is None:
        return None
    try:
        return module.to(memory_format=torch.channels_last)
    except Exception:  # any code can run where weights are computed
        return None


def _outputs(
    module: nn.Module, layers: Sequence[str], example: torch.Tensor
) -> dict[str, torch.Tensor]:
    """First tensor that each layer returned last, whatever its axes mean."""
    with ActivationReader(
        module, layers, "raw", on_error=lambda layer, error: None
    ) as read:
        return read(example)


def _close(expected: torch.Tensor, found: torch.Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not (expected.is_floating_point() and expected.numel()):
        return torch.equal(expected, found)
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _copied(module: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(module)
    except Exception:  # such as a module that holds a lock, or weights with a history
        return None


def folded(module: nn.Module, layers: Sequence[str]) -> nn.Module | None:
    """Copy of `module` with batch norms folded, except where it would show.

    A batch norm is folded if it alone reads the output of a convolution and no layer of
    `layers` ends between the two; the outputs of `layers` stay the same to rounding.
    Convolutions whose weights are computed at each pass (weight or spectral norm,
    parametrised, pruned) are left as they are. A module that cannot be traced or copied
    gives None.
    """
    fast = _copied(module)
    if fast is None:
        return None
    try:
        with quiet_stdout():
            pairs = list(_pairs(fast))
        for conv, norm in pairs:
            if not any(_contains(x, conv) and not _contains(x, norm) for x in layers):
                _fold(fast, conv, norm)
    except Exception:  # any code can run in a forward pass that is traced
        return None
    return fast


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    fused = fuse_conv_bn_eval(
        cast(nn.Conv2d, module.get_submodule(conv)),
        cast(nn.BatchNorm2d, module.get_submodule(norm)),
    )
    module.set_submodule(conv, fused)
    module.set_submodule(norm, nn.Identity())


def _contains(layer: str, part: str) -> bool:
    return f"{part}.".startswith(f"{layer}.")


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of each convolution whose output only a batch norm reads, and of that."""
    graph = fx.Tracer().trace(module)
    parts = dict(module.named_modules(remove_duplicate=False))
    # The same module may be called twice, under one name or two.
    calls = Counter(
        id(parts[str(node.target)]) for node in graph.nodes if node.op == "call_module"
    )
    reached = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        names = str(source.target), str(node.target)
        conv, norm = parts[names[0]], parts[names[1]]
        if (
            # Exactly these: what derives from them may do more.
            type(conv) is nn.Conv2d
            and type(norm) is nn.BatchNorm2d
            and norm.track_running_stats
            and len(source.users) == 1
            and calls[id(conv)] == calls[id(norm)] == 1
            and not any(_contains(name, attr) for name in names for attr in reached)
            and not (_hooked(conv) or _hooked(norm))
            and isinstance(norm.running_mean, torch.Tensor)
        ):
            yield names


def _hooked(module: nn.Module) -> bool:
    # Weight norm, spectral norm and pruning compute the weight in such a hook.
    return bool(module._forward_hooks or module._forward_pre_hooks)


class PooledReader:
    """Features of one layer, averaged over places, of views in memory.

    A context manager. The batch size is 32 or, on a GPU, 512 unless it is said, and
    less for large inputs.

    Raises
    ------
    ConfigError
        If the layer or the device does not exist.
    """

    def __init__(
        self,
        network: Network,
        layer: str,
        *,
        device: str = "auto",
        batch_size: int | None = None,
        axis: int = 0,
    ) -> None:
        network.check_layers([layer])
        self._network, self._layer, self._axis = network, layer, axis
        self._device = resolve_device(device)
        self._batch_size = batch_size or usual_batch(
            VIEW_BATCH_SIZES, self._device, network.preprocessing.size
        )
        self._open = ExitStack()

    def __enter__(self) -> Self:
        # Noise: a uniform image would leave most of a network silent.
        shape = (*self._network.preprocessing.size, 3)
        example = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        self._read = self._open.enter_context(
            reading(
                self._network,
                [self._layer],
                self._device,
                example,
                batch_size=self._batch_size,
                pool="average",
                axes={self._layer: self._axis},
            )
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, views: Pixels) -> NDArray[np.float32]:
        """Features (n, n_features) of views (n, height, width, 3).

        Views of another size than the network's input are resized, antialiased.
        """
        # As many at a time as the devices take together.
        step = self._batch_size * len(devices_of(self._device))
        parts = [
            self._read(self._fitted(views[start : start + step]))
            for start in range(0, len(views), step)
        ]
        return np.concatenate([part[self._layer] for part in parts])

    def _fitted(self, views: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self._network.preprocessing.size
        if views.shape[1:3] == size:
            return views
        pixels = torch.from_numpy(views).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(
            pixels, size, mode="bilinear", antialias=True
        )
        rounded = resized.round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy())
