"""Benchmarks of Brain-Score: their recordings, and recordings as benchmarks."""

import inspect
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ce_align.brainscore.access import Held, explained
from ce_align.brainscore.assemblies import (
    assembly_from_recording,
    coordinate_names,
    recording_from_assembly,
)
from ce_align.brainscore.upstream import import_brainscore, without_result_caching
from ce_align.checks import nearest_names
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, ConfigError, DataError

__all__ = [
    "benchmark_from_recording",
    "benchmark_names",
    "load_benchmark",
    "load_benchmark_recording",
]


def benchmark_names() -> list[str]:
    """Identifiers in Brain-Score's registry of benchmarks, without running plugins."""
    package = import_brainscore()
    folder = Path(str(package.__file__)).parent / "benchmarks"
    pattern = re.compile(r"""^\s*benchmark_registry\[['"]([^'"{]+)['"]\]""", re.M)
    found = [
        name
        for path in sorted(folder.glob("*/__init__.py"))
        for name in pattern.findall(path.read_text(encoding="utf-8"))
    ]
    return list(dict.fromkeys([*package.benchmark_registry, *found]))


def load_benchmark(identifier: str) -> Any:
    """Benchmark object of Brain-Score's registry.

    Its data are downloaded unless they are here, now or when they are asked for.

    Raises
    ------
    ConfigError
        If there is no such benchmark; with the nearest names.
    CeAlignError
        If it needs a package that is not installed.
    AccessError
        If its data are private or out of reach.
    """
    package = import_brainscore()
    if identifier not in package.benchmark_registry:
        known = benchmark_names()
        if identifier not in known:
            near = nearest_names(identifier, known)
            raise ConfigError(
                f"Brain-Score has no benchmark {identifier!r}; nearest: "
                f"{', '.join(near) or 'none'}"
            )
        with _explaining(identifier):
            package.import_plugin("brainscore_vision", "benchmarks", identifier)
    with _explaining(identifier):
        return package.benchmark_registry[identifier]()


@contextmanager
def _explaining(identifier: str) -> Iterator[None]:
    """Say in one line why a benchmark cannot be had."""
    try:
        with without_result_caching():
            yield
    except CeAlignError:
        raise
    except ImportError as error:
        raise CeAlignError(
            f"brainscore/{identifier} needs a package that is not installed: {error}"
        ) from error
    except Exception as error:  # Brain-Score raises bare ones
        meaning = explained(Held(f"brainscore/{identifier}", identifier), error)
        if meaning is None:
            raise
        raise meaning from error


def load_benchmark_recording(identifier: str) -> Recording:
    """Recording ``brainscore/ID``: what a neural benchmark holds.

    Repetitions are kept where the benchmark's ceiling is computed from them; without
    them the recording has no ceiling. Stimuli are in the benchmark's order and splits
    are balanced over its column. Of a benchmark that trains and tests on two sets of
    images, the recording holds both, training first, with the column ``part``.

    Raises
    ------
    ConfigError
        If there is no such benchmark, or it holds no responses of neuroids.
    DataError
        If its responses cannot be a recording.
    AccessError
        If its data are private or out of reach.
    """
    benchmark = load_benchmark(identifier)
    with _explaining(identifier):
        if hasattr(benchmark, "train_assembly"):
            parts = [
                _recording(benchmark, _loaded(getattr(benchmark, name)), identifier)
                for name in ("train_assembly", "test_assembly")
            ]
            return _joined(parts[0], parts[1])
        assembly = _loaded(getattr(benchmark, "_assembly", None))
        _check_neural(benchmark, assembly, identifier)
        shown = _recording(benchmark, assembly, identifier)
        for repeated in _repeated_assemblies(benchmark):
            try:
                recording = _recording(benchmark, repeated, identifier)
                if _is_average_of(shown, recording):
                    return recording
            except DataError:
                continue
        return shown


def _check_neural(benchmark: Any, assembly: Any, identifier: str) -> None:
    dims = set(getattr(assembly, "dims", ()))
    if {"presentation", "neuroid"} <= dims and hasattr(benchmark, "region"):
        return
    raise ConfigError(
        f"brainscore/{identifier} ({type(benchmark).__name__}) exposes no responses of "
        "neuroids to images, so that it cannot be a recording; choose a neural "
        "benchmark, such as brainscore/MajajHong2015public.V4-pls"
    )


def _loaded(assembly: Any) -> Any:
    """The assembly itself, where Brain-Score only holds a promise of it."""
    lazy = import_brainscore("utils").LazyLoad
    if type(assembly) is not lazy:
        return assembly
    assembly._ensure_loaded()
    return assembly.content


def _recording(benchmark: Any, assembly: Any, identifier: str) -> Recording:
    keys = assembly["stimulus_id"].values
    return recording_from_assembly(
        assembly,
        identifier=f"brainscore/{identifier}",
        region=str(benchmark.region),
        degrees=float(benchmark._visual_degrees),
        stratify=_stratification(benchmark),
        averaged=len(np.unique(keys)) == len(keys),
    )


def _stratification(benchmark: Any) -> str | None:
    """Column over which the benchmark's metric balances its splits."""
    metric = getattr(benchmark, "_similarity_metric", None)
    splitting = getattr(metric, "cross_validation", None)
    column = getattr(splitting, "_stratification_coord", None)
    return str(column) if column else None


def _repeated_assemblies(benchmark: Any) -> Iterator[Any]:
    """Assemblies with repetitions that the benchmark's ceiling refers to."""
    ceiling = getattr(benchmark, "_ceiling_func", None)
    if not inspect.isfunction(ceiling):
        return
    for value in inspect.getclosurevars(ceiling).nonlocals.values():
        assembly = _loaded(value)
        if "presentation" in getattr(
            assembly, "dims", ()
        ) and "repetition" in coordinate_names(assembly):
            yield assembly


def _is_average_of(shown: Recording, repeated: Recording) -> bool:
    """Whether `shown` holds the averages of `repeated`, in the same order."""
    if shown.n_repetitions > 1:
        return False
    names = (shown.images.ids, shown.neuroid_ids)
    if names != (repeated.images.ids, repeated.neuroid_ids):
        return False
    # Brain-Score averages single-precision responses in single precision.
    return np.allclose(repeated.averaged(), shown.averaged(), rtol=1e-4)


@dataclass(frozen=True)
class _JoinedPixels:
    """Pixels of one image set after another."""

    parts: tuple[ImageSet, ...]

    def _part(self, index: int) -> tuple[ImageSet, int]:
        for part in self.parts:
            if index < len(part):
                return part, index
            index -= len(part)
        raise IndexError(index)

    def load(self, index: int) -> Image.Image:
        part, row = self._part(index)
        return part.load(row)

    def encoded(self, index: int) -> bytes:
        part, row = self._part(index)
        return part.encoded(row)

    def digest(self, index: int) -> str:
        part, row = self._part(index)
        return part.image_digest(row)


def _joined(train: Recording, test: Recording) -> Recording:
    """Averages of two recordings of the same neuroids, as one."""
    if train.neuroid_ids != test.neuroid_ids:
        raise DataError(
            f"{train.identifier} trains and tests on different neuroids, so that it is "
            "no single recording; run Brain-Score itself on it"
        )
    first, second = train.images, test.images
    shared = first.columns.keys() & second.columns.keys()
    columns: dict[str, NDArray[Any]] = {
        name: np.concatenate([first.columns[name], second.columns[name]])
        for name in sorted(shared)
    }
    columns["part"] = np.repeat(["train", "test"], [len(first), len(second)])
    ids = (*first.ids, *second.ids)
    averages = np.concatenate([train.averaged(), test.averaged()])
    return Recording(
        identifier=train.identifier,
        images=ImageSet(first.identifier, ids, _JoinedPixels((first, second)), columns),
        responses=averages[:, None],
        neuroid_ids=train.neuroid_ids,
        region=train.region,
        degrees=train.degrees,
    )


def benchmark_from_recording(recording: Recording, folder: Path) -> Any:
    """Brain-Score's own benchmark object on any recording.

    It is what Brain-Score builds for its recordings of IT: PLS regression, split-half
    ceiling, stimuli placed on the screen.

    Parameters
    ----------
    recording : with repetitions
    folder : where to write the images

    Raises
    ------
    DataError
        If the recording has no repetitions, hence no ceiling.
    """
    if not recording.has_repetitions:
        raise DataError(
            f"{recording.identifier} has no repetitions, and Brain-Score's benchmarks "
            "need a ceiling"
        )
    common = import_brainscore("benchmark_helpers.neural_common")
    package = import_brainscore()
    settings = {"crossvalidation_kwargs": {"stratification_coord": recording.stratify}}
    with without_result_caching():
        repeated = assembly_from_recording(recording, False, folder)
        ceiler = package.load_ceiling("internal_consistency")
        return common.NeuralBenchmark(
            identifier=f"{Path(recording.identifier).stem}.{recording.region}-pls",
            version=1,
            assembly=common.average_repetition(repeated),
            similarity_metric=package.load_metric("pls", **settings),
            visual_degrees=recording.degrees,
            number_of_trials=recording.n_repetitions,
            ceiling_func=lambda: ceiler(repeated),
            parent=recording.region,
            bibtex="",
        )
