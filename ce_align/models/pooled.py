"""Responses averaged over places, for views that are already in memory."""

from contextlib import ExitStack
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from ce_align.models.activations import ActivationReader, BatchRunner
from ce_align.models.devices import full_precision, prepared, resolve_device
from ce_align.models.networks import Network

__all__ = ["PooledReader"]

#: Views at a time, unless it is said.
BATCH_SIZES = {"cpu": 32, "cuda": 512, "mps": 32}


class PooledReader:
    """One layer of a network, averaged over places; a context manager.

    Parameters
    ----------
    network : to read; it is not changed
    layer : name of the layer
    device : ``auto``, ``cpu``, ``cuda``
    batch_size : views at a time; None for 32, or 512 on a GPU
    axis : of images in the layer's output

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
        self._device = resolve_device(device)
        self._layer = layer
        self._preprocessing = network.preprocessing
        self._batch_size = batch_size or BATCH_SIZES[self._device.partition(":")[0]]
        # Noise: a uniform image would leave most of a network silent.
        shape = (*network.preprocessing.size, 3)
        example = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        with network.running():
            module = prepared(network, [layer], self._device, example)
        self._network = network
        self._reader = ActivationReader(module, [layer], "average", axes={layer: axis})
        self._run = BatchRunner(self._reader, self._preprocessing, self._device)
        self._open = ExitStack()

    def __enter__(self) -> Self:
        self._open.enter_context(full_precision(self._device))
        self._open.enter_context(self._reader)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def __call__(self, views: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Responses (n, n_features) to views (n, height, width, 3).

        Views of another size than the network's input are resized, antialiased.
        """
        with self._network.running():
            parts = [
                self._run(self._fitted(views[start : start + self._batch_size]))[
                    self._layer
                ]
                for start in range(0, len(views), self._batch_size)
            ]
        return np.concatenate(parts)

    def _fitted(self, views: NDArray[np.uint8]) -> NDArray[np.uint8]:
        size = self._preprocessing.size
        if views.shape[1:3] == size:
            return views
        pixels = torch.from_numpy(views).permute(0, 3, 1, 2).float()
        resized = torch.nn.functional.interpolate(
            pixels, size, mode="bilinear", antialias=True
        )
        rounded = resized.round().clamp(0, 255).to(torch.uint8)
        return np.ascontiguousarray(rounded.permute(0, 2, 3, 1).numpy())
