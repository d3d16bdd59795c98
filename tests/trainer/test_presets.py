"""Presets are the settings of the paper, and of small scale."""

import pytest
from pydantic import ValidationError

from ce_align.augment.families import FAMILIES
from ce_align.errors import ConfigError
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.objectives import find_objective
from ce_align.trainer.presets import PRESETS, TrainConfig, preset_config


def configured(settings):
    return find_objective(settings.objective).configured(**settings.options)


def config(preset, objective="barlow", **changes):
    return preset_config(
        preset, objective, equivariance_weight=0.2, images="x", **changes
    )


def test_the_paper_took_62500_steps_of_1024_pairs_at_rate_4_8():
    paper = config("paper-in1k")
    steps_per_epoch = 1_281_167 // 2 // paper.pairs_per_step
    assert paper.epochs * steps_per_epoch == 62_500
    assert (paper.backbone, paper.view_size, paper.optimizer) == (
        "resnet50",
        224,
        "lars",
    )
    small = paper.model_copy(
        update={"backbone": "tiny", "options": {"head_widths": (8, 8)}}
    )
    module = PairedTraining(small, steps_per_epoch)
    assert module.peak_rate == pytest.approx(4.8)
    assert module.learning_rate(0) == 0
    assert module.learning_rate(10 * steps_per_epoch) == pytest.approx(4.8)
    assert module.learning_rate(62_499) == pytest.approx(4.8e-3, rel=1e-3)


def test_the_other_presets_change_what_the_paper_changed():
    assert config("paper-in100").epochs == 200
    weak = config("weak")
    assert weak.families == ("weak_a", "weak_b")
    same = weak.model_copy(update={"families": ("strong_a", "strong_b")})
    assert same == config("paper-in1k")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_of_the_paper_follow_the_gradient_of_the_authors(preset):
    theirs = preset in ("paper-in1k", "paper-in100", "weak")
    found = config(preset)
    assert found.gradient == ("authors" if theirs else "full")
    assert ("1/8" in found.gradient_rule) == theirs


@pytest.mark.parametrize("preset", ["paper-in1k", "paper-in100", "weak"])
def test_heads_are_those_of_the_authors(preset):
    widths = {
        objective: configured(config(preset, objective)).head_widths
        for objective in ("mmcr", "barlow", "simclr")
    }
    small = preset == "paper-in100"
    assert widths == {
        "mmcr": (4096, 512) if small else (8192, 8192, 512),
        "barlow": (8192, 8192, 8192),
        "simclr": (8192, 8192, 512),
    }
    assert configured(config(preset, "mmcr")).ema == 0.99


@pytest.mark.parametrize(
    ("objective", "widths", "ema"),
    [
        ("simclr", (512, 512, 128), None),
        ("barlow", (512, 512, 128), None),
        ("mmcr", (512, 512, 16), None),
    ],
)
def test_the_tiny_preset_has_small_heads(objective, widths, ema):
    tiny = config("tiny", objective)
    found = configured(tiny)
    assert (found.head_widths, found.ema) == (widths, ema)
    assert tiny.options.get("off_diagonal") == (0.02 if objective == "barlow" else None)
    assert (tiny.optimizer, tiny.learning_rate, tiny.weight_decay) == (
        "adamw",
        2e-3,
        1e-4,
    )
    for name in tiny.families:
        (ranges,) = FAMILIES[name].views
        assert ranges.crop_area == (0.15, 1.0)
        assert ranges.blur_sigma[1] == 1.0


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_fits_every_number_of_epochs(preset):
    for epochs in (1, 5, 10, 100, 1000):
        found = config(preset, epochs=epochs)
        assert found.warmup_epochs < epochs
    assert config("paper-in1k", epochs=1000).warmup_epochs == 10


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan"), float("inf")])
def test_weights_outside_0_to_1_are_refused(weight):
    with pytest.raises(ValidationError, match="equivariance_weight"):
        preset_config("tiny", "mmcr", equivariance_weight=weight, images="x")


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="unknown preset"):
        config("huge")
    with pytest.raises(ValidationError, match="does not fit"):
        config("paper-in1k", epochs=5, warmup_epochs=5)
    with pytest.raises(ValidationError, match="no rule"):
        TrainConfig(
            objective="mmcr", equivariance_weight=0, images="x", optimizer="adamw"
        )
    with pytest.raises(ConfigError, match="unknown objective"):
        configured(config("tiny", "mse"))


def test_settings_of_0_1_are_those_without_what_it_had_beside_them():
    stored = {**config("tiny").model_dump(mode="json"), "accumulate": 1}
    again = TrainConfig.model_validate(stored)
    assert again.fingerprint() == config("tiny").fingerprint()
    assert again.model_dump(mode="json") == stored
    with pytest.raises(ValidationError, match="accumulate"):
        TrainConfig.model_validate({**stored, "accumulate": 2})
