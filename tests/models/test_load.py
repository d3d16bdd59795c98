import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision import models, transforms

from ce_align.data.imagesets import ImageSet
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.files import cache_folder
from ce_align.models import load
from ce_align.models.architectures import gabor_filters
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.features import extract
from ce_align.models.load import load_network, register_source
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing


def small_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())


USER_FILE = """
import torch
from helper import WIDTH

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, WIDTH, 3)
    def forward(self, x):
        return self.conv(x)

def build():
    net = Net()
    net.ce_align = {"input_size": 32, "std": [1, 1, 1], "layers": {"IT": "conv"}}
    return net

def plain():
    return Net()

def number():
    return 3

def sized(width):
    return Net()

def broken():
    raise KeyError("no weights")

def leaves():
    raise SystemExit(3)

def misdescribed():
    net = Net()
    net.ce_align = {"input_size": "large"}
    return net

def misnamed():
    net = Net()
    net.ce_align = {"layers": {"IT": "conv2"}}
    return net
"""


@pytest.fixture
def user_file(tmp_path):
    (tmp_path / "helper.py").write_text("WIDTH = 5\n")
    path = tmp_path / "mine.py"
    path.write_text(USER_FILE)
    yield path
    sys.modules.pop("helper", None)


def test_user_file_gives_module_input_and_layers(user_file):
    network = load_network(f"{user_file}:build")
    assert network.preprocessing.input_size == 32
    assert network.preprocessing.mean == (0.485, 0.456, 0.406)
    assert network.layer_for("IT") == "conv"
    assert not network.module.training


def test_user_file_with_random_weights_follows_the_seed(user_file):
    state = torch.get_rng_state()
    one, same, other = (load_network(f"{user_file}:plain", seed=s) for s in (0, 0, 1))
    assert one.digest == same.digest != other.digest
    assert torch.equal(torch.get_rng_state(), state)


def test_edited_user_file_is_another_network(user_file):
    before = load_network(f"{user_file}:plain")
    user_file.write_text(USER_FILE.replace("self.conv(x)", "-self.conv(x)"))
    assert load_network(f"{user_file}:plain").digest != before.digest


def test_folders_that_one_network_adds_are_no_part_of_its_sibling(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "far_away.py").write_text("WIDTH = 5\n")
    path = tmp_path / "two.py"
    path.write_text(
        "import sys\n"
        "from torch import nn\n"
        "def near():\n"
        "    return nn.Conv2d(3, 2, 3)\n"
        "def far():\n"
        f"    sys.path.insert(0, {str(tmp_path / 'elsewhere')!r})\n"
        "    from far_away import WIDTH\n"
        "    return nn.Conv2d(3, WIDTH, 3)\n"
    )
    before = list(sys.path)
    alone = load_network(f"{path}:near").digest
    for _ in range(2):
        assert load_network(f"{path}:far").module.out_channels == 5
        assert sys.path == before
    assert load_network(f"{path}:near").digest == alone
    sys.modules.pop("far_away", None)


@pytest.mark.parametrize(
    ("name", "kind", "message"),
    [
        ("number", DataError, "returned a int; expected a torch.nn.Module"),
        ("broken", DataError, "mine.py, line 27): KeyError: 'no weights'"),
        ("leaves", DataError, "mine.py, line 30): SystemExit: 3"),
        ("sized", ConfigError, "needs the arguments width"),
        ("biuld", ConfigError, "no callable 'biuld'; it has build"),
        (
            "misdescribed",
            DataError,
            "input_size: expected pixels from 1 to 1024",
        ),
        ("misnamed", DataError, "has no such layer; nearest: conv"),
    ],
)
def test_fault_of_a_user_file_is_one_line(name, kind, message, user_file):
    with pytest.raises(kind) as refusal:
        load_network(f"{user_file}:{name}")
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_syntax_error_of_a_user_file_names_its_line(tmp_path):
    (tmp_path / "bad.py").write_text("x = 1\ndef (:\n")
    with pytest.raises(DataError, match=r"bad\.py, line 2\): SyntaxError"):
        load_network(f"{tmp_path}/bad.py:build")


@pytest.mark.slow
def test_torchvision_without_weights_follows_the_seed():
    one, same, other = (
        load_network("torchvision/resnet18:none", seed=s) for s in (0, 0, 1)
    )
    torch.manual_seed(0)
    expected = models.resnet18().state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in one.module.state_dict().items())
    assert one.digest == same.digest != other.digest


def test_torchvision_weights_out_of_reach_are_an_access_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", _no_network)
    with pytest.raises(AccessError, match=r"resnet18-\w+\.pth: .*resnet18:none"):
        load_network("torchvision/resnet18")


def _no_network(*_args, **_kwargs):
    raise OSError("Name or service not known")


def test_timm_without_the_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ConfigError, match=r"pip install 'ce-align\[timm\]'"):
        load_network("timm/resnet10t")


def test_timm_network_comes_with_its_input_size():
    pytest.importorskip("timm")
    network = load_network("timm/resnet10t:none")
    assert network.preprocessing.input_size == 176


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ce_mmcr_l0.6", "nearest: ce_mmcr_l0.5"),
        ("torchvison/resnet50", "nearest: torchvision/resnet50"),
        ("torchvision/resnet51", "nearest: resnet50"),
        ("torchvision/resnet50:V3", "choose from IMAGENET1K_V1, IMAGENET1K_V2"),
        ("paper", "is a group of networks"),
        ("absent.pt:resnet50", "there is no file absent.pt"),
        ("absent.py:build", "there is no file absent.py"),
        ("mine.py", "name the callable"),
    ],
)
def test_unknown_name_is_explained(name, message):
    with pytest.raises(ConfigError) as refusal:
        load_network(name)
    assert message in str(refusal.value)


def test_published_network_that_is_not_here_says_where_to_put_it(monkeypatch):
    monkeypatch.setenv("CE_ALIGN_CHECKPOINTS_URL", "http://127.0.0.1:9")
    with pytest.raises(AccessError) as refusal:
        load_network("CE-MMCR_lmda_01")
    assert "MMCR/lmda_0.1/ep100-ba62500-rank0" in str(refusal.value)
    place = cache_folder("checkpoints") / "ce_mmcr_l0.1.pt"
    assert str(place) in str(refusal.value)


@pytest.mark.slow
def test_published_network_is_read_from_its_file():
    state = models.resnet50().state_dict()
    model = {f"module.f.{k}": v for k, v in state.items() if k[:3] != "fc."}
    model |= {f"module.lin_cls.{k[3:]}": v for k, v in state.items() if k[:3] == "fc."}
    path = cache_folder("checkpoints") / "ce_mmcr_l0.1.pt"
    path.parent.mkdir(parents=True)
    torch.save({"state": {"model": model}}, path)
    network = load_network("CE-MMCR_lmda_01")
    assert network.name == "ce_mmcr_l0.1"
    assert network.layer_for("IT") == network.layer_for("V1") == "layer4"
    assert torch.equal(network.module.fc.bias, state["fc.bias"])


@pytest.mark.slow
def test_safetensors_describe_their_network(tmp_path):
    path = tmp_path / "net.safetensors"
    state = models.resnet18().state_dict()
    described = {"input_size": 64, "layers": {"IT": "layer4"}}
    save_safetensors(path, state, {"architecture": "resnet18", **described})
    network = load_network(str(path))
    assert network.preprocessing.input_size == 64
    assert network.layer_for("IT") == "layer4"
    save_safetensors(path, state, {})
    with pytest.raises(ConfigError, match=r"net\.safetensors:resnet18"):
        load_network(str(path))
    assert load_network(f"{path}:resnet18").preprocessing.input_size == 224


@pytest.mark.slow
def test_one_of_several_networks_in_a_file_is_named_after_the_architecture(tmp_path):
    own = models.resnet18().state_dict()
    other = {k: v + 1 if v.is_floating_point() else v for k, v in own.items()}
    path = tmp_path / "dino.pt"
    torch.save({"student": own, "teacher": other}, path)
    student = load_network(f"{path}:resnet18@student")
    assert torch.equal(student.module.conv1.weight, own["conv1.weight"])
    assert student.probe(()).note("layer4") is None
    for name in ("resnet18@teacher", "resnet18"):
        teacher = load_network(f"{path}:{name}")
        assert torch.equal(teacher.module.conv1.weight, other["conv1.weight"])
    # Without a choice, every row says what was taken.
    assert "that below teacher is taken" in teacher.probe(()).note("layer4")
    with pytest.raises(ConfigError, match="no single network called 'tutor'"):
        load_network(f"{path}:resnet18@tutor")


def test_registered_source_is_asked_for_what_follows_its_prefix(monkeypatch):
    monkeypatch.setattr(load, "SOURCES", dict(load.SOURCES))
    register_source("mine", lambda name, seed: Network(f"{name} {seed}", nn.ReLU()))
    assert load_network("mine/a/b", seed=4).name == "a/b 4"


def test_region_without_layer_suggests_blocks():
    network = load_network("torchvision/mobilenet_v2:none")
    suggestion = r"--layer, such as features\.18, features\.17"
    with pytest.raises(ConfigError, match=suggestion):
        network.layer_for("IT")


VIT = "encoder.layers.encoder_layer_"


@pytest.mark.parametrize(
    ("name", "first", "last", "n"),
    [
        ("resnet50", "layer1.0", "layer4.2", 16),
        ("vit_b_32", f"{VIT}0", f"{VIT}11", 12),
        ("alexnet", "features.0", "classifier.6", 19),
        ("mobilenet_v2", "features.0", "features.18", 19),
    ],
)
def test_blocks_are_those_an_anatomist_would_name(name, first, last, n):
    with torch.device("meta"):
        blocks = Network(name, models.get_model(name)).block_names()
    assert (blocks[0], blocks[-1], len(blocks)) == (first, last, n)


def test_preprocessing_equals_that_of_torchvision(rng):
    image = Image.fromarray(rng.integers(0, 256, (37, 50, 3), dtype=np.uint8))
    ours = Preprocessing(input_size=24)
    steps = [
        transforms.Resize((24, 24)),
        transforms.ToTensor(),
        transforms.Normalize(ours.mean, ours.std),
    ]
    expected = transforms.Compose(steps)(image)
    found = ours.normalise(torch.tensor(ours.resize(image)[None]))[0]
    assert torch.equal(found, expected)


@pytest.mark.brainscore
def test_preprocessing_equals_that_of_brainscore(rng, tmp_path):
    from brainscore_vision.model_helpers.activations.pytorch import (
        load_preprocess_images,
    )

    paths = [tmp_path / f"{i}.png" for i in range(3)]
    for path, shape in zip(paths, [(90, 60), (224, 224), (300, 301)], strict=True):
        pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    expected = load_preprocess_images(paths, image_size=224)
    ours = Preprocessing()
    pixels = np.stack([ours.resize(Image.open(path)) for path in paths])
    found = ours.normalise(torch.from_numpy(pixels)).numpy()
    np.testing.assert_array_equal(found, expected)


def test_pixels_are_the_image_itself(rng):
    array = rng.integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    images = ImageSet.from_array("noise", array)
    features = extract(load_network("pixels"), images, ["pixels"], cache=None)
    expected = (array / np.float32(255)).transpose(0, 3, 1, 2).reshape(4, -1)
    np.testing.assert_array_equal(features["pixels"].values, expected)


def test_gabor_filters_are_blind_to_luminance_and_in_quadrature():
    filters = gabor_filters(27, (6.0,), 4)[:, 0].double()
    even, odd = filters.flatten(1).chunk(2)
    assert filters.sum((1, 2)).abs().max() < 1e-5
    assert (even * odd).sum(1).abs().max() < 1e-5
    torch.testing.assert_close(filters.flatten(1).norm(dim=1), torch.ones(8).double())


@pytest.mark.parametrize("orientation", range(8))
def test_gabor_energy_prefers_the_grating_it_is_tuned_to(orientation):
    network = load_network("gabor")
    y, x = np.mgrid[:112, :112]
    angle = np.pi * orientation / 8
    wave = np.cos(2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 6)
    grating = np.repeat(np.uint8(127 + 100 * wave)[None, ..., None], 3, axis=3)
    images = ImageSet.from_array("grating", grating)
    features = extract(network, images, ["complex"], cache=None, pool="average")
    energies = features["complex"].values.reshape(4, 8)
    assert np.unravel_index(energies.argmax(), (4, 8)) == (1, orientation)


def v1_responses(*components):
    """Mean response (wavelengths, orientations) to gratings of 6 pixels, added."""
    y, x = np.mgrid[:112, :112]
    found = np.full((112, 112), 0.5)
    for orientation, contrast in components:
        angle = np.pi * orientation / 8
        phase = 2 * np.pi * (x * np.cos(angle) + y * np.sin(angle)) / 6
        found += contrast * np.cos(phase) / 2
    with torch.no_grad():
        image = torch.tensor(found, dtype=torch.float32).expand(1, 3, -1, -1)
        responses = load_network("v1_like").module(image)
    return responses.mean((0, 2, 3)).reshape(4, 8).numpy()


def test_cells_of_v1_keep_their_tuning_and_saturate_with_contrast():
    weak, half, full = (v1_responses((3, c)) for c in (0.1, 0.5, 1.0))
    assert {int(r.argmax()) for r in (weak, half, full)} == {11}
    assert full[1, 3] < 1.1 * half[1, 3]
    assert half[1, 3] < 3 * weak[1, 3]  # five times the contrast


def test_cells_of_v1_are_suppressed_by_a_grating_that_they_do_not_see():
    alone, masked = v1_responses((0, 0.3)), v1_responses((0, 0.3), (4, 0.6))
    only_mask = v1_responses((4, 0.6))
    assert only_mask[1, 0] < 0.1 * alone[1, 0]
    assert masked[1, 0] < 0.8 * alone[1, 0]


def test_energy_of_v1_is_in_units_of_a_full_grating():
    """Without a surround, σ alone divides: e / σ of a weak grating."""
    from ce_align.models.architectures import NormalisedEnergy

    cells = NormalisedEnergy(semisaturation=100.0)
    x = np.arange(112)
    for k, wavelength in enumerate((4.0, 6.0, 9.0, 13.5)):
        wave = 0.5 + np.cos(2 * np.pi * x / wavelength) / 2
        image = torch.tensor(wave, dtype=torch.float32).expand(1, 3, 112, -1)
        response = cells(image)[0, 8 * k, 4:-4, 4:-4]
        torch.testing.assert_close(
            response * 100, torch.ones_like(response), atol=0.05, rtol=0
        )


def test_blocks_of_a_network_that_wraps_another_are_those_of_the_other():
    class Wrapper(nn.Module):
        def __init__(self, backbone):
            super().__init__()
            self.backbone = backbone
            self.head = nn.Linear(4, 4)

    resnet = models.resnet18()
    expected = Network("a", resnet).block_names()
    for wrapper, prefix in (
        (Wrapper(resnet), "backbone."),
        (nn.DataParallel(Wrapper(resnet)), "module.backbone."),
    ):
        found = Network("a", wrapper).block_names()
        assert found == [f"{prefix}{name}" for name in expected]


def test_a_layer_with_a_computed_weight_is_one_layer():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3))
    nn.utils.parametrizations.weight_norm(module[0])
    assert Network("a", module).block_names() == ["0", "1", "2"]
