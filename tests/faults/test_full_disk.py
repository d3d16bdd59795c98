"""A disk that fills, at every kind of write: one line, nothing half, then the whole."""

import os
import shutil
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest
from checkpoint_server import CheckpointServer
from small_commands import COMMANDS, serve_a_network, store_scores

from ce_align import index
from ce_align.errors import CeAlignError
from ce_align.files import atomic_folder, atomic_path
from ce_align.report import page
from ce_align.results import ResultStore

pytestmark = pytest.mark.slow

#: KiB that are free, by command: where each of its files is the one that does not fit.
ROOM = {
    "import": (0, 16),
    "score": (40, 60),
    "analyze": (0, 16, 40),
    "transfer": (16,),
    "train": (3000,),
    "pack": (4, 40),
    "export": (0, 60),
    "sweep": (0, 60),
    "submit": (0, 200),
    "submit folder": (0, 200),
    "figures": (16,),
    "tables": (0, 4),
    "report": (0, 20),
    "similarity": (0, 40),
    "fetch": (0, 400),
}


class Disk:
    """A disk of its own, with as much room as is wanted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mount(self, *options: str) -> None:
        subprocess.run(
            ["mount", "-t", "tmpfs", *options, "tmpfs", self.folder],
            check=True,
            capture_output=True,
        )

    def leave(self, kibibytes: int) -> None:
        """Let so much be free."""
        found = os.statvfs(self.folder)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
        self.mount("-o", f"remount,size={used + kibibytes}k")


@pytest.fixture
def disk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # which is undone, wherever a test goes
    disk = Disk(tmp_path / "disk")
    disk.folder.mkdir()
    try:
        disk.mount("-o", "size=64m")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("only root can mount a disk")
    (disk.folder / "something").write_text("here")  # a size of 0 is no limit
    (disk.folder / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(disk.folder / "temporary"))
    yield disk
    os.chdir(tmp_path)
    # At once, whatever holds a file of it.
    subprocess.run(["umount", "--lazy", disk.folder], check=True)


@pytest.fixture
def commands(tmp_path, monkeypatch):
    """Every command; one fetches from a server of this machine, one draws nothing."""
    monkeypatch.setattr(page, "make_parts", lambda *_: ([], [], []))
    with closing(CheckpointServer()) as server:
        fetched = serve_a_network(server, tmp_path, monkeypatch)
        yield {**COMMANDS, "fetch": fetched}


def unfinished(folder):
    temporary = (folder / "temporary").iterdir()
    return [*temporary, *(p for p in folder.rglob("*") if ".tmp" in p.name)]


@pytest.mark.parametrize("command", ROOM)
def test_a_full_disk_is_said_in_a_line_and_the_next_run_finishes(
    command, disk, place, ce_align, commands
):
    start = place(command=command)
    for room in ROOM[command]:
        os.chdir("/")
        there = disk.folder / "place"
        shutil.rmtree(there, ignore_errors=True)
        shutil.copytree(start, there)
        os.chdir(there)
        os.environ["CE_ALIGN_HOME"] = str(there / "home")
        disk.leave(room)
        status, _, err = ce_align(*commands[command])
        faults = {line for line in err.splitlines() if line.startswith("error")}
        assert status == 1, (room, err)
        assert faults, err
        for line in faults:
            assert "unexpected" not in line and "free some" in line, (room, line)
            assert "No space left" in line or " free; " in line, (room, line)
        assert len(faults) == 1 or command == "sweep", (room, faults)
        assert "Traceback" not in err and "Exception ignored" not in err
        assert unfinished(disk.folder) == []
        disk.leave(60_000)
    status, _, err = ce_align(*commands[command])
    assert status == 0, err
    assert unfinished(disk.folder) == []
    assert not list(there.rglob("results/*/failed/*.json"))


def test_a_disk_that_is_read_only_is_said_and_what_it_holds_is_still_shown(
    disk, place, ce_align
):
    place(disk.folder)
    assert ce_align(*COMMANDS["score"])[0] == 0
    disk.mount("-o", "remount,ro")
    for command in (("results",), COMMANDS["score"]):
        status, out, err = ce_align(*command)
        assert status == 0, err
        assert "nets.py:build" in out
    status, _, err = ce_align(*COMMANDS["score"], "--seed", 7)
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert status == 1
    assert "Read-only file system; make its folder writable or choose" in line
    disk.mount("-o", "remount,rw")
    assert ce_align(*COMMANDS["score"], "--seed", 7)[0] == 0


def test_caches_that_are_read_only_are_said_and_others_can_be_named(
    disk, place, ce_align, monkeypatch
):
    folder = place()
    home = disk.folder / "home"
    home.mkdir()
    monkeypatch.setenv("CE_ALIGN_HOME", str(home))
    disk.mount("-o", "remount,ro")
    assert ce_align("results", "--results", "rows")[0] == 0
    status, _, err = ce_align(*COMMANDS["score"])
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert status == 1
    assert f"cannot write {home}" in line
    assert "make its folder writable or set CE_ALIGN_HOME to another" in line
    monkeypatch.setenv("CE_ALIGN_HOME", str(folder / "home"))
    assert ce_align(*COMMANDS["score"])[0] == 0


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_standard_output_on_a_full_disk_is_one_line(options, prepared, python):
    code = (
        "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
        "from ce_align.cli import main; sys.argv[:1] = ['', 'results']; main()"
    )
    process = python("-c", code, "--results", prepared / "rows", *options)
    _, err = process.communicate()
    assert process.returncode == 1, err
    (line,) = [line for line in err.splitlines() if line.startswith("error")]
    assert line.startswith("error: cannot write standard output: No space left")


@pytest.mark.parametrize(
    "error", [RuntimeError("NetCDF: HDF error"), ValueError("seek of closed file")]
)
@pytest.mark.parametrize("writing", [atomic_path, atomic_folder])
def test_what_a_library_says_of_a_full_disk_is_not_what_is_told(
    error, writing, disk, tmp_path
):
    def write():
        with writing(disk.folder / "rows"):
            raise error

    with pytest.raises(type(error)):  # there is room: it is not the disk
        write()
    disk.leave(0)
    with pytest.raises(CeAlignError, match=r"cannot write .*rows: No space left"):
        write()
    disk.leave(100)
    assert unfinished(disk.folder) == []


def test_a_file_that_a_library_holds_open_does_not_keep_the_room(disk):
    disk.leave(100)
    held = []
    with (
        pytest.raises(CeAlignError, match="No space left"),
        atomic_path(disk.folder / "rows.nc") as temporary,
    ):
        held.append(temporary.open("wb", buffering=0))
        while True:
            held[0].write(bytes(4096))
    (disk.folder / "other").write_bytes(bytes(90_000))
    held[0].close()


def test_the_limit_of_a_files_size_is_told_as_such(tmp_path, python):
    code = (
        "import resource, sys; from pathlib import Path\n"
        "import numpy as np, xarray\n"
        "from ce_align.errors import CeAlignError\n"
        "from ce_align.files import atomic_path\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try:\n"
        "    with atomic_path(Path('rows.nc')) as path:\n"
        "        xarray.Dataset({'r': ('n', np.arange(9999.))}).to_netcdf(path)\n"
        "except CeAlignError as error:\n"
        "    sys.exit(str(error))\n"
    )
    process = python("-c", code, cwd=tmp_path)
    _, err = process.communicate()
    assert process.returncode == 1, err
    assert "cannot write rows.nc: File too large" in err
    assert list(tmp_path.iterdir()) == []


def test_an_index_that_has_no_room_is_done_without(disk, monkeypatch, caplog):
    store_scores(disk.folder / "rows")
    monkeypatch.setattr(index, "FEW", 0)
    monkeypatch.setattr(index, "SETTLED", -3600)
    monkeypatch.setenv("CE_ALIGN_HOME", str(disk.folder / "home"))
    index._tell.cache_clear()
    disk.leave(0)
    for _ in range(2):
        rows = ResultStore(disk.folder / "rows").load("score")
        assert list(rows["value"]) == [0.3, 0.4]
    (told,) = caplog.messages
    assert "without an index: cannot write" in told and "No space left" in told
    disk.leave(1000)
    ResultStore(disk.folder / "rows").load("score")
    assert list((disk.folder / "home" / "index").glob("*.db"))
    assert unfinished(disk.folder) == []
