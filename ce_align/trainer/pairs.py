"""Which images meet in which step, and what is done to them.

Everything follows from the seed, the epoch and the step: nothing is remembered, so any
process can resume anywhere, and every process computes the same plan and takes its own
rows of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import AugmentationLedger, sample
from ce_align.augment.families import find_family
from ce_align.errors import ConfigError

__all__ = ["PairBatch", "PairPlan", "half_split"]

#: Streams of random numbers that one seed gives.
SPLIT, VIEW_A, VIEW_B = range(3)


@dataclass(frozen=True)
class PairBatch:
    """The pairs of one step on one process.

    Attributes
    ----------
    images : (n_pairs, 2) indices: row n has an image of either half
    view_a, view_b : n_pairs rows each; row n is applied to both images of pair n, and
        its crop is in whole pixels of the first
    """

    images: NDArray[np.int64]
    view_a: AugmentationLedger
    view_b: AugmentationLedger


def half_split(n_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """Two random halves of the images, drawn anew for every epoch.

    Parameters
    ----------
    n_images : at least 2; of an odd number one image sits out, another every epoch
    seed, epoch : decide the halves

    Returns
    -------
    (n_images // 2, 2), read-only: column 0 is the one half, column 1 the other
    """
    return _half_split(n_images, seed, epoch)


@lru_cache(maxsize=2)
def _half_split(n_images: int, seed: int, epoch: int) -> NDArray[np.int64]:
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
    n_passes : that share the rows of a process

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
    n_passes: int = 1

    def __post_init__(self) -> None:
        if self.pairs_per_step < 1 or self.n_images < 2 * self.pairs_per_step:
            raise ConfigError(
                f"{self.n_images} images do not fill a step of {self.pairs_per_step} "
                "pairs; give two images for every pair or take fewer pairs a step"
            )
        if min(self.n_processes, self.n_passes) < 1 or self.pairs_per_step % (
            self.n_processes * self.n_passes
        ):
            passes = f" of {self.n_passes} passes" if self.n_passes > 1 else ""
            raise ConfigError(
                f"{self.pairs_per_step} pairs a step cannot be shared out among "
                f"{self.n_processes} processes{passes}; take a multiple"
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

    def images(self, epoch: int, step: int, part: int = 0) -> NDArray[np.int64]:
        """The pairs (n_pairs, 2) of this process in one pass of a step.

        Raises
        ------
        ConfigError
            If the epoch has no such step, or the step no such pass.
        """
        own = self._own_rows(epoch, step, part)
        start = step * self.pairs_per_step
        pairs = half_split(self.n_images, self.seed, epoch)
        return pairs[start : start + self.pairs_per_step][own]

    def batch(
        self,
        epoch: int,
        step: int,
        part: int = 0,
        sizes: NDArray[np.int64] | None = None,
    ) -> PairBatch:
        """The rows of this process in one pass of a step, all counted from 0.

        Those of all passes and processes, joined in their order, are those of a single
        process that takes one pass.

        Parameters
        ----------
        epoch, step, part : which
        sizes : (n_pairs, 2) height and width in pixels of the first image of each pair,
            see `images`: crops are sampled for it, and its second image gets the same
            relative place; None stands for squares of no particular size

        Raises
        ------
        ConfigError
            If the epoch has no such step, or the step no such pass.
        """
        own = self._own_rows(epoch, step, part)
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
        return PairBatch(self.images(epoch, step, part), view_a, view_b)

    def _own_rows(self, epoch: int, step: int, part: int) -> slice:
        """Which rows of a step this process takes in one pass."""
        if not 0 <= part < self.n_passes:
            raise ConfigError(
                f"there is no pass {part}; a step has {self.n_passes}, counted from 0"
            )
        if epoch < 0 or not 0 <= step < self.steps_per_epoch:
            raise ConfigError(
                f"there is no step {step} in epoch {epoch}; an epoch has "
                f"{self.steps_per_epoch} steps, counted from 0"
            )
        share = self.pairs_per_step // (self.n_processes * self.n_passes)
        first = (self.process * self.n_passes + part) * share
        return slice(first, first + share)

    def batches(self, epoch: int, first_step: int = 0) -> Iterator[PairBatch]:
        """The steps of an epoch from `first_step` on."""
        for step in range(first_step, self.steps_per_epoch):
            yield self.batch(epoch, step)


def _stream(seed: int, *place: int) -> np.random.Generator:
    """Random numbers of one place; no two places share them."""
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=place))
