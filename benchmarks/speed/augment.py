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

from benchmarks.speed._measure import Measured, Rows, in_turns, main
from ce_align.augment import JITTER_ORDERS, AugmentationLedger, apply, sample
from ce_align.augment.transforms import pixel_boxes

SIZE = 224

Pixels = NDArray[np.uint8]


def photographs(number: int) -> tuple[str, list[Pixels]]:
    """Photographs, or a synthetic image of the same size, so many times."""
    stated = os.environ.get("CE_ALIGN_TEST_DATA")
    root = Path(stated) if stated else Path(__file__).parents[3] / "shared" / "data"
    path = root / "imagenet_photos" / "imagenet1000_short256.zip"
    if not path.is_file():
        noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        smooth = Image.fromarray(noise).resize((341, 256), Image.Resampling.BICUBIC)
        return "synthetic images", [np.array(smooth)] * number
    with zipfile.ZipFile(path) as archive:
        names = sorted(archive.namelist())[:: 1000 // number][:number]
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


def rows(images: int = 64) -> Rows:
    """Views of some images, by family."""
    what, sources = photographs(images)
    for family in ("strong", "strong_a", "strong_b", "spatial"):
        ledger = sample(family, images, 1)
        boxes = [
            pixel_boxes(row, *source.shape[:2])[0].tolist()
            for row, source in zip(ledger, sources, strict=True)
        ]
        reference = partial(by_pillow, sources, ledger, boxes)
        fused = partial(apply, sources, ledger, SIZE)
        difference = np.abs(fused().astype(int) - reference())
        ours, theirs = in_turns(fused, reference, repeats=5)
        yield Measured(
            f"{family} views of {images} {what}, {SIZE} px",
            1e3 * ours / images,
            "ms a view",
            peer="Pillow, as in the authors' code",
            theirs=1e3 * theirs / images,
            at_least=3 if family.startswith("strong") else None,
            apart=float(difference.mean()) / 255,
            within=1.5 / 255,
        )


if __name__ == "__main__":
    main(rows)
