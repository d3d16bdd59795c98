import csv
import json
from pathlib import Path

import pytest
from rich.cells import cell_len

from ce_align.cli.app import COMMANDS
from ce_align.errors import DataError
from ce_align.report.paper.files import FigureConfig
from ce_align.report.states import Wanted, states
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig, ScoreRow

LONG = "runs/2026-11-28_a_training_of_a_long_name_{}_with_an_end_of_its_own"
HOSTILE = ("[/bold]", "[red]a[/red]", "a\x1b[31mb\nc", ":leaves:")
NAMES = (*(LONG.format(k) for k in range(3)), *HOSTILE)


def score(model, recording, value, note=None):
    config = ScoreConfig(model=model, recording=recording, layer="layer4")
    config_id = f"{NAMES.index(model)}{recording}"
    row = ScoreRow(
        model=model,
        label=model,
        recording=recording,
        value=value,
        raw=0.5,
        metric="predictivity",
        config_id=config_id,
        region="IT",
        layer="layer4",
        error=0.01,
        ceiling=0.8,
        n_stimuli=640,
        n_neuroids=96,
        n_splits=10,
        regression="pls",
        seed=1,
        model_digest=f"m{model}",
        recording_digest="r",
        note=note,
    )
    return config, config_id, row


@pytest.fixture
def store(tmp_path):
    """Every network on one recording, two on another, where a third one failed."""
    kept = ResultStore(tmp_path / "results")
    given = [(name, "it", 0.1 + 0.123456789 * k) for k, name in enumerate(NAMES)]
    given += [(name, "v4", 0.2) for name in NAMES[:2]]
    for one in given:
        config, config_id, row = score(*one)
        kept.put("score", config_id, config, [row])
    failed, _, _ = score(NAMES[2], "v4", None)
    kept.put_failure("score", failed, DataError("no memory left"))
    return kept


@pytest.mark.slow
@pytest.mark.parametrize("width", [60, 80, 100, 200])
@pytest.mark.parametrize("options", [(), ("--full",), ("--columns", "model,value")])
def test_results_fit_whatever_names_are(ce_align, store, monkeypatch, width, options):
    monkeypatch.setenv("COLUMNS", str(width))
    status, out, err = ce_align("results", *options)
    assert status == 0, err
    assert all(cell_len(line) <= width for line in out.splitlines())
    assert all(line.isprintable() for line in out.splitlines())
    for name in ("[/bold]", "[red]a[/red]", r"a\x1b[31mb\nc", ":leaves:"):
        assert name in out
    if "--full" in options:
        whole = "".join(out.split())
        assert all(name in whole for name in NAMES[:3])


def test_a_pipe_shortens_nothing_and_a_row_is_a_line(ce_align, store, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    _, out, _ = ce_align("results", "--recording", "it")
    for name in NAMES[:3]:
        assert [line.split()[0] for line in out.splitlines() if name in line] == [name]


def test_what_is_written_is_whole_whatever_the_width(ce_align, store, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    _, out, _ = ce_align("results", "--json")
    rows = json.loads(out)
    done = [row for row in rows if row["state"] == "done"]
    assert {row["model"] for row in done} == set(NAMES)
    stored = [row for one in store.documents() for row in one["rows"]]
    assert len(done) == len(stored)
    for row in stored:
        stated = {name: value for name, value in row.items() if value is not None}
        assert any(stated.items() <= found.items() for found in done)
    _, out, _ = ce_align("results", "--csv", "-")
    written = list(csv.DictReader(out.splitlines(keepends=True)))
    assert [row["model"] for row in written] == [row["model"] for row in rows]
    assert [row["value"] for row in written] == [
        "" if row.get("value") is None else repr(row["value"]) for row in rows
    ]
    assert ce_align("results", "--csv", "rows.csv")[1] == ""
    assert Path("rows.csv").read_text(encoding="utf-8") == out


def test_what_failed_and_what_was_never_run_is_told_apart(ce_align, store):
    rows = json.loads(ce_align("results", "--json")[1])
    of_state = {
        state: {(r["model"], r["recording"]) for r in rows if r["state"] == state}
        for state in ("failed", "never run")
    }
    assert of_state["failed"] == {(NAMES[2], "v4")}
    assert of_state["never run"] == {(name, "v4") for name in HOSTILE}
    _, out, _ = ce_align("results")
    assert out.splitlines()[-1].split() == ["score", "9", "9", "1", "4"]


def test_with_recipes_only_what_they_ask_for_is_missed(store):
    unrun, _, _ = score(NAMES[0], "sanghavi2020", None)
    drawn = FigureConfig(figure="2")
    never = [
        (row["stage"], row["model"], row["recording"])
        for row in states(store, Wanted(), [unrun, drawn])
        if row["state"] == "never run"
    ]
    assert never == [("score", NAMES[0], "sanghavi2020")]


def test_results_are_of_the_networks_and_recordings_asked_for(ce_align, store):
    def shown(*options):
        rows = json.loads(ce_align("results", "--json", *options)[1])
        return {(row["model"], row["recording"]) for row in rows}

    assert shown("--model", "*_1_*") == {(NAMES[1], "it"), (NAMES[1], "v4")}
    assert shown("--model", "[/bold]", "--recording", "it") == {("[/bold]", "it")}
    assert shown("--recording", "v*", "--model", "runs/*") == {
        (name, "v4") for name in NAMES[:3]
    }
    assert shown("--model", "paper") == set()
    status, _, err = ce_align("results", "--stage", "scores")
    assert (status, "no stage 'scores'; choose from train" in err) == (2, True)
    status, out, err = ce_align("results", "--model", "nothing")
    assert (status, out) == (0, "")
    assert "no stored rows of these networks" in err


def test_rows_are_sorted_and_chosen_as_asked(ce_align, store):
    options = ("--recording", "it", "--columns", "value,model", "--sort", "value")
    rows = json.loads(ce_align("results", *options, "--json")[1])
    assert [list(row) for row in rows] == [["value", "model"]] * len(NAMES)
    assert [row["model"] for row in rows] == list(NAMES)
    _, out, _ = ce_align("results", *options)
    body = [line.split(maxsplit=1) for line in out.splitlines()]
    assert [line[0] for line in body if line and line[0].startswith("0.")] == [
        f"{0.1 + 0.123456789 * k:.4f}" for k in range(len(NAMES))
    ]
    status, _, err = ce_align("results", "--columns", "modle")
    assert status == 2
    assert "no column 'modle'; the nearest are model" in err


@pytest.mark.slow
def test_every_command_that_prints_a_table_has_the_same_options(ce_align, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with_tables = {
        *("analyze", "benchmark", "correlate", "demo", "doctor", "models", "overlap"),
        *("compare", "recordings"),
        *("register", "results", "run", "score", "similarity", "submit", "tables"),
        *("transfer", "unique"),
    }
    shared = {"--full", "--columns", "--sort", "--csv", "--json"}
    for name in COMMANDS:
        words = set(ce_align(name, "--help")[1].split())
        assert (shared <= words) == (name in with_tables), name
        if name in with_tables:
            continue
        # Of what has no rows these say in full what it would need.
        kept = {"--full"} if name in ("figures", "report") else set()
        assert {"--full", "--sort", "--csv"} & words == kept, name


def test_what_failed_is_forgotten_at_once(store, ce_align):
    status, _, said = ce_align("results", "--forget-failed", "--results", store.folder)
    assert status == 0 and "forgotten: 1 of what failed" in said
    assert store.failures() == []
