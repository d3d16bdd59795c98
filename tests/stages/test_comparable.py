"""Rows that stand side by side agree in their settings and in kind of interval."""

import pandas as pd
import pytest

from ce_align.stages.comparable import (
    MEASURE_SETTINGS,
    SCORE_SETTINGS,
    comparable,
    of_recording,
    one_interval,
    pooled,
)


def rows(*changes):
    fixed = {"value": 1.0, "created": "2024", "layer": "l4", "interval": "images"}
    fixed |= dict.fromkeys((*MEASURE_SETTINGS, *SCORE_SETTINGS), "x")
    return pd.DataFrame([{**fixed, **change} for change in changes])


@pytest.mark.parametrize("setting", [*MEASURE_SETTINGS, *SCORE_SETTINGS])
def test_rows_of_settings_that_fewer_networks_have_are_left_out(setting):
    settings = MEASURE_SETTINGS if setting in MEASURE_SETTINGS else SCORE_SETTINGS
    mixed = rows({"model": "a"}, {"model": "b"}, {"model": "c", setting: "y"})
    found = comparable(mixed, settings, "D_B")
    assert list(found.rows["model"]) == ["a", "b"]
    (note,) = found.notes
    assert note.startswith("D_B: 1 row of another ")


def test_of_settings_that_equally_many_have_those_of_the_latest_row_count():
    mixed = rows({"model": "a", "seed": 1, "created": "2025"}, {"model": "b"})
    for order in ([0, 1], [1, 0]):
        found = comparable(mixed.iloc[order], SCORE_SETTINGS, "it")
        assert list(found.rows["model"]) == ["a"]


def test_an_unknown_setting_is_another_than_a_known_one():
    mixed = rows({"model": "a", "seed": None}, {"model": "b"}, {"model": "c"})
    assert list(comparable(mixed, SCORE_SETTINGS, "it").rows["model"]) == ["b", "c"]
    unknown = mixed.assign(seed=None)
    assert len(comparable(unknown, SCORE_SETTINGS, "it").rows) == 3


def test_a_panel_has_one_kind_of_interval_and_says_which():
    mixed = rows(
        *({"model": "a"}, {"model": "b", "interval": "classes"}),
        *({"model": "c", "interval": None}, {"model": "d", "interval": "comparisons"}),
    )
    found = comparable(mixed, MEASURE_SETTINGS, "D_B")
    assert list(found.rows["model"]) == ["a", "b", "c"]
    assert found.notes == (
        "D_B: intervals are over images or classes, as if drawn anew; 1 row with "
        "intervals over comparisons, as if independent (the paper's) left out: d.",
    )
    assert len(comparable(mixed, MEASURE_SETTINGS, "D_B", intervals=False).rows) == 4
    assert one_interval(mixed[:3], "D_B").notes == ()


def test_a_network_with_both_kinds_of_interval_is_shown_with_that_of_the_others():
    mixed = rows(
        {"model": "a"},
        {"model": "b"},
        {"model": "b", "interval": "comparisons", "created": "2025"},
    )
    found = comparable(mixed, MEASURE_SETTINGS, "D_B")
    assert list(found.rows["interval"]) == ["images", "images"]
    assert found.notes[0].endswith("left out.")


def scores(**columns):
    return pd.DataFrame(
        {
            "model": "a",
            "recording": "set",
            "region": ["IT", "IT", "IT", "V4"],
            "value": [0.5, 0.4, 0.6, 0.2],
            **columns,
        }
    )


def test_rows_of_single_animals_are_not_pooled():
    found = pooled(scores(animal=[None, "M1", "mean", None]))
    assert found.rows["value"].tolist() == [0.5, 0.2]


def test_regions_of_a_recording_are_told_apart():
    found = pooled(scores())
    assert found.rows["recording"].tolist() == ["set, IT"] * 3 + ["set, V4"]
    assert of_recording("set", ["set, IT", "set, V4", "set b"]) == [
        "set, IT",
        "set, V4",
    ]
    assert of_recording("set, V4", ["set, IT", "set, V4"]) == ["set, V4"]
    one = pooled(scores(region="IT"))
    assert set(one.rows["recording"]) == {"set"}


def test_of_windows_in_time_the_widest_counts():
    bins = scores(
        region="IT",
        time_start=[0.0, 10.0, 0.0, None],
        time_end=[10.0, 20.0, 20.0, None],
    )
    found = pooled(bins)
    assert found.rows["value"].tolist() == [0.6, 0.2]
    assert found.notes == (
        "set: 2 rows of 3 time windows left out; the widest counts.",
    )
    alone = pooled(bins[:2])
    assert alone.rows.empty
    assert "score a window, such as --time 70:170" in alone.notes[0]


def test_of_several_layers_the_common_one_counts_else_the_best_else_the_first():
    mixed = rows(
        *({"model": name} for name in "ab"),
        *({"model": "a", "layer": "l3", "created": "2025"},),
        *({"model": "c", "layer": layer} for layer in ("x", "y", "best")),
        *({"model": "d", "layer": layer} for layer in ("best", "z")),
        {"model": "e", "layer": "q", "created": "2025"},
        {"model": "e", "layer": "p"},
    )
    found = comparable(mixed, SCORE_SETTINGS, "it")
    chosen = dict(zip(found.rows["model"], found.rows["layer"], strict=True))
    assert chosen == {"a": "l4", "b": "l4", "c": "best", "d": "z", "e": "p"}
    assert found.notes == (
        "it: of several layers, l4 is shown: a.",
        "it: the best layer, chosen by other images, is shown: c.",
        "it: of several layers, p, the first measured, is shown: e.",
    )


def test_reverse_regressions_stand_only_where_there_are_no_forward_ones():
    of_it = {"recording": "it", "stage": "score"}
    reverse = rows(*({"model": n, "regression": "reverse_pls", **of_it} for n in "ab"))
    forward = rows({"model": "a", "regression": "ridge", **of_it})
    both = pooled(pd.concat([reverse, forward, rows({**of_it, "recording": "v4"})]))
    assert list(both.rows["recording"]) == ["it", "v4"]
    assert both.notes == ("it: 2 rows of reverse_pls left out.",)
    assert len(pooled(reverse).rows) == 2
