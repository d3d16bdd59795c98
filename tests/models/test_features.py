import resource
import shutil
import threading
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest
import torch
from forked import server
from rounding import rounding
from torch import nn
from torchvision import models

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import atomic_path, cache_folder
from ce_align.models.activations import ActivationReader, BatchRunner
from ce_align.models.features import RowSink, extract
from ce_align.models.load import load_network
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing

pytestmark = pytest.mark.slow


class Residual(nn.Module):
    """A block whose later parts work in place on earlier outputs."""

    def __init__(self, width):
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        out = self.norm(self.conv(x))
        out = self.relu(out)
        out += x
        return self.relu(out)


def small_module(seed=0) -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), Residual(6), Residual(6)
        )
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-0.5, 0.5)
                part.running_var.uniform_(0.5, 2)
    return module


def small_network(module=None, name="small") -> Network:
    return Network(name, module or small_module(), Preprocessing(input_size=20))


@pytest.fixture
def images(rng):
    array = rng.integers(0, 256, (11, 24, 24, 3), dtype=np.uint8)
    return ImageSet.from_array("noise", array)


def eager(network, images, layer):
    """Features by one plain pass over all images with one hook."""
    pre = network.preprocessing
    pixels = np.stack([pre.resize(images.load(i)) for i in range(len(images))])
    kept = []
    handle = network.module.get_submodule(layer).register_forward_hook(
        lambda _m, _i, output: kept.append(output.clone())
    )
    with torch.no_grad():
        network.module(pre.normalise(torch.from_numpy(pixels)).contiguous())
    handle.remove()
    return kept[-1].flatten(1).numpy()


class Contrast(nn.Module):
    def forward(self, x):
        return x / x.amax((1, 2, 3), keepdim=True)


#: Images that a network is shown to be known again: two together, and each alone.
PROBED = 4

LAYERS = ["0", "1", "2", "2.conv", "2.norm", "2.relu", "3"]


@pytest.mark.parametrize("layer", LAYERS)
def test_features_equal_those_of_a_plain_pass(layer, images):
    network = small_network()
    found = extract(network, images, [layer], cache=None)[layer].values
    np.testing.assert_allclose(found, eager(network, images, layer), rtol=0, atol=1e-5)


def test_layers_in_one_pass_equal_each_alone(images):
    network = small_network()
    together = extract(network, images, LAYERS, cache=None)
    for layer in LAYERS:
        alone = extract(network, images, [layer], cache=None)[layer]
        assert alone.digest == together[layer].digest
        np.testing.assert_allclose(
            alone.values, together[layer].values, rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("batch_size", [1, 4, 11, 50])
def test_batch_size_changes_nothing_but_rounding(batch_size, images):
    network = small_network()
    found = extract(network, images, ["3"], cache=None, batch_size=batch_size)
    np.testing.assert_allclose(
        found["3"].values, eager(network, images, "3"), rtol=0, atol=1e-5
    )


def test_extraction_leaves_the_network_as_it_was(images):
    network = small_network()
    before = network.digest
    extract(network, images, ["3"], cache=None)
    assert network.digest == before
    assert not any(part._forward_hooks for part in network.module.modules())
    assert network.module[0].weight.is_contiguous()


def test_same_request_is_read_from_the_cache(images):
    network, shown = small_network(), []
    network.module.register_forward_pre_hook(lambda _m, x: shown.append(len(x[0])))
    first = extract(network, images, ["1", "3"])
    shown.clear()
    again = extract(network, images, ["3", "1"])
    # It is asked whether it still answers as before, with two images of no set.
    assert sum(shown) == PROBED
    for layer in ("1", "3"):
        np.testing.assert_array_equal(first[layer].values, again[layer].values)
        assert not again[layer].values.flags.writeable
    extract(network, images, ["3"], overwrite=True)
    assert sum(shown) > PROBED + len(images)


def test_changed_weights_under_one_name_are_another_request(images):
    network = small_network()
    before = extract(network, images, ["3"])["3"]
    old = np.array(before.values)
    with torch.no_grad():
        network.module[3].norm.bias.add_(1)
    after = extract(network, images, ["3"])["3"]
    assert after.digest != before.digest
    assert np.abs(after.values - old).max() > 0.1


def test_changed_preprocessing_or_images_are_another_request(images):
    network = small_network()
    digests = {extract(network, images, ["3"])["3"].digest}
    other = Network("small", network.module, Preprocessing(input_size=21))
    digests.add(extract(other, images, ["3"])["3"].digest)
    digests.add(extract(network, images.select(range(10)), ["3"])["3"].digest)
    digests.add(extract(network, images, ["3"], pool="average")["3"].digest)
    assert len(digests) == 4


def test_images_that_sets_share_are_computed_once(images):
    network, seen = small_network(), []
    extract(network, images.select([0, 2, 4, 6, 8]), ["2", "3"])
    network.module.register_forward_pre_hook(lambda _m, x: seen.append(len(x[0])))
    found = extract(network, images, ["2", "3"])
    # One image tells the memory of a pass; the first of the six new ones also serves to
    # compare the faster network.
    assert sum(seen) == PROBED + 1 + 6 + 2
    for layer in ("2", "3"):
        np.testing.assert_allclose(
            found[layer].values, eager(network, images, layer), rtol=0, atol=1e-5
        )
    seen.clear()
    turned = extract(network, images.select([9, 1, 3, 0]), ["3"])["3"].values
    assert sum(seen) == PROBED
    np.testing.assert_array_equal(turned, found["3"].values[[9, 1, 3, 0]])


def test_image_may_occur_twice(images):
    twice = images.select([0, 1])
    array = np.stack([np.asarray(twice.load(i)) for i in (0, 1, 0)])
    found = extract(small_network(), ImageSet.from_array("twice", array), ["3"])["3"]
    np.testing.assert_allclose(found.values[0], found.values[2], rtol=0, atol=1e-5)


def test_damaged_cache_is_computed_again(images, tmp_path):
    network = small_network()
    expected = np.array(extract(network, images, ["3"], cache=tmp_path)["3"].values)
    (path,) = tmp_path.rglob("*.npy")
    for damage in (path.read_bytes()[:-8], b"", b"text"):
        path.write_bytes(damage)
        found = extract(network, images, ["3"], cache=tmp_path)["3"].values
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_interruption_leaves_nothing_half_written(images, tmp_path):
    def interrupt(done, total):
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        extract(
            small_network(),
            images,
            ["2", "3"],
            cache=tmp_path,
            batch_size=2,
            progress=interrupt,
        )
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def _extract_into(folder, array):
    extract(small_network(), ImageSet.from_array("noise", array), ["3"], cache=folder)


def test_two_processes_may_extract_the_same_at_the_same_time(images, tmp_path):
    array = np.stack([np.asarray(images.load(i)) for i in range(len(images))])
    workers = [
        server().Process(target=_extract_into, args=(tmp_path, array)) for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    network = small_network()
    found = extract(network, images, ["3"], cache=tmp_path)["3"].values
    np.testing.assert_allclose(found, eager(network, images, "3"), rtol=0, atol=1e-5)
    assert sorted(p.suffix for p in tmp_path.rglob("*.*")) == [".json", ".npy"]


def test_too_small_a_disk_is_said_before_writing(images, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1000))
    with pytest.raises(CeAlignError, match=r"need .* but .* free"):
        extract(small_network(), images, ["3"], cache=tmp_path)
    assert not list(tmp_path.rglob("*.npy"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device is always full")
def test_disk_that_fills_up_is_one_line(tmp_path):
    with (
        pytest.raises(CeAlignError, match="No space left on device; free some space"),
        atomic_path(tmp_path / "features.npy"),
        RowSink(Path("/dev/full"), 1) as sink,
    ):
        sink.write([0], np.zeros((1, 10**6), np.float32))


def test_progress_counts_images(images):
    steps = []
    extract(
        small_network(),
        images,
        ["3"],
        batch_size=4,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert steps == [(4, 11), (8, 11), (11, 11)]


class Outputs(nn.Module):
    """Every kind of output that a layer may have."""

    def __init__(self):
        super().__init__()
        self.tokens, self.pair, self.last = Tokens(), Pair(), ChannelsLast()
        self.unused, self.rows = nn.ReLU(), Rows()

    def forward(self, x):
        self.pair(x)
        self.rows(x)
        self.last(x)
        return self.tokens(x)


class Tokens(nn.Module):
    def forward(self, x):
        return x.flatten(2).transpose(1, 2)


class Pair(nn.Module):
    def forward(self, x):
        return None, None


class ChannelsLast(nn.Module):
    def forward(self, x):
        return x.permute(0, 2, 3, 1)


class Rows(nn.Module):
    def forward(self, x):
        return x.flatten(0, 1)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        ("pair", "layer pair returns a tuple without any tensor"),
        ("unused", "layer unused takes no part"),
        ("rows", r"returns \(3, 20, 20\) for one image and \(6, 20, 20\) for two"),
    ],
)
def test_layer_that_has_no_features_is_explained(layer, message, images):
    with pytest.raises(DataError, match=message):
        extract(small_network(Outputs()), images, [layer])


def test_tokens_and_maps_are_averaged_over_places(images):
    network = small_network(Outputs())
    found = extract(network, images, ["tokens", "last"], cache=None, pool="average")
    flat = extract(network, images, ["tokens"], cache=None)["tokens"].values
    expected = flat.reshape(11, 400, 3).mean(1)
    for layer in ("tokens", "last"):
        np.testing.assert_allclose(found[layer].values, expected, rtol=0, atol=1e-5)


def test_features_that_are_not_finite_name_network_and_layer(images):
    module = small_module()
    with torch.no_grad():
        module[0].weight[0] = torch.nan
    with pytest.raises(DataError, match="spoilt: layer 3 gives NaN or infinity; look"):
        extract(small_network(module, "spoilt"), images, ["3"])


def test_image_that_has_no_finite_features_is_named_and_other_layers_are_read(rng):
    array = rng.integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)
    array[3] = 0
    network = small_network(nn.Sequential(nn.Identity(), Contrast()), "odd")
    plain = network.preprocessing.model_copy(update={"mean": (0, 0, 0)})
    network = Network("odd", network.module, plain)
    failures = {}
    found = extract(
        network, ImageSet.from_array("noise", array), ["0", "1"], failures=failures
    )
    assert list(found) == ["0"]
    message = "odd: layer 1 gives NaN or infinity for 1 of 5 images, first noise_00003"
    assert str(failures["1"]).startswith(message)
    assert not list(cache_folder("features").rglob("*.tmp*"))


def test_unknown_layer_or_device_is_explained(images):
    with pytest.raises(ConfigError, match=r"no layer '2\.cnv'; nearest: 2\.conv"):
        extract(small_network(), images, ["2.cnv"])
    with pytest.raises(ConfigError, match="no device 'tpu' here"):
        extract(small_network(), images, ["3"], device="tpu")


def test_image_that_cannot_be_read_is_named(images, monkeypatch):
    def refuse(self, index):
        raise FileNotFoundError(2, "No such file")

    monkeypatch.setattr(ImageSet, "load", refuse)
    with pytest.raises(DataError, match=r"image noise_00000 cannot be read: No such"):
        extract(small_network(), images, ["3"])


def test_batch_that_does_not_fit_is_halved(images, monkeypatch):
    sizes = []

    def limited(self, inputs):
        sizes.append(len(inputs))
        if len(inputs) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return {"mean": inputs.flatten(1).mean(1, keepdim=True)}

    monkeypatch.setattr(ActivationReader, "__call__", limited)
    reader = ActivationReader(small_module(), ["3"])
    run = BatchRunner(reader, Preprocessing(input_size=4), "cpu", 16)
    pixels = np.arange(11 * 48, dtype=np.uint8).reshape(11, 4, 4, 3)
    found = run(pixels)["mean"]
    assert sizes == [11, 5, 2, 2, 2, 2, 2, 1]
    whole = run._preprocessing.normalise(torch.from_numpy(pixels)).flatten(1).mean(1)
    np.testing.assert_allclose(found[:, 0], whole, rtol=0, atol=1e-6)


def test_image_that_does_not_fit_is_explained(monkeypatch):
    def full(self, inputs):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(ActivationReader, "__call__", full)
    run = BatchRunner(ActivationReader(nn.ReLU(), []), Preprocessing(), "cpu", 16)
    with pytest.raises(CeAlignError, match="one image does not fit"):
        run(np.zeros((2, 4, 4, 3), np.uint8))


def test_memory_holds_no_second_copy_of_the_features(rng, tmp_path):
    """24 million numbers on disk; a copy in memory would be 96 MB."""
    module = nn.Sequential(nn.Conv2d(3, 150, 1))
    network = Network("wide", module, Preprocessing(input_size=20))
    array = rng.integers(0, 256, (400, 20, 20, 3), dtype=np.uint8)
    images = ImageSet.from_array("noise", array)
    extract(network, images.select(range(40)), ["0"], cache=tmp_path / "warm")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    found = extract(network, images, ["0"], cache=tmp_path)["0"].values
    grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    assert found.nbytes == 96_000_000
    assert grown < 0.5 * found.nbytes


@pytest.mark.brainscore
@pytest.mark.parametrize("layer", ["layer2", "layer4", "avgpool"])
def test_features_equal_those_of_brainscores_wrapper(layer, rng, tmp_path):
    from functools import partial

    from brainscore_vision.model_helpers.activations.pytorch import (
        PytorchWrapper,
        load_preprocess_images,
    )
    from PIL import Image

    array = rng.integers(0, 256, (3, 90, 70, 3), dtype=np.uint8)
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, pixels in zip(paths, array, strict=True):
        Image.fromarray(pixels).save(path)
    network = load_network("torchvision/resnet18:none")
    wrapper = PytorchWrapper(
        models.resnet18(), partial(load_preprocess_images, image_size=224)
    )
    wrapper._model.load_state_dict(network.module.state_dict())
    inputs = load_preprocess_images(paths, image_size=224)
    expected = wrapper.get_activations(list(inputs), [layer])[layer].reshape(3, -1)
    images = ImageSet.from_array("noise", array)
    found = extract(network, images, [layer], cache=None)[layer].values
    assert np.abs(found - expected).max() < rounding(network.module, expected)


@pytest.mark.real
def test_trained_network_names_photographs(real_data):
    """Top-1 of 81.5 % was measured on 200 photographs, 80 % on these 40."""
    archive = real_data / "imagenet_photos" / "imagenet1000_short256.zip"
    classes = np.arange(0, 1000, 25)
    photographs = ImageSet.from_path(archive, order="name").select(classes.tolist())
    file = real_data / "mobilenet_v2" / "load_mobilenet_v2.py"
    network = load_network(f"{file}:build")
    assert network.layer_for("IT") == "block15"
    logits = extract(network, photographs, ["logits"])["logits"].values
    assert logits.shape == (40, 1001)
    assert np.mean(logits[:, 1:].argmax(1) == classes) > 0.75


def test_compiled_network_gives_the_same_features(images, monkeypatch):
    # Hooks and work in place are traced as ever. The C++ that the default backend
    # would then write, for a quarter of a minute, is torch's own.
    compiler, passes = torch.compile, []

    def compiled(module):
        run = compiler(module, backend="aot_eager")

        def passed(inputs):
            passes.append(len(run(inputs)))

        return passed

    monkeypatch.setattr(torch, "compile", compiled)
    network = small_network()
    found = extract(network, images, ["1", "3"], cache=None, compile=True)
    assert sum(passes) == len(images)  # none was left to the plain network
    for layer in ("1", "3"):
        np.testing.assert_allclose(
            found[layer].values, eager(network, images, layer), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize("batch_size", [1, 3, 4, 16])
def test_two_workers_share_the_images_and_give_the_rows_of_one(images, batch_size):
    network = small_network()
    options = {"layers": ["1", "3"], "batch_size": batch_size, "cache": None}
    alone = extract(network, images, device="cpu", **options)
    shared = extract(network, images, device="cpu,cpu", **options)
    for layer, features in alone.items():
        assert np.array_equal(features.values, shared[layer].values)


def test_a_layer_that_fails_in_two_workers_fails_once():
    class Dark(nn.Module):
        """Loses the images where all are black."""

        def forward(self, x):
            return x[:0] if bool((x < -1.7).all()) else x

    network = small_network(nn.Sequential(nn.Identity(), Dark()), "dark")
    black = ImageSet.from_array("black", np.zeros((6, 20, 20, 3), np.uint8))
    failures = {}
    found = extract(
        network,
        *(black, ["0", "1"]),
        device="cpu,cpu",
        batch_size=2,
        cache=None,
        failures=failures,
    )
    assert list(found) == ["0"]
    assert list(failures) == ["1"]


def test_what_has_no_copy_is_read_by_one_worker(images):
    network = small_network()
    network.module.lock = threading.Lock()
    expected = extract(small_network(), images, ["3"], device="cpu", cache=None)
    found = extract(network, images, ["3"], device="cpu,cpu", cache=None)
    np.testing.assert_allclose(
        found["3"].values, expected["3"].values, rtol=0, atol=1e-5
    )
