"""Files that are cut, or of which a bit has changed: said, and never a wrong number."""

import json
import os
import pickle
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from small_commands import COMMANDS, NETWORKS, store_scores

from ce_align.arrays import mapped_array, seal
from ce_align.data.imagesets import ImageSet
from ce_align.data.named import load_recording
from ce_align.errors import DataError
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.features import extract
from ce_align.models.load import load_network
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig, ScoreRow
from ce_align.sweeps.board import Board, Sweep
from ce_align.sweeps.jobs import Job
from ce_align.sweeps.states import states
from ce_align.trainer.callbacks import IDENTITY, starting_point
from ce_align.trainer.data import image_arrays, open_packed, pack
from ce_align.trainer.presets import TrainConfig

pytestmark = pytest.mark.slow

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

    def read_packed():
        return image_arrays(open_packed(packed), range(len(images)))

    def score():
        return ResultStore(folder / "results").get("score", "c0", ScoreRow)

    def weights():
        from ce_align.models.checkpoints import read_checkpoint

        state = read_checkpoint(folder / "w.safetensors").state
        return {name: values.tolist() for name, values in state.items()}

    return {
        folder / "results/score/c0.json": score,
        folder / "w.safetensors": weights,
        **dict.fromkeys(packed.iterdir(), read_packed),
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


def test_a_bit_that_turned_in_weights_results_or_images_is_noticed(
    images, tmp_path, rng
):
    for path, read in write_all(tmp_path, images).items():
        noticed, expected = 0, pickle.dumps(read())
        for _ in flips(path, rng, 100):
            try:
                assert pickle.dumps(read()) == expected
            except DataError as error:
                assert str(path.parent) in str(error) and "\n" not in str(error)
                noticed += 1
        assert noticed > 80, path


def test_packed_images_that_are_damaged_are_packed_again(images, tmp_path):
    folder = pack(images, tmp_path / "packed")
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        path.write_bytes(whole[:200] + bytes([whole[200] ^ 8]) + whole[201:])
        pack(images, folder)
        assert path.read_bytes() == whole


def test_a_training_goes_on_from_the_checkpoint_before_a_damaged_one(place, rng):
    folder = place(command="export") / "runs" / "mmcr_l0.3"
    *_, before, last = sorted(folder.glob("checkpoints/*.ckpt"))
    identity = torch.load(last, weights_only=True)[IDENTITY]
    config = TrainConfig.model_validate_json(identity["config"])
    for _ in chain(cuts(last), flips(last, rng, 4)):
        told = []
        found = starting_point(folder, config, identity["data"], "auto", told.append)
        assert found == before
        (line,) = told
        assert line.startswith(f"{last} cannot be resumed from")
        assert line.endswith(f"falling back to {before.name}")
    before.write_bytes(b"")
    last.write_bytes(b"")
    told = []
    assert starting_point(folder, config, "", "auto", told.append) is None
    assert told[1].endswith("begun anew")


def test_weights_that_are_damaged_are_refused_until_they_are_exported_again(
    place, ce_align
):
    weights = place(command="export") / "runs" / "mmcr_l0.3" / "model.safetensors"
    whole = bytearray(weights.read_bytes())
    whole[len(whole) // 2] ^= 1
    weights.write_bytes(whole)
    status, _, err = ce_align(*COMMANDS["export"])
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert status == 2
    assert "model.safetensors is damaged: its checksum" in line
    assert ce_align(*COMMANDS["train"])[0] == 0
    whole[len(whole) // 2] ^= 1
    assert weights.read_bytes() == whole


def test_a_board_that_is_damaged_is_never_misread(tmp_path, rng):
    board = Board(ResultStore(tmp_path))
    jobs = [
        Job(name, f"score {name}", "score", (ScoreConfig(model=name, recording="r"),))
        for name in "abc"
    ]
    sweep = Sweep("s", "plan.yaml", "/somewhere", {"labels": {"a": "A"}}, tuple(jobs))
    board.write_sweep(sweep)
    board.submit("a", "7_1")
    board.end("a", rows=[["score", "c0"]])
    board.end("b", "there is no network", tries=2)
    board.begin("c", [0, 3])
    with board.claim("c", "here"):

        def read():
            stood = states(jobs, board, (), {"7_1": "PENDING"})
            told = [(one.state, one.reason, one.cluster_id) for one in stood]
            return told, board.begun("c"), list(board.rows("abc")), board.read_sweep()

        sound = read()
        for path in board.folder.rglob("*.json"):
            for _ in chain(cuts(path), flips(path, rng, 20)):
                try:
                    found = read()
                except DataError as error:
                    assert str(error).startswith(f"{path} is no plan of a sweep")
                else:  # as if the file were not there
                    pairs = zip(found[0], sound[0], strict=True)
                    assert all(new[0] in (old[0], "never") for new, old in pairs)
                    assert found[1] in ([], sound[1])
                    assert found[2] in ([], sound[2])
                    assert found[3] == sound[3]


def stored(folder: Path) -> list[Path]:
    """A result with arrays in a folder; its files."""
    store_scores(folder)
    (row,) = ResultStore(folder).get("score", "c0", ScoreRow)
    config = ScoreConfig(model=row.model, recording="simulated", layer="layer4")
    arrays = xr.Dataset({"r": (("split", "neuroid"), np.arange(60.0).reshape(20, 3))})
    path = ResultStore(folder).put("score", "c0", config, [row], arrays)
    return [path, path.with_suffix(".nc")]


@pytest.mark.parametrize("damaged", [cuts, flips])
def test_a_result_that_is_damaged_counts_as_none_and_it_is_said(damaged, tmp_path, rng):
    store, paths = ResultStore(tmp_path), stored(tmp_path)
    (row,) = store.get("score", "c0", ScoreRow)
    for path in paths:
        noticed = 0
        for _ in cuts(path) if damaged is cuts else flips(path, rng, 100):
            told = []
            rows = store.get("score", "c0", ScoreRow, told.append)
            assert (rows, told) == ([row], []) or (
                rows is None and told[0].startswith(f"{path} is damaged")
            )
            noticed += rows is None
            listed = [failure.what for failure in store.failures()]
            assert listed == [str(path)] * (rows is None and path.suffix == ".json")
            if path.suffix == ".nc" and rows is None:
                with pytest.raises(DataError, match=f"{path} is damaged"):
                    store.arrays("score", "c0")
        # What is left is in blanks, or in the mark before a checksum.
        assert noticed == (10 if damaged is cuts else pytest.approx(90, abs=10))
        assert store.get("score", "c0", ScoreRow) == [row]


def test_scores_that_are_damaged_are_computed_again(place, ce_align):
    folder = place()
    asked = (*COMMANDS["score"], "--json")
    expected = [row["value"] for row in json.loads(ce_align(*asked)[1])]
    for path in sorted(folder.glob("results/score/*.*")):
        whole = bytearray(path.read_bytes())
        whole[len(whole) // 2] ^= 1
        path.write_bytes(whole)
        status, out, err = ce_align(*asked)
        assert status == 0, err
        assert [row["value"] for row in json.loads(out)] == expected
        assert "is computed again" in err.replace("\n", " ")
        assert path.read_bytes() != whole


def test_a_bit_that_turned_anywhere_in_a_recording_is_noticed(prepared, tmp_path, rng):
    path = tmp_path / "toy.nc"
    path.write_bytes((prepared / "toy.nc").read_bytes())
    whole = load_recording(str(path))
    for _ in flips(path, rng, 200):
        try:
            found = load_recording(str(path))
        except DataError as error:
            assert str(error).startswith(f"{path} is damaged")
        else:  # the mark of its checksum
            assert (found.digest, found.notes) == (whole.digest, whole.notes)


def test_recordings_that_are_damaged_are_listed_with_the_reason(place, ce_align):
    folder = place()
    whole = (folder / "toy.nc").read_bytes()
    (folder / "cut.nc").write_bytes(whole[: len(whole) // 2])
    (folder / "text.nc").write_text("no netCDF")
    xr.Dataset({"x": ("a", [1.0])}).to_netcdf(folder / "of_others.nc")
    status, out, err = ce_align("recordings", "--json")
    assert status == 0, err
    access = {row["name"]: row["access"] for row in json.loads(out)}
    assert access["toy.nc"].startswith("recorded")
    assert access["cut.nc"].startswith("damaged: NetCDF: HDF error")
    assert access["text.nc"].startswith("damaged: NetCDF: Unknown file format")
    assert "of_others.nc" not in access
    shown = " ".join(ce_align("recordings")[1].split())
    assert "cut.nc" in shown and "HDF error; copy or import it again" in shown


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
