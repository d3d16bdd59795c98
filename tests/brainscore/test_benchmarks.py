"""Benchmarks of Brain-Score's registry as recordings, on registered stand-ins."""

import importlib

import numpy as np
import pytest
from parity import check_equal, small_network

from ce_align.brainscore import register
from ce_align.brainscore.benchmarks import benchmark_names, load_benchmark_recording
from ce_align.data.recordings import expand_recordings, load_recording
from ce_align.errors import AccessError, CeAlignError, ConfigError, DataError

pytestmark = pytest.mark.brainscore


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
        ceiler = package.load_ceiling("internal_consistency")
        settings = {"crossvalidation_kwargs": {"stratification_coord": stratify}}
        return common.NeuralBenchmark(
            identifier=f"StandIn.{region}-pls",
            version=1,
            assembly=averaged,
            similarity_metric=package.load_metric("pls", **settings),
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
