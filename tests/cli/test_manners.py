"""How the command answers a mistake, a signal, an impatient reader, and nothing."""

import io
import re
import signal
import subprocess
import sys

import pytest
from rich.console import Console
from waiting import wait_until

from ce_align.cli import screen
from ce_align.cli.app import FIRST_STEPS
from ce_align.cli.screen import progress_bars
from ce_align.config import StageConfig
from ce_align.progress import WHOLE
from ce_align.runner import run


def test_without_a_command_five_steps_are_shown_within_80_columns(ce_align):
    status, out, err = ce_align()
    assert (status, err) == (0, "")
    assert len(FIRST_STEPS) == 5
    for step, what in FIRST_STEPS.items():
        (line,) = (line for line in out.splitlines() if step in line)
        assert line.endswith(what)
    assert max(map(len, out.splitlines())) <= 80
    assert "--help" in out


@pytest.mark.slow
def test_the_first_steps_work_as_they_stand(ce_align):
    for step in FIRST_STEPS:
        _, *arguments = step.split()
        if arguments in (["demo"], ["doctor"]):  # which have tests of their own
            arguments.append("--help")
        status, _, err = ce_align(*arguments)
        assert status == 0, (step, err)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("scor",), "there is no command 'scor'; nearest: score"),
        (("qqqq",), "there is no command 'qqqq'"),
        (("score", "--modle", "x"), "has no option --modle; nearest: --model"),
        (("--verzion",), "ce-align has no option --verzion; nearest: --version"),
        (("import", "x"), "missing option '--out'; ce-align import --help"),
        (("score", "--seed", "x"), "'--seed'"),
        (("score", "again"), "superfluous argument(s) (again)"),
        (
            ("figures", "scores"),
            "(scores); values follow their options, such as --which",
        ),
        (("recordings", "shwo"), "'shwo'; nearest: 'show'; ce-align recordings --help"),
        (("analyze", "--metric", "bure"), "'bure' is not one of 'bures'"),
    ],
)
def test_a_mistake_in_the_words_is_one_line(ce_align, arguments, said):
    status, out, err = ce_align(*arguments)
    assert (status, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert said in line


def start(*command, **streams):
    return subprocess.Popen([sys.executable, *command], text=True, **streams)


#: `{stubborn}` is what the command does once it is asked to stop.
WAITS = """
import time
from pathlib import Path
from ce_align.cli import main
from ce_align.models import catalogue

def wait(flag):
    Path(flag).touch()
    while True:
        time.sleep(.01)

def expand(patterns):
    try:
        wait("began")
    except BaseException:
        {stubborn}

catalogue.expand = expand
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stubborn", "signals", "status", "said"),
    [
        ("raise", [signal.SIGINT], 130, "interrupted: nothing was written"),
        ("raise", [signal.SIGTERM], 143, "interrupted: nothing was written"),
        ("wait('again')", [signal.SIGINT, signal.SIGINT], -signal.SIGINT, ""),
    ],
)
def test_ctrl_c_is_told_in_a_line_and_a_second_ends_at_once(
    tmp_path, stubborn, signals, status, said, python
):
    code = WAITS.format(stubborn=stubborn)
    process = python("-c", code, "models", cwd=tmp_path)
    for flag, signum in zip(("began", "again"), signals, strict=False):
        wait_until((tmp_path / flag).exists, process)
        process.send_signal(signum)
    _, err = process.communicate()
    assert process.returncode == status
    assert err.strip() == said


def test_a_script_is_told_what_is_kept_too(monkeypatch, tmp_path):
    class Module:
        """A stage whose second configuration is interrupted."""

        @staticmethod
        def shared(config):
            return config

        @staticmethod
        def execute(group, run):
            if group[0].number:
                raise KeyboardInterrupt
            run.outcome.n_done += 1

    class Numbered(StageConfig):
        stage = "score"
        number: int

    monkeypatch.setattr("ce_align.runner._module", lambda stage: Module)
    with pytest.raises(KeyboardInterrupt) as stop:
        run([Numbered(number=n) for n in range(3)], tmp_path)
    (note,) = stop.value.__notes__
    assert note.startswith(f"1 of 3 configurations are in {tmp_path}")


@pytest.mark.slow
def test_a_reader_that_goes_early_is_no_fault(tmp_path):
    pipe = subprocess.PIPE
    command = ("-m", "ce_align", "recordings")
    process = start(*command, cwd=tmp_path, stdout=pipe, stderr=pipe)
    process.stdout.close()
    err = process.stderr.read()
    process.wait()
    assert "Also: brainscore/ID" in err  # what follows the table is done, too
    assert "Traceback" not in err
    assert "Broken" not in err
    assert process.returncode == 0


def test_lines_of_a_pipe_tell_speed_place_and_the_time_left(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    with progress_bars() as progress:
        progress(WHOLE, 0, 3)
        for done in range(13):
            progress("images", done, 12)
            now[0] += 1
        progress(WHOLE, 1, 3)
        progress("training", 0, 10)
        now[0] += 6
        progress("training", 1, 10, "epoch 1/2")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "images: 5/12, 0 of 3 done, 0:00:05 passed, 0:00:31 left"
    assert lines[1].startswith("images: 10/12, ")
    assert lines[2].startswith("training: epoch 1/2, 1 of 3 done, 0:00:19 passed, ")
    assert len(lines) == 3


def test_bars_fit_80_columns_and_leave_nothing_behind(monkeypatch):
    drawn = io.StringIO()
    shown = Console(file=drawn, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr(screen, "_messages", shown)
    name = "features of torchvision/resnet50:IMAGENET1K_V2 on majajhong2015-public"
    with progress_bars() as progress:
        progress(WHOLE, 0, 30)
        progress(name, 0, 3200)
        progress("training", 5, 10, "epoch 3/100  loss -31.42  812 images/s")
        progress(name, 1200, 3200)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\r", "\n", drawn.getvalue())
    assert max(map(len, text.splitlines())) == 80
    assert "epoch 3/100  loss -31.42  812 images/s" in text
    assert "0/30" in text
