"""`ce-align transfer` from the outside."""

import json

import numpy as np
import pytest
from PIL import Image

from ce_align.results import ResultStore
from ce_align.stages.train import TrainRow
from ce_align.trainer.presets import preset_config


@pytest.fixture
def images(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val", "test"):
        for k, name in enumerate(("dark", "light")):
            folder = tmp_path / "shades" / split / name
            folder.mkdir(parents=True)
            for i in range(4):
                pixels = rng.integers(100 * k, 100 * k + 60, (9, 9, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "shades"


def test_shades_are_told_apart_and_stored(ce_align, images):
    arguments = ("transfer", "--model", "pixels", "--dataset", images, "--size", 8)
    arguments += ("--repeats", 1, "--json")
    status, out, err = ce_align(*arguments)
    assert status == 0, err
    (row,) = json.loads(out)
    assert row["value"] == 1.0
    assert (row["n_train"], row["n_validation"], row["n_test"]) == (8, 8, 8)
    assert (row["sd"], row["size"], row["n_runs"]) == (None, 8, 1)
    again, out, err = ce_align(*arguments)
    assert again == 0
    assert json.loads(out) == [row]
    assert "1 of 1 were in results already" in err
    status, out, _ = ce_align(*arguments[:-1])
    assert status == 0
    assert "top-1" in out
    assert "8/8/8" in out


def test_a_data_set_that_is_not_there_is_one_line(ce_align):
    status, out, err = ce_align(
        "transfer", "--model", "pixels", "--dataset", "pets", "--root", "data", "--json"
    )
    assert status == 1
    assert json.loads(out) == []
    assert len(err.splitlines()) == 1
    assert "images,annotations" in err
    assert "data/oxford-iiit-pet" in err
    assert "--download" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "pixels"), "--dataset"),
        (("--model", "pixels", "--online", "--dataset", "dtd"), "one of the two"),
        (("--model", "pixels", "--dataset", "cifar-10"), "cifar10"),
        (("--model", "pixels", "--online"), "ce-align train"),
        (("--model", "nonsense", "--dataset", "dtd"), "no network"),
    ],
)
def test_mistakes_are_one_line_of_status_2(ce_align, arguments, said):
    status, out, err = ce_align("transfer", *arguments)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert said in err


def test_the_online_probe_of_a_training_joins_the_results(ce_align, tmp_path):
    settings = preset_config(
        "tiny", "mmcr", equivariance_weight=0.1, images="simulated"
    )
    row = TrainRow(
        model="runs/mmcr_l0.1",
        metric="probe_top1",
        value=0.25,
        config_id=settings.fingerprint(images="data"),
        objective="mmcr",
        equivariance_weight=0.1,
        backbone="tiny",
        epochs=1,
        seed=0,
        data_digest="data",
        n_images=9,
    )
    folder = tmp_path / "runs" / "mmcr_l0.1"
    ResultStore(folder).put("train", row.config_id, settings, [row])
    status, out, err = ce_align("transfer", "--online", "--model", "runs/mmcr_l0.1")
    assert status == 0, err
    assert "probe_top1" in out
    found = ResultStore(tmp_path / "results").load("train")
    assert list(found["value"]) == [0.25]
    assert list(found["equivariance_weight"]) == [0.1]


def test_help_has_examples_and_the_protocol(ce_align):
    status, out, _ = ce_align("transfer", "--help")
    assert status == 0
    assert "--dataset cifar10" in out
    assert "fitted again" in " ".join(out.split())
