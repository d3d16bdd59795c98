"""A network is called the same in every row, table and figure."""

from dataclasses import replace

import pandas as pd
import pytest
from pydantic import ValidationError
from toys import toy_config, toy_images, toy_network

from ce_align.cli.flags import expanded
from ce_align.errors import ConfigError
from ce_align.report import select
from ce_align.report.inputs import Inputs
from ce_align.results import ResultStore, Row
from ce_align.runner import run
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.same_network import load_rows
from ce_align.stages.scores import ScoreConfig


@pytest.fixture
def analysed(tmp_path):
    """Outcome of distances of ``runs/a`` from ``runs/b``, with settings of the run."""
    store = ResultStore(tmp_path / "results")
    given = {
        ("network", f"runs/{n}"): toy_network(k, f"runs/{n}")
        for k, n in enumerate("ab")
    }
    given["images", "toys"] = toy_images()

    def measure(label=None, model="runs/a", **settings):
        config = toy_config(model=model, baseline="runs/b", label=label)
        more = {
            name: replace(given["network", "runs/a"], name=name) for name in [model]
        }
        known = {**{("network", n): one for n, one in more.items()}, **given}
        responses = tmp_path / "views"
        found = run([config], store, given=known, responses=responses, **settings)
        assert not found.failures
        return found

    return measure


def named(rows):
    return select.labels_of([row.model_dump() for row in rows])


def labels_of(outcome):
    return {(row.label, row.baseline_label) for row in outcome.rows if row.baseline}


def test_a_row_is_born_with_the_label_that_was_given_or_that_follows(analysed):
    assert labels_of(analysed("mine")) == {("mine", "b")}
    assert named(analysed().rows) == {"runs/a": "mine", "runs/b": "b"}


def test_a_label_that_is_given_later_replaces_the_stored_one(analysed):
    assert labels_of(analysed()) == {("a", "b")}
    again = analysed("mine", labels={"runs/b": "invariant"})
    assert again.n_stored == 1
    assert labels_of(again) == {("mine", "invariant")}
    # And is kept where none is given.
    assert labels_of(analysed()) == {("mine", "invariant")}
    stored = load_rows(again.store)
    assert set(stored["label"]) == {"mine"}


def test_a_network_with_another_name_has_the_label_of_that_name(analysed):
    analysed()
    renamed = analysed(model="runs/final")
    assert renamed.n_stored == 1
    assert labels_of(renamed) == {("final", "b")}


def test_a_network_has_one_label(analysed):
    with pytest.raises(ConfigError, match="'x' and 'mine'; give it one"):
        run([toy_config(label="x"), toy_config(seed=1, label="mine")], "results")


def test_a_name_may_begin_with_the_label_and_is_the_same_network():
    plain = ScoreConfig(model="runs/a", recording="it")
    config = ScoreConfig(model="mine = ./runs/a", recording="it", submodule="visual")
    assert (config.model, config.label) == ("runs/a@visual", "mine")
    config = ScoreConfig(model="mine = runs/a", recording="it")
    assert config.labels == {"runs/a": "mine"}
    assert config.fingerprint(c="d") == plain.fingerprint(c="d")
    pair = OverlapConfig(model_a="one = a", model_b="b", recording="it")
    assert pair.labels == {"a": "one"}
    assert ScoreConfig(model="runs/lr=0.1", recording="it").label is None
    with pytest.raises(ValidationError, match="has the labels 'mine' and 'other'"):
        ScoreConfig(model="mine = runs/a", label="other", recording="it")


def test_networks_of_a_command_may_begin_with_their_labels():
    names = ["mine = CE-MMCR_lmda_01", "gabor"]
    assert expanded("model", names) == ["mine = ce_mmcr_l0.1", "gabor"]
    with pytest.raises(ConfigError, match="'all' is the label of one network"):
        expanded("model", ["all = paper"])


def rows_of(*rows):
    common = {"stage": "score", "metric": "m", "value": 1.0, "config_id": "c"}
    return [Row(**{**common, **row}) for row in rows]


def test_all_rows_of_a_network_have_the_label_that_was_given_last():
    rows = rows_of(
        {"model": "runs/a", "created": "1", "label": "first"},
        {"model": "runs/a", "created": "2", "label": "second"},
        {"model": "runs/a", "created": "3", "label": "a"},
        {"model": "runs/b", "created": "3"},
    )
    inputs = Inputs(pd.DataFrame([row.model_dump() for row in rows]))
    assert list(inputs.networks.rows["label"]) == ["second"] * 3 + ["b"]
    assert inputs.labels == {"runs/a": "second", "runs/b": "b"}


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"x": "1", "y": "2"}, ["1", "2"]),
        ({"old/runs/a": "a", "new/runs/a": "a"}, ["a (old)", "a (new)"]),
        ({"timm/a": "a", "torchvision/a": "a"}, ["a (timm)", "a (torchvision)"]),
        ({"runs/a": "it", "runs/b": "it", "c": "it"}, ["it (a)", "it (b)", "it (c)"]),
        ({"a": "a", "sub/a": "a"}, ["a", "a (sub)"]),
        ({"p/x/a": "a", "q/x/a": "a", "p/y/a": "a"}, ["a (p/x)", "a (q/x)", "a (p/y)"]),
    ],
)
def test_equal_labels_get_what_tells_their_networks_apart(labels, expected):
    assert list(select.told_apart(labels).values()) == expected
    assert len(set(expected)) == len(labels)
