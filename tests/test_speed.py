"""The benchmarks of speed: a row says what was measured, and nothing fails silently."""

import ast
import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.speed import __main__ as speed
from benchmarks.speed import bures, losses, pls, ridge
from benchmarks.speed._measure import Measured, best_of, command_seconds, document

ROW = Measured("job", 2.0, peer="peer", theirs=16.0, floor=1.0, of_floor="products")


@pytest.fixture
def table(tmp_path, monkeypatch):
    """Run benchmarks of a name and what each returns or raises; the table and rc."""

    def run(of_each, condition="one"):
        def measured(name):
            asked.append(name)
            if isinstance(of_each[name], Exception):
                raise of_each[name]
            return [document(row) for row in of_each[name]]

        asked = []
        monkeypatch.setattr(speed, "NAMES", list(of_each))
        monkeypatch.setattr(speed, "condition", lambda name: condition)
        monkeypatch.setattr(speed, "measured", measured)
        path = tmp_path / "speed.md"
        n_failed = speed.run(list(of_each), path)
        stored = json.loads(path.with_suffix(".json").read_text())["benchmarks"]
        return n_failed, asked, path.read_text(), stored

    return run


def test_a_row_states_ratio_floor_and_whether_goals_are_met():
    row = Measured(**{**ROW.__dict__, "at_least": 8, "at_most": 1.6})
    assert (row.ratio, row.above) == (8, 2)
    assert row.goals() == "≥ 8× met, ≤ 1.6× its floor MISSED"


@pytest.mark.parametrize("number", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_that_no_work_takes_is_refused(number):
    with pytest.raises(ValueError, match=r"job: measured"):
        Measured("job", number)


@pytest.mark.parametrize("apart", [1e-5, float("nan")])
def test_a_comparison_of_different_results_is_refused(apart):
    with pytest.raises(ValueError, match="apart"):
        Measured("job", 1.0, theirs=1.0, apart=apart, within=1e-6)


def test_a_command_that_fails_is_not_timed():
    with pytest.raises(RuntimeError, match="ended with 2: no such network"):
        command_seconds(
            [sys.executable, "-c", "import sys; print('no such network'); sys.exit(2)"]
        )


@pytest.mark.slow
def test_every_benchmark_has_rows_and_starts_commands_in_one_way_alone():
    for name in speed.NAMES:
        text = (speed.HERE / f"{name}.py").read_text()
        functions = [x for x in ast.parse(text).body if isinstance(x, ast.FunctionDef)]
        assert "rows" in {function.name for function in functions}, name
        assert "subprocess" not in text, name


def test_a_benchmark_that_fails_is_named_and_the_rest_goes_on(table):
    failed, _, text, stored = table({"a": RuntimeError("no disk"), "b": [ROW]})
    assert failed == 1
    assert "a failed: no disk" in text
    assert "| job | 2 s | peer: 16 s | 8× | products: 1 s, 2.00× |" in text
    assert stored["b"]["rows"][0]["ratio"] == 8


def test_a_second_run_measures_only_what_failed_or_changed(table):
    table({"a": RuntimeError("no disk"), "b": [ROW]})
    _, asked, text, _ = table({"a": [ROW], "b": [ROW]})
    assert asked == ["a"]
    assert "failed" not in text
    assert table({"a": [ROW], "b": [ROW]}, condition="other code")[1] == ["a", "b"]


def test_time_is_of_the_processor_and_not_of_waiting():
    assert best_of(lambda: time.sleep(0.05), 1) < 0.04


@pytest.mark.parametrize(
    ("benchmark", "sizes"),
    [
        (bures, {"clouds": 3, "points": 6, "features": 20}),
        (losses, {"barlow_rows": ""}),
        (pls, {"stimuli": 60, "features": 80, "neuroids": 3, "memory_features": 0}),
        (ridge, {"stimuli": 60, "features": 80, "neuroids": 3}),
    ],
    ids=["bures", "losses", "pls", "ridge"],
)
def test_a_benchmark_compares_equal_results(benchmark, sizes, monkeypatch):
    if benchmark is losses:
        monkeypatch.setattr(losses, "MMCR_SHAPE", (24, 8))
        monkeypatch.setattr(losses, "SIMCLR_SHAPE", (24, 8))
    rows = list(benchmark.rows(**sizes))
    assert rows
    assert all(row.ratio and row.apart is not None for row in rows)


def test_the_target_of_make_writes_the_table():
    makefile = (Path(speed.HERE).parents[1] / "Makefile").read_text()
    assert "-m benchmarks.speed --out" in makefile
