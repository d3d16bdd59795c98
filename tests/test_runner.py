"""The one runner: shared loads, stored rows, failures, and other executors."""

from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import product
from typing import ClassVar

import numpy as np
import pytest
from forked import server

from ce_align.api import load_network
from ce_align.config import StageConfig
from ce_align.data import named
from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.errors import AccessError, CeAlignError, ConfigError, DataError
from ce_align.results import ResultStore
from ce_align.runner import distinct, plan, run
from ce_align.stages.running import Outcome, Run
from ce_align.stages.scores import ScoreConfig

pytestmark = pytest.mark.slow

SMALL = {"components": 3, "splits": 2}


@pytest.fixture
def toy(rng):
    """A small recording by its name."""
    images = ImageSet.from_array("toy", rng.integers(0, 256, (40, 16, 16, 3), np.uint8))
    responses = rng.normal(size=(40, 4, 3)) + rng.normal(size=(40, 1, 3))
    return {
        ("recording", "toy"): Recording("toy", images, responses, ("a", "b", "c"), "IT")
    }


def configs(*models, **settings):
    return [
        ScoreConfig(model=model, recording="toy", **{**SMALL, **settings})
        for model in models
    ]


def numbers(outcome):
    return [row.model_dump(exclude={"created"}) for row in outcome.rows]


def test_a_recording_is_loaded_once_for_all_networks(toy, tmp_path, monkeypatch):
    loaded = []

    def load(name):
        loaded.append(name)
        return toy["recording", name]

    monkeypatch.setattr(named, "load_recording", load)
    outcome = run(configs("pixels", "gabor"), tmp_path)
    assert loaded == ["toy"]
    assert [row.model for row in outcome.rows] == ["pixels", "gabor"]
    assert (outcome.n_done, outcome.n_stored) == (2, 0)
    assert run(configs("gabor"), tmp_path).n_stored == 1


def test_what_fails_is_kept_with_its_reason_until_it_no_longer_does(toy, tmp_path):
    absent = ScoreConfig(model="pixels", recording="absent.nc", **SMALL)
    outcome = run([absent, *configs("pixels")], tmp_path, given=toy)
    ((what, error),) = outcome.failures
    assert what == "absent.nc"
    assert len(outcome.rows) == 1
    store = ResultStore(tmp_path)
    (failure,) = store.failures("score")
    assert failure.config["recording"] == "absent.nc"
    assert failure.message == str(error)
    good = {("recording", "absent.nc"): toy["recording", "toy"]}
    assert not run([absent], tmp_path, given=good).failures
    assert store.failures("score") == []


def test_a_name_that_means_nothing_is_no_failure_to_keep(toy, tmp_path):
    outcome = run(configs("nothing"), tmp_path, given=toy)
    assert isinstance(outcome.failures[0][1], ConfigError)
    assert ResultStore(tmp_path).failures() == []


def test_committed_and_its_name_are_one_layer(toy, tmp_path):
    asked = [*configs("gabor"), *configs("gabor", layer="complex")]
    assert len(distinct(asked)) == 2
    (row,) = run(asked, tmp_path, given=toy).rows
    assert row.layer == "complex"


@contextmanager
def dask_executor():
    from distributed import Client, LocalCluster

    settings = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    with LocalCluster(**settings) as cluster, Client(cluster) as client:
        yield client.get_executor()


def process_executor():
    return ProcessPoolExecutor(2, mp_context=server())


@pytest.mark.parametrize("executor_of", [process_executor, dask_executor])
def test_another_executor_gives_the_same_rows(tmp_path, toy, executor_of):
    here = run(configs("pixels", "gabor"), tmp_path / "here", given=toy)
    # Names of Brain-Score are known there, too: this recording is private, not unknown.
    private = ScoreConfig(model="pixels", recording="sanghavi2020", **SMALL)
    asked = [*configs("pixels", "gabor", "nothing"), private]
    with executor_of() as executor:
        there = run(asked, tmp_path / "there", given=toy, where=executor)
    assert numbers(there) == numbers(here)
    assert {what for what, _ in there.failures} == {"nothing", "sanghavi2020"}
    assert isinstance(dict(there.failures)["sanghavi2020"], AccessError)
    assert run(configs("gabor"), tmp_path / "there", given=toy).n_stored == 1


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda net, toy: setattr(net[0], "stride", (2, 2)), "attributes of mine"),
        (lambda net, toy: net[0].bias.data.add_(1), "weights of mine"),
        (lambda net, toy: None, ""),
        (lambda net, toy: toy.responses.__iadd__(1), "recording"),
    ],
)
def test_what_changed_since_rows_were_stored_is_said(change, told, toy, tmp_path):
    from torch import nn

    module = nn.Sequential(nn.Conv2d(3, 2, 3, stride=4))

    def score():
        lines = []
        given = {**toy, ("network", "mine"): load_network(module, name="mine")}
        asked = configs("mine", layer="0")
        outcome = run(asked, tmp_path, given=given, notify=lines.append)
        return outcome, lines

    assert score()[1] == []
    images, responses = (
        toy["recording", "toy"].images,
        toy["recording", "toy"].responses,
    )
    change(module, toy["recording", "toy"])
    toy["recording", "toy"] = Recording("toy", images, responses, ("a", "b", "c"), "IT")
    outcome, lines = score()
    assert outcome.n_stored == (not told)
    assert [line.partition(" differ from")[0] for line in lines] == [told] * bool(told)
    (stored,) = outcome.store.identities("score", outcome.rows[0].config_id)
    assert {"weights", "attributes", "structure", "preprocessing"} <= stored.keys()


def test_threads_share_what_networks_change_of_the_process(tmp_path, toy):
    with (
        ThreadPoolExecutor(2) as executor,
        pytest.raises(ConfigError, match="processes"),
    ):
        run(configs("pixels"), tmp_path, given=toy, where=executor)


def test_a_configuration_of_no_stage_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="no stage executes a StageConfig"):
        run([StageConfig()], tmp_path)


def test_a_plan_counts_what_is_stored_without_loading(toy, tmp_path):
    asked = configs("gabor", "nothing", "broken", layer="complex")
    run(asked[:1], tmp_path, given=toy)
    store = ResultStore(tmp_path)
    store.put_failure("score", asked[2], DataError("no memory"))
    found = plan(asked, store)
    states = {state: [c.model for c in of] for state, of in found["score"].items()}
    assert states == {"done": ["gabor"], "failed": ["broken"], "never run": ["nothing"]}


class Planned(StageConfig):
    stage: ClassVar = "score"
    layer: str | None = None
    alpha: float | None = None
    options: dict[str, list[int]] | None = None


def test_a_plan_finds_what_comparing_every_pair_of_settings_finds(tmp_path):
    store = ResultStore(tmp_path)
    values = {
        "layer": [None, "x", "y"],
        "alpha": [None, 1.0, 2.0],
        "options": [None, {"a": [1]}, {"a": [1, 2]}],
    }
    every = [
        Planned(**dict(zip(values, some, strict=True)))
        for some in product(*values.values())
    ]
    stored = every[13::3]
    for i, config in enumerate(stored):
        store.put("score", f"{i}", config, [])
    # Settings that were left open are found by what stands for them.
    told = [config.model_dump(mode="json") for config in stored]
    done = [
        config
        for config in every
        if any(
            config.model_dump(mode="json", exclude_none=True).items() <= one.items()
            for one in told
        )
    ]
    assert len(stored) < len(done) < len(every)
    assert plan(every, store)["score"]["done"] == done


class Stopped(CeAlignError):
    exit_status = 130


@pytest.mark.parametrize("signal", [KeyboardInterrupt(), SystemExit(143), Stopped("")])
def test_what_asks_to_stop_is_no_failure(signal, tmp_path):
    whole = Run(ResultStore(tmp_path))
    with pytest.raises(type(signal)), whole.attempt("network"):
        raise signal
    assert not whole.outcome.failures


def test_what_several_parts_need_fails_once(tmp_path):
    parts = [Outcome(failures=[("net", ConfigError("gone"))]) for _ in range(2)]
    whole = Outcome()
    for part in parts:
        whole.add(part)
    assert [what for what, _ in whole.failures] == ["net"]
