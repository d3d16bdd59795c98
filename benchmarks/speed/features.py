"""Images a second and core through ResNet-50, against a plain pass in torch.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.features``. The weights are
random, which does not change the work. All routes start from the same decoded images in
one process and read ``layer4``. The plain pass has Brain-Score's batches of 64, and
those of 16 that are ours. The whole extraction asks the network who it is and folds it,
which costs the same for any number of images.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch

from benchmarks.speed._measure import Measured, Rows, in_turns, main
from ce_align.data.imagesets import ImageSet
from ce_align.models.activations import ActivationReader
from ce_align.models.devices import accelerated
from ce_align.models.features import extract
from ce_align.models.load import load_network

LAYER = "layer4"


def rows(few: int = 32, many: int = 96, asked: int = 320) -> Rows:
    """Passes, and the whole extraction; what it costs once is told from two sizes."""
    network = load_network("torchvision/resnet50:none")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (many, 224, 224, 3), dtype=np.uint8)
    images = ImageSet.from_array("noise", pixels)
    inputs = network.preprocessing.normalise(torch.from_numpy(pixels))
    plain_inputs = inputs.contiguous()
    fast = accelerated(network.module, [LAYER], inputs[:1])

    def passes(module: torch.nn.Module, batches: torch.Tensor, size: int) -> None:
        with ActivationReader(module, [LAYER]) as read:
            for batch in torch.split(batches, size):
                read(batch)

    def whole(number: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            extract(network, images.select(range(number)), [LAYER], cache=Path(folder))

    by_64, by_16, folded, for_few, for_many = in_turns(
        lambda: passes(network.module, plain_inputs[:64], 64),
        lambda: passes(network.module, plain_inputs[:64], 16),
        lambda: passes(fast, inputs, 16),
        lambda: whole(few),
        lambda: whole(many),
        repeats=2,
    )
    by_64, by_16 = (1e3 * seconds / min(64, many) for seconds in (by_64, by_16))
    folded *= 1e3 / many
    each = 1e3 * (for_many - for_few) / (many - few)
    once = max(1e3 * for_many - many * each, 0.0)
    for job, ours, goal in (
        ("folded, channels-last", folded, 1.5),
        (f"extract() of {asked}, from resizing to the cache", each + once / asked, 1.5),
    ):
        for size, theirs in ((64, by_64), (16, by_16)):
            yield Measured(
                f"ResNet-50 to {LAYER}, {job}",
                ours,
                "ms an image",
                peer=f"plain pass in batches of {size}",
                theirs=theirs,
                floor=folded,
                of_floor="the folded pass",
                at_least=goal if size == 64 else None,
                at_most=1 / 0.9,
                note=f"{once / 1e3:.2f} s once, {each:.1f} ms an image"
                if ours is not folded
                else "",
            )


if __name__ == "__main__":
    main(rows)
