"""One network for every λ: ends of a line, what is drawn, and what is exported."""

import numpy as np
import pytest
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.models.load import load_network
from ce_align.stages.train import train
from ce_align.trainer.engine import fit, networks_of_line
from ce_align.trainer.line import (
    AT_ZERO,
    NEARLY_ZERO,
    draw_weight,
    move_to,
    ordinary_state,
    spread,
)
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import build_backbone
from ce_align.trainer.presets import Hardware, preset_config

pytestmark = pytest.mark.slow


def settings(**changes):
    given = {
        "equivariance_weight": 0.25,
        "weighting": "drawn",
        "images": "noise",
        "view_size": 32,
        "epochs": 2,
        "pairs_per_step": 4,
        "options": {"head_widths": (8, 8), "ema": 0.9},
    }
    return preset_config("tiny", "mmcr", **{**given, **changes})


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 3}" for i in range(16)])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


@pytest.fixture
def some():
    return torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def ordinary(network):
    """A network of its own with these weights."""
    alone = build_backbone("tiny")[0].eval()
    alone.load_state_dict(ordinary_state(network))
    return alone


def moved_apart():
    """A network on a line whose ends differ."""
    torch.manual_seed(0)
    network = build_backbone("tiny")[0].eval()
    spread(network)
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith("other"):
                value.add_(0.1 * torch.randn_like(value))
    return network


def test_both_ends_begin_as_the_network(some):
    torch.manual_seed(0)
    network = build_backbone("tiny")[0].eval()
    expected = network(some)
    spread(network)
    for share in (0.0, 0.4, 1.0):
        move_to(network, share)
        assert torch.allclose(network(some), expected, atol=1e-6)


def test_an_ordinary_network_is_that_of_its_place(some):
    network = moved_apart()
    seen = []
    for share in (0.0, 0.5, 1.0):
        move_to(network, share)
        alone = ordinary(network)
        move_to(network, 0.7)  # what was copied stays where it was
        seen.append(alone(some))
        move_to(network, share)
        assert torch.equal(seen[-1], network(some))
    assert not torch.allclose(seen[0], seen[2], atol=1e-3)


def test_ends_learn_by_their_share():
    network = moved_apart()
    move_to(network, 0.25)
    network(torch.rand(2, 3, 32, 32)).sum().backward()
    stem = network.conv1.parametrizations.weight
    assert torch.allclose(stem[0].other.grad, stem.original.grad / 3, rtol=1e-4)


def test_weights_are_drawn_from_step_and_seed_alone():
    drawn = np.array([draw_weight(0.6, 0, step) for step in range(3000)])
    assert abs((drawn == NEARLY_ZERO).mean() - AT_ZERO) < 0.03
    rest = drawn[drawn > NEARLY_ZERO]
    assert rest.max() < 0.6 and abs(rest.mean() - 0.3) < 0.02
    assert draw_weight(0.6, 0, 7) == drawn[7] != draw_weight(0.6, 1, 7)


def test_a_training_gives_a_network_for_every_tenth(tmp_path, images, some):
    folder = tmp_path / "run"
    rows = train(
        settings(), images, folder, Hardware(workers=0), notify=lambda text: None
    )
    places = [folder / f"run_at_{weight}" for weight in ("0", "0.1", "0.2")] + [folder]
    assert {path.parent for path in folder.rglob("model.safetensors")} == {*places}
    found = [load_network(str(place)) for place in places]
    facts = [network.facts for network in found]
    assert [one.equivariance_weight for one in facts] == [0.0, 0.1, 0.2, 0.25]
    assert {(one.objective, one.weighting) for one in facts} == {("mmcr", "drawn")}
    assert {row.model_digest for row in rows} == {found[-1].digest}
    assert all("of no one λ" in row.note for row in rows)
    assert len({network.digest for network in found}) == len(found)
    # They are what the training is at its end, moved there.
    module = fit(settings(), images, folder, Hardware(workers=0), notify=lambda t: None)
    for network, weight in zip(found, networks_of_line(module, images), strict=True):
        assert weight == network.facts.equivariance_weight
        backbone = ordinary(module.network.backbone)
        backbone.fc = module.probe
        loaded = network.module.eval()
        assert torch.allclose(backbone(some), loaded(some), atol=1e-5)


def test_the_momentum_networks_are_on_the_line_too(images):
    module = PairedTraining(settings(), steps_per_epoch=4)
    with torch.no_grad():
        for value in module.network.parameters():
            value.add_(1)
    module.momentum.update(module.network)
    places = [name for name, _ in module.momentum.named_parameters() if "other" in name]
    assert places
    module.move_to(0.25)
    for network in (module.network, module.momentum.network):
        stem = network.backbone.conv1
        assert torch.equal(stem.weight, stem.parametrizations.weight[0].other)


@pytest.mark.parametrize("weight", [0, 1])
def test_weights_cannot_be_drawn_up_to_an_end_of_the_scale(weight):
    with pytest.raises(ValueError, match="largest one between 0 and 1"):
        settings(equivariance_weight=weight)
