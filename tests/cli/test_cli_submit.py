"""Exporting and examining plugins, as a user types it."""

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "brainscore"))
from plugin_standins import own_training


@pytest.fixture
def run(tmp_path) -> Path:
    return own_training(tmp_path / "run")


def test_a_training_is_exported_and_examined(ce_align, run, tmp_path):
    status, out, told = ce_align(
        *("submit", "--model", run, "--out", "mine.zip"),
        *("--weights", "https://lab.org/w/", "--identifier", "my_net"),
    )
    assert (status, out) == (0, "")
    assert "upload mine-weights/my_net.safetensors to https://lab.org/w/my_net" in told
    status, out, told = ce_align(
        *("submit", "--check", "mine.zip", "--no-run", "--json")
    )
    (row,) = json.loads(out)
    assert status == 0
    assert row["plugin"] == "my_net" and row["ours"] and not row["ran"]
    assert row["findings"] == []


def test_faults_end_with_status_2_and_a_table(ce_align, run, tmp_path):
    options = ("--weights", "embed", "--identifier", "my_net")
    ce_align("submit", "--model", run, "--out", "plugins", *options)
    plugin = tmp_path / "plugins" / "my_net"
    (plugin / "test.py").write_text("")
    status, out, told = ce_align("submit", "--check", plugin, "--no-run")
    assert status == 2
    assert "fault" in out and "test.py tests nothing" in out
    assert "1 of 1 plugins have faults" in told
    status, out, _ = ce_align("submit", "--check", plugin, "--no-run", "--json")
    assert status == 2 and json.loads(out)[0]["findings"][0]["check"] == "tests"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name --model and --out and --weights, or --check a plugin"),
        (["--model", "pixels", "--out", "a"], "name --weights"),
        (["--check", "a", "--model", "pixels"], "does not take --model"),
        (["--check", "absent"], "there is no plugin"),
        (["--check", "."], "holds no plugin"),
        (["--run", "--model", "x", "--out", "a", "--weights", "embed"], "belong to"),
        (
            ["--model", "pixels", "--out", "a", "--weights", "embed"],
            "pixels cannot be submitted",
        ),
        (
            ["--model", "x", "--out", "a", "--weights", "embed", "--layer", "IT"],
            "REGION=LAYER",
        ),
        (
            ["--model", "x", "--out", "a", "--weights", "embed", "--bibtex", "no"],
            "cannot be read",
        ),
    ],
)
def test_what_does_not_fit_is_told_in_one_line(ce_align, arguments, told):
    status, out, error = ce_align("submit", *arguments)
    assert (status, out) == (2, "")
    assert told in error and error.count("\n") == 1
