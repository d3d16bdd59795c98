"""Identities of configurations are those that results are stored under."""

import inspect
import json

import pytest

from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.imported import ImportConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.official import OfficialConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.trainer.presets import TrainConfig, preset_config

#: Configurations of every stage whose rows release 0.1 stored, with their identity
#: there, and the one that does not depend on names of networks.
STORED = [
    (
        ScoreConfig(model="pixels", recording="simulated", layer="committed"),
        "9d1fcb733dc90e7bc480",
        "7d2c4de7a0f02f105f22",
    ),
    (
        ScoreConfig(
            model="runs/a",
            recording="my.nc",
            layer="layer4",
            regression="ridge",
            alpha=1.0,
            splits=20,
            stratify="none",
            seed=3,
            gram_dtype="float32",
            ceiling="variance",
        ),
        "719cb3e14c89d83a1db5",
        "060fdc344990df51c089",
    ),
    (
        OfficialConfig(
            model="pixels",
            recording="brainscore/MajajHong2015.IT-pls",
            layer="committed",
        ),
        "4492beb9ccc1d3da1d97",
        "9814b7e74cb13c8c8463",
    ),
    (
        AnalysisConfig(
            metric="bures",
            model="runs/b",
            baseline="runs/a",
            layer="committed",
            images="simulated",
        ),
        "b4acafc4e91ad497f516",
        "c04417f291d85bdbe767",
    ),
    (
        AnalysisConfig(
            metric="decoding",
            model="pixels",
            images="val.zip",
            layer="avgpool",
            comparisons=40,
            views=20,
            crops=6,
            photometrics=6,
            independent_photometrics=True,
            classes=8,
            centroids="compared",
            runs=2,
            size=32,
            family="tiny",
            interval="comparisons",
            seed=4,
        ),
        "b6fcfb585b971cb12871",
        "40116d6cc966543f660c",
    ),
    (
        OverlapConfig(
            model_a="gabor",
            model_b="pixels",
            recording="simulated",
            layer_a="committed",
            layer_b="committed",
        ),
        "181d97196163e6bd7fb3",
        "02c101ef8506cc361fa2",
    ),
    (
        TransferConfig(model="pixels", dataset="cifar10", layer="committed", size=224),
        "8358987e85d51ddc9786",
        "3f664e23bb3e8f19628c",
    ),
    (
        ImportConfig(file="leaderboard.csv"),
        "2a73519416d5a06d61dc",
        "2a73519416d5a06d61dc",
    ),
    (
        CorrelateConfig(recordings=("simulated",)),
        "bfbb73728f9b59eed1cb",
        "bfbb73728f9b59eed1cb",
    ),
    (
        CorrelateConfig(recordings=("majajhong2015",), permutations=99, seed=1),
        "d8b90ed479ae9acea3f1",
        "d8b90ed479ae9acea3f1",
    ),
    (
        TrainConfig(objective="mmcr", equivariance_weight=0.1, images="train"),
        "77930abd820bd3a7a0c5",
        "77930abd820bd3a7a0c5",
    ),
    (
        preset_config(
            "tiny",
            "barlow",
            equivariance_weight=0.3,
            images="simulated",
            seed=2,
            precision="bf16",
        ),
        "6088bd7a19fda4c81894",
        "6088bd7a19fda4c81894",
    ),
]


@pytest.mark.parametrize(("config", "config_id", "nameless"), STORED)
def test_a_configuration_has_the_id_that_its_rows_are_stored_under(
    config, config_id, nameless
):
    found = config.fingerprint(weights="w" * 20, algorithm="fixed")
    assert (found, found.nameless) == (config_id, nameless)


def test_a_field_that_came_later_is_part_of_an_identity_unless_it_says_as_before():
    before = preset_config("tiny", "barlow", equivariance_weight=0.3, images="x")
    assert before.model_dump()["gradient"] == "full"
    assert TrainConfig(**before.model_dump()).fingerprint() == before.fingerprint()
    after = before.model_copy(update={"gradient": "authors"})
    assert after.fingerprint() != before.fingerprint()


@pytest.mark.parametrize("config", [config for config, *_ in STORED])
def test_a_configuration_is_read_from_what_it_is_stored_as(config):
    stored = json.loads(json.dumps(config.model_dump(mode="json")))
    again = type(config).model_validate(stored)
    assert again.model_dump(mode="json") == stored
    assert again.fingerprint() == config.fingerprint()


@pytest.mark.parametrize("config", [config for config, *_ in STORED])
def test_labels_are_no_part_of_an_identity_nor_of_what_is_stored(config):
    names = [name for name in type(config).model_fields if name.startswith("label")]
    labels = {name: f"my {name}" for name in names}
    labelled = type(config)(**config.model_dump(), **labels)
    assert labelled.fingerprint() == config.fingerprint()
    assert labelled.model_dump() == config.model_dump()
    assert list(labelled.labels.values()) == list(labels.values())


def test_help_shows_what_the_options_do():
    for name, field in ScoreConfig.model_fields.items():
        if field.description:
            assert f"{name} : {field.description}" in ScoreConfig.__doc__
    assert "Settings\n--------" in inspect.getdoc(ScoreConfig)
