"""Commands that meet Brain-Score: official numbers, doctor, register."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ce_align.brainscore import entries
from ce_align.brainscore.datasets import DATASETS
from ce_align.cli.flags import Session
from ce_align.data.imagesets import ImageSet
from ce_align.data.named import RECORDINGS
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.stages.running import Outcome

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]


def write_toy(path: Path, n_repetitions: int = 6) -> None:
    """Responses to colour, on images that fill less than a network's screen."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 216, size=(60, 3))
    noise = rng.integers(-40, 40, size=(60, 9, 11, 3))
    array = (colours[:, None, None] + noise).astype(np.uint8)
    signal = colours / 50 @ rng.normal(size=(3, 4))
    responses = signal[:, None] + rng.normal(size=(60, n_repetitions, 4))
    images = ImageSet.from_array("toy", array)
    write_recording(
        Recording("toy", images, responses, tuple("abcd"), "IT", degrees=5.0), path
    )


@pytest.fixture
def files(tmp_path):
    """A recording in the current folder of the command."""
    write_toy(tmp_path / "toy.nc")
    return ("--model", "pixels", "--recording", "toy.nc")


def test_command_prints_both_numbers_and_their_difference(ce_align, files):
    status, out, err = ce_align("score", *files, "--compare-official")
    assert (status, "error" in err) == (0, False)
    paths = {"ce-align", "Brain-Score", "difference"}
    lines = [line.split() for line in out.splitlines() if paths & set(line.split())]
    by_path = {cells[-5]: list(map(float, cells[-4:])) for cells in lines}
    assert by_path.keys() == paths
    np.testing.assert_allclose(by_path["difference"], 0, atol=1e-6)
    assert by_path["ce-align"][0] > 0
    # The rows of both are there now, and are answered from there.
    status, out, err = ce_align("score", *files, "--official", "--json")
    (row,) = json.loads(out)
    assert row["metric"] == "brainscore"
    assert row["benchmark"] == "toy.IT-pls"
    assert "1 of 1 were in results already" in err
    assert (
        "toy.IT-pls of brainscore-vision" in ce_align("score", *files, "--official")[1]
    )


def test_settings_that_brainscores_benchmark_does_not_take_are_refused(ce_align, files):
    for option in (("--regression", "ridge"), ("--seed", 3), ("--splits", 2)):
        status, out, err = ce_align("score", *files, "--official", *option)
        assert (status, out) == (2, "")
        assert f"leave out {option[0]}" in err


def test_unknown_or_behavioural_benchmarks_are_one_line(ce_align, files):
    for name, expected in {
        "MajajHong2015.V4-psl": "nearest: MajajHong2015.V4-pls",
        "Geirhos2021colour-error_consistencyy": "Geirhos2021colour-error_consistency",
    }.items():
        status, out, err = ce_align(
            *("score", "--model", "pixels", "--recording", f"brainscore/{name}")
        )
        assert (status, out) == (2, "")
        assert expected in err
        assert err.count("error:") == 1


def no_network(*_args, **_kwargs):
    raise OSError("no network in this test")


@pytest.fixture
def offline(monkeypatch):
    """No network, and no wait for credentials that a cloud would have."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(Path.cwd() / "home"))
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    monkeypatch.setattr("socket.socket.connect", no_network)
    monkeypatch.setattr("socket.create_connection", no_network)
    monkeypatch.setattr("socket.getaddrinfo", no_network)


def test_doctor_without_a_network_says_what_is_out_of_reach_and_is_content(
    ce_align, offline, tmp_path
):
    before = sorted(tmp_path.rglob("*"))
    status, out, _ = ce_align("doctor", "--json", "--timeout", "0.2")
    assert status == 0
    found = {finding["check"]: finding for finding in json.loads(out)}
    for check in ("versions", "Brain-Score", "folder CE_ALIGN_HOME"):
        assert found[check]["state"] == "ok"
    for check in (
        *("AWS credentials", "host of the published networks"),
        *("recording majajhong2015", "recording majajhong2015-public"),
    ):
        assert found[check]["state"] == "warn"
        assert found[check]["remedy"]
    assert "cannot be reached" in found["recording sanghavi2020"]["found"]
    assert sorted(tmp_path.rglob("*")) == before


def test_doctor_says_once_what_is_the_same_of_many_recordings(
    ce_align, offline, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "2000")
    _, out, _ = ce_align("doctor", "--timeout", "0.2")
    (line,) = (line for line in out.splitlines() if "storage cannot be reached" in line)
    assert line.startswith(f"{len(DATASETS)} recordings")
    assert all(name in line for name in DATASETS)


def test_score_takes_those_of_the_papers_sets_that_are_at_hand(
    ce_align, offline, monkeypatch
):
    status, out, err = ce_align("score", "--model", "pixels")
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert "sanghavimurty2020" in line  # what is private, what is open, what is neither
    assert "majajhong2015-public" in line
    assert "or simulated" in line
    assert not Path("results").exists()
    here = replace(
        RECORDINGS["simulated"],
        name="majajhong2015",
        access="cached",
        groups=("it",),
    )
    monkeypatch.setattr(
        "ce_align.brainscore.entries", lambda: entries() | {here.name: here}
    )
    run = []
    monkeypatch.setattr(Session, "run", lambda _, asked: run.extend(asked) or Outcome())
    status, _, err = ce_align("score", "--model", "pixels")
    assert status == 0, err
    assert [config.recording for config in run] == ["majajhong2015"]
    assert "left out of the paper's four IT sets" in err


def test_doctor_fails_where_nothing_can_be_kept(
    ce_align, offline, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CE_ALIGN_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setenv("COLUMNS", "400")
    status, out, err = ce_align("doctor", "--timeout", "0.2")
    assert status == 1
    assert "set CE_ALIGN_HOME to a folder that can be written to" in out
    assert "1 of" in err


def test_doctor_finds_versions_that_do_not_fit(ce_align, offline, monkeypatch):
    from importlib import metadata

    genuine = metadata.version
    monkeypatch.setattr(
        metadata, "version", lambda n: "2.4.0" if n == "numpy" else genuine(n)
    )
    status, out, _ = ce_align("doctor", "--json", "--timeout", "0.2")
    (versions,) = (f for f in json.loads(out) if f["check"] == "versions")
    assert status == 1
    assert versions["state"] == "fail"
    assert "brainscore-vision needs numpy<2" in versions["found"]


def test_register_shows_identifiers_that_end_in_the_digest(ce_align):
    from brainscore_vision import model_registry

    from ce_align.models.architectures import gabor

    status, out, _ = ce_align("register", "gabor", "--json")
    assert status == 0
    (entry,) = json.loads(out)
    assert entry == {"name": "gabor", "identifier": f"gabor-{gabor().digest}"}
    assert model_registry[entry["identifier"]]().identifier == entry["identifier"]


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Sizes and times of all files that are not compiled Python."""
    return {
        str(path): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_an_official_score_installs_nothing_and_writes_only_into_our_cache(tmp_path):
    """In a process of its own, with the settings of a user who has set none."""
    import brainscore_core
    import brainscore_vision

    installed = [
        Path(package.__file__).parent
        for package in (brainscore_core, brainscore_vision)
    ]
    before = [snapshot(folder) for folder in installed]
    beside = sorted(installed[0].parent.iterdir())
    home, tools = tmp_path / "home", tmp_path / "tools"
    home.mkdir()
    tools.mkdir()
    for name in ("pip", "pip3", "conda"):
        (tools / name).write_text(f"#!/bin/sh\necho called > {tmp_path}/called\n")
        (tools / name).chmod(0o755)
    write_toy(tmp_path / "toy.nc")
    kept = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "LANG", "SYSTEMROOT")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"}
    options = ("--model", "pixels", "--recording", "toy.nc", "--official", "--json")
    done = subprocess.run(
        [sys.executable, "-m", "ce_align", "score", *options],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)[0]["metric"] == "brainscore"
    assert [snapshot(folder) for folder in installed] == before
    assert sorted(installed[0].parent.iterdir()) == beside
    assert not (tmp_path / "called").exists()
    written = {path.relative_to(home).parts[:2] for path in snapshot_paths(home)}
    assert written <= {(".cache", "ce_align"), (".cache", "matplotlib")}


def snapshot_paths(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]
