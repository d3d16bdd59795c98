"""What a shell completes, through the interface that its scripts call."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from ce_align.cli import completion
from ce_align.cli.app import app
from ce_align.cli.completion import COMPLETIONS


@pytest.fixture
def complete(tmp_path, monkeypatch):
    """Words that complete a line, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(line, shell="bash"):
        environment = {
            "_CE_ALIGN_COMPLETE": f"complete_{shell}",
            "_TYPER_COMPLETE_ARGS": line,
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
            "COMP_WORDS": line,
            "COMP_CWORD": str(len(line.split()) - (not line.endswith(" "))),
        }
        result = CliRunner().invoke(app, [], env=environment, prog_name="ce-align")
        return result.output

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("ce-align sco", ["score"]),
        ("ce-align score --ceil", ["--ceiling"]),
        ("ce-align score --model ce_mmcr_l0.1", ["ce_mmcr_l0.1"]),
        ("ce-align score --model torchvision/resnet5", ["torchvision/resnet50"]),
        ("ce-align score --regression ri", ["ridge", "ridgecv"]),
        ("ce-align score --recording simul", ["simulated"]),
        ("ce-align score --device cp", ["cpu"]),
        ("ce-align analyze --metric bu", ["bures"]),
        ("ce-align analyze --baseline pix", ["pixels"]),
        ("ce-align overlap --model gab", ["gabor"]),
        ("ce-align correlate --against simul", ["simulated"]),
        ("ce-align transfer --dataset pe", ["pets"]),
        ("ce-align train --objective aug", ["augself"]),
        ("ce-align train --preset t", ["tiny"]),
        ("ce-align train --backbone resnet5", ["resnet50"]),
        ("ce-align figures --which fo", ["forest"]),
        ("ce-align tables --which ", ["1", "2", "3", "4", "5"]),
        ("ce-align results --stage tr", ["train", "transfer"]),
        ("ce-align results --model pix", ["pixels"]),
        ("ce-align recordings show simul", ["simulated"]),
        ("ce-align fetch li2026-i", ["li2026-it"]),
        ("ce-align models pix", ["pixels"]),
        ("ce-align register pix", ["pixels"]),
        ("ce-align export pix", ["pixels"]),
        ("ce-align submit --model pix", ["pixels"]),
    ],
)
def test_names_and_choices_are_completed(complete, line, expected):
    assert complete(line).split() == expected


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_answered(complete, shell):
    assert "ridge" in complete("ce-align score --regression ri", shell)


def test_files_here_are_completed(complete, tmp_path):
    (tmp_path / "mine.nc").touch()
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "it.py").write_text("RECIPE = []")
    (tmp_path / "net.py").write_text("def build(): ...")
    assert complete("ce-align score --recording mi").split() == ["mine.nc"]
    assert complete("ce-align run ").split() == ["recipes/it.py"]
    # Nothing is listed that is elsewhere: the shell offers files by itself.
    assert complete("ce-align run /").split() == []


def test_layers_are_those_of_the_network_on_the_line(complete, tmp_path):
    folder = tmp_path / "runs" / "a"
    folder.mkdir(parents=True)
    names = ("conv1.weight", "layer1.0.bn1.bias", "layer1.1.bn1.bias", "fc.weight")
    header = json.dumps({name: {} for name in names} | {"__metadata__": {}}).encode()
    weights = len(header).to_bytes(8, "little") + header
    (folder / "model.safetensors").write_bytes(weights)
    stored = tmp_path / "results" / "score" / "x.json"
    stored.parent.mkdir(parents=True)
    config = {"model": "pixels", "layer": "coarse"}
    stored.write_text(json.dumps({"stage": "score", "config": config, "rows": []}))
    line = "ce-align score --model {} --layer {}"
    assert complete("ce-align score --model ru").split() == ["runs/a"]
    whole = ["all", "conv1", "fc", "layer1"]
    assert complete(line.format("runs/a", "")).split() == whole
    assert complete(line.format("runs/a", "layer1.")).split() == [
        *("layer1.0", "layer1.1")
    ]
    assert complete(line.format("pixels", "c")).split() == ["coarse"]
    assert complete(line.format("ce_mmcr_l0", "l")).split() == ["layer4"]
    assert complete(line.format("absent.pt", "l")).split() == []
    (folder / "model.safetensors").write_bytes(b"damaged")
    assert complete(line.format("runs/a", "l")).split() == []


def test_objectives_are_those_that_are_registered(complete):
    from ce_align.trainer.objectives import OBJECTIVES

    assert complete("ce-align train --objective ").split() == list(OBJECTIVES)


def test_backbones_are_those_that_training_builds(complete):
    from ce_align.trainer.networks import BACKBONES

    assert set(complete("ce-align train --backbone ").split()) == set(BACKBONES)


def test_names_of_packages_are_those_that_the_packages_list():
    import torchvision

    expected = set(torchvision.models.list_models(torchvision.models))
    assert set(completion._built("torchvision")) == expected


@pytest.mark.slow
def test_completing_imports_nothing_heavy(tmp_path):
    code = """
import sys
from ce_align.cli.completion import COMPLETIONS
class Context:
    params = {"model": ["ce_mmcr_l0", "torchvision/resnet50"]}
for complete in COMPLETIONS.values():
    complete(Context(), "t")
from ce_align.cli import compare, networks, output, recipes, score, training
print([name for name in ("torch", "pandas", "matplotlib") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
    assert COMPLETIONS
