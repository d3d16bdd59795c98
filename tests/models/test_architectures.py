import pytest
from torch import nn

from ce_align.models.architectures import stage_layers, torchvision_network

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "wide_resnet50_2"])
def test_stages_of_residual_networks_stand_for_regions_by_depth(name):
    layers = stage_layers(torchvision_network(name))
    assert layers == {"V1": "layer1", "V2": "layer2", "V4": "layer3", "IT": "layer4"}


@pytest.mark.parametrize("name", ["alexnet", "vit_b_16"])
def test_other_networks_commit_no_layer(name):
    assert stage_layers(torchvision_network(name)) == {}


def test_three_stages_are_not_four():
    module = nn.Module()
    for k in (1, 2, 3):
        module.add_module(f"layer{k}", nn.Identity())
    assert stage_layers(module) == {}
