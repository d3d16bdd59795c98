"""The command as a user meets it: output, errors, exit status, interruption."""

import csv
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from waiting import LIMIT, wait_until

from ce_align.data.imagesets import ImageSet
from ce_align.data.named import load_recording
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.errors import DataError
from ce_align.results import FACTS, ResultStore
from ce_align.stages.scores import ScoreConfig

pytestmark = pytest.mark.slow

NETWORK = """
import torch
def build():
    torch.manual_seed({seed})
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.ReLU(), torch.nn.Flatten())
    network.ce_align = dict(input_size=32, layers=dict(V4="1"))
    return network
"""

ROW_KEYS = (
    *("model", "recording", "region", "layer", "metric", "value", "raw", "error"),
    *("ceiling", "n_stimuli", "n_neuroids", "n_splits", "regression", "seed"),
    *("animal", "time_start", "time_end", "layer_depth"),
    *("model_digest", "recording_digest", "config_id", "version", "created", "note"),
    *("ceiling_kind", "n_ceiling_stimuli", "stage", "origin", *FACTS),
)


def make_recording(path, n_stimuli=60, n_repetitions=4, seed=0, columns=None):
    rng = np.random.default_rng(seed)
    images = ImageSet.from_array(
        "toy",
        rng.integers(0, 255, (n_stimuli, 32, 32, 3), np.uint8),
        columns=columns or {},
    )
    luminance = np.array([np.mean(images.load(i)) for i in range(n_stimuli)])
    rates = 10 + 3 * (luminance - luminance.mean())[:, None, None]
    responses = rng.normal(rates, 0.5, (n_stimuli, n_repetitions, 5))
    names = tuple(f"n{i}" for i in range(5))
    write_recording(Recording("toy", images, responses, names, "V4"), path)
    return path


@pytest.fixture
def toy(tmp_path):
    """A recording and a network in the current folder."""
    make_recording(tmp_path / "toy.nc")
    (tmp_path / "net.py").write_text(NETWORK.format(seed=0))
    return ("--model", "net.py:build", "--recording", "toy.nc", "--components", 5)


def test_json_is_the_only_thing_on_standard_output(ce_align, toy):
    status, out, _ = ce_align("score", *toy, "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert tuple(sorted(row)) == tuple(sorted(ROW_KEYS))
    assert row["value"] == pytest.approx(row["raw"] ** 2 / row["ceiling"])
    assert (row["model"], row["layer"], row["region"]) == ("net.py:build", "1", "V4")


def test_a_second_run_answers_from_the_store_and_says_so(ce_align, toy):
    first = json.loads(ce_align("score", *toy, "--json")[1])
    status, out, err = ce_align("score", *toy, "--json")
    assert status == 0
    assert json.loads(out) == first
    assert "1 of 1 were in results already" in err
    forced = json.loads(ce_align("score", *toy, "--json", "--force")[1])
    assert forced[0]["raw"] == first[0]["raw"]
    assert len(list(Path("results/score").glob("*.json"))) == 1


def test_changed_weights_under_one_name_give_a_new_number(ce_align, toy):
    first = json.loads(ce_align("score", *toy, "--json")[1])
    Path("net.py").write_text(NETWORK.format(seed=1))
    second = json.loads(ce_align("score", *toy, "--json")[1])
    assert first[0]["raw"] != second[0]["raw"]
    assert first[0]["model_digest"] != second[0]["model_digest"]


def test_changed_responses_under_one_name_give_a_new_number(ce_align, toy, tmp_path):
    first = json.loads(ce_align("score", *toy, "--json")[1])
    make_recording(tmp_path / "toy.nc", seed=1)
    second = json.loads(ce_align("score", *toy, "--json")[1])
    assert first[0]["ceiling"] != second[0]["ceiling"]


def test_all_layers_are_scored_in_one_call(ce_align, toy):
    rows = json.loads(ce_align("score", *toy, "--layer", "all", "--json")[1])
    assert len({row["layer"] for row in rows}) == len(rows) > 1


def test_nulls_stand_beside_a_network(ce_align, toy):
    settings = ("--regression", "ridge", "--alpha", 1, "--splits", 3)
    told = (*toy, *settings, "--nulls", 2)
    status, out, err = ce_align("score", *told, "--json")
    assert status == 0, err
    raw = {row["model"]: row["raw"] for row in json.loads(out)}
    name = toy[1]
    nulls = [f"untrained/{k}:{name}" for k in (1, 2)]
    assert list(raw) == [name, *nulls, "pixels", "gabor", "v1_like"]
    assert len({raw[model] for model in (name, *nulls)}) == 3
    status, out, err = ce_align("score", *told)
    mean = sum(raw[null] for null in nulls) / 2
    assert f"{mean:.4f} ±" in out


def test_without_repetitions_the_table_says_why_there_is_no_score(
    ce_align, toy, tmp_path
):
    make_recording(tmp_path / "toy.nc", n_repetitions=1)
    status, out, _ = ce_align("score", *toy)
    assert status == 0
    assert "no repetitions" in out
    (row,) = json.loads(ce_align("score", *toy, "--json")[1])
    assert row["value"] is None
    assert row["ceiling"] is None
    assert -1 <= row["raw"] <= 1


def test_arrays_beside_the_row_give_its_numbers(ce_align, toy):
    from ce_align.results import ResultStore

    (row,) = json.loads(ce_align("score", *toy, "--json")[1])
    arrays = ResultStore(Path("results")).arrays("score", row["config_id"])
    assert arrays["r"].shape == (10, 5)
    medians = np.median(arrays["r"].values, axis=1)
    assert row["raw"] == pytest.approx(medians.mean(), abs=1e-12)
    assert row["error"] == pytest.approx(medians.std() / np.sqrt(10), abs=1e-12)


MISTAKES = [
    (("--model", "ce_mmr_l0.1"), "ce_mmcr_l0.1"),
    (("--model", "torchvision/resnet5O:none"), "resnet50"),
    (("--model", "absent.py:build"), r"absent.py"),
    (("--model", "net.py:nothing"), "nothing"),
    (("--recording", "simulatd"), "simulated"),
    (("--recording", "absent.nc"), "no recording at absent.nc"),
    (("--layer", "9"), "9"),
    (("--components", 500), "500"),
    (("--splits", 3, "--stratify", "object_name"), "object_name"),
    (("--layer", "all", "--layer", "1"), "--layer all"),
    (("--device", "quantum"), "quantum"),
    (("--alpha", -1, "--regression", "ridge"), "alpha"),
]


@pytest.mark.parametrize(("options", "expected"), MISTAKES)
def test_each_mistake_is_one_line_and_status_2(ce_align, toy, options, expected):
    status, out, err = ce_align("score", *toy, *options)
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 2
    assert out == "" or "toy.nc" in out
    assert len(lines) == 1
    assert expected in lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("columns", "stimuli", "expected"),
    [
        ({"k": np.arange(60) % 30}, 60, "fewer"),
        ({"k": np.array([0] * 59 + [1])}, 60, "one"),
        ({}, 3, "stimuli"),
    ],
)
def test_recordings_too_small_for_the_splits_are_refused(
    ce_align, toy, tmp_path, columns, stimuli, expected
):
    make_recording(tmp_path / "toy.nc", n_stimuli=stimuli, columns=columns)
    by = ("--stratify", "k") if columns else ()
    status, _, err = ce_align("score", *toy, *by)
    assert status == 2
    assert expected in err
    assert "Traceback" not in err


def test_what_can_be_scored_is_scored_when_something_is_missing(ce_align, toy):
    status, out, err = ce_align("score", *toy, "--recording", "absent.nc", "--json")
    assert status == 2
    assert [row["recording"] for row in json.loads(out)] == ["toy.nc"]
    assert "error: no recording at absent.nc" in err


def test_private_recordings_are_named_with_what_to_do(ce_align, toy, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no network in this test")

    monkeypatch.setattr("socket.socket.connect", refuse)
    status, _, err = ce_align("score", "--model", "net.py:build", "--recording", "it")
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert status == 1
    assert len(lines) == 4
    for name, line in zip(
        ("majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020"),
        lines,
        strict=True,
    ):
        assert name in line
        assert "private" in line


def test_results_are_listed_and_written_as_csv(ce_align, toy):
    ce_align("score", *toy)
    status, out, _ = ce_align("results")
    assert status == 0
    assert "net.py:build" in out
    assert ce_align("results", "--csv", "rows.csv")[0] == 0
    assert Path("rows.csv").read_text().count("\n") == 2
    assert (
        "no score rows in elsewhere"
        in (ce_align("results", "--stage", "score", "--results", "elsewhere")[2])
    )


def test_results_name_what_failed_and_why(ce_align):
    config = ScoreConfig(model="runs/a", recording="toy", layer="layer4")
    store = ResultStore(Path("results"))
    store.put_failure("score", config, DataError("no memory left"))
    status, out, _ = ce_align("results")
    assert status == 0
    for word in ("runs/a · layer4 · toy", "no memory left"):
        assert word in out
    _, out, err = ce_align("results", "--stage", "train")
    assert (out, "no train rows" in err) == ("", True)
    _, _, err = ce_align("results", "--csv", "rows.csv")
    assert "1 that failed" in err
    (row,) = csv.DictReader(Path("rows.csv").read_text(encoding="utf-8").splitlines())
    assert (row["state"], row["value"], row["model"]) == ("failed", "", "runs/a")
    assert row["note"] == "no memory left"


def test_import_writes_a_recording_that_score_takes(ce_align, toy, tmp_path, rng):
    images = ImageSet.from_array("x", rng.integers(0, 255, (40, 9, 9, 3), np.uint8))
    (tmp_path / "stimuli").mkdir()
    for i in range(40):
        images.load(i).save(tmp_path / "stimuli" / f"{i}.png")
    np.save("responses.npy", rng.poisson(5, (4, 40, 3)).astype(float))
    arguments = ("--responses", "responses.npy", "--images", "stimuli")
    axes = ("--axes", "neuroid,stimulus,repetition", "--region", "V4")
    status, out, err = ce_align("import", *arguments, *axes, "--out", "mine.nc")
    assert (status, out) == (0, "")
    assert "40 stimuli × 3 repetitions × 4 neuroids" in err
    assert "mine.nc" in ce_align("recordings")[1]
    network = ("--model", "net.py:build", "--components", 3)
    assert ce_align("score", *network, "--recording", "mine.nc")[0] == 0
    status, out, err = ce_align("recordings", "show", "mine.nc", "--figure", "mine")
    assert status == 0
    for word in ("40 images × 3", "4 V4", "none to be seen"):
        assert word in out
    assert "wrote mine.pdf" in err
    (summary,) = json.loads(ce_align("recordings", "show", "mine.nc", "--json")[1])
    assert summary["neuroids"] == {"V4": 4}
    status, _, err = ce_align("import", *arguments, *axes, "--out", "mine.nc")
    assert status == 2
    assert "mine.nc exists" in err
    status, _, err = ce_align("import", *arguments, *axes, "--out", "mine.csv")
    assert status == 2
    assert "must end in .nc" in err


def test_import_names_a_broken_image_and_writes_nothing(ce_align, tmp_path, rng):
    images = ImageSet.from_array("x", rng.integers(0, 255, (9, 9, 9, 3), np.uint8))
    (tmp_path / "stimuli").mkdir()
    for i in range(9):
        images.load(i).save(tmp_path / "stimuli" / f"{i}.png")
    (tmp_path / "stimuli" / "4.png").write_bytes(b"torn")
    np.save("responses.npy", rng.normal(size=(9, 3)))
    status, _, err = ce_align(
        *("import", "--responses", "responses.npy", "--axes", "stimulus,neuroid"),
        *("--images", "stimuli", "--region", "V4", "--out", "mine.nc"),
    )
    assert status == 2
    assert err.startswith("error: image 4.png cannot be read")
    assert not Path("mine.nc").exists()


def test_models_lists_the_catalogue(ce_align):
    status, out, _ = ce_align("models", "paper")
    assert status == 0
    assert out.count("CE-") == 21


def test_version_and_help_need_nothing_heavy():
    code = (
        "import sys; sys.argv = ['ce-align', '--version']\n"
        "from ce_align.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.startswith("ce-align ")
    assert done.stdout.endswith("False\n")


def test_debug_shows_the_traceback(ce_align, toy):
    _, _, err = ce_align("--debug", "score", *toy, "--components", 500)
    assert "Traceback" in err


SLOW_NETWORK = NETWORK.replace(
    "    network.ce_align",
    "    import os, pathlib, time\n"
    "    caches = pathlib.Path(os.environ['CE_ALIGN_HOME'])\n"
    "    def wait(*_):\n"
    "        if list(caches.rglob('*.tmp*')):\n"  # the first images are written
    f"            time.sleep({LIMIT})\n"
    "    network[0].register_forward_hook(wait)\n"
    "    network.ce_align",
).format(seed=0)


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_half_written(ce_align, toy, sent, python):
    whole = json.loads(ce_align("score", *toy, "--json", "--results", "a")[1])
    Path("net.py").write_text(SLOW_NETWORK)
    arguments = [*map(str, toy), "--results", "b", "--batch-size", "2"]
    caches = {**os.environ, "CE_ALIGN_HOME": str(Path("caches").resolve())}
    process = python("-m", "ce_align", "score", *arguments, env=caches)
    wait_until(lambda: list(Path("caches").rglob("*.tmp*")), process)
    process.send_signal(sent)
    _, err = process.communicate()
    assert process.returncode == 128 + sent
    said = "0 of 1 configurations are in b; the same again goes on from there"
    # Progress may stand above on a slow machine.
    assert err.splitlines()[-1] == f"interrupted: {said}"
    left = [
        p for p in (*Path("caches").rglob("*"), *Path("b").rglob("*")) if p.is_file()
    ]
    assert left == []
    Path("net.py").write_text(NETWORK.format(seed=0))
    again = json.loads(ce_align("score", *toy, "--json", "--results", "b")[1])
    assert again[0]["raw"] == whole[0]["raw"]


def test_features_score_without_a_network(ce_align, toy, rng, tmp_path):
    recording = toy[toy.index("--recording") + 1]
    ids = load_recording(recording).images.ids
    values = rng.normal(size=(len(ids), 30)).astype(np.float32)
    np.save("mine.npy", values)
    Path("ids.csv").write_text("stimulus_id\n" + "\n".join(ids) + "\n")
    options = ("--recording", recording, "--components", "3", "--json")
    status, out, err = ce_align("score", "--features", "mine.npy", *options)
    assert status == 0, err
    (row,) = json.loads(out)
    assert row["model"] == "features:mine.npy"
    named = ("--features", "./mine.npy", "--stimuli", "ids.csv", "--model", "pixels")
    rows = json.loads(ce_align("score", *named, *options)[1])
    assert [row["model"] for row in rows] == ["pixels", "features:mine.npy:ids.csv"]
    assert rows[1]["raw"] == row["raw"]
    status, _, err = ce_align("score", "--model", "pixels", "--stimuli", "a", *options)
    assert (status, "--stimuli is of --features" in err) == (2, True)


def test_what_a_result_is_made_of_is_listed(ce_align, toy):
    (row,) = json.loads(ce_align("score", *toy, "--json")[1])
    status, out, _ = ce_align("results", "--identity", row["config_id"][:8])
    assert status == 0
    for text in ("net.py:build", "weights", "preprocessing", "recording", "code"):
        assert text in out
    status, _, err = ce_align("results", "--identity", "zzz")
    assert (status, "no results in results have a config_id" in err) == (2, True)


def test_a_network_is_exported_for_the_hub(ce_align):
    pytest.importorskip("timm")
    options = ("--hub", "shared/vit", "--licence", "mit")
    status, _, err = ce_align("export", "timm/test_vit:none", *options)
    assert (status, "local-dir:shared/vit" in err) == (0, True)
    assert "license: mit" in Path("shared/vit/README.md").read_text()
    status, _, err = ce_align("export", "pixels", "--hub", "shared/pixels")
    assert (status, "nobody could build pixels" in err) == (2, True)
