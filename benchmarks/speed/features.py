"""Images a second and core through ResNet-50, against a plain pass in torch.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.features``. The weights are
random, which does not change the work. All routes start from the same decoded images in
one process and read ``layer4``. The plain pass has Brain-Score's batches of 64, and
those of 16 that are ours; the last line is the whole extraction, from resizing to the
features in a cache.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed._machine import best_of, describe
from ce_align.data.imagesets import ImageSet
from ce_align.models.activations import ActivationReader
from ce_align.models.devices import accelerated
from ce_align.models.features import extract
from ce_align.models.load import load_network

N_IMAGES, REPEATS = 64, 2
LAYER = "layer4"


def main() -> None:
    """Print images a second of each route and its ratio to the plain one."""
    print(describe())
    network = load_network("torchvision/resnet50:none")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N_IMAGES, 224, 224, 3), dtype=np.uint8)
    images = ImageSet.from_array("noise", pixels)
    inputs = network.preprocessing.normalise(torch.from_numpy(pixels))
    plain_inputs = inputs.contiguous()
    fast = accelerated(network.module, [LAYER], inputs[:1])

    def passes(module: torch.nn.Module, batches: torch.Tensor, size: int) -> None:
        with ActivationReader(module, [LAYER]) as read:
            for batch in torch.split(batches, size):
                read(batch)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(network, images, [LAYER], cache=Path(folder))

    routes: dict[str, Callable[[], None]] = {
        "plain pass, batches of 64": lambda: passes(network.module, plain_inputs, 64),
        "plain pass, batches of 16": lambda: passes(network.module, plain_inputs, 16),
        "folded, channels-last": lambda: passes(fast, inputs, 16),
        "extract(), with the cache": whole,
    }
    seconds = {name: best_of(route, REPEATS) for name, route in routes.items()}
    for name, time in seconds.items():
        ratio = seconds["plain pass, batches of 64"] / time
        print(f"{name:28s} {N_IMAGES / time:6.1f} images/s  {ratio:5.2f}×")


if __name__ == "__main__":
    main()
