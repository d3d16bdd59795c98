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
from pathlib import Path

import numpy as np

from benchmarks.speed._machine import describe
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.data import open_packed, pack
from ce_align.trainer.views import PairedViews, PairPlan, view_loader

N_IMAGES, PAIRS, SIZE = 256, 32, 224
VIEWS_A_STEP = 4 * PAIRS


def photographs() -> ImageSet:
    """Encoded photographs, or noise that needs no decoding."""
    stated = os.environ.get("CE_ALIGN_TEST_DATA")
    root = Path(stated) if stated else Path(__file__).parents[3] / "shared" / "data"
    path = root / "imagenet_photos" / "imagenet1000_short256.zip"
    if path.is_file():
        return ImageSet.from_path(path).select(range(N_IMAGES))
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (N_IMAGES, 256, 341, 3), dtype=np.uint8)
    return ImageSet.from_array("noise", pixels)


def views_a_second(images: ImageSet, workers: int, on_device: bool) -> float:
    """Of two epochs, of which the first starts the workers and compiles kernels."""
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
    return steps * VIEWS_A_STEP / (time.perf_counter() - start)


def main() -> None:
    """Measure encoded and packed images, rendered or not, with none to two workers."""
    images = photographs()
    print(describe())
    with tempfile.TemporaryDirectory() as folder:
        packed = open_packed(pack(images, Path(folder) / "packed"))
        for workers in (0, 1, 2):
            for name, source in ((images.identifier, images), ("packed", packed)):
                rendered, handed = (
                    views_a_second(source, workers, on_device)
                    for on_device in (False, True)
                )
                print(
                    f"{name}, {workers} workers: {rendered:.0f} views/s rendered, "
                    f"{handed:.0f} handed over as pixels",
                    flush=True,
                )


if __name__ == "__main__":
    main()
