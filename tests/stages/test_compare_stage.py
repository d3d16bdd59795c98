"""Pairs of networks on one recording: the scores' numbers, and what is sure of them."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import torch
from pydantic import ValidationError

from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Protocol, Recording
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.runner import run
from ce_align.stages.compare import CompareConfig, CompareRow
from ce_align.stages.scores import ScoreConfig

pytestmark = pytest.mark.slow

N = 80


class Channels(torch.nn.Module):
    """Coarse pixels of some colour channels."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.pool = torch.nn.AvgPool2d(8)

    def forward(self, images):
        return self.pool(images[:, self.channels])


def eye(name, *channels):
    return Network(
        name, Channels(list(channels)), Preprocessing(input_size=16), {"IT": "pool"}
    )


@pytest.fixture
def planted(rng):
    """Responses to red alone, twice, of two animals."""
    coarse = rng.integers(0, 256, (N, 2, 2, 3), np.uint8)
    images = ImageSet.from_array("x", coarse.repeat(8, axis=1).repeat(8, axis=2))
    signal = (coarse[..., 0] / 255.0).reshape(N, 4) @ rng.normal(size=(4, 12))
    rates = signal[:, None] + 0.3 * rng.normal(size=(N, 2, 12))
    names = tuple(f"n{k}" for k in range(12))
    animals = {"animal": np.array(["p", "q"] * 6)}
    return Recording("x", images, rates, names, "IT", neuroids=animals)


SETTINGS = {"recording": "x", "regression": "ridge", "alpha": 1.0, "splits": 4}
NETWORKS = {"r": eye("r", 0), "g": eye("g", 1), "all": eye("all", 0, 1, 2)}


def compared(planted, folder, *names, **settings):
    given = {("network", name): eye for name, eye in NETWORKS.items()}
    given["recording", "x"] = planted
    config = CompareConfig(models=names, **{**SETTINGS, "resamples": 200, **settings})
    outcome = run([config], folder, given=given)
    assert not outcome.failures, outcome.failures
    return outcome, outcome.of(CompareRow)


@pytest.mark.parametrize("by_animal", [False, True])
def test_differences_are_those_of_the_scores_to_the_last_digit(
    planted, tmp_path, by_animal
):
    if by_animal:
        protocol = Protocol("b", regression="ridge", by="animal")
        planted = replace(planted, protocol=protocol)
    _, rows = compared(planted, tmp_path, "r", "g", "all")
    given = {("network", name): one for name, one in NETWORKS.items()}
    given["recording", "x"] = planted
    asked = [ScoreConfig(model=name, **SETTINGS) for name in NETWORKS]
    scores = run(asked, tmp_path / "alone", given=given).rows
    of = {row.model: row for row in scores if row.animal is None}
    assert len(rows) == 6
    for row in rows:
        a, b = of[row.model], of[row.other]
        field = "raw" if row.metric == "difference_raw" else "value"
        assert row.model_value == getattr(a, field)
        assert row.other_value == getattr(b, field)
        assert row.value == row.model_value - row.other_value
        # The middle of the interval is the statistic of the bootstrap, undrawn.
        assert (row.low + row.high) / 2 == pytest.approx(row.value, abs=1e-9)


@pytest.mark.parametrize("over", ["stimuli", "neuroids", "animals", "both"])
def test_what_sees_the_signal_is_told_from_what_does_not(planted, tmp_path, over):
    _, rows = compared(planted, tmp_path, "r", "g", over=over)
    raw, score = rows
    assert (raw.metric, score.metric) == ("difference_raw", "difference_score")
    assert raw.value > 0.5
    assert raw.p == raw.q
    assert (raw.q < 0.05) == (raw.low > 0)
    if over != "animals":  # two of them tell nothing of others
        assert raw.q < 0.001
    assert raw.interval == ("stimuli and neuroids" if over == "both" else over)


def test_what_adds_nothing_is_not_told_apart(planted, tmp_path):
    _, rows = compared(planted, tmp_path, "r", "all")
    assert rows[0].q > 0.05
    assert rows[0].low < 0 < rows[0].high


def test_a_comparison_is_stored_until_a_score_changes(planted, tmp_path):
    first, rows = compared(planted, tmp_path, "r", "g")
    again, same = compared(planted, tmp_path, "r", "g", network_labels=("R", "G"))
    assert (first.n_done, again.n_stored) == (1, 1)
    assert [row.value for row in same] == [row.value for row in rows]
    assert {(row.label, row.other_label) for row in same} == {("R", "G")}
    _, longer = compared(planted, tmp_path, "r", "g", splits=5)
    assert longer[0].value != rows[0].value


def test_q_is_over_all_pairs(planted, tmp_path):
    _, rows = compared(planted, tmp_path, "r", "g", "all")
    raw = [row for row in rows if row.metric == "difference_raw"]
    assert {row.n_pairs for row in raw} == {3}
    expected = scipy.stats.false_discovery_control([row.p for row in raw])
    np.testing.assert_allclose([row.q for row in raw], expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"models": ("a",)}, "takes two networks or more, found 1: a"),
        ({"models": ("a", "a")}, "compared with itself"),
        ({"models": ("a", "b"), "layers": ("1", "2", "3")}, "--layer is one for each"),
        ({"models": ("a", "b"), "regression": "reverse_pls"}, "no pair in another"),
    ],
)
def test_what_is_no_comparison_is_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        CompareConfig(recording="x", **settings)


def test_labels_may_stand_in_names():
    config = CompareConfig(recording="x", models=("A = a", "b"))
    assert (config.models, config.labels) == (("a", "b"), {"a": "A"})


def test_without_animals_none_are_drawn(planted, tmp_path):
    given = {("network", name): one for name, one in NETWORKS.items()}
    given["recording", "x"] = replace(planted, neuroids={})
    config = CompareConfig(models=("r", "g"), over="animals", **SETTINGS)
    ((_, error),) = run([config], tmp_path, given=given).failures
    assert "take --over neuroids" in str(error)


def test_networks_in_folders_that_were_renamed_have_their_new_names(
    planted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    for names in (("apple", "green"), ("rose", "green")):
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        given = {("network", name): eye(name, k) for k, name in enumerate(names)}
        config = CompareConfig(models=names, **SETTINGS, resamples=200)
        given["recording", "x"] = planted
        found = run([config], "results", given=given)
        if "apple" in names:
            (tmp_path / "apple").rmdir()
            first = found
    assert (found.n_done, found.n_stored) == (0, 1)
    rows = found.of(CompareRow)
    assert [row.value for row in rows] == [row.value for row in first.of(CompareRow)]
    assert {(row.model, row.other) for row in rows} == {("rose", "green")}
