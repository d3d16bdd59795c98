"""`ce-align demo`: one recipe for the whole way, and a report at its end."""

from pathlib import Path

import numpy as np
import pytest

from ce_align import demonstration as demo
from ce_align.data.named import load_recording
from ce_align.data.netcdf import write_recording
from ce_align.data.simulation import simulated_recording
from ce_align.demonstration import demo_recipe
from ce_align.report.page import parts
from ce_align.report.paper.files import FigureConfig
from ce_align.runner import STAGES
from ce_align.stages.analyze import AnalysisConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.train import training_folder
from ce_align.trainer.presets import TrainConfig

pytestmark = pytest.mark.slow


def test_the_demonstration_trains_three_objectives_at_two_weights(tmp_path):
    configs = demo_recipe(tmp_path)
    trainings = [config for config in configs if isinstance(config, TrainConfig)]
    settings = {(c.objective, c.equivariance_weight) for c in trainings}
    assert len(settings) == len(trainings) == 6
    assert {objective for objective, _ in settings} == {"mmcr", "barlow", "simclr"}
    assert {config.stage for config in configs} <= STAGES.keys()


def test_every_network_that_it_trains_is_scored_bures_compared_and_decoded(tmp_path):
    configs = demo_recipe(tmp_path)
    trained = {
        str(training_folder(c, tmp_path)) for c in configs if isinstance(c, TrainConfig)
    }
    scored = {c.model for c in configs if isinstance(c, ScoreConfig)}
    measured = {(c.model, c.metric) for c in configs if isinstance(c, AnalysisConfig)}
    assert scored == trained
    assert measured == {(n, m) for n in trained for m in ("bures", "decoding")}


def test_all_its_data_are_simulated(tmp_path):
    for config in demo_recipe(tmp_path):
        for name in ("images", "recording"):
            assert getattr(config, name, "simulated") == "simulated"


def test_its_session_is_imported_with_every_spike_and_stays_simulated(tmp_path):
    made = simulated_recording(**demo.SESSION).recording
    lines = []
    config = demo.session_score(tmp_path, lines.append)
    recording = load_recording(config.recording)
    assert recording.origin == "simulated"
    assert "spikes of spike times (s) are counted in [start, end) of 70–170 ms" in lines
    assert set(recording.images.ids) == set(made.images.ids)
    place = [recording.images.ids.index(name) for name in made.images.ids]
    found = recording.averaged()[place]
    assert np.allclose(found, made.averaged(), rtol=1e-12, atol=0)
    assert demo.session_score(tmp_path) == config


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A simulated recording as small as scores allow."""
    sizes = {"n_images": 80, "n_repetitions": 3, "n_neuroids": 6, "image_size": 32}
    path = tmp_path_factory.mktemp("simulated") / "small.nc"
    write_recording(simulated_recording(**sizes).recording, path)
    return str(path)


@pytest.fixture
def short(monkeypatch):
    """Put configurations in place of the recipe, whose page has but one figure."""
    monkeypatch.setattr(parts, "FIGURES", {"1": parts.FIGURES["1"]})

    def put(*configs, session=None):
        monkeypatch.setattr(demo, "demo_recipe", lambda runs: configs)
        if session is not None:
            monkeypatch.setattr(demo, "session_score", lambda out, tell: session)

    return put


def test_it_begins_and_ends_with_the_place_of_the_report_and_resumes(
    ce_align, short, recording
):
    short(ScoreConfig(model="pixels", recording=recording), FigureConfig(figure="1"))
    status, out, err = ce_align("demo", "--out", "here")
    assert status == 0
    page = Path("here/report.html").resolve()
    assert err.splitlines()[0] == f"The report will be {page}"
    assert err.splitlines()[-1] == f"The report is {page}"
    assert "pixels" in out
    assert "simulated" in page.read_text()
    assert Path("here/paper/figure_1.pdf").exists()
    stored = {p: p.stat().st_mtime_ns for p in Path("here/results").rglob("*.json")}
    status, _, err = ce_align("demo", "--out", "here")
    assert status == 0
    assert "2 of 3 were in here/results already" in err
    assert {p: p.stat().st_mtime_ns for p in stored} == stored


def test_what_failed_is_named_and_the_rest_is_in_the_report(ce_align, short, recording):
    found = ScoreConfig(model="pixels", recording=recording)
    lost = ScoreConfig(model="nowhere.py:f", recording=recording, layer="x")
    short(lost, session=found)
    status, out, err = ce_align("demo", "--out", "here")
    assert status == 2
    assert "nowhere.py" in err
    assert "pixels" in out
    assert "pixels" in Path("here/report.html").read_text()


def test_notes_of_figures_stand_under_them_and_not_on_the_screen(
    ce_align, short, recording
):
    pair = {"model_a": "gabor", "model_b": "pixels", "recording": recording}
    score = ScoreConfig(model="pixels", recording=recording)
    short(OverlapConfig(**pair), FigureConfig(figure="overlap"), session=score)
    status, _, err = ce_align("demo", "--out", "here")
    assert status == 0
    assert "figure_overlap:" not in err
    status, _, err = ce_align(
        "figures", "--which", "overlap", "--results", "here/results"
    )
    assert status == 0
    assert "figure_overlap: Simulated" in err
