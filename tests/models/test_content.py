"""Digests that stored results rely on: the same on every machine and in every version.

The values were measured when digests were first written; they must never be adapted.
A class or function that has moved keeps its digest by `content.FORMER_NAMES`.
"""

import importlib
import pkgutil

import pytest
import torch
from torch import nn

import ce_align
from ce_align.models import content
from ce_align.models.architectures import (
    gabor,
    pixels,
    torchvision_network,
    v1_like,
)
from ce_align.models.content import Contents
from ce_align.models.networks import Network

NETWORKS = {
    "pixels": "9cdd506dd00fb554330f",
    "gabor": "cf73c7068a82de40a185",
    "v1_like": "f136784d5a5a4533285f",
    "tiny": "db55fb2e373fa7c4074b",
    "resnet18": "f66d9db0edadb72a9471",
}

#: Digests of what a network may hold of ours, as an attribute.
HELD = {
    "TinyResNet": "a0b8515cede49556a8e3",
    "GaborEnergy": "a6333cef99f9c87c4d2b",
    "PairedNetwork": "8b783658490d9d7aa22e",
    "MomentumCopy": "dfd36e8b3dd69812971d",
    "Preprocessing": "a4fb3eab1d94ff87bace",
    "PairedTraining": "40d44b33aa3d7d2c1126",
    "ViewBatchNorm": "9f8a1bb41d3b3f741d37",
    "ViewLinear": "de9212c5396380614f34",
    "gabor_filters": "6717993031d55d21d572",
}

#: Every module of ours that can be a part of a network, by its first name.
MODULES = {
    "ce_align.backbones.TinyResNet",
    "ce_align.models.architectures.NormalisedEnergy",
    "ce_align.models.baselines.GaborEnergy",
    "ce_align.trainer.augself.ParameterPrediction",
    "ce_align.trainer.batchnorm.ViewBatchNorm",
    "ce_align.trainer.batchnorm.ViewLinear",
    "ce_align.trainer.equimod.EmbeddingPrediction",
    "ce_align.trainer.line.Between",
    "ce_align.trainer.module.PairedTraining",
    "ce_align.trainer.networks.MomentumCopy",
    "ce_align.trainer.networks.PairedNetwork",
}


def classes_of_ours():
    """Modules of the package that need no Brain-Score, imported; classes by name."""
    found = dict(vars(importlib.import_module("ce_align.backbones")))
    for room in ("models", "trainer"):
        package = importlib.import_module(f"ce_align.{room}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            found |= vars(importlib.import_module(info.name))
    return found


def built(name):
    if name == "tiny":
        return Network(name, classes_of_ours()["TinyResNet"](n_classes=10))
    if name == "resnet18":
        return Network(name, torchvision_network(name))
    return {"pixels": pixels, "gabor": gabor, "v1_like": v1_like}[name]()


@pytest.mark.parametrize("name", NETWORKS)
def test_built_in_networks_keep_their_digests(name, monkeypatch):
    # Neither versions of packages nor rounding of this processor.
    monkeypatch.setattr(content, "_version", lambda package: "1")
    network = built(name)
    with torch.no_grad():
        for n, (_, values) in enumerate(sorted(network.module.state_dict().items())):
            values.copy_((torch.arange(values.numel()) % 97 + n).reshape(values.shape))
    assert network.digest == NETWORKS[name]


@pytest.mark.parametrize("name", HELD)
def test_a_moved_class_or_function_keeps_its_digest(name):
    module = nn.Identity()
    module.held = classes_of_ours()[name]
    assert Contents(module).entries["attribute .held"] == HELD[name]


def test_every_module_of_ours_is_known_by_its_first_name():
    ours = [
        value
        for value in classes_of_ours().values()
        if isinstance(value, type)
        and issubclass(value, nn.Module)
        and value.__module__.startswith(ce_align.__name__)
    ]
    # A new one is added to MODULES; a moved one to content.FORMER_NAMES.
    assert {content._known_as(kind) for kind in ours} == MODULES


def test_names_that_have_moved_are_still_there():
    for name in content.FORMER_NAMES:
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute), name
