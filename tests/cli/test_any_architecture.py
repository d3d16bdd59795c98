"""Every block of many architectures in one command: a row, or a line that says why.

Weights are random; inputs are as small as the architectures allow.
"""

import json
import os
from functools import cache

import pytest
import torch
from test_cli import make_recording
from torchvision import models

from ce_align.data.named import load_recording
from ce_align.models import features, load
from ce_align.models.activations import first_tensor, network_inputs
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.stages.score import VISUAL_DEGREES

pytestmark = pytest.mark.slow

timm = pytest.importorskip("timm")

#: Of each input size, architectures of torchvision and of timm.
TORCHVISION = {
    32: (
        *("resnet18", "resnet34", "resnet50", "resnext50_32x4d", "vgg11", "vgg11_bn"),
        *("densenet121", "shufflenet_v2_x0_5", "shufflenet_v2_x1_0", "mobilenet_v2"),
        *("mobilenet_v3_small", "mobilenet_v3_large", "mnasnet0_5", "mnasnet1_0"),
        *("efficientnet_b0", "efficientnet_v2_s", "regnet_x_400mf", "regnet_y_400mf"),
        "convnext_tiny",
    ),
    64: ("alexnet", "squeezenet1_0", "squeezenet1_1", "googlenet", "swin_t"),
    96: ("inception_v3",),
}
TIMM = {
    28: ("vit_small_patch14_reg4_dinov2", "eva02_tiny_patch14_224"),
    32: (
        *("vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224", "cait_xxs24_224"),
        *("vit_tiny_r_s16_p8_224", "xcit_nano_12_p16_224"),
    ),
    56: ("swin_tiny_patch4_window7_224",),
    64: (
        *("resnet10t", "resnetv2_50", "resnet26d", "legacy_seresnet18", "skresnet18"),
        *("res2net50_14w_8s", "ecaresnet26t", "swinv2_cr_tiny_ns_224", "caformer_s18"),
        *("swinv2_tiny_window8_256", "convnext_atto", "convnextv2_atto", "dla34"),
        *("poolformer_s12", "coat_lite_tiny", "efficientnet_lite0", "mobilevit_xxs"),
        *("mobilenetv4_conv_small", "mobilevitv2_050", "fastvit_t8", "ghostnet_050"),
        *("hardcorenas_a", "hrnet_w18_small", "dpn48b", "pvt_v2_b0", "rexnet_100"),
        *("twins_svt_small", "repvgg_a0", "regnety_002", "rdnet_tiny", "tinynet_e"),
        *("edgenext_xx_small", "efficientvit_b0", "inception_next_tiny", "shvit_s1"),
        *(
            "mambaout_femto",
            "starnet_s1",
            "repghostnet_050",
            "repvit_m0_9",
            "davit_tiny",
        ),
        *(
            "focalnet_tiny_srf",
            "nf_resnet26",
            "ese_vovnet19b_slim",
            "tf_efficientnetv2_b0",
        ),
        *("test_vit", "test_resnet", "test_byobnet", "test_efficientnet"),
    ),
    224: ("pit_ti_224", "levit_128s", "efficientvit_m0", "tnt_s_patch16_224"),
}
SIZES = {
    **{f"torchvision-{n}": size for size, names in TORCHVISION.items() for n in names},
    **{f"timm-{n}": size for size, names in TIMM.items() for n in names},
}

#: Of each kind of block one: heads outside the pass, tokens, patches for images.
SAMPLE = (
    *("torchvision-shufflenet_v2_x0_5", "torchvision-googlenet", "timm-mobilevit_xxs"),
    *("timm-test_vit", "timm-test_byobnet", "timm-vit_tiny_patch16_224"),
)


@cache
def built(name):
    """A network, made once for the command and for the pass it is compared with."""
    library, _, architecture = name.partition("-")
    size = SIZES[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if library == "torchvision":
            aux = architecture in ("googlenet", "inception_v3")
            options = {"init_weights": False} if aux else {}
            module = models.get_model(architecture, weights=None, **options)
        else:
            try:
                module = timm.create_model(architecture, img_size=size)
            except TypeError:  # convolutions take any size
                module = timm.create_model(architecture)
    return Network(f"any/{name}", module.eval(), Preprocessing(input_size=size))


def build(name, seed=0):
    return built(name)


def hooked(network, images, layers):
    """First tensors of layers in one plain pass, flat."""
    kept = {}
    with torch.inference_mode():
        handles = [
            network.module.get_submodule(layer).register_forward_hook(
                lambda _m, _i, output, layer=layer: kept.__setitem__(
                    layer, first_tensor(output, layer).clone().flatten(1)
                )
            )
            for layer in layers
        ]
        pixels = torch.stack(
            [
                torch.tensor(network.preprocessing.resize(images.load(i)))
                for i in range(len(images))
            ]
        ).numpy()
        network.module(
            network_inputs(network.module, network.preprocessing, pixels, "cpu")
        )
    for handle in handles:
        handle.remove()
    return kept


@pytest.fixture
def extracted(monkeypatch):
    """Features that the command has scored, by network and layer."""
    found, extract = {}, features.extract

    def kept(network, *given, **options):
        layers = extract(network, *given, **options)
        found.setdefault(network.name, {}).update(layers)
        return layers

    monkeypatch.setattr(features, "extract", kept)
    monkeypatch.setattr(load, "SOURCES", {**load.SOURCES, "any": build})
    yield found
    built.cache_clear()


def check_all_layers(names, ce_align, extracted, tmp_path):
    path = make_recording(tmp_path / "toy.nc", n_stimuli=12, n_repetitions=2)
    arguments = [part for name in names for part in ("--model", f"any/{name}")]
    status, out, err = ce_align(
        *("score", "--recording", "toy.nc", "--layer", "all", "--json"),
        *("--components", 3, "--splits", 2, *arguments),
    )
    assert "unexpected" not in err
    assert "Traceback" not in err
    rows = json.loads(out)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert (status == 0) == (not lines)
    images = load_recording(str(path)).images
    images = images.on_screen(8, VISUAL_DEGREES)
    for name in names:
        network = build(name)
        blocks = network.block_names()
        scored = [row["layer"] for row in rows if row["model"] == f"any/{name}"]
        for layer in set(blocks) - set(scored):
            # A layer without a row is named, with its network, in one line.
            (_,) = [x for x in lines if f"any/{name}" in x and f" {layer} " in f"{x} "]
        assert scored == [layer for layer in blocks if layer in scored]
        if scored:
            expected = hooked(network, images, scored)
            found = extracted[network.name]
            for layer in scored:
                values = torch.from_numpy(found[layer].values.copy())
                scale = expected[layer].abs().max()
                assert (values - expected[layer]).abs().max() <= 1e-5 * scale, layer
    return rows, lines


def test_all_layers_of_different_architectures_are_scored_or_said(
    ce_align, extracted, tmp_path
):
    _, lines = check_all_layers(SAMPLE, ce_align, extracted, tmp_path)
    assert any("aux1" in line and "takes no part" in line for line in lines)


def test_all_layers_of_many_architectures_are_scored_or_said(
    ce_align, extracted, tmp_path
):
    # All of them take minutes: a sixth, unless they are asked for.
    every = "CE_ALIGN_EVERY_ARCHITECTURE" in os.environ
    names = [*SIZES][:: 1 if every else 6]
    rows, _ = check_all_layers(names, ce_align, extracted, tmp_path)
    assert len(rows) > 12 * len(names)
