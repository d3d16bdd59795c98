"""`ce-align train` and `ce-align pack` from the outside."""

import csv
import json
import sys

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from ce_align.cli.app import main

pytestmark = pytest.mark.slow

ARGUMENTS = ("--weight", "0.3", "--preset", "tiny", "--workers", "0")


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cli") / "images"
    rng = np.random.default_rng(3)
    for i in range(32):
        place = folder / f"class {i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    return folder


def in_process(monkeypatch, capsys, *arguments):
    """Exit status and standard error of the command, without a new interpreter."""
    monkeypatch.setattr(sys, "argv", ["ce-align", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0), capsys.readouterr().err
    return 0, capsys.readouterr().err


def test_two_processes_train_what_one_trains(
    images, tmp_path, monkeypatch, capsys, python
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ("train", "--objective", "simclr", *ARGUMENTS, "--images", images)
    arguments += ("--pairs-per-step", 8, "--epochs", 1)
    assert in_process(monkeypatch, capsys, *arguments, "--out", "one")[0] == 0
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    arguments += ("--out", "two", "--devices", 2, "--json")
    two = python("-m", "ce_align", *arguments)
    out, errors = two.communicate()
    assert two.returncode == 0, errors
    assert {row["metric"] for row in json.loads(out)} >= {"loss", "knn_top1"}
    first, second = (
        next(csv.DictReader(path.open()))
        for path in (
            tmp_path / name / "log" / "version_0" / "metrics.csv"
            for name in ("one", "two")
        )
    )
    for name in ("loss", "gradient_invariant", "gradient_equivariant"):
        assert float(first[name]) == pytest.approx(float(second[name]), rel=1e-5)
    alone, shared = (
        load_file(tmp_path / name / "model.safetensors") for name in ("one", "two")
    )
    for name, values in alone.items():
        if name.endswith("weight") and values.ndim > 1 and not name.startswith("fc"):
            assert np.corrcoef(values.ravel(), shared[name].ravel())[0, 1] > 0.999


def test_a_dry_run_prints_the_plan_and_leaves_nothing(images, tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from ce_align.cli.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ["train", "--objective", "mmcr", *ARGUMENTS, "--images", str(images)]
    arguments += ["--pairs-per-step", "4", "--epochs", "3", "--dry-run"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    shown = ("3 epochs × 4 = 12", "0.002", "GiB", "min", "0 workers", "gradient  ")
    for text in shown:
        assert text in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_plan_for_another_machine_lacks_only_what_is_measured(
    images, tmp_path, monkeypatch, capsys
):
    from ce_align.stages import train

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr(train, "available_memory", lambda: 2**20)
    arguments = ["ce-align", "train", "--objective", "mmcr", *ARGUMENTS, "--dry-run"]
    arguments += ["--images", str(images), "--pairs-per-step", "4", "--epochs", "3"]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit) as end:
        main()
    assert not end.value.code
    out, err = capsys.readouterr()
    assert "not measured: a step needs about" in err
    assert "here 0 pairs would fit" in err
    assert "3 epochs × 4 = 12" in out and "elsewhere" in out and "memory" not in out
    assert list(tmp_path.iterdir()) == []


def test_the_command_knows_every_preset(monkeypatch, capsys):
    from ce_align.trainer.presets import PRESETS

    arguments = ("train", "--objective", "mmcr", "--weight", "0", "--preset", "huge")
    status, errors = in_process(monkeypatch, capsys, *arguments)
    assert status == 2
    assert all(f"'{preset}'" in errors for preset in PRESETS)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        (("--images", "empty"), "holds no image"),
        (("--images", "absent"), "no images at absent"),
        (("--images", "one"), "one has 1 image; pairs need at least two"),
        (("--images", "small"), "smaller than a view of 32 pixels"),
        (("--images", "broken"), "cannot be read"),
        (("--devices", "1000"), "1000 devices asked for"),
        (("--devices", "many"), "give auto or a number"),
        (("--backbone", "resnet51"), "unknown backbone 'resnet51'"),
        (("--pairs-per-step", "1000"), "do not fill a step of 1000 pairs"),
        (("--precision", "fp16"), "fp16 needs a GPU"),
        (("--resume", "absent.ckpt"), "no checkpoint absent.ckpt"),
        (("--out", "one/0.png/run"), "cannot use one/0.png/run"),
    ],
)
def test_bad_input_is_one_line_and_leaves_nothing(
    images, tmp_path, monkeypatch, capsys, arguments, fault
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    for name, n, size in (("empty", 0, 0), ("one", 1, 40), ("small", 4, 20)):
        (tmp_path / name).mkdir()
        for i in range(n):
            Image.new("RGB", (size, size)).save(tmp_path / name / f"{i}.png")
    (tmp_path / "broken").mkdir()
    for i in range(4):
        (tmp_path / "broken" / f"{i}.png").write_bytes(b"no image")
    before = sorted(tmp_path.rglob("*"))
    options = {
        "--objective": "simclr",
        "--weight": "0.3",
        "--images": str(images),
        "--preset": "tiny",
        "--pairs-per-step": "2",
        "--workers": "0",
        **dict([arguments]),
    }
    flat = [text for option in options.items() for text in option]
    status, text = in_process(monkeypatch, capsys, "train", *flat)
    assert status == 2
    assert text.startswith("error: ")
    assert fault in text
    assert text.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_packed_images_are_images_to_train_on(images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    status, _ = in_process(
        monkeypatch, capsys, "pack", images, "packed", "--short-edge", 34
    )
    assert status == 0
    described = json.loads((tmp_path / "packed" / "metadata.json").read_text())
    assert (described["short_edge"], described["n_images"]) == (34, 32)
    arguments = ("train", "--objective", "barlow", *ARGUMENTS, "--images", "packed")
    arguments += ("--pairs-per-step", 8, "--epochs", 1)
    status, text = in_process(monkeypatch, capsys, *arguments)
    assert status == 0
    assert "runs/barlow_l0.3 is a network now" in text
    status, text = in_process(monkeypatch, capsys, "pack", images, "packed")
    assert status == 2
    assert "packed exists" in text


def test_the_written_settings_train_the_same_network_again(
    images, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    arguments = ("train", "--objective", "simclr", *ARGUMENTS, "--images", images)
    arguments += ("--pairs-per-step", 8, "--epochs", 1, "--out", "one")
    arguments += ("--set", "options.temperature=1e-1", "--learning-rate", 1e-4)
    assert in_process(monkeypatch, capsys, *arguments)[0] == 0
    again = ("train", "--config", "one/config.yaml", "--workers", 0, "--out", "two")
    assert in_process(monkeypatch, capsys, *again)[0] == 0
    (first,), (second,) = (
        list((tmp_path / n / "train").iterdir()) for n in ("two", "one")
    )
    assert first.name == second.name
    settings = json.loads(first.read_text())["config"]
    assert settings["options"]["temperature"] == 0.1
    assert settings["options"]["head_widths"] == [512, 512, 128]
    one, two = (load_file(tmp_path / n / "model.safetensors") for n in ("one", "two"))
    assert one.keys() == two.keys()
    for name, values in one.items():
        np.testing.assert_array_equal(values, two[name])


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ("epochs", "--set should be KEY=VALUE, found 'epochs'"),
        ("epoch=3", "there is no setting 'epoch'; nearest: epochs"),
        ("epochs=many", "epochs: Input should be a valid integer"),
        ("equivariance_weight=2", "equivariance_weight: Input should be less than"),
        ("options=3", "options: Input should be a valid dictionary, found 3"),
        ("options.temperatur=1", "simclr has no option 'temperatur'"),
        ("families=weak_a", "families: Input should be a valid tuple, found 'weak_a'"),
        ("families=[", "--set families=[: expected YAML, found in line 1"),
    ],
)
def test_a_wrong_set_is_told_in_one_line(
    images, tmp_path, monkeypatch, capsys, wrong, told
):
    monkeypatch.chdir(tmp_path)
    arguments = ("train", "--objective", "simclr", *ARGUMENTS, "--images", images)
    arguments += ("--pairs-per-step", 2, "--set", wrong)
    status, text = in_process(monkeypatch, capsys, *arguments)
    assert status == 2
    assert told in text
    assert len(text.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
