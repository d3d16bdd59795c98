"""The paper in miniature: its grid, its baselines, and that its networks can learn."""

from pathlib import Path

import numpy as np
import pytest

from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError
from ce_align.recipes import load_recipe
from ce_align.stages.train import training_folder
from ce_align.trainer.engine import fit
from ce_align.trainer.presets import Hardware

PATH = Path(__file__).resolve().parent.parent / "analyses" / "mini_paper.py"


@pytest.fixture
def configs(monkeypatch):
    """Configurations of a stage, with these variables of ``make mini-paper``."""

    def of(stage, **given):
        for name in ("IMAGES", "RECORDINGS", "PRESET"):
            monkeypatch.delenv(f"CE_ALIGN_MINI_{name}", raising=False)
        for name, value in given.items():
            monkeypatch.setenv(f"CE_ALIGN_MINI_{name}", value)
        return [one for one in load_recipe(PATH).configs if one.stage == stage]

    return of


@pytest.mark.parametrize(
    ("preset", "n_weights", "n_seeds", "size"), [("cpu", 3, 2, 32), ("gpu", 7, 1, 64)]
)
def test_every_network_is_compared_with_its_own_at_weight_zero(
    configs, preset, n_weights, n_seeds, size
):
    trainings = {
        str(training_folder(one)): one for one in configs("train", PRESET=preset)
    }
    assert len(trainings) == 3 * n_weights * n_seeds
    measures = configs("analyze", PRESET=preset)
    assert {one.size for one in measures} == {size}
    distances = [one for one in measures if one.metric == "bures"]
    assert {one.model for one in distances} == set(trainings)
    for one in distances:
        own = trainings[one.model]
        if own.equivariance_weight == 0:
            assert one.baseline is None
        else:
            alike = own.model_copy(update={"equivariance_weight": 0.0})
            assert trainings[one.baseline] == alike


def test_it_learns_from_one_part_of_the_images_and_is_measured_on_the_other(configs):
    assert {one.images for one in configs("train", IMAGES="photos")} == {"photos/train"}
    assert {one.images for one in configs("analyze", IMAGES="photos")} == {"photos/val"}


def test_scores_and_correlations_are_of_the_recordings_that_are_named(configs):
    assert not configs("score") + configs("similarity") + configs("correlate")
    for stage in ("score", "similarity"):
        found = {one.recording for one in configs(stage, RECORDINGS="a.nc b.nc")}
        assert found == {"a.nc", "b.nc"}
    (table,) = configs("correlate", RECORDINGS="a.nc b.nc")
    assert table.recordings == ("a.nc", "b.nc")


def test_an_unknown_preset_is_refused_with_those_that_there_are(configs):
    with pytest.raises(ConfigError, match="PRESET is 'huge'; choose from cpu, gpu"):
        configs("train", PRESET="huge")


@pytest.mark.slow
def test_the_networks_for_a_gpu_take_a_step_on_a_processor(configs, tmp_path, rng):
    pixels = rng.integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    small = {"epochs": 1, "warmup_epochs": 0, "pairs_per_step": 4}
    config = configs("train", PRESET="gpu")[-1].model_copy(update=small)
    module = fit(
        config, ImageSet.from_array("noise", pixels), tmp_path, Hardware(workers=0)
    )
    assert module.global_step == 1
    assert np.isfinite(module.latest["loss"])
