"""Views a second of the training's input, by number of workers and kind of images.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.loader``. Photographs come from
the developers' data folder where it exists, else noise of the same size is used. Each
route gives the same views; a step has 32 pairs, 128 views of 224 pixels. Where views
are rendered on the device, workers hand over the pixels that they come from: the speed
is then that of the loader alone, which bounds how fast a GPU is fed.
"""

import os
import tempfile
import time
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.speed._measure import Measured, Rows, main
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.data import open_packed, pack
from ce_align.trainer.views import PairedViews, PairPlan, view_loader

PAIRS, SIZE = 32, 224
VIEWS_A_STEP = 4 * PAIRS


def photographs(number: int) -> ImageSet:
    """Encoded photographs, or noise that needs no decoding."""
    stated = os.environ.get("CE_ALIGN_TEST_DATA")
    root = Path(stated) if stated else Path(__file__).parents[3] / "shared" / "data"
    path = root / "imagenet_photos" / "imagenet1000_short256.zip"
    if path.is_file():
        return ImageSet.from_path(path).select(range(number))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (number, 256, 341, 3), dtype=np.uint8)
    return ImageSet.from_array("noise", pixels)


def seconds_a_view(images: ImageSet, workers: int, on_device: bool) -> float:
    """Over two epochs, of which the first starts the workers and compiles kernels."""
    plan = PairPlan(len(images), PAIRS, seed=0)
    labels = np.full(len(images), -1)
    views = PairedViews(images, plan, labels, SIZE, on_device=on_device)
    epoch = 0
    loader = view_loader(views, lambda: (epoch, 0), workers=workers)
    for _ in loader:
        pass
    epoch = 1
    start = time.perf_counter()
    steps = sum(1 for _ in loader)
    return (time.perf_counter() - start) / (steps * VIEWS_A_STEP)


def rows(images: int = 256) -> Rows:
    """Encoded and packed images, rendered or not, with none to two workers."""
    encoded = photographs(images)
    with tempfile.TemporaryDirectory() as folder:
        packed = open_packed(pack(encoded, Path(folder) / "packed"))
        for workers, on_device in product((0, 1, 2), (False, True)):
            theirs, ours = (
                1e3 * seconds_a_view(source, workers, on_device)
                for source in (encoded, packed)
            )
            yield Measured(
                f"views of a step of {PAIRS} pairs, {workers} workers, "
                f"{'handed over as pixels' if on_device else 'rendered'}, packed",
                ours,
                "ms a view",
                peer=f"the same from {encoded.identifier}",
                theirs=theirs,
                note="by the clock",
            )


if __name__ == "__main__":
    main(rows)
