"""Open recordings are brought whole, continued, checked, and used offline."""

import hashlib
from dataclasses import replace

import pytest
from checkpoint_server import CheckpointServer, Mood

from ce_align.brainscore.datasets import DATASETS, StoredFile, fetch, is_cached
from ce_align.errors import AccessError, ConfigError, DataError
from ce_align.models import downloads

CONTENTS = {
    "assy_x.nc": bytes(range(256)) * 800,
    "stimulus_x.csv": b"stimulus_id,filename\n",
    "stimulus_x.zip": b"PK" * 50_000,
}


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "BACKOFF", 0.0)
    monkeypatch.setattr(downloads, "_unreachable", {})
    with_files = CheckpointServer()
    with_files.files = {f"folder/{name}": data for name, data in CONTENTS.items()}
    with_files.files["folder/assy_x.nc?versionId=v1"] = CONTENTS["assy_x.nc"]
    yield with_files
    with_files.close()


@pytest.fixture
def dataset(monkeypatch):
    """`li2026-it`, as if its files were small."""
    stored = tuple(
        StoredFile(
            "folder",
            name,
            hashlib.sha1(data).hexdigest(),
            "v1" if name.endswith(".nc") else "null",
        )
        for name, data in CONTENTS.items()
    )
    small = replace(DATASETS["li2026-it"], stored=stored)
    monkeypatch.setitem(DATASETS, "li2026-it", small)
    return small


def test_files_come_once_to_where_brainscore_looks(server, dataset, brainio):
    told = []
    paths = fetch(
        "li2026-it",
        base=server.base,
        progress=lambda what, done, total: told.append(what),
    )
    for file, path in zip(dataset.stored, paths, strict=True):
        assert path == brainio / file.sha1 / file.name
        assert path.read_bytes() == CONTENTS[file.name]
    assert is_cached(dataset)
    assert set(told) == {f"{name}, MB" for name in CONTENTS}
    assert server.requests[0][0].endswith("assy_x.nc?versionId=v1")
    server.requests.clear()
    assert fetch("li2026-it", base="http://127.0.0.1:9") == paths
    assert server.requests == []


def test_a_cut_transfer_goes_on_where_it_stopped(server, dataset, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 1)
    server.moods = [Mood(cut=70_000)]
    with pytest.raises(AccessError, match="kept for another attempt"):
        fetch("li2026-it", base=server.base)
    assert not is_cached(dataset)
    server.requests.clear()
    fetch("li2026-it", base=server.base)
    assert is_cached(dataset)
    asked = server.requests[0][1]
    assert asked is not None
    assert 0 < int(asked.removeprefix("bytes=").removesuffix("-")) <= 70_000


def test_another_content_is_refused_and_not_kept(server, dataset, brainio):
    server.files["folder/stimulus_x.csv"] = b"stimulus_id,another\n"
    with pytest.raises(DataError, match=r"stimulus_x.csv has SHA-1 .* it was not kept"):
        fetch("li2026-it", base=server.base)
    assert not list(brainio.rglob("*stimulus_x.csv*"))
    assert not is_cached(dataset)


def test_a_damaged_file_that_is_here_is_named_and_stays(server, dataset):
    path = fetch("li2026-it", base=server.base)[1]
    path.write_bytes(b"spoilt")
    with pytest.raises(DataError, match="delete it to fetch it again") as raised:
        fetch("li2026-it", base=server.base)
    assert str(path) in str(raised.value)
    assert path.read_bytes() == b"spoilt"


def test_a_refusal_says_where_else_the_data_are(server, dataset, monkeypatch):
    monkeypatch.setenv("CE_ALIGN_RECORDINGS_URL", server.base)
    server.mood = Mood(status=403)
    with pytest.raises(AccessError) as raised:
        fetch("li2026-it")
    message = str(raised.value)
    assert "\n" not in message
    for part in ("li2026-it is not", "refused: 403", "put the file at", "triplen"):
        assert part in message


def test_private_recordings_have_no_address():
    with pytest.raises(ConfigError, match="sanghavi2020 is private"):
        fetch("sanghavi2020")
