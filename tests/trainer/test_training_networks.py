"""Backbones, heads, view statistics in one pass, momentum copy."""

import copy

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torchvision.models import resnet

from ce_align.errors import ConfigError, DataError
from ce_align.trainer.networks import (
    BACKBONES,
    MomentumCopy,
    PairedNetwork,
    ViewBatchNorm,
    build_backbone,
    build_head,
    classifier_of,
    convert_to_views,
    region_layers,
    set_group,
)
from ce_align.trainer.objectives import OBJECTIVES

SMALL = OBJECTIVES["mmcr"].configured(head_widths=(32, 32, 8))


@pytest.fixture
def images():
    generator = torch.Generator().manual_seed(0)
    scale = torch.tensor([1.0, 2.0, 0.5, 3.0]).repeat_interleave(6)[:, None, None, None]
    return scale * torch.randn(24, 3, 32, 32, generator=generator)


def plain_twin(network):
    """The same network of torch's own layers, for one view."""
    twin = copy.deepcopy(network)
    convert_to_views(twin, 1)
    return twin


def randomised(network):
    """Away from the zero scales that would hide the residual branches."""
    generator = torch.Generator().manual_seed(1)
    for layer in network.modules():
        if isinstance(layer, ViewBatchNorm):
            layer.weight.data = 0.5 + torch.rand(
                layer.weight.shape, generator=generator
            )
            layer.bias.data = torch.randn(layer.bias.shape, generator=generator)
    return network


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("backbone", ["tiny", "resnet18"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_one_pass_equals_four_bit_by_bit(backbone, dtype, layout, images):
    torch.manual_seed(0)
    network = randomised(PairedNetwork.build(backbone, SMALL)).to(dtype)
    network = network.to(memory_format=layout)
    separate = plain_twin(network)
    images = images.to(dtype).to(memory_format=layout)
    joint = network(images)
    for view, batch in enumerate(images.chunk(4)):
        features = separate.backbone(batch)
        heads = separate.head_invariant, separate.head_equivariant
        alone = features, *(head(features) for head in heads)
        for together, expected in zip(joint, alone, strict=True):
            assert torch.equal(together[view], expected)
    buffers = dict(separate.named_buffers())
    for name, buffer in network.named_buffers():
        assert torch.equal(buffer, buffers[name]), name
    assert int(network.backbone.bn1.num_batches_tracked) == 4


def test_gradients_of_one_pass_are_those_of_four(images):
    torch.manual_seed(0)
    network = randomised(PairedNetwork.build("tiny", SMALL)).double()
    separate = plain_twin(network)
    joint = network(images.double())
    joint.invariant.square().sum().backward()
    for batch in images.double().chunk(4):
        separate.head_invariant(separate.backbone(batch)).square().sum().backward()
    others = dict(separate.named_parameters())
    for name, parameter in network.named_parameters():
        if name.startswith("head_equivariant"):
            assert parameter.grad is None
            continue
        torch.testing.assert_close(
            parameter.grad, others[name].grad, rtol=1e-9, atol=1e-9
        )


def test_statistics_of_all_views_together_would_differ(images):
    torch.manual_seed(0)
    network = randomised(PairedNetwork.build("tiny", SMALL))
    pooled = plain_twin(network)
    found = network(images).features.flatten(0, 1)
    assert (found - pooled.backbone(images)).abs().max() > 0.1


def test_layers_are_those_of_torch_in_evaluation(images):
    torch.manual_seed(0)
    module = resnet.resnet18(num_classes=5).eval()
    before, of_three = module(images), module(images[:3])
    names = list(module.state_dict())
    convert_to_views(module, 4)
    assert torch.equal(module(images), before)
    assert torch.equal(module(images[:3]), of_three)
    assert list(module.state_dict()) == names


def test_batches_that_are_not_of_four_views_are_refused(images):
    network = PairedNetwork.build("tiny", SMALL)
    with pytest.raises(DataError, match=r"\(23, 24, 16, 16\).*4 views"):
        network(images[:23])


@pytest.mark.parametrize("name", ["tiny", "resnet18", "resnet50"])
def test_residual_branches_begin_at_zero_except_in_the_tiny_network(name):
    backbone, _ = build_backbone(name)
    blocks = [
        m
        for m in backbone.modules()
        if isinstance(m, resnet.BasicBlock | resnet.Bottleneck)
    ]
    last = [getattr(b, "bn3", None) or b.bn2 for b in blocks]
    assert len(last) == {"tiny": 4, "resnet18": 8, "resnet50": 16}[name]
    assert any(norm.weight.any() for norm in last) == (name == "tiny")


@pytest.mark.parametrize(
    ("name", "n_features", "maps"),
    [("tiny", 192, 2), ("resnet18", 512, 1), ("resnet50", 2048, 1)],
)
def test_backbones_give_features_of_their_width(name, n_features, maps, images):
    backbone, found = build_backbone(name)
    sizes = []
    backbone.layer4.register_forward_hook(lambda *args: sizes.append(args[2].shape[2:]))
    assert found == n_features
    assert backbone(images[:2]).shape == (2, n_features)
    assert sizes == [(maps, maps)]


def test_backbones_of_torchvision_keep_its_layer_names():
    backbone, _ = build_backbone("resnet34")
    names = set(resnet.resnet34().state_dict()) - {"fc.weight", "fc.bias"}
    assert set(backbone.state_dict()) == names
    tiny, _ = build_backbone("tiny")
    assert {n.split(".")[0] for n in tiny.state_dict()} == {
        n.split(".")[0] for n in names
    }


def test_the_residual_network_of_small_images_keeps_their_places(images):
    backbone, n_features = build_backbone("resnet18_cifar")
    sizes = []
    backbone.layer1.register_forward_hook(lambda *args: sizes.append(args[2].shape[2:]))
    assert backbone(images[:1]).shape == (1, n_features)
    assert sizes == [images.shape[2:]]
    assert set(backbone.state_dict()) == {
        name for name in resnet.resnet18().state_dict() if not name.startswith("fc.")
    }


@pytest.mark.parametrize(
    ("name", "n_features", "last", "classifier"),
    [
        ("timm/vit_tiny_patch16_224", 192, "blocks.11", "head"),
        ("timm/convnext_atto", 320, "stages.3", "head.fc"),
        ("timm/resnet18", 512, "layer4", "fc"),
    ],
)
def test_backbones_of_timm_have_regions_and_a_classifier(
    name, n_features, last, classifier
):
    with torch.device("meta"):
        backbone, found = build_backbone(name)
        assert backbone(torch.empty(2, 3, 224, 224)).shape == (2, n_features)
    assert found == n_features
    layers = region_layers(backbone)
    assert (list(layers), layers["IT"]) == (["V1", "V2", "V4", "IT"], last)
    assert set(layers.values()) <= {name for name, _ in backbone.named_modules()}
    assert classifier_of(backbone) == classifier


def test_backbones_of_timm_that_do_not_fit_are_refused():
    with pytest.raises(ConfigError, match=r"'resnet1'; nearest: .*resnet18"):
        build_backbone("timm/resnet1")
    with pytest.raises(ConfigError, match="BatchNormAct2d, which cannot have"):
        build_backbone("timm/mobilenetv3_small_050")


def test_an_unknown_backbone_lists_the_choices():
    with pytest.raises(ConfigError, match=r"'vgg16'.*tiny, resnet18"):
        build_backbone("vgg16")
    assert {"resnet18", "resnet34", "resnet50", "resnet101"} < set(BACKBONES)


def test_heads_are_linear_norm_relu_and_end_linear():
    head = build_head(7, (16, 16, 4))
    kinds = [type(layer) for layer in head]
    block = [nn.Linear, nn.BatchNorm1d, nn.ReLU]
    assert kinds == [*block, *block, nn.Linear]
    linear = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert [(x.in_features, x.out_features) for x in linear] == [
        (7, 16),
        (16, 16),
        (16, 4),
    ]
    assert all(layer.bias is None for layer in linear)


def test_heads_are_equal_in_architecture_but_not_in_weights():
    network = PairedNetwork.build("tiny", SMALL)
    first, second = network.head_invariant, network.head_equivariant
    shapes = [{k: v.shape for k, v in h.state_dict().items()} for h in (first, second)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(first[0].weight, second[0].weight)


def test_a_head_that_rests_keeps_nothing_for_a_backward_pass(images):
    torch.manual_seed(0)
    network = PairedNetwork.build("tiny", SMALL)
    both = network(images)
    network.head_equivariant.requires_grad_(False)
    found = network(images)
    assert found.invariant.requires_grad
    assert not found.equivariant.requires_grad
    assert torch.equal(found.equivariant, both.equivariant)


def test_momentum_copy_follows_backbone_and_both_heads(images):
    torch.manual_seed(0)
    network = PairedNetwork.build("tiny", SMALL)
    momentum = MomentumCopy(network, ema=0.9)
    expected = {n: p.detach().clone() for n, p in network.named_parameters()}
    for _ in range(3):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter += torch.randn_like(parameter)
        momentum.update(network)
        for name, parameter in network.named_parameters():
            expected[name] = 0.9 * expected[name] + 0.1 * parameter.detach()
    rooms = set()
    for name, parameter in momentum.network.named_parameters():
        torch.testing.assert_close(parameter, expected[name], rtol=1e-5, atol=1e-6)
        rooms.add(name.split(".")[0])
    assert rooms == {"backbone", "head_invariant", "head_equivariant"}


def test_momentum_copy_begins_equal_and_shares_nothing(images):
    network = PairedNetwork.build("tiny", SMALL)
    momentum = MomentumCopy(network, ema=0.9)
    own = momentum.network.state_dict()
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, own[name])
        assert tensor.data_ptr() != own[name].data_ptr()
    for together, alone in zip(momentum(images), network(images), strict=True):
        assert torch.equal(together, alone)
        assert not together.requires_grad
    assert not any(p.requires_grad for p in momentum.parameters())


def test_running_statistics_of_the_copy_come_from_its_own_passes(images):
    torch.manual_seed(0)
    network = PairedNetwork.build("tiny", SMALL)
    momentum = MomentumCopy(network, ema=0.9)
    with torch.no_grad():
        network.backbone.conv1.weight.mul_(3)
    network(images)
    momentum.update(network)
    fresh = momentum.network.backbone.bn1
    assert int(fresh.num_batches_tracked) == 0
    twin = plain_twin(momentum.network)
    momentum(images)
    for batch in images.chunk(4):
        twin.backbone(batch)
    assert torch.equal(fresh.running_var, twin.backbone.bn1.running_var)
    assert not torch.equal(fresh.running_var, network.backbone.bn1.running_var)


def test_momentum_copy_travels_with_the_state(images):
    torch.manual_seed(0)
    first = MomentumCopy(PairedNetwork.build("tiny", SMALL), ema=0.9)
    first(images)
    second = MomentumCopy(PairedNetwork.build("tiny", SMALL), ema=0.9)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(images).invariant, second(images).invariant)


@pytest.fixture(scope="module")
def group(tmp_path_factory):
    """A group of this process alone: the path of many processes."""
    store = dist.FileStore(str(tmp_path_factory.mktemp("group") / "store"), 1)
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield dist.group.WORLD
    dist.destroy_process_group()


def batch(shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(3)
    return 5 + 2 * torch.randn(shape, generator=generator, dtype=dtype)


SHAPES = [(12, 5), (12, 5, 3), (12, 5, 3, 4)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("affine", [True, False])
def test_synchronised_layer_equals_that_of_torch(shape, momentum, affine, group):
    kind = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)]
    options = {"momentum": momentum, "affine": affine, "dtype": torch.float64}
    plain, ours = (convert_to_views(kind(shape[1], **options), 4) for _ in range(2))
    set_group(ours, group)
    inputs = [batch(shape).requires_grad_() for _ in range(2)]
    results = [layer(x) for layer, x in zip((plain, ours), inputs, strict=True)]
    for result in results:
        (result * batch(shape)).sum().backward()
    torch.testing.assert_close(*results, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(*(x.grad for x in inputs), rtol=1e-10, atol=1e-12)
    for first, second in zip(plain.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(first.grad, second.grad, rtol=1e-12, atol=1e-10)
    for first, second in zip(plain.buffers(), ours.buffers(), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_layers_without_running_statistics_stay_without(group):
    layer = convert_to_views(nn.BatchNorm1d(5, track_running_stats=False).double(), 4)
    set_group(layer, group)
    assert isinstance(layer, ViewBatchNorm)
    found = layer(batch((12, 5)))
    assert layer.running_mean is None
    views = batch((12, 5)).chunk(4)
    alone = [nn.functional.batch_norm(v, None, None, training=True) for v in views]
    torch.testing.assert_close(found.detach(), torch.cat(alone))


def test_a_single_value_a_channel_is_refused(group):
    layer = convert_to_views(nn.BatchNorm1d(5).double(), 4)
    for joined in (None, group):
        set_group(layer, joined)
        with pytest.raises(DataError, match=r"\(4, 5\) has one value a channel"):
            layer(batch((4, 5)))
