import json
import os
import re
import subprocess
import sys

import numpy as np
import pytest
import xarray as xr

from ce_align.config import StageConfig
from ce_align.errors import DataError
from ce_align.files import atomic_path
from ce_align.results import ResultStore, Row


class ToyConfig(StageConfig):
    model: str
    seed: int = 1


class ToyRow(Row):
    stage: str = "toy"
    r: float


CONFIG = ToyConfig(model="pixels")


def toy_row(**changes):
    fields = {"model": "pixels", "metric": "toy", "value": 0.5, "config_id": "c1"}
    return ToyRow(**(fields | {"r": 0.1} | changes))


def test_rows_come_back_as_they_were_stored(tmp_path):
    store = ResultStore(tmp_path)
    rows = [toy_row(), toy_row(value=None)]
    store.put("toy", "c1", CONFIG, rows)
    assert store.get("toy", "c1", ToyRow) == rows
    assert store.get("toy", "c2", ToyRow) is None


def test_arrays_lie_beside_the_rows(tmp_path):
    store = ResultStore(tmp_path)
    arrays = xr.Dataset({"r": (("split", "neuroid"), np.arange(6.0).reshape(2, 3))})
    store.put("toy", "c1", CONFIG, [toy_row()], arrays)
    assert store.arrays("toy", "c1").identical(arrays)
    with pytest.raises(DataError, match="run that configuration again"):
        store.arrays("toy", "c2")


def test_a_result_file_states_config_and_environment(tmp_path):
    path = ResultStore(tmp_path).put("toy", "c1", CONFIG, [toy_row()])
    document = json.loads(path.read_text())
    assert document["config"] == {"model": "pixels", "seed": 1}
    assert document["environment"]["numpy"] == np.__version__
    assert f"{os.cpu_count()} cores" in document["environment"]["processor"]


def test_load_gives_one_tidy_table_of_all_stages(tmp_path):
    store = ResultStore(tmp_path)
    store.put("toy", "c1", CONFIG, [toy_row(), toy_row()])
    store.put("other", "c2", CONFIG, [toy_row(config_id="c2")])
    assert len(store.load()) == 3
    assert list(store.load("other")["config_id"]) == ["c2"]
    assert store.load("absent").empty


@pytest.mark.parametrize("text", ["{", "[]", '{"rows": 3}', "", '{"stage": "toy"}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "c1.json").write_text(text)
    with pytest.raises(DataError, match=r"c1\.json .*delete it"):
        ResultStore(tmp_path).get("toy", "c1", ToyRow)


def test_rows_of_another_version_are_refused_in_words(tmp_path):
    store = ResultStore(tmp_path)
    store.put("toy", "c1", CONFIG, [toy_row()])
    with pytest.raises(DataError, match="other columns"):
        store.get("toy", "c1", Row)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_never_holds_nan(value):
    with pytest.raises(ValueError, match="finite"):
        toy_row(value=value)


def test_fingerprint_sees_settings_and_content():
    ids = {
        CONFIG.fingerprint(weights="a"),
        CONFIG.fingerprint(weights="b"),
        ToyConfig(model="pixels", seed=2).fingerprint(weights="a"),
        ToyConfig(model="gabor").fingerprint(weights="a"),
    }
    assert len(ids) == 4
    assert CONFIG.fingerprint(weights="a") == ToyConfig(model="pixels").fingerprint(
        weights="a"
    )


@pytest.mark.slow
def test_two_processes_writing_to_one_folder_lose_nothing(tmp_path):
    code = """
import sys
from pathlib import Path
from ce_align.config import StageConfig
from ce_align.results import ResultStore, Row
store = ResultStore(Path(sys.argv[1]))
for i in range(40):
    for name in (f"{sys.argv[2]}{i}", f"shared{i}"):
        row = Row(stage="toy", model="m", metric="t", value=i, config_id=name)
        store.put("toy", name, StageConfig(), [row])
"""
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), letter])
        for letter in "ab"
    ]
    assert [writer.wait() for writer in writers] == [0, 0]
    rows = ResultStore(tmp_path).load("toy")
    assert len(rows) == 120
    assert not list(tmp_path.rglob("*.tmp*"))


def test_what_another_process_is_writing_is_not_read(tmp_path):
    store = ResultStore(tmp_path)
    with atomic_path(store.put("toy", "c1", CONFIG, [toy_row()])) as unfinished:
        unfinished.write_text("{")
        assert len(store.load()) == 1
        assert store.starting("c")["config_id"] == "c1"


def test_a_failure_is_stored_with_its_reason_and_is_no_row(tmp_path):
    store = ResultStore(tmp_path)
    store.put_failure("toy", CONFIG, DataError("no pixel at hand\nsecond line"))
    (failure,) = store.failures("toy")
    assert failure.config == {"model": "pixels", "seed": 1}
    assert (failure.error, failure.message) == ("DataError", "no pixel at hand")
    assert failure.exit_status == 2
    assert failure.environment["numpy"] == np.__version__
    assert store.load().empty
    assert not list(store.documents())
    assert store.failures("other") == []


def test_an_error_that_nobody_foresaw_is_stored_in_one_line(tmp_path):
    store = ResultStore(tmp_path)
    store.put_failure("toy", CONFIG, ZeroDivisionError("division by zero"))
    (failure,) = store.failures()
    assert failure.error == "ZeroDivisionError"
    assert failure.message.startswith("unexpected ZeroDivisionError: division by zero")
    assert failure.exit_status == 1


def test_the_last_failure_of_the_same_settings_counts(tmp_path):
    store = ResultStore(tmp_path)
    store.put_failure("toy", CONFIG, DataError("first"))
    store.put_failure("toy", CONFIG, DataError("second"))
    store.put_failure("toy", ToyConfig(model="pixels", seed=2), DataError("third"))
    assert {f.message for f in store.failures()} == {"second", "third"}


def test_a_success_of_the_same_settings_removes_the_failure(tmp_path):
    store = ResultStore(tmp_path)
    other = ToyConfig(model="gabor")
    for config in (CONFIG, other):
        store.put_failure("toy", config, DataError("nothing"))
    store.put("toy", "c1", CONFIG, [toy_row()])
    assert [failure.config["model"] for failure in store.failures()] == ["gabor"]
    store.clear_failure("toy", other)
    store.clear_failure("toy", other)
    assert store.failures() == []


@pytest.mark.parametrize("text", ["{", "[]", "", '{"stage": "toy"}', "\udcff"])
def test_a_damaged_failure_is_listed_and_rows_are_still_read(tmp_path, text):
    store = ResultStore(tmp_path)
    store.put("toy", "c1", CONFIG, [toy_row()])
    path = tmp_path / "toy" / "failed" / "abc.json"
    path.parent.mkdir()
    path.write_bytes(text.encode(errors="surrogateescape"))
    (listed,) = store.failures()
    assert re.search(r"abc\.json .*delete it", listed.message)
    assert listed.what == str(path)
    assert len(store.load()) == 1


def test_a_damaged_result_is_listed_and_the_others_are_read(tmp_path):
    store = ResultStore(tmp_path)
    store.put("toy", "c1", CONFIG, [toy_row()])
    path = tmp_path / "toy" / "c2.json"
    sound = (tmp_path / "toy" / "c1.json").read_text()
    sound = re.sub(r',\s*"digest": "\w+"', "", sound)  # as earlier versions wrote it
    path.write_text(re.sub(r'"value": [\d.]+', '"value": "high"', sound))
    with pytest.raises(DataError, match=r"0\.value: .*found 'high'; delete it"):
        list(store.documents())
    assert [one["config_id"] for one in store.documents(sound=True)] == ["c1"]
    (listed,) = store.failures("toy")
    assert (listed.stage, listed.what) == ("toy", str(path))


def test_only_plain_files_are_read_as_results(tmp_path):
    (tmp_path / "toy").mkdir()
    os.mkfifo(tmp_path / "toy" / "c1.json")
    (listed,) = ResultStore(tmp_path).failures()
    assert "no plain file" in listed.message
