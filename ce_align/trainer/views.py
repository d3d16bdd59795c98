"""Which images meet in which step, and the four views of every pair.

Everything follows from the seed, the epoch and the step: nothing is remembered, so any
process can resume anywhere, and every process computes the same plan and takes its own
rows of it.
"""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from types import FrameType
from typing import NamedTuple, Self, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ce_align.augment import AugmentationLedger, apply, sample
from ce_align.augment.families import find_family
from ce_align.augment.transforms import apply_batch, pixel_boxes
from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.trainer.data import image_arrays

__all__ = [
    "Batch",
    "PairPlan",
    "PairedViews",
    "PixelBatch",
    "Step",
    "half_split",
    "view_loader",
]


#: Streams of random numbers that one seed gives.
SPLIT, VIEW_A, VIEW_B = range(3)


@dataclass(frozen=True)
class PairBatch:
    """The pairs of one step on one process, (n_pairs, 2) indices of images.

    Row n of `view_a` and `view_b` is applied to both images of pair n; its crop is in
    whole pixels of the first.
    """

    images: NDArray[np.int64]
    view_a: AugmentationLedger
    view_b: AugmentationLedger

    @property
    def parameters(self) -> Tensor:
        """Augmentation parameters (n_pairs, 2, 12) of views A and B."""
        both = [ledger.parameters() for ledger in (self.view_a, self.view_b)]
        return torch.from_numpy(np.stack(both, axis=1).astype(np.float32))


@lru_cache(maxsize=2)
def half_split(n_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Two random halves of the images, drawn anew for every epoch.

    The columns of (n_images // 2, 2) numbers, read-only. Of an odd number of images
    one sits out, another every epoch.
    """
    order = _stream(seed, SPLIT, epoch).permutation(n_images)
    halves = order[: n_images // 2 * 2].reshape(2, -1).T
    halves.flags.writeable = False
    return halves


@dataclass(frozen=True)
class PairPlan:
    """Pairs and augmentations of every step of every epoch.

    An epoch has as many whole steps as its pairs fill; the rest sits out, and the next
    split draws others.

    Parameters
    ----------
    n_images : in the data set
    pairs_per_step : over all processes
    seed : of halves and augmentations
    families : names of the augmentations of views A and B, of one view each
    n_processes, process : how many share a step, and which of them this is

    Raises
    ------
    ConfigError
        If the images do not fill one step, a step cannot be shared out evenly, or a
        family is unknown or has several views.
    """

    n_images: int
    pairs_per_step: int
    seed: int
    families: tuple[str, str] = ("strong_a", "strong_b")
    n_processes: int = 1
    process: int = 0

    def __post_init__(self) -> None:
        if self.pairs_per_step < 1 or self.n_images < 2 * self.pairs_per_step:
            raise ConfigError(
                f"{self.n_images} images do not fill a step of {self.pairs_per_step} "
                "pairs; give two images for every pair or take fewer pairs a step"
            )
        if self.n_processes < 1 or self.pairs_per_step % self.n_processes:
            raise ConfigError(
                f"{self.pairs_per_step} pairs a step cannot be shared out among "
                f"{self.n_processes} processes; take a multiple"
            )
        if not 0 <= self.process < self.n_processes:
            raise ConfigError(
                f"process {self.process} is not one of {self.n_processes}; count from 0"
            )
        if self.seed < 0:
            raise ConfigError(f"the seed is {self.seed}; give 0 or a positive number")
        for name in self.families:
            if len(find_family(name).views) != 1:
                raise ConfigError(
                    f"family {name!r} has several views; name one for view A and one "
                    "for view B, such as 'strong_a' and 'strong_b'"
                )

    @property
    def steps_per_epoch(self) -> int:
        """Whole steps in an epoch."""
        return self.n_images // 2 // self.pairs_per_step

    def images(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The pairs (n_pairs, 2) of this process in a step."""
        own = self._own_rows(epoch, step)
        start = step * self.pairs_per_step
        pairs = half_split(self.n_images, self.seed, epoch)
        return pairs[start : start + self.pairs_per_step][own]

    def batch(
        self,
        epoch: int,
        step: int,
        sizes: NDArray[np.int64] | None = None,
    ) -> PairBatch:
        """The rows of this process in a step, counted from 0.

        Those of all processes, joined in their order, are those of a single process.

        Parameters
        ----------
        epoch, step : which
        sizes : (n_pairs, 2) height and width in pixels of the first image of each pair,
            see `images`: crops are sampled for it, and its second image gets the same
            relative place; None stands for squares of no particular size

        Raises
        ------
        ConfigError
            If the epoch has no such step.
        """
        own = self._own_rows(epoch, step)
        every = None
        if sizes is not None:
            # What crops the rows of others get plays no part.
            every = np.ones((self.pairs_per_step, 2), np.int64)
            every[own] = sizes
        # Every process samples the whole step, a few milliseconds for a thousand rows,
        # so that no row depends on how many processes there are.
        view_a, view_b = (
            sample(
                family,
                self.pairs_per_step,
                _stream(self.seed, stream, epoch, step),
                sizes=every,
            )[own]
            for family, stream in zip(self.families, (VIEW_A, VIEW_B), strict=True)
        )
        return PairBatch(self.images(epoch, step), view_a, view_b)

    def _own_rows(self, epoch: int, step: int) -> slice:
        """Which rows of a step this process takes."""
        if epoch < 0 or not 0 <= step < self.steps_per_epoch:
            raise ConfigError(
                f"there is no step {step} in epoch {epoch}; an epoch has "
                f"{self.steps_per_epoch} steps, counted from 0"
            )
        share = self.pairs_per_step // self.n_processes
        return slice(self.process * share, (self.process + 1) * share)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[PairBatch]:
        """The steps of an epoch from `first_step` on."""
        for step in range(first_step, self.steps_per_epoch):
            yield self.batch(epoch, step)


def _stream(seed: int, *place: int) -> np.random.Generator:
    """Random numbers of one place; no two places share them."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))


#: Share of padding in a block, and its pixels with padding, at most; a single image may
#: have more.
MOST_PADDING, MOST_PIXELS = 0.5, 1 << 24


class Batch(NamedTuple):
    """One step of one process.

    Views (4, n_pairs, size, size, 3) uint8 in the order of `objectives.VIEWS`, and
    labels (n_pairs, 2): the class of either image, −1 where there are none; parameters
    (n_pairs, 2, 12) of views A and B, in the order of `PARAMETER_NAMES`.
    """

    views: Tensor
    labels: Tensor
    parameters: Tensor


@dataclass(frozen=True, eq=False)
class PixelBlock:
    """Images of a step that have about the same size.

    Smaller ones end in padding: `pixels` are (n, height, width, 3) uint8. Each is image
    `halves` of pair `pairs`, (n,) both; what views A and B do to it, `ledgers`, is
    relative to the padded frame.
    """

    pixels: Tensor
    halves: Tensor
    pairs: Tensor
    ledgers: tuple[AugmentationLedger, AugmentationLedger]


@dataclass(frozen=True, eq=False)
class PixelBatch:
    """The images of one step of one process, and what their views show.

    Views are rendered where the network is: pixels travel, with the ledger rows that
    worker processes would have applied. On a CPU the pixels are equal to theirs, see
    `ce_align.augment.apply_batch`. Labels and parameters are those of a `Batch`.
    """

    blocks: tuple[PixelBlock, ...]
    labels: Tensor
    parameters: Tensor

    @classmethod
    def of(
        cls,
        halves: tuple[list[NDArray[np.uint8]], list[NDArray[np.uint8]]],
        batch: PairBatch,
        labels: Tensor,
    ) -> Self:
        """The batch of the first and the second images of all pairs, of any sizes."""
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
        return cls(tuple(blocks), labels, batch.parameters)

    def to(self, device: torch.device | str) -> Self:
        """The batch with its tensors on a device."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=True))

    def pin_memory(self) -> Self:
        """The batch in memory that a GPU reads without waiting."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> Self:
        blocks = tuple(
            PixelBlock(move(b.pixels), move(b.halves), move(b.pairs), b.ledgers)
            for b in self.blocks
        )
        own = {"labels": move(self.labels), "parameters": move(self.parameters)}
        return replace(self, blocks=blocks, **own)

    def rendered(self, size: int) -> Batch:
        """The views, rendered on the device where the pixels are."""
        shape = (2, 2, len(self.labels), size, size, 3)
        views = torch.empty(shape, dtype=torch.uint8, device=self.labels.device)
        for block in self.blocks:
            pixels = block.pixels.permute(0, 3, 1, 2)
            for view, ledger in enumerate(block.ledgers):
                found = apply_batch(pixels, ledger, size).permute(0, 2, 3, 1)
                views[block.halves, view, block.pairs] = found
        return Batch(views.flatten(0, 1), self.labels, self.parameters)


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


#: Epoch and step, both counted from 0.
Position: TypeAlias = tuple[int, int]


#: What a loader gives: views, pixels to be rendered, or why there are none.
Step: TypeAlias = Batch | PixelBatch | CeAlignError


@dataclass(frozen=True, eq=False)
class PairedViews(Dataset[Step]):
    """The passes of a training: a pure function of plan, images, epoch and pass.

    An image that cannot be read gives its error in place of the batch, because an
    exception raised in a worker arrives as a page of text. With `on_device` it gives
    pixels, which the training renders where its network is.
    """

    images: ImageSet
    plan: PairPlan
    labels: NDArray[np.int64]
    view_size: int
    on_device: bool = False

    def __getitem__(self, position: Position) -> Step:
        """The batch of (epoch, step)."""
        epoch, step = position
        pairs = self.plan.images(epoch, step)
        try:
            first, second = (image_arrays(self.images, x) for x in pairs.T)
        except CeAlignError as error:
            return error
        except OSError as error:
            return DataError(f"an image of {self.images.identifier} is gone: {error}")
        sizes = np.array([pixels.shape[:2] for pixels in first])
        batch = self.plan.batch(epoch, step, sizes)
        labels = torch.from_numpy(self.labels[pairs])
        if self.on_device:
            return PixelBatch.of((first, second), batch, labels)
        views = [
            apply(pixels, ledger, self.view_size)
            for pixels in (first, second)
            for ledger in (batch.view_a, batch.view_b)
        ]
        return Batch(torch.from_numpy(np.stack(views)), labels, batch.parameters)


class _Remaining(Sampler[Position]):
    """Positions from where training stands to the end of the epoch."""

    def __init__(self, plan: PairPlan, position: Callable[[], tuple[int, int]]) -> None:
        self._plan, self._position = plan, position

    def __len__(self) -> int:
        # Of the whole epoch: a resumed one ends at the same step.
        return self._plan.steps_per_epoch

    def __iter__(self) -> Iterator[Position]:
        epoch, step = self._position()
        for later in range(step, len(self)):
            yield epoch, later


def view_loader(
    views: PairedViews,
    position: Callable[[], tuple[int, int]],
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Step]:
    """Loader of the steps that remain of the epoch in which training stands.

    `position`, asked at the start of every epoch, is the epoch and step that come next.
    The processes that render, `workers`, change no bit of the result.
    """
    return DataLoader(
        views,
        sampler=_Remaining(views.plan, position),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        # Its own generator: the loader draws a seed that nothing here uses.
        generator=torch.Generator(),
        persistent_workers=workers > 0,
        worker_init_fn=_quiet_worker,
    )


def _quiet_worker(worker: int) -> None:
    """Leave signals to the main process, which ends its workers itself.

    SLURM sends them to every process of a job. A second SIGTERM is obeyed: it comes
    from the main process, if a worker does not end as it should.
    """

    def first(signum: int, frame: FrameType | None) -> None:
        signal.signal(signum, signal.SIG_DFL)

    for signum in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(signum, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, first)
