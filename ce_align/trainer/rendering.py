"""Views rendered where the network is: pixels travel, with what is done to them.

The ledger rows are those that worker processes would have applied, and the pixels are
equal on a CPU; see `ce_align.augment.torch_transforms`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ce_align.augment import AugmentationLedger
from ce_align.augment.torch_transforms import apply_batch
from ce_align.augment.transforms import pixel_boxes
from ce_align.trainer.pairs import PairBatch

__all__ = ["Batch", "PixelBatch", "PixelBlock"]

#: Share of padding in a block, and its pixels with padding, at most; a single image may
#: have more.
MOST_PADDING, MOST_PIXELS = 0.5, 1 << 24


class Batch(NamedTuple):
    """One step of one process.

    Attributes
    ----------
    views : (4, n_pairs, size, size, 3) uint8, in the order of
        `ce_align.trainer.equivariance.VIEWS`
    labels : (n_pairs, 2) class of either image, −1 where there are none
    """

    views: Tensor
    labels: Tensor


@dataclass(frozen=True, eq=False)
class PixelBlock:
    """Images of a step that have about the same size.

    Attributes
    ----------
    pixels : (n, height, width, 3) uint8; smaller images end in padding
    halves, pairs : (n,) which image of which pair each is
    ledgers : what views A and B do to each, relative to the padded frame
    """

    pixels: Tensor
    halves: Tensor
    pairs: Tensor
    ledgers: tuple[AugmentationLedger, AugmentationLedger]


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """The images of one step of one process, and what their views show.

    Attributes
    ----------
    blocks : all images, each once
    labels : (n_pairs, 2) class of either image, −1 where there are none
    """

    blocks: tuple[PixelBlock, ...]
    labels: Tensor

    @classmethod
    def of(
        cls,
        halves: tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]],
        batch: PairBatch,
        labels: Tensor,
    ) -> Self:
        """The batch of images (height, width, 3) of any sizes.

        Parameters
        ----------
        halves : the first images of all pairs, and the second
        batch : what is done to them
        labels : (n_pairs, 2)
        """
        images = [*halves[0], *halves[1]]
        sizes = np.array([image.shape[:2] for image in images])
        views = batch.view_a, batch.view_b
        boxes = {
            size: [pixel_boxes(ledger, *size) for ledger in views]
            for size in set(map(tuple, sizes.tolist()))
        }
        blocks = []
        for rows in _alike(sizes):
            halves_of, pairs = np.divmod(rows, len(labels))
            frame = sizes[rows].max(axis=0)
            pixels = np.zeros((len(rows), *frame, 3), np.uint8)
            places = np.empty((2, len(rows), 4))
            for place, (row, pair) in enumerate(zip(rows, pairs, strict=True)):
                height, width = sizes[row].tolist()
                pixels[place, :height, :width] = images[row]
                places[:, place] = [box[pair] for box in boxes[height, width]]
            view_a, view_b = (
                _placed(ledger[pairs], boxes_of, frame)
                for ledger, boxes_of in zip(views, places, strict=True)
            )
            numbers = torch.from_numpy(halves_of), torch.from_numpy(pairs)
            blocks.append(
                PixelBlock(torch.from_numpy(pixels), *numbers, (view_a, view_b))
            )
        return cls(tuple(blocks), labels)

    def to(self, device: torch.device | str) -> Self:
        """The batch with its tensors on a device."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The batch in memory that a GPU reads without waiting."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        blocks = [
            replace(
                block,
                pixels=move(block.pixels),
                halves=move(block.halves),
                pairs=move(block.pairs),
            )
            for block in self.blocks
        ]
        return replace(self, blocks=tuple(blocks), labels=move(self.labels))

    def rendered(self, size: int) -> Batch:
        """The views, rendered on the device where the pixels are."""
        shape = (2, 2, len(self.labels), size, size, 3)
        views = torch.empty(shape, dtype=torch.uint8, device=self.labels.device)
        for block in self.blocks:
            pixels = block.pixels.permute(0, 3, 1, 2)
            for view, ledger in enumerate(block.ledgers):
                found = apply_batch(pixels, ledger, size).permute(0, 2, 3, 1)
                views[block.halves, view, block.pairs] = found
        return Batch(views.flatten(0, 1), self.labels)


def _alike(sizes: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    """Numbers of images that make a block each, given their (n, 2) sizes."""
    order = np.lexsort((sizes[:, 1], sizes[:, 0]))
    start, content = 0, 0
    for end, row in enumerate(order):
        content += int(sizes[row].prod())
        frame = int(sizes[order[start : end + 1]].max(axis=0).prod())
        padded = frame * (end + 1 - start)
        wasteful = content < (1 - MOST_PADDING) * padded
        if end > start and (wasteful or padded > MOST_PIXELS):
            yield order[start:end]
            start, content = end, int(sizes[row].prod())
    yield order[start:]


def _placed(
    ledger: AugmentationLedger, boxes: NDArray[np.float64], frame: NDArray[np.int64]
) -> AugmentationLedger:
    """The ledger for images in a larger frame: the same crops in whole pixels."""
    top, left, height, width = (boxes / [*frame, *frame]).T
    return replace(
        ledger, crop_top=top, crop_left=left, crop_height=height, crop_width=width
    )
