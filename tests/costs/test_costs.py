"""What work costs: exact counts, what they grow with, and planted rates."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from ce_align.costs import rates as rates_of
from ce_align.costs.operations import backbone, operations_of
from ce_align.costs.paper import paper_configs
from ce_align.costs.rates import MACHINES, USUAL, stored_rates
from ce_align.costs.work import PARTS, cost_of, total, work_of
from ce_align.data.named import RECORDINGS
from ce_align.runner import register_brainscore
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.measures import AnalysisConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.trainer.data import open_images
from ce_align.trainer.estimate import estimate
from ce_align.trainer.presets import Hardware, preset_config

RESNET = "torchvision/resnet18"


def score(**settings):
    given = {"model": RESNET, "recording": "sanghavi2020", "layer": "layer4"}
    return ScoreConfig(**{**given, **settings})


def bures(**settings):
    given = {
        "metric": "bures",
        "model": RESNET,
        "images": "simulated",
        "layer": "layer4",
    }
    return AnalysisConfig(**{**given, **settings})


@pytest.mark.parametrize(
    ("name", "published"),  # 10⁹ products and sums, as torchvision states them
    [("resnet18", 1.814), ("resnet50", 4.089), ("mobilenet_v2", 0.301)],
)
def test_operations_are_those_that_are_published(name, published):
    found = operations_of(backbone(name), 224) / 2e9
    assert found == pytest.approx(published, rel=0.005)


def test_a_training_counts_the_steps_that_the_trainer_takes(tmp_path, rng):
    for i in range(23):
        pixels = rng.integers(0, 256, (36, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    config = preset_config(
        "tiny",
        "mmcr",
        equivariance_weight=0.1,
        images=str(tmp_path),
        pairs_per_step=4,
        epochs=3,
    )
    images = open_images(config.images, config.view_size, 0)
    plan = estimate(config, images, Hardware(workers=0, devices=1))
    assert work_of(config).amounts["views"] == 4 * 4 * plan.steps


def test_twice_the_stimuli_are_twice_the_pass_and_four_times_the_products(monkeypatch):
    register_brainscore()
    entry = RECORDINGS["sanghavi2020"]
    small = work_of(score()).amounts
    monkeypatch.setitem(
        RECORDINGS, "sanghavi2020", replace(entry, images=2 * entry.images)
    )
    large = work_of(score()).amounts
    assert large["forward"] == 2 * small["forward"]
    assert large["decoded"] == 2 * small["decoded"]
    assert large["products"] == pytest.approx(4 * small["products"], rel=0.01)


def test_every_block_is_counted_where_all_are_asked_for():
    given = {"model": RESNET, "recording": "sanghavi2020"}
    found = {
        layer: work_of(ScoreConfig(**given, layer=layer))
        for layer in ("layer4", "layer4.*", "all", "best")
    }
    one, two, every, best = found.values()
    assert every == best
    for work in (two, every):
        assert work.amounts["forward"] == one.amounts["forward"]
    # Features of the blocks of a ResNet-18, and two of equal size.
    blocks = 2 * (64 * 56**2 + 128 * 28**2 + 256 * 14**2 + 512 * 7**2)
    assert every.written / one.written == blocks / (512 * 7**2)
    assert two.amounts["products"] == pytest.approx(2 * one.amounts["products"])


def test_networks_that_meet_the_same_views_pay_for_these_once():
    one, other = bures(), bures(model="torchvision/resnet34")
    alone = cost_of(one, USUAL).seconds
    both = total([one, other], USUAL).seconds
    assert both["views rendered"] == alone["views rendered"]
    assert both["networks"] > 2 * alone["networks"]
    assert total([one, one], USUAL).seconds["networks"] == alone["networks"]


def test_a_machine_that_is_twice_as_fast_takes_half_as_long():
    numbers = {
        name: 2 * value for name, value in vars(USUAL).items() if name != "machine"
    }
    fast = replace(USUAL, **numbers)
    for config in (score(), bures(), preset_of("simulated")):
        slow, quick = cost_of(config, USUAL), cost_of(config, fast)
        assert quick.total == pytest.approx(slow.total / 2)
        assert set(slow.seconds) <= set(PARTS.values())
        assert (quick.memory, quick.written) == (slow.memory, slow.written)


def preset_of(images):
    return preset_config("tiny", "simclr", equivariance_weight=0, images=images)


def test_what_nobody_knows_is_assumed_and_said():
    cost = cost_of(score(model="nets.py:build", recording="new.nc"), USUAL)
    assert cost.assumed == (
        "new.nc has 3000 stimuli",
        "nets.py:build costs as much as a ResNet-50",
    )
    assert cost_of(preset_of("absent"), USUAL).assumed == ("absent has 50000 images",)
    assert cost_of(CorrelateConfig(), USUAL).assumed == ()


def test_the_paper_is_counted_whole_and_trained_in_the_hours_that_it_tells():
    configs = paper_configs()
    assert len(configs) == 21 * (1 + 4 + 2)
    trainings = [config for config in configs if config.stage == "train"]
    # The paper: 15 hours a network on eight A100.
    hours = total(trainings, MACHINES["8 × A100"]).total / 3600 / len(trainings)
    assert 7.5 < hours < 30


def test_rates_are_kept_for_the_machine_and_its_threads(monkeypatch):
    assert stored_rates() == USUAL
    steps = ("_decoded", "_products", "_decomposed", "_written", "_starts")
    for name in steps:
        monkeypatch.setattr(rates_of, name, lambda: 5.0)
    for name in ("_shown", "_trained"):
        monkeypatch.setattr(rates_of, name, lambda network, size, n: 7.0)
    # A view takes a millisecond, and as much for every 10⁴ pixels.
    monkeypatch.setattr(rates_of, "_rendered", lambda size: 1 / (1e-3 + 1e-7 * size**2))
    told = []
    found = rates_of.measure(lambda *what: told.append(what))
    assert stored_rates() == found
    assert (found.decoded, found.large, found.trained) == (5, 7, 7)
    assert found.views == pytest.approx(1000)
    assert found.rendered == pytest.approx(10)
    assert told[-1][1:3] == (10, 10)
    monkeypatch.setenv("OMP_NUM_THREADS", "61")
    assert stored_rates() == USUAL


@pytest.mark.parametrize("size", [64, 224])
def test_a_network_has_its_own_size_whatever_the_views_have(size):
    shown = work_of(bures(size=size)).amounts
    each = operations_of(backbone("resnet18"), 224) / 1e9
    assert shown["forward"] == pytest.approx(shown["views"] * each)


def test_a_tiny_network_that_is_yet_to_be_trained_has_small_inputs(tmp_path):
    found = work_of(score(model=str(tmp_path / "mmcr_l0_tiny_seed1"))).amounts
    n = RECORDINGS["sanghavi2020"].images
    each = operations_of(backbone("tiny"), 32) / 1e9
    assert found["forward"] == pytest.approx(n * each)
