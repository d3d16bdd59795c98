"""A name that stands for another network by now: no table or figure mixes the two."""

import re

import numpy as np
import pandas as pd
import pytest
from synthetic_rows import MEASURES, RECORDINGS, AnyRow, Settings, digest, row

from ce_align.report.inputs import Inputs
from ce_align.report.page import write_report
from ce_align.report.page.summary import warnings_of
from ce_align.report.paper import build_table, draw
from ce_align.report.paper.items import NothingToDraw
from ce_align.results import ResultStore

pytestmark = pytest.mark.slow

RETRAINED = "ce_mmcr_l0.1"
BASELINE = "ce_mmcr_l0"


def with_rows(inputs, rows):
    return Inputs(
        rows.reset_index(drop=True), inputs.store, inputs.others, remark="synthetic"
    )


def retrained(inputs, name):
    """Rows, after the network called `name` was trained again and scored elsewhere."""
    later = {"model_digest": f"another {name}", "created": "2025-01-01"}
    later |= {"stage": "official", "recording": "elsewhere", "config_id": "official"}
    added = pd.DataFrame([row(name, "brainscore", 0.3) | later])
    return pd.concat([inputs.rows, added], ignore_index=True)


def without(inputs, name):
    rows = inputs.rows
    mentioned = [rows[c].eq(name) for c in ("model", "other", "baseline") if c in rows]
    return rows[~np.logical_or.reduce(mentioned)]


def made(name, inputs):
    if name.startswith("table"):
        table = build_table(name.split()[1], inputs)
        return table.frame, " ".join(table.notes)
    drawn = draw(name, inputs)
    return drawn.data, " ".join(drawn.notes)


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *((name, RETRAINED) for name in ("2", "3", "4", "5", "6", "7")),
        *((f"table {number}", RETRAINED) for number in (2, 3, 5)),
        ("overlap", "pixels"),
        ("2", BASELINE),
        ("6", BASELINE),
    ],
)
def test_rows_of_the_network_that_had_a_name_before_are_not_drawn(
    synthetic, name, model
):
    data, notes = made(name, with_rows(synthetic, retrained(synthetic, model)))
    expected, _ = made(name, with_rows(synthetic, without(synthetic, model)))
    pd.testing.assert_frame_equal(data, expected)
    assert f"{model}: " in notes
    assert "older" in notes
    assert len(data) < len(made(name, synthetic)[0]) or name == "table 5"


def test_layers_of_an_older_network_alone_are_not_drawn(synthetic):
    rows = retrained(synthetic, "torchvision/resnet50")
    with pytest.raises(NothingToDraw):
        draw("layers", with_rows(synthetic, rows))


def test_accuracies_are_of_the_network_that_they_say(otherwise):
    model = "runs/mmcr_l0_resnet34"
    # Those of ce_align 0.1 say which network at which size of its input.
    old = with_rows(otherwise, retrained(otherwise, model))
    assert model in set(build_table("4", old).frame["model"])
    rows = old.rows.copy()
    own = rows["stage"].eq("transfer") & rows["model"].eq(model)
    rows.loc[own, ["model_digest", "plain_digest"]] = [digest(model), True]
    frame, notes = made("table 4", with_rows(otherwise, rows))
    assert model not in set(frame["model"])
    assert f"{model}: the latest network of this name has no accuracies" in notes


def test_one_network_of_two_names_is_drawn_once(synthetic):
    rows = synthetic.rows
    own = rows["model"].eq(RETRAINED) & rows["stage"].isin(["score", "analyze"])
    copies = rows[own].assign(
        model="copy of it", created="2025-01-01", config_id=rows["config_id"] + "-copy"
    )
    copied = with_rows(synthetic, pd.concat([rows, copies], ignore_index=True))
    for name in ("2", "3"):
        data, notes = made(name, copied)
        pd.testing.assert_frame_equal(data, made(name, synthetic)[0])
        assert f"copy of it and {RETRAINED} are one network" in notes


def test_differences_that_do_not_say_their_baseline_are_not_mixed(synthetic):
    """Rows of ce_align 0.1 name a baseline that several networks have been."""
    rows = retrained(synthetic, BASELINE)
    old = rows["model"].eq(BASELINE) & rows["stage"].eq("analyze")
    # The baseline was measured anew, so that its own rows are of the network of today.
    rows.loc[old, ["model_digest", "created"]] = [f"another {BASELINE}", "2025-01-02"]
    known, notes = made("2", with_rows(synthetic, rows))
    assert f"differences from an older network of the name {BASELINE}" in notes
    unknown = rows.assign(baseline_digest=None)
    found, notes = made("2", with_rows(synthetic, unknown))
    assert "do not say from which of several networks called ce_mmcr_l0" in notes
    pd.testing.assert_frame_equal(found, known)


def correlations(rows, digests):
    """Rows of correlate that name their networks."""
    of = rows["stage"].eq("correlate")
    names = tuple(digests)
    listed = pd.Series([names if one else None for one in of], index=rows.index)
    known = pd.Series(
        [tuple(digests.values()) if one else None for one in of], index=rows.index
    )
    return rows.assign(networks=listed, network_digests=known)


def test_correlations_of_older_networks_are_left_out_of_table_and_forest(synthetic):
    digests = {name: digest(name) for name in (BASELINE, RETRAINED)}
    rows = correlations(synthetic.rows, digests)
    frame, notes = made("table 1", with_rows(synthetic, rows))
    assert len(frame) == len(MEASURES) * len(RECORDINGS)
    assert "older" not in notes
    later = correlations(retrained(synthetic, RETRAINED), digests)
    for name in ("table 1", "forest"):
        with pytest.raises(NothingToDraw, match="older networks of the names ce_mmcr"):
            made(name, with_rows(synthetic, later))
    by_name = later.assign(network_digests=None)
    with pytest.raises(NothingToDraw, match="run `ce-align correlate` again"):
        made("table 1", with_rows(synthetic, by_name))


def test_intervals_that_do_not_say_what_they_are_over_are_not_printed(synthetic):
    rows = synthetic.rows
    old = rows["stage"].eq("correlate")
    rows = rows.assign(
        low=rows["low"].mask(old, rows["value"] - 0.1),
        high=rows["high"].mask(old, rows["value"] + 0.1),
        interval=rows["interval"].mask(old, None),
    )
    frame, notes = made("table 1", with_rows(synthetic, rows))
    assert frame["low"].isna().all()
    assert "do not say what they are over" in notes


def test_the_page_warns_of_rows_of_older_networks(synthetic):
    inputs = with_rows(synthetic, retrained(synthetic, RETRAINED))
    warnings = " ".join(warnings_of(inputs.networks, ()))
    assert f"Networks: {RETRAINED}: " in warnings
    assert "the latest network of this name has no scores; run `ce-align" in warnings


@pytest.mark.usefixtures("no_figures")
def test_the_page_shows_rows_of_older_networks_and_marks_them(tmp_path):
    results = tmp_path / "results"
    about = {"layer": "l", "recording": "it", "region": "IT", "regression": "pls"}
    about |= {"raw": 0.5, "error": 0.01, "ceiling": 0.8, "recording_digest": "r"}
    about |= {"n_splits": 10, "n_stimuli": 9, "n_neuroids": 9, "seed": 1}
    for name, value, day in (("old", 0.111, "01"), ("new", 0.222, "02")):
        found = row("runs/a", "predictivity", value, **about, model_digest=name)
        found |= {"config_id": name, "created": f"2024-01-{day}"}
        ResultStore(results).put("score", name, Settings(name=name), [AnyRow(**found)])
    write_report(results, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    lines = re.findall(r"<tr[^>]*>.*?</tr>", page, flags=re.DOTALL)
    marked = [line for line in lines if "an older network of this name" in line]
    assert len(marked) == 1
    assert "0.1110" in marked[0]
    assert "runs/a: 1 row of an older network of this name left out." in page
