"""Crops of ours beside the authors' rule, on photographs that are not square.

Run with ``python -m benchmarks.fidelity.crops``. The authors sample a crop with
torchvision's ``RandomResizedCrop`` for the first image of a pair and give the second
image the same relative place in truncated pixels; both rules are followed here with
their own random numbers, on the pairs of one epoch and on the views of the analyses.
Photographs come from the developers' data folder where it exists, else sizes of such
photographs are drawn.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop

from ce_align.augment import sample
from ce_align.augment.transforms import pixel_boxes
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.views import PairPlan, half_split

__all__ = ["authors_boxes", "main", "our_boxes", "statistics"]

#: Views of each first image.
N_VIEWS = 10
SCALE, RATIO = [0.08, 1.0], [3 / 4, 4 / 3]

#: Top, left, height and width (n, 4) in pixels.
Boxes = NDArray[np.int64]


def photograph_sizes() -> tuple[str, NDArray[np.int64]]:
    """Height and width (n, 2) of photographs whose short side is 256."""
    stated = os.environ.get("CE_ALIGN_TEST_DATA")
    root = Path(stated) if stated else Path(__file__).parents[2] / "shared" / "data"
    path = root / "imagenet_photos" / "imagenet1000_short256.zip"
    if path.is_file():
        return "photographs", ImageSet.from_path(path).sizes
    long = np.random.default_rng(0).choice([256, 341, 384, 455], 1000)
    upright = np.random.default_rng(1).random(1000) < 0.25
    sizes = np.where(upright[:, None], [[1, 0]], [[0, 1]]) * (long - 256)[:, None] + 256
    return "sizes as photographs have them", sizes


def authors_boxes(
    first: NDArray[np.int64], second: NDArray[np.int64], seed: int
) -> tuple[Boxes, Boxes]:
    """Crops of pairs by the authors' rule, from image sizes (n, 2)."""
    torch.manual_seed(seed)
    own, other = [], []
    for (height_1, width_1), (height_2, width_2) in zip(
        first.tolist(), second.tolist(), strict=True
    ):
        frame = torch.empty(3, height_1, width_1)
        i, j, h, w = RandomResizedCrop.get_params(frame, SCALE, RATIO)
        own.append((i, j, h, w))
        other.append(
            (
                *(int(i * height_2 / height_1), int(j * width_2 / width_1)),
                *(int(h * height_2 / height_1), int(w * width_2 / width_1)),
            )
        )
    return np.array(own), np.array(other)


def our_boxes(
    first: NDArray[np.int64], second: NDArray[np.int64], seed: int, *, square: bool
) -> tuple[Boxes, Boxes]:
    """Crops of pairs of ours; `square` samples them as if all images were square."""
    ledger = sample("strong_a", len(first), seed, sizes=None if square else first)
    own, other = (
        np.concatenate(
            [pixel_boxes(row, *size) for row, size in zip(ledger, sizes, strict=True)]
        )
        for sizes in (first, second)
    )
    return own, other


def statistics(boxes: Boxes, sizes: NDArray[np.int64]) -> Mapping[str, str]:
    """What is compared of crops (n, 4) of images (n, 2)."""
    aspect = boxes[:, 3] / boxes[:, 2]
    area = boxes[:, 2] * boxes[:, 3] / sizes.prod(axis=1)
    centre = (boxes[:, :2] + boxes[:, 2:] / 2) / sizes
    # Sides in whole pixels may leave the range by half a pixel each.
    low = (boxes[:, 3] + 0.5) / (boxes[:, 2] - 0.5) < RATIO[0]
    high = (boxes[:, 3] - 0.5) / (boxes[:, 2] + 0.5) > RATIO[1]
    return {
        "aspect median [5, 95 %]": _quantiles(aspect),
        "outside [3/4, 4/3]": f"{np.mean(low | high):.1%}",
        "area median [5, 95 %]": _quantiles(area),
        "centre, sd down and across": "{:.3f} {:.3f}".format(*centre.std(axis=0)),
        "whole image": f"{np.mean((boxes[:, 2:] == sizes).all(axis=1)):.1%}",
    }


def _quantiles(values: NDArray[np.float64]) -> str:
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95])
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


def _print_table(columns: Mapping[str, Mapping[str, str]]) -> None:
    rows: Sequence[str] = list(next(iter(columns.values())))
    width = max(map(len, rows))
    print(" " * width, *(f"{name:>20}" for name in columns))
    for row in rows:
        print(f"{row:<{width}}", *(f"{column[row]:>20}" for column in columns.values()))


def main() -> None:
    """Print both images of pairs: the authors' rule, ours, and squares'."""
    what, sizes = photograph_sizes()
    pairs = np.tile(half_split(len(sizes), seed=0, epoch=0), (N_VIEWS, 1))
    first, second = sizes[pairs[:, 0]], sizes[pairs[:, 1]]
    found = {
        "authors": authors_boxes(first, second, 0),
        "ours": our_boxes(first, second, 0, square=False),
        "as if square": our_boxes(first, second, 0, square=True),
    }
    print(f"{len(sizes)} {what}, {len(pairs)} crops of {len(pairs) // N_VIEWS} pairs")
    for k, of in enumerate((first, second)):
        print(f"\n{('first', 'second')[k]} image of a pair")
        _print_table({name: statistics(boxes[k], of) for name, boxes in found.items()})
    # The same crops of the first image: the second's must be the same to the pixel.
    own, other = found["ours"]
    truncated = own * np.tile(second, 2) // np.tile(first, 2)
    print(f"\nsecond boxes that are the truncated first: {_equal(truncated, other)}")
    plan = PairPlan(len(sizes), len(sizes) // 4, seed=0)
    chosen = plan.images(0, 0)
    batch = plan.batch(0, 0, sizes=sizes[chosen[:, 0]])
    trained = np.concatenate(
        [
            pixel_boxes(row, *size)
            for row, size in zip(batch.view_a, sizes[chosen[:, 0]], strict=True)
        ]
    )
    print("crops of a training step:")
    _print_table({"ours": statistics(trained, sizes[chosen[:, 0]])})


def _equal(one: Boxes, other: Boxes) -> str:
    same = (one == other).all(axis=1)
    return f"{same.sum()} of {len(same)}"


if __name__ == "__main__":
    main()
