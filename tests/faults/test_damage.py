"""Files that are cut, or of which a bit has changed: said, and never a wrong number."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from small_commands import COMMANDS, NETWORKS, store_scores

from ce_align.arrays import mapped_array, seal
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import load_recording
from ce_align.errors import DataError
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.features import extract
from ce_align.models.load import load_network
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreRow
from ce_align.trainer.data import open_packed, pack

#: Bytes of a checksum and of the mark before it.
SEAL = 12


def cuts(path: Path):
    """The file cut at every tenth of its length, then as it was."""
    whole = path.read_bytes()
    for tenth in range(10):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        yield tenth
    path.write_bytes(whole)


def flips(path: Path, rng, n):
    """The file with one bit turned, somewhere, then as it was."""
    whole = path.read_bytes()
    for place in rng.integers(0, len(whole), n):
        bit = 1 << int(rng.integers(8))
        turned = bytearray(whole)
        turned[place] ^= bit
        path.write_bytes(turned)
        yield int(place)
    path.write_bytes(whole)


@pytest.fixture
def images(rng):
    return ImageSet.from_array("noise", rng.integers(0, 256, (6, 32, 32, 3), np.uint8))


def test_a_list_of_features_that_is_cut_is_written_again(images, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETWORKS)
    network = load_network("nets.py:build")
    expected = np.array(extract(network, images, ["2"], cache=tmp_path)["2"].values)
    (path,) = tmp_path.rglob("*/*.json")
    whole = path.read_bytes()
    for tenth in (0, 4, 9):
        path.write_bytes(whole[: len(whole) * tenth // 10])
        found = extract(network, images, ["2"], cache=tmp_path)["2"]
        np.testing.assert_array_equal(found.values, expected)
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damaged", [cuts, flips])
def test_features_that_are_damaged_are_computed_again_and_it_is_said(
    damaged, images, tmp_path, monkeypatch, rng
):
    monkeypatch.chdir(tmp_path)
    Path("nets.py").write_text(NETWORKS)
    network = load_network("nets.py:build")
    cache = tmp_path / "features"
    expected = np.array(extract(network, images, ["2"], cache=cache)["2"].values)
    (path,) = cache.rglob("*.npy")
    sealed = path.stat().st_size - SEAL
    said = (
        "the features of nets.py:build 2 in the cache are damaged; they are computed "
        "again"
    )
    for place in cuts(path) if damaged is cuts else flips(path, rng, 8):
        told = []
        found = extract(network, images, ["2"], cache=cache, notify=told.append)["2"]
        np.testing.assert_array_equal(found.values, expected)
        assert told == [said] or (damaged is flips and place >= sealed)


def test_a_bit_that_turned_anywhere_in_an_array_is_noticed(tmp_path, rng):
    path, values = tmp_path / "a.npy", rng.normal(size=(5, 7)).astype(np.float32)
    np.save(path, values)
    whole = path.read_bytes()
    assert mapped_array(path) is not None  # as earlier versions wrote them
    seal(path)
    np.testing.assert_array_equal(np.load(path), values)  # and read them
    np.testing.assert_array_equal(mapped_array(path), values)
    for place in flips(path, rng, 200):
        found = mapped_array(path)
        if found is not None:
            assert place >= len(whole)
            np.testing.assert_array_equal(found, values)


def test_responses_that_are_damaged_are_computed_again_and_it_is_said(place, ce_align):
    folder = place()
    asked = (*COMMANDS["analyze"], "--json")
    expected = [row["value"] for row in json.loads(ce_align(*asked)[1])]
    block = sorted(folder.rglob("home/responses/**/0*.npy"))[0]
    content = bytearray(block.read_bytes())
    content[-20] ^= 4
    block.write_bytes(content)
    for result in folder.glob("results/analyze/*.json"):
        result.unlink()
    status, out, err = ce_align(*asked)
    assert status == 0, err
    assert [row["value"] for row in json.loads(out)] == expected
    assert "damaged; they are computed again" in err.replace("\n", " ")


def write_all(folder: Path, images) -> dict[Path, object]:
    """Files of several kinds, and what reads each: all of it, or an error."""
    store_scores(folder / "results")
    save_safetensors(
        folder / "w.safetensors", {"a": torch.arange(99.0)}, {"architecture": "x"}
    )
    packed = pack(images, folder / "packed")

    def score():
        return ResultStore(folder / "results").get("score", "c0", ScoreRow)

    def weights():
        from ce_align.models.checkpoints import read_checkpoint

        return read_checkpoint(folder / "w.safetensors")

    return {
        folder / "results/score/c0.json": score,
        folder / "w.safetensors": weights,
        **{path: lambda: open_packed(packed) for path in packed.iterdir()},
    }


def test_what_is_cut_at_any_tenth_is_refused_in_a_line(images, tmp_path, prepared):
    readers = write_all(tmp_path, images)
    recording = tmp_path / "toy.nc"
    recording.write_bytes((prepared / "toy.nc").read_bytes())
    readers[recording] = lambda: load_recording(str(recording))
    for path, read in readers.items():
        for _ in cuts(path):
            with pytest.raises(DataError) as found:
                read()
            assert "\n" not in str(found.value)
        read()


def test_eight_processes_may_write_and_read_one_store(tmp_path):
    children = []
    for _ in range(8):
        child = os.fork()
        if not child:
            status = 1
            try:
                for _ in range(5):
                    store_scores(tmp_path)
                    rows = ResultStore(tmp_path).load("score")
                    assert set(rows["config_id"]) <= {"c0", "c1"}
                    assert set(rows["value"]) <= {0.3, 0.4}
                status = 0
            finally:
                os._exit(status)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 8
    assert len(ResultStore(tmp_path).load("score")) == 2
    assert not list(tmp_path.rglob("*.tmp*"))


def test_rows_of_a_later_version_are_neither_misread_nor_destroyed(tmp_path):
    store_scores(tmp_path)
    path = tmp_path / "score" / "c0.json"
    document = json.loads(path.read_text())
    document["rows"][0]["a_later_column"] = 1
    path.write_text(json.dumps(document))
    later = path.read_bytes()
    store = ResultStore(tmp_path)
    with pytest.raises(DataError, match=r"c0\.json"):
        store.get("score", "c0", ScoreRow)
    assert [row.value for row in store.get("score", "c1", ScoreRow)] == [0.4]
    assert path.read_bytes() == later
