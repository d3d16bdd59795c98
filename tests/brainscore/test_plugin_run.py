"""Plugins load through Brain-Score's own loader in a clean process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from plugin_standins import make_tiny_paper, own_training, save_tiny, served

from ce_align.brainscore.plugin import run as plugin_run
from ce_align.brainscore.plugin.check import check_plugins
from ce_align.brainscore.plugin.run import environment, overlay
from ce_align.brainscore.submission import Submission, default_identifier, submit
from ce_align.models.catalogue import PUBLISHED

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


@pytest.fixture(scope="module", autouse=True)
def brainscore():
    pytest.importorskip("brainscore_vision")


@pytest.fixture(scope="module", autouse=True)
def few_scenes():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plugin_run, "N_IMAGES", 32)
        yield


def listing(folder: Path) -> set[tuple[str, int]]:
    return {
        (path.as_posix(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


#: Runs Brain-Score's generic tests for each plugin, and the plugin's own for some.
TESTS = """
import json, sys
from pathlib import Path
import pytest

folder, jobs = sys.argv[1:]
package = Path(folder, "brainscore_vision")
class Counter:
    n_passed = 0
    failed = []
    def pytest_runtest_logreport(self, report):
        if report.when == "call" and report.passed:
            Counter.n_passed += 1
        if report.failed or report.skipped:
            Counter.failed.append(report.nodeid)
generic = package / "model_helpers" / "generic_plugin_tests.py"
quiet = ["-q", "-p", "no:cacheprovider", "--no-header", "--rootdir", folder]
# It would collect all garbage after each plugin, which takes longer than the tests.
quiet += ["-p", "no:unraisableexception"]
for name, (own, *options) in json.loads(jobs).items():
    plugin = package / "models" / name
    named = [str(generic), "--plugin_directory", str(plugin), *options]
    pytest.main([*quiet, *named], [Counter()])
    if own:
        pytest.main([*quiet, str(plugin / "test.py")], [Counter()])
print("\\npassed", Counter.n_passed, "failed", Counter.failed)
"""


def add_missing_images(overlaid: Path) -> None:
    """The three images of the generic tests, which the wheel lacks."""
    folder = overlaid / "brainscore_vision/model_helpers/generic_plugin_tests_resources"
    folder.mkdir()
    for name, colour in (
        ("rgb1.jpg", "red"),
        ("rgb2.jpg", "green"),
        ("rgb3.png", "blue"),
    ):
        Image.new("RGB", (64, 64), colour).save(folder / name)


def run_brainscore_tests(jobs: dict[Path, tuple], scratch: Path) -> str:
    """What the tests say of plugins, each with: its own, too? and options."""
    named = json.dumps({folder.name: job for folder, job in jobs.items()})
    with overlay([*jobs]) as overlaid:
        add_missing_images(overlaid)
        ended = subprocess.run(
            [sys.executable, "-P", "-c", TESTS, str(overlaid), named],
            env=environment(overlaid, scratch),
            cwd=scratch,
            capture_output=True,
            text=True,
            check=False,
        )
    return ended.stdout + ended.stderr


@pytest.fixture(scope="module")
def paper(tmp_path_factory):
    """All 22 published networks as plugins, tiny, whose weights are served."""
    folder = tmp_path_factory.mktemp("paper")
    store = folder / "store"
    for seed, name in enumerate(PUBLISHED):
        save_tiny(store / f"{default_identifier(name, '')}.safetensors", seed)
    with pytest.MonkeyPatch.context() as patch, served(store) as address:
        make_tiny_paper(patch)
        patch.setenv("CE_ALIGN_HOME", str(folder / "home"))
        submit(list(PUBLISHED), folder / "plugins", Submission(address))
        yield folder / "plugins"


@pytest.fixture(scope="module")
def embedded(paper, tmp_path_factory):
    """Folders of two plugins of small inputs that hold their weights, and a mark.

    Code lies beside that of the second, which leaves the mark where it is executed.
    """
    folder = tmp_path_factory.mktemp("embedded")
    runs = [str(own_training(folder / name, seed)) for seed, name in enumerate("ab")]
    found = submit(runs, folder / "plugins", Submission("embed"))
    sound, beset = (folder / "plugins" / one.identifier for one in found)
    mark = folder / "executed"
    spell = f"open({str(mark)!r}, 'w').close()\n"
    (beset / "model").mkdir()
    for name in ("model/__init__.py", "torch.py", "sitecustomize.py", "conftest.py"):
        (beset / name).write_text(spell)
    return sound, beset, mark


@pytest.fixture(scope="module")
def installed():
    """Files of the installed plugins, and when they were written, before any ran."""
    import brainscore_vision

    folder = Path(brainscore_vision.__file__).parent / "models"
    return folder, listing(folder)


#: Published networks whose weights were changed, deleted, and cannot be reached.
AMISS = ("ce_mmcr_l0_1", "ce_mmcr_l0_2", "ce_mmcr_l0_5")


@pytest.fixture(scope="module")
def diagnosed(installed, paper, embedded, tmp_path_factory):
    """What running plugins finds: one clean process, which takes long to start."""
    folder, store = tmp_path_factory.mktemp("run"), paper.with_name("store")
    plugins = folder / "plugins"
    # All are of one text but for names, digests and addresses: every eighth one is run.
    sound = sorted(paper.iterdir())[::8]
    for plugin in (*sound, *embedded[:2], *(paper / name for name in AMISS[:2])):
        shutil.copytree(plugin, plugins / plugin.name)
    changed, absent, unreachable = AMISS
    with served(store) as gone:
        name = unreachable.replace("l0_", "l0.")
        submit([name], folder / "gone", Submission(gone))
    shutil.move(folder / "gone" / unreachable, plugins)
    save_tiny(store / f"{changed}.safetensors", 100)
    (store / f"{absent}.safetensors").unlink()
    return {diagnosis.plugin: diagnosis for diagnosis in check_plugins(plugins)}


def test_all_22_are_sound_and_load_and_score_in_a_clean_process(
    installed, paper, diagnosed
):
    read = check_plugins(paper, run=False)
    assert len(read) == 22
    for diagnosis in read:
        assert diagnosis.n_faults == 0, diagnosis
        assert {f.check for f in diagnosis.findings} <= {"layers", "run"}
    diagnoses = [diagnosed[folder.name] for folder in sorted(paper.iterdir())[::8]]
    assert len(diagnoses) == 3
    for diagnosis in diagnoses:
        assert diagnosis.n_faults == 0, diagnosis
        assert diagnosis.ran and len(diagnosis.score) == 1
        kinds = {(f.severity, f.check) for f in diagnosis.findings}
        assert kinds == {("warning", "layers"), ("note", "run")}
    # Random networks of different weights, told apart by their scores.
    assert len({tuple(d.score.values()) for d in diagnoses}) == 3
    folder, before = installed
    assert listing(folder) == before


def test_plugins_of_every_shape_pass_brainscores_generic_tests(
    paper, embedded, tmp_path
):
    pytest.importorskip("pytest_check")  # which Brain-Score imports on the way
    # Of one text but for these. The fifth test is slow: one of weights inside takes it.
    quick = (False, "-k", "not behavior")
    names = ("ce_mmcr_l0", "ce_simclr_l0_001", "ce_barlow_l0_5")
    jobs = {paper / name: quick for name in names}
    jobs[paper / "ce_barlow_l0_2_ep1000"] = (True, *quick[1:])
    jobs[embedded[0]] = (True,)
    output = run_brainscore_tests(jobs, tmp_path)
    # Five or four generic ones each, and nine of its own for two.
    assert f"passed {4 * 4 + 5 + 2 * 9} failed []" in output, output[-3000:]


def test_weights_inside_and_a_small_input_load_too(embedded, diagnosed):
    diagnosis = diagnosed[embedded[0].name]
    assert diagnosis.n_faults == 0 and diagnosis.ran
    assert [f.check for f in diagnosis.findings] == ["run"]


def test_changed_weights_and_unreachable_ones_are_told_apart(diagnosed):
    changed, absent, unreachable = (diagnosed[name] for name in AMISS)
    for diagnosis, told in ((changed, "invalid hash value"), (absent, "404")):
        (fault,) = [f for f in diagnosis.findings if f.severity == "fault"]
        assert fault.check == "run" and told in fault.message
    assert unreachable.n_faults == 0
    assert any("cannot be reached" in f.message for f in unreachable.findings)


FOREIGN_INIT = """
from brainscore_vision import model_registry
from brainscore_vision.model_helpers.brain_transformation import ModelCommitment
from .model import get_model

model_registry['{name}'] = lambda: ModelCommitment(
    identifier='{name}', activations_model=get_model('{name}'), layers=['layer4'])
"""
FOREIGN_MODEL = """
import functools, os, tempfile
import torch, torchvision
from brainscore_vision.model_helpers.activations.pytorch import (
    PytorchWrapper, load_preprocess_images)

def get_bibtex(name):
    return '@misc{{x, author={{A}}, year={{1}}, doi={{2}}}}'

def get_model(name):
    assert 'AWS_SECRET_ACCESS_KEY' not in os.environ
    {spell}
    network = torchvision.models.resnet18()
    if {noisy}:
        network.layer4.register_forward_hook(
            lambda module, given, output: output + torch.randn_like(output))
    prepare = functools.partial(load_preprocess_images, image_size=64)
    wrapper = PytorchWrapper(
        identifier=name, model=network.eval(), preprocessing=prepare, batch_size=16)
    wrapper.image_size = {stated}
    return wrapper
"""


def foreign(folder: Path, name: str, spell="pass", noisy=False, stated=64) -> Path:
    plugin = folder / name
    (plugin / "region_layer_map").mkdir(parents=True)
    (plugin / "__init__.py").write_text(FOREIGN_INIT.format(name=name))
    code = FOREIGN_MODEL.format(spell=spell, noisy=noisy, stated=stated)
    (plugin / "model.py").write_text(code)
    layer_map = plugin / "region_layer_map" / f"{name}.json"
    layer_map.write_text(json.dumps({"IT": "layer4"}))
    return plugin


def test_a_foreign_plugin_runs_only_if_asked_and_is_watched(tmp_path, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    spells = {
        "leaves_a_file": {"spell": "tempfile.mkstemp()"},
        "noisy": {"noisy": True},
        "other_size": {"stated": 65 - 1 + 160},
        "breaks": {"spell": "raise RuntimeError('no such thing')"},
    }
    for name, options in spells.items():
        foreign(tmp_path / "plugins", name, **options)
    assert not any(diagnosis.ran for diagnosis in check_plugins(tmp_path / "plugins"))
    found = {
        diagnosis.plugin: {
            finding.check: finding.message
            for finding in diagnosis.findings
            if finding.severity == "fault"
        }
        for diagnosis in check_plugins(tmp_path / "plugins", run=True)
    }
    assert "other activations" in found["noisy"]["deterministic"]
    assert "image_size says 224" in found["other_size"]["preprocessing"]
    assert "no such thing" in found["breaks"]["run"]
    assert "left behind" in found["leaves_a_file"]["temporary-files"]


def test_what_lies_beside_our_code_is_not_executed(embedded, diagnosed):
    _, beset, mark = embedded
    diagnosis = diagnosed[beset.name]
    assert diagnosis.ours and diagnosis.ran
    assert not mark.exists()


def test_the_overlay_takes_nothing_of_the_environment_that_is_secret(
    tmp_path, monkeypatch
):
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "secret")
    variables = environment(tmp_path, tmp_path)
    assert "secret" not in variables.values()
    assert variables["BS_INSTALL_DEPENDENCIES"] == "no"
    assert variables["HOME"] != os.environ.get("HOME")
