"""`analyze`, `correlate` and `overlap` as a user meets them."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from waiting import LIMIT, wait_until

from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording

pytestmark = pytest.mark.slow

NETWORK = """
import torch
def build(seed={seed}):
    torch.manual_seed(seed)
    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=4), torch.nn.Tanh())
    network.ce_align = dict(input_size=32, layers=dict(IT="1", V4="1"))
    return network
def other():
    return build(7)
def sixth():
    return build(6)
def fifth():
    return build(5)
def fourth():
    return build(4)
def dead():
    network = build()
    for parameter in network.parameters():
        parameter.data.zero_()
    return network
"""

SMALL = (
    *("--size", 32, "--comparisons", 12, "--views", 6, "--repeats", 2),
    *("--crops", 4, "--photometrics", 4),
)
MODEL = ("--model", "net.py:build")
TWO_LAYERS = ("--layer", "1", "--layer", "9")
FIVE = [f"net.py:{name}" for name in ("build", "other", "sixth", "fifth", "fourth")]


def write_images(folder, n=15, n_classes=0):
    rng = np.random.default_rng(0)
    for i in range(n):
        coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
        place = folder / f"class_{i % n_classes}" if n_classes else folder
        place.mkdir(parents=True, exist_ok=True)
        pixels = coarse.repeat(8, axis=0).repeat(8, axis=1)
        Image.fromarray(pixels).save(place / f"{i}.png")


def write_scores(path, name="toy"):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (60, 32, 32, 3), np.uint8)
    images = ImageSet.from_array(name, pixels)
    luminance = pixels.mean(axis=(1, 2, 3)) - pixels.mean()
    responses = rng.normal(10 + 3 * luminance[:, None, None], 0.5, (60, 4, 5))
    names = tuple(f"n{k}" for k in range(5))
    write_recording(Recording(name, images, responses, names, "V4"), path)


@pytest.fixture
def toy(tmp_path):
    """Networks and fifteen images in the current folder; options of a small run."""
    (tmp_path / "net.py").write_text(NETWORK.format(seed=0))
    write_images(tmp_path / "images")
    return (*MODEL, "--images", "images", *SMALL)


def errors(text):
    return [line for line in text.splitlines() if line.startswith("error:")]


def test_all_measures_in_one_run(ce_align, toy):
    status, out, err = ce_align("analyze", *toy, "--json")
    assert status == 0, err
    rows = {row["metric"]: row for row in json.loads(out)}
    for name in (
        *("augmentation_augmentation", "augmentation_centroid_floor"),
        *("spatial_photometric_excess", "decoding_ols", "decoding_ridge_hue"),
        *("decoding_ridge_strong_only", "factorization_weak", "invariance_strong"),
        *("dimensionality_photometric", "steerability_by_parameters"),
    ):
        assert rows[name]["model"] == "net.py:build"
    assert not any("delta" in name or "class" in name for name in rows)
    assert "images: images (15)" in err
    # What is left out says why.
    assert "no class–class distances: images has no classes of 4 images" in err
    assert err.count("no ΔD_B of net.py:build: ") == 1


def test_a_second_run_answers_from_the_store_and_says_so(ce_align, toy):
    first = json.loads(ce_align("analyze", *toy, "--json")[1])
    status, out, err = ce_align("analyze", *toy, "--json")
    assert status == 0
    assert json.loads(out) == first
    assert "5 of 5 were in results already" in err


def test_the_same_seed_gives_the_same_rows_on_one_and_two_workers(ce_align, toy):
    def numbers(*options):
        rows = json.loads(ce_align("analyze", *toy, "--json", *options)[1])
        return [{k: v for k, v in row.items() if k != "created"} for row in rows]

    one = numbers("--results", "a")
    cached = Path(os.environ["CE_ALIGN_HOME"]) / "responses"
    cached.rename(cached.with_name("before"))
    assert numbers("--results", "b", "--workers", 2, "--batch-size", 32) == one
    assert numbers("--results", "c", "--seed", 1) != one


def test_a_baseline_gives_differences(ce_align, toy):
    against = ("--metric", "bures", "--baseline", "net.py:other")
    rows = json.loads(ce_align("analyze", *toy, *against, "--json")[1])
    (row,) = [r for r in rows if r["metric"] == "augmentation_centroid_delta"]
    assert row["baseline"] == "net.py:other"
    assert row["low"] < row["value"] < row["high"]
    assert {r["model"] for r in rows} == {"net.py:build"}


def test_changed_weights_under_one_name_give_new_numbers(ce_align, toy):
    options = ("analyze", *toy, "--metric", "dimensionality", "--json")
    first = json.loads(ce_align(*options)[1])
    Path("net.py").write_text(NETWORK.format(seed=3))
    second = json.loads(ce_align(*options)[1])
    assert first[0]["value"] != second[0]["value"]
    assert first[0]["config_id"] != second[0]["config_id"]


def test_folders_are_classes(ce_align, toy, tmp_path):
    write_images(tmp_path / "sorted", 30, n_classes=6)
    options = ("--metric", "bures", "--images", "sorted", "--json")
    _, out, err = ce_align("analyze", *toy, *options, "--baseline", "net.py:other")
    rows = {row["metric"]: row for row in json.loads(out)}
    assert "no d" not in err
    assert rows["class_class"]["n_points"] == 5
    assert rows["class_class"]["n_units"] == 6
    fewer = ce_align("analyze", *toy, *options, "--classes", 5)[1]
    assert {r["n_units"] for r in json.loads(fewer) if "class" in r["metric"]} == {5}


def test_centroids_of_the_compared_images_cost_fewer_views(ce_align, toy):
    options = (*MODEL, *SMALL, "--metric", "bures", "--json", "--centroids", "compared")
    _, out, err = ce_align("analyze", *options)
    assert "centroids" not in err
    notes = {row["metric"]: row["note"] for row in json.loads(out)}
    assert notes["augmentation_centroid"] == "12 centroids"


def test_without_images_the_scenes_are_shown_and_it_is_said(ce_align, toy):
    options = (*MODEL, *SMALL, "--metric", "bures", "--json")
    _, out, err = ce_align("analyze", *options)
    assert "images: simulated (400)" in err
    assert "centroids: of all 400 images, 6 views each" in err
    assert any(row["metric"] == "class_class" for row in json.loads(out))


def test_imagenet_is_shown_where_the_environment_names_it(ce_align, toy, monkeypatch):
    monkeypatch.setenv("CE_ALIGN_IMAGENET", "images")
    _, _, err = ce_align("analyze", *MODEL, *SMALL, "--metric", "dimensionality")
    assert "images: images (15)" in err


def test_the_papers_networks_that_are_absent_are_told_in_one_line(ce_align, toy):
    options = ("--images", "images", *SMALL, "--metric", "bures")
    status, out, err = ce_align("analyze", *options)
    assert status == 1
    assert out == ""
    (line,) = errors(err)
    assert "21 are not at hand (ce_mmcr_l0, " in line
    assert "and 18 more" in line
    status, out, err = ce_align("analyze", *options, *MODEL, "--model", "paper")
    assert status == 1
    assert "net.py:build" in out
    assert len(errors(err)) == 1


def test_a_network_without_variability_is_named_and_the_others_run(ce_align, toy):
    dead = ("--model", "net.py:dead", "--metric", "bures", "--json")
    status, out, err = ce_align("analyze", *toy, *dead)
    assert status == 2
    assert {row["model"] for row in json.loads(out)} == {"net.py:build"}
    (line,) = errors(err)
    assert line.startswith("error: net.py:dead")
    assert "constant" in line


MISTAKES = [
    (("--model", "ce_mmr_l0.1"), "ce_mmcr_l0.1"),
    (("--model", "net.py:nothing"), "nothing"),
    (("--baseline", "net.py:nothing"), "nothing"),
    (("--images", "absent"), "no images at absent"),
    (("--layer", "9"), "'9'"),
    (("--device", "quantum"), "quantum"),
    (("--classes", 5), "5 classes are asked for, images has 0"),
    (("--images", "four"), "four has 4 images; analyses need 5 or more"),
    (("--images", "broken"), "0.png"),
]


@pytest.mark.parametrize(("options", "expected"), MISTAKES)
def test_each_mistake_is_one_line_and_status_2(
    ce_align, toy, tmp_path, options, expected
):
    write_images(tmp_path / "four", 4)
    write_images(tmp_path / "broken", 6)
    (tmp_path / "broken" / "0.png").write_bytes(b"not an image")
    status, _, err = ce_align("analyze", *toy, "--metric", "bures", *options)
    assert status == 2
    (line,) = errors(err)
    assert expected in line
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("option", "value"),
    [("--metric", "burs"), ("--comparisons", 9), ("--views", 3), ("--interval", "x")],
)
def test_impossible_options_are_refused_with_what_is_possible(
    ce_align, toy, option, value
):
    status, out, err = ce_align("analyze", *toy, option, value)
    assert (status, out) == (2, "")
    assert option in err
    assert "Traceback" not in err


WAITING = """
import sys, time
from contextlib import contextmanager
from ce_align.cli import main
from ce_align.stages import responses
whole = responses.atomic_path

@contextmanager
def waiting(path):
    with whole(path) as temporary:
        yield temporary
        if list(path.parent.glob("0*.npy")):  # the second block is not yet in place
            time.sleep(%d)

responses.atomic_path = waiting
main()
"""


def test_an_interrupted_run_goes_on_where_it_stopped(
    ce_align, toy, monkeypatch, python
):
    slow = ["--images", "images", *map(str, SMALL), "--metric", "bures"]
    process = python("-c", WAITING % LIMIT, "analyze", *MODEL, *slow)
    cache = Path(os.environ["CE_ALIGN_HOME"]) / "responses"
    wait_until(lambda: len(list(cache.rglob("*.npy"))) > 1, process)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in err
    assert list(cache.rglob("*.tmp*")) == []
    assert not list(Path("results").rglob("*.json"))
    kept = {file: file.stat().st_mtime_ns for file in cache.rglob("*.npy")}
    assert kept
    again = json.loads(ce_align("analyze", *MODEL, *slow, "--json")[1])
    assert {file: file.stat().st_mtime_ns for file in kept} == kept
    monkeypatch.setenv("CE_ALIGN_HOME", "fresh")
    whole = ce_align("analyze", *MODEL, *slow, "--json", "--results", "whole")[1]
    assert [row["value"] for row in json.loads(whole)] == [r["value"] for r in again]


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("scored") / "folder"


@pytest.fixture
def scored(ce_align, toy, kept):
    """Five networks scored and analysed, once; rows of the analyses."""
    if kept.exists():
        shutil.copytree(kept, ".", dirs_exist_ok=True)
        return json.loads(Path("rows.json").read_text())
    write_scores(Path("toy.nc"))
    models = [argument for name in FIVE for argument in ("--model", name)]
    options = ("--recording", "toy.nc", "--components", 5)
    assert ce_align("score", *models, *options)[0] == 0
    small = ("--images", "images", *SMALL, "--metric", "dimensionality", "--json")
    status, out, _ = ce_align("analyze", *models, *small, "--results", "elsewhere")
    assert status == 0
    Path("rows.json").write_text(out)
    shutil.copytree(".", kept)
    return json.loads(out)


def test_rows_of_analyze_feed_correlate(ce_align, scored):
    status, out, err = ce_align("correlate", "--rows", "rows.json", "--json")
    assert status == 0, err
    rows = json.loads(out)
    assert {row["measure"] for row in rows} == {row["metric"] for row in scored}
    assert {row["n_networks"] for row in rows} == {5}
    assert {row["recording"] for row in rows} == {"toy.nc"}
    (row, *_) = rows
    assert row["r_squared"] == pytest.approx(row["value"] ** 2)
    ce_align("correlate", "--rows", "rows.json")
    status, out, _ = ce_align("correlate", "--results", "elsewhere")
    assert (status, out) == (2, "")


def test_correlate_reads_standard_input_and_the_store(ce_align, scored, monkeypatch):
    import io

    monkeypatch.setattr("sys.stdin", io.StringIO(Path("rows.json").read_text()))
    by_pipe = json.loads(ce_align("correlate", "--rows", "-", "--json")[1])
    for file in Path("elsewhere/analyze").iterdir():
        file.rename(Path("results") / file.name)
    Path("results/analyze").mkdir()
    for file in [*Path("results").glob("*.json"), *Path("results").glob("*.nc")]:
        file.rename(Path("results/analyze") / file.name)
    by_store = json.loads(ce_align("correlate", "--json")[1])
    assert [r["value"] for r in by_store] == [r["value"] for r in by_pipe]


def test_figures_are_drawn_as_pdf_and_png(ce_align, scored):
    options = ("--rows", "rows.json", "--figure", "out/correlations")
    status, _, err = ce_align("correlate", *options)
    assert status == 0
    assert "out/correlations.png" in err
    measured = (*MODEL, "--images", "images", *SMALL, "--metric", "dimensionality")
    assert ce_align("analyze", *measured, "--figure", "out/measures")[0] == 0
    for name in ("correlations", "measures"):
        assert Path(f"out/{name}.pdf").read_bytes().startswith(b"%PDF")
        assert Image.open(f"out/{name}.png").width > 300


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "needs rows of `ce-align score` (or `import-scores`) and of"),
        (("--rows", "rows.json", "--against", "it"), "no scores against it"),
        (("--rows", "absent.json"), "absent.json is not a JSON array of rows"),
        (("--rows", "object.json"), "object.json is not a JSON array of rows"),
        (("--rows", "four.json"), "4 networks have both, 5 are needed"),
    ],
)
def test_what_correlate_cannot_use_is_one_line(ce_align, scored, options, expected):
    Path("object.json").write_text("{}")
    four = [row for row in scored if row["model"] != FIVE[0]]
    Path("four.json").write_text(json.dumps(four))
    status, out, err = ce_align("correlate", *options)
    assert (status, out) == (2, "")
    (line,) = errors(err)
    assert expected in line


def test_overlap_of_two_networks(ce_align, toy):
    write_scores(Path("toy.nc"))
    pair = (*MODEL, "--model", "net.py:other", "--recording", "toy.nc")
    status, out, err = ce_align("overlap", *pair, "--json")
    assert status == 0, err
    rows = {row["metric"]: row["value"] for row in json.loads(out)}
    assert rows["overlap_shared"] == pytest.approx(
        rows["overlap_r2_a"] + rows["overlap_r2_b"] - rows["overlap_r2_joint"]
    )
    status, out, err = ce_align("overlap", *pair)
    assert "unique_a" in out
    assert "in results already" in err


def test_comparison_of_networks_that_stand_after_the_command(ce_align, toy):
    write_scores(Path("toy.nc"))
    pair = (MODEL[-1], "net.py:other", "--recording", "toy.nc")
    fast = ("--regression", "ridge", "--splits", 3, "--resamples", 50)
    status, out, err = ce_align("compare", *pair, *fast)
    assert status == 0, err
    assert "told apart" in out
    assert "raw r, a − b" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("pixels", "toy.nc"), "toy.nc is a recording; put it after --recording"),
        (("pixels", "-r", "toy.nc"), "takes two networks or more, found 1: pixels"),
        (("-r", "toy.nc"), "name two networks or more"),
        (("pixels", "gabor"), "--recording is missing"),
    ],
)
def test_who_names_too_little_for_a_comparison_is_led(ce_align, toy, options, expected):
    status, out, err = ce_align("compare", *options)
    assert (status, out) == (2, "")
    (line,) = errors(err)
    assert expected in line


def test_overlap_takes_every_recording_that_a_pattern_names(ce_align, toy):
    write_scores(Path("toy.nc"))
    write_scores(Path("second.nc"), "second")
    pair = (*MODEL, "--model", "net.py:other", "--recording", "*.nc")
    status, out, err = ce_align("overlap", *pair)
    assert status == 0, err
    assert out.count("unique_a") == 2
    assert "toy" in out
    assert "second" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((*MODEL, "--recording", "toy.nc"), "overlap takes 2 of --model, found 1"),
        ((*MODEL, "-m", "pixels", "-r", "absent.nc"), "absent.nc"),
        ((*MODEL, "-m", "net.py:nothing", "-r", "toy.nc"), "nothing"),
        (
            (*MODEL, "-m", "pixels", "-r", "toy.nc", "--layer", "1"),
            "overlap takes 2 of --layer",
        ),
        ((*MODEL, "-m", "pixels", "-r", "toy.nc", *TWO_LAYERS), "no layer '9'"),
    ],
)
def test_what_overlap_cannot_use_is_one_line(ce_align, toy, options, expected):
    write_scores(Path("toy.nc"))
    write_scores(Path("second.nc"), "second")
    status, out, err = ce_align("overlap", *options)
    assert (status, out) == (2, "")
    (line,) = errors(err)
    assert expected in line
