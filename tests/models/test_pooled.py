"""Responses averaged over places, of views in memory."""

import numpy as np
import pytest
import torch
from torch import nn

from ce_align.errors import ConfigError, DataError
from ce_align.models.devices import full_precision, resolve_device
from ce_align.models.networks import Network
from ce_align.models.pooled import PooledReader
from ce_align.models.preprocessing import Preprocessing


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
