"""Rows as they come: from two runs, missing, few, of one objective, without value."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from synthetic_rows import time_inputs

from ce_align.models.checkpoints import save_safetensors
from ce_align.report.inputs import Inputs
from ce_align.report.paper import FIGURES, TABLES, build_table, draw
from ce_align.report.paper.items import NothingToDraw

pytestmark = pytest.mark.slow


def with_rows(inputs, rows):
    return Inputs(
        rows.reset_index(drop=True),
        inputs.store,
        inputs.others,
        inputs.histories,
        inputs.remark,
    )


def changed(inputs, keep):
    """Inputs with the rows for which a condition holds."""
    return with_rows(inputs, inputs.rows[keep(inputs.rows)])


def text_of(notes):
    return " ".join(notes)


def of_networks(rows, names):
    return rows["model"].isin(names)


def five(rows):
    names = [f"ce_mmcr_l{w}" for w in ("0", "0.1", "0.2", "0.3", "0.4")]
    return of_networks(rows, [*names, "21 networks"])


def one_objective(rows):
    return rows["model"].str.contains("barlow")


def nothing(rows):
    return np.zeros(len(rows), bool)


CASES = {
    "five networks": five,
    "one objective": one_objective,
    "no rows": nothing,
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [*FIGURES, *(f"table {n}" for n in TABLES)])
def test_everything_is_made_or_says_what_it_needs(synthetic, case, name):
    inputs = changed(synthetic, CASES[case])
    try:
        if name.startswith("table"):
            made = build_table(name.split()[1], inputs)
            assert len(made.frame)
        else:
            made = draw(name, inputs)
            assert len(made.data)
    except NothingToDraw as error:
        assert "ce-align" in str(error)
        assert "\n" not in str(error)


def test_missing_networks_are_left_out_and_named(synthetic):
    drawn = draw("2", changed(synthetic, five))
    assert set(drawn.data["objective"]) == {"mmcr"}
    notes = text_of(drawn.notes)
    assert "MMCR λ = .001, .5" in notes
    assert "Barlow Twins (all λ)" in notes


def test_a_missing_panel_is_named(synthetic):
    rows = synthetic.rows
    drawn = draw("2", with_rows(synthetic, rows[rows["metric"] != "class_class"]))
    assert "class_class" not in set(drawn.data["panel"])
    assert "Class–class: no rows." in text_of(drawn.notes)


def test_a_value_that_is_not_there_is_named_and_not_drawn(synthetic):
    rows = synthetic.rows.copy()
    gone = (rows["metric"] == "decoding_ridge") & (rows["model"] == "ce_simclr_l0.3")
    rows.loc[gone, "value"] = np.nan
    drawn = draw("2", with_rows(synthetic, rows))
    decoding = drawn.data[drawn.data["panel"] == "decoding_ridge"]
    assert "ce_simclr_l0.3" not in set(decoding["networks"])
    assert "no value of ce_simclr_l0.3" in text_of(drawn.notes)
    assert len(decoding) == 20


def test_of_two_runs_the_later_counts_and_a_note_says_so(synthetic):
    rows = synthetic.rows
    again = rows[rows["metric"] == "decoding_ridge"].copy()
    again["value"] += 0.1
    again["created"] = "2025-01-01T00:00:00+00:00"
    drawn = draw("2", with_rows(synthetic, pd.concat([rows, again])))
    before = draw("2", synthetic).data
    values = [
        data.loc[data["panel"] == "decoding_ridge", "value"].to_numpy()
        for data in (drawn.data, before)
    ]
    np.testing.assert_allclose(values[0], values[1] + 0.1)
    assert "21 rows replaced by later ones" in text_of(drawn.notes)


def test_values_of_another_number_of_points_are_not_mixed_in(synthetic):
    rows = synthetic.rows.copy()
    other = (rows["metric"] == "spatial_photometric_delta") & (
        rows["model"] == "ce_mmcr_l0.5"
    )
    rows.loc[other, "n_points"] = 10
    drawn = draw("2", with_rows(synthetic, rows))
    assert "another number of points left out" in text_of(drawn.notes)


def test_differences_without_rows_come_from_the_stored_comparisons(synthetic):
    rows = synthetic.rows
    without = ~rows["metric"].str.endswith("_delta")
    drawn = draw("2", with_rows(synthetic, rows[without]))
    assert "computed from stored comparisons" in text_of(drawn.notes)
    stored = synthetic.store.arrays
    row = drawn.data[
        (drawn.data["panel"] == "class_class")
        & (drawn.data["objective"] == "mmcr")
        & (drawn.data["weight"] == 0.5)
    ].iloc[0]
    own, baseline = (
        stored("analyze", f"bures-ce_mmcr_l{w}")["class_class"] for w in ("0.5", "0")
    )
    assert row["value"] == pytest.approx(float((baseline - own).mean()))
    assert row["low"] < row["value"] < row["high"]


def test_another_baseline_is_not_taken_for_the_invariant_sibling(synthetic):
    rows = synthetic.rows.copy()
    mine = rows["model"].eq("ce_mmcr_l0.5") & rows["metric"].str.endswith("_delta")
    rows.loc[mine, ["baseline", "baseline_digest"]] = "pixels"
    inputs = Inputs(rows, None)
    drawn = draw("2", inputs)
    deltas = drawn.data[drawn.data["panel"] == "class_class"]
    assert "ce_mmcr_l0.5" not in set(deltas["networks"])
    assert "measured against another baseline" in text_of(drawn.notes)


def test_networks_of_one_objective_and_weight_are_averaged(synthetic, tmp_path):
    rows = synthetic.rows
    decoding = rows[rows["metric"] == "decoding_ridge"]
    one = decoding[decoding["model"] == "ce_mmcr_l0.1"].iloc[0]
    seeds = []
    for seed, value in enumerate((0.4, 0.5, 0.6)):
        folder = tmp_path / f"run{seed}"
        config = {"objective": "mmcr", "equivariance_weight": 0.1, "seed": seed}
        config |= {"backbone": "tiny", "epochs": 3, "images": "x"}
        save_safetensors(
            folder / "model.safetensors",
            {"w": torch.zeros(2)},
            {"config": json.dumps(config)},
        )
        own = {"model": str(folder), "model_digest": f"seed {seed}"}
        seeds.append({**one, **own, "value": value})
    drawn = draw("2", Inputs(pd.DataFrame(seeds)))
    (row,) = drawn.data.to_dict("records")
    assert row["n_networks"] == 3
    assert row["value"] == pytest.approx(0.5)
    assert (row["low"], row["high"]) == pytest.approx((0.4, 0.6))
    assert row["spread"] == "sd over networks"


def test_a_single_run_has_no_standard_deviation(synthetic):
    rows = synthetic.rows[synthetic.rows["stage"] == "transfer"].astype({"sd": object})
    rows = rows.assign(sd=None, n_runs=1)
    table = build_table("2", Inputs(rows))
    assert table.shown["CIFAR-10"].iloc[0] == "90.0"


def test_transfer_of_own_trainings_is_table_4(synthetic):
    rows = synthetic.rows
    wanted = (rows["stage"] == "transfer") | (rows["metric"] == "probe_top1")
    moved = rows[wanted].assign(model="elsewhere/" + rows["model"])
    table = build_table("4", Inputs(moved))
    assert "elsewhere/ce_mmcr_l0" in set(table.shown["Network"])
    with pytest.raises(NothingToDraw, match="Table 2"):
        build_table("2", Inputs(moved))


def test_rows_of_trainings_tell_what_networks_are(synthetic):
    rows = synthetic.rows
    wanted = rows["metric"].isin(["decoding_ridge", "probe_top1"])
    moved = rows[wanted].assign(model="elsewhere/" + rows["model"])
    drawn = draw("2", Inputs(moved))
    assert len(drawn.data) == 21
    assert set(drawn.data["objective"]) == {"mmcr", "barlow", "simclr"}
    with pytest.raises(NothingToDraw):
        draw("2", Inputs(moved[moved["stage"] != "train"]))


def test_networks_of_another_recipe_are_in_figure_8_and_not_in_figure_3(synthetic):
    rows = synthetic.rows
    longer = rows[(rows["model"] == "ce_barlow_l0.2") & (rows["stage"] == "score")]
    longer = longer.assign(model="ce_barlow_l0.2_ep1000")
    inputs = with_rows(synthetic, pd.concat([rows, longer]))
    usual, other = draw("3", inputs), draw("8", inputs)
    assert "ce_barlow_l0.2_ep1000" in text_of(usual.notes)
    assert "ce_barlow_l0.2_ep1000" not in " ".join(usual.data["networks"])
    assert set(other.data["networks"]) == {"ce_barlow_l0.2_ep1000"}


def test_figure_8_has_as_many_panels_as_there_are_other_recipes(synthetic):
    rows = synthetic.rows
    score = rows[(rows["model"] == "ce_barlow_l0.2") & (rows["stage"] == "score")]
    known = {"objective": "barlow", "equivariance_weight": 0.2, "backbone": "resnet50"}
    others = [
        score.assign(model=f"run {n}", model_digest=f"run {n}", epochs=n, **known)
        for n in range(1, 15)
    ]
    drawn = draw("8", with_rows(synthetic, pd.concat([rows, *others])))
    assert drawn.data["panel"].nunique() == 14
    assert "N" in {text.get_text() for ax in drawn.figure.axes for text in ax.texts}


def test_a_recording_without_repetitions_has_no_ceiling(synthetic):
    rows = synthetic.rows.copy()
    without = rows["recording"] == "set 2"
    rows.loc[without, ["ceiling", "value"]] = np.nan
    drawn = draw("3", with_rows(synthetic, rows))
    own = drawn.data[drawn.data["recording"] == "set 2"]
    assert len(own) == 21
    assert own["ceiling"].isna().all()
    assert "no ceiling: set 2" in text_of(drawn.notes)


@pytest.mark.parametrize(
    ("name", "mark"),
    [("simulated", "SIMULATED DATA"), ("mine.nc", "IMPORTED DATA")],
)
def test_what_no_animal_gave_is_marked_in_figure_and_csv(synthetic, name, mark):
    rows = synthetic.rows[synthetic.rows["stage"] == "score"]
    drawn = draw("3", Inputs(rows.assign(recording=name)))
    assert mark in [text.get_text() for text in drawn.figure.texts]
    assert set(drawn.data["origin"]) == {mark.split()[0].lower()}


def without_some(rows, **wanted):
    """Rows whose columns do not all have these values."""
    found = np.logical_and.reduce([rows[k] == v for k, v in wanted.items()])
    return rows[~found]


def test_a_bar_a_cell_and_a_line_of_a_table_that_are_missing_are_named(synthetic):
    rows = synthetic.rows
    rows = without_some(rows, model="ce_mmcr_l0.1", recording="set 2", stage="score")
    rows = without_some(rows, measure="class_class", recording="set 3")
    rows = without_some(rows, model="ce_mmcr_l0.1", dataset="dtd")
    rows = without_some(rows, layer="layer1", region="V1")
    inputs = with_rows(synthetic, rows)
    assert "MMCR, set 2: no scores for λ = .1" in text_of(draw("3", inputs).notes)
    assert "Class–class with set 3" in text_of(build_table("1", inputs).notes)
    assert "ce_mmcr_l0.1 on DTD" in text_of(build_table("2", inputs).notes)
    assert "for a recording, 1." in text_of(draw("layers", inputs).notes)


def test_correlations_and_overlaps_without_a_value_are_named(synthetic):
    rows = synthetic.rows.copy()
    gone = (rows["measure"] == "class_class") & (rows["recording"] == "set 3")
    rows.loc[gone, ["value", "abs_r", "r_squared", "low", "high"]] = np.nan
    lost = (rows["metric"] == "overlap_shared") & (rows["other"] == "pixels")
    rows.loc[lost, "value"] = np.nan
    inputs = with_rows(synthetic, rows)
    table = build_table("1", inputs)
    assert "No correlation is defined of Class–class with set 3" in text_of(table.notes)
    shown = table.shown.set_index("Measure")
    assert shown.loc["Class–class", "set 3"] == "–"
    assert "Class–class with set 3" in text_of(draw("forest", inputs).notes)
    assert "Without a value: ce_mmcr_l0 and" in text_of(draw("overlap", inputs).notes)


def test_comparisons_of_missing_networks_are_named(synthetic):
    notes = text_of(draw("6", changed(synthetic, five)).notes)
    assert "no rows for MMCR λ = .001, .5; Barlow Twins (all λ)" in notes


def test_one_seed_against_another_counts_once(synthetic, tmp_path):
    """Of two networks of λ = 0 one is the other's baseline, the other has a value."""
    rows = synthetic.rows
    measured = rows[rows["metric"].eq("class_class") & rows["model"].eq("ce_mmcr_l0")]
    compared = rows[rows["metric"].eq("class_class_delta")].iloc[0]
    folders = [tmp_path / f"run{seed}" for seed in (0, 1)]
    for seed, folder in enumerate(folders):
        config = {"objective": "mmcr", "equivariance_weight": 0.0, "seed": seed}
        config |= {"backbone": "tiny", "epochs": 3, "images": "x"}
        save_safetensors(
            folder / "model.safetensors",
            {"w": torch.zeros(2)},
            {"config": json.dumps(config)},
        )
    first, second = map(str, folders)
    found = [
        {**measured.iloc[0], "model": name, "model_digest": name}
        for name in (first, second)
    ]
    own = {"model": second, "model_digest": second}
    baseline = {"baseline": first, "baseline_digest": first}
    found.append({**compared, **own, **baseline, "value": 0.02})
    drawn = draw("2", Inputs(pd.DataFrame(found)))
    (row,) = drawn.data.to_dict("records")
    assert (row["weight"], row["n_networks"]) == (0.0, 2)
    assert row["value"] == pytest.approx(0.01)


def test_networks_of_one_layer_are_named_beside_the_heat_map_of_layers(synthetic):
    drawn = draw("layers", synthetic)
    scored = synthetic.stage("score").rows
    single = scored.groupby("model")["layer"].nunique() == 1
    notes = text_of(drawn.notes)
    assert single.any()
    assert f"Left out, scored at one layer only: {single.index[single][0]}" in notes
    assert not set(drawn.data["model"]) & set(single.index[single])


def test_a_network_without_the_layer_of_the_others_is_shown_at_one_of_its_own(
    synthetic,
):
    rows = synthetic.rows
    own = rows["stage"].eq("score") & rows["model"].eq("ce_mmcr_l0.1")
    elsewhere = [rows[own].assign(layer=layer) for layer in ("layer1", "layer2")]
    drawn = draw("3", with_rows(synthetic, pd.concat([rows[~own], *elsewhere])))
    told = "of several layers, layer1, the first measured, is shown: ce_mmcr_l0.1."
    assert told in text_of(drawn.notes)
    assert "ce_mmcr_l0.1" in text_of(drawn.data["networks"])


def test_captions_name_what_bands_are(synthetic):
    caption = draw("2", synthetic).caption
    assert "95 % interval over classes; 95 % interval over images" in caption
    rows = synthetic.rows.copy()
    rows.loc[rows["interval"].notna(), "interval"] = "comparisons"
    assert "as if independent (the paper's)" in draw("2", Inputs(rows, None)).caption
    assert "95 % interval" not in draw("5", synthetic).caption


def test_scores_of_time_bins_are_drawn_against_time():
    drawn = draw("time", time_inputs())
    assert len(drawn.data) == 12
    assert set(drawn.data["recording"]) == {"set"}
    titles = [ax.get_title(loc="left") for ax in drawn.figure.axes]
    assert titles[:2] == ["set, IT", "set, V4"]
    line = drawn.figure.axes[0].lines[0]
    assert line.get_xdata().tolist() == [5, 15, 25, 35]
    assert np.allclose(line.get_ydata(), [0, 0.1, 0.2, 0.3])


def test_without_time_bins_the_figure_says_how_to_get_them(synthetic):
    with pytest.raises(NothingToDraw, match="ce-align score --time all"):
        draw("time", synthetic)
