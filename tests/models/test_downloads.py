import errno
import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from checkpoint_server import CheckpointServer, Mood
from waiting import LIMIT, wait_until

from ce_align import files
from ce_align.errors import AccessError, CeAlignError, ConfigError
from ce_align.models import downloads
from ce_align.models.downloads import discard_stale, download

CONTENT = os.urandom(300_000)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(downloads, "BACKOFF", 0.001)
    server = CheckpointServer()
    server.files["file"] = CONTENT
    yield server
    server.close()


@pytest.fixture
def bring(server, tmp_path):
    """Download the file and return its content."""

    def bring(**options):
        target = tmp_path / "folder" / "file"
        return download(f"{server.base}/file", target, **options).read_bytes()

    return bring


def names(tmp_path):
    return sorted(path.name for path in (tmp_path / "folder").iterdir())


def test_file_comes_whole_and_leaves_nothing_beside_it(bring, tmp_path):
    seen = []
    content = bring(what="a", progress=lambda *told: seen.append(told))
    assert content == CONTENT
    assert names(tmp_path) == ["file"]
    assert {what for what, _, _ in seen} == {"a, MB"}


@pytest.mark.parametrize("status", [500, 502, 503, 429, 408])
def test_busy_server_is_asked_again(status, server, bring):
    server.moods = [Mood(status=status), Mood(status=status)]
    assert bring() == CONTENT
    assert len(server.requests) == 3


def test_broken_connection_is_continued_where_it_stopped(server, bring, tmp_path):
    server.moods = [Mood(cut=131_072), Mood(cut=65_536)]
    assert bring() == CONTENT
    ranges = [asked for _, asked in server.requests]
    assert ranges == [None, "bytes=131072-", "bytes=196608-"]
    assert names(tmp_path) == ["file"]


@pytest.mark.slow
def test_server_that_falls_silent_is_asked_again(server, bring, monkeypatch):
    # Long enough for a server that is only kept from answering by other work.
    monkeypatch.setattr(downloads, "STALL_TIMEOUT", 4)
    server.moods = [Mood(cut=65_536, silent=True)]
    assert bring() == CONTENT
    assert server.requests[1][1] == "bytes=65536-"


@pytest.mark.slow
def test_slow_server_is_waited_for(server, bring, monkeypatch):
    monkeypatch.setattr(downloads, "STALL_TIMEOUT", 4)
    # Five pauses: in all they are longer, each alone is far shorter.
    server.moods = [Mood(pause=0.9)]
    assert bring() == CONTENT
    assert len(server.requests) == 1


def test_server_without_ranges_starts_again(server, bring):
    server.ranges = False
    server.moods = [Mood(cut=100_000)]
    assert bring() == CONTENT


def test_file_without_a_version_is_not_continued(server, bring):
    server.tags = False
    server.moods = [Mood(cut=100_000)]
    assert bring() == CONTENT
    assert [asked for _, asked in server.requests] == [None, None]


def test_date_identifies_a_version_where_there_is_no_strong_tag(server, bring):
    date = {"Last-Modified": "Mon, 01 May 2023 10:00:00 GMT", "ETag": 'W/"weak"'}
    server.tags = False
    server.moods = [Mood(cut=131_072, headers=date)]
    server.mood = Mood(headers=date)
    assert bring() == CONTENT
    assert server.requests[1][1] == "bytes=131072-"


@pytest.mark.parametrize("heeds_versions", [True, False])
def test_file_that_changes_in_between_is_never_glued(
    heeds_versions, server, bring, monkeypatch
):
    changed = CONTENT[::-1]
    receive = downloads._receive

    def receive_then_change(*arguments):
        try:
            receive(*arguments)
        finally:
            server.files["file"] = changed

    monkeypatch.setattr(downloads, "_receive", receive_then_change)
    server.heeds_versions = heeds_versions
    server.moods = [Mood(cut=131_072)]
    assert bring() == changed


def test_file_that_became_shorter_is_started_again(server, bring, monkeypatch):
    server.moods = [Mood(cut=100_000)]
    with pytest.raises(AccessError):
        monkeypatch.setattr(downloads, "ATTEMPTS", 1)
        bring()
    monkeypatch.undo()
    server.files["file"] = CONTENT[:50_000]
    assert bring() == CONTENT[:50_000]


def test_always_truncated_file_is_given_up_and_kept_for_later(server, bring, tmp_path):
    server.mood = Mood(cut=0)
    server.moods = [Mood(cut=65_536)]
    with pytest.raises(AccessError) as refusal:
        bring()
    message = str(refusal.value)
    assert f"{server.base}/file: the connection broke (" in message
    assert "5 times in a row" in message
    assert "\n" not in message
    assert names(tmp_path) == [".file.part", ".file.part.json"]
    server.mood = Mood()
    assert bring() == CONTENT
    assert server.requests[-1][1] == "bytes=65536-"


def test_partial_file_of_another_address_is_not_continued(server, tmp_path):
    server.files["other"] = CONTENT[::-1]
    server.moods = [Mood(cut=70_000), Mood(status=404)]
    target = tmp_path / "file"
    with pytest.raises(AccessError):
        download(f"{server.base}/file", target)
    assert download(f"{server.base}/other", target).read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize(
    ("mood", "message"),
    [
        (Mood(status=404), "is not there: 404 Not Found"),
        (Mood(status=410), "is not there: 410"),
        (Mood(status=403), "is refused: 403 Forbidden"),
        (Mood(status=401), "is refused: 401"),
        (Mood(status=418), "is not given: 418"),
        (Mood(headers={"Content-Type": "text/html; charset=utf-8"}), "a web page"),
    ],
)
def test_final_answer_is_one_line_and_not_asked_for_again(
    mood, message, server, bring, tmp_path
):
    server.mood = mood
    with pytest.raises(AccessError) as refusal:
        bring()
    assert message in str(refusal.value)
    assert server.base in str(refusal.value)
    assert len(server.requests) == 1
    assert names(tmp_path) == []


def test_server_that_never_recovers_is_given_up(server, bring, tmp_path):
    server.mood = Mood(status=503)
    with pytest.raises(AccessError, match="answers 503 Service Unavailable, 5 times"):
        bring()
    assert len(server.requests) == 5
    assert names(tmp_path) == []


def test_server_that_asks_for_time_gets_it(server, bring, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    server.moods = [Mood(status=503, headers={"Retry-After": n}) for n in ("7", "999")]
    assert bring() == CONTENT
    assert [wait for wait in waits if wait >= 1] == [7, downloads.LONGEST_WAIT]


def test_file_of_another_size_than_known_is_refused_before_it_comes(
    server, bring, tmp_path
):
    with pytest.raises(AccessError, match="has 300000 bytes; expected 299999"):
        bring(size=299_999)
    assert names(tmp_path) == []


def test_host_that_is_out_of_reach_is_asked_once(server, tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/file"
    for message in ("out of reach: .*[Cc]onnection refused", "as it was a moment ago"):
        with pytest.raises(AccessError, match=message):
            download(url, tmp_path / "file")


def test_unknown_host_is_named(tmp_path, monkeypatch):
    def unknown(*_arguments, **_options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(AccessError, match=r"absent\.example.*service not known"):
        download("https://absent.example/file", tmp_path / "file")


def test_connection_lost_in_the_middle_is_tried_again(server, bring, monkeypatch):
    monkeypatch.setattr(downloads, "ATTEMPTS", 3)
    answer_of = downloads.answer_of
    calls = []

    def lost_once(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise downloads.OutOfReach("no network")
        return answer_of(*arguments)

    monkeypatch.setattr(downloads, "answer_of", lost_once)
    server.moods = [Mood(cut=100_000)]
    assert bring() == CONTENT


@pytest.mark.parametrize("url", ["ftp://host/file", "nonsense", "http://"])
def test_what_is_no_address_is_refused(url, tmp_path):
    with pytest.raises(ConfigError, match="is no address"):
        download(url, tmp_path / "file")


def test_redirection_is_followed_but_not_out_of_https(server, tmp_path):
    place = f"{server.base}/file"
    server.moods = [Mood(status=302, headers={"Location": "/file"})]
    assert download(f"{server.base}/old", tmp_path / "a").read_bytes() == CONTENT
    session, answer = downloads.Session(), downloads.requests.Response()
    answer.status_code, answer.url = 302, "https://secure.example/file"
    answer.headers["location"] = "/elsewhere"
    assert session.get_redirect_target(answer) == "https://secure.example/elsewhere"
    answer.headers["location"] = place
    with pytest.raises(AccessError, match=f"insecure address {place}"):
        session.get_redirect_target(answer)


def test_full_disk_is_foreseen(bring, tmp_path, monkeypatch):
    usage = files.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CeAlignError, match=r"need .* but .* free some"):
        bring()
    assert names(tmp_path) == []


def test_disk_that_fills_up_is_left_as_it_was(bring, tmp_path, monkeypatch):
    def full(*_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(downloads, "_write", full)
    with pytest.raises(CeAlignError, match="No space left on device; free some"):
        bring()
    assert names(tmp_path) == []


@pytest.mark.slow
def test_interrupted_download_is_continued_by_the_next_process(server, tmp_path):
    server.mood = Mood(cut=100_000, silent=True)
    code = (
        "import sys; from pathlib import Path\n"
        "from ce_align.models.downloads import download\n"
        "download(sys.argv[1], Path(sys.argv[2]))"
    )
    target, part = tmp_path / "file", tmp_path / ".file.part"
    command = [sys.executable, "-c", code, f"{server.base}/file", str(target)]
    for already in (0, 1):
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        enough = already * 100_000 + 50_000
        wait_until(lambda n=enough: part.exists() and part.stat().st_size > n, process)
        process.send_signal(signal.SIGINT)
        assert process.wait(LIMIT) != 0
        assert not target.exists()
    server.mood = Mood()
    assert download(f"{server.base}/file", target).read_bytes() == CONTENT
    starts = [int(asked[6:-1]) for _, asked in server.requests[1:]]
    assert 0 < starts[0] < starts[1] < len(CONTENT)


def test_what_was_given_up_long_ago_is_removed(tmp_path):
    old, young, other = (tmp_path / n for n in (".a.part", ".b.part", "c"))
    for path in (old, young, other):
        path.write_bytes(b"x")
    for path in (old, other):
        os.utime(path, (0, 0))
    discard_stale(tmp_path, ".*.part*")
    assert sorted(tmp_path.iterdir()) == [young, other]
