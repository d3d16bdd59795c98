"""Networks with random weights of the same architecture."""

import pytest
import torch

from ce_align.errors import ConfigError
from ce_align.models.catalogue import label_of
from ce_align.models.load import load_network
from ce_align.names import with_nulls

FILE = """
import torch
def build():
    torch.manual_seed(7)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    net.ce_align = {"input_size": 16, "layers": {"IT": "1"}}
    return net
def stubborn():
    net = build()
    net.scale = torch.nn.Parameter(torch.ones(1))
    return net
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "nets.py").write_text(FILE)
    monkeypatch.chdir(tmp_path)


def weights(name):
    return load_network(name).module[0].weight


def test_a_seed_draws_the_same_weights_and_another_seed_others():
    first, again = (
        weights("untrained/1:nets.py:build"),
        weights("untrained/1:nets.py:build"),
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, weights("untrained/2:nets.py:build"))
    assert not torch.equal(first, weights("nets.py:build"))


def test_an_untrained_network_has_the_layers_and_no_training():
    network = load_network("untrained/3:nets.py:build")
    assert network.layer_for("IT") == "1"
    assert (network.facts.epochs, network.facts.network_seed) == (0, 3)
    assert network.facts.objective is None
    assert label_of(network.name) == "nets.py:build, untrained 3"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("untrained/nets.py:build", "is named untrained/SEED:NETWORK"),
        ("untrained/x:nets.py:build", "is named untrained/SEED:NETWORK"),
        ("untrained/1:nets.py:stubborn", "1 weights of .* no reset_parameters"),
    ],
)
def test_what_cannot_be_drawn_anew_is_refused(name, message):
    with pytest.raises(ConfigError, match=message):
        load_network(name)


def test_what_needs_no_training_has_no_untrained_copy():
    found = with_nulls(["pixels", "features:x.npy", "a"], 1)
    asked = ["pixels", "features:x.npy", "a"]
    assert found == [*asked, "untrained/1:a", "gabor", "v1_like"]
