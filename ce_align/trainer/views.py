"""The four views of every pair, rendered by worker processes from the plan."""

import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from ce_align.augment import apply
from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet
from ce_align.data.scenes import SIMULATED_IMAGES, find_images, procedural_scenes
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, DataError
from ce_align.trainer.packing import is_packed, open_packed
from ce_align.trainer.pairs import PairPlan
from ce_align.trainer.pixels import image_arrays
from ce_align.trainer.rendering import Batch, PixelBatch

__all__ = [
    "LABEL_COLUMNS",
    "PairedViews",
    "Position",
    "check_images",
    "data_digest",
    "digested",
    "image_labels",
    "open_images",
    "view_loader",
]

#: Epoch and pass, both counted from 0; a step takes one pass or several.
Position: TypeAlias = tuple[int, int]

#: What a loader gives: views, pixels to be rendered, or why there are none.
Step: TypeAlias = Batch | PixelBatch | CeAlignError

#: Procedural scenes that `simulated` stands for, and their size in views.
N_SCENES, SCENE_SCALE = 2048, 2
#: Images that are looked at before training starts, evenly spaced.
N_PROBED = 64
#: Images of which all enter the digest of a set, and those that do of a larger one.
N_WHOLE, N_DIGESTED = 20_000, 2_000
#: Columns that may hold the class of an image, the first that is there.
LABEL_COLUMNS = ("label", "object_name")


def open_images(name: str, view_size: int, seed: int = 0) -> ImageSet:
    """Images for training, by name.

    Parameters
    ----------
    name : folder, zip, tar, a folder that `pack` wrote, or ``simulated``; with
        ``:FOLDER`` for those below one folder, as ``images.zip:train``
    view_size : in pixels; scenes are drawn twice as large
    seed : of the scenes

    Raises
    ------
    ConfigError, DataError
        If there are no images of that name.
    """
    if name == SIMULATED_IMAGES:
        size = min(max(SCENE_SCALE * view_size, 32), 512)
        scenes = procedural_scenes(N_SCENES, seed=seed, size=size)
        # Drawn once: a scene costs more than its views.
        pixels = np.stack([np.asarray(scenes.load(i)) for i in range(len(scenes))])
        labels = {"label": scenes.columns["object_name"]}
        return ImageSet.from_array(name, pixels, scenes.ids, labels)
    place, colon, below = name.rpartition(":")
    if colon and not Path(name).exists():
        return _below(open_images(place, view_size, seed), below.strip("/"), name)
    if is_packed(Path(name)):
        return open_packed(Path(name))
    return find_images(name)


def _below(images: ImageSet, folder: str, name: str) -> ImageSet:
    rows = [i for i, key in enumerate(images.ids) if key.startswith(f"{folder}/")]
    if not rows:
        folders = sorted({key.partition("/")[0] for key in images.ids})
        raise DataError(
            f"no images at {name}; the folders of {images.identifier} are "
            f"{named_some(folders)}"
        )
    return images.select(rows)


def image_labels(images: ImageSet) -> tuple[NDArray[np.int64], int]:
    """Class of every image and the number of classes; −1 and 0 without labels."""
    for column in LABEL_COLUMNS:
        if column in images.columns:
            names, labels = np.unique(images.columns[column], return_inverse=True)
            if 1 < len(names) < len(images):
                return labels.astype(np.int64), len(names)
    return np.full(len(images), -1), 0


def data_digest(images: ImageSet) -> str:
    """Digest of all identifiers, and of the content of all images or of many.

    The identifiers are the names with their folders, and so the classes. Up to 20,000
    images all content enters: any change is noticed. Of larger sets 2,000 evenly spaced
    images enter, because a million take longer to read than is worth waiting for: if
    1 % of the images, anywhere, have changed, that goes unnoticed twice in a billion
    times; a single one usually does.
    """
    n_images = len(images)
    if n_images > N_WHOLE:
        sample = images.select(_spaced(n_images, N_DIGESTED))
        return combine_digests(digest_json(images.ids), sample.digest)
    return combine_digests(digest_json(images.ids), images.digest)


def digested(n_images: int) -> str:
    """What `data_digest` covers, in words."""
    whole = n_images <= N_WHOLE
    content = "all" if whole else f"{N_DIGESTED} evenly spaced"
    return f"names of all {n_images} images, content of {content}"


def check_images(images: ImageSet, view_size: int) -> None:
    """Look at 64 evenly spaced images before training starts.

    Raises
    ------
    DataError
        If there are fewer than two images, one of them cannot be read, or most of them
        are smaller than a view.
    """
    if len(images) < 2:
        raise DataError(
            f"{images.identifier} has {len(images)} image; pairs need at least two"
        )
    sizes = [min(images.load(i).size) for i in _spaced(len(images), N_PROBED)]
    small = sum(size < view_size for size in sizes)
    if 2 * small > len(sizes):
        raise DataError(
            f"{small} of {len(sizes)} images looked at in {images.identifier} are "
            f"smaller than a view of {view_size} pixels (the smallest has {min(sizes)})"
            "; take larger images or a preset of smaller views"
        )


def _spaced(n_images: int, n: int) -> list[int]:
    """At most `n` of the images, evenly spaced."""
    return [int(i) for i in np.linspace(0, n_images - 1, min(n_images, n))]


@dataclass(frozen=True, eq=False)
class PairedViews(Dataset[Step]):
    """The passes of a training: a pure function of plan, images, epoch and pass.

    An image that cannot be read gives its error in place of the batch, because an
    exception raised in a worker arrives as a page of text.

    Attributes
    ----------
    images : to be paired
    plan : which images meet in a step of this process, and their augmentations
    labels : (n_images,) class of each image
    view_size : in pixels
    on_device : give pixels, which the training renders where its network is
    """

    images: ImageSet
    plan: PairPlan
    labels: NDArray[np.int64]
    view_size: int
    on_device: bool = False

    def __getitem__(self, position: Position) -> Step:
        """The batch of (epoch, pass)."""
        epoch, place = position
        step, part = divmod(place, self.plan.n_passes)
        pairs = self.plan.images(epoch, step, part)
        try:
            first, second = (image_arrays(self.images, x) for x in pairs.T)
        except CeAlignError as error:
            return error
        except OSError as error:
            return DataError(f"an image of {self.images.identifier} is gone: {error}")
        sizes = np.array([pixels.shape[:2] for pixels in first])
        batch = self.plan.batch(epoch, step, part, sizes)
        labels = torch.from_numpy(self.labels[pairs])
        if self.on_device:
            return PixelBatch.of((first, second), batch, labels)
        views = [
            apply(pixels, ledger, self.view_size)
            for pixels in (first, second)
            for ledger in (batch.view_a, batch.view_b)
        ]
        return Batch(torch.from_numpy(np.stack(views)), labels)


class _Remaining(Sampler[Position]):
    """Positions from where training stands to the end of the epoch."""

    def __init__(self, plan: PairPlan, position: Callable[[], tuple[int, int]]) -> None:
        self._plan, self._position = plan, position

    def __len__(self) -> int:
        # Of the whole epoch: a resumed one ends at the same step.
        return self._plan.steps_per_epoch * self._plan.n_passes

    def __iter__(self) -> Iterator[Position]:
        epoch, step = self._position()
        for place in range(step * self._plan.n_passes, len(self)):
            yield epoch, place


def view_loader(
    views: PairedViews,
    position: Callable[[], tuple[int, int]],
    *,
    workers: int = 0,
    pin_memory: bool = False,
) -> DataLoader[Step]:
    """Loader of the steps that remain of the epoch in which training stands.

    Parameters
    ----------
    views : the steps
    position : epoch and step that come next, asked at the start of every epoch
    workers : processes that render; they change no bit of the result
    pin_memory : for faster copies to a GPU
    """
    options: dict[str, Any] = {}
    if workers:
        options = {"persistent_workers": True, "worker_init_fn": _quiet_worker}
    return DataLoader(
        views,
        sampler=_Remaining(views.plan, position),
        batch_size=None,
        num_workers=workers,
        pin_memory=pin_memory,
        # Its own generator: the loader draws a seed that nothing here uses.
        generator=torch.Generator(),
        **options,
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
