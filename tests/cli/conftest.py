"""The command as a user meets it, for every test of a command."""

import sys

import pytest

from ce_align.cli import main


@pytest.fixture
def ce_align(monkeypatch, capsys, tmp_path):
    """Run the command in an empty folder: (exit status, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CE_ALIGN_IMAGENET", raising=False)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ce-align", *map(str, arguments)])
        status = 0
        try:
            main()
        except SystemExit as end:
            status = end.code or 0
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
