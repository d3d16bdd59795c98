"""A faster copy of a network gives the same features, or it is not used."""

import threading

import numpy as np
import pytest
import torch
from test_features import small_module
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from ce_align.models.activations import ActivationReader, network_inputs
from ce_align.models.devices import prepared
from ce_align.models.folding import accelerated, folded
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing


def answer(module, layers, example):
    """Flat outputs of layers."""
    with ActivationReader(module, layers) as read:
        return read(example)


def test_folding_leaves_no_batch_norm_that_nobody_looks_between():
    module = small_module().eval()

    def n_norms(layer):
        parts = folded(module, [layer]).modules()
        return sum(isinstance(part, nn.BatchNorm2d) for part in parts)

    found = {layer: n_norms(layer) for layer in ("3", "2.norm", "2.conv", "0")}
    assert found == {"3": 0, "2.norm": 0, "2.conv": 1, "0": 1}


def test_folding_spares_a_convolution_that_others_read_too():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def forward(self, x):
            out = self.conv(x)
            return self.norm(out) + out

    module = Branches().eval()
    assert isinstance(folded(module, ["norm"]).norm, nn.BatchNorm2d)


def test_accelerated_network_that_differs_is_not_used(monkeypatch):
    module = small_module().eval()
    wrong = small_module(seed=1).eval()
    monkeypatch.setattr("ce_align.models.folding.folded", lambda *_: wrong)
    example = torch.randn(1, 3, 20, 20)
    found = accelerated(module, ["3"], example)
    assert found is not wrong
    expected = answer(module, ["3"], example)["3"]
    torch.testing.assert_close(answer(found, ["3"], example)["3"], expected)


class Maps(nn.Module):
    """Convolution, batch norm and what a case adds to them."""

    def __init__(self, change=lambda conv: conv):
        super().__init__()
        self.conv, self.norm = change(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 4, 3)
        with torch.no_grad():
            self.norm.running_mean.uniform_(-0.5, 0.5)
            self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.last(self.norm(self.conv(x)))


def pruned(conv):
    return prune.l1_unstructured(conv, "weight", amount=0.5)


def patched(conv):
    plain = conv.forward
    conv.forward = lambda x: torch.tanh(plain(x))
    return conv


class Volumes(nn.Module):
    """Images as volumes of one frame."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, (1, 3, 3))
        self.norm, self.last = nn.BatchNorm3d(4), nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.last(self.norm(self.conv(x[:, :, None]))[:, :, 0])


class Viewing(Maps):
    """Its own code needs the usual memory order."""

    def forward(self, x):
        x = self.conv(x.view(len(x), -1).view(x.shape))
        return self.last(self.norm(x.view(len(x), -1).view(x.shape)))


class Branching(Maps):
    """Cannot be traced."""

    def forward(self, x):
        out = super().forward(x)
        return out if out.sum() > 0 else -out


class Locked(Maps):
    """Cannot be copied."""

    def __init__(self):
        super().__init__()
        self.lock = threading.Lock()


class Remembering(Maps):
    """Keeps state of its last pass, as attention maps are kept."""

    def forward(self, x):
        self.seen = self.conv(x)
        return self.last(self.norm(self.seen))


CASES = {
    "weight norm": lambda: Maps(weight_norm),
    "parametrised weight norm": lambda: Maps(parametrizations.weight_norm),
    "spectral norm": lambda: Maps(spectral_norm),
    "parametrised spectral norm": lambda: Maps(parametrizations.spectral_norm),
    "orthogonal": lambda: Maps(parametrizations.orthogonal),
    "pruned": lambda: Maps(pruned),
    "patched forward": lambda: Maps(patched),
    "volumes": Volumes,
    "views": Viewing,
    "branches": Branching,
    "lock": Locked,
    "state": Remembering,
    "plain": Maps,
}


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated:FutureWarning")
# The second is how a device other than the processor is prepared.
@pytest.mark.parametrize("device", ["cpu", "cpu:0"])
@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be_accelerated_is_read_plainly(case, device, rng):
    torch.manual_seed(1)
    network = Network(case, CASES[case](), Preprocessing(input_size=12))
    pixels = rng.integers(0, 256, (5, 12, 12, 3), dtype=np.uint8)
    layers = [name for name, _ in network.module.named_children()]
    plain = network_inputs(network.module, network.preprocessing, pixels, "cpu")
    assert plain.is_contiguous()
    expected = answer(network.module, layers, plain)
    module = prepared(network, layers, device, pixels[0])
    inputs = network_inputs(module, network.preprocessing, pixels, device)
    found = answer(module, layers, inputs)
    assert found.keys() == expected.keys() == set(layers)
    for layer in layers:
        torch.testing.assert_close(found[layer], expected[layer], rtol=0, atol=1e-5)


@pytest.mark.parametrize("case", ["branches", "volumes", "plain"])
def test_the_network_itself_stays_as_it_was(case):
    network = Network(case, CASES[case](), Preprocessing(input_size=12))
    before = network.digest
    module = prepared(network, ["last"], "cpu", np.ones((12, 12, 3), np.uint8))
    assert network.digest == before
    assert network.module.last.weight.is_contiguous()
    assert not any(part._forward_hooks for part in network.module.modules())
    assert module is not network.module or case == "volumes"


def test_pruned_convolutions_keep_their_norm_and_the_others_are_folded():
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Maps(pruned), Maps()
            self.second.conv = nn.Conv2d(4, 4, 3)

        def forward(self, x):
            return self.second(self.first(x))

    module = Both().eval()
    with torch.inference_mode():  # its pruned weight has no history, and can be copied
        module(torch.ones(1, 3, 12, 12))
    fast = folded(module, ["second.last"])
    assert isinstance(fast.first.norm, nn.BatchNorm2d)
    assert isinstance(fast.second.norm, nn.Identity)


def test_what_a_network_prints_while_it_is_tried_stays_off_standard_output(capsys):
    class Speaking(Maps):
        def forward(self, x):
            print("a network speaks")
            return functional.relu(super().forward(x))

    network = Network("speaking", Speaking(), Preprocessing(input_size=12))
    prepared(network, ["last"], "cpu", np.ones((12, 12, 3), np.uint8))
    said = capsys.readouterr()
    assert said.out == ""
    assert "speaks" in said.err
