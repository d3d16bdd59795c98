"""Views a second and core, against the authors' Pillow pipeline on the same parameters.

Run with ``OMP_NUM_THREADS=1 python -m benchmarks.speed.augment``. Photographs come from
the developers' data folder where it exists, else one synthetic image is used. Both
routes start from decoded images and run in one process.
"""

import io
import os
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from benchmarks.speed._machine import best_of, describe
from ce_align.augment import JITTER_ORDERS, AugmentationLedger, apply, sample
from ce_align.augment.transforms import pixel_boxes

N_IMAGES, SIZE = 64, 224

Pixels = NDArray[np.uint8]


def images() -> tuple[str, list[Pixels]]:
    """Photographs, or a synthetic image of the same size."""
    stated = os.environ.get("CE_ALIGN_TEST_DATA")
    root = Path(stated) if stated else Path(__file__).parents[3] / "shared" / "data"
    path = root / "imagenet_photos" / "imagenet1000_short256.zip"
    if not path.is_file():
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize((341, 256), Image.Resampling.BICUBIC)
        return "synthetic images", [np.array(smooth)] * N_IMAGES
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())[:: 1000 // N_IMAGES][:N_IMAGES]
        opened = [Image.open(io.BytesIO(archive.read(name))) for name in names]
        return "photographs", [np.array(image.convert("RGB")) for image in opened]


def by_pillow(
    sources: list[Pixels], ledger: AugmentationLedger, boxes: list[list[int]]
) -> Pixels:
    """torchvision's functions on Pillow images, as in the authors' code."""
    from torchvision.transforms import InterpolationMode, functional

    adjust = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    views = np.empty((len(ledger), SIZE, SIZE, 3), np.uint8)
    jitter = ledger.parameters()[:, 5:9].tolist()
    for row, source in enumerate(sources):
        view = Image.fromarray(source)
        view = functional.resized_crop(
            view, *boxes[row], [SIZE, SIZE], InterpolationMode.BICUBIC
        )
        if ledger.flip[row]:
            view = functional.hflip(view)
        factors = jitter[row]
        if factors != [1, 1, 1, 0]:
            for operation in JITTER_ORDERS[ledger.jitter_order[row]]:
                view = adjust[operation](view, factors[operation])
        if ledger.grayscale[row]:
            view = functional.to_grayscale(view, 3)
        if ledger.blur_sigma[row] > 0:
            view = view.filter(ImageFilter.GaussianBlur(float(ledger.blur_sigma[row])))
        if ledger.solarize[row]:
            view = functional.solarize(view, 128)
        views[row] = np.asarray(view)
    return views


def main() -> None:
    """Measure the families, and print one line for each."""
    what, sources = images()
    print(describe())
    print(f"{N_IMAGES} {what}, {SIZE} px views, one thread")
    for family in ("strong", "strong_a", "strong_b", "spatial"):
        ledger = sample(family, N_IMAGES, 1)
        boxes = [
            pixel_boxes(row, *source.shape[:2])[0].tolist()
            for row, source in zip(ledger, sources, strict=True)
        ]
        reference = partial(by_pillow, sources, ledger, boxes)
        fused = partial(apply, sources, ledger, SIZE)
        difference = np.abs(fused().astype(int) - reference())
        ours, pillow = best_of(fused, 7), best_of(reference, 7)
        print(
            f"{family:9s} ce_align {N_IMAGES / ours:6.0f} views/s   "
            f"Pillow {N_IMAGES / pillow:6.0f}   {pillow / ours:.2f}×   "
            f"difference: mean {difference.mean():.4f}/255, "
            f"{(difference > 0).mean():.2%} of values"
        )


if __name__ == "__main__":
    main()
