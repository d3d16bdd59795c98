"""Predictivity that is followed during a training is that of the score at its end."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.runner import run
from ce_align.stages import online
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.train import train
from ce_align.trainer.presets import Hardware, preset_config

pytestmark = pytest.mark.slow


@pytest.fixture
def recording(tmp_path, rng):
    """Four neuroids that see how light four parts of an image are."""
    pixels = rng.integers(0, 255, (60, 40, 40, 3), np.uint8)
    light = pixels.reshape(60, 4, 400, 3).mean((2, 3))
    responses = rng.normal(10 + light[:, None], 0.5, (60, 3, 4))
    names = tuple(f"n{i}" for i in range(4))
    shown = ImageSet.from_array("shown", pixels)
    path = tmp_path / "toy.nc"
    write_recording(Recording("toy", shown, responses, names, "V4"), path)
    return str(path)


def test_the_last_number_is_the_score_and_changes_nothing_in_the_network(
    tmp_path, recording, rng, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    settings = preset_config(
        "tiny",
        "simclr",
        equivariance_weight=0.3,
        images="noise",
        epochs=3,
        pairs_per_step=8,
    )
    noise = rng.integers(0, 255, (16, 40, 40, 3), np.uint8)
    images = ImageSet.from_array("noise", noise)
    rows = train(
        settings,
        images,
        tmp_path / "run",
        Hardware(workers=0),
        recording=recording,
        score_every=2,
    )
    (own,) = (row.value for row in rows if row.metric == "online_predictivity")
    config = ScoreConfig(model="run", recording=recording, layer="layer3")
    outcome = run([config], tmp_path / "results")
    assert own == pytest.approx(outcome.rows[0].value, rel=1e-4)
    # After the second epoch and the last.
    header, *lines = (tmp_path / "run/log/version_0/metrics.csv").read_text().split()
    place = header.split(",").index("online_predictivity")
    assert sum(bool(line.split(",")[place]) for line in lines) == 2
    without = train(settings, images, tmp_path / "alone", Hardware(workers=0))
    assert rows[0].model_digest == without[0].model_digest


@pytest.mark.parametrize(
    ("seconds", "scored"), [(20, range(2, 25, 2)), (6, [8, 16, 24]), (1, [24])]
)
def test_scores_are_spaced_by_what_they_cost(recording, monkeypatch, seconds, scored):
    """By a clock that is told: an epoch takes so many seconds, a score .6."""
    now = [0.0]
    monkeypatch.setattr(online.time, "perf_counter", lambda: now[0])
    score = online.OnlineScore(recording, 16, None)

    def features(_, images):
        now[0] += 0.6
        return torch.rand(len(images), 30)

    monkeypatch.setattr(score, "_features", features)
    found, told = [], []
    for epoch in range(24):
        now[0] += seconds
        training = SimpleNamespace(
            current_epoch=epoch, config=SimpleNamespace(epochs=24), notify=told.append
        )
        if score(training):
            found.append(epoch + 1)
    assert found == list(scored)
    # One score is more than its share of the shortest, and that is said.
    assert len(told) == (seconds == 1)
