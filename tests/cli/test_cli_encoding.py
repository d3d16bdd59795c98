"""Any terminal can show what commands say: nothing fails for want of a letter."""

import io
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from ce_align.cli import main, screen
from ce_align.cli.screen import prepare_streams, progress_bars
from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.errors import DataError

NETWORK = """
import torch
def λ2():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 5, stride=4), torch.nn.Tanh())
    network.ce_align = dict(input_size=32, layers=dict(IT="1", V4="1"))
    return network
"""


@pytest.fixture
def terminal(monkeypatch, tmp_path):
    """Run a command at a terminal of some encoding: (status, bytes out, bytes err)."""
    monkeypatch.chdir(tmp_path)

    def run(encoding, *arguments, command=main):
        monkeypatch.setattr(sys, "argv", ["ce-align", *map(str, arguments)])
        streams = [io.TextIOWrapper(io.BytesIO(), encoding) for _ in range(2)]
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", streams[0])
            patch.setattr(sys, "stderr", streams[1])
            status = 0
            try:
                command()
            except SystemExit as end:
                status = end.code or 0
        for stream in streams:
            stream.flush()
        return status, *(stream.buffer.getvalue() for stream in streams)

    return run


@pytest.fixture
def toy(tmp_path, rng):
    """A network, images and a recording whose names have letters beyond ASCII."""
    (tmp_path / "réseau.py").write_text(NETWORK, encoding="utf-8")
    pixels = rng.integers(0, 256, (40, 32, 32, 3), np.uint8)
    (tmp_path / "imágenes").mkdir()
    for i in range(15):
        Image.fromarray(pixels[i]).save(tmp_path / "imágenes" / f"é{i}.png")
    responses = rng.normal(pixels.mean(axis=(1, 2, 3))[:, None, None], 1, (40, 3, 4))
    images = ImageSet.from_array("mine", pixels)
    recording = Recording("mine", images, responses, tuple("αβγδ"), "V4")
    write_recording(recording, tmp_path / "séance².nc")


NETWORK_OPTION = ("--model", "réseau.py:λ2")
SCORE = ("score", *NETWORK_OPTION, "--recording", "séance².nc", "--components", 3)
ANALYSIS = (
    *("analyze", *NETWORK_OPTION, "--images", "imágenes", "--size", 32, "--views", 6),
    *("--comparisons", 12, "--repeats", 2, "--crops", 4, "--photometrics", 4),
)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_tables_messages_and_errors_can_be_shown_anywhere(terminal, toy, encoding):
    for arguments in (SCORE, (*SCORE, "--layer", "all"), ANALYSIS):
        status, out, err = terminal(encoding, *arguments)
        assert status == 0, err
        assert b"tanh" not in err
        assert "seau.py" in out.decode(encoding)
    for arguments in (("results",), ("recordings",), ("models", "paper"), ("tables",)):
        assert terminal(encoding, *arguments)[0] == 0
    status, _, err = terminal(encoding, *SCORE, "--model", "λ²")
    (line,) = (x for x in err.decode(encoding).splitlines() if x.startswith("error"))
    assert status == 2
    assert ("λ²" if encoding == "utf-8" else "lambda") in line


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        *("analyze", "correlate", "demo", "doctor", "fetch", "figures", "import"),
        *("import-scores", "models", "pack", "recordings", "register", "report"),
        *("results", "run", "score", "submit", "tables", "train", "transfer"),
    ],
)
def test_help_of_every_command_can_be_shown_in_ascii(terminal, command):
    status, out, err = terminal("ascii", command, "--help")
    assert (status, err) == (0, b"")
    assert b"Usage" in out


def test_json_is_the_same_in_every_encoding(terminal, toy):
    rows = [
        json.loads(terminal(code, *SCORE, "--json")[1]) for code in ("ascii", "utf-8")
    ]
    assert rows[0] == rows[1]
    assert rows[0][0]["recording"] == "séance².nc"


def test_bars_can_be_drawn_in_ascii(terminal, monkeypatch):
    shown = Console(stderr=True, force_terminal=True, force_interactive=True)
    monkeypatch.setattr(screen, "_messages", shown)

    def draw():
        prepare_streams()
        with progress_bars() as progress:
            for done in range(3):
                progress("λ² × …", done, 3)

    status, _, err = terminal("ascii", command=draw)
    assert status == 0
    assert b"lambda2 x ." in err


@pytest.mark.parametrize("command", ["pack", "analyze"])
def test_image_names_that_are_no_text_are_refused_in_one_line(
    terminal, tmp_path, command
):
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (9, 9)).save(folder / "good.png")
    (folder / "good.png").rename(folder / os.fsdecode(b"caf\xe9.png"))
    arguments = {
        "pack": ("images", "packed"),
        "analyze": (
            *("--model", "pixels", "--images", "images"),
            *("--metric", "dimensionality"),
        ),
    }[command]
    for encoding in ("ascii", "utf-8"):
        status, _, err = terminal(encoding, command, *arguments)
        (line,) = err.decode().splitlines()
        assert status == 2
        assert r"no UTF-8 (caf\udce9.png); rename" in line
    with pytest.raises(DataError, match="no UTF-8"):
        ImageSet.from_path(folder)


def test_a_network_file_whose_name_is_no_text_is_refused_in_one_line(terminal, toy):
    name = os.fsdecode(b"caf\xe9.py")
    Path("réseau.py").rename(name)
    status, _, err = terminal(
        *("ascii", "score", "--model", f"{name}:λ2", "--components", 3),
        *("--recording", "séance².nc"),
    )
    errors = [line for line in err.splitlines() if b"rror" in line]
    assert len(errors) <= 1
    assert b"Traceback" not in err
    assert status in (0, 2)


def test_an_error_about_a_name_with_line_breaks_is_one_line(terminal, tmp_path):
    (tmp_path / "two\nlines").mkdir()
    status, _, err = terminal("utf-8", "pack", "two\nlines", "packed")
    assert status == 2
    assert err.startswith(b"error: two lines holds no image")
    assert len(err.splitlines()) == 1
