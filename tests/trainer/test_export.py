"""A trained network is a network for every other room."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ce_align.data.imagesets import ImageSet
from ce_align.models.load import load_network
from ce_align.stages.train import train
from ce_align.trainer.engine import fit
from ce_align.trainer.monitor import normalise_pixels
from ce_align.trainer.networks import build_backbone
from ce_align.trainer.presets import Hardware, preset_config

pytestmark = pytest.mark.slow


def config(backbone, **changes):
    return preset_config(
        "tiny",
        "barlow",
        equivariance_weight=0.1,
        images="noise",
        backbone=backbone,
        view_size=32,
        epochs=1,
        pairs_per_step=4,
        options={"head_widths": (8, 8)},
        **changes,
    )


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 3}" for i in range(16)])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


def exported(folder, settings, images, **options):
    return train(
        settings,
        images,
        folder,
        Hardware(workers=0),
        notify=lambda text: None,
        **options,
    )


@pytest.mark.parametrize(
    ("backbone", "probe"), [("tiny", True), ("tiny", False), ("resnet18", True)]
)
def test_the_folder_names_the_trained_network(tmp_path, images, backbone, probe):
    settings = config(backbone, probe=probe)
    exported(tmp_path / "run", settings, images)
    module = fit(settings, images, tmp_path / "run", notify=lambda text: None)
    network = load_network(str(tmp_path / "run"))
    assert network.layer_for("IT") == "layer4"
    assert network.preprocessing.input_size == 32
    pixels = torch.from_numpy(np.stack([images.load(i) for i in range(8)]))
    inputs = network.preprocessing.normalise(pixels)
    assert torch.allclose(inputs, normalise_pixels(pixels), atol=1e-6)
    expected = module.network.backbone.eval()(inputs)
    if module.probe is not None:
        expected = module.probe(expected)
    assert torch.allclose(network.module(inputs), expected, atol=1e-5)


def test_weights_have_torchvisions_names_and_their_story(tmp_path, images):
    rows = exported(tmp_path / "run", config("resnet18", probe=False), images)
    with safe_open(tmp_path / "run" / "model.safetensors", "pt") as file:
        names, metadata = set(file.keys()), file.metadata()
    assert names == set(build_backbone("resnet18")[0].state_dict())
    assert metadata["architecture"] == "resnet18"
    assert json.loads(metadata["config"])["equivariance_weight"] == 0.1
    assert (metadata["epochs"], metadata["steps"]) == ("1", "2")
    metrics = json.loads(metadata["metrics"])
    assert {row.metric: row.value for row in rows} == pytest.approx(metrics)
    assert {row.data_digest for row in rows} == {metadata["data_digest"]}


def test_a_folder_for_sharing_has_weights_config_and_card(tmp_path, images):
    exported(tmp_path / "run", config("tiny"), images, hf=True)
    folder = tmp_path / "run" / "hf"
    found = json.loads((folder / "config.json").read_text())
    assert found["architecture"] == "tiny"
    assert "barlow" in (folder / "README.md").read_text()
    assert load_network(str(folder)).preprocessing.interpolation == "bicubic"
