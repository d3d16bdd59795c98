"""A clock that goes back: nothing is worked at twice, hidden or taken away."""

import json
import os
import time

import pytest
from small_commands import store_scores

from ce_align import files, index
from ce_align.results import ResultStore
from ce_align.sweeps import board as boards
from ce_align.sweeps.board import Board

A_YEAR = 365 * 24 * 3600


@pytest.fixture
def year_before(monkeypatch):
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - A_YEAR)


def test_a_change_is_seen_whatever_its_time(tmp_path, monkeypatch):
    monkeypatch.setattr(index, "FEW", 0)
    store_scores(tmp_path)
    paths = sorted(tmp_path.glob("score/*.json"))
    for path in paths:  # so that they count as settled, and are indexed
        os.utime(path, (time.time() - A_YEAR,) * 2)
    monkeypatch.setattr(index, "SETTLED", -A_YEAR)
    store = ResultStore(tmp_path)
    assert list(store.load("score")["value"]) == [0.3, 0.4]
    document = json.loads(paths[0].read_text())
    document["rows"][0]["value"] = 0.7
    del document["digest"]
    paths[0].write_text(json.dumps(document))
    os.utime(paths[0], (time.time() - 2 * A_YEAR,) * 2)
    assert list(store.load("score")["value"]) == [0.7, 0.4]


def test_what_another_machine_writes_is_left_to_it(tmp_path, monkeypatch, year_before):
    monkeypatch.setattr(files, "_swept", set())
    other = tmp_path / f".rows.{'0' * 8}-1-1-{'0' * 8}.tmp.json"
    other.write_text("half")
    files.sweep(tmp_path)
    assert other.exists()


def test_a_job_that_another_machine_works_at_is_not_begun(
    tmp_path, monkeypatch, year_before
):
    board = Board(ResultStore(tmp_path))
    assert board.claim("job", "here") is not None
    monkeypatch.setattr(boards, "alive", lambda process: None)
    monkeypatch.setattr(Board, "_now", lambda self: time.time())
    assert board.is_claimed("job")
    assert board.claim("job", "there") is None
