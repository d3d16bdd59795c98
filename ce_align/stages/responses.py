"""Responses of networks to views that are made once and shown to all of them.

ΔD_B compares networks on identical inputs. A batch of views is therefore rendered once
and streamed through all networks that lack it; their responses are kept in small files,
so that an interrupted run goes on where it stopped.
"""

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ce_align.arrays import mapped_array, seal
from ce_align.augment import AugmentationLedger
from ce_align.errors import CeAlignError, DataError, explained
from ce_align.files import atomic_path, check_regular, check_space, read_text
from ce_align.progress import Notify, Progress, quiet, silent
from ce_align.stages.running import Hardware, NetworkLayer
from ce_align.stages.views import FAMILY, ViewPlan, ViewSet

if TYPE_CHECKING:
    from ce_align.models.devices import PooledReader
    from ce_align.models.networks import Behaviour

__all__ = ["NetworkResponses", "ResponseStore", "respond"]

#: Images whose views are rendered, shown and stored together.
BLOCK = 4

#: Responses of a network to fixed images, beside those to views.
BEHAVIOUR = "behaviour.json"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class ResponseStore:
    """Responses of networks to view sets, in files of a few images each."""

    folder: Path

    def path(self, source: NetworkLayer, views: ViewSet, block: int) -> Path:
        """File of one block of images."""
        return self.folder / source.digest / views.digest / f"{block:05d}.npy"

    def settle(self, source: NetworkLayer, *, fresh: bool = False) -> bool:
        """Forget responses of a network that has changed; True if there were some.

        Parameters
        ----------
        fresh : keep nothing
        """
        folder = self.folder / source.digest
        behaviour = source.behaviour
        stored = _stored_behaviour(folder / BEHAVIOUR)
        agrees = bool(behaviour and stored and stored.agrees(behaviour))
        if agrees and not fresh:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        if behaviour is not None:
            with atomic_path(folder / BEHAVIOUR) as path:
                path.write_text(json.dumps(behaviour.document()))
        return stored is not None and not agrees

    def check_space(self, n_bytes: int) -> None:
        """Raise CeAlignError unless so many bytes of responses fit on the disk."""
        check_space(
            self.folder, n_bytes, "the responses", "or ask for fewer images or views"
        )

    def load(self, source: NetworkLayer, views: ViewSet) -> FloatArray:
        """Responses (n_images, n_kept, n_features)."""
        blocks = range(len(list(_blocks(len(views.images)))))
        try:
            return np.concatenate(
                [
                    np.load(check_regular(self.path(source, views, block)))
                    for block in blocks
                ]
            )
        except (OSError, ValueError, EOFError) as error:
            raise CeAlignError(
                f"the responses of {source.name} to {views.name} views were "
                f"removed or damaged meanwhile ({error}); run again with --force"
            ) from error


@dataclass(frozen=True, eq=False)
class NetworkResponses:
    """Responses of one network to the views of an analysis, read when asked for.

    Attributes
    ----------
    source : the network and its layer
    plan : of the views; its settings are those of every network, but for their names
    sets : view sets by name; without those that these images do not allow
    stored : where the responses are
    """

    source: NetworkLayer
    plan: ViewPlan
    sets: Mapping[str, ViewSet]
    stored: ResponseStore

    def __getitem__(self, name: str) -> FloatArray:
        """Responses (n_images, n_views, n_features) to a view set.

        (n_images, n_features) if one response of each image is kept; (n_classes,
        n_images_per_class, n_features) for ``classes``; of ``crossed`` views, means
        over blocks, see `ce_align.stages.views.block_means`.

        Raises
        ------
        DataError
            If these images do not allow such views.
        """
        if self._named(name) not in self.sets:
            why = self.plan.without_classes if name == "classes" else None
            raise DataError(why or f"there are no {name} views of these images")
        views = self.sets[self._named(name)]
        found = self.stored.load(self.source, views)
        if name == "classes" and self.plan.classes is not None:
            return found.reshape(len(self.plan.classes), -1, found.shape[-1])
        return found[:, 0] if views.mean or views.n_views == 1 else found

    def get(self, name: str) -> FloatArray | None:
        """The same, or None if these images do not allow such views."""
        return self[name] if self._named(name) in self.sets else None

    def ledger(self, name: str) -> AugmentationLedger:
        """What was done to the images, n_images × n_views rows, image by image."""
        return self.sets[self._named(name)].ledger

    def _named(self, name: str) -> str:
        return self.plan.config.family if name == FAMILY else name


def respond(
    networks: Sequence[NetworkLayer],
    view_sets: Sequence[ViewSet],
    responses: ResponseStore,
    *,
    hardware: Hardware,
    force: bool = False,
    progress: Progress = silent,
    notify: Notify = quiet,
) -> dict[str, CeAlignError]:
    """Show every view to every network, unless its responses are stored.

    Parameters
    ----------
    networks : networks with their layers
    view_sets : what to show
    responses : where they are kept
    hardware : device, batch size and rendering threads
    force : compute again what is stored
    progress : told of views done, of all sets together
    notify : told of networks whose features have changed

    Returns
    -------
    Networks, by their digest, that do not respond, and why. The others do.

    Raises
    ------
    ConfigError
        If there is no such device.
    DataError
        If an image cannot be read.
    CeAlignError
        If the responses do not fit on the disk.
    """
    from ce_align.models.devices import resolve_device

    resolve_device(hardware.device)
    for source in {source.digest: source for source in networks}.values():
        if responses.settle(source, fresh=force):
            notify(
                f"{source.name} {source.layer} gives other features than when "
                "its responses were stored; they are computed again"
            )
    missing = [
        list(_missing(networks, views, responses, notify)) for views in view_sets
    ]
    n_views = sum(views.n_views * len(views.images) for views in view_sets)
    done = n_views - sum(
        views.n_views * len(images)
        for views, todo in zip(view_sets, missing, strict=True)
        for _, images, _ in todo
    )
    with ExitStack() as stack:
        readers = _Readers(hardware, stack)
        pool = stack.enter_context(ThreadPoolExecutor(hardware.workers))
        for views, todo in zip(view_sets, missing, strict=True):
            wanted = [image for _, images, _ in todo for image in images]
            rendered = _prefetch(pool, views.render, wanted, ahead=hardware.workers + 1)
            for block, images, lacking in todo:
                kept: dict[str, list[FloatArray]] = {s.digest: [] for s in lacking}
                for _ in images:
                    pixels = next(rendered)
                    for source in lacking:
                        values = readers.read(source, pixels)
                        if values is not None:
                            kept[source.digest].append(views.reduce(values))
                    done += views.n_views
                    progress("views", done, n_views)
                found = {
                    source: np.stack(kept[source.digest])
                    for source in lacking
                    if source.digest not in readers.failed
                }
                if block == todo[0][0]:
                    block_bytes = sum(values.nbytes for values in found.values())
                    responses.check_space(block_bytes * len(todo))
                for source, values in found.items():
                    with atomic_path(responses.path(source, views, block)) as path:
                        np.save(path, values)
                        seal(path)
        return readers.failed


def _stored_behaviour(path: Path) -> "Behaviour | None":
    from ce_align.models.networks import Behaviour

    try:
        return Behaviour.read(json.loads(read_text(path)))
    except (OSError, ValueError):
        return None


class _Readers:
    """Networks on the device, each put there when it is first read."""

    def __init__(self, hardware: Hardware, stack: ExitStack) -> None:
        self._hardware = hardware
        self._stack = stack
        self._open: dict[str, PooledReader] = {}
        self.failed: dict[str, CeAlignError] = {}

    def read(
        self, source: NetworkLayer, pixels: NDArray[np.uint8]
    ) -> FloatArray | None:
        """Responses (n_views, n_features), or None from a network that has failed."""
        if source.digest in self.failed:
            return None
        try:
            values = self._reader(source)(pixels)
            if not np.isfinite(values).all():
                raise DataError("gives NaN or infinity for some views")
        except Exception as error:  # any code can run in a network
            found = explained(error)
            named = f"{source.name} {source.layer}: {found}"
            self.failed[source.digest] = type(found)(named)
            self.failed[source.digest].__cause__ = error
            return None
        return values

    def _reader(self, source: NetworkLayer) -> "PooledReader":
        from ce_align.models.devices import PooledReader

        if source.digest not in self._open:
            reader = PooledReader(
                source.network,
                source.layer,
                device=self._hardware.device,
                batch_size=self._hardware.batch_size,
                axis=source.probe.axes[source.layer],
            )
            self._open[source.digest] = self._stack.enter_context(reader)
        return self._open[source.digest]


def _blocks(n_images: int) -> Iterator[range]:
    for start in range(0, n_images, BLOCK):
        yield range(start, min(start + BLOCK, n_images))


def _missing(
    networks: Sequence[NetworkLayer],
    views: ViewSet,
    responses: ResponseStore,
    notify: Notify,
) -> Iterator[tuple[int, range, list[NetworkLayer]]]:
    """Blocks that some networks lack, or whose files are damaged."""
    unique = {source.digest: source for source in networks}.values()
    for block, images in enumerate(_blocks(len(views.images))):
        lacking = []
        for source in unique:
            path = responses.path(source, views, block)
            if mapped_array(path) is not None:
                continue
            lacking.append(source)
            if path.exists():
                notify(
                    f"responses of {source.name} {source.layer} in {path} are damaged; "
                    "they are computed again"
                )
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
