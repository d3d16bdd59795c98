"""Features: outputs of a network's layers for a set of images.

On disk, ``<key>/<image set>.npy`` holds one layer's features; ``.json`` beside it holds
the digest of each row's image and, in short, the layer's outputs for the probe images.
The key has the digests of the network, layer, pooling and algorithm, so a change of any
of them is another folder; features of a network whose outputs are others now are not
used. An image that several sets share is computed once: other sets copy its row. A file
of which a byte has changed is noticed by its checksum, and written again.
"""

import json
from collections import deque
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import IO, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from ce_align.arrays import mapped_array, seal
from ce_align.checks import named_some
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import (
    atomic_path,
    cache_folder,
    check_regular,
    check_space,
    read_text,
)
from ce_align.models.activations import LayerFailure, Pool, network_inputs
from ce_align.models.devices import (
    BATCH_SIZES,
    devices_of,
    kind_of,
    reading,
    resolve_device,
    usual_batch,
)
from ce_align.models.given import FeatureArray
from ce_align.models.memory import available_memory, check_memory, pass_bytes
from ce_align.models.networks import Behaviour, Network, Probe, probe_pixels
from ce_align.progress import Notify, quiet

__all__ = ["ALGORITHM_VERSION", "BATCH_SIZES", "Features", "extract"]

#: Part of every cache key: raise it when the same request would give other numbers.
ALGORITHM_VERSION = 1

#: Rows that are copied at a time from another set's file.
COPIED_ROWS = 64

Pixels = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Features:
    """Features of one layer of one network for one set of images.

    The values, (n_images, n_features), are in memory or a read-only memory map; the
    digest is of the network, the layer, pooling, algorithm and the images.
    """

    values: FloatArray
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
    network: Network | FeatureArray,
    images: ImageSet,
    layers: Sequence[str],
    *,
    batch_size: int | None = None,
    device: str = "auto",
    cache: Path | Literal["default"] | None = "default",
    pool: Pool = None,
    compile: bool = False,
    overwrite: bool = False,
    probe: Probe | None = None,
    failures: dict[str, CeAlignError] | None = None,
    progress: Progress | None = None,
    notify: Notify = quiet,
) -> dict[str, Features]:
    """Features of several layers for a set of images, computed in one pass.

    Only what the cache lacks is computed; features are taken from it only while the
    network's outputs are what they were when they were computed. The same request gives
    the same features to float32 rounding, whatever the batch size, device or number of
    threads.

    Parameters
    ----------
    network : to read; it is not changed. An array of features is taken as it is
    images : to show
    layers : names of its layers
    batch_size : images at a time; None for 16, or 256 on a GPU, fewer of large inputs
    device : ``auto`` (a GPU if there is one), ``cpu``, ``cuda``, ``cuda:1``; several,
        ``cuda:0,cuda:1`` or ``gpus`` for all, share the images
    cache : folder of cached features; None keeps the features in memory instead
    pool : None flattens each output, ``average`` averages it over places or tokens
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
    if isinstance(network, FeatureArray):
        return network.features(images, layers)
    if not len(images) or (batch_size is not None and batch_size < 1):
        raise ConfigError(
            f"expected images and a batch size of at least 1, found {len(images)} "
            f"images and batch size {batch_size}"
        )
    device = resolve_device(device)
    job = _Job(
        network=network,
        images=images,
        digests=[images.image_digest(i) for i in range(len(images))],
        options={"pool": pool, "compile": compile},
        device=device,
        batch_size=batch_size
        or usual_batch(BATCH_SIZES, device, network.preprocessing.size),
        fixed=batch_size is not None,
        probe=probe or network.probe(layers),
        failures=failures,
        progress=progress or (lambda done, total: None),
    )
    content = {
        "network": job.probe.digest,
        "pool": pool,
        "precision": "float32",  # as keys have said since there was another
        "algorithm": ALGORITHM_VERSION,
    }
    keys: dict[str, str] = {}
    kept: dict[str, _Entry] = {}
    folder = cache if isinstance(cache, Path) else cache_folder("features")
    for layer in layers:
        if layer in job.probe.failures:
            job.fail(layer, job.probe.failures[layer])
            continue
        keys[layer] = digest_json({**content, "layer": layer})
        behaviour = job.probe.behaviour(layer)
        if behaviour is not None and cache is not None:
            path = folder / keys[layer] / f"{images.digest}.npy"
            kept[layer] = _Entry(path, job.digests, behaviour)
    found: dict[str, FloatArray] = {}
    for layer, entry in kept.items():
        values = None if overwrite else entry.read()
        if values is not None:
            found[layer] = values
        elif not overwrite and entry.is_outdated():
            notify(
                f"{network.name} {layer} gives other features than those in the "
                "cache; they are computed again"
            )
        elif not overwrite and entry.is_there():
            notify(
                f"the features of {network.name} {layer} in the cache are damaged; "
                "they are computed again"
            )
    missing = {layer: e for layer, e in kept.items() if layer not in found}
    if missing:
        job.compute(missing, share=not overwrite)
        for layer, entry in missing.items():
            values = entry.read()
            if values is not None:
                found[layer] = values
            elif layer not in job.failed:
                raise CeAlignError(
                    f"the cached features of {network.name} {layer} were removed "
                    "meanwhile; run again"
                )
    passing = [layer for layer in keys if layer not in kept]
    if passing:
        found |= job.compute(dict.fromkeys(passing))
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


@dataclass(frozen=True)
class _Entry:
    """Place of one layer's features for an image set in the cache."""

    path: Path
    digests: Sequence[str]
    behaviour: Behaviour

    def read(self) -> FloatArray | None:
        """Features as a read-only memory map, or None."""
        digests, stored = _listing(self.path)
        if len(digests) != len(self.digests) or not self._knows(stored):
            return None
        return _mapped(self.path, len(digests))

    def is_outdated(self) -> bool:
        """Whether there are features of a network with other outputs."""
        stored = _listing(self.path)[1]
        return stored is not None and not self._knows(stored)

    def is_there(self) -> bool:
        """Whether there are files, be they as they were written or not."""
        return self.path.exists() and self.path.with_suffix(".json").exists()

    def shared_rows(self) -> dict[str, tuple[Path, int]]:
        """File and row of every image that another set already has."""
        found: dict[str, tuple[Path, int]] = {}
        for listing in sorted(self.path.parent.glob("[!.]*.json")):
            path = listing.with_suffix(".npy")
            digests, stored = _listing(path)
            new = set(self.digests).intersection(digests).difference(found)
            if new and self._knows(stored) and _mapped(path, len(digests)) is not None:
                rows = enumerate(digests)
                found |= {d: (path, row) for row, d in rows if d in new}
        return found

    @contextmanager
    def writing(self) -> Iterator[Path]:
        """Temporary path of features; they are in the cache after a success."""
        with atomic_path(self.path) as temporary:
            yield temporary
            seal(temporary)
        # Last: who sees the list of rows can rely on the rows.
        with atomic_path(self.path.with_suffix(".json")) as temporary:
            behaviour = self.behaviour.document()
            listing = {"images": list(self.digests), "behaviour": behaviour}
            temporary.write_text(json.dumps(listing))

    def _knows(self, stored: Behaviour | None) -> bool:
        return stored is not None and stored.agrees(self.behaviour)


def _listing(path: Path) -> tuple[list[str], Behaviour | None]:
    """Digest of each row's image, and the behaviour; nothing from damaged files."""
    try:
        listing: Any = json.loads(read_text(path.with_suffix(".json")))
        digests = [str(digest) for digest in listing["images"]]
        return digests, Behaviour.read(listing.get("behaviour"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [], None


def _mapped(path: Path, n_rows: int) -> FloatArray | None:
    """Read-only map of an ``.npy`` file, None if it is missing or damaged."""
    values = mapped_array(path)
    if values is None or values.ndim != 2 or values.dtype != np.float32:
        return None
    return values if len(values) == n_rows else None


@dataclass(frozen=True, eq=False)
class _Job:
    """One call of :func:`extract`."""

    network: Network
    images: ImageSet
    digests: list[str]
    options: dict[str, Any]
    device: str
    batch_size: int
    fixed: bool
    probe: Probe
    failures: dict[str, CeAlignError] | None
    progress: Progress

    @property
    def failed(self) -> Container[str]:
        """Layers that have no features."""
        return self.failures or ()

    def fail(self, layer: str, error: CeAlignError) -> None:
        """Note that a layer has no features, or raise."""
        if self.failures is None:
            raise error
        self.failures[layer] = error

    def within_memory(self, entries: Mapping[str, "_Entry | None"]) -> Self:
        """Itself, with smaller batches where memory is short, unless they are fixed.

        Raises CeAlignError if it would not fit; features of layers without an entry
        stay in memory.
        """
        layers, held = list(entries), [k for k, entry in entries.items() if not entry]
        network, size = self.network, self.network.preprocessing.size
        width = {k: b.width for k, b in self.probe.behaviours.items()}
        # What is averaged over places is small.
        kept = 0 if self.options["pool"] else sum(width.get(k, 0) for k in held)
        needs = {"features": 4 * kept * len(self.images)}
        # Decoded images that wait, inputs, and outputs on their way to the disk.
        one = 3 * prod(size) * 11 + 8 * sum(width.get(layer, 0) for layer in layers)
        if kind_of(self.device) == "cpu":
            module = network.module
            needs["a copy of the network"] = sum(
                p.numel() * p.element_size() for p in module.parameters()
            )
            with suppress(DataError), network.running():
                at = next((str(p.device) for p in module.parameters()), "cpu")
                pixels = probe_pixels(*size)[:1]
                inputs = network_inputs(module, network.preprocessing, pixels, at)
                one += pass_bytes(module, layers, inputs)
        one *= len(devices_of(self.device))
        free, batch = available_memory(), self.batch_size
        while free is not None and batch > 1 and not self.fixed:
            if sum(needs.values()) + batch * one <= free:
                break
            batch //= 2
        check_memory(
            {**needs, f"a batch of {batch}": batch * one},
            f"reading {named_some(layers)} of {network.name}",
            "read fewer layers at a time, choose a smaller batch size or pool them",
        )
        return replace(self, batch_size=batch)

    def compute(
        self, entries: Mapping[str, "_Entry | None"], share: bool = False
    ) -> dict[str, FloatArray]:
        """Write features to their places in the cache; those without one, return."""
        shared = {
            layer: entry.shared_rows() if entry and share else {}
            for layer, entry in entries.items()
        }
        n_images = len(self.images)
        rows = [
            row
            for row, digest in enumerate(self.digests)
            if any(digest not in known for known in shared.values())
        ]
        n_done = n_images - len(rows)
        job = self.within_memory(entries) if rows else self
        with ExitStack() as stack:
            sinks: dict[str, RowSink] = {}
            opened: dict[str, ExitStack] = {}
            for layer, entry in entries.items():
                opened[layer] = stack.enter_context(ExitStack())
                path = opened[layer].enter_context(entry.writing()) if entry else None
                sinks[layer] = opened[layer].enter_context(RowSink(path, n_images))

            def drop(layer: str, error: CeAlignError) -> None:
                self.fail(layer, DataError(f"{self.network.name}: {error}"))
                del sinks[layer]
                # As a failure, so that nothing of it is kept.
                opened[layer].__exit__(type(error), error, error.__traceback__)

            for batch, outputs in job._outputs(list(entries), rows, drop):
                written = [entry for entry in entries.values() if entry]
                if written and batch[0] == rows[0]:
                    width = sum(values.shape[1] for values in outputs.values())
                    folder, n_bytes = written[0].path.parents[1], 4 * width * n_images
                    check_space(folder, n_bytes, "the features", "or pool the layer")
                for layer in [layer for layer in sinks if layer in outputs]:
                    fault = self._fault(outputs[layer], layer, batch)
                    if fault is None:
                        sinks[layer].write(batch, outputs[layer])
                    else:
                        drop(layer, fault)
                n_done += len(batch)
                self.progress(n_done, n_images)
            for layer, sink in sinks.items():
                sink.copy(self.digests, shared[layer], skip=set(rows))
            return {k: sink.values for k, sink in sinks.items() if not entries[k]}

    def _fault(
        self, values: FloatArray, layer: str, rows: Sequence[int]
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
    ) -> Iterator[tuple[list[int], dict[str, FloatArray]]]:
        """Batches of rows with the layers' features."""
        if not rows:
            return
        first = self._pixels(rows[0])
        options = {**self.options, "axes": self.probe.axes, "on_error": drop}
        options["batch_size"] = self.batch_size
        with ExitStack() as stack:
            with self._named():
                read = stack.enter_context(
                    reading(self.network, layers, self.device, first, **options)
                )
            for batch, pixels in self._batches(rows):
                with self._named():
                    outputs = read(pixels)
                yield batch, outputs

    @contextmanager
    def _named(self) -> Iterator[None]:
        """A failure of the pass as one of this network."""
        try:
            yield
        except DataError as error:
            raise DataError(f"{self.network.name}: {error}") from error

    def _pixels(self, row: int) -> Pixels:
        """Resized pixels (height, width, 3) of one image."""
        try:
            return self.network.preprocessing.resize(self.images.load(row))
        except OSError as error:
            raise DataError(
                f"image {self.images.ids[row]} cannot be read: "
                f"{error.strerror or error}"
            ) from error

    def _batches(self, rows: list[int]) -> Iterator[tuple[list[int], Pixels]]:
        """Rows of each batch and their pixels (n, height, width, 3).

        As many threads as torch uses decode the next batch while the network works on
        this one.
        """
        pool = ThreadPoolExecutor(min(8, torch.get_num_threads()))
        waiting: deque[Future[Pixels]] = deque()
        coming, size = iter(rows), self.batch_size * len(devices_of(self.device))
        try:
            for start in range(0, len(rows), size):
                while (
                    len(waiting) < 2 * size and (row := next(coming, None)) is not None
                ):
                    waiting.append(pool.submit(self._pixels, row))
                batch = rows[start : start + size]
                yield batch, np.stack([waiting.popleft().result() for _ in batch])
        finally:
            pool.shutdown(cancel_futures=True)


class RowSink:
    """Rows of float32 that are written in any order; a context manager.

    They go to an ``.npy`` file, or without a path to `values`. The file is written, not
    mapped: a full disk is then an error and not a signal, and the pages do not count as
    memory of the process.
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
            values = np.load(check_regular(path), mmap_mode="r")
            for start in range(0, len(pairs), COPIED_ROWS):
                rows, sources = zip(*pairs[start : start + COPIED_ROWS], strict=True)
                self.write(rows, values[list(sources)])
