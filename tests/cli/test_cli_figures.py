"""`ce-align tables` and `ce-align figures` as a user meets them."""

import signal

import pytest

from ce_align.report.paper import FIGURES, TABLES
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig, ScoreRow

pytestmark = pytest.mark.slow


def store_scores(folder):
    """Made-up scores of two networks against a simulated recording."""
    for k, model in enumerate(("ce_mmcr_l0", "ce_mmcr_l0.1")):
        config = ScoreConfig(model=model, recording="simulated", layer="layer4")
        row = ScoreRow(
            model=model,
            metric="predictivity",
            value=0.3 + 0.1 * k,
            config_id=f"c{k}",
            recording="simulated",
            region="IT",
            layer="layer4",
            raw=0.5 + 0.05 * k,
            error=0.01,
            ceiling=0.8,
            n_stimuli=640,
            n_neuroids=96,
            n_splits=10,
            regression="pls",
            seed=1,
            model_digest=f"network {k}",
            recording_digest="r",
        )
        ResultStore(folder).put("score", f"c{k}", config, [row])


def test_a_figure_is_written_with_the_csv_of_what_it_shows(ce_align, tmp_path):
    store_scores(tmp_path / "results")
    status, out, err = ce_align("figures", "--which", "3", "--columns", "1")
    assert status == 0
    assert out == ""
    folder = tmp_path / "paper-figures"
    names = {f"figure_3.{suffix}" for suffix in ("pdf", "svg", "png", "md", "csv")}
    assert {path.name for path in folder.iterdir()} == names
    assert "figure_3: Simulated" in err
    header, *rows = (folder / "figure_3.csv").read_text().splitlines()
    assert len(rows) == 2
    assert all("simulated" in row for row in rows)
    assert "origin" in header


KILLED = """
import os, signal, sys
from matplotlib.figure import Figure
from ce_align.cli import main

save = Figure.savefig

def killed(self, path, **options):
    save(self, path, **options)
    if path.suffix == ".png":
        os.kill(os.getpid(), signal.SIGKILL)

Figure.savefig = killed
sys.argv = ["ce-align", "figures", "--which", "3"]
main()
"""


def test_figures_that_were_killed_are_finished_by_the_next_run(
    ce_align, tmp_path, python
):
    store_scores(tmp_path / "results")
    folder = tmp_path / "paper-figures"
    killed = python("-c", KILLED)
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    before = {path.name for path in folder.iterdir()}
    assert "figure_3.pdf" in before
    assert len(before) == 5
    status, _, err = ce_align("figures", "--which", "3")
    assert status == 0, err
    names = {f"figure_3.{suffix}" for suffix in ("pdf", "svg", "png", "md", "csv")}
    assert {path.name for path in folder.iterdir()} == names


def test_what_has_no_rows_is_left_out_unless_it_was_asked_for(ce_align, tmp_path):
    status, _, err = ce_align("tables", "--out", "here")
    assert status == 0
    (line,) = [line for line in err.splitlines() if line.startswith("left out")]
    assert "table_1, table_2" in line and "ce-align correlate" not in line
    _, _, err = ce_align("tables", "--out", "here", "--full")
    assert "left out table_1: " in err and "ce-align correlate" in err
    assert (tmp_path / "here" / "table_5.md").is_file()
    status, _, err = ce_align("tables", "--which", "1", "--out", "there")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("error: ")
    assert "ce-align correlate" in line
    assert not (tmp_path / "there").exists()


@pytest.mark.parametrize("command", ["tables", "figures"])
def test_nothing_is_drawn_from_a_folder_of_something_else(ce_align, tmp_path, command):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.png").write_bytes(b"")
    for folder in ("photos", "absent"):
        status, _, err = ce_align(command, "--results", folder, "--out", "here")
        assert status == 2
        assert err == f"error: no results in {folder}; --results names their folder\n"
    assert not (tmp_path / "here").exists()


def test_a_figure_that_does_not_exist_is_refused_in_one_line(ce_align):
    status, _, err = ce_align("figures", "--which", "9")
    assert status == 2
    (line,) = err.splitlines()
    assert "choose from 1, 2" in line


def test_our_networks_stand_among_others(ce_align, tmp_path):
    store_scores(tmp_path / "results")
    (tmp_path / "others.csv").write_text("model,score\na,0.35\nb,0.2\nc,\n")
    arguments = ("--which", "4", "--others", "others.csv")
    status, _, err = ce_align("figures", *arguments)
    assert status == 0
    assert "Other networks: 1 without a score." in err
    rows = (tmp_path / "paper-figures" / "figure_4.csv").read_text().splitlines()[1:]
    assert [row.split(",")[0] for row in rows] == [
        "ce_mmcr_l0.1",
        "a",
        "ce_mmcr_l0",
        "b",
    ]


@pytest.mark.parametrize("command", ["tables", "figures"])
def test_a_number_that_there_is_not_is_one_line_with_those_that_there_are(
    ce_align, command
):
    status, _, err = ce_align(command, "--which", "99")
    assert status == 2
    kind = command.removesuffix("s")
    assert err.startswith(f"error: no {kind} '99'; choose from 1, 2, 3, 4, 5")
    assert len(err.splitlines()) == 1


def test_help_says_in_a_line_what_each_figure_and_table_shows(ce_align):
    for command, known in (("figures", FIGURES), ("tables", TABLES)):
        _, out, _ = ce_align(command, "--help")
        lines = [" ".join(line.split()) for line in out.splitlines()]
        for name, one in known.items():
            assert f"{name} {one.about}" in lines
