"""A faster copy of a network gives the same features, or it is not used."""

import threading

import numpy as np
import pytest
import torch
from test_features import small_module
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune, spectral_norm, weight_norm

from ce_align.errors import ConfigError, DataError
from ce_align.models.activations import ActivationReader, network_inputs
from ce_align.models.devices import (
    PooledReader,
    accelerated,
    folded,
    full_precision,
    prepared,
    resolve_device,
)
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
    monkeypatch.setattr("ce_align.models.devices.folded", lambda *_: wrong)
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


def make_network(size=16):
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(3, 5, 3, bias=False), nn.BatchNorm2d(5)
    norm.running_mean.uniform_(-0.5, 0.5)
    norm.running_var.uniform_(0.5, 2)
    module = nn.Sequential(conv, norm, nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    module(torch.zeros(1, 3, size, size))
    return Network("small", module, Preprocessing(input_size=size))


@pytest.fixture
def views(rng):
    return rng.integers(0, 256, (23, 16, 16, 3), np.uint8)


def test_maps_are_averaged_over_places(views):
    network = make_network()
    with PooledReader(network, "2", device="cpu") as read:
        found = read(views)
    with torch.no_grad():
        maps = network.module[:3](network.preprocessing.normalise(torch.tensor(views)))
    np.testing.assert_allclose(found, maps.mean(dim=(2, 3)), atol=1e-5)
    assert found.dtype == np.float32


def test_two_workers_share_the_views_and_give_the_rows_of_one(views):
    network = make_network()
    with PooledReader(network, "2", device="cpu", batch_size=5) as read:
        alone = read(views)
    with PooledReader(network, "2", device="cpu,cpu", batch_size=5) as read:
        assert np.array_equal(read(views), alone)


def test_vectors_stay_as_they_are(views):
    network = make_network()
    with PooledReader(network, "4") as read, torch.no_grad():
        found = read(views)
        inputs = network.preprocessing.normalise(torch.tensor(views))
        np.testing.assert_allclose(found, network.module(inputs), atol=1e-5)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 100])
def test_batches_do_not_change_responses(views, batch_size):
    network = make_network()
    with PooledReader(network, "2", batch_size=batch_size) as read:
        found = read(views)
    with PooledReader(network, "2") as read:
        np.testing.assert_allclose(found, read(views), atol=1e-6)


def test_views_of_another_size_are_resized_as_pillow_does(rng):
    from PIL import Image

    coarse = rng.integers(0, 256, (3, 6, 6, 3), np.uint8)
    views = coarse.repeat(8, axis=1).repeat(8, axis=2)
    small = [Image.fromarray(view).resize((16, 16), Image.BILINEAR) for view in views]
    with PooledReader(make_network(), "2") as read:
        found, expected = read(views), read(np.stack(small))
    np.testing.assert_allclose(found, expected, atol=0.02)


def test_the_network_is_left_as_it_was(views):
    network = make_network()
    before = network.digest
    with PooledReader(network, "2") as read:
        read(views)
    assert network.digest == before
    assert not any(part._forward_hooks for part in network.module.modules())


def test_mistakes_are_named():
    with pytest.raises(ConfigError, match="no layer '7'"):
        PooledReader(make_network(), "7")
    with pytest.raises(ConfigError, match="no device 'quantum'"):
        PooledReader(make_network(), "2", device="quantum")
    spread = nn.Sequential(nn.Conv2d(3, 4, (3, 1)))
    network = Network("odd", spread, Preprocessing(input_size=16))
    with PooledReader(network, "0") as read, pytest.raises(DataError, match="places"):
        read(np.zeros((2, 16, 16, 3), np.uint8))


def test_devices_are_checked_by_name(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == "cuda"
    assert resolve_device("cuda:1") == "cuda:1"
    for absent in ("cuda:2", "cuda:x", "cpu:1", "tpu", ""):
        with pytest.raises(ConfigError, match="choose cpu or one of 2 GPUs"):
            resolve_device(absent)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ConfigError, match="no device 'cuda'"):
        resolve_device("cuda")


def test_convolutions_on_a_gpu_keep_the_digits_of_single_precision():
    with full_precision("cuda"):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_responses_of_the_cpu(views):
    with PooledReader(make_network(), "2", device="cpu") as read:
        expected = read(views)
    with PooledReader(make_network(), "2", device="cuda") as read:
        np.testing.assert_allclose(read(views), expected, atol=1e-4)
