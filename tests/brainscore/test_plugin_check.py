"""The check finds what is wrong with plugins, without running them."""

import importlib.util
import json
import re
import shutil
import stat
import zipfile
from pathlib import Path

import pytest
from plugin_standins import cache_tiny, make_tiny_paper, own_training

from ce_align.brainscore.plugin import check
from ce_align.brainscore.plugin.archive import opened_plugins
from ce_align.brainscore.plugin.check import check_plugins, inspect_plugins
from ce_align.brainscore.plugin.rules import layer_names, stated_network
from ce_align.brainscore.plugin.source import PluginSource, scanned_identifiers
from ce_align.brainscore.submission import Submission, submit
from ce_align.errors import DataError
from ce_align.models.catalogue import PUBLISHED


@pytest.fixture(scope="session")
def installed() -> Path:
    """Folder of the plugins in the installed Brain-Score."""
    found = importlib.util.find_spec("brainscore_vision")
    if found is None:
        pytest.skip("brainscore-vision is not installed")
    return Path(found.submodule_search_locations[0]) / "models"


def checks(findings, severity="fault") -> set[str]:
    return {finding.check for finding in findings if finding.severity == severity}


@pytest.fixture(scope="session")
def published_findings(installed):
    return inspect_plugins(sorted(installed.glob("CE-*")))


KNOWN_FAULTS = {
    *("pickle", "checksum", "cache", "temporary-files"),
    *("bibtex", "tests", "setup"),
}


@pytest.mark.slow
def test_the_published_plugins_have_their_known_faults(published_findings):
    assert len(published_findings) == 21
    for plugin, findings in published_findings.items():
        odd = {"folder"} if plugin == "CE-SimCLR_lmda_0" else set()
        assert checks(findings) == KNOWN_FAULTS | odd, plugin
        assert {"layers", "metadata", "address"} <= checks(findings, "warning")


def test_the_published_plugins_ask_for_the_right_networks(published_findings):
    wrong = {
        plugin: [f.message for f in findings if f.check == "weights"]
        for plugin, findings in published_findings.items()
    }
    told = {plugin for plugin, messages in wrong.items() if messages}
    # Only their tables are wrong, and only for other networks than themselves.
    assert told == {"CE-MMCR_lmda_0001", "CE-MMCR_lmda_01"}
    assert all("02 → 0.3, 03 → 0.2" in wrong[plugin][0] for plugin in told)


def test_every_published_plugin_is_resolved_to_its_address(installed):
    folders = {
        identifier: folder
        for folder in map(PluginSource, sorted(installed.glob("CE-*")))
        for identifier in folder.identifiers
    }
    for entry in PUBLISHED.values():
        if entry.brainscore_id is not None:
            made = folders[entry.brainscore_id].texts(entry.brainscore_id)
            assert any(text.endswith(entry.path) for text in made), entry.name


def test_swapped_weights_are_found(installed, tmp_path):
    plugin = tmp_path / "CE-MMCR_lmda_02"
    shutil.copytree(installed / plugin.name, plugin)
    text = (plugin / "model.py").read_text()
    (plugin / "model.py").write_text(text.replace("'02': 0.2", "'02': 0.3"))
    findings = inspect_plugins([plugin])[plugin.name]
    (found,) = [f for f in findings if (f.check, f.severity) == ("weights", "fault")]
    assert "equivariance_weight 0.2" in found.message and "lmda_0.3" in found.message


def test_identifiers_are_scanned_as_brainscore_does(installed):
    pytest.importorskip("pytest_check")  # which Brain-Score imports on the way
    from brainscore_core.plugin_management.parse_plugin_changes import get_plugin_ids

    folders = [p.parent.name for p in sorted(installed.glob("*/__init__.py"))]
    expected = get_plugin_ids("models", folders, str(installed.parent))
    found = [
        identifier
        for folder in folders
        for identifier in scanned_identifiers(
            (installed / folder / "__init__.py").read_text()
        )
    ]
    assert len(found) > 500 and found == expected


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        *(
            (e.brainscore_id, e.equivariance_weight)
            for e in PUBLISHED.values()
            if e.brainscore_id
        ),
        *((e.path, e.equivariance_weight) for e in PUBLISHED.values()),
        *(
            (e.name.replace(".", "_"), e.equivariance_weight)
            for e in PUBLISHED.values()
        ),
        ("ViT_L_32_imagenet1k", None),
        ("resnet50_l2_eps1", None),
    ],
)
def test_names_and_addresses_say_their_weight(text, weight):
    # The path of the longest training does not say its weight.
    expected = None if "1000_epoch" in text else weight
    assert stated_network(text).equivariance_weight == expected


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    """A plugin without faults."""
    folder = tmp_path_factory.mktemp("sound")
    run = own_training(folder / "run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CE_ALIGN_HOME", str(folder / "home"))
        (found,) = submit([str(run)], folder / "plugins", Submission("embed"))
    return folder / "plugins" / found.identifier


def test_a_plugin_of_ours_has_no_finding(sound):
    assert inspect_plugins([sound]) == {sound.name: []}


def edited(plugin: Path, file: str, old: str, new: str) -> None:
    text = (plugin / file).read_text()
    assert old in text
    (plugin / file).write_text(text.replace(old, new))


def add(plugin: Path, code: str) -> None:
    path = plugin / "model.py"
    path.write_text(f"{path.read_text()}\n\n{code}\n")


URL = '"https://lab.org/w"'
#: What is done to a sound plugin, and the check that finds it.
FAULTS = {
    "no registration": (lambda p: (p / "__init__.py").write_text(""), "registration"),
    "no init": (lambda p: (p / "__init__.py").unlink(), "registration"),
    "registered in a loop": (
        lambda p: (p / "__init__.py").write_text(
            "for name in ['a']:\n    model_registry[name] = lambda: 1\n"
        ),
        "registration",
    ),
    "registered over two lines": (
        lambda p: (p / "__init__.py").write_text(
            f"model_registry[\n    {p.name!r}] = lambda: 1\n"
        ),
        "registration",
    ),
    "brackets after the key": (
        lambda p: (p / "__init__.py").write_text(
            f"model_registry[{p.name!r}] = lambda: NETWORKS[0]\n"
        ),
        "registration",
    ),
    "other identifier": (
        lambda p: edited(p, "__init__.py", f'"{p.name}"', '"another"'),
        "folder",
    ),
    "commits another name": (
        lambda p: edited(p, "__init__.py", 'identifier="', 'identifier="x'),
        "identifier",
    ),
    "shared store": (
        lambda p: edited(
            p, "model.py", 'f"{IDENTIFIER}-{WEIGHTS_SHA256[:12]}"', '"resnet50"'
        ),
        "identifier",
    ),
    "syntax": (lambda p: add(p, "def broken(:"), "syntax"),
    "layer": (
        lambda p: edited(p, f"region_layer_map/{p.name}.json", "layer4", "layer5"),
        "layers",
    ),
    "region": (
        lambda p: edited(p, f"region_layer_map/{p.name}.json", "V4", "PFC"),
        "layers",
    ),
    "layer map": (
        lambda p: (p / f"region_layer_map/{p.name}.json").write_text("{"),
        "layers",
    ),
    "input": (
        lambda p: edited(
            p, "model.py", "wrapper.image_size = INPUT_SIZE", "wrapper.image_size = 224"
        ),
        "preprocessing",
    ),
    "pickle": (
        lambda p: add(p, "import torch as t\nt.load('f', weights_only=False)"),
        "pickle",
    ),
    "pickle under another name": (
        lambda p: add(p, "from pickle import load as fetch\nfetch(open('f', 'rb'))"),
        "pickle",
    ),
    "object array": (
        lambda p: add(p, "import numpy as n\nn.load('f', allow_pickle=True)"),
        "pickle",
    ),
    "program": (lambda p: add(p, "import os\nos.system('true')"), "execution"),
    "remote code": (
        lambda p: add(p, "f = AutoModel.from_pretrained('x', trust_remote_code=True)"),
        "execution",
    ),
    "pip": (
        lambda p: add(p, "import subprocess\nsubprocess.run(['pip'])"),
        "execution",
    ),
    "hub": (lambda p: add(p, "torch.hub.load('lab/net', 'net')"), "execution"),
    "bibtex": (
        lambda p: edited(p, "model.py", "return BIBTEX", "return 'xx'"),
        "bibtex",
    ),
    "no bibtex": (
        lambda p: edited(p, "model.py", "def get_bibtex", "def get_citation"),
        "bibtex",
    ),
    "no tests": (lambda p: (p / "test.py").write_text("# later\n"), "tests"),
    "no test file": (lambda p: (p / "test.py").unlink(), "tests"),
    "idle tests": (
        lambda p: (p / "test.py").write_text("def test_a():\n    assert True\n"),
        "tests",
    ),
    "setup": (
        lambda p: (p / "setup.py").write_text(
            "from setuptools import setup\nsetup(license='MIT')\n"
        ),
        "setup",
    ),
    "metadata": (
        lambda p: (p / "metadata.yml").write_text("models: {a: {colour: red}}\n"),
        "metadata",
    ),
    "metadata of another": (
        lambda p: edited(p, "metadata.yml", p.name, "another"),
        "metadata",
    ),
    "weights changed": (
        lambda p: (p / "weights.safetensors").write_bytes(b"other"),
        "checksum",
    ),
    "weights missing": (lambda p: (p / "weights.safetensors").unlink(), "checksum"),
    "a pickle": (lambda p: (p / "net.pth").write_bytes(b""), "files"),
    "a program": (lambda p: (p / "net.so").write_bytes(b""), "files"),
    "a link": (lambda p: (p / "link").symlink_to("/etc/hosts"), "files"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found(sound, tmp_path, name):
    spoil, check = FAULTS[name]
    plugin = tmp_path / sound.name
    shutil.copytree(sound, plugin)
    spoil(plugin)
    assert check in checks(inspect_plugins([plugin])[plugin.name])


DOWNLOADS = [
    (f"from urllib.request import urlretrieve\nurlretrieve({URL})", "temporary-files"),
    (f"from urllib.request import urlretrieve\nurlretrieve({URL})", "cache"),
    (f"import requests\nrequests.get({URL})", "checksum"),
    (f"import torch\ntorch.hub.load_state_dict_from_url({URL})", "checksum"),
    (
        f"import torch\ntorch.hub.load_state_dict_from_url({URL}, check_hash=False)",
        "checksum",
    ),
    (f"import torch\ntorch.hub.download_url_to_file({URL}, 'f')", "checksum"),
    (f"import gdown\ngdown.download({URL})", "checksum"),
]
VERIFIED = [
    f"import torch\ntorch.hub.load_state_dict_from_url({URL}, check_hash=True)",
    f"import torch\ntorch.hub.download_url_to_file({URL}, 'f', hash_prefix='0a1b')",
    f"import torch\ntorch.hub.download_url_to_file({URL}, 'f', '0a1b')",
]


@pytest.mark.parametrize(("code", "check"), DOWNLOADS)
def test_an_unverified_download_is_found(tmp_path, code, check):
    (tmp_path / "model.py").write_text(f"def get_model(name):\n{indented(code)}\n")
    findings = inspect_plugins([tmp_path])[tmp_path.name]
    assert check in checks(findings)


@pytest.mark.parametrize("code", VERIFIED)
def test_a_verified_download_is_none(tmp_path, code):
    (tmp_path / "model.py").write_text(f"def get_model(name):\n{indented(code)}\n")
    assert "checksum" not in checks(inspect_plugins([tmp_path])[tmp_path.name])


def indented(code: str) -> str:
    return "\n".join(f"    {line}" for line in code.splitlines())


def test_one_identifier_in_two_folders_is_found(sound, tmp_path):
    for name in (sound.name, "other"):
        shutil.copytree(sound, tmp_path / name)
    found = inspect_plugins([tmp_path / sound.name, tmp_path / "other"])
    assert all("duplicate" in checks(findings) for findings in found.values())


@pytest.mark.parametrize("architecture", ["regnet_y_400mf", "vit_b_16", "tiny"])
def test_layers_of_an_architecture_are_known(architecture):
    assert len(layer_names(architecture)) > 10
    assert layer_names("nonesuch") is None


def test_brainscores_folder_of_all_plugins_is_no_plugin(installed, tmp_path):
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").touch()
    for name in ("CE-SimCLR_lmda_01", "CE-MMCR_lmda_01"):
        shutil.copytree(installed / name, tmp_path / "models" / name)
    told = []
    examined = check_plugins(
        tmp_path / "models", progress=lambda *progress: told.append(progress)
    )
    names = ["CE-MMCR_lmda_01", "CE-SimCLR_lmda_01"]
    assert [diagnosis.plugin for diagnosis in examined] == names
    assert told == [("read", done, 2) for done in range(3)]


def test_an_identifier_that_brainscore_has_is_found(installed, tmp_path):
    for name, severity in (
        ("CE-SimCLR_lmda_01", "warning"),
        ("other", "fault"),
    ):
        shutil.copytree(installed / "CE-SimCLR_lmda_01", tmp_path / name)
        found = inspect_plugins([tmp_path / name])[name]
        assert "duplicate" in checks(found, severity)


def test_reading_a_plugin_executes_nothing(sound, tmp_path):
    plugin, mark = tmp_path / sound.name, tmp_path / "executed"
    shutil.copytree(sound, plugin)
    spell = f"open({str(mark)!r}, 'w').close()\n"
    for file in ("__init__.py", "model.py", "test.py"):
        (plugin / file).write_text(spell + (plugin / file).read_text())
    (plugin / "setup.py").write_text(spell)
    (plugin / "conftest.py").write_text(spell)
    (diagnosis,) = check_plugins(plugin)
    assert not diagnosis.ours and not diagnosis.ran
    assert not mark.exists()


@pytest.mark.parametrize("code", ["x = 'a' * 10**12", "y = [[0] * 10**9] * 10**9"])
def test_folding_does_not_compute_what_is_large(tmp_path, code):
    (tmp_path / "model.py").write_text(code + "\ndef get_model(name):\n    pass\n")
    assert inspect_plugins([tmp_path])


@pytest.mark.slow
def test_a_zip_of_ours_is_examined_like_its_folder(tmp_path, monkeypatch):
    make_tiny_paper(monkeypatch)
    cache_tiny("ce_mmcr_l0.1")
    submit(["ce_mmcr_l0.1"], tmp_path / "mine.zip", Submission("embed"))
    (diagnosis,) = check_plugins(tmp_path / "mine.zip", run=False)
    assert diagnosis.ours and diagnosis.n_faults == 0
    assert [f.check for f in diagnosis.findings] == ["layers"]
    assert json.loads(diagnosis.model_dump_json())["identifiers"] == ["ce_mmcr_l0_1"]


def zipped(path: Path, names, link: str | None = None) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "" if name.endswith("/") else "model_registry")
        if link:
            info = zipfile.ZipInfo(link)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, "/etc/passwd")
    return path


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (["a/x/__init__.py", "b/y/__init__.py", "b/y/model.py"], "single folder"),
        (["a/models/x/__init__.py"], "expected the entry a/models/"),
        (["x/__init__.py"], "expected the entry x/models/"),
    ],
)
def test_a_zip_that_the_website_misreads_is_found(tmp_path, names, fault):
    path = zipped(tmp_path / "a.zip", names)
    try:
        (diagnosis, *_) = check_plugins(path)
    except DataError as error:
        assert "holds no plugin" in str(error)
    else:
        assert any(fault in finding.message for finding in diagnosis.findings)


@pytest.mark.parametrize(
    ("names", "link", "message"),
    [
        (["../x/__init__.py"], None, "outside its folder"),
        (["/x/__init__.py"], None, "outside its folder"),
        (["..\\x\\__init__.py"], None, "outside its folder"),
        (["a/models/x/__init__.py"], "a/models/x/link", "holds a link"),
        ([], None, "is empty"),
        (["a/readme.txt"], None, "holds no plugin"),
    ],
)
def test_a_dangerous_or_empty_zip_is_refused(tmp_path, names, link, message):
    path = zipped(tmp_path / "a.zip", names, link)
    with pytest.raises(DataError, match=message), opened_plugins(path):
        pass


def test_a_zip_that_would_fill_the_disk_is_refused(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/models/x/__init__.py", "")
    # The declared size of the only file, in the zip's directory.
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"PK\x01\x02") + 24 : raw.index(b"PK\x01\x02") + 28] = b"\xff" * 4
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"damaged|would unpack"), opened_plugins(path):
        pass


def test_what_is_no_zip_is_refused(tmp_path):
    (tmp_path / "a.zip").write_bytes(b"PK nothing")
    with (
        pytest.raises(DataError, match="damaged or no zip"),
        opened_plugins(tmp_path / "a.zip"),
    ):
        pass
    with (
        pytest.raises(DataError, match="there is no plugin"),
        opened_plugins(tmp_path / "absent"),
    ):
        pass


def test_a_set_that_is_too_large_for_the_website_is_found(sound, monkeypatch):
    monkeypatch.setattr(check, "ZIP_LIMIT", 1000)
    (found,) = [f for f in inspect_plugins([sound])[sound.name] if f.check == "zip"]
    assert re.search(r"would have \d+ MB", found.message)
