"""What the answers to two fixed images tell of a network."""

import re

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ce_align.data.imagesets import ImageSet
from ce_align.digests import digest_array
from ce_align.errors import ConfigError, DataError
from ce_align.files import cache_folder
from ce_align.models.features import extract
from ce_align.models.networks import Behaviour, Network, probe_pixels
from ce_align.models.preprocessing import Preprocessing


class Apply(nn.Module):
    """A function as a layer, behind one that cannot be folded away."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def network(*functions, size=8):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), *map(Apply, functions)]
    return Network("net", nn.Sequential(*layers), Preprocessing(input_size=size))


def noisy(x):
    return x + 0.1 * torch.randn_like(x)


def dropped(x):
    return F.dropout(x, 0.2, training=True)


def batch_normalised(x):
    return F.batch_norm(x, None, None, training=True)


def centred(x):
    return x - x.mean(0, keepdim=True)


def alone(x):
    if len(x) == 1:
        raise ValueError("expected more than 1 value per channel")
    return x


def running_sum(x):
    return x.cumsum(0)


def recurrent(x):
    """Images in the place of time, as where batch_first was forgotten."""
    torch.manual_seed(0)
    return nn.GRU(x[0].numel(), 5)(x.flatten(1))[0]


def largest(x):
    return x / x.abs().amax()


def stretched(x):
    return (x - x.amin()) / (x.amax() - x.amin())


UNSTABLE = {
    "noise": (noisy, "layer 1 is random: one image gives different answers"),
    "dropout": (dropped, "layer 1 is random"),
    "batch norm": (batch_normalised, "layer 1 depends on the other images of its"),
    "running sum": (running_sum, "layer 1 depends on the other images of its batch"),
    "recurrence": (recurrent, "layer 1 depends on the other images of its batch"),
    "largest of the batch": (largest, "layer 1 depends on the other images of its"),
    "range of the batch": (stretched, "layer 1 depends on the other images of its"),
    "centring": (centred, "layer 1 depends on the other images of its batch"),
}


@pytest.fixture
def images(rng):
    return ImageSet.from_array(
        "noise", rng.integers(0, 256, (16, 8, 8, 3), dtype=np.uint8)
    )


@pytest.mark.parametrize("kind", UNSTABLE)
def test_layers_whose_answers_are_not_the_images_alone_are_refused(kind, images):
    function, message = UNSTABLE[kind]
    found = network(function)
    with pytest.raises(DataError, match=f"net: {message}"):
        extract(found, images, ["1"])
    # What comes before the fault is as good as ever.
    assert list(extract(found, images, ["0", "1"], failures={})) == ["0"]


@pytest.mark.parametrize("kind", UNSTABLE)
def test_who_insists_gets_them_marked_and_uncached(kind, images):
    function, message = UNSTABLE[kind]
    found = network(function)
    probe = found.probe(["1"], allow_unstable=True)
    assert not probe.failures
    assert probe.behaviour("1") is None
    assert probe.note("1").startswith(message.partition(":")[0].partition(" .")[0])
    extract(found, images, ["1"], probe=probe)
    assert not list(cache_folder("features").rglob("*.npy"))


@pytest.mark.parametrize("n_tokens", [1, 2, 16])
def test_images_may_be_on_another_axis(n_tokens, images):
    def tokens(x):  # (tokens, n, d), as some transformers keep them
        return x.flatten(2)[..., :n_tokens].permute(2, 0, 1)

    found = extract(network(tokens), images, ["1"])["1"].values
    whole = extract(network(), images, ["0"])["0"].values.reshape(16, 4, -1)
    expected = whole[..., :n_tokens].transpose(0, 2, 1).reshape(16, -1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_a_network_that_takes_no_single_image_is_refused(images):
    with pytest.raises(DataError, match=r"net: one image alone .*expected more"):
        extract(network(alone), images, ["1"])


def test_outputs_without_a_row_an_image_are_refused(images):
    shapes = {
        "4 numbers for two": lambda x: torch.cat([x, x]).mean((1, 2, 3)),
        "none": lambda x: x.mean(0),
    }
    for function in shapes.values():
        with pytest.raises(DataError, match=r"net: layer 1 .*one row for each|same"):
            extract(network(function), images, ["1"])


def test_not_a_number_is_refused_before_a_pass_over_the_images(images):
    with pytest.raises(DataError, match="net: layer 1 gives NaN or infinity"):
        extract(network(torch.log), images, ["1"])


def test_a_pass_that_fails_is_one_line():
    def broken(x):
        raise RuntimeError("no\nkernel")

    probe = network(broken).probe(["0", "1"])
    assert re.fullmatch(
        r"net: the pass fails \(.*test_networks.py, line \d+\): RuntimeError: no",
        str(probe.failures["0"]),
    )


def test_unknown_layers_are_named():
    with pytest.raises(ConfigError, match="net has no layer '7'"):
        network().probe(["7"])


def test_rounding_is_the_same_behaviour_and_a_change_is_not():
    answers = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    behaviour = Behaviour.of(answers)
    assert behaviour.agrees(Behaviour.of(answers * (1 + 1e-6)))
    assert not behaviour.agrees(Behaviour.of(answers * 1.01))
    assert not behaviour.agrees(Behaviour.of(answers.flip(0)))
    one_unit = answers.clone()
    one_unit[:, 77] += 1
    assert not behaviour.agrees(Behaviour.of(one_unit))
    assert not behaviour.agrees(Behaviour.of(answers[:, :-1]))
    assert not behaviour.agrees(Behaviour.of(answers.double()))


def test_small_differences_between_images_count_beside_a_large_offset():
    answers = 100 + torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    changed = answers.clone()
    changed[0] += 0.05 * torch.sign(torch.arange(1000) % 2 - 0.5)
    assert not Behaviour.of(answers).agrees(Behaviour.of(changed))


def test_behaviour_is_read_back_as_it_was_stored():
    behaviour = Behaviour.of(torch.randn(2, 130))
    assert Behaviour.read(behaviour.document()) == behaviour
    for damaged in (None, {}, {"sketch": [[1]]}, {"sketch": "a"}, []):
        assert Behaviour.read(damaged) is None


def test_probe_images_are_the_same_on_every_machine():
    assert digest_array(probe_pixels(24, 32)) == "58e6d8f60e9e9e666bdb"
    one, other = probe_pixels(24, 32)
    assert np.ptp(one) > 1.5 * np.ptp(other) > 100


@pytest.mark.parametrize("precision", ["half", "bfloat16", "double"])
def test_other_precisions_are_known_again(precision):
    def converted():
        found = network(torch.tanh)
        getattr(found.module, precision)()
        return found

    first, second = (converted().probe(["1"]) for _ in range(2))
    assert not first.failures
    assert first.digest == second.digest
    assert first.behaviour("1").agrees(second.behaviour("1"))


def test_an_identity_lists_what_the_digest_is_made_of():
    before = network(F.relu)
    listed = before.identity
    assert {"weight 0.weight", "weight 0.bias", "structure", "preprocessing"} <= {
        *listed
    }
    assert listed["weight 0.bias"] != listed["weight 0.weight"]
    with torch.no_grad():
        before.module[0].bias += 1
    changed = {k for k, v in before.identity.items() if v != listed[k]}
    assert changed == {"weight 0.bias"}
    other = network(F.relu, size=16)
    assert {k for k, v in other.identity.items() if v != listed[k]} == {"preprocessing"}


def test_what_is_stored_of_an_identity_is_short_and_tells_as_much():
    before, after = network(F.relu), network(F.relu)
    assert before.probe(()).summary() == after.probe(()).summary()
    with torch.no_grad():
        after.module[0].bias += 1
    one, other = before.probe(()).summary(), after.probe(()).summary()
    assert {k for k in one if one[k] != other[k]} == {"weights"}
    assert len(one) < 12


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*", ["0", "1", "2"]),
        ("[12]", ["1", "2"]),
        ("blocks.*", ["blocks.0", "blocks.1"]),
        ("blocks.*.mlp", ["blocks.0.mlp", "blocks.1.mlp"]),
    ],
)
def test_a_pattern_names_layers_in_their_order_and_stops_at_dots(pattern, expected):
    blocks = [nn.ModuleDict({"mlp": nn.Identity()}) for _ in range(2)]
    net = network(F.relu, F.relu)
    if "blocks" in pattern:
        net.module.add_module("blocks", nn.Sequential(*blocks))
    assert net.matching(pattern) == expected
    with pytest.raises(ConfigError, match=r"no layer like 'block\.\*'; nearest: 0"):
        network(F.relu).matching("block.*")


@pytest.mark.parametrize(
    ("name", "blocks"),
    [
        ("test_vit", "blocks.*"),
        ("convnext_atto", "stages.*.blocks.*"),
        ("swin_s3_tiny_224", "layers.*.blocks.*"),
    ],
)
def test_all_layers_of_a_transformer_are_its_blocks(name, blocks):
    pytest.importorskip("timm")
    from ce_align.models.load import load_network

    found = load_network(f"timm/{name}:none")
    every = found.block_names()
    assert set(found.matching(blocks)) <= set(every)
    assert all(layer in found.matching("*") for layer in set(every) if "." not in layer)


def test_a_part_of_a_network_is_a_network_of_the_same_images(images):
    whole = network(F.relu)
    whole = Network("net", nn.ModuleDict({"visual": whole.module}), Preprocessing())
    part = whole.part("visual")
    assert part.name == "net@visual"
    assert part.digest == Network("other", part.module, Preprocessing()).digest
    assert part.check_layers(["0"]) is None
    with pytest.raises(ConfigError, match="nearest: visual"):
        whole.part("vidual")
