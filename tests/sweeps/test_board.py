"""The board: one worker a job, whoever dies, and how jobs stand."""

import json
import os
import secrets
import threading

import pytest

from ce_align.errors import ConfigError, DataError
from ce_align.files import this_process
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig
from ce_align.sweeps import board as boards
from ce_align.sweeps.board import Board, Sweep
from ce_align.sweeps.jobs import Job
from ce_align.sweeps.states import states
from ce_align.sweeps.worker import parts_of

GONE = "0" * 8 + "-1-1"


@pytest.fixture
def board(tmp_path):
    return Board(ResultStore(tmp_path))


def job(name, *needs, follows=()):
    config = ScoreConfig(model=name, recording="simulated")
    return Job(name, f"score {name}", "score", (config,), needs, follows)


def claims(board, n, name="a"):
    """What many who begin at once are given."""
    found, ready = [], threading.Barrier(n)

    def begin():
        ready.wait()
        found.append(board.claim(name, "worker"))

    threads = [threading.Thread(target=begin) for _ in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [claim for claim in found if claim is not None]


def abandon(board, process, name="a"):
    path = board.folder / "claims" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"process": process, "token": secrets.token_hex(4)}))
    return path


def test_of_many_who_begin_at_once_one_works(board):
    (claim,) = claims(board, 8)
    with claim:
        assert board.is_claimed("a")
        assert board.claim("a", "another") is None
    assert not board.is_claimed("a")
    assert board.claim("a", "another") is not None


def test_who_was_killed_is_succeeded_by_one(board):
    machine, pid, start = this_process().split("-")
    for _ in range(20):
        # The same number of a process, begun at another time.
        abandon(board, f"{machine}-{pid}-{int(start) - 1}")
        found = claims(board, 4)
        assert len(found) == 1
        with found[0]:
            assert board.claim("a", "another") is None


def test_another_machine_is_trusted_as_long_as_it_beats(board, monkeypatch):
    path = abandon(board, GONE)
    assert board.is_claimed("a")
    assert board.claim("a", "worker") is None
    before = path.stat().st_mtime - boards.PATIENCE - 1
    os.utime(path, (before, before))
    assert not board.is_claimed("a")
    with board.claim("a", "worker") as claim:
        assert claim.beat.tries == 1


def test_a_worker_tells_what_it_does_and_counts_its_tries(board, monkeypatch):
    monkeypatch.setattr(boards, "INTERVAL", 0.01)
    for tries in (1, 2):
        with board.claim("a", "job 7 on n1") as claim:
            claim.progress("images", 3, 12)
            while not (beat := board.beats().get("a")) or not beat.what:
                pass
            assert (beat.what, beat.done, beat.total) == ("images", 3, 12)
            assert (beat.worker, beat.tries) == ("job 7 on n1", tries)
    assert board.beats() == {}


def test_a_sweep_is_read_as_it_was_written_whole_or_one_job_of_it(board):
    jobs = (job("pixels"), job("gabor", "pixels"))
    sweep = Sweep("s", "plan.yaml", "/somewhere", {"labels": {"a": "A"}}, jobs)
    board.write_sweep(sweep)
    assert board.read_sweep() == sweep == board.read_sweep("s")
    one = board.read_sweep("s", only="gabor")
    assert [len(each.configs) for each in one.jobs] == [0, 1]
    assert one.jobs[1] == jobs[1]


def test_no_sweep_and_a_damaged_one_are_told_apart(board):
    with pytest.raises(ConfigError, match="start one: ce-align sweep PLAN"):
        board.read_sweep()
    path = board.folder / "plans" / "s.json"
    path.parent.mkdir(parents=True)
    for text in ("", "[]", '{"jobs": 3}', '{"jobs": [{"configs": []}]}'):
        path.write_text(text)
        with pytest.raises(DataError, match="no plan of a sweep"):
            board.read_sweep()


def test_how_jobs_stand(board):
    jobs = [
        *(job("done"), job("failed"), job("needy", "failed"), job("queued")),
        *(job("lost"), job("running"), job("never"), job("after", follows=("failed",))),
        job("broken"),
    ]
    board.end("done")
    board.end("failed", "there is no network", tries=2)
    board.submit("queued", "7_1")
    board.submit("lost", "8")
    board.submit("broken", "9")
    board.cluster_log("9").parent.mkdir()
    board.cluster_log("9").write_text(
        "Traceback (most recent call last):\n  from a import b\nImportError: no a\n"
        "srun: error: n1: task 0: Exited with exit code 1\n"
    )
    with board.claim("running", "here"):
        found = {
            one.job.id: one for one in states(jobs, board, {"done"}, {"7_1": "PENDING"})
        }
    assert {name: one.state for name, one in found.items()} == {
        "done": "done",
        "failed": "failed",
        "needy": "failed",
        "queued": "waiting",
        "lost": "failed",
        "running": "running",
        "never": "never",
        "after": "never",
        "broken": "failed",
    }
    assert found["failed"].tries == 2
    assert found["needy"].reason == (
        "needs score failed, which failed: there is no network"
    )
    assert found["lost"].reason == "job 8 ended without a word, as if it was killed"
    assert found["broken"].reason == "job 9 could not begin: ImportError: no a"


def test_what_killed_a_process_keeps_no_other_from_being_computed(board):
    configs = tuple(
        ScoreConfig(model=name, recording="simulated") for name in ("a", "b", "c")
    )
    packed = Job("p", "score a and 2 more", "score", configs)
    assert list(parts_of(board, packed, 1)) == [configs]
    done = []
    for tries in (2, 3):
        for part in parts_of(board, packed, tries):
            (config,) = part
            if config.model == "b":  # the process is killed
                break
            done.append(config.model)
    assert done == ["a", "a", "c"]
    board.end("p", "its process was ended by SIGKILL")
    assert board.begun("p") == []


def test_a_job_that_ends_otherwise_is_no_longer_what_it_was(board):
    board.end("a", "a reason", rows=[["score", "x"]])
    assert (list(board.failed()), board.done()) == (["a"], set())
    board.end("a", rows=[["score", "y"]])
    assert (list(board.failed()), board.done()) == ([], {"a"})
    assert list(board.rows(["a", "b"])) == [("score", "y")]
    board.forget(["a"])
    assert board.done() == set()
