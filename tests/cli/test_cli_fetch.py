import hashlib
import signal
from dataclasses import replace

import pytest
from checkpoint_server import (
    CheckpointServer,
    Mood,
    small,
    small_network,
    write_authors_checkpoint,
)
from waiting import wait_until

from ce_align.files import cache_folder
from ce_align.models import downloads, fetching
from ce_align.models.catalogue import PUBLISHED

NAME = "ce_mmcr_l0.1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("authors") / "ep100-ba62500-rank0"
    return write_authors_checkpoint(path, small_network())


@pytest.fixture
def server(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "BACKOFF", 0.001)
    monkeypatch.setattr(fetching, "PACKAGED", tmp_path / "checksums.toml")
    server = CheckpointServer()
    for name in (NAME, "ce_mmcr_l0.2"):
        monkeypatch.setitem(PUBLISHED, name, small(name))
        server.files[PUBLISHED[name].path] = checkpoint
    yield server
    server.close()


def test_fetch_takes_names_aliases_and_globs_from_a_mirror(server, ce_align):
    status, out, err = ce_align(
        "fetch", "CE-MMCR_lmda_01", "ce_mmcr_l0.[12]", "--url", server.base, "--pin"
    )
    assert status == 0, err
    assert out == ""
    assert len(server.requests) == 2
    pins = cache_folder("checkpoints") / "checksums.toml"
    assert f"pinned {NAME}, ce_mmcr_l0.2 in {pins}" in err
    assert f'["{NAME}"]' in pins.read_text()
    assert not list(cache_folder("checkpoints").glob("*.pt"))
    status, out, err = ce_align("models", "ce_mmcr_*")
    cached = [line.split()[-1] for line in out.splitlines() if "CE-MMCR" in line]
    assert cached == ["no", "no", "yes", "yes", "no", "no", "no"]


def test_open_recordings_come_by_name_and_group(server, ce_align, monkeypatch):
    from ce_align.brainscore.datasets import DATASETS, StoredFile

    content = b"responses"
    file = StoredFile("folder", "a.nc", hashlib.sha1(content).hexdigest())
    server.files["folder/a.nc"] = content
    for name in ("li2026-v1", "li2026-it"):
        small_set = replace(DATASETS[name], stored=(file,))
        monkeypatch.setitem(DATASETS, name, small_set)
    for name in ("li2026-v2", "li2026-v4"):
        monkeypatch.delitem(DATASETS, name)
    monkeypatch.setattr("ce_align.data.named.RECORDINGS", {})
    status, _, err = ce_align("fetch", "li2026", "--url", server.base)
    assert status == 0, err
    told = [line for line in err.splitlines() if "of the SHA-1" in line]
    assert [line.partition(":")[0] for line in told] == ["li2026-v1", "li2026-it"]
    assert len(server.requests) == 1  # both are in one file
    _, out, _ = ce_align("recordings")
    assert "cached" in next(line for line in out.splitlines() if "li2026-it" in line)
    assert "doi:10.1038/s41593-026-02322-z" in "".join(out.split())
    status, _, err = ce_align("fetch", "li2026-it", NAME, "--url", server.base)
    assert status == 2
    assert "fetch recordings by themselves" in err


def test_what_cannot_be_fetched_does_not_stop_the_rest(server, ce_align):
    del server.files[PUBLISHED[NAME].path]
    status, _, err = ce_align("fetch", "ce_mmcr_l0.[12]", "--url", server.base)
    assert status == 1
    faults = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(faults) == 1
    assert "404 Not Found" in faults[0]
    assert (cache_folder("checkpoints") / "ce_mmcr_l0.2.safetensors").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pixels"], "pixels is not a published network"),
        (["ce_mmcr_l0.6"], "nearest: ce_mmcr_l0.5"),
        (["paper", "--url", "/mnt/mirror"], "begins with https://"),
        (["xyz"], "no network is called 'xyz'; `ce-align models` lists all"),
    ],
)
def test_fault_of_a_name_or_address_is_one_line(arguments, message, ce_align):
    status, _, err = ce_align("fetch", *arguments)
    assert status == 2
    assert message in err
    assert err.count("\n") == 1


def test_file_that_is_no_checkpoint_is_one_line(server, ce_align):
    server.files[PUBLISHED[NAME].path] = b"nothing of use"
    status, _, err = ce_align("fetch", NAME, "--url", server.base)
    assert status == 2
    assert "is not a file of torch.save" in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_interrupted_command_is_continued_by_the_same_command(server, ce_align, python):
    half = len(server.files[PUBLISHED[NAME].path]) // 2
    server.mood = Mood(cut=half, silent=True)
    process = python("-m", "ce_align", "fetch", NAME, "--url", server.base)
    parts = cache_folder("checkpoints")
    wait_until(lambda: any(p.stat().st_size for p in parts.glob(".*.part")), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    said = f"interrupted: what came of {NAME} is kept; the same command continues it\n"
    assert err == said
    server.mood = Mood()
    status, _, err = ce_align("fetch", NAME, "--url", server.base)
    assert status == 0, err
    assert int(server.requests[1][1][6:-1]) > 0


def test_scoring_an_absent_network_offline_is_one_line(ce_align, monkeypatch):
    # A test before this one may have asked the same address in vain.
    monkeypatch.setattr(downloads, "_unreachable", {})
    monkeypatch.setenv("CE_ALIGN_CHECKPOINTS_URL", "http://127.0.0.1:9")
    status, _, err = ce_align("score", "-m", NAME, "-r", "simulated")
    assert status == 1
    faults = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(faults) == 1
    assert f"{NAME} is not on this machine" in faults[0]
    assert "Connection refused" in faults[0]
