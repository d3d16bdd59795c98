import os
import shutil
import signal
import subprocess
import sys
import time
from importlib import metadata

import numpy as np
import pytest

from ce_align import files
from ce_align.errors import CeAlignError
from ce_align.files import (
    atomic_folder,
    atomic_path,
    cache_folder,
    check_space,
    import_xarray,
    scratch_folder,
    sweep,
)


@pytest.fixture(autouse=True)
def fresh_process(monkeypatch):
    """As at the start of a process, which has swept nothing."""
    monkeypatch.setattr(files, "_swept", set())


def names_in(folder):
    return [path.name for path in folder.iterdir()]


def test_a_written_file_replaces_the_old_one(tmp_path):
    path = tmp_path / "deep" / "row.json"
    for text in ("old", "new"):
        with atomic_path(path) as temporary:
            temporary.write_text(text)
    assert path.read_text() == "new"
    assert names_in(path.parent) == ["row.json"]


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_fault_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "row.json"
    path.write_text("old")
    with pytest.raises(fault), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise fault
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["row.json"]


def test_a_full_disk_is_one_clear_line(tmp_path):
    with (
        pytest.raises(CeAlignError, match="No space left"),
        atomic_path(tmp_path / "row.json"),
    ):
        raise OSError(28, "No space left on device")


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(CeAlignError, match="cannot write"),
        atomic_path(tmp_path / "file" / "row.json"),
    ):
        pass


def test_many_processes_may_write_one_path(tmp_path):
    path = tmp_path / "row.json"
    code = (
        "import sys; from pathlib import Path; from ce_align.files import atomic_path\n"
        "for _ in range(50):\n"
        "    with atomic_path(Path(sys.argv[1])) as t: t.write_text(sys.argv[2] * 9999)"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(path), letter])
        for letter in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    assert path.read_text() in ("a" * 9999, "b" * 9999)
    assert names_in(tmp_path) == ["row.json"]


def test_caches_lie_below_the_stated_home(monkeypatch, tmp_path):
    monkeypatch.setenv("CE_ALIGN_HOME", str(tmp_path))
    assert cache_folder("features") == tmp_path / "features"
    monkeypatch.delenv("CE_ALIGN_HOME")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("features") == tmp_path / "xdg" / "ce_align" / "features"


def test_what_does_not_fit_on_the_disk_is_refused_with_a_remedy(tmp_path):
    check_space(tmp_path / "new", 1, "the features", "or pool the layer")
    with pytest.raises(CeAlignError, match=r"the features need 1000000000\.00 GB"):
        check_space(tmp_path / "new", 10**18, "the features", "or pool the layer")


WRITER = """
import os, sys
from pathlib import Path
from ce_align.files import atomic_folder, atomic_path, scratch_folder

where = Path(sys.argv[2])
writing = {"path": atomic_path, "folder": atomic_folder}.get(sys.argv[1])
with writing(where / "r.npy") if writing else scratch_folder("x", where) as unfinished:
    if unfinished.is_dir():
        unfinished = unfinished / "part"
    unfinished.write_bytes(bytes(99))
    print("written", flush=True)
    sys.stdin.read()
"""


def start_writer(kind, folder):
    """A process that has written half and waits."""
    folder.mkdir(parents=True, exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, kind, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"written\n"
    return process


def kill(process, *, reap=True):
    process.send_signal(signal.SIGKILL)
    # Waits for the end; without `reap` the system still knows the number.
    options = os.WEXITED | (0 if reap else os.WNOWAIT)
    os.waitid(os.P_PID, process.pid, options)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["path", "folder", "scratch"])
def test_what_killed_processes_left_goes_with_the_next_write(tmp_path, kind):
    (tmp_path / ".notes.tmp").write_text("of another program")
    for process in [start_writer(kind, tmp_path) for _ in range(3)]:
        kill(process)
    assert len(names_in(tmp_path)) == 4
    with atomic_path(tmp_path / "row.json") as temporary:
        temporary.write_text("new")
    assert sorted(names_in(tmp_path)) == [".notes.tmp", "row.json"]


def test_a_killed_process_that_its_parent_has_not_asked_for_is_dead(tmp_path):
    process = start_writer("path", tmp_path)
    kill(process, reap=False)
    sweep(tmp_path)
    assert names_in(tmp_path) == []
    process.wait()


@pytest.mark.parametrize("kind", ["path", "folder"])
def test_a_process_that_writes_keeps_its_file_however_old(tmp_path, kind):
    process = start_writer(kind, tmp_path)
    (unfinished,) = tmp_path.iterdir()
    os.utime(unfinished, (0, 0))
    sweep(tmp_path)
    process.communicate()
    assert process.returncode == 0
    assert names_in(tmp_path) == ["r.npy"]


def test_a_number_that_a_later_process_was_given_keeps_nothing(tmp_path):
    process = start_writer("path", tmp_path)
    (unfinished,) = tmp_path.iterdir()
    machine, pid, start, rest = unfinished.name.rsplit(".", 3)[1].split("-")
    assert int(pid) == process.pid
    earlier = f".r.{machine}-{pid}-{int(start) - 1}-{rest}.tmp.npy"
    shutil.copy(unfinished, tmp_path / earlier)
    sweep(tmp_path)
    assert names_in(tmp_path) == [unfinished.name]
    process.communicate()


@pytest.mark.parametrize(("hours", "left"), [(23, True), (25, False)])
@pytest.mark.parametrize("kind", ["path", "folder"])
def test_files_of_another_machine_go_a_day_after_the_last_write(
    tmp_path, monkeypatch, kind, hours, left
):
    kill(start_writer(kind, tmp_path))
    monkeypatch.setattr(files, "_machine", lambda: "0" * 8)
    (unfinished,) = tmp_path.iterdir()
    last = time.time() - hours * 3600
    os.utime(unfinished, (0, 0))
    os.utime(unfinished / "part" if kind == "folder" else unfinished, (last, last))
    sweep(tmp_path)
    assert unfinished.exists() == left


def test_all_folders_of_a_room_of_the_caches_are_swept(tmp_path, monkeypatch):
    monkeypatch.setenv("CE_ALIGN_HOME", str(tmp_path))
    for place in ("features/a", "features/b/c", "responses"):
        kill(start_writer("path", tmp_path / place))
    with atomic_path(cache_folder("features") / "d" / "r.npy") as temporary:
        temporary.write_text("new")
    assert [p.name for p in tmp_path.rglob("features/**/*.npy")] == ["r.npy"]
    assert len(names_in(tmp_path / "responses")) == 1


def test_space_is_asked_for_when_what_was_left_is_gone(tmp_path):
    kill(start_writer("path", tmp_path))
    check_space(tmp_path, 1, "the features", "or pool the layer")
    assert names_in(tmp_path) == []


def test_a_name_as_long_as_the_system_takes_can_be_written(tmp_path):
    path = tmp_path / f"{'ü' * 125}.json"
    with atomic_path(path) as temporary:
        temporary.write_text("row")
    assert path.read_text() == "row"


@pytest.mark.parametrize("fault", [ValueError, KeyboardInterrupt])
def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path, fault):
    path = tmp_path / "plugin"
    for name in ("old", "new"):
        with atomic_folder(path) as temporary:
            (temporary / name).write_text(name)
        assert names_in(path) == [name]
    with pytest.raises(fault), atomic_folder(path) as temporary:
        (temporary / "half").write_text("")
        raise fault
    assert names_in(path) == ["new"]
    assert names_in(tmp_path) == ["plugin"]


def test_a_scratch_folder_is_ours_alone_and_goes_with_the_work(tmp_path):
    with scratch_folder("trial", tmp_path / "deep") as scratch:
        assert scratch.stat().st_mode & 0o777 == 0o700
        (scratch / "file").write_text("")
    assert names_in(tmp_path / "deep") == []


def test_datasets_survive_a_file_without_pythons_removed_interface(
    tmp_path, monkeypatch
):
    # As on Python 3.12: selecting a group is the only way.
    entry_points = metadata.entry_points

    def modern(**selection):
        if not selection:
            pytest.fail("asked for all entry points as a mapping")
        return entry_points(**selection)

    monkeypatch.setattr(metadata, "entry_points", modern)
    xr = import_xarray()
    xr.backends.plugins.list_engines.cache_clear()
    dataset = xr.Dataset({"r": ("neuroid", np.arange(3.0))})
    dataset.to_netcdf(tmp_path / "a.nc", engine="netcdf4")
    with xr.open_dataset(tmp_path / "a.nc") as opened:
        assert opened.identical(dataset)
