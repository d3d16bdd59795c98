"""A folder with small inputs, made once, and the command in it."""

import shutil
import sys
from pathlib import Path

import pytest
from small_commands import BEFORE, COMMANDS, prepare

from ce_align import files
from ce_align.cli import main


@pytest.fixture
def ce_align(monkeypatch, capsys):
    """Run the command as a process that has swept nothing: (status, out, err)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ce-align", *map(str, arguments)])
        monkeypatch.setattr(files, "_swept", set())
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        return status, *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def prepared(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("faults") / "prepared"
    prepare(place)
    return place


@pytest.fixture
def place(prepared, tmp_path, monkeypatch, ce_align):
    """Go to a copy of the inputs, in which what a command needs has been run."""

    def go(parent: Path = tmp_path, command: str = "") -> Path:
        folder, before = parent / "place", BEFORE.get(command, ())
        kept = prepared.with_name("-".join(("after", *before)))
        shutil.copytree(kept if kept.exists() else prepared, folder)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("CE_ALIGN_HOME", str(folder / "home"))
        if before and not kept.exists():
            for name in before:
                assert ce_align(*COMMANDS[name])[0] == 0
            shutil.copytree(folder, kept)
        return folder

    return go
