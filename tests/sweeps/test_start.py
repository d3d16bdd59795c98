"""How jobs are begun: with which means, and where networks run."""

import pytest

from ce_align.results import ResultStore
from ce_align.stages.running import Hardware
from ce_align.stages.scores import ScoreConfig
from ce_align.sweeps import processes
from ce_align.sweeps.board import Board
from ce_align.sweeps.start import Means, planned, start


@pytest.mark.parametrize(
    ("asked", "gpus", "device"),
    [("auto", 0, "auto"), ("auto", 1, "auto"), ("auto", 2, "gpus"), ("cpu", 2, "cpu")],
)
def test_several_gpus_of_a_job_share_the_images(
    tmp_path, monkeypatch, asked, gpus, device
):
    told = {}
    monkeypatch.setattr(
        processes, "in_processes", lambda board, sweep, *_, **means: told.update(means)
    )
    config = ScoreConfig(model="pixels", recording="simulated", layer="pixels")
    store = ResultStore(tmp_path)
    sweep, rest = planned([config], store, hardware=Hardware(asked))
    start(sweep, rest, store, Means("processes", gpus_per_job=gpus))
    assert told["gpus_per_job"] == gpus
    assert Board(store).read_sweep().settings["hardware"]["device"] == device
