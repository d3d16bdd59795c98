"""Sweeps as a user runs them: in processes, and on SLURM itself."""

import json
from itertools import chain, repeat

import numpy as np
import pytest
from real_slurm import lacking, one_node
from waiting import LIMIT

from ce_align.data.imagesets import ImageSet
from ce_align.data.netcdf import write_recording
from ce_align.data.recordings import Recording
from ce_align.results import ResultStore
from ce_align.runner import run
from ce_align.stages.scores import ScoreConfig
from ce_align.sweeps import processes

pytestmark = pytest.mark.slow

#: Networks that kill their process the first time, or always fail.
NETWORKS = """
import os, signal
from pathlib import Path
from torch import nn

def small():
    return nn.Sequential(nn.Conv2d(3, 2, 5, 4), nn.Flatten())

def dies():
    seen = Path(__file__).with_name("seen")
    if not seen.exists():
        seen.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return small()

def fails():
    raise MemoryError("a network too many")
"""
SMALL = {"components": 3, "splits": 2, "seed": 3}


@pytest.fixture
def place(tmp_path, rng, monkeypatch):
    """A folder with a small recording and some networks."""
    monkeypatch.chdir(tmp_path)
    images = ImageSet.from_array("toy", rng.integers(0, 256, (40, 16, 16, 3), np.uint8))
    responses = rng.normal(size=(40, 4, 3)) + rng.normal(size=(40, 1, 3))
    recording = Recording("toy", images, responses, ("a", "b", "c"), "IT")
    write_recording(recording, tmp_path / "toy.nc")
    (tmp_path / "nets.py").write_text(NETWORKS)
    return tmp_path


def scores(*models):
    return [
        {"model": model, "recording": "toy.nc", "layer": layer, **SMALL}
        for model, layer in models
    ]


def plan(place, **stages):
    path = place / "plan.yaml"
    path.write_text(json.dumps(stages))  # which is YAML
    return path


def numbers(rows):
    return sorted(
        json.dumps(row.model_dump(mode="json", exclude={"created"})) for row in rows
    )


def states(ce_align):
    status, out, _ = ce_align("sweep", "status", "--json")
    assert status == 0
    return {record["name"]: record for record in json.loads(out)}


@pytest.fixture
def forked(python, monkeypatch):
    """The first process is started as a user's is; those after it are forked."""
    ways = chain(
        [processes._started],
        repeat(
            lambda command, log, environment: python(
                *command[1:], env=environment, log=log.name
            )
        ),
    )
    monkeypatch.setattr(processes, "_started", lambda *given: next(ways)(*given))


@pytest.mark.usefixtures("forked")
def test_processes_give_the_rows_of_one_whatever_dies_meanwhile(place, ce_align):
    chosen = scores(("pixels", "pixels"), ("nets.py:dies", "0"), ("nets.py:fails", "0"))
    path = plan(place, score=chosen)
    alone = ("--minutes", 0)
    status, _, told = ce_align("sweep", path, "--where", "processes", *alone)
    assert status == 1
    assert "a network too many" in told
    found = states(ce_align)
    assert found["score nets.py:dies"]["state"] == "done"
    failed = found["score nets.py:fails"]
    assert failed["state"] == "failed"
    assert "not enough memory: a network too many" in failed["reason"]
    assert (
        "once more with half the images" in ce_align("sweep", "logs", failed["job"])[1]
    )
    here = run([ScoreConfig(**one) for one in chosen[:2]], place / "alone")
    stored = ResultStore(place / "results").load("score")
    assert len(stored) == len(here.rows)
    assert set(stored["value"]) == {row.value for row in here.rows}
    # Again: what is stored stays, what failed is tried.
    _, out, _ = ce_align("sweep", path, *alone, "--dry-run", "--json")
    assert {one["name"]: one["state"] for one in json.loads(out)} == {
        "score pixels": "stored",
        "score nets.py:dies": "stored",
        "score nets.py:fails": "to be run",
    }


def test_a_cluster_trains_before_it_scores_and_names_what_failed(place, ce_align):
    if reason := lacking():
        pytest.skip(reason)
    training = {"objective": "mmcr", "equivariance_weight": 0, "preset": "tiny"}
    training["epochs"] = 0
    path = plan(
        place,
        train=[
            {**training, "images": "simulated"},
            {**training, "images": "absent", "seed": 1},
        ],
        score=[
            {"model": "trained", "recording": "toy.nc", "layer": "layer4", **SMALL},
            *scores(("nets.py:dies", "0")),
        ],
        figure=[{"figure": "1"}],  # it needs no rows
    )
    with one_node(place / "slurm") as cluster:
        status, _, told = ce_align("sweep", path, "--where", "slurm")
        assert status == 0, told
        assert "6 jobs given to SLURM" in told
        # Who starts it again meanwhile gives nothing twice.
        _, _, told = ce_align("sweep", path, "--where", "slurm")
        assert "0 jobs given to SLURM, 6 are there already" in told
        cluster.wait_until_empty(LIMIT)
        found = states(ce_align)
        assert {name: one["state"] for name, one in found.items()} == {
            "train runs/mmcr_l0_tiny": "done",
            "train runs/mmcr_l0_tiny_seed1": "failed",
            "score runs/mmcr_l0_tiny": "done",
            "score runs/mmcr_l0_tiny_seed1": "failed",
            "score nets.py:dies": "failed",
            "figure": "done",
        }
        assert found["score runs/mmcr_l0_tiny_seed1"]["reason"].startswith(
            "needs train runs/mmcr_l0_tiny_seed1, which failed: "
        )
        assert "as if it was killed" in found["score nets.py:dies"]["reason"]
        assert (place / "paper-figures" / "figure_1.png").is_file()
        # What failed is begun again by the same command, and can be taken back; what
        # was killed has twice the memory, should that have been the reason.
        again = ("--where", "slurm", "--slurm", "mem=300M")
        _, _, told = ce_align("sweep", path, *again)
        assert "4 jobs given to SLURM" in told
        asked = cluster.ask("squeue", "-h", "-o", "%m").split()
        assert sorted(asked) == ["300M", "300M", "300M", "600M"]
        assert states(ce_align)["figure"]["state"] == "waiting"
        assert "4 jobs cancelled" in ce_align("sweep", "cancel")[2]
        cluster.wait_until_empty(LIMIT)
