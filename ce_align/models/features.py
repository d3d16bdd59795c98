"""Pixels of images in batches, decoded by threads ahead of the network."""

import json
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import atomic_path, cache_folder, check_space
from ce_align.models.activations import (
    ActivationReader,
    BatchRunner,
    LayerFailure,
    Pool,
    Precision,
)
from ce_align.models.devices import full_precision, prepared, resolve_device
from ce_align.models.networks import Behaviour, Network, Probe
from ce_align.models.preprocessing import Preprocessing
from ce_align.progress import Notify, quiet

__all__ = [
    "ALGORITHM_VERSION",
    "FeatureCache",
    "Features",
    "RowSink",
    "extract",
    "load_pixels",
    "pixel_batches",
]

Pixels = NDArray[np.uint8]


def load_pixels(images: ImageSet, index: int, preprocessing: Preprocessing) -> Pixels:
    """Resized pixels (height, width, 3) of one image.

    Raises
    ------
    DataError
        If its file cannot be read.
    """
    try:
        return preprocessing.resize(images.load(index))
    except OSError as error:
        raise DataError(
            f"image {images.ids[index]} cannot be read: {error.strerror or error}"
        ) from error


def pixel_batches(
    images: ImageSet, rows: Sequence[int], preprocessing: Preprocessing, size: int
) -> Iterator[tuple[list[int], Pixels]]:
    """Rows of each batch and their pixels (n, height, width, 3).

    As many threads as torch uses decode the next batch while the network works on this
    one.
    """
    pool = ThreadPoolExecutor(min(8, torch.get_num_threads()))
    waiting: deque[Future[Pixels]] = deque()
    coming = iter(rows)
    try:
        for start in range(0, len(rows), size):
            batch = list(rows[start : start + size])
            while len(waiting) < 2 * size and (row := next(coming, None)) is not None:
                waiting.append(pool.submit(load_pixels, images, row, preprocessing))
            yield batch, np.stack([waiting.popleft().result() for _ in batch])
    finally:
        pool.shutdown(cancel_futures=True)


FloatArray = NDArray[np.float32]

#: Rows that are copied at a time from another set's file.
COPIED_ROWS = 64


class RowSink:
    """Rows of float32 that are written in any order; a context manager.

    An ``.npy`` file is written, not mapped: a full disk is then an error and not a
    signal, and the pages do not count as memory of the process.

    Parameters
    ----------
    path : ``.npy`` file to write; None for memory
    n_rows : of the whole
    """

    def __init__(self, path: Path | None, n_rows: int) -> None:
        self._path, self._n_rows = path, n_rows
        self._file: IO[bytes] | None = None
        self._start = 0
        self.values: FloatArray = np.empty((0, 0), np.float32)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def _open(self, n_columns: int) -> None:
        shape = (self._n_rows, n_columns)
        if self._path is None:
            self.values = np.empty(shape, np.float32)
            return
        self._file = self._path.open("wb")
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        npy_format: Any = np.lib.format
        npy_format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    def write(self, rows: Sequence[int], values: FloatArray) -> None:
        """Write values (n, d) as the given rows."""
        if self._file is None and not self.values.size:
            self._open(values.shape[1])
        if self._file is None:
            self.values[list(rows)] = values
            return
        runs = np.flatnonzero(np.diff(rows) != 1) + 1
        for run in np.split(np.arange(len(rows)), runs):
            self._file.seek(self._start + rows[run[0]] * 4 * values.shape[1])
            block = np.ascontiguousarray(values[run[0] : run[-1] + 1], "<f4")
            self._file.write(block.data)

    def copy(
        self,
        digests: Sequence[str],
        known: Mapping[str, tuple[Path, int]],
        *,
        skip: Container[int],
    ) -> None:
        """Write the rows, except `skip`, that other files already have."""
        by_file: dict[Path, list[tuple[int, int]]] = {}
        for row, digest in enumerate(digests):
            if row not in skip:
                path, source = known[digest]
                by_file.setdefault(path, []).append((row, source))
        for path, pairs in by_file.items():
            values = np.load(path, mmap_mode="r")
            for start in range(0, len(pairs), COPIED_ROWS):
                rows, sources = zip(*pairs[start : start + COPIED_ROWS], strict=True)
                self.write(rows, values[list(sources)])


@dataclass(frozen=True)
class FeatureCache:
    """Folder of cached features."""

    folder: Path

    def read(
        self, key: str, images_digest: str, n_rows: int, behaviour: Behaviour
    ) -> FloatArray | None:
        """Features of an image set as a read-only memory map, or None."""
        path = self.folder / key / f"{images_digest}.npy"
        digests, stored = self._listing(path)
        if len(digests) != n_rows or stored is None or not stored.agrees(behaviour):
            return None
        return _mapped(path, n_rows)

    def has_another(self, key: str, images_digest: str, behaviour: Behaviour) -> bool:
        """Whether there are features of a network that answered otherwise."""
        stored = self._listing(self.folder / key / f"{images_digest}.npy")[1]
        return stored is not None and not stored.agrees(behaviour)

    def shared_rows(
        self, key: str, wanted: set[str], behaviour: Behaviour
    ) -> dict[str, tuple[Path, int]]:
        """File and row of every wanted image that another set already has."""
        found: dict[str, tuple[Path, int]] = {}
        for listing in sorted((self.folder / key).glob("[!.]*.json")):
            path = listing.with_suffix(".npy")
            digests, stored = self._listing(path)
            if stored is None or not stored.agrees(behaviour):
                continue
            new = wanted.intersection(digests).difference(found)
            if new and _mapped(path, len(digests)) is not None:
                found |= {
                    digest: (path, row)
                    for row, digest in enumerate(digests)
                    if digest in new
                }
        return found

    @contextmanager
    def writing(
        self,
        key: str,
        images_digest: str,
        image_digests: Sequence[str],
        behaviour: Behaviour,
    ) -> Iterator[Path]:
        """Temporary path of features; they are in the cache after a success."""
        path = self.folder / key / f"{images_digest}.npy"
        with atomic_path(path) as temporary:
            yield temporary
        # Last: who sees the list of rows can rely on the rows.
        with atomic_path(path.with_suffix(".json")) as temporary:
            listing = {"images": list(image_digests), "behaviour": behaviour.document()}
            temporary.write_text(json.dumps(listing))

    def _listing(self, path: Path) -> tuple[list[str], Behaviour | None]:
        """Digest of each row's image, and the behaviour; nothing from damaged files."""
        try:
            listing: Any = json.loads(path.with_suffix(".json").read_text())
            digests = [str(digest) for digest in listing["images"]]
            return digests, Behaviour.read(listing.get("behaviour"))
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return [], None


def _mapped(path: Path, n_rows: int) -> FloatArray | None:
    """Read-only map of an ``.npy`` file, None if it is missing or damaged."""
    try:
        values: FloatArray = np.load(path, mmap_mode="r")
    except (OSError, ValueError, EOFError):
        return None
    known = values.ndim == 2 and len(values) == n_rows and values.dtype == np.float32
    return values if known else None


#: Part of every cache key: raise it when the same request would give other numbers.
ALGORITHM_VERSION = 1

#: Images a batch, unless it is said. On a CPU the activations of more leave its caches;
#: a GPU's memory may make it smaller.
BATCH_SIZES = {"cpu": 16, "cuda": 256, "mps": 32}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one layer of one network for one set of images.

    Attributes
    ----------
    values : (n_images, n_features) float32, in memory or a read-only memory map
    model : name of the network
    layer : name of the layer
    image_ids : identifiers of the rows
    digest : of the network's weights, the layer, pooling, algorithm and the images
    """

    values: NDArray[np.float32]
    model: str
    layer: str
    image_ids: tuple[str, ...]
    digest: str

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or len(self.values) != len(self.image_ids):
            raise DataError(
                f"features of {self.model} {self.layer} have shape "
                f"{self.values.shape}; expected a row for each of "
                f"{len(self.image_ids)} images"
            )


def extract(
    network: Network,
    images: ImageSet,
    layers: Sequence[str],
    *,
    batch_size: int | None = None,
    device: str = "auto",
    cache: Path | Literal["default"] | None = "default",
    pool: Pool = None,
    precision: Precision = "float32",
    compile: bool = False,
    overwrite: bool = False,
    probe: Probe | None = None,
    failures: dict[str, CeAlignError] | None = None,
    progress: Progress | None = None,
    notify: Notify = quiet,
) -> dict[str, Features]:
    """Features of several layers for a set of images, computed in one pass.

    Only what the cache lacks is computed; features are taken from it only while the
    network still answers as it did when they were computed. The same request gives the
    same features to float32 rounding, whatever the batch size, device or number of
    threads.

    Parameters
    ----------
    network : to read; it is not changed
    images : to show
    layers : names of its layers
    batch_size : images at a time; None for 16, or 256 on a GPU
    device : ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``
    cache : folder of cached features; None keeps the features in memory instead
    pool : None flattens each output, ``average`` averages it over places or tokens
    precision : ``bfloat16`` is faster on some machines and has 3 digits
    compile : use torch.compile, which takes a minute to start and is then faster
    overwrite : compute again what the cache has
    probe : what `network.probe` has just said of these layers; None asks it
    failures : takes layers that fail, and why, while the others are read; None raises
        for the first
    progress : called with the number of images done and of all
    notify : told if cached features cannot be used any more

    Returns
    -------
    features : by layer, without those that fail

    Raises
    ------
    ConfigError
        If a layer or the device does not exist, or there are no images.
    DataError
        If a layer does not return numbers that can be features, or an image cannot be
        read.
    CeAlignError
        If the disk or the memory is too small.
    """
    network.check_layers(list(layers))
    if not len(images) or (batch_size is not None and batch_size < 1):
        raise ConfigError(
            f"expected images and a batch size of at least 1, found {len(images)} "
            f"images and batch size {batch_size}"
        )
    device = resolve_device(device)
    probe = probe or network.probe(layers)
    job = _Job(
        network=network,
        images=images,
        pool=pool,
        precision=precision,
        device=device,
        batch_size=batch_size,
        compile=compile,
        probe=probe,
        failures={} if failures is None else failures,
        strict=failures is None,
        progress=progress or (lambda done, total: None),
    )
    for layer in layers:
        if layer in probe.failures:
            job.fail(layer, probe.failures[layer])
    keys = job.keys([layer for layer in layers if layer not in job.failures])
    kept = {layer: key for layer, key in keys.items() if probe.behaviour(layer)}
    if cache is None:
        kept = {}
    store = FeatureCache(cache if isinstance(cache, Path) else cache_folder("features"))
    found = {} if overwrite else job.cached(kept, store, notify)
    missing = {layer: key for layer, key in kept.items() if layer not in found}
    if missing:
        job.compute(missing, store, overwrite=overwrite)
        found |= job.cached(missing, store)
    passing = {layer: key for layer, key in keys.items() if layer not in kept}
    if passing:
        found |= job.compute(passing, None, overwrite=True)
    lost = [layer for layer in keys if layer not in found and layer not in job.failures]
    if lost:
        raise CeAlignError(
            f"the cached features of {network.name} {lost[0]} were removed meanwhile; "
            "run again"
        )
    return {
        layer: Features(
            values=found[layer],
            model=network.name,
            layer=layer,
            image_ids=images.ids,
            digest=combine_digests(key, images.digest),
        )
        for layer, key in keys.items()
        if layer in found
    }


@dataclass(frozen=True, eq=False)
class _Job:
    """One call of :func:`extract`."""

    network: Network
    images: ImageSet
    pool: Pool
    precision: Precision
    device: str
    batch_size: int | None
    compile: bool
    probe: Probe
    failures: dict[str, CeAlignError]
    strict: bool
    progress: Progress
    image_digests: list[str] = field(init=False)

    def __post_init__(self) -> None:
        digests = [self.images.image_digest(i) for i in range(len(self.images))]
        object.__setattr__(self, "image_digests", digests)

    def fail(self, layer: str, error: CeAlignError) -> None:
        """Note that a layer has no features, or raise."""
        if self.strict:
            raise error
        self.failures[layer] = error

    def keys(self, layers: Sequence[str]) -> dict[str, str]:
        """Cache key of each layer."""
        content = {
            "network": self.probe.digest,
            "pool": self.pool,
            "precision": self.precision,
            "algorithm": ALGORITHM_VERSION,
        }
        return {layer: digest_json({**content, "layer": layer}) for layer in layers}

    def cached(
        self, keys: Mapping[str, str], store: FeatureCache, notify: Notify = quiet
    ) -> dict[str, NDArray[np.float32]]:
        """Features that the cache has of this network as it answers now."""
        found = {}
        for layer, key in keys.items():
            behaviour = self.probe.behaviours[layer]
            values = store.read(key, self.images.digest, len(self.images), behaviour)
            if values is not None:
                found[layer] = values
            elif store.has_another(key, self.images.digest, behaviour):
                notify(
                    f"{self.network.name} {layer} answers otherwise than when its "
                    "features were cached; they are computed again"
                )
        return found

    def compute(
        self, keys: Mapping[str, str], store: FeatureCache | None, *, overwrite: bool
    ) -> dict[str, NDArray[np.float32]]:
        """Write features to the cache; without one, return them."""
        shared: dict[str, dict[str, tuple[Path, int]]] = {layer: {} for layer in keys}
        if store is not None and not overwrite:
            wanted = set(self.image_digests)
            shared = {
                layer: store.shared_rows(key, wanted, self.probe.behaviours[layer])
                for layer, key in keys.items()
            }
        rows = [
            row
            for row, digest in enumerate(self.image_digests)
            if any(digest not in known for known in shared.values())
        ]
        n_images = len(self.images)
        n_done = n_images - len(rows)
        with ExitStack() as stack:
            sinks = {
                layer: stack.enter_context(_Sink(self, layer, key, store))
                for layer, key in keys.items()
            }

            def drop(layer: str, error: CeAlignError) -> None:
                self.fail(layer, DataError(f"{self.network.name}: {error}"))
                sinks.pop(layer).discard(error)

            for batch, outputs in self._outputs(list(keys), rows, drop):
                if store is not None and batch[0] == rows[0]:
                    width = sum(values.shape[1] for values in outputs.values())
                    n_bytes = 4 * width * n_images
                    check_space(
                        store.folder, n_bytes, "the features", "or pool the layer"
                    )
                for layer in [layer for layer in sinks if layer in outputs]:
                    fault = self._fault(outputs[layer], layer, batch)
                    if fault is None:
                        sinks[layer].rows.write(batch, outputs[layer])
                    else:
                        drop(layer, fault)
                n_done += len(batch)
                self.progress(n_done, n_images)
            for layer, sink in sinks.items():
                sink.rows.copy(self.image_digests, shared[layer], skip=set(rows))
            return {
                layer: sink.rows.values for layer, sink in sinks.items() if not store
            }

    def _fault(
        self, values: NDArray[np.float32], layer: str, rows: Sequence[int]
    ) -> DataError | None:
        finite = np.isfinite(values).all(axis=1)
        if finite.all():
            return None
        first = self.images.ids[rows[int(np.argmin(finite))]]
        return DataError(
            f"layer {layer} gives NaN or infinity for {int((~finite).sum())} of "
            f"{len(rows)} images, first {first}; look at its weights"
        )

    def _outputs(
        self, layers: list[str], rows: list[int], drop: LayerFailure
    ) -> Iterator[tuple[list[int], dict[str, NDArray[np.float32]]]]:
        """Batches of rows with the layers' features."""
        if not rows:
            return
        kind = self.device.partition(":")[0]
        size = self.batch_size or BATCH_SIZES[kind]
        preprocessing = self.network.preprocessing
        first = load_pixels(self.images, rows[0], preprocessing)
        with self.network.running(), self._named():
            module = prepared(self.network, layers, self.device, first)
        reader = ActivationReader(
            module,
            layers,
            self.pool,
            axes=self.probe.axes,
            compile=self.compile,
            precision=self.precision,
            on_error=drop,
        )
        with reader, full_precision(self.device):
            run = BatchRunner(reader, preprocessing, self.device)
            for batch, pixels in pixel_batches(self.images, rows, preprocessing, size):
                with self.network.running(), self._named():
                    outputs = run(pixels)
                yield batch, outputs

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A failure of the pass as one of this network."""
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.network.name}: {error}") from error


class _Sink:
    """Where one layer's features go: its file in the cache, or memory."""

    def __init__(
        self, job: _Job, layer: str, key: str, store: FeatureCache | None
    ) -> None:
        self._open = ExitStack()
        path = None
        if store is not None:
            path = self._open.enter_context(
                store.writing(
                    key,
                    job.images.digest,
                    job.image_digests,
                    job.probe.behaviours[layer],
                )
            )
        self.rows = self._open.enter_context(RowSink(path, len(job.images)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.__exit__(*error)

    def discard(self, error: CeAlignError) -> None:
        """Leave nothing of it."""
        self._open.__exit__(type(error), error, error.__traceback__)
        self._open = ExitStack()
