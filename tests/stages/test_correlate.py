"""Correlation of measures with predictivity: planted effects, and what is refused."""

import numpy as np
import pandas as pd
import pytest

from ce_align.errors import DataError
from ce_align.models.catalogue import GROUPS
from ce_align.results import ResultStore
from ce_align.stages.correlate import (
    CorrelateConfig,
    CorrelationRow,
    correlate_rows,
)
from ce_align.stages.running import Run

PAPER = GROUPS["paper"]


def measure_rows(values, metric="bures", **columns):
    """One row for each network of `values`."""
    fixed = {"views_digest": "v", "n_points": 50, "n_comparisons": 800, "layer": "l4"}
    fixed |= {"images_digest": "i"}
    return pd.DataFrame(
        [
            {
                **fixed,
                "metric": metric,
                "model": model,
                "value": value,
                "created": "2024-01-01",
                **columns,
            }
            for model, value in values.items()
        ]
    )


def score_rows(values, recording="it", **columns):
    fixed = {"recording_digest": "d", "region": "IT", "regression": "pls"}
    fixed |= {"n_splits": 10, "seed": 1, "layer": "l4", "created": "2024-01-01"}
    return pd.DataFrame(
        [
            {
                **fixed,
                "recording": recording,
                "metric": "predictivity",
                "model": model,
                "value": value,
                "raw": value / 2,
                **columns,
            }
            for model, value in values.items()
        ]
    )


def planted(rng, models=PAPER, slope=1.0, noise=0.3):
    """A measure, and scores that follow from it."""
    x = rng.normal(size=len(models))
    y = slope * x + noise * rng.normal(size=len(models))
    return dict(zip(models, x, strict=True)), dict(zip(models, y, strict=True))


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path)


def run(measures, scores, store, *recordings, **settings):
    config = CorrelateConfig(
        recordings=recordings or ("it",), permutations=999, **settings
    )
    rows = pd.concat([measures, scores], ignore_index=True)
    run = Run(store)
    return correlate_rows(rows, config, run), run.outcome.notes


def test_a_planted_effect_is_found(rng, store):
    x, y = planted(rng)
    (row,), notes = run(measure_rows(x), score_rows(y), store)
    expected = np.corrcoef(list(x.values()), list(y.values()))[0, 1]
    assert row.value == pytest.approx(expected)
    assert (row.low, row.high) == (None, None)
    assert row.within_low < row.within < row.within_high
    assert row.interval == "networks within objectives"
    assert (row.abs_r, row.r_squared) == pytest.approx((expected, expected**2))
    assert row.p == row.q == pytest.approx(1 / 1000)
    assert row.within > 0.8
    assert row.n_networks == 21
    assert notes == []


def test_a_difference_between_objectives_alone_is_not_significant(rng, store):
    of_objective = {"mmcr": 0.0, "barlow": 5.0, "simclr": 10.0}
    offset = {name: of_objective[name.split("_")[1]] for name in PAPER}
    x = {name: offset[name] + rng.normal() for name in PAPER}
    y = {name: offset[name] + rng.normal() for name in PAPER}
    (row,), _ = run(measure_rows(x), score_rows(y), store)
    assert row.value > 0.9
    assert row.p > 0.05
    assert abs(row.within) < 0.5


def test_false_discoveries_are_counted_over_the_whole_table(rng, store):
    from scipy.stats import false_discovery_control

    x, y = planted(rng, noise=1.5)
    other = {name: rng.normal() for name in PAPER}
    measures = pd.concat([measure_rows(x), measure_rows(other, "other")])
    scores = pd.concat([score_rows(y), score_rows(other, "second")])
    rows, _ = run(measures, scores, store, "it", "second")
    over_both = "mean of 2 recordings"
    assert {(row.measure, row.recording) for row in rows} == {
        (m, r) for m in ("bures", "other") for r in ("it", "second", over_both)
    }
    for family in (True, False):  # recordings, and what is over all of them
        of = [row for row in rows if (row.recording == over_both) is family]
        expected = false_discovery_control([row.p for row in of])
        assert [row.q for row in of] == pytest.approx(list(expected))


def test_fewer_than_five_networks_are_refused_in_words(rng, store):
    x, y = planted(rng, PAPER[:4])
    with pytest.raises(DataError, match="bures × it: 4 networks have both, 5 are"):
        run(measure_rows(x), score_rows(y), store)
    with pytest.raises(DataError, match="there are no rows"):
        run(measure_rows(x)[:0], score_rows(y), store)


def test_only_networks_with_both_count_and_each_row_says_how_many(rng, store):
    x, y = planted(rng)
    few = {name: y[name] for name in PAPER[:9]}
    scores = pd.concat([score_rows(y), score_rows(few, "small")])
    rows, _ = run(measure_rows(x), scores, store, "it", "small")
    counts = {row.recording: row.n_networks for row in rows}
    assert counts == {"it": 21, "small": 9, "mean of 2 recordings": 9}
    assert rows[1].networks == tuple(sorted(PAPER[:9]))


def test_networks_of_unknown_objective_form_one_group_and_it_is_said(rng, store):
    models = tuple(f"torchvision/{k}" for k in range(8))
    x, y = planted(rng, models)
    (row,), notes = run(measure_rows(x), score_rows(y), store)
    assert row.n_networks == 8
    assert row.within == pytest.approx(row.value)
    assert (row.low, row.high) == (row.within_low, row.within_high)
    assert row.partial is None
    assert "one group of unknown objective: torchvision/0, torchvision/1" in row.note
    assert "no correlation given λ" in row.note
    assert notes[-1].startswith("of unknown objective, taken for one group: torchv")


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"n_points": 20}, "number of points"),
        ({"views_digest": "w"}, "views"),
        ({"images_digest": "j"}, "images"),
        ({"n_comparisons": 60}, "number of comparisons"),
    ],
)
def test_rows_that_cannot_be_compared_are_left_out_and_it_is_said(
    rng, store, other, words
):
    x, y = planted(rng)
    strange = dict.fromkeys(PAPER[:3], 99.0)
    measures = pd.concat([measure_rows(x), measure_rows(strange, **other)])
    (row,), notes = run(measures, score_rows(y), store)
    clean, _ = run(measure_rows(x), score_rows(y), store)
    assert row.value == clean[0].value
    (note,) = notes
    assert note == f"bures: 3 rows of another {words} left out"


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"regression": "ridge"}, "regression left out; pls is shown"),
        ({"seed": 2}, "seed left out"),
        ({"ceiling_kind": "variance"}, "ceiling kind left out"),
    ],
)
def test_scores_of_another_method_are_left_out_and_it_is_said(rng, store, other, words):
    x, y = planted(rng)
    strange = score_rows(dict.fromkeys(PAPER[:3], 99.0), **other)
    (row,), notes = run(measure_rows(x), pd.concat([score_rows(y), strange]), store)
    assert row.n_networks == 21
    assert row.within_low > 0
    assert notes[0] == f"it: 3 rows of another {words}"


def test_rows_of_before_had_split_half_ceilings(rng, store):
    x, y = planted(rng)
    old = score_rows({name: y[name] for name in PAPER[:3]})
    new = score_rows({name: y[name] for name in PAPER[3:]}, ceiling_kind="split-half")
    (row,), notes = run(measure_rows(x), pd.concat([old, new]), store)
    assert (row.n_networks, notes) == (21, [])


def test_the_latest_row_of_a_network_counts(rng, store):
    x, y = planted(rng)
    old = measure_rows(dict.fromkeys(PAPER[:3], 99.0), created="2023-01-01")
    (row,), _ = run(pd.concat([measure_rows(x), old]), score_rows(y), store)
    assert row.value == run(measure_rows(x), score_rows(y), store)[0][0].value


def test_several_layers_of_a_network_are_said(rng, store):
    x, y = planted(rng)
    lower = score_rows({PAPER[0]: 0.1}, layer="l3", created="2025-01-01")
    (row,), notes = run(measure_rows(x), pd.concat([score_rows(y), lower]), store)
    assert row.value == run(measure_rows(x), score_rows(y), store)[0][0].value
    assert notes == [f"it: of several layers, l4 is shown: {PAPER[0]}"]


def test_without_a_ceiling_raw_correlations_are_used_and_it_is_said(rng, store):
    x, y = planted(rng)
    scores = score_rows(y)
    scores.loc[0, "value"] = None
    (row,), notes = run(measure_rows(x), scores, store)
    assert row.n_networks == 21
    assert row.value == pytest.approx(
        np.corrcoef(list(x.values()), list(y.values()))[0, 1]
    )
    assert notes == ["it: no ceiling, so measures meet the raw correlation"]


def test_undefined_and_equal_values_are_left_out_and_it_is_said(rng, store):
    x, y = planted(rng)
    measures = pd.concat(
        [
            measure_rows(x),
            measure_rows(dict.fromkeys(PAPER, 2.0), "same"),
            measure_rows(dict.fromkeys(PAPER, np.nan), "none"),
            measure_rows(dict.fromkeys(sorted(PAPER)[:4], 1.0), "a few"),
            measure_rows(dict.fromkeys(sorted(PAPER)[2:6], 1.0), "a few others"),
        ]
    )
    (row,), notes = run(measures, score_rows(y), store)
    assert row.measure == "bures"
    assert notes == [
        f"none: no value of {', '.join(sorted(PAPER)[:3])} and {len(PAPER) - 3} more",
        "a few × it, a few others × it: 4 networks have both, 5 are needed",
        "none × it: 0 networks have both, 5 are needed",
        "same × it: all networks have the same value",
    ]


def test_floors_and_what_is_said_already_are_not_of_the_family(rng, store):
    x, y = planted(rng, noise=1.5)
    name = "augmentation_centroid"
    inverted = {model: 3 - 2 * value for model, value in x.items()}
    noise = {model: rng.normal() for model in PAPER}
    measures = pd.concat(
        [
            measure_rows(noise, f"{name}_floor"),
            measure_rows(inverted, "another_unit"),
            measure_rows(x, name),
            measure_rows(noise, "other"),
        ]
    )
    rows, notes = run(measures, score_rows(y), store)
    assert [row.measure for row in rows] == [name, "other"]
    said = f"another_unit × it: says the same as {name}, and is not tested twice"
    assert notes == [said]
    alone, _ = run(
        pd.concat([measure_rows(x, name), measure_rows(noise, "other")]),
        *(score_rows(y), store),
    )
    assert [row.q for row in rows] == [row.q for row in alone]


def test_networks_without_a_value_are_named(rng, store):
    x, y = planted(rng)
    x[PAPER[4]] = np.nan
    (row,), notes = run(measure_rows(x), score_rows(y), store)
    assert row.n_networks == len(PAPER) - 1
    assert notes == [f"bures: no value of {PAPER[4]}"]


def test_the_order_of_rows_does_not_change_a_number(rng, store):
    x, y = planted(rng, noise=1)
    (row,), _ = run(measure_rows(x), score_rows(y), store)
    (other,), _ = run(measure_rows(x)[::-1], score_rows(y).sample(frac=1), store)
    assert other.model_dump(exclude={"created"}) == row.model_dump(exclude={"created"})


def test_rows_are_stored_and_the_same_data_give_the_same_rows(rng, store):
    x, y = planted(rng)
    rows, _ = run(measure_rows(x), score_rows(y), store)
    again, _ = run(measure_rows(x), score_rows(y), store)
    assert [r.config_id for r in rows] == [r.config_id for r in again]
    stored = store.get("correlate", rows[0].config_id, CorrelationRow)
    assert [r.value for r in stored] == [r.value for r in rows]
    other, _ = run(measure_rows(x), score_rows(y), store, seed=1)
    assert other[0].config_id != rows[0].config_id


def test_a_correlation_is_of_the_data_of_its_scores_and_of_its_measures(store, rng):
    measured, scored = planted(rng)
    scores = score_rows(scored, origin="recorded")
    (row,), _ = run(measure_rows(measured, origin="simulated"), scores, store)
    assert (row.stage, row.origin) == ("correlate", "recorded+simulated")
    (plain,), _ = run(measure_rows(measured, origin="files"), scores, store)
    assert plain.origin == "files+recorded"
    # Where data are from is no part of an identity.
    assert row.config_id == plain.config_id


def test_networks_are_grouped_by_what_their_rows_say(store, rng):
    names = [f"runs/{k}" for k in range(8)]
    measured, scored = planted(rng, names)
    measures = measure_rows(measured, origin="files")
    told = measures.assign(
        objective=["mmcr", "barlow"] * 4,
        equivariance_weight=[0.0, 0.0, 0.1, 0.1, 0.2, 0.2, 0.3, 0.3],
    )
    scores = score_rows(scored, origin="recorded")
    (unknown,), notes = run(measures, scores, store)
    assert any("unknown objective" in note for note in notes)
    (row,), notes = run(told, scores, store)
    assert not any("unknown objective" in note for note in notes)
    assert row.n_partial == 8
    assert row.within != unknown.within
