"""Rows of two versions of the package: not mixed in silence, and none is lost."""

import json
import os

import netCDF4
import pytest
import torch
from small_commands import COMMANDS, store_scores

from ce_align.data.named import load_recording
from ce_align.errors import ConfigError, DataError
from ce_align.report import page
from ce_align.report.inputs import Inputs, predictivity_points
from ce_align.results import ResultStore
from ce_align.stages import score
from ce_align.stages.same_network import load_rows
from ce_align.stages.scores import ScoreRow
from ce_align.trainer.callbacks import IDENTITY, starting_point
from ce_align.trainer.presets import TrainConfig

pytestmark = pytest.mark.slow


def edited(path, **changes):
    """A stored result as another version might have written it."""
    document = json.loads(path.read_text()) | changes
    document.pop("digest")
    path.write_text(json.dumps(document))
    return path.read_bytes()


def listed(ce_align, *command):
    status, out, err = ce_align(*command, "--json")
    assert status == 0, err
    return [row for row in json.loads(out) if row.get("state", "done") == "done"]


def test_rows_of_two_algorithms_are_not_compared(tmp_path):
    store_scores(tmp_path)
    edited(tmp_path / "score" / "c0.json", content={"algorithm": "predictivity 1"})
    edited(tmp_path / "score" / "c1.json", content={"algorithm": "predictivity 2"})
    found = predictivity_points(Inputs.load(tmp_path), "score")
    assert len(found.rows) == 1
    (note,) = (one for one in found.notes if "algorithm" in one)
    assert note == (
        "simulated: 1 row of another algorithm left out. Ask for all of them again."
    )
    chosen = "predictivity 1, best layer 1"
    edited_again = json.loads((tmp_path / "score" / "c1.json").read_text())
    edited_again["content"] = {"algorithm": chosen}
    (tmp_path / "score" / "c1.json").write_text(json.dumps(edited_again))
    assert len(predictivity_points(Inputs.load(tmp_path), "score").rows) == 2


def test_versions_that_write_at_once_keep_their_own_rows(place, ce_align, monkeypatch):
    folder = place()
    child = os.fork()
    if not child:
        status = 1
        try:
            score.ALGORITHM = "predictivity 1"
            status = ce_align("score", "--model", "pixels", *COMMANDS["score"][3:])[0]
        finally:
            os._exit(status)
    asked = ("score", "--model", "gabor", *COMMANDS["score"][3:])
    assert ce_align(*asked)[0] == 0
    assert os.waitpid(child, 0)[1] == 0
    rows = load_rows(ResultStore(folder / "results"))
    assert dict(zip(rows["model"], rows["algorithm"].str[:14], strict=True)) == {
        "pixels": "predictivity 1",
        "gabor": "predictivity 2",
    }
    notes = {row["model"]: row["note"] for row in listed(ce_align, "results")}
    assert "computed by predictivity 1, features" in notes["pixels"]
    assert "computed by predictivity 2, features" in notes["gabor"]
    kept = {path: path.read_bytes() for path in folder.glob("results/score/*.*")}
    status, _, err = ce_align("score", "--model", "pixels", *COMMANDS["score"][3:])
    assert status == 0
    assert "algorithm differ from when score rows" in " ".join(err.split())
    assert all(path.read_bytes() == content for path, content in kept.items())
    assert len(load_rows(ResultStore(folder / "results"))) == 3


def later_columns(document):
    document["rows"][0] |= {"a_later_column": 1, "version": "9.0"}


def later_metric(document):
    document["rows"][0] |= {"metric": "a later metric"}


def later_stage(document):
    document["stage"] = document["rows"][0]["stage"] = "later"


def later_settings(document):
    document["config"] |= {"a_later_setting": [1, 2]}
    document["a_later_part"] = {"of": "the file"}


def test_rows_of_a_later_version_are_neither_misread_nor_destroyed(
    tmp_path, ce_align, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(page, "make_parts", lambda *_: ([], [], []))  # takes seconds
    results = tmp_path / "results"
    store_scores(results)
    path, kept = results / "score" / "c0.json", {}
    for later in (later_columns, later_metric, later_stage, later_settings):
        document = json.loads(path.read_text())
        del document["digest"]
        later(document)
        place = results / document["stage"] / f"{later.__name__}.json"
        place.parent.mkdir(exist_ok=True)
        place.write_text(json.dumps(document))
        kept[place] = place.read_bytes()
    for command in (("results", "--json"), ("tables", "--which", 5), ("report",)):
        status, out, err = ce_align(*command)
        assert status == 0, err
        if command[0] == "results":
            assert len(json.loads(out)) == 2 + len(kept)
    assert {place: place.read_bytes() for place in kept} == kept
    with pytest.raises(DataError, match=r"columns\.json is of ce_align 9\.0"):
        ResultStore(results).get("score", "later_columns", ScoreRow)


def test_a_recording_of_a_later_version_is_told_and_listed(place, ce_align):
    place()
    with netCDF4.Dataset("toy.nc", "a") as file:
        file.format = "ce_align recording 3"
    with pytest.raises(DataError, match=r"toy\.nc is of a later version .*; update"):
        load_recording("toy.nc")
    (toy,) = (r for r in listed(ce_align, "recordings") if r["name"] == "toy.nc")
    assert toy["access"].startswith("unreadable: toy.nc is of a later version")


def test_a_training_of_a_later_version_is_left_to_it(place):
    folder = place(command="export") / "runs" / "mmcr_l0.3"
    *_, last = sorted(folder.glob("checkpoints/*.ckpt"))
    content = torch.load(last, weights_only=True)
    settings = json.loads(content[IDENTITY]["config"])
    config = TrainConfig(**settings)
    content[IDENTITY]["config"] = json.dumps({**settings, "a_later_setting": 1})
    torch.save(content, last)
    with pytest.raises(ConfigError, match=r"ckpt is of another version .*a_later_sett"):
        starting_point(folder, config, "", "auto", print)
