"""Benchmarks of Brain-Score: their recordings, and recordings as benchmarks."""

import inspect
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

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
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Protocol, Recording
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.predictivity import REGRESSIONS

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

    Repetitions are kept where the benchmark's ceiling comes from them, and stated
    reliabilities where it is their median; else the recording has no ceiling. Stimuli
    are in the benchmark's order and splits are balanced over its column. Of a benchmark
    that trains and tests on two sets of images, the recording holds both, training
    first, with its split.

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
            return _joined(benchmark, benchmark_protocol(benchmark, identifier))
        assembly = _loaded(getattr(benchmark, "_assembly", None))
        dims = set(getattr(assembly, "dims", ()))
        if not {"presentation", "neuroid"} <= dims or not hasattr(benchmark, "region"):
            raise ConfigError(
                f"brainscore/{identifier} ({type(benchmark).__name__}) exposes no "
                "responses of neuroids to images, so that it cannot be a recording; "
                "choose a neural benchmark, such as "
                "brainscore/MajajHong2015public.V4-pls"
            )
        protocol = benchmark_protocol(benchmark, identifier)
        stated = _stated(benchmark) if protocol.ceiling == "stated" else None
        shown = _recording(benchmark, assembly, protocol, reliability=stated)
        if protocol.ceiling in (None, "stated"):
            return shown
        for repeated in _repeated(benchmark):
            try:
                recording = _recording(benchmark, repeated, protocol)
                if _is_average_of(shown, recording):
                    return recording
            except DataError:
                continue
        return replace(shown, protocol=replace(protocol, ceiling=None))


def benchmark_protocol(benchmark: Any, identifier: str) -> Protocol:
    """How a benchmark scores, and whether that is what a regression here does.

    It is, if the benchmark is one of Brain-Score's usual two and its metric one of
    those here, with the usual settings, on the usual splits over any column or a split
    of its own.

    Parameters
    ----------
    benchmark : object of Brain-Score's registry
    identifier : its key there
    """
    common = import_brainscore("benchmark_helpers.neural_common")
    metric: Any = getattr(benchmark, "_similarity_metric", None)
    measure = f"{identifier.rsplit('-', 1)[-1]} ({type(metric or benchmark).__name__})"
    divided = type(benchmark) is common.TrainTestNeuralBenchmark
    usual = type(benchmark) is common.NeuralBenchmark or (
        divided
        and getattr(benchmark, "ceiling_mode", None) is common.explained_variance
        and benchmark.alpha_coord in BY
    )
    ceiling = _ceiling_kind(benchmark) if usual else None
    found = _regression(metric, divided) if usual else None
    if found is None:
        return Protocol(identifier, measure, None, ceiling=ceiling)
    kind, settings = found
    return Protocol(
        identifier,
        f"{kind} regression" if kind in ("pls", "ridge") else kind,
        kind,
        ceiling=ceiling,
        by=BY[benchmark.alpha_coord] if divided else None,
        **settings,
    )


#: Coordinates of neuroids by which benchmarks fit, and their names in recordings.
BY = {None: None, "subject": "animal", "animal": "animal"}


def _regression(metric: Any, divided: bool) -> tuple[str, dict[str, Any]] | None:
    """Regression here that a metric of Brain-Score is, and its settings, or None."""
    module: Any = import_brainscore("metrics.regression_correlation.metric")
    reference = import_brainscore().load_metric("pls")
    crossed = {
        module.CrossRegressedCorrelation: "",
        module.ReverseCrossRegressedCorrelation: "reverse_",
    }
    kinds = {module.TrainTestSplitCorrelation: ""} if divided else crossed
    if (
        type(metric) not in kinds
        or type(metric.regression) is not type(reference.regression)
        or type(metric.correlation) is not type(reference.correlation)
        or metric.correlation._correlation is not reference.correlation._correlation
        or not (
            divided
            or _has_usual_splits(metric.cross_validation, reference.cross_validation)
        )
    ):
        return None
    inner, usual = metric.regression._regression, module
    for name, make, free in (
        ("pls", usual.pls_regression, {"components": "n_components"}),
        ("ridge", usual.ridge_regression, {"alpha": "alpha"}),
        ("ridge", usual.dual_ridge_regression, {"alpha": "alpha"}),
        ("ridgecv", usual.ridge_cv_regression, {}),
        ("ridgecv", usual.dual_ridge_cv_regression, {}),
        ("neuron_to_neuron", usual.single_regression, {}),
    ):
        expected = make()._regression
        # What a fit leaves, and how much is computed at a time, is no setting.
        settings = vars(expected).keys() - {*free.values(), *NO_SETTINGS}
        if type(inner) is type(expected) and all(
            getattr(inner, one) == getattr(expected, one) for one in settings
        ):
            kind = kinds[type(metric)] + name
            chosen = {ours: getattr(inner, theirs) for ours, theirs in free.items()}
            return (kind, chosen) if kind in REGRESSIONS else None
    return None


#: Attributes of Brain-Score's regressions that no number depends on.
NO_SETTINGS = ("alpha_", "chunk_size", "mapping")


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


def _ceiling_kind(
    benchmark: Any,
) -> Literal["split-half", "stated", "predictor-consistency"] | None:
    """Kind of ceiling here that the benchmark's is, or None."""
    usual = import_brainscore().load_ceiling("internal_consistency")
    coordinate = usual._consistency._cross_validation._split._split_coord
    predictors = import_brainscore("metrics.predictor_consistency.ceiling")
    predictor = predictors.SplitHalfPredictorConsistency()
    per_time = import_brainscore("metric_helpers.temporal").PerTime
    for value in _ceiling_refers_to(benchmark):
        # With time, it is computed of each bin.
        value = value.callable if type(value) is per_time else value
        if type(value) is type(usual):
            own = value._consistency._cross_validation._split._split_coord
            return "split-half" if own == coordinate else None
        if type(value) is type(predictor) and vars(value) == vars(predictor):
            return "predictor-consistency"
    return None if _stated(benchmark) is None else "stated"


def _stated(benchmark: Any) -> NDArray[np.float64] | None:
    """Reliabilities, (n_neuroids,), whose median is the ceiling, or None."""
    if not inspect.isfunction(getattr(benchmark, "_ceiling_func", None)):
        return None
    if any("repetition" in coordinate_names(held) for held in _repeated(benchmark)):
        return None  # it is computed from responses
    try:
        ceiling = benchmark._ceiling_func()
        each = ceiling.attrs["raw"]
        values = np.asarray(each.values, dtype=np.float64)
        known = each.dims == ("neuroid",) and float(ceiling) == np.nanmedian(values)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return values if known else None


def _ceiling_refers_to(benchmark: Any) -> Collection[Any]:
    """What the function of a benchmark's ceiling takes from around it."""
    ceiling = getattr(benchmark, "_ceiling_func", None)
    if not inspect.isfunction(ceiling):
        return ()
    return inspect.getclosurevars(ceiling).nonlocals.values()


def _repeated(benchmark: Any) -> Iterator[Any]:
    """Assemblies that the benchmark's ceiling refers to."""
    for value in _ceiling_refers_to(benchmark):
        held = _loaded(value)
        if "presentation" in getattr(held, "dims", ()):
            yield held


def _loaded(assembly: Any) -> Any:
    """The assembly itself, where Brain-Score only holds a promise of it."""
    lazy = import_brainscore("utils").LazyLoad
    if type(assembly) is not lazy:
        return assembly
    assembly._ensure_loaded()
    return assembly.content


def _recording(
    benchmark: Any, assembly: Any, protocol: Protocol, **further: Any
) -> Recording:
    keys = assembly["stimulus_id"].values
    metric = getattr(benchmark, "_similarity_metric", None)
    splitting = getattr(metric, "cross_validation", None)
    column = getattr(splitting, "_stratification_coord", None)
    return recording_from_assembly(
        assembly,
        identifier=f"brainscore/{protocol.benchmark}",
        region=str(benchmark.region),
        degrees=float(benchmark._visual_degrees),
        stratify=str(column) if column else None,
        averaged=len(np.unique(keys)) == len(keys),
        protocol=protocol,
        **further,
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


def _joined(benchmark: Any, protocol: Protocol) -> Recording:
    """A training and a test set of the same neuroids as one recording, with its split.

    The test set has its repetitions, where the ceiling comes from them.
    """
    train, shown = (
        _recording(benchmark, _loaded(part), protocol)
        for part in (benchmark.train_assembly, benchmark.test_assembly)
    )
    test = shown
    if protocol.ceiling is not None:
        repeated = [_recording(benchmark, r, protocol) for r in _repeated(benchmark)]
        test = next((r for r in repeated if _is_average_of(shown, r)), shown)
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
    sizes = [len(first), len(second)]
    columns["part"] = np.repeat(["train", "test"], sizes)
    parts = (benchmark.train_assembly, benchmark.test_assembly)
    files = [
        file
        for part, ids in zip(parts, (first.ids, second.ids), strict=True)
        for file in image_files(part.attrs["stimulus_set"], ids, train.identifier)
    ]
    images = ImageSet.from_encoded(
        first.identifier, (*first.ids, *second.ids), IMAGE_FILES, files, columns
    )
    rows = train.presentations(), test.presentations()
    responses = Presentations(
        np.concatenate([part.values for part in rows]),
        np.concatenate([rows[0].stimulus, sizes[0] + rows[1].stimulus]),
        np.concatenate([part.repetition for part in rows]),
    )
    kept = protocol.ceiling if test.has_repetitions else None
    return replace(
        train,
        images=images,
        responses=responses,
        split=columns["part"],
        notes=(*train.notes, *test.notes),
        protocol=replace(protocol, ceiling=kept, order=None),
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
