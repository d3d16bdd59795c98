import json
import os
import tomllib
from pathlib import Path

import pytest
import torch
from checkpoint_server import (
    CheckpointServer,
    Mood,
    authors_state,
    small,
    small_network,
    write_authors_checkpoint,
)
from waiting import wait_until

from ce_align.errors import AccessError, CeAlignError, ConfigError, DataError
from ce_align.files import cache_folder
from ce_align.models import downloads, fetching, load
from ce_align.models.architectures import build_architecture
from ce_align.models.catalogue import PUBLISHED, is_cached
from ce_align.models.checkpoints import read_checkpoint
from ce_align.models.fetching import fetch, file_checksum, pin, pinned, read_record
from ce_align.models.load import load_network

NAME = "ce_mmcr_l0.1"
ENTRY = small(NAME)


@pytest.fixture(scope="module")
def network():
    return small_network()


@pytest.fixture(scope="module")
def checkpoint(network, tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("authors") / "ep100-ba62500-rank0"
    return write_authors_checkpoint(path, network)


@pytest.fixture
def server(checkpoint, monkeypatch, tmp_path):
    monkeypatch.setattr(downloads, "BACKOFF", 0.001)
    monkeypatch.setattr(fetching, "PACKAGED", tmp_path / "checksums.toml")
    server = CheckpointServer()
    monkeypatch.setenv("CE_ALIGN_CHECKPOINTS_URL", server.base)
    server.files[ENTRY.path] = checkpoint
    yield server
    server.close()


def folder() -> Path:
    return cache_folder("checkpoints")


def visible() -> list[str]:
    return sorted(path.name for path in folder().glob("[!.]*"))


def hidden() -> list[str]:
    return sorted(p.name for p in folder().glob(".*") if p.suffix != ".lock")


def place(content: bytes) -> Path:
    path = folder() / f"{NAME}.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_fetched_weights_are_the_network_and_say_where_they_are_from(
    server, network, checkpoint
):
    path = fetch(ENTRY)
    assert visible() == [f"{NAME}.json", f"{NAME}.safetensors"]
    assert hidden() == []
    found = read_checkpoint(path)
    rebuilt = build_architecture(ENTRY.architecture, found.state, "fetched")
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network(images))
    record = read_record(NAME)
    assert found.metadata["source_sha256"] == record.source.sha256
    assert found.metadata["source"] == "MMCR/lmda_0.1/ep100-ba62500-rank0"
    assert found.metadata["name"] == NAME
    assert found.metadata["input_size"] == 224
    assert record.source.size == len(checkpoint)
    assert record.origin == f"{server.base}/{ENTRY.path}"
    assert record.weights == file_checksum(path)


def test_weights_that_are_here_are_not_asked_for_again(server):
    assert fetch(ENTRY) == fetch(ENTRY)
    assert len(server.requests) == 1


def test_equal_checkpoints_give_equal_files_everywhere(server, monkeypatch, tmp_path):
    first = fetch(ENTRY).read_bytes()
    monkeypatch.setenv("CE_ALIGN_HOME", str(tmp_path / "elsewhere"))
    assert fetch(ENTRY).read_bytes() == first


def test_kept_file_is_that_of_the_authors(server, checkpoint):
    fetch(ENTRY, keep=True)
    assert (folder() / f"{NAME}.pt").read_bytes() == checkpoint
    fetch(ENTRY)
    assert len(server.requests) == 1


def test_file_that_should_be_kept_comes_again_if_only_weights_are_here(server):
    fetch(ENTRY)
    fetch(ENTRY, keep=True)
    assert visible() == [f"{NAME}.{kind}" for kind in ("json", "pt", "safetensors")]


def test_file_placed_by_hand_needs_no_network_and_stays(server, checkpoint):
    path = place(checkpoint)
    assert is_cached(PUBLISHED[NAME])
    fetch(ENTRY)
    assert server.requests == []
    assert path.read_bytes() == checkpoint
    assert read_record(NAME).origin == str(path)


@pytest.mark.slow
def test_another_file_placed_by_hand_is_not_passed_over(server, checkpoint, tmp_path):
    place(checkpoint)
    fetch(ENTRY)
    other = write_authors_checkpoint(tmp_path / "other", small_network(4))
    place(other)
    with pytest.raises(DataError, match=r"as first seen .*; to accept .* delete"):
        fetch(ENTRY)
    (folder() / f"{NAME}.json").unlink()
    (folder() / f"{NAME}.safetensors").unlink()
    fetch(ENTRY)
    assert read_record(NAME).source.size == len(other)


def test_touched_file_placed_by_hand_is_the_same(server, checkpoint):
    path = place(checkpoint)
    fetch(ENTRY)
    os.utime(path, (0, 0))
    fetch(ENTRY)


def test_weights_placed_by_hand_are_trusted_once_and_held_to_it(server):
    target = fetch(ENTRY)
    (folder() / f"{NAME}.json").unlink()
    assert fetch(ENTRY) == target
    assert read_record(NAME).source is None
    content = bytearray(target.read_bytes())
    content[-1] ^= 1
    target.write_bytes(content)
    with pytest.raises(DataError, match="delete it to fetch it again"):
        fetch(ENTRY)


def test_a_single_flipped_bit_of_the_weights_is_noticed_at_the_next_use(server):
    path = fetch(ENTRY)
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(DataError) as refusal:
        fetch(ENTRY)
    message = str(refusal.value)
    assert f"expected {len(content)} bytes, SHA-256" in message
    assert str(folder() / f"{NAME}.json") in message
    assert "\n" not in message


@pytest.mark.slow
def test_content_that_changed_on_the_server_is_refused(server, tmp_path):
    fetch(ENTRY).unlink()
    changed = write_authors_checkpoint(tmp_path / "other", small_network(4))
    server.files[ENTRY.path] = changed
    with pytest.raises(DataError, match="first seen") as refusal:
        fetch(ENTRY)
    assert f"{server.base}/{ENTRY.path} has" in str(refusal.value)
    assert visible() == [f"{NAME}.json"]
    assert hidden() == []


def test_pin_is_written_once_and_held(server, checkpoint, tmp_path):
    fetch(ENTRY)
    fetching.PACKAGED.write_text("# what is pinned\n")
    path = pin({NAME: read_record(NAME).source})
    assert path == fetching.PACKAGED
    pin({"ce_barlow_l0": read_record(NAME).weights})
    assert path.read_text().startswith("# what is pinned\n")
    pins = tomllib.loads(path.read_text())
    assert list(pins) == ["ce_barlow_l0", NAME]
    assert pins[NAME]["size"] == len(checkpoint)
    for name in visible():
        (folder() / name).unlink()
    fetch(ENTRY)
    for name in visible():
        (folder() / name).unlink()
    flipped = bytearray(checkpoint)
    flipped[1000] ^= 1
    server.files[ENTRY.path] = bytes(flipped)
    with pytest.raises(DataError, match=f"as pinned in {path}"):
        fetch(ENTRY)
    assert visible() == hidden() == []
    server.files[ENTRY.path] = checkpoint + b"more"
    with pytest.raises(AccessError, match=f"expected {len(checkpoint)}"):
        fetch(ENTRY)


def test_pin_that_comes_later_holds_for_weights_that_are_here(server):
    fetch(ENTRY)
    fetching.PACKAGED.touch()
    pin({NAME: fetching.Checksum(size=3, sha256="0" * 64)})
    with pytest.raises(DataError, match="as pinned in"):
        fetch(ENTRY)


def test_installed_package_is_not_written_to(monkeypatch, tmp_path):
    packaged = tmp_path / "site-packages" / "checksums.toml"
    packaged.parent.mkdir()
    packaged.write_text("# packaged\n")
    monkeypatch.setattr(fetching, "PACKAGED", packaged)
    entry = fetching.Checksum(size=3, sha256="a" * 64)
    path = pin({NAME: entry})
    assert path == folder() / "checksums.toml"
    assert packaged.read_text() == "# packaged\n"
    assert pinned(NAME) == (entry, path)


@pytest.mark.parametrize(
    "text", ["[x", "x = 3", '["a"]\nsize = 1', '["a"]\nsize = 1\nsha256 = "short"']
)
def test_damaged_list_of_pins_is_named(text, monkeypatch, tmp_path):
    path = tmp_path / "checksums.toml"
    path.write_text(text)
    monkeypatch.setattr(fetching, "PACKAGED", path)
    with pytest.raises(DataError) as refusal:
        pinned(NAME)
    assert f"{path} is no list of checksums" in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.slow
@pytest.mark.parametrize("text", ["", "{", "[]", '{"weights": 3}', "[" * 100_000])
def test_damaged_record_is_named(text, server):
    fetch(ENTRY)
    (folder() / f"{NAME}.json").write_text(text)
    with pytest.raises(DataError, match="is no record of a download; delete it"):
        fetch(ENTRY)


def test_pins_of_the_package_are_a_valid_list():
    assert fetching._read_pins(fetching.PACKAGED).keys() <= PUBLISHED.keys()
    assert fetching.PACKAGED.is_file()


def without_layer(state):
    return {k: v for k, v in state.items() if k != "module.f.conv5.0.weight"}


def with_another(state):
    return {**state, "module.f.extra.weight": torch.ones(1)}


def reshaped(state):
    return {**state, "module.f.conv1.0.weight": torch.ones(24, 3, 5, 5)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without_layer, r"1 missing \(conv5\.0\.weight\)"),
        (with_another, r"1 left over \(extra\.weight\)"),
        (reshaped, r"1 of another shape"),
        (lambda state: {}, "holds no weights"),
    ],
)
def test_checkpoint_of_another_network_is_refused(
    change, message, server, network, tmp_path
):
    path = tmp_path / "other"
    torch.save({"state": {"model": change(authors_state(network))}}, path)
    server.files[ENTRY.path] = path.read_bytes()
    with pytest.raises(DataError, match=message) as refusal:
        fetch(ENTRY)
    assert f"{server.base}/{ENTRY.path}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert visible() == hidden() == []


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>not found</html>", os.urandom(9999), b"PK\x03\x04" + bytes(99)],
)
def test_what_is_no_checkpoint_is_refused_and_removed(content, server):
    server.files[ENTRY.path] = content
    with pytest.raises(DataError) as refusal:
        fetch(ENTRY)
    assert f"{NAME}: {server.base}/{ENTRY.path}" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert visible() == hidden() == []


def test_checkpoint_cut_short_by_whoever_copied_it_is_refused(server, checkpoint):
    server.files[ENTRY.path] = checkpoint[: len(checkpoint) // 2]
    with pytest.raises(DataError):
        fetch(ENTRY)
    assert visible() == hidden() == []


def test_absent_checkpoint_says_where_to_put_it(server):
    server.files.clear()
    with pytest.raises(AccessError) as refusal:
        fetch(ENTRY)
    message = str(refusal.value)
    for part in ("404", str(folder() / f"{NAME}.pt"), "--url", ENTRY.path):
        assert part in message
    assert hidden() == []


def test_address_of_a_mirror_goes_before_that_of_the_environment(server, monkeypatch):
    monkeypatch.setenv("CE_ALIGN_CHECKPOINTS_URL", "http://127.0.0.1:9/none")
    fetch(ENTRY, base=f"{server.base}/")
    with pytest.raises(ConfigError, match="begins with https://, found '/mnt/mirror'"):
        ENTRY.address("/mnt/mirror")


def test_full_disk_during_conversion_keeps_what_came_for_the_next_time(
    server, monkeypatch
):
    def full(*_arguments):
        raise CeAlignError("cannot write: No space left on device")

    convert = fetching.convert
    monkeypatch.setattr(fetching, "convert", full)
    with pytest.raises(CeAlignError, match="No space left"):
        fetch(ENTRY)
    assert visible() == []
    monkeypatch.setattr(fetching, "convert", convert)
    fetch(ENTRY)
    assert len(server.requests) == 1
    assert hidden() == []


def test_interruption_during_conversion_is_not_half_written(server, monkeypatch):
    def interrupted(*_arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(fetching, "write_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            fetch(ENTRY)
    assert visible() == []
    fetch(ENTRY)
    assert len(server.requests) == 1
    assert visible() == [f"{NAME}.json", f"{NAME}.safetensors"]


def test_folder_that_cannot_be_written_is_one_line(server, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("CE_ALIGN_HOME", str(tmp_path / "file"))
    with pytest.raises(CeAlignError, match="CE_ALIGN_HOME to another folder"):
        fetch(ENTRY)


FETCH = """
import sys, time
from dataclasses import replace
from pathlib import Path
from ce_align.models.catalogue import PUBLISHED
from ce_align.models.fetching import fetch
number, name, architecture, layer = sys.argv[1:]
entry = replace(PUBLISHED[name], architecture=architecture, layers={"IT": layer})
Path(f"ready {number}").touch()
while not Path("go").exists():
    time.sleep(0.001)
print(fetch(entry))
"""


@pytest.mark.slow
def test_two_processes_at_once_download_once(server, python, tmp_path):
    server.mood = Mood(pause=0.02)
    described = (NAME, ENTRY.architecture, ENTRY.layers["IT"])
    processes = [python("-c", FETCH, i, *described, cwd=tmp_path) for i in range(2)]
    for i, process in enumerate(processes):
        wait_until((tmp_path / f"ready {i}").exists, process)
    (tmp_path / "go").touch()
    found = [process.communicate()[0].strip() for process in processes]
    assert found == [str(folder() / f"{NAME}.safetensors")] * 2
    assert len(server.requests) == 1


def test_published_name_and_its_brainscore_identifier_load_what_was_fetched(
    server, network, monkeypatch
):
    monkeypatch.setattr(load, "find_published", lambda name: small(NAME))
    seen = []
    loaded = load_network("CE-MMCR_lmda_01", progress=lambda *told: seen.append(told))
    again = load_network(NAME)
    assert loaded.name == NAME
    assert loaded.digest == again.digest
    assert torch.equal(loaded.module.fc.bias, network.fc.bias)
    assert {what for what, *_ in seen} >= {f"{NAME}, MB"}
    assert len(server.requests) == 1


def test_record_is_plain_json(server):
    fetch(ENTRY)
    content = json.loads((folder() / f"{NAME}.json").read_text())
    assert set(content) == {"weights", "source", "origin", "kept", "seen"}
