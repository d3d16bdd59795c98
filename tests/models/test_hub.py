"""Networks of the hub: folders, a stand-in server, timm's own preprocessing."""

import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from PIL import Image

import ce_align as ce
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.models.architectures import torchvision_network
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.load import load_network
from ce_align.results import ResultStore
from ce_align.stages.export import export
from ce_align.stages.scores import ScoreConfig, ScoreRow

timm = pytest.importorskip("timm")

TRAINED = {
    "objective": "mmcr",
    "equivariance_weight": 0.1,
    "backbone": "resnet18",
    "epochs": 3,
    "images": "imagenet/train",
    "seed": 4,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Weights of a training of a residual network, without classifier."""
    module = torchvision_network("resnet18", seed=3)
    state = {k: v for k, v in module.state_dict().items() if not k.startswith("fc.")}
    metadata = {
        "architecture": "resnet18",
        "input_size": 64,
        "interpolation": "bicubic",
        "layers": {"V4": "layer3", "IT": "layer4"},
        "config": TRAINED,
    }
    path = tmp_path_factory.mktemp("trained") / "mmcr_l0.1" / "model.safetensors"
    save_safetensors(path, state, metadata)
    return path.parent


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    """The folder of that network for the hub, with a score in its card."""
    store = ResultStore(tmp_path_factory.mktemp("results"))
    network = load_network(str(trained))
    config = ScoreConfig(model=str(trained), recording="simulated", layer="layer4")
    row = ScoreRow(
        model=str(trained),
        metric="predictivity",
        value=0.25,
        config_id="a",
        recording="simulated",
        region="IT",
        layer="layer4",
        raw=0.4321,
        error=0.01,
        ceiling=0.7,
        n_stimuli=9,
        n_neuroids=9,
        n_splits=9,
        regression="pls",
        seed=1,
        recording_digest="r",
        origin="simulated",
        model_digest=network.digest,
    )
    store.put("score", "a", config, [row])
    other = row.model_copy(update={"model_digest": "other", "raw": 0.9876})
    store.put("score", "b", config, [other])
    folder = tmp_path_factory.mktemp("hub") / "mmcr"
    return ce.export(str(trained), folder, results=store.folder, licence="cc-by-4.0")


def outputs(network, layer="layer4"):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    inputs = network.preprocessing.normalise(torch.from_numpy(pixels))
    found = []
    part = network.module.get_submodule(layer)
    handle = part.register_forward_hook(lambda m, i, out: found.append(out))
    with torch.inference_mode():
        network.module(inputs)
    handle.remove()
    return found[0]


@pytest.mark.slow
def test_timm_loads_an_exported_network_with_equal_features(trained, exported):
    module = timm.create_model(f"local-dir:{exported}", pretrained=True).eval()
    ours = load_network(str(trained))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), np.uint8)
    inputs = ours.preprocessing.normalise(torch.from_numpy(pixels))
    with torch.inference_mode():
        assert torch.equal(module.forward_features(inputs), outputs(ours))
    stated = timm.data.resolve_model_data_config(module)
    assert (stated["input_size"], stated["interpolation"]) == ((3, 64, 64), "bicubic")


@pytest.mark.slow
def test_an_exported_network_is_one_here_with_its_layers_and_story(trained, exported):
    ours, hub = load_network(str(trained)), load_network(f"local-dir:{exported}")
    assert torch.equal(outputs(hub), outputs(ours))
    assert hub.layers == ours.layers
    assert hub.facts == ours.facts
    assert hub.facts.equivariance_weight == 0.1
    # The folder is a network by its path, too, with the same weights and names.
    assert load_network(str(exported)).digest == ours.digest


def test_timms_preprocessing_of_an_exported_network_is_ours(trained, exported, rng):
    image = Image.fromarray(rng.integers(0, 256, (90, 130, 3), np.uint8))
    ours = load_network(str(trained)).preprocessing
    timms = load_network(f"local-dir:{exported}+timm").preprocessing
    assert np.array_equal(timms.resize(image), ours.resize(image))


def test_the_card_says_what_the_network_is_and_scored(exported):
    card = (exported / "README.md").read_text()
    for text in (
        *("library_name: timm", "license: cc-by-4.0", "| Objective | mmcr |"),
        *("λ | 0.1 |", "| Epochs | 3 |", "imagenet/train", "@inproceedings{yerxa2024"),
        "| simulated (IT) | simulated | layer4 | pls | 0.4321 | 0.7 | 0.25 |",
    ):
        assert text in card
    assert "0.9876" not in card


def test_equal_folders_are_one_network_wherever_they_lie(exported, tmp_path):
    import shutil

    shutil.copytree(exported, tmp_path / "elsewhere")
    one, same = (
        load_network(f"local-dir:{f}") for f in (exported, tmp_path / "elsewhere")
    )
    assert one.digest == same.digest


def test_a_vision_transformer_of_timm_goes_to_the_hub_and_back(tmp_path):
    name = "timm/test_vit:none"
    before = load_network(name)
    export(before, tmp_path / "vit", ResultStore(tmp_path / "none"))
    after = load_network(f"local-dir:{tmp_path}/vit")
    state = after.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in before.module.state_dict().items())
    assert load_network(str(tmp_path / "vit")).digest == after.digest


def test_what_nobody_could_build_again_is_not_exported(tmp_path):
    (tmp_path / "mine.py").write_text(
        "import torch\ndef build():\n    return torch.nn.Conv2d(3, 4, 3)\n"
    )
    store = ResultStore(tmp_path / "none")
    with pytest.raises(ConfigError, match="nobody could build"):
        export(load_network(f"{tmp_path}/mine.py:build"), tmp_path / "hub", store)
    with pytest.raises(ConfigError, match="export the whole"):
        export(load_network("timm/test_vit:none@blocks"), tmp_path / "hub", store)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{}", "no network that timm builds: 'architecture'"),
        ("no json", "no network that timm builds"),
        ('{"architecture": "mystery"}', "timm has no network 'mystery'"),
        ('{"architecture": "test_vit", "pretrained_cfg": {}}', "No suitable check"),
    ],
)
def test_a_folder_that_holds_no_network_is_one_line(content, message, tmp_path):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(DataError, match=message) as refusal:
        load_network(f"local-dir:{tmp_path}")
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
@pytest.mark.parametrize("shape", [(200, 140), (64, 64), (300, 161)])
@pytest.mark.parametrize("mode", ["center", "squash"])
def test_timms_preprocessing_is_timms_own(name, shape, mode, rng):
    network = load_network(f"timm/{name}:none")
    network.module.pretrained_cfg["crop_mode"] = mode
    from ce_align.models.hub import timm_preprocessing

    fed = timm_preprocessing(network.module, name)
    stated = timm.data.resolve_model_data_config(network.module)
    transform = timm.data.create_transform(**stated)
    image = Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8))
    found = fed.normalise(torch.from_numpy(fed.resize(image)[None].copy()))[0]
    assert torch.allclose(found, transform(image), atol=1e-6)
    assert fed.fingerprint != network.preprocessing.fingerprint


def test_preprocessing_of_timm_is_another_network_and_asked_for_by_name():
    plain, fed = (load_network(f"timm/test_vit:none{end}") for end in ("", "+timm"))
    assert plain.digest != fed.digest
    assert fed.name == "timm/test_vit:none+timm"
    with pytest.raises(ConfigError, match="no network of timm"):
        load_network("torchvision/resnet18:none+timm")


def test_a_crop_that_is_not_known_here_is_refused_only_where_it_is_asked_for():
    from ce_align.models.hub import fed_by_timm, timm_preprocessing

    module = timm.create_model("test_vit")
    module.pretrained_cfg["crop_mode"] = "border"
    assert (
        fed_by_timm(module, "net") == load_network("timm/test_vit:none").preprocessing
    )
    with pytest.raises(DataError, match=r"net is fed in a way.*crop_mode"):
        timm_preprocessing(module, "net")


class Hub(BaseHTTPRequestHandler):
    """Serves one repository, as the hub does, and counts what it was asked for."""

    folder, asked = None, []

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.asked.append(self.path)
        path = self.folder / self.path.rpartition("/")[2]
        ours = self.path.startswith("/lab/net/")
        known = ours and path.is_file()
        content = path.read_bytes() if known else b""
        self.send_response(200 if known else 404)
        self.send_header("ETag", f'"{abs(hash(content)):x}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        if not known:
            code = "EntryNotFound" if ours else "RepoNotFound"
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_):
        pass


SCRIPT = """
import sys, time
from ce_align.errors import CeAlignError
from ce_align.models.load import load_network
waits = []
time.sleep = waits.append
for name in sys.argv[1:]:
    waits.clear()
    try:
        print(load_network(name).digest)
    except CeAlignError as error:
        print(f"{type(error).__name__}: {error}")
    print(sum(waits))
"""


@pytest.mark.slow
def test_a_repository_is_brought_once_and_then_needs_no_network(
    exported, tmp_path, python
):
    Hub.folder, Hub.asked = exported, []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    environment = {**os.environ, "HF_HOME": str(tmp_path), "HF_ENDPOINT": address}

    def load(*names):
        out, errors = python("-c", SCRIPT, *names, env=environment).communicate()
        lines = out.strip().splitlines() or pytest.fail(errors)
        return lines[0::2], [float(line) for line in lines[1::2]]

    try:
        (brought, missing), _ = load("hf-hub:lab/net", "hf-hub:lab/other")
        assert Hub.asked
    finally:
        server.shutdown()
        server.server_close()
    n_asked = len(Hub.asked)
    names = ("hf-hub:lab/net", "hf-hub:lab/absent", "timm/test_convnext")
    (cached, *absent), seconds = load(*names)
    assert brought == cached == load_network(f"local-dir:{exported}").digest
    assert len(Hub.asked) == n_asked
    # The hub's client alone would wait for 23 s a file.
    assert max(seconds) < 10
    for answer in (missing, *absent):
        assert answer.startswith(AccessError.__name__)


def test_weights_of_timms_architectures_are_read_from_a_checkpoint(tmp_path):
    module = timm.create_model("test_vit", num_classes=0)
    torch.save({"teacher": module.state_dict()}, tmp_path / "vit.pt")
    network = load_network(f"{tmp_path}/vit.pt:timm/test_vit")
    state = network.module.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in module.state_dict().items())
    assert network.preprocessing == load_network("timm/test_vit:none").preprocessing
    assert network.facts.backbone == "test_vit"
    with pytest.raises(ConfigError, match="nearest: test_vit"):
        load_network(f"{tmp_path}/vit.pt:timm/test_vt")
