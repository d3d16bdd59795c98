"""`--json` prints one document and nothing else, whatever the command does."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.main import get_command, get_group

from ce_align import demonstration
from ce_align.cli import app
from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.stages.scores import ScoreConfig

pytestmark = pytest.mark.slow

TALKATIVE = """
import torch
class Talks(torch.nn.Module):
    def forward(self, images):
        print("a layer speaks")
        return images[:, :, ::8, ::8]
def build():
    network = torch.nn.Sequential(Talks())
    network.ce_align = dict(input_size=32, layers=dict(IT="0", V4="0"))
    return network
"""
RECIPE = '''"""Serves a test."""
from ce_align.stages.scores import ScoreConfig
RECIPE = [ScoreConfig(model="net.py:build", recording="toy.nc", components=5)]
'''
MODEL = ("--model", "net.py:build")
OTHER = ("--model", "pixels", "--recording", "toy.nc")
SMALL = (
    *("--images", "images", "--metric", "dimensionality", "--size", 32),
    *("--comparisons", 12, "--views", 6, "--repeats", 2, "--crops", 4),
    *("--photometrics", 4),
)
TRAIN = (
    *("--objective", "mmcr", "--weight", 0.3, "--preset", "tiny", "--workers", 0),
    *("--images", "images", "--pairs-per-step", 4, "--epochs", 1),
)
#: Commands that have the option, in an order in which each finds what it needs.
CASES = {
    "models": ("ce_mmcr_*",),
    "recordings": (),
    "recordings show": ("toy.nc",),
    "score": (*MODEL, "--recording", "toy.nc", "--components", 5),
    "analyze": (*MODEL, *SMALL),
    "correlate": (),
    "compare": (*MODEL, *OTHER, "--components", 5, "--over", "neuroids"),
    "overlap": (*MODEL, *OTHER),
    "unique": (*MODEL, *OTHER),
    "similarity": (*MODEL, "--recording", "toy.nc"),
    "transfer": (*MODEL, "--dataset", "labelled", "--size", 8, "--repeats", 1),
    "train": TRAIN,
    "run": ("recipe.py",),
    "sweep start": ("recipe.py",),
    "sweep status": (),
    "benchmark": ("--paper",),
    "import-scores": ("scores.csv",),
    "results": (),
    "tables": ("--which", "1"),
    "register": ("pixels",),
    "submit": ("--check", "absent.zip"),
    "doctor": ("--timeout", 0.1),
    "demo": (),
}
#: What else one of them may be asked.
VARIANTS = {
    "train": (*TRAIN, "--dry-run"),
    "run": ("recipe.py", "--dry-run"),
    "sweep start": ("recipe.py", "--dry-run"),
    "results": ("--stage", "score", "--columns", "model,value"),
}
#: They have nothing to print here, and say why on standard error.
WITHOUT = ("correlate", "tables", "submit")


def leaves(name, command):
    """Every command below a command, by the words that call it."""
    inner = getattr(command, "commands", {})
    yield name, command
    for word, one in inner.items():
        yield from leaves(f"{name} {word}", one)


def test_every_command_that_prints_json_is_tried_here():
    found = set()
    for word, (module, _) in app.COMMANDS.items():
        room = app.import_module(f"ce_align.cli.{module}")
        for name, command in leaves(word, get_group(room.commands).commands[word]):
            if any("--json" in parameter.opts for parameter in command.params):
                found.add(name)
    assert found == set(CASES)
    assert get_command(app.app).commands.keys() == app.COMMANDS.keys()


@pytest.fixture
def toy(tmp_path, monkeypatch, rng):
    """What the commands are given, small, in the current folder."""
    (tmp_path / "net.py").write_text(TALKATIVE)
    (tmp_path / "recipe.py").write_text(RECIPE)
    (tmp_path / "scores.csv").write_text(
        "model,benchmark,score\nCE-MMCR_lmda_01,MajajHong2015.IT-pls,0.5\n"
    )
    pixels = rng.integers(0, 256, (60, 32, 32, 3), np.uint8)
    names = tuple("abcde")
    rates = rng.normal(pixels.mean((1, 2, 3))[:, None, None], 0.5, (60, 4, 5))
    images = ImageSet.from_array("toy", pixels)
    write_recording(Recording("toy", images, rates, names, "V4"), tmp_path / "toy.nc")
    for k in range(16):
        coarse = rng.integers(100 * (k % 2), 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(coarse.repeat(9, axis=0).repeat(9, axis=1))
        split = ("train", "train", "val", "test")[k // 2 % 4]
        for place in ("images", f"labelled/{split}/{'ab'[k % 2]}"):
            (tmp_path / place).mkdir(parents=True, exist_ok=True)
            picture.save(tmp_path / place / f"{k}.png")
    score = ScoreConfig(model="net.py:build", recording="toy.nc", components=5)
    monkeypatch.setattr(demonstration, "demo_recipe", lambda runs: [score])
    monkeypatch.setattr(demonstration, "session_score", lambda out, tell: score)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def test_standard_output_is_one_document_whatever_the_command_does(ce_align, toy):
    for name, arguments in [*CASES.items(), *VARIANTS.items()]:
        status, out, err = ce_align(*name.split(), *arguments, "--json")
        if name in WITHOUT:
            assert status in (1, 2), name
            assert out == "" or json.loads(out) == [], name
            assert "error: " in err, name
            continue
        assert status == 0, (name, err)
        found = json.loads(out)
        assert isinstance(found, list) and found, name
        assert all(isinstance(record, dict) for record in found), name
    assert Path("demo/report.html").is_file()
