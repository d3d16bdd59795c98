"""Benchmarks of Brain-Score: their recordings, and recordings as benchmarks."""

import inspect
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.brainscore.assemblies import (
    IMAGE_FILES,
    assembly_from_recording,
    coordinate_names,
    image_files,
    recording_from_assembly,
)
from ce_align.brainscore.upstream import (
    explained_loading,
    import_brainscore,
    installed_plugins,
    without_result_caching,
)
from ce_align.checks import nearest_names
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Protocol, Recording
from ce_align.errors import ConfigError, DataError

__all__ = [
    "benchmark_from_recording",
    "benchmark_names",
    "benchmark_protocol",
    "load_benchmark",
    "load_benchmark_recording",
]


def benchmark_names() -> list[str]:
    """Identifiers in Brain-Score's registry of benchmarks, without running plugins."""
    registered = import_brainscore().benchmark_registry
    return list(dict.fromkeys([*registered, *installed_plugins("benchmark")]))


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
        with _explained(identifier):
            package.import_plugin("brainscore_vision", "benchmarks", identifier)
    with _explained(identifier):
        return package.benchmark_registry[identifier]()


@contextmanager
def _explained(identifier: str) -> Iterator[None]:
    name = f"brainscore/{identifier}"
    with explained_loading(name, identifier), without_result_caching():
        yield


def load_benchmark_recording(identifier: str) -> Recording:
    """Recording ``brainscore/ID``: what a neural benchmark holds.

    Repetitions are kept where the benchmark's ceiling is the split-half reliability
    of them; else the recording has no ceiling. Stimuli are in the benchmark's order and
    splits are balanced over its column. Of a benchmark that trains and tests on two
    sets of images, the recording holds both, training first, with the column ``part``.

    The recording's protocol is how the benchmark scores: its number is had from our
    regressions only if its metric is one of them, on the same splits.

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
    with _explained(identifier):
        if hasattr(benchmark, "train_assembly"):
            halves = (benchmark.train_assembly, benchmark.test_assembly)
            return _joined(benchmark, [_loaded(half) for half in halves], identifier)
        assembly = _loaded(getattr(benchmark, "_assembly", None))
        dims = set(getattr(assembly, "dims", ()))
        if not {"presentation", "neuroid"} <= dims or not hasattr(benchmark, "region"):
            raise ConfigError(
                f"brainscore/{identifier} ({type(benchmark).__name__}) exposes no "
                "responses of neuroids to images, so that it cannot be a recording; "
                "choose a neural benchmark, such as "
                "brainscore/MajajHong2015public.V4-pls"
            )
        shown = _recording(benchmark, assembly, identifier)
        protocol = benchmark_protocol(benchmark, identifier)
        for value in _ceiling_refers_to(benchmark) if protocol.ceiling else ():
            repeated = _loaded(value)
            if "presentation" not in getattr(repeated, "dims", ()):
                continue
            if "repetition" not in coordinate_names(repeated):
                continue
            try:
                recording = _recording(benchmark, repeated, identifier)
                if _is_average_of(shown, recording):
                    return replace(recording, protocol=protocol)
            except DataError:
                continue
        return replace(shown, protocol=replace(protocol, ceiling=False))


def benchmark_protocol(benchmark: Any, identifier: str) -> Protocol:
    """How a benchmark scores, and whether that is what a regression here does.

    It is, if the benchmark is Brain-Score's usual one and differs from that of a
    recording of IT in nothing but the column of its splits and its regression: PLS
    without scaling, or ridge.

    Parameters
    ----------
    benchmark : object of Brain-Score's registry
    identifier : its key there
    """
    common = import_brainscore("benchmark_helpers.neural_common")
    metric: Any = getattr(benchmark, "_similarity_metric", None)
    measure = f"{identifier.rsplit('-', 1)[-1]} ({type(metric or benchmark).__name__})"
    if type(benchmark) is not common.NeuralBenchmark or not _is_usual(metric):
        return Protocol(identifier, measure, None, ceiling=False)
    regression = metric.regression._regression
    settings = regression.get_params()
    kind = {"PLSRegression": "pls", "Ridge": "ridge"}[type(regression).__name__]
    return Protocol(
        identifier,
        f"{kind} regression",
        kind,
        components=settings.get("n_components", Protocol.components),
        alpha=settings.get("alpha"),
        ceiling=_has_split_half_ceiling(benchmark),
    )


def _is_usual(metric: Any) -> bool:
    """Whether a metric is cross-validated PLS or ridge with the usual settings."""
    module = import_brainscore("metrics.regression_correlation.metric")
    if type(metric) is not module.CrossRegressedCorrelation:
        return False
    reference = import_brainscore().load_metric("pls")
    inner: Any = getattr(metric.regression, "_regression", None)
    if type(metric.regression) is not type(reference.regression):
        return False
    usual = {"PLSRegression": module.pls_regression, "Ridge": module.ridge_regression}
    if type(inner).__name__ not in usual:
        return False
    expected = usual[type(inner).__name__]()._regression
    free = {"n_components", "alpha"}
    same = type(inner) is type(expected) and all(
        value == inner.get_params()[name]
        for name, value in expected.get_params().items()
        if name not in free
    )
    return (
        same
        and type(metric.correlation) is type(reference.correlation)
        and metric.correlation._correlation is reference.correlation._correlation
        and _has_usual_splits(metric.cross_validation, reference.cross_validation)
    )


def _has_usual_splits(splitting: Any, reference: Any) -> bool:
    """Whether splits are those of `brainscore_splits`, over any column."""
    own, usual = splitting._split, reference._split
    kinds = {"ShuffleSplit", "StratifiedShuffleSplit"}
    settings = ("n_splits", "train_size", "test_size", "random_state")
    return (
        type(splitting) is type(reference)
        and getattr(splitting, "_preprocess_indices", None) is None
        and own._split_coord == usual._split_coord
        and own._unique_split_values == usual._unique_split_values
        and type(own._split).__name__ in kinds
        and all(getattr(own._split, s) == getattr(usual._split, s) for s in settings)
    )


def _has_split_half_ceiling(benchmark: Any) -> bool:
    """Whether the ceiling is Brain-Score's internal consistency over repetitions."""
    usual = import_brainscore().load_ceiling("internal_consistency")
    coordinate = usual._consistency._cross_validation._split._split_coord
    return any(
        type(value) is type(usual)
        and value._consistency._cross_validation._split._split_coord == coordinate
        for value in _ceiling_refers_to(benchmark)
    )


def _ceiling_refers_to(benchmark: Any) -> Collection[Any]:
    """What the function of a benchmark's ceiling takes from around it."""
    ceiling = getattr(benchmark, "_ceiling_func", None)
    if not inspect.isfunction(ceiling):
        return ()
    return inspect.getclosurevars(ceiling).nonlocals.values()


def _loaded(assembly: Any) -> Any:
    """The assembly itself, where Brain-Score only holds a promise of it."""
    lazy = import_brainscore("utils").LazyLoad
    if type(assembly) is not lazy:
        return assembly
    assembly._ensure_loaded()
    return assembly.content


def _recording(benchmark: Any, assembly: Any, identifier: str) -> Recording:
    keys = assembly["stimulus_id"].values
    metric = getattr(benchmark, "_similarity_metric", None)
    splitting = getattr(metric, "cross_validation", None)
    column = getattr(splitting, "_stratification_coord", None)
    return recording_from_assembly(
        assembly,
        identifier=f"brainscore/{identifier}",
        region=str(benchmark.region),
        degrees=float(benchmark._visual_degrees),
        stratify=str(column) if column else None,
        averaged=len(np.unique(keys)) == len(keys),
    )


def _is_average_of(shown: Recording, repeated: Recording) -> bool:
    """Whether `shown` holds the averages of `repeated`, in the same order."""
    if shown.n_repetitions > 1:
        return False
    names = (shown.images.ids, shown.neuroid_ids)
    if names != (repeated.images.ids, repeated.neuroid_ids):
        return False
    # Brain-Score averages single-precision responses in single precision.
    return np.allclose(repeated.averaged(), shown.averaged(), rtol=1e-4)


def _joined(benchmark: Any, assemblies: Sequence[Any], identifier: str) -> Recording:
    """Averages of a training and a test set of the same neuroids, as one recording."""
    train, test = (_recording(benchmark, part, identifier) for part in assemblies)
    if train.neuroid_ids != test.neuroid_ids:
        raise DataError(
            f"{train.identifier} trains and tests on different neuroids, so that it is "
            "no single recording; run Brain-Score itself on it"
        )
    first, second = train.images, test.images
    columns: dict[str, NDArray[Any]] = {
        name: np.concatenate([first.columns[name], second.columns[name]])
        for name in sorted(first.columns.keys() & second.columns.keys())
    }
    columns["part"] = np.repeat(["train", "test"], [len(first), len(second)])
    files = [
        file
        for assembly, ids in zip(assemblies, (first.ids, second.ids), strict=True)
        for file in image_files(assembly.attrs["stimulus_set"], ids, train.identifier)
    ]
    images = ImageSet.from_encoded(
        first.identifier, (*first.ids, *second.ids), IMAGE_FILES, files, columns
    )
    return replace(
        train,
        images=images,
        responses=np.concatenate([train.averaged(), test.averaged()])[:, None],
        stratify=None,
        notes=(*train.notes, *test.notes),
        protocol=Protocol(
            identifier,
            "a regression that is fitted to one set of images and tested on another",
            None,
            ceiling=False,
        ),
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
