"""Where a network stands between an untrained one and other brains."""

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from synthetic_rows import standing_inputs

from ce_align.report.paper import draw
from ce_align.report.standing import standings


def standing_of(records, **where):
    (k,) = [
        k
        for k, record in enumerate(records)
        if where.items()
        <= {n: None if v != v else v for n, v in record.items()}.items()
    ]
    return standings(records)[k]


@pytest.fixture
def records():
    return standing_inputs().rows.to_dict("records")


def test_a_share_is_of_the_way_from_untrained_to_brain(records):
    found = standing_of(records, model="runs/a", animal="A")
    assert found.nulls == pytest.approx([0.26, 0.30])
    assert found.brains == pytest.approx([0.62])
    assert found.share == pytest.approx((0.52 - 0.28) / (0.62 - 0.28))


def test_the_mean_over_animals_stands_beside_the_mean_of_their_brains(records):
    found = standing_of(records, model="runs/a", animal="mean")
    assert found.brains == pytest.approx([0.62, 0.64])
    assert found.share == pytest.approx((0.56 - 0.32) / (0.63 - 0.32))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({}, {"model": "runs/a", "animal": None, "recording": "set"}),
        ({}, {"model": "runs/b", "animal": "mean"}),  # no untrained networks
        ({}, {"model": "runs/a", "recording": "alone"}),  # no animals
        ({"regression": "ridge"}, {"model": "runs/a", "animal": "mean"}),
        ({"raw": 0.1}, {"model": "runs/a", "animal": "mean"}),  # brain below null
    ],
)
def test_there_is_no_share_where_one_side_is_missing(records, change, where):
    for record in records:
        if record["model"].startswith("brain/"):
            record.update(change)
    assert standing_of(records, **where).share is None


def test_an_untrained_network_that_was_scored_again_counts_once(records):
    (again,) = [
        r | {"raw": 0.3, "created": "2030"}
        for r in records
        if r["model"] == "untrained/1:runs/a" and r["animal"] == "A"
    ]
    found = standing_of([again, *records], model="runs/a", animal="A")
    assert sorted(found.nulls) == pytest.approx([0.3, 0.3])


def test_one_animal_without_a_brain_leaves_the_mean_without(records):
    some = [record for record in records if record["model"] != "brain/set:B"]
    assert standing_of(some, model="runs/a", animal="A").share is not None
    assert standing_of(some, model="runs/a", animal="mean").brains == []


def test_the_figure_draws_networks_untrained_ones_and_the_brain():
    drawn = draw("scores", standing_inputs())
    data = drawn.data.set_index(["recording", "model"])
    assert list(data.index.unique("model")) == ["runs/a", "runs/b", "pixels"]
    assert data.loc[("set", "runs/a"), "value"] == pytest.approx(0.56)  # over animals
    assert data.loc[("alone", "runs/a"), "value"] == pytest.approx(0.5)
    alone, both = drawn.figure.axes
    dots = [c for c in both.collections if isinstance(c, PathCollection)]
    np.testing.assert_allclose(dots[0].get_offsets()[:, 0], data.loc["set", "value"])
    lines = {line.get_label(): line.get_xdata() for line in both.lines}
    assert lines["brain"] == pytest.approx([0.63, 0.63])
    assert lines["untrained"] == pytest.approx([0.30, 0.34])
    texts = [text.get_text() for text in both.texts]
    assert {"to the brain", "0.77"} <= set(texts)
    assert "brain" not in {line.get_label() for line in alone.lines}
    assert "√ceiling" in {line.get_label() for line in alone.lines}
