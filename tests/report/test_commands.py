"""The commands of the report say what no default says, and no more."""

import shlex

import pytest
import typer.main
from typer.testing import CliRunner

from ce_align.cli.app import app
from ce_align.report.page.commands import commands
from ce_align.report.page.stored import Source, StoredRow
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.official import OfficialConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import SimilarityConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.trainer.presets import TrainConfig, preset_config

SCORE = {"recording": "simulated", "layer": "layer4"}
ANALYSIS = {"metric": "bures", "layer": "layer4", "images": "simulated"}


def source(stage, config, model="runs/a", place=0):
    row = StoredRow("row", {"model": model})
    anchor = f"{stage}-{place}"
    settings = config.model_dump(mode="json")
    return Source(anchor, stage, "id", settings, {}, (row,))


def options(command):
    """Options of a command."""
    _, found, _ = typer.main.get_command(app).resolve_command(None, [command])
    return {option for parameter in found.params for option in parameter.opts}


def one(stage, config, **options):
    [command] = commands([source(stage, config)], **options).values()
    return command


@pytest.mark.parametrize(
    ("stage", "config", "expected"),
    [
        (
            "score",
            ScoreConfig(model="a b", **SCORE, regression="ridge", alpha=1.5, splits=3),
            "score --model 'a b' --layer layer4 --recording simulated "
            "--regression ridge --alpha 1.5 --splits 3",
        ),
        (
            "analyze",
            AnalysisConfig(
                model="pixels", **ANALYSIS, independent_photometrics=True, baseline="x"
            ),
            "analyze --model pixels --metric bures --layer layer4 --baseline x "
            "--images simulated --independent-photometrics",
        ),
        (
            "overlap",
            OverlapConfig(
                model_a="a",
                model_b="b",
                layer_a="1",
                layer_b="2",
                recording="r",
                folds=3,
            ),
            "overlap --model a --model b --recording r --layer 1 --layer 2 --folds 3",
        ),
        (
            "similarity",
            SimilarityConfig(model="a", **SCORE, metric="rsa", distance="cosine"),
            "similarity --model a --layer layer4 --recording simulated --metric rsa "
            "--distance cosine",
        ),
        (
            "transfer",
            TransferConfig(model="a", dataset="dtd", layer="l", size=64, runs=2),
            "transfer --model a --dataset dtd --layer l --size 64 --repeats 2",
        ),
        (
            "correlate",
            CorrelateConfig(recordings=("r", "s"), seed=4),
            "correlate --against r --against s --seed 4",
        ),
        (
            "train",
            preset_config(
                "tiny", "barlow", equivariance_weight=0.3, images="x", epochs=2
            ),
            "train --preset tiny --objective barlow --weight 0.3 --images x --epochs 2 "
            "--precision 32 --out runs/a",
        ),
    ],
)
def test_a_command_names_what_differs_from_the_defaults(stage, config, expected):
    assert one(stage, config) == f"ce-align {expected}"
    assert {w for w in shlex.split(expected) if w.startswith("--")} <= options(stage)


def test_networks_of_equal_settings_share_a_command():
    configs = [ScoreConfig(model=name, **SCORE) for name in ("a", "b")]
    other = ScoreConfig(model="c", **SCORE, seed=9)
    found = commands(
        [source("score", c, place=i) for i, c in enumerate([*configs, other])]
    )
    assert found["score-0"] == found["score-1"]
    assert "--model a --model b" in found["score-0"]
    assert "--seed 9" in found["score-2"]


def test_a_baseline_that_follows_from_the_network_is_left_out():
    configs = [
        AnalysisConfig(model=f"ce_{name}_l0.1", baseline=f"ce_{name}_l0", **ANALYSIS)
        for name in ("mmcr", "simclr")
    ]
    found = commands([source("analyze", c, place=i) for i, c in enumerate(configs)])
    assert len(set(found.values())) == 1
    assert "--baseline" not in found["analyze-0"]


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.5, "gradient": "full"},
        {"families": ("weak_a", "strong_b"), "options": {"ema": None}},
        {"epochs": 3, "warmup_epochs": 2, "probe": False, "backbone": "tiny"},
        {"optimizer": "lars", "learning_rate": None},
        {"options": {"head_widths": [8, 8]}, "precision": "bf16", "seed": 3},
    ],
)
@pytest.mark.parametrize("preset", ["paper-in100", "tiny"])
def test_the_command_of_a_training_gives_the_same_settings(
    preset, changes, monkeypatch
):
    usual = preset_config(preset, "mmcr", equivariance_weight=0.5, images="x")
    config = TrainConfig(**{**usual.model_dump(), **changes})
    words = shlex.split(one("train", config))
    asked = []

    def trained(configs, *args, **settings):
        asked.extend(configs)
        raise SystemExit

    monkeypatch.setattr("ce_align.runner.run", trained)
    CliRunner().invoke(app, words[1:])
    assert [found.fingerprint() for found in asked] == [config.fingerprint()]


def test_a_score_by_brainscore_itself_is_an_option_of_score():
    config = OfficialConfig(model="a", recording="r", layer="l")
    expected = "ce-align score --official --model a --recording r --layer l"
    assert one("official", config) == expected


def test_a_stage_that_nobody_knows_has_no_command():
    config = OfficialConfig(model="a", recording="r", layer="l")
    assert one("$(reboot)", config).startswith("# ")


def test_another_folder_of_results_is_named():
    config = ScoreConfig(model="a", **SCORE)
    assert one("score", config, results="demo/results").endswith(
        "--results demo/results"
    )
