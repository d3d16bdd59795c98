"""Views of images, made once and shown to every network.

ΔD_B compares networks on identical inputs. A batch of views is therefore rendered once
and streamed through all networks that lack it; what they answer is kept in small files,
so that an interrupted run goes on where it stopped.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.augment import TRANSFORMS_VERSION, AugmentationLedger, apply
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import DataError
from ce_align.files import atomic_path
from ce_align.progress import Progress, silent

if TYPE_CHECKING:
    from ce_align.models.networks import Network

__all__ = ["Responses", "Subject", "ViewSet", "respond"]

#: Images whose views are rendered, shown and stored together.
BLOCK = 4

FloatArray = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ViewSet:
    """Equally many views of every image.

    Attributes
    ----------
    name : what the views are for
    images : the images
    ledger : n_images × n_views rows, image by image
    size : height and width of a view in pixels
    crossed : None, or (crops, photometrics) if the views of an image are all
        combinations; then only means over blocks of them are kept, see `block_means`
    """

    name: str
    images: ImageSet
    ledger: AugmentationLedger
    size: int
    crossed: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if not len(self.images) or len(self.ledger) % len(self.images):
            raise DataError(
                f"{len(self.ledger)} views cannot be shared equally by "
                f"{len(self.images)} images"
            )

    @property
    def n_views(self) -> int:
        """Views of one image."""
        return len(self.ledger) // len(self.images)

    @cached_property
    def digest(self) -> str:
        """Digest of the images, of what was done to them and of what is kept."""
        settings = digest_json([TRANSFORMS_VERSION, self.size, self.crossed])
        return combine_digests(self.images.digest, self.ledger.digest, settings)

    def rows(self, image: int) -> AugmentationLedger:
        """What was done to one image, n_views rows."""
        start = image * self.n_views
        return self.ledger[start : start + self.n_views]

    def render(self, image: int) -> NDArray[np.uint8]:
        """Views (n_views, size, size, 3) of one image."""
        pixels = np.asarray(self.images.load(image))
        return apply(pixels, self.rows(image), self.size)

    def reduce(self, responses: FloatArray) -> FloatArray:
        """What is kept of the responses (n_views, n_features) to one image."""
        if self.crossed is None:
            return responses
        return block_means(responses.reshape(*self.crossed, -1))


def block_means(responses: FloatArray) -> FloatArray:
    """Means over halves of the crops and over halves of the photometrics.

    Parameters
    ----------
    responses : (n_crops, n_photometrics, n_features)

    Returns
    -------
    (2 × n_photometrics + 2 × n_crops, n_features)
        Of each photometric draw, the mean over the first and over the second half of
        the crops; then of each crop, the mean over the first and over the second half
        of the photometrics. Full means and the means of disjoint views both follow.
    """
    n_crops, n_photometrics, _ = responses.shape
    means = [
        *(half.mean(axis=0) for half in _halves(responses, n_crops, 0)),
        *(half.mean(axis=1) for half in _halves(responses, n_photometrics, 1)),
    ]
    kept: FloatArray = np.concatenate(means).astype(np.float32)
    return kept


def _halves(values: FloatArray, n: int, axis: int) -> tuple[FloatArray, FloatArray]:
    first, second = np.split(values, [n // 2], axis=axis)
    return first, second


@dataclass(frozen=True)
class Subject:
    """A network and the layer whose average over places is its response."""

    network: "Network"
    layer: str
    digest: str

    @classmethod
    def of(cls, network: "Network", layer: str | None) -> "Subject":
        """Subject with the named layer, or else the network's last for IT.

        Raises
        ------
        ConfigError
            If there is no such layer.
        """
        chosen = layer or network.layer_for("IT")
        network.check_layers([chosen])
        return cls(network, chosen, combine_digests(network.digest, chosen))


@dataclass(frozen=True)
class Responses:
    """Responses of subjects to view sets, in files of a few images each."""

    folder: Path

    def path(self, subject: Subject, views: ViewSet, block: int) -> Path:
        """File of one block of images."""
        return self.folder / subject.digest / views.digest / f"{block:05d}.npy"

    def load(self, subject: Subject, views: ViewSet) -> FloatArray:
        """Responses (n_images, n_kept, n_features)."""
        blocks = range(len(list(_blocks(len(views.images)))))
        return np.concatenate(
            [np.load(self.path(subject, views, block)) for block in blocks]
        )


def respond(
    subjects: Sequence[Subject],
    view_sets: Sequence[ViewSet],
    responses: Responses,
    *,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int = 1,
    progress: Progress = silent,
) -> None:
    """Let every subject answer every view; what is stored is not asked again.

    Parameters
    ----------
    subjects : networks with their layers
    view_sets : what to show
    responses : where the answers are kept
    device, batch_size : of the networks
    workers : threads that render views; the answers do not depend on their number
    progress : told of images done
    """
    from ce_align.models.pooled import PooledReader

    with ExitStack() as stack:
        readers: dict[str, PooledReader] = {}

        def reader(subject: Subject) -> PooledReader:
            if subject.digest not in readers:
                opened = PooledReader(
                    subject.network, subject.layer, device=device, batch_size=batch_size
                )
                readers[subject.digest] = stack.enter_context(opened)
            return readers[subject.digest]

        pool = stack.enter_context(ThreadPoolExecutor(workers))
        for views in view_sets:
            todo = list(_missing(subjects, views, responses))
            asked = [image for _, images, _ in todo for image in images]
            done = len(views.images) - len(asked)
            rendered = _prefetch(pool, views.render, asked, ahead=workers + 1)
            for block, images, lacking in todo:
                kept: dict[str, list[FloatArray]] = {s.digest: [] for s in lacking}
                for _ in images:
                    pixels = next(rendered)
                    for subject in lacking:
                        answer = views.reduce(reader(subject)(pixels))
                        kept[subject.digest].append(answer)
                    done += 1
                    progress(f"{views.name} views", done, len(views.images))
                for subject in lacking:
                    with atomic_path(responses.path(subject, views, block)) as path:
                        np.save(path, np.stack(kept[subject.digest]))


def _blocks(n_images: int) -> Iterator[range]:
    for start in range(0, n_images, BLOCK):
        yield range(start, min(start + BLOCK, n_images))


def _missing(
    subjects: Sequence[Subject], views: ViewSet, responses: Responses
) -> Iterator[tuple[int, range, list[Subject]]]:
    """Blocks that some subjects have not answered."""
    unique = {subject.digest: subject for subject in subjects}.values()
    for block, images in enumerate(_blocks(len(views.images))):
        lacking = [s for s in unique if not responses.path(s, views, block).exists()]
        if lacking:
            yield block, images, lacking


def _prefetch(
    pool: ThreadPoolExecutor,
    render: Callable[[int], NDArray[np.uint8]],
    images: Sequence[int],
    ahead: int,
) -> Iterator[NDArray[np.uint8]]:
    """Views of the images in order, rendered a little ahead of their use."""
    waiting: deque[Future[NDArray[np.uint8]]] = deque()
    try:
        for image in images:
            waiting.append(pool.submit(render, image))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
