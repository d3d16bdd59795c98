"""One network, one recording, one spelling of its name."""

import pytest

from ce_align.names import NetworkName, plain_path, split_name
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.trainer.presets import TrainConfig

SPELLINGS = [
    "./data/my.nc",
    "data//my.nc",
    "data/./my.nc",
    "other/../data/my.nc",
    "{here}/data/my.nc",
    "~/work/data/my.nc",
]


@pytest.fixture
def here(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "work"


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_an_identity_does_not_depend_on_how_a_path_is_spelled(spelling, here):
    path = spelling.format(here=here)
    configs = [
        lambda name: ScoreConfig(model=name, recording=name),
        lambda name: TransferConfig(model="pixels", dataset=name),
        lambda name: OverlapConfig(model_a=name, model_b="pixels", recording="it"),
        lambda name: CorrelateConfig(recordings=(name,)),
        lambda name: TrainConfig(objective="mmcr", equivariance_weight=0, images=name),
    ]
    for config in configs:
        assert config(path).fingerprint() == config("data/my.nc").fingerprint()


def test_a_folder_outside_of_the_current_one_has_one_name(here):
    assert plain_path("../runs/a/") == f"{here.parent}/runs/a"
    assert plain_path("~/runs/a") == f"{here.parent}/runs/a"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("./nets.py:build", "nets.py:build"),
        ("{here}/runs/a/", "runs/a"),
        ("local-dir:./hub/a/", "local-dir:hub/a"),
        ("features:./f.npy:{here}/ids.csv", "features:f.npy:ids.csv"),
        ("./w.pt:resnet50@teacher", "w.pt:resnet50@teacher"),
    ],
)
def test_what_follows_a_path_is_kept(name, expected, here):
    assert plain_path(name.format(here=here)) == expected


@pytest.mark.parametrize(
    "name",
    [
        *("pixels", "ce_mmcr_l0.1", "torchvision/resnet50:none", "simulated"),
        *("timm/vit_tiny_patch16_224.augreg_in21k", "hf-hub:lab/net@v2", "it"),
        *("brainscore/MajajHong2015.IT-pls", "https://a.org//b", "ce_*_l0.[12]"),
    ],
)
def test_what_is_no_path_stays_as_it_is(name):
    assert plain_path(name) == name


@pytest.mark.parametrize(
    "name",
    [
        NetworkName("clip.py:build", "visual", timm=True),
        NetworkName("runs/a", timm=True),
        NetworkName("w.pt:resnet50", "teacher"),
        NetworkName("hf-hub:lab/net@v2", "visual.trunk"),
        NetworkName("hf-hub:lab/net@v2"),
        NetworkName("/home/me@host/runs/a"),
    ],
)
def test_a_name_is_read_as_it_is_written(name):
    assert split_name(str(name)) == name


def test_a_part_and_its_preprocessing_are_spelled_by_settings_too():
    spelled = ScoreConfig(
        model="./clip.py:build",
        recording="it",
        submodule="visual",
        preprocessing="timm",
    )
    assert spelled == ScoreConfig(model="clip.py:build@visual+timm", recording="it")
    whole = ScoreConfig(model="hf-hub:lab/net", recording="it", submodule="visual")
    assert split_name(whole.model).part == "visual"
    with pytest.raises(ValueError, match="preprocessing"):
        ScoreConfig(model="a", recording="it", preprocessing="torchvision")
