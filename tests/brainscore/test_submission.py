"""Networks become plugins that say all that is needed, and nothing that is not true."""

import hashlib
import importlib
import json
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plugin_standins import (
    cache_tiny,
    make_tiny_paper,
    own_training,
    save_tiny,
    served,
)
from safetensors.torch import load_file

from ce_align.brainscore.plugin import archive as plugin_archive
from ce_align.brainscore.plugin.writing import PluginSpec, model_files, recovered_spec
from ce_align.brainscore.submission import Submission, default_identifier, submit
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.models.catalogue import EXPORTED, PUBLISHED
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.load import load_network
from ce_align.trainer.networks import build_backbone

pytestmark = pytest.mark.slow

HOSTED = Submission("https://lab.org/weights/")
EMBEDDED = Submission("embed")
OWN_LAYERS = {"V1": "layer1", "V2": "layer2", "V4": "layer3", "IT": "layer4"}


@pytest.fixture
def paper(monkeypatch) -> None:
    make_tiny_paper(monkeypatch)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_identifiers_are_all_different_and_importable():
    identifiers = [default_identifier(name, "0" * 20) for name in PUBLISHED]
    assert len(set(identifiers)) == 22
    assert all(name.isidentifier() for name in identifiers)


def test_a_plugin_pins_the_weights_that_are_to_be_served(paper, tmp_path):
    cache_tiny("ce_mmcr_l0.1")
    (found,) = submit(["ce_mmcr_l0.1"], tmp_path / "plugins", HOSTED)
    assert found.identifier == "ce_mmcr_l0_1"
    assert found.weights_url == "https://lab.org/weights/ce_mmcr_l0_1.safetensors"
    assert found.upload == tmp_path / "plugins-weights" / "ce_mmcr_l0_1.safetensors"
    assert found.weights_sha256 == sha256(found.upload)
    spec = recovered_spec(tmp_path / "plugins" / "ce_mmcr_l0_1")
    assert spec is not None
    assert (spec.weights_url, spec.weights_sha256) == (
        found.weights_url,
        found.weights_sha256,
    )
    state = load_network("ce_mmcr_l0.1").module.state_dict()
    exported = load_file(found.upload)
    assert exported.keys() == state.keys()
    assert all(torch.equal(exported[key], state[key]) for key in state)


def test_a_folder_has_the_files_that_brainscore_asks_for(paper, tmp_path):
    cache_tiny("ce_mmcr_l0.1")
    submit(["ce_mmcr_l0.1"], tmp_path / "plugins", HOSTED)
    plugin = tmp_path / "plugins" / "ce_mmcr_l0_1"
    files = {p.relative_to(plugin).as_posix() for p in plugin.rglob("*") if p.is_file()}
    assert files == {
        *("__init__.py", "model.py", "test.py", "requirements.txt", "metadata.yml"),
        "region_layer_map/ce_mmcr_l0_1.json",
    }
    layers = json.loads((plugin / "region_layer_map/ce_mmcr_l0_1.json").read_text())
    assert layers == dict.fromkeys(("V1", "V2", "V4", "IT"), "layer4")
    text = "".join(path.read_text() for path in plugin.rglob("*.py"))
    assert "ce_align" not in text and "torch.load" not in text


@pytest.mark.brainscore
def test_brainscore_reads_identifier_and_citation_off_the_files(paper, tmp_path):
    pytest.importorskip("pytest_check")  # which Brain-Score imports on the way
    from brainscore_core.plugin_management.parse_plugin_changes import get_plugin_ids
    from pybtex.database.input import bibtex

    cache_tiny("ce_mmcr_l0.1")
    submit(["ce_mmcr_l0.1"], tmp_path / "models", HOSTED)
    found = get_plugin_ids("models", ["ce_mmcr_l0_1"], str(tmp_path))
    assert found == ["ce_mmcr_l0_1"]
    spec = recovered_spec(tmp_path / "models" / "ce_mmcr_l0_1")
    (entry,) = bibtex.Parser().parse_string(spec.bibtex).entries.values()
    assert entry.persons["author"][0].last_names == ["Yerxa"]
    assert entry.fields["year"] == "2024" and entry.fields["url"]


def test_metadata_say_how_the_network_was_trained(paper, tmp_path):
    from brainscore_core.metadata import load

    cache_tiny("ce_barlow_l0.2_ep1000")
    submit(["ce_barlow_l0.2_ep1000"], tmp_path / "plugins", HOSTED)
    path = tmp_path / "plugins" / "ce_barlow_l0_2_ep1000" / "metadata.yml"
    (entry,) = load(path.read_text(), "vision")["models"].values()
    assert "λ = 0.2" in entry["training"]["loss"]
    assert entry["training"]["process"].startswith("1000 epochs")
    module = load_network("ce_barlow_l0.2_ep1000").module
    n_parameters = sum(p.numel() for p in module.parameters())
    assert entry["model"]["parameter_count"] == n_parameters


def test_metadata_can_be_left_out(paper, tmp_path):
    cache_tiny("ce_mmcr_l0.1")
    without = Submission("embed", metadata=False)
    submit(["ce_mmcr_l0.1"], tmp_path / "plugins", without)
    assert not (tmp_path / "plugins" / "ce_mmcr_l0_1" / "metadata.yml").exists()


def test_a_training_of_ones_own_becomes_a_plugin(tmp_path):
    run = own_training(tmp_path / "My run")
    (found,) = submit([str(run)], tmp_path / "plugins", EMBEDDED)
    assert found.identifier.startswith("my_run_")
    plugin = tmp_path / "plugins" / found.identifier
    assert sha256(plugin / "weights.safetensors") == found.weights_sha256
    spec = recovered_spec(plugin)
    assert spec is not None
    assert (spec.input_size, spec.interpolation, spec.n_classes) == (
        32,
        "bicubic",
        None,
    )
    assert spec.layers == OWN_LAYERS


def test_networks_of_other_weights_have_other_identifiers(tmp_path):
    for seed in (1, 2):
        own_training(tmp_path / str(seed) / "run", seed)
    runs = [str(tmp_path / str(seed) / "run") for seed in (1, 2)]
    first, second = submit(runs, tmp_path / "plugins", EMBEDDED)
    assert first.identifier != second.identifier


def test_layers_can_be_chosen(paper, tmp_path):
    cache_tiny("ce_mmcr_l0.1")
    chosen = Submission("embed", layers={"V1": "layer1"})
    submit(["ce_mmcr_l0.1"], tmp_path / "plugins", chosen)
    spec = recovered_spec(tmp_path / "plugins" / "ce_mmcr_l0_1")
    assert spec.layers == {
        "V1": "layer1",
        **dict.fromkeys(("V2", "V4", "IT"), "layer4"),
    }


def test_the_zip_is_laid_out_for_the_website_and_reproducible(paper, tmp_path):
    for name in ("ce_mmcr_l0", "ce_mmcr_l0.1"):
        cache_tiny(name)
    for out in ("a/mine.zip", "b/mine.zip"):
        submit(["ce_mmcr_l0", "ce_mmcr_l0.1"], tmp_path / out, HOSTED)
    first, second = tmp_path / "a/mine.zip", tmp_path / "b/mine.zip"
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as archive:
        names = archive.namelist()
    assert names[:2] == ["mine/", "mine/models/"]
    folders = {n.split("/")[2] for n in names if n.endswith("/") and n.count("/") == 3}
    assert folders == {"ce_mmcr_l0", "ce_mmcr_l0_1"}


def test_weights_that_are_too_large_for_the_zip_are_refused(
    paper, tmp_path, monkeypatch
):
    cache_tiny("ce_mmcr_l0.1")
    monkeypatch.setattr(plugin_archive, "ZIP_LIMIT", 1_000_000)
    for out in ("mine.zip", "plugins"):
        with pytest.raises(
            DataError, match=r"takes 1 MB; put the weights .* --weights"
        ):
            submit(["ce_mmcr_l0.1"], tmp_path / out, EMBEDDED)
    assert not any(tmp_path.iterdir())


def test_weights_that_are_served_are_pinned_as_they_are_served(paper, tmp_path):
    store = tmp_path / "store"
    file = save_tiny(store / "ce_simclr_l0_3.safetensors", seed=3)
    with served(store) as address:
        (found,) = submit(["CE-SimCLR_lmda_03"], tmp_path / "p", Submission(address))
    assert found.upload is None
    assert found.weights_sha256 == sha256(file)


def test_weights_that_are_neither_here_nor_served_are_refused(
    paper, tmp_path, monkeypatch
):
    with served(tmp_path) as address:
        monkeypatch.setenv("CE_ALIGN_CHECKPOINTS_URL", f"{address}authors")
        with pytest.raises(
            AccessError, match=r"does not serve .* is not on this machine"
        ):
            submit(["ce_mmcr_l0.1"], tmp_path / "p", Submission(address))
    assert not (tmp_path / "p").exists()


def test_served_weights_of_another_architecture_are_refused(paper, tmp_path):
    (tmp_path / "ce_mmcr_l0_1.safetensors").write_bytes(b"no safetensors")
    with (
        served(tmp_path) as address,
        pytest.raises(DataError, match="damaged or no safetensors"),
    ):
        submit(["ce_mmcr_l0.1"], tmp_path / "p", Submission(address))


def test_a_plugin_that_is_there_is_replaced_only_if_asked(paper, tmp_path):
    cache_tiny("ce_mmcr_l0.1")
    for out in (tmp_path / "plugins", tmp_path / "mine.zip"):
        submit(["ce_mmcr_l0.1"], out, EMBEDDED)
        with pytest.raises(ConfigError, match="--force"):
            submit(["ce_mmcr_l0.1"], out, HOSTED)
    submit(["ce_mmcr_l0.1"], tmp_path / "plugins", HOSTED, force=True)
    plugin = tmp_path / "plugins" / "ce_mmcr_l0_1"
    assert not (plugin / "weights.safetensors").exists()
    assert [p.name for p in (tmp_path / "plugins").iterdir()] == [plugin.name]


def test_plugins_of_an_export_that_was_killed_are_not_in_the_way(paper, tmp_path):
    names = ["ce_mmcr_l0.1", "ce_mmcr_l0"]
    for name in names:
        cache_tiny(name)
    submit(names[:1], tmp_path / "plugins", EMBEDDED)
    submit(names, tmp_path / "plugins", EMBEDDED)
    found = sorted(path.name for path in (tmp_path / "plugins").iterdir())
    assert found == ["ce_mmcr_l0", "ce_mmcr_l0_1"]
    (tmp_path / "plugins" / "ce_mmcr_l0" / "model.py").write_text("# mine")
    with pytest.raises(ConfigError, match="has ce_mmcr_l0 already"):
        submit(names, tmp_path / "plugins", EMBEDDED)


@pytest.mark.parametrize(
    ("models", "options", "message"),
    [
        ([], {}, "at least one network"),
        (["pixels"], {}, "cannot be submitted"),
        (["brainscore/alexnet"], {}, "cannot be submitted"),
        (["net.py:build"], {}, "cannot be submitted"),
        (["torchvision/alexnet:none"], {}, "--layer IT="),
        (["a", "b"], {"identifier": "c"}, "names one network"),
        (["a", "b"], {"weights": "https://x.org/w.safetensors"}, "cannot share"),
        (["a"], {"weights": "x.org/w/"}, "should be 'embed' or an address"),
        (["a"], {"weights": "https://x.org/w.pt"}, "should end in"),
        (["torchvision/resnet18:none"], {"layers": {"PFC": "layer4"}}, "no region"),
        (["torchvision/resnet18:none"], {"layers": {"IT": "layer5"}}, "no layer"),
        (["torchvision/resnet18:none"], {"identifier": "a.b"}, "identifier is 'a.b'"),
    ],
)
def test_what_cannot_be_exported_is_refused_in_one_line(
    tmp_path, models, options, message
):
    submission = Submission(**{"weights": "embed", **options})
    with pytest.raises(ConfigError, match=message) as caught:
        submit(models, tmp_path / "plugins", submission)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_network_that_its_name_does_not_rebuild_is_refused(tmp_path):
    from torchvision.models import resnet18

    state = resnet18(norm_layer=lambda n: torch.nn.GroupNorm(1, n)).state_dict()
    torch.save(state, tmp_path / "other.pt")
    with pytest.raises(DataError, match="do not fit"):
        submit([f"{tmp_path}/other.pt:resnet18"], tmp_path / "p", EMBEDDED)


def test_a_checkpoint_of_unknown_origin_needs_a_citation(tmp_path):
    file = save_tiny(tmp_path / "net.safetensors", 0)
    with pytest.raises(ConfigError, match="--bibtex"):
        submit([f"{file}:tiny"], tmp_path / "p", EMBEDDED)
    cited = Submission("embed", bibtex="@misc{me, author={Me}, year={2024}}")
    (found,) = submit([f"{file}:tiny"], tmp_path / "p", cited)
    spec = recovered_spec(tmp_path / "p" / found.identifier)
    assert spec.bibtex == "@misc{me, author={Me}, year={2024}}\n"


def make_spec(**changes) -> PluginSpec:
    values = {
        "identifier": "ce_mmcr_l0_1",
        "architecture": "resnet50",
        "n_classes": 1000,
        "layers": {"IT": "layer4"},
        "input_size": 224,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "interpolation": "bilinear",
        "weights_url": "https://lab.org/w.safetensors",
        "weights_sha256": "0" * 64,
        "bibtex": "@misc{x}",
    }
    return PluginSpec(**{**values, **changes})


def write_code(spec: PluginSpec, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in model_files(spec).items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@settings(max_examples=40)
@given(
    bibtex=st.text(st.characters(codec="utf-8"), min_size=1).filter(str.strip),
    layer=st.from_regex(r"[a-z0-9_]+(\.[a-z0-9_-]+)*", fullmatch=True),
    size=st.integers(1, 4096),
    n_classes=st.none() | st.integers(1, 10**6),
    architecture=st.sampled_from(["tiny", "resnet50"]),
    interpolation=st.sampled_from(["bilinear", "bicubic", "nearest"]),
    url=st.none() | st.just("http://h/w.safetensors"),
)
def test_code_says_exactly_what_it_was_made_of(
    tmp_path_factory, bibtex, layer, size, n_classes, architecture, interpolation, url
):
    spec = make_spec(
        bibtex=bibtex,
        layers={"IT": layer},
        input_size=size,
        n_classes=n_classes,
        architecture=architecture,
        interpolation=interpolation,
        weights_url=url,
    )
    folder = tmp_path_factory.getbasetemp() / "code"
    assert recovered_spec(write_code(spec, folder)) == spec


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("model.py", "import torch\n", "import torch, os\n"),
        ("model.py", "0.485", "0.5 if True else 0"),
        ("model.py", "network.eval()", "network"),
        ("__init__.py", "from .model", "from .other"),
    ],
)
def test_code_that_was_altered_is_not_ours(tmp_path, file, old, new):
    folder = write_code(make_spec(), tmp_path / "plugin")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    assert recovered_spec(folder) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"identifier": 'x"]; import os #'},
        {"architecture": "resnet50'); import os"},
        {"weights_sha256": "0"},
        {"weights_url": 'https://x"+evil()+".safetensors'},
        {"weights_url": "file:///etc/passwd.safetensors"},
        {"layers": {}},
        {"mean": (float("nan"), 0, 0)},
    ],
)
def test_a_plugin_cannot_say_what_would_be_code(changes):
    with pytest.raises(ValueError):
        make_spec(**changes)


@pytest.mark.parametrize(
    ("backbone", "size", "layers"),
    [
        ("resnet18_cifar", 32, {}),
        ("timm/test_vit", 160, {"layers": {"IT": "blocks.4"}}),
    ],
)
def test_a_plugin_builds_every_backbone_that_trainings_have(
    tmp_path, monkeypatch, backbone, size, layers
):
    network, _ = build_backbone(backbone)
    folder = tmp_path / "run"
    folder.mkdir()
    facts = {"architecture": backbone, "input_size": str(size)}
    save_safetensors(folder / EXPORTED, network.state_dict(), facts)
    submission = replace(EMBEDDED, bibtex="@misc{a, title={b}}", **layers)
    (found,) = submit([str(folder)], tmp_path / "plugins", submission)
    plugin = tmp_path / "plugins" / found.identifier
    assert recovered_spec(plugin) is not None
    assert ("timm" in (plugin / "requirements.txt").read_text()) == ("/" in backbone)
    monkeypatch.syspath_prepend(plugin)
    monkeypatch.delitem(sys.modules, "model", raising=False)
    rebuilt = importlib.import_module("model").build_network().eval()
    del sys.modules["model"]
    rebuilt.load_state_dict(load_file(plugin / "weights.safetensors"))
    images = torch.rand(2, 3, size, size)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(images), network.eval()(images))
