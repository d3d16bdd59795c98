"""`score --brain`: each animal predicted from the others."""

import json
from pathlib import Path

import numpy as np
import pytest

from ce_align.data.imagesets import ImageSet
from ce_align.data.named import load_recording
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.metrics.predictivity import brainscore_splits, cross_validated_r
from ce_align.models.brain import load_brain

FAST = ("--regression", "ridge", "--alpha", 0.1, "--splits", 3)


@pytest.fixture
def monkeys(tmp_path, monkeypatch, rng):
    """Animals A and B follow the same signal, N is noise."""
    monkeypatch.chdir(tmp_path)
    images = ImageSet.from_array("x", rng.integers(0, 256, (60, 16, 16, 3), np.uint8))
    animal = np.repeat(["A", "B", "N"], 6)
    signal = rng.normal(size=(60, 3)) @ rng.normal(size=(3, 18)) * (animal != "N")
    rates = signal[:, None] + 0.3 * rng.normal(size=(60, 4, 18))
    names = tuple(f"{a}{k}" for k, a in enumerate(animal))
    recording = Recording("m", images, rates, names, "IT", neuroids={"animal": animal})
    write_recording(recording, Path("m.nc"))
    return recording


def test_animals_stand_beside_a_network_on_the_same_splits(ce_align, monkeys):
    told = ("score", "--model", "pixels", "--recording", "m.nc", *FAST, "--brain")
    status, out, err = ce_align(*told, "--json")
    assert status == 0, err
    rows = [row for row in json.loads(out) if row["model"].startswith("brain/")]
    raw = {row["model"].rpartition(":")[2]: row["raw"] for row in rows}
    assert raw.keys() == {"A", "B", "N"}
    assert min(raw["A"], raw["B"]) > 0.9
    assert abs(raw["N"]) < 0.5
    averages, kept = monkeys.averaged(), np.asarray(monkeys.neuroids["animal"]) == "A"
    r = cross_validated_r(
        averages[:, ~kept].astype(np.float32),
        averages[:, kept],
        brainscore_splits(60, n_splits=3),
        regression="ridge",
        alpha=0.1,
    )
    assert raw["A"] == pytest.approx(np.median(r, axis=1).mean(), abs=1e-6)
    table = ce_align(*told)[1]
    assert "other animals than A" in table
    assert "brain: an animal predicted by the others" in table


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("-m", "pixels", "-r", "simulated", "--brain"), "fewer than two animals"),
        (("-m", "brain/m.nc:C", "-r", "m.nc"), "no animal 'C'; it has A, B, N"),
    ],
)
def test_animals_that_are_not_there_are_named(ce_align, monkeys, arguments, expected):
    status, _, err = ce_align("score", *arguments)
    assert status == 2
    assert expected in err


def test_an_animal_is_never_among_those_that_predict_it(monkeys):
    values = load_brain("m.nc:B", load_recording).arrays["IT"]
    others = np.asarray(monkeys.neuroids["animal"]) != "B"
    np.testing.assert_allclose(values, monkeys.averaged()[:, others], rtol=1e-6)
