"""Networks in Brain-Score: the same features both ways, and names that mean weights."""

import importlib
import inspect
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rounding import rounding
from torch import nn

from ce_align.brainscore.models import brain_model, load_brainscore_network
from ce_align.data.imagesets import ImageSet
from ce_align.errors import AccessError, CeAlignError, ConfigError, DataError
from ce_align.models.architectures import pixels
from ce_align.models.catalogue import PUBLISHED
from ce_align.models.features import extract
from ce_align.models.load import load_network
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """Brain-Score moves networks to a GPU if there is one; numbers would differ."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def small_network(seed=0, **kwargs) -> Network:
    torch.manual_seed(seed)
    module = nn.Sequential(
        nn.Conv2d(3, 5, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 49, 4)
    )
    settings = {"preprocessing": Preprocessing(input_size=16), "layers": {"IT": "1"}}
    return Network("file.py:small net", module, **{**settings, **kwargs})


def photographs(rng, n=6) -> ImageSet:
    sizes = rng.integers(12, 30, size=2)
    array = rng.integers(256, size=(n, *sizes, 3)).astype(np.uint8)
    return ImageSet.from_array("photographs", array)


def our_features(network: Network, images: ImageSet, layer: str) -> np.ndarray:
    """Layer output by a plain forward pass, written apart from the package's own."""
    resized = [network.preprocessing.resize(images.load(i)) for i in range(len(images))]
    with torch.no_grad():
        output = network.preprocessing.normalise(torch.from_numpy(np.stack(resized)))
        for name, part in network.module.named_children():
            output = part(output)
            if name == layer:
                return output.flatten(1).numpy()
    raise LookupError(layer)


def look_at(model, images, folder, degrees):
    from brainscore_vision.benchmark_helpers.screen import place_on_screen

    from ce_align.brainscore.assemblies import stimulus_set

    model.start_recording("IT", time_bins=[(70, 170)])
    shown = place_on_screen(
        stimulus_set(images, folder), model.visual_degrees(), degrees
    )
    return model.look_at(shown, number_of_trials=1)


def test_what_brainscore_keeps_stays_out_of_the_users_folders():
    """Modules of Brain-Score keep the folder that was stated as they were imported."""
    from brainscore_vision.benchmark_helpers import screen

    keeper = inspect.getclosurevars(screen._place_on_screen).nonlocals["self"]
    kept = Path(keeper.storage_path("place"))
    assert kept.is_relative_to(tempfile.gettempdir())
    assert not kept.is_relative_to(Path("~/.result_caching").expanduser())


@pytest.mark.parametrize("degrees", [8, 5, 10])
def test_brain_model_has_the_networks_features(rng, tmp_path, monkeypatch, degrees):
    screen = importlib.import_module("brainscore_vision.benchmark_helpers.screen")
    monkeypatch.setattr(screen, "root_path", tmp_path / "screens")
    network, images = small_network(), photographs(rng)
    assembly = look_at(brain_model(network), images, tmp_path / "images", degrees)
    expected = our_features(network, images.on_screen(degrees, 8), "1")
    assert list(assembly["stimulus_id"].values) == list(images.ids)
    theirs = assembly.transpose("presentation", "neuroid").values
    np.testing.assert_allclose(theirs, expected, atol=1e-6)


def test_other_weights_under_the_same_name_are_looked_at_again(rng, tmp_path):
    images = photographs(rng)
    first, second = small_network(0), small_network(1)
    looks = [
        look_at(brain_model(n), images, tmp_path, degrees=8) for n in (first, second)
    ]
    assert first.name == second.name
    assert not np.allclose(looks[0].values, looks[1].values)


def test_other_images_under_the_same_name_are_looked_at_again(rng, tmp_path):
    model = brain_model(small_network())
    looks = [
        look_at(model, ImageSet.from_array("same", pixels), tmp_path, degrees=8)
        for pixels in rng.integers(256, size=(2, 3, 16, 16, 3)).astype(np.uint8)
    ]
    assert not np.allclose(looks[0].values, looks[1].values)


def test_registered_network_is_found_by_brainscore():
    from brainscore_vision import model_registry

    from ce_align.brainscore.registry import register_network

    network = small_network()
    identifier = register_network(network)
    assert identifier == f"file.py-small-net-{network.digest}"
    assert model_registry[identifier]().identifier == identifier


def test_network_without_layers_or_with_wrong_ones_is_refused():
    with pytest.raises(ConfigError, match="commits no layer to a region"):
        brain_model(small_network(layers={}))
    with pytest.raises(ConfigError, match="has no layer 'layer4'"):
        brain_model(small_network(), layers={"IT": "layer4"})
    with pytest.raises(ConfigError, match=r"no region is called \['TE'\]"):
        brain_model(small_network(), layers={"TE": "1"})


@pytest.fixture
def plugin(monkeypatch):
    """Let Brain-Score find a network under a name, without a plugin's folder."""
    brainscore = importlib.import_module("brainscore_vision")

    def place(name, maker):
        monkeypatch.setattr(brainscore, "import_plugin", lambda *args, **kwargs: None)
        monkeypatch.setitem(brainscore.model_registry, name, maker)

    return place


def committed(preprocessing, region_layer_map=None):
    from brainscore_vision.model_helpers.activations.pytorch import PytorchWrapper
    from brainscore_vision.model_helpers.brain_transformation import ModelCommitment

    wrapper = PytorchWrapper(small_network().module, preprocessing, identifier="theirs")
    return ModelCommitment(
        "theirs", wrapper, layers=["1", "3"], region_layer_map=region_layer_map
    )


def test_brainscores_network_is_read_as_brainscore_reads_it(rng, tmp_path, plugin):
    from brainscore_vision.model_helpers.activations.pytorch import (
        load_preprocess_images,
    )

    settings = {"normalize_mean": (0.5, 0.4, 0.3), "normalize_std": (0.2, 0.2, 0.3)}
    prepare = partial(load_preprocess_images, image_size=16, **settings)
    plugin("theirs", lambda: committed(prepare, {"IT": "1", "V4": "nowhere"}))
    network = load_brainscore_network("theirs")
    assert network.name == "brainscore/theirs"
    assert dict(network.layers) == {"IT": "1"}
    images = photographs(rng)
    for i in range(len(images)):
        images.load(i).save(tmp_path / f"{i}.png")
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    with torch.no_grad():
        theirs = network.module[:2](torch.from_numpy(prepare(paths))).flatten(1)
    np.testing.assert_allclose(
        our_features(network, images, "1"), theirs.numpy(), atol=1e-6
    )


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_grey_palette_and_alpha_images_are_prepared_as_brainscore_does(
    rng, tmp_path, mode
):
    from brainscore_vision.model_helpers.activations.pytorch import (
        load_preprocess_images,
    )

    pixels = rng.integers(256, size=(20, 24, 3)).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(tmp_path / "image.png")
    path = str(tmp_path / "image.png")
    wrapper = brain_model(small_network()).activations_model
    np.testing.assert_allclose(
        wrapper._extractor.preprocess([path]),
        load_preprocess_images([path], image_size=16),
        atol=1e-6,
    )


def test_preprocessing_of_its_own_is_not_imitated(plugin):
    plugin("theirs", lambda: committed(lambda paths: np.zeros((len(paths), 3, 16, 16))))
    with pytest.raises(ConfigError, match="prepares images in a way of its own"):
        load_brainscore_network("theirs")
    plugin("video", lambda: object())
    with pytest.raises(ConfigError, match="is not a torch network on images"):
        load_brainscore_network("video")


def test_failures_of_plugins_are_explained(plugin):
    def fail(error):
        def maker():
            raise error

        return maker

    plugin("x", fail(ModuleNotFoundError("No module named 'cornet'")))
    with pytest.raises(CeAlignError, match="not installed: No module named 'cornet'"):
        load_brainscore_network("x")
    plugin("y", fail(OSError("no route")))
    with pytest.raises(AccessError, match="cannot be downloaded: no route"):
        load_brainscore_network("y")


def test_unknown_network_lists_the_nearest():
    with pytest.raises(ConfigError, match=r"no network 'alexnett'; nearest: alexnet"):
        load_brainscore_network("alexnett")


def test_published_networks_come_from_the_catalogue_not_from_pickles(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "ce_align.models.load.load_network",
        lambda name, seed: asked.append(name) or small_network(),
    )
    load_brainscore_network("CE-Barlow_lmda_02")
    assert asked == ["ce_barlow_l0.2"]


def test_registered_source_names_networks_of_brainscore(plugin, monkeypatch):
    from brainscore_vision.model_helpers.activations.pytorch import (
        load_preprocess_images,
    )

    from ce_align.brainscore import register_networks
    from ce_align.models import load

    monkeypatch.setattr(load, "SOURCES", dict(load.SOURCES))
    register_networks()
    prepare = partial(load_preprocess_images, image_size=16)
    plugin("theirs", lambda: committed(prepare, {"IT": "1"}))
    network = load.load_network("brainscore/theirs")
    assert network.layer_for("IT") == "1"
    assert network.preprocessing == Preprocessing(input_size=16)


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    """A training in ``runs`` of the current folder, and a way to train it anew."""
    from ce_align.models.architectures import torchvision_network
    from ce_align.models.checkpoints import save_safetensors

    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "mmcr_l0.1"

    def train(seed):
        network = torchvision_network("resnet18", weights=None, seed=seed)
        metadata = {
            "architecture": "resnet18",
            "input_size": 32,
            "layers": {"V4": "layer3", "IT": "layer4"},
        }
        for place in (folder, folder / "hf"):
            save_safetensors(
                place / "model.safetensors", network.state_dict(), metadata
            )
        return folder

    train(0)
    return train


@pytest.fixture
def registry(monkeypatch):
    """Brain-Score's registry, as it was after the test."""
    brainscore = importlib.import_module("brainscore_vision")
    importlib.import_module("ce_align.brainscore.registry")
    entries = dict(brainscore.model_registry)
    monkeypatch.setattr(brainscore, "model_registry", entries)
    return entries


def test_importing_the_registry_registers_all_without_loading_any(run_folder):
    code = (
        "import ce_align.brainscore.registry, sys\n"
        "from brainscore_vision import model_registry as found\n"
        "from ce_align.models.catalogue import PUBLISHED\n"
        "print(len(set(PUBLISHED) & set(found)), 'runs/mmcr_l0.1' in found)\n"
        "print(sorted(set(found) - set(PUBLISHED)))\n"
        "print('ce_align.models.load' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.splitlines() == ["22 True", "['runs/mmcr_l0.1']", "False"]


def test_a_run_is_known_by_its_digest_once_it_was_loaded(run_folder, registry):
    from ce_align.brainscore.registry import at_hand, register_all, register_name

    assert list(at_hand()) == ["runs/mmcr_l0.1"]
    assert register_all() == [*PUBLISHED, "runs/mmcr_l0.1"]
    model = registry["runs/mmcr_l0.1"]()
    digest = load_network("runs/mmcr_l0.1").digest
    assert model.identifier == f"runs-mmcr_l0.1-{digest}"
    assert model.layer_model._layer_model.region_layer_map["IT"] == "layer4"
    assert register_all() == [*PUBLISHED, "runs/mmcr_l0.1", model.identifier]
    assert registry[model.identifier]().identifier == model.identifier
    # Trained anew, the folder holds another network, which is not the old one's name.
    run_folder(1)
    assert register_all() == [*PUBLISHED, "runs/mmcr_l0.1"]
    with pytest.raises(DataError, match=r"weights of runs/mmcr_l0\.1 have changed"):
        registry[model.identifier]()
    assert register_name("runs/mmcr_l0.1") != model.identifier


def test_network_without_parameters_runs_and_keeps_its_digest(rng, tmp_path):
    network = pixels()
    digest = network.digest
    assembly = look_at(brain_model(network), photographs(rng), tmp_path, degrees=8)
    assert assembly.sizes["neuroid"] == 3 * 32 * 32
    assert network.digest == digest


def test_extracted_features_equal_those_of_brainscores_wrapper(rng, tmp_path):
    """Ours come from a network made faster, hence equality to float32 rounding."""
    network, images = load_network("torchvision/resnet18:none"), photographs(rng)
    layers = ["layer2", "layer4", "fc"]
    ours = extract(network, images, layers, device="cpu", cache=None)
    for layer in layers:
        model = brain_model(network, layers={"IT": layer})
        looked = look_at(model, images, tmp_path, degrees=8)
        theirs = looked.transpose("presentation", "neuroid").values
        tolerance = rounding(network.module, theirs)
        np.testing.assert_allclose(ours[layer].values, theirs, rtol=0, atol=tolerance)
