"""The index of a folder of results answers as the files do, whatever happened."""

import hashlib
import logging
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ce_align import index
from ce_align.errors import DataError
from ce_align.files import cache_folder
from ce_align.index import Texts, indexed

DAY = 24 * 3600
TICK = 0.02


@pytest.fixture
def read_names(monkeypatch):
    """Names of the files that are read, in stores of whatever size."""
    monkeypatch.setattr(index, "FEW", 0)
    names = []

    def read(path: Path) -> Texts:
        text = path.read_text()
        names.append(path.name)
        if text == "damaged":
            raise DataError(f"{path} is damaged")
        return Texts("{}", text)

    return SimpleNamespace(names=names, read=read)


def write(path: Path, text: str, age: float = 1.0) -> None:
    """Replace a file by one that was modified some seconds ago."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(".temporary.json")
    temporary.write_text(text)
    then = time.time_ns() - int(age * 1e9)
    os.utime(temporary, ns=(then, then))
    temporary.replace(path)


@pytest.fixture
def later(monkeypatch):
    """Files count as settled at once."""
    monkeypatch.setattr(index, "SETTLED", -DAY)


def answers(root: Path, read, room: str = "toy") -> list[str]:
    return [texts.rest for texts in indexed(root, [room], read)]


def truth(root: Path, room: str = "toy") -> list[str]:
    paths = sorted((root / room).glob("*.json"))
    return [path.read_text() for path in paths if not path.name.startswith(".")]


def database(root: Path) -> Path:
    """Where the index of a folder lies."""
    key = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:20]
    return cache_folder("index") / f"{key}.db"


def test_only_new_and_changed_files_are_read(tmp_path, read_names, later):
    for name in "abc":
        write(tmp_path / "toy" / f"{name}.json", name)
    assert answers(tmp_path, read_names.read) == ["a", "b", "c"]
    write(tmp_path / "toy" / "b.json", "B")
    write(tmp_path / "toy" / "d.json", "d")
    (tmp_path / "toy" / "a.json").unlink()
    read_names.names.clear()
    assert answers(tmp_path, read_names.read) == ["B", "c", "d"]
    assert read_names.names == ["b.json", "d.json"]


def test_rooms_do_not_disturb_one_another(tmp_path, read_names, later):
    for room in ("toy", "toy/failed", "other"):
        write(tmp_path / room / "a.json", room)
    for room in ("toy", "toy/failed", "other", "toy"):
        assert answers(tmp_path, read_names.read, room) == [room]
    assert len(read_names.names) == 3
    both = indexed(tmp_path, ["toy", "other", "toy", "absent"], read_names.read)
    assert [texts.rest for texts in both] == ["other", "toy"]


def test_unfinished_files_are_no_results(tmp_path, read_names):
    write(tmp_path / "toy" / "a.json", "a")
    (tmp_path / "toy" / ".b.0123abcd-1-2-0123abcd.tmp.json").write_text("half of")
    assert answers(tmp_path, read_names.read) == ["a"]


def test_a_file_that_changed_a_moment_ago_is_read_again(tmp_path, read_names):
    path = tmp_path / "toy" / "a.json"
    write(path, "a", age=DAY)  # its inode is new whatever its time of modification
    for _ in range(2):
        assert answers(tmp_path, read_names.read) == ["a"]
    assert read_names.names == ["a.json"] * 2


def test_same_size_and_time_within_a_coarse_tick_is_noticed(
    tmp_path, read_names, monkeypatch
):
    """A file system that tells whole seconds, and gives an inode again at once."""
    path = tmp_path / "toy" / "a.json"
    monkeypatch.setattr(
        index, "_signature", lambda s: f"{s.st_size} {s.st_mtime_ns // 10**9}"
    )
    for text in "abcab":
        write(path, text)
        assert answers(tmp_path, read_names.read) == [text]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: content.replace(b"index 2", b"index 0"),
        lambda content: content.replace(b'"right"', b'"wrong"'),
        lambda content: b"SQLite format 3\0" + content,
    ],
    ids=["empty", "cut", "older", "another value", "foreign"],
)
def test_a_damaged_index_is_made_again(tmp_path, read_names, later, damage):
    write(tmp_path / "toy" / "a.json", '"right"')
    answers(tmp_path, read_names.read)
    sound = database(tmp_path).read_bytes()
    database(tmp_path).write_bytes(damage(sound))
    assert damage(sound) != sound
    for _ in range(2):
        assert answers(tmp_path, read_names.read) == ['"right"']
    assert read_names.names == ["a.json"] * 2


def test_a_damaged_file_is_told_each_time_and_others_are_not_affected(
    tmp_path, read_names, later
):
    write(tmp_path / "toy" / "a.json", "damaged")
    write(tmp_path / "other" / "b.json", "b")
    for _ in range(2):
        with pytest.raises(DataError, match=r"a\.json is damaged"):
            answers(tmp_path, read_names.read)
        assert answers(tmp_path, read_names.read, "other") == ["b"]


def test_without_a_cache_all_files_are_read_and_it_is_said_once(
    tmp_path, read_names, later, monkeypatch, caplog
):
    (tmp_path / "home").write_text("no folder")
    monkeypatch.setenv("CE_ALIGN_HOME", str(tmp_path / "home"))
    write(tmp_path / "toy" / "a.json", "a")
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert answers(tmp_path, read_names.read) == ["a"]
    assert read_names.names == ["a.json"] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"results are read without an index: cannot write {database(tmp_path)}: "
        "Not a directory; free some space or set CE_ALIGN_HOME to another disk"
    ]


def test_several_at_once_answer_rightly_and_leave_a_sound_index(
    tmp_path, read_names, later
):
    names = [f"{i:03}" for i in range(40)]
    for name in names:
        write(tmp_path / "toy" / f"{name}.json", name)
    with ThreadPoolExecutor(8) as pool:
        found = pool.map(lambda _: answers(tmp_path, read_names.read), range(24))
        assert list(found) == [names] * 24
    read_names.names.clear()
    assert answers(tmp_path, read_names.read) == names
    assert not read_names.names


def test_names_need_not_be_text(tmp_path, read_names, later):
    (tmp_path / "toy").mkdir()
    try:
        Path(os.fsdecode(bytes(tmp_path) + b"/toy/\xff.json")).write_text("odd")
    except (OSError, UnicodeError):
        return  # this file system has names of text alone
    for _ in range(2):
        assert answers(tmp_path, read_names.read) == ["odd"]
    assert len(read_names.names) == 1


STEPS = st.one_of(
    st.tuples(st.just("write"), st.sampled_from("ab"), st.sampled_from("xy")),
    st.tuples(st.just("touch"), st.sampled_from("ab"), st.integers(-DAY, DAY)),
    st.tuples(st.just("in place"), st.sampled_from("ab"), st.sampled_from("xy")),
    st.tuples(st.just("delete"), st.sampled_from("ab"), st.none()),
    st.tuples(st.just("wait"), st.none(), st.none()),
    st.tuples(st.just("flip"), st.none(), st.integers(0, 10**6)),
    st.tuples(st.just("forget"), st.none(), st.none()),
)


@pytest.mark.slow
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=st.lists(STEPS, max_size=12))
def test_the_index_never_answers_otherwise_than_the_files(
    tmp_path_factory, read_names, monkeypatch, steps
):
    """Also where times of modification are set back or ahead, as by a clock that was.

    The file system has ticks of 20 ms and gives every inode again; three ticks stand
    for the seconds that it takes to settle.
    """
    monkeypatch.setattr(index, "SETTLED", 3 * TICK)
    monkeypatch.setattr(
        index,
        "_signature",
        lambda s: f"{s.st_size} {s.st_mtime // TICK} {s.st_ctime // TICK}",
    )
    root = tmp_path_factory.mktemp("store")
    index_file = database(root)
    for step, name, value in steps:
        path = root / "toy" / f"{name}.json"
        if step == "write":
            write(path, value, age=0)
        elif step == "in place" and path.exists():
            path.write_text(value)
        elif step == "touch" and path.exists():
            os.utime(path, (0, time.time() + value))
        elif step == "delete":
            path.unlink(missing_ok=True)
        elif step == "flip" and index_file.exists():
            content = bytearray(index_file.read_bytes())
            content[value % len(content)] ^= 1
            index_file.write_bytes(content)
        elif step == "wait":
            time.sleep(4 * TICK)
        elif step == "forget":
            index_file.unlink(missing_ok=True)
        assert answers(root, read_names.read) == truth(root)
