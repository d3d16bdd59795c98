"""What failed is told apart from what was never run, and is never a number."""

import dataclasses

import pytest
from test_page import put_rows, write

from ce_align.errors import CeAlignError
from ce_align.report.paper import build_table, draw
from ce_align.results import ResultStore
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.transfer import TransferConfig
from ce_align.trainer.presets import preset_config

pytestmark = pytest.mark.slow

REASON = CeAlignError("not enough memory: use a smaller layer")


@pytest.fixture
def failing(synthetic, tmp_path):
    """Rows without two accuracies and one probe, of which one each failed."""
    rows = synthetic.rows
    gone = (rows["stage"] == "transfer") & rows["config_id"].isin(
        ["transfer-ce_mmcr_l0-0", "transfer-ce_mmcr_l0.1-1"]
    )
    gone |= (rows["stage"] == "train") & (rows["model"] == "ce_barlow_l0.3")
    gone |= (rows["stage"] == "train") & (rows["model"] == "ce_barlow_l0.4")
    store = ResultStore(tmp_path / "failing")
    for config in (
        TransferConfig(model="ce_mmcr_l0", dataset="cifar10", layer="x", size=8),
        preset_config("tiny", "barlow", equivariance_weight=0.3, images="simulated"),
        ScoreConfig(model="ce_mmcr_l0", recording="set 9", layer="layer4"),
    ):
        store.put_failure(config.stage, config, REASON)
    return dataclasses.replace(
        synthetic, rows=rows[~gone], failures=store.failures(), remark=""
    )


def cells_of(table, **where):
    shown = table.shown
    for column, value in where.items():
        shown = shown[shown[column] == value]
    (line,) = shown.to_dict("records")
    return line


def test_an_accuracy_that_failed_is_no_dash_and_no_number(failing):
    table = build_table("2", failing)
    invariant = cells_of(table, Objective="MMCR", λ="0")
    other = cells_of(table, Objective="MMCR", λ=".1")
    assert (invariant["CIFAR-10"], other["CIFAR-100"]) == ("failed", "–")
    assert invariant["CIFAR-100"] != "failed"
    notes = " ".join(table.notes)
    assert "Failed: ce_mmcr_l0 · x · cifar10 (not enough memory" in notes
    assert "No rows of ce_mmcr_l0.1 on CIFAR-100." in notes


def test_a_training_that_failed_has_a_cell_of_its_own(failing):
    line = cells_of(build_table("3", failing), Objective="Barlow Twins")
    assert (line["λ = .3"], line["λ = .4"]) == ("failed", "–")


def test_a_figure_says_what_failed_of_its_stages(failing):
    assert any(
        note.startswith("Failed: ce_mmcr_l0 · layer4 · set 9")
        for note in draw("3", failing).notes
    )
    assert not any("Failed" in note for note in draw("7", failing).notes)


@pytest.mark.usefixtures("no_figures")
def test_the_page_lists_what_failed_with_the_reason(synthetic, failing, tmp_path):
    rows = synthetic.rows
    store = put_rows(rows[rows["stage"] == "score"].head(3), tmp_path / "results")
    assert "Failed" not in write(store.folder)[0]
    config = ScoreConfig(model="<b>ce</b>", recording="set 9", layer="layer4")
    store.put_failure(config.stage, config, REASON)
    page = write(store.folder)[0]
    assert "<h3>Failed</h3>" in page
    assert "Predictivity: &lt;b&gt;ce&lt;/b&gt; · layer4 · set 9" in page
    assert "not enough memory: use a smaller layer (CeAlignError" in page
