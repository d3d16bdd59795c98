import subprocess
import sys

import pytest

from ce_align.errors import CeAlignError
from ce_align.files import atomic_path, cache_folder, check_space


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
