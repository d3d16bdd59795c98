"""Benchmarks of Brain-Score's registry as recordings, on registered stand-ins."""

import importlib
import sys
from contextlib import suppress

import numpy as np
import pytest
from parity import check_equal, small_network

from ce_align.brainscore import register
from ce_align.brainscore.benchmarks import (
    benchmark_names,
    benchmark_protocol,
    load_benchmark_recording,
)
from ce_align.brainscore.official import official_scores
from ce_align.data.named import expand_recordings, load_recording
from ce_align.errors import AccessError, CeAlignError, ConfigError, DataError
from ce_align.results import ResultStore
from ce_align.stages.running import Run
from ce_align.stages.score import score
from ce_align.stages.scores import ScoreConfig

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


@pytest.fixture
def registered(monkeypatch):
    """Put a benchmark into Brain-Score's registry."""
    package = importlib.import_module("brainscore_vision")

    def put(name, maker):
        monkeypatch.setitem(package.benchmark_registry, name, maker)

    return put


@pytest.fixture
def neural(stand_in):
    """Maker of a benchmark as Brain-Score's plugins make theirs."""

    def make(
        region="V4",
        stratify="object_name",
        degrees=5,
        repetitions=True,
        lazily=False,
        assembly=None,
        metric="pls",
        ceiling="internal_consistency",
        **splitting,
    ):
        package = importlib.import_module("brainscore_vision")
        utils = importlib.import_module("brainscore_vision.utils")
        common = importlib.import_module(
            "brainscore_vision.benchmark_helpers.neural_common"
        )
        if assembly is None:
            assembly = stand_in(n_stimuli=24, n_repetitions=4, missing=0.0)
        assembly = assembly.squeeze("time_bin").sel(region=region)
        assembly["region"] = "neuroid", [region] * len(assembly["neuroid"])
        repeated = assembly.transpose("presentation", "neuroid")
        averaged = common.average_repetition(repeated)
        if lazily:
            repeated, averaged = (
                utils.LazyLoad(lambda assembly=assembly: assembly)
                for assembly in (repeated, averaged)
            )
        ceiler = package.load_ceiling(ceiling)
        settings = {
            "crossvalidation_kwargs": {"stratification_coord": stratify, **splitting}
        }
        return common.NeuralBenchmark(
            identifier=f"StandIn.{region}-pls",
            version=1,
            assembly=averaged,
            similarity_metric=package.load_metric(metric, **settings),
            visual_degrees=degrees,
            number_of_trials=1,
            ceiling_func=(lambda: ceiler(repeated)) if repetitions else (lambda: 0.9),
            parent=region,
            bibtex="",
        )

    return make


@pytest.mark.parametrize("lazily", [False, True])
def test_region_degrees_splits_and_repetitions_become_the_recording(
    registered, neural, lazily
):
    benchmark = neural(lazily=lazily)
    registered("StandIn.V4-pls", lambda: benchmark)
    register()
    assert expand_recordings(("brainscore/StandIn.V4-pls",)) == [
        "brainscore/StandIn.V4-pls"
    ]
    recording = load_recording("brainscore/StandIn.V4-pls")
    theirs = benchmark._assembly
    assert (recording.region, recording.degrees) == ("V4", 5.0)
    assert recording.stratify == "object_name"
    assert recording.n_repetitions == 4
    assert list(recording.images.ids) == list(theirs["stimulus_id"].values)
    assert list(recording.neuroid_ids) == list(theirs["neuroid_id"].values)
    np.testing.assert_allclose(recording.averaged(), theirs.values, rtol=1e-12)
    assert recording.images.load(0).size == (8, 8)


def test_benchmark_that_is_not_stratified_has_no_strata(registered, neural):
    registered("StandIn.IT-pls", lambda: neural("IT", stratify=None, degrees=8))
    recording = load_benchmark_recording("StandIn.IT-pls")
    assert recording.region == "IT"
    assert recording.stratify is None
    assert recording.strata() is None


def test_ceiling_without_repetitions_gives_a_recording_without(registered, neural):
    benchmark = neural(repetitions=False)
    registered("StandIn.V4-pls", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-pls")
    assert not recording.has_repetitions
    np.testing.assert_array_equal(recording.averaged(), benchmark._assembly.values)


def test_order_of_an_averaged_assembly_is_kept(registered, neural):
    """Splits fall on the benchmark's order, whatever its averaging did."""
    benchmark = neural(repetitions=False)
    order = np.random.default_rng(0).permutation(24)
    benchmark._assembly = benchmark._assembly.isel(presentation=order)
    registered("StandIn.V4-pls", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-pls")
    np.testing.assert_array_equal(recording.averaged(), benchmark._assembly.values)
    expected = list(benchmark._assembly["stimulus_id"].values)
    assert list(recording.images.ids) == expected


def test_repetitions_of_other_responses_are_not_taken_for_the_benchmarks(
    registered, neural
):
    benchmark = neural()
    benchmark._assembly = benchmark._assembly + 1.0
    attributes = neural(repetitions=False)._assembly.attrs
    benchmark._assembly.attrs.update(attributes)
    benchmark._assembly.attrs["stimulus_set"] = _stimuli_of(benchmark)
    registered("StandIn.V4-pls", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-pls")
    assert not recording.has_repetitions
    np.testing.assert_array_equal(recording.averaged(), benchmark._assembly.values)


def _stimuli_of(benchmark):
    import inspect

    closure = inspect.getclosurevars(benchmark._ceiling_func).nonlocals
    return closure["repeated"].attrs["stimulus_set"]


def test_score_is_that_of_the_benchmark_itself(registered, stand_in, neural, tmp_path):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=5)
    benchmark = neural(assembly=assembly, degrees=10)
    registered("StandIn.V4-pls", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-pls")
    check_equal(small_network(), "brainscore/StandIn.V4-pls", recording, tmp_path)


def test_training_and_test_images_become_one_recording(registered, stand_in, neural):
    common = importlib.import_module(
        "brainscore_vision.benchmark_helpers.neural_common"
    )
    whole = neural("IT")._assembly
    parts = [whole.isel(presentation=slice(*rows)) for rows in ((0, 14), (14, 24))]
    benchmark = common.TrainTestNeuralBenchmark(
        identifier="StandIn_fmri.IT-ridgecv",
        ceiling_func=lambda: 1.0,
        version=1,
        train_assembly=parts[0],
        test_assembly=parts[1],
        similarity_metric=None,
        visual_degrees=10,
        number_of_trials=1,
        parent="IT",
    )
    registered("StandIn_fmri.IT-ridgecv", lambda: benchmark)
    recording = load_benchmark_recording("StandIn_fmri.IT-ridgecv")
    values = np.concatenate([part.values for part in parts])
    np.testing.assert_array_equal(recording.averaged(), values)
    assert list(recording.images.columns["part"]) == ["train"] * 14 + ["test"] * 10
    for row, part in ((3, parts[0]), (20, parts[1])):
        path = part.attrs["stimulus_set"].stimulus_paths[recording.images.ids[row]]
        assert recording.images.encoded(row) == path.read_bytes()
    benchmark.test_assembly = parts[1].isel(neuroid=slice(0, 3))
    with pytest.raises(DataError, match="on different neuroids"):
        load_benchmark_recording("StandIn_fmri.IT-ridgecv")


def test_behavioural_benchmark_is_refused_in_one_line(registered):
    benchmarks = importlib.import_module("brainscore_vision.benchmarks")

    class Accuracy(benchmarks.BenchmarkBase):
        pass

    registered(
        "StandIn-accuracy", lambda: Accuracy("StandIn-accuracy", lambda: 1.0, version=1)
    )
    with pytest.raises(ConfigError) as raised:
        load_benchmark_recording("StandIn-accuracy")
    message = str(raised.value)
    assert "exposes no responses of neuroids" in message
    assert "brainscore/MajajHong2015public.V4-pls" in message
    assert "\n" not in message


def test_unknown_benchmark_lists_the_nearest():
    names = benchmark_names()
    for name in ("MajajHong2015.V4-pls", "FreemanZiemba2013.V1-pls", "Cadena2017-pls"):
        assert name in names
    with pytest.raises(ConfigError, match=r"nearest: MajajHong2015\.V4-pls"):
        load_benchmark_recording("MajajHong2015.V4-psl")


def test_failures_of_a_benchmark_are_explained(registered):
    def fail(error):
        def maker():
            raise error

        return maker

    from botocore.exceptions import ClientError

    refused = ClientError({"Error": {"Code": "403", "Message": "no"}}, "HeadObject")
    registered("private", fail(Exception([refused, refused])))
    with pytest.raises(AccessError, match=r"brainscore/private may be private.*submit"):
        load_benchmark_recording("private")
    registered("foreign", fail(ModuleNotFoundError("No module named 'sympy2'")))
    with pytest.raises(CeAlignError, match="not installed: No module named 'sympy2'"):
        load_benchmark_recording("foreign")


def score_here(recording, folder, **settings):
    config = ScoreConfig(
        model="net", recording=recording.identifier, layer="1", **settings
    )
    return score(small_network(), {config: recording}, Run(ResultStore(folder)))[0]


def test_ridge_of_a_benchmark_is_ridge_here(registered, stand_in, neural, tmp_path):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=5)
    benchmark = neural(assembly=assembly, metric="ridge")
    registered("StandIn.V4-ridge", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-ridge")
    assert (recording.protocol.regression, recording.protocol.alpha) == ("ridge", 1)
    check_equal(small_network(), recording.identifier, recording, tmp_path)
    assert score_here(recording, tmp_path).regression == "ridge_alpha1"
    first, few = score_here(recording, tmp_path, regression="pls").note.split("; ")
    assert first == "not the metric of Brain-Score's StandIn.V4-ridge"
    assert few.startswith("few stimuli: ")


@pytest.mark.parametrize(
    ("metric", "splitting"),
    [
        ("linear_predictivity", {}),
        ("reverse_pls", {"splits": 5}),
        ("pls", {"splits": 5}),
        ("pls", {"train_size": 0.8}),
        ("pls", {"kfold": True}),
        ("ridge", {"preprocess_indices": lambda train, test, source: (train, test)}),
    ],
)
def test_another_metric_is_refused_by_name_and_never_replaced(
    registered, neural, tmp_path, metric, splitting
):
    registered("StandIn.V4-own", lambda: neural(metric=metric, **splitting))
    recording = load_benchmark_recording("StandIn.V4-own")
    with pytest.raises(ConfigError) as raised:
        score_here(recording, tmp_path)
    assert "brainscore/StandIn.V4-own is scored by Brain-Score with own" in str(
        raised.value
    )
    assert "--official gives its own number" in str(raised.value)
    assert not list(tmp_path.rglob("*.json"))


def test_what_is_refused_here_has_brainscores_own_number(registered, stand_in, neural):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=30, missing=0.0)
    benchmark = neural(assembly=assembly, metric="linear_predictivity")
    registered("StandIn.V4-linear", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-linear")
    name = recording.identifier
    (found,) = official_scores(small_network(), name, recording, ["1"], device="cpu")
    assert np.isfinite(found.value)


def test_the_best_unit_of_each_neuroid_is_that_of_the_benchmark(
    registered, stand_in, neural, tmp_path
):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=5)
    benchmark = neural(assembly=assembly, metric="neuron_to_neuron")
    registered("StandIn.V4-neuron_to_neuron", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-neuron_to_neuron")
    check_equal(small_network(), recording.identifier, recording, tmp_path)


def test_pls_under_another_regression_says_that_it_is_not_the_benchmarks(
    registered, stand_in, neural, tmp_path
):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=3)
    registered("StandIn.V4-pls", lambda: neural(stratify=None, assembly=assembly))
    recording = load_benchmark_recording("StandIn.V4-pls")
    row = score_here(recording, tmp_path, regression="ridge")
    assert "not the metric of Brain-Score's StandIn.V4-pls" in row.note
    row = score_here(recording, tmp_path, regression="ridge", alpha=1, seed=2)
    assert "not the metric" in row.note
    row = score_here(recording, tmp_path, splits=4, components=25)
    assert "not the splits of Brain-Score's StandIn.V4-pls (--splits)" in row.note


def test_another_ceiling_of_a_benchmark_is_none_here(registered, neural, tmp_path):
    package = importlib.import_module("brainscore_vision")
    ceiler = package.load_ceiling("internal_consistency", split_coord="repetition_id")
    benchmark = neural(stratify=None)
    repeated = _repeated_of(benchmark)
    benchmark._ceiling_func = lambda: ceiler(repeated)
    registered("StandIn.V4-pls", lambda: benchmark)
    recording = load_benchmark_recording("StandIn.V4-pls")
    assert recording.protocol.regression == "pls"
    assert not recording.has_repetitions
    row = score_here(recording, tmp_path, components=5)
    assert row.value is None
    assert "Brain-Score's ceiling is computed another way" in row.note


def _repeated_of(benchmark):
    import inspect

    return inspect.getclosurevars(benchmark._ceiling_func).nonlocals["repeated"]


def test_a_dead_site_is_left_out_and_the_number_is_still_brainscores(
    registered, stand_in, neural, tmp_path
):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=6)
    dead = int(np.flatnonzero(assembly["region"].values == "V4")[2])
    assembly.values[:, dead] = 3.0
    name = str(assembly["neuroid_id"].values[dead])
    registered("StandIn.V4-pls", lambda: neural(assembly=assembly, degrees=8))
    recording = load_benchmark_recording("StandIn.V4-pls")
    assert recording.notes == (f"1 of 6 neuroids are silent and left out: {name}",)
    check_equal(small_network(), recording.identifier, recording, tmp_path)


def test_equal_images_of_a_benchmark_are_said_and_the_number_is_its_own(
    registered, stand_in, neural, tmp_path
):
    assembly = stand_in(n_stimuli=60, n_repetitions=4, n_v4=5)
    paths = assembly.attrs["stimulus_set"].stimulus_paths
    one, other = list(paths)[:2]
    paths[other].write_bytes(paths[one].read_bytes())
    registered("StandIn.V4-pls", lambda: neural(assembly=assembly, degrees=8))
    recording = load_benchmark_recording("StandIn.V4-pls")
    check_equal(small_network(), recording.identifier, recording, tmp_path)
    row = score_here(recording, tmp_path / "again")
    assert "1 stimuli show the image of another" in row.note
    assert one in row.note
    assert other in row.note


def test_unequal_repetitions_of_a_benchmark_keep_its_ceiling(
    registered, stand_in, neural, tmp_path
):
    assembly = stand_in(n_stimuli=60, n_repetitions=8, n_v4=5, missing=0.3)
    registered("StandIn.V4-pls", lambda: neural(assembly=assembly, degrees=8))
    recording = load_benchmark_recording("StandIn.V4-pls")
    assert np.isnan(recording.responses).any()
    check_equal(small_network(), recording.identifier, recording, tmp_path)
    own = score_here(recording, tmp_path / "again")
    variance = score_here(recording, tmp_path / "again", ceiling="variance")
    assert (own.ceiling_kind, variance.ceiling_kind) == ("split-half", "variance")


#: Benchmarks whose number is had from PLS here. All others are refused by name, but for
#: Brain-Score's own object: they have another metric, another split, or no responses of
#: neuroids. The ceilings of Cadena2017 and Li2026 are their own.
HONOURED = {
    *("FreemanZiemba2013.V1-pls", "FreemanZiemba2013.V2-pls"),
    *("FreemanZiemba2013public.V1-pls", "FreemanZiemba2013public.V2-pls"),
    *("MajajHong2015.V4-pls", "MajajHong2015.IT-pls"),
    *("MajajHong2015public.V4-pls", "MajajHong2015public.IT-pls"),
    *("Sanghavi2020.V4-pls", "Sanghavi2020.IT-pls"),
    *("SanghaviJozwik2020.V4-pls", "SanghaviJozwik2020.IT-pls"),
    *("SanghaviMurty2020.V4-pls", "SanghaviMurty2020.IT-pls"),
    "Rajalingham2020.IT-pls",
    *("MajajHong2015public.V4-reverse_pls", "MajajHong2015public.IT-reverse_pls"),
}
#: Ceilings that are computed another way, or need the data, which are stubs here.
OWN_CEILING = {
    "Cadena2017-pls",
    *(f"Li2026.{r}-{m}" for r in ("V1", "V2", "V4", "IT") for m in ("pls", "ridgecv")),
}


def test_every_benchmark_of_the_registry_is_honoured_or_refused(monkeypatch):
    """Benchmarks are made without data; which metric each has is read from it."""
    from unittest.mock import MagicMock

    package = importlib.import_module("brainscore_vision")
    helpers = "brainscore_vision.benchmark_helpers.neural_common"
    common = importlib.import_module(helpers)

    class Data(MagicMock):
        """Answers everything; numbers are compared with it."""

        def __init__(self, *arguments, **settings):
            super().__init__(*arguments, **settings)
            self.__gt__ = lambda self, other: np.array([True])

    def keep(self, identifier=None, similarity_metric=None, **settings):
        self._similarity_metric = similarity_metric
        self._ceiling_func = settings.get("ceiling_func")

    def keep_in_order(self, identifier, assembly, similarity_metric, **settings):
        keep(self, identifier, similarity_metric, **settings)

    stubs = {
        "load_dataset": lambda *names, **options: Data(),
        "average_repetition": lambda assembly: assembly,
        "assembly_time_align": lambda assembly, bins: assembly,
    }
    # All plugins first: one that is imported later would keep the stubs for good.
    for name in benchmark_names():
        if name not in package.benchmark_registry:
            with suppress(Exception):  # a package that is not installed
                package.import_plugin("brainscore_vision", "benchmarks", name)
    monkeypatch.setattr(common.NeuralBenchmark, "__init__", keep_in_order)
    monkeypatch.setattr(common.TrainTestNeuralBenchmark, "__init__", keep)
    monkeypatch.setattr(package, "load_dataset", stubs["load_dataset"])
    found = {}
    for name in filter(package.benchmark_registry.__contains__, benchmark_names()):
        maker = package.benchmark_registry[name]
        folder = ".".join(maker.__module__.split(".")[:3])
        for module in [m for n, m in list(sys.modules.items()) if n.startswith(folder)]:
            for stub, answer in stubs.items():
                if hasattr(module, stub):
                    monkeypatch.setattr(module, stub, answer)
        try:
            benchmark = maker()
        except Exception:  # no benchmark of neuroids, which needs its data at once
            assert not name.endswith("pls") or "temporal" in name, name
            continue
        found[name] = benchmark_protocol(benchmark, name)
    assert len(found) > 100
    kept = {name for name, protocol in found.items() if protocol.regression}
    assert kept == HONOURED | OWN_CEILING
    for name in kept:
        assert found[name].regression == name.rsplit("-", 1)[1]
        assert found[name].components == 25
    assert {name for name in kept if found[name].ceiling} == HONOURED
    for name in ("Hebart2023_fmri.IT-ridgecv", "Papale2025.IT-ridgecv"):
        assert found[name].regression is None
