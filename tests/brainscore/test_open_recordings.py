"""Open recordings score as Brain-Score's own benchmarks say, on files like theirs."""

import numpy as np
import pytest
from checkpoint_server import CheckpointServer

from benchmarks.fidelity.recordings import COMPARED, StandIns, compare, small_network
from ce_align.brainscore import register
from ce_align.brainscore.datasets import DATASETS
from ce_align.data import named
from ce_align.data.named import load_recording
from ce_align.errors import ConfigError

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


@pytest.fixture(scope="module")
def standins(tmp_path_factory):
    pytest.importorskip("brainscore_vision")
    return StandIns(tmp_path_factory.mktemp("storage"))


@pytest.fixture
def expected(standins, brainio, monkeypatch):
    """Simulated files, where the real ones are expected."""
    monkeypatch.setattr(named, "RECORDINGS", {})
    with standins.expected():
        register()
        yield standins


@pytest.fixture
def placed(expected, brainio):
    expected.place(brainio)


@pytest.mark.parametrize("identifier", COMPARED)
def test_scores_are_those_of_the_benchmark(identifier, placed, tmp_path):
    ours, theirs = compare(identifier, small_network(), tmp_path)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
    # Of responses that nothing predicts, equality would say little.
    assert 0.1 < theirs[0] < 0.99


def test_a_recording_is_downloaded_and_read_in_one_go(expected, brainio, monkeypatch):
    server = CheckpointServer()
    try:
        for file in DATASETS["freemanziemba2013-public-v2"].stored:
            address = file.address("").lstrip("/")
            server.files[address] = expected.files[file.name].read_bytes()
        monkeypatch.setenv("CE_ALIGN_RECORDINGS_URL", server.base)
        first = load_recording("freemanziemba2013-public-v2")
        server.requests.clear()
        again = load_recording("freemanziemba2013-public-v1")
    finally:
        server.close()
    assert server.requests == []  # both areas are in one file
    assert first.images.digest == again.images.digest
    assert first.citation.startswith("Freeman, Ziemba")
    assert (first.regions, again.regions) == (("V2",), ("V1",))


def test_animals_reliability_and_splits_come_with_the_files(placed):
    li = load_recording("li2026-it")
    assert set(li.animals) == {"M1", "M2", "M3", "M4", "M5"}
    assert (np.asarray(li.neuroids["reliability"]) > 0.4).all()
    assert li.select(reliability=0.8).n_repetitions == 1
    papale = load_recording("papale2025-v1")
    assert papale.animals == ("monkeyF", "monkeyN")
    assert papale.neuroid_ids[0].startswith("monkeyF/")
    assert (papale.split == "test").sum() == 24
    assert papale.n_repetitions == 6
    assert len(papale.presentations().values) == 60 + 24 * 6


def test_a_metric_that_we_lack_is_refused_by_name_and_another_is_said(placed, tmp_path):
    from ce_align.api import score

    network, name = small_network(), "majajhong2015-public-temporal"
    settings = {"time": "all", "results": tmp_path}
    with pytest.raises(ConfigError, match=r"with pls .*, which differs from every"):
        score(network, name, **settings)
    rows = score(network, name, regression="pls", **settings).rows
    bins = [row for row in rows if row.animal is None]
    recording = load_recording(name)
    assert len(bins) == len(recording.time_bins)
    for row, (start, end) in zip(bins, recording.time_bins, strict=True):
        assert (row.time_start, row.time_end) == (start, end)
        assert "not the metric of Brain-Score's" in row.note
        assert row.ceiling_kind == "split-half"
        assert row.value is not None
