"""`ce-align run`: what is stored is skipped, what fails is named, the rest is done."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording

pytestmark = pytest.mark.slow

NETWORKS = """
import torch
def build(seed=0):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten())
    network.ce_align = dict(input_size=32, layers=dict(V4="1", IT="1"))
    return network
def other():
    return build(1)
def broken():
    raise RuntimeError("no weights today")
"""

SCORES = '''
"""Toy scores, for a test."""
from ce_align.stages.scores import ScoreConfig
RECIPE = [
    ScoreConfig(model=f"nets.py:{name}", recording="toy.nc", layer=layer, components=3)
    for name in ("build", "broken", "other")
    for layer in ("0", "1")
]
'''
ANALYSES = '''
"""Toy decoding of two networks, on the same views."""
from ce_align.stages.measures import AnalysisConfig
RECIPE = [
    AnalysisConfig(model=f"nets.py:{name}", layer="1", metric=metric,
        images="photos", comparisons=10, views=4, crops=4, photometrics=4,
        runs=2, size=32, family="tiny",
        baseline="nets.py:build" if metric == "bures" and name == "other" else None)
    for name in ("build", "other") for metric in ("bures", "dimensionality")
]
'''


@pytest.fixture
def toys(tmp_path):
    """A recording, networks, images and recipes in the current folder."""
    rng = np.random.default_rng(0)
    images = ImageSet.from_array("toy", rng.integers(0, 255, (40, 32, 32, 3), np.uint8))
    luminance = np.array([np.mean(images.load(i)) for i in range(40)])
    rates = 10 + 3 * (luminance - luminance.mean())[:, None, None]
    responses = rng.normal(rates, 0.5, (40, 4, 5))
    names = tuple(f"n{i}" for i in range(5))
    write_recording(Recording("toy", images, responses, names, "V4"), Path("toy.nc"))
    (tmp_path / "photos").mkdir()
    for i in range(10):
        images.load(i).save(tmp_path / "photos" / f"{i}.png")
    for name, text in (
        ("nets.py", NETWORKS),
        ("scores.py", SCORES),
        ("analyses.py", ANALYSES),
    ):
        (tmp_path / name).write_text(text)


def test_a_failing_network_is_named_and_the_others_are_scored(ce_align, toys):
    status, _, err = ce_align("run", "scores.py")
    assert status == 2
    assert "no weights today" in err
    assert "4 done, 0 in results already, 1 failed" in err
    assert len(list(Path("results/score").glob("*.json"))) == 4


def test_what_an_analysis_leaves_out_is_said(ce_align, toys):
    status, _, err = ce_align("run", "analyses.py")
    assert status == 0
    (line,) = [line for line in err.splitlines() if "class" in line]
    assert "photos" in line
    assert "classes" in line


def test_a_second_run_computes_only_what_is_missing(ce_align, toys):
    ce_align("run", "scores.py")
    stored = sorted(Path("results/score").glob("*.json"))
    stored[0].unlink()
    before = {path: path.stat().st_mtime_ns for path in stored[1:]}
    _, _, err = ce_align("run", "scores.py")
    assert "1 done, 3 in results already" in err
    assert {path: path.stat().st_mtime_ns for path in stored[1:]} == before
    assert stored[0].exists()


def test_a_recipe_gives_the_rows_of_the_command(ce_align, toys):
    ce_align("run", "scores.py")
    status, out, err = ce_align(
        *("score", "--model", "nets.py:other", "--recording", "toy.nc"),
        *("--components", 3, "--layer", "1", "--json"),
    )
    assert status == 0
    assert "1 of 1 were in results already" in err
    assert json.loads(out)[0]["model"] == "nets.py:other"


def test_networks_of_a_recipe_share_views_and_rows_with_the_command(ce_align, toys):
    status, out, _ = ce_align("run", "analyses.py", "--json")
    assert status == 0
    rows = json.loads(out)
    by_metric = {}
    for row in rows:
        by_metric.setdefault(row["metric"], set()).add(row["views_digest"])
    assert all(len(views) == 1 for views in by_metric.values())
    deltas = {r["model"] for r in rows if r["metric"].endswith("_delta")}
    assert deltas == {"nets.py:other"}
    _, _, err = ce_align(
        *("analyze", "--metric", "bures", "--metric", "dimensionality"),
        *("--model", "nets.py:other", "--baseline", "nets.py:build"),
        *("--images", "photos", "--comparisons", 10, "--views", 4, "--crops", 4),
        *("--photometrics", 4, "--repeats", 2, "--size", 32, "--family", "tiny"),
    )
    assert "2 of 2 were in results already" in err


PAIRS = '''
"""Toy overlap, transfer and correlation, for a test."""
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.transfer import TransferConfig
RECIPE = [
    OverlapConfig(model_a="nets.py:build", model_b="nets.py:other", recording="toy.nc"),
    TransferConfig(model="nets.py:build", dataset="tints", runs=1, size=32),
]
'''


def test_overlap_and_transfer_of_a_recipe_are_those_of_the_commands(
    ce_align, toys, tmp_path
):
    rng = np.random.default_rng(0)
    for part in ("train", "test"):
        for tint in range(2):
            folder = tmp_path / "tints" / part / str(tint)
            folder.mkdir(parents=True)
            for k in range(5):
                pixels = rng.integers(0, 200, (32, 32, 3), np.uint8)
                pixels[..., tint] += 50
                Image.fromarray(pixels).save(folder / f"{k}.png")
    (tmp_path / "pairs.py").write_text(PAIRS)
    status, out, err = ce_align("run", "pairs.py", "--json")
    assert status == 0, err
    rows = json.loads(out)
    _, first, err = ce_align(
        *("overlap", "--model", "nets.py:build", "--model", "nets.py:other"),
        *("--recording", "toy.nc", "--json"),
    )
    assert "1 of 1 were in results already" in err
    _, second, err = ce_align(
        *("transfer", "--model", "nets.py:build", "--dataset", "tints"),
        *("--repeats", 1, "--size", 32, "--json"),
    )
    assert "1 of 1 were in results already" in err
    assert rows == [*json.loads(first), *json.loads(second)]


def test_commands_of_the_report_find_its_rows_in_the_store(ce_align, toys):
    import shlex

    from ce_align.report.page.commands import commands
    from ce_align.report.page.stored import read_sources

    ce_align("run", "scores.py", "analyses.py")
    stored = {path: path.read_bytes() for path in Path("results").rglob("*.json")}
    for command in dict.fromkeys(commands(read_sources(Path("results"))).values()):
        program, *arguments = shlex.split(command)
        assert program == "ce-align"
        status, _, err = ce_align(*arguments)
        assert (status, "were in results already" in err) == (0, True), command
    assert {path: path.read_bytes() for path in Path("results").rglob("*.json")} == (
        stored
    )


def test_a_dry_run_counts_and_computes_nothing(ce_align, toys):
    ce_align("run", "scores.py")
    status, out, _ = ce_align("run", "scores.py", "analyses.py", "--dry-run")
    assert status == 0
    lines = [line for line in out.splitlines() if "score" in line or "analysis" in line]
    assert "Toy scores" in out
    assert any("6" in line and "4" in line for line in lines)
    assert not Path("results/analyze").exists()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("RECIPE = [1]", "no docstring"),
        ('"""Toy."""', "no list RECIPE"),
        ('"""Toy."""\nRECIPE = []', "no list RECIPE"),
        ('"""Toy."""\nRECIPE = [1]', "holds a int"),
        ('"""Toy."""\n\nRECIPE = [x]', "bad.py, line 3: NameError"),
        ('"""Toy."""\nRECIPE = (', "bad.py, line 2: SyntaxError"),
        (
            '"""Toy."""\nfrom ce_align.stages.scores import ScoreConfig\n'
            'RECIPE = [ScoreConfig(model="a", recording="b", layer="c", splits=0)]',
            "line 3: ScoreConfig.splits",
        ),
        ('"""Toy."""\nraise SystemExit(3)', "line 2: SystemExit"),
    ],
)
def test_a_fault_of_a_recipe_is_one_line_with_its_place(ce_align, tmp_path, text, said):
    (tmp_path / "bad.py").write_text(text)
    status, _, err = ce_align("run", "bad.py")
    assert status == 2
    [line] = err.splitlines()
    assert said in line


def test_a_recipe_that_is_not_there_is_one_line(ce_align):
    status, _, err = ce_align("run", "nothing.py")
    assert (status, len(err.splitlines())) == (2, 1)
    assert "no recipe nothing.py" in err


def test_a_configuration_of_no_stage_is_refused_with_those_that_there_are(
    ce_align, tmp_path
):
    (tmp_path / "odd.py").write_text(
        '"""Toy."""\nfrom ce_align.config import StageConfig\nRECIPE = [StageConfig()]'
    )
    status, _, err = ce_align("run", "odd.py")
    assert status == 2
    assert "no stage executes a StageConfig" in err
    assert "ScoreConfig" in err


MISSING = '''
"""Trainings without images, and scores of what they would have become."""
from ce_align.stages.train import training_folder
from ce_align.stages.scores import ScoreConfig
from ce_align.trainer.presets import preset_config
TRAININGS = [
    preset_config("tiny", "mmcr", equivariance_weight=weight, images="nowhere")
    for weight in (0.0, 0.1)
]
RECIPE = [*TRAININGS, *(
    ScoreConfig(model=str(training_folder(c)), recording="toy.nc", layer="layer4")
    for c in TRAININGS
)]
'''


def test_one_reason_is_said_once_and_not_again_of_what_depends_on_it(ce_align, toys):
    Path("missing.py").write_text(MISSING)
    status, _, err = ce_align("run", "missing.py")
    assert status == 2
    [line] = [line for line in err.splitlines() if line.startswith("error: ")]
    assert line.startswith(
        "error: runs/mmcr_l0_tiny, runs/mmcr_l0.1_tiny: no images at nowhere"
    )
    assert "2 failed" in err
