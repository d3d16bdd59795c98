"""Our scores equal those of Brain-Score's own, registered benchmark objects."""

import numpy as np
import pytest
from parity import check_equal, small_network
from standins import make_files, pre_place, register_files

from ce_align.brainscore.datasets import DATASETS, load
from ce_align.brainscore.official import official_id, official_scores
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.errors import CeAlignError, DataError
from ce_align.models.architectures import pixels

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


def toy(rng, n_repetitions=6, **kwargs) -> Recording:
    """Responses to colour, on images that fill less than a network's screen."""
    n = 60
    colours = rng.integers(40, 216, size=(n, 3))
    noise = rng.integers(-40, 40, size=(n, 9, 11, 3))
    array = (colours[:, None, None] + noise).astype(np.uint8)
    objects = {"object_name": np.array(["car", "bear", "face"])[np.arange(n) % 3]}
    images = ImageSet.from_array("toy", array, columns=objects)
    signal = colours / 50 @ rng.normal(size=(3, 4))
    responses = signal[:, None] + rng.normal(size=(n, n_repetitions, 4))
    settings = {"degrees": 5.0, "stratify": "object_name", **kwargs}
    return Recording("toy", images, responses, tuple("abcd"), "IT", **settings)


@pytest.mark.parametrize(
    ("name", "repetitions"),
    [
        ("majajhong2015", 6),  # stratified, 8°
        ("majajhong2015-public", 6),
        ("sanghavi2020", 28),
        ("sanghavijozwik2020", 37),  # not stratified
        ("sanghavimurty2020", 50),  # not stratified, and cropped to 5°
    ],
)
def test_registered_benchmark_gives_our_score_ceiling_and_error(
    name, repetitions, brainio, rng, tmp_path, monkeypatch
):
    dataset = DATASETS[name]
    files = make_files(rng, dataset, tmp_path / "made", missing=0.05)
    register_files(monkeypatch, dataset, files)
    pre_place(files, brainio)
    recording = load(name)
    assert recording.n_repetitions == repetitions
    theirs = check_equal(small_network(), name, recording, tmp_path)
    assert theirs.benchmark == official_id(name) == dataset.benchmark_id
    # Of responses that the network cannot predict, equality would say little.
    assert 0.3 < theirs.raw < 0.98


@pytest.mark.parametrize("stratify", ["object_name", None])
def test_any_recording_gets_brainscores_benchmark(rng, tmp_path, stratify):
    recording = toy(rng, stratify=stratify)
    theirs = check_equal(small_network(), "toy.nc", recording, tmp_path)
    assert theirs.raw > 0.3


def test_network_without_parameters_runs_in_brainscore(rng, tmp_path):
    check_equal(pixels(), "toy.nc", toy(rng), tmp_path, layer="pixels")


def test_what_brainscore_does_is_told_and_leaves_nothing_behind(rng, tmp_path):
    from ce_align.brainscore.upstream import brainscore_home, import_brainscore
    from ce_align.files import cache_folder

    screen = import_brainscore("benchmark_helpers.screen")
    before = (screen.root_path, screen.tqdm)
    told = []
    network, recording = small_network(), toy(rng)
    for _ in official_scores(
        *(network, "toy.nc", recording, ["1"]),
        device="cpu",
        progress=lambda what, done, total: told.append((what, done, total)),
    ):
        pass
    assert ("Brain-Score's cross-validation", 10, 10) in told
    assert ("Brain-Score's activations", 4, 4) in told
    assert (screen.root_path, screen.tqdm) == before
    assert not brainscore_home("RESULTCACHING_HOME").exists()
    assert not list(cache_folder("brainscore").rglob("*.png"))


def test_a_ceiling_is_computed_once_for_all_layers(rng, monkeypatch):
    from ce_align.brainscore import official

    benchmark_of, computed = official.benchmark_from_recording, []

    def counted(*arguments):
        benchmark = benchmark_of(*arguments)
        compute = benchmark._ceiling_func
        benchmark._ceiling_func = lambda: computed.append(1) or compute()
        return benchmark

    monkeypatch.setattr(official, "benchmark_from_recording", counted)
    network, recording = small_network(), toy(rng)
    first, second = official_scores(
        network, "toy.nc", recording, ["1", "0"], device="cpu"
    )
    assert computed == [1]
    assert first.ceiling == second.ceiling
    assert first.raw != second.raw


def test_other_responses_under_one_name_are_not_answered_from_a_cache(rng):
    network = small_network()
    ceilings = []
    for scale in (1.0, 5.0):
        recording = toy(np.random.default_rng(3))
        noise = scale * np.random.default_rng(4).normal(size=recording.responses.shape)
        noisy = Recording(
            "toy", recording.images, recording.responses + noise, tuple("abcd"), "IT"
        )
        (found,) = official_scores(network, "toy.nc", noisy, ["1"], device="cpu")
        ceilings.append(found.ceiling)
    assert ceilings[0] > ceilings[1] + 0.1


def test_recording_without_repetitions_is_refused(rng):
    with pytest.raises(DataError, match="has no repetitions"):
        list(official_scores(small_network(), "toy.nc", toy(rng, 1), ["1"]))


def test_too_little_memory_is_one_line(rng, monkeypatch):
    from ce_align.brainscore.upstream import import_brainscore

    memory = import_brainscore("benchmark_helpers.memory")
    monkeypatch.setattr(memory, "available_memory_gb", lambda: 1e-9)
    with pytest.raises(CeAlignError) as raised:
        list(official_scores(small_network(), "toy.nc", toy(rng), ["1"]))
    assert "toy.IT-pls to need more memory than there is" in str(raised.value)
    assert "\n" not in str(raised.value)
