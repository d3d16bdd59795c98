"""Figures of analyses show the rows they are given."""

import io
import warnings

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from ce_align.errors import DataError
from ce_align.report.paper.correlations import (
    correlation_forest,
    save_correlations,
)
from ce_align.report.paper.geometry import measure_forest, save_measures
from ce_align.report.style import INK
from ce_align.report.terminal import row_sheets
from ce_align.stages.correlate import CorrelationRow
from ce_align.stages.measures import MeasureRow

pytestmark = pytest.mark.slow


def measure(metric, model, value, low=None, high=None):
    fixed = {"layer": "1", "n_points": 50, "n_comparisons": 800, "n_units": 100}
    digests = dict.fromkeys(("model_digest", "images_digest", "views_digest"), "d")
    return MeasureRow(
        model=model,
        metric=metric,
        value=value,
        low=low,
        high=high,
        config_id="c",
        baseline=None,
        images="x",
        interval=None,
        seed=0,
        **fixed,
        **digests,
    )


def correlation(name, r, q, recording="it", within=None):
    return CorrelationRow(
        model="21 networks",
        metric="correlation",
        value=r,
        config_id="c",
        measure=name,
        recording=recording,
        low=r - 0.1,
        high=r + 0.1,
        abs_r=abs(r),
        r_squared=r**2,
        spearman=r,
        within=within,
        p=q,
        q=q,
        n_networks=21,
        networks=("a", "b"),
    )


COLOURS = {"a": "black", "b": "red"}


def frame(rows):
    return pd.DataFrame([row.model_dump() for row in rows])


@pytest.fixture
def ax():
    return Figure().subplots()


def marks(ax, marker="o"):
    """Places (x, y) of the marks of one kind."""
    lines = [line for line in ax.lines if line.get_marker() == marker]
    return [(line.get_xdata()[0], line.get_ydata()[0]) for line in lines]


def test_each_network_has_its_mark_and_interval_beside_its_measure(ax):
    rows = [
        measure("class_class", "a", 0.5, 0.4, 0.6),
        measure("class_class", "b", 0.7),
        measure("decoding_ridge", "b", 0.2, 0.1, 0.3),
        measure("decoding_ridge", "a", None),
    ]
    labels = {"class_class": "C", "decoding_ridge": "D"}
    assert measure_forest(frame(rows), ax, labels, -np.inf, COLOURS) is ax
    assert [x for x, _ in marks(ax)] == [0.5, 0.7, 0.2]
    for x, y in marks(ax):
        assert round(y) == (1 if x == 0.2 else 0)
    spans = [list(line.get_xdata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert [0.4, 0.6] in spans
    assert [0.1, 0.3] in spans
    assert [text.get_text() for text in ax.get_yticklabels()] == ["C", "D"]


def test_values_beyond_the_edge_are_drawn_at_the_edge(ax):
    rows = [measure("m", "a", -40.0, -60.0, -20.0), measure("m", "b", 0.1, -9.0, 0.2)]
    measure_forest(frame(rows), ax, {"m": "m"}, -0.5, COLOURS)
    assert [x for x, _ in marks(ax, "<")] == [-0.5]
    assert min(min(line.get_xdata()) for line in ax.lines[:4]) >= -0.5


def test_correlations_are_filled_by_their_false_discovery_rate(ax):
    rows = [correlation("x", 0.8, 0.01, within=0.7), correlation("y", 0.2, 0.6)]
    assert correlation_forest(rows, ax) is ax
    found = {line.get_xdata()[0]: line.get_markerfacecolor() for line in ax.lines}
    assert found[0.8] == INK
    assert found[0.2] == "white"
    assert marks(ax, "s") == [(0.7, 0)]


@pytest.mark.parametrize("n_networks", [1, 9])
@pytest.mark.parametrize(
    "metrics",
    [["class_class"], ["class_class_delta", "decoding_ridge"]],
)
def test_any_rows_can_be_saved(tmp_path, n_networks, metrics):
    rows = [
        measure(metric, f"network {k}", 0.1 * k, 0.1 * k - 0.1, 0.1 * k + 0.1)
        for metric in metrics
        for k in range(n_networks)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        saved = save_measures(rows, tmp_path / "figure.pdf")
    assert saved == tmp_path / "figure.png"
    text = saved.with_suffix(".svg").read_text()
    assert "D_B: squared Bures distance of covariances" in text
    assert ("R²: share of the variance" in text) == ("decoding_ridge" in metrics)
    assert Image.open(saved).width > 300
    assert {p.name for p in tmp_path.iterdir()} == {
        f"figure.{suffix}" for suffix in ("pdf", "svg", "png")
    }


def test_rows_without_a_panel_are_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="no panel shows decoding_ols"):
        save_measures([measure("decoding_ols", "a", 0.1)], tmp_path / "figure")


def test_each_recording_has_its_panel(tmp_path):
    one = [correlation("x", 0.8, 0.01, "first")]
    two = [*one, correlation("x", 0.1, 0.9, "second")]
    narrow = Image.open(save_correlations(one, tmp_path / "one"))
    wide = Image.open(save_correlations(two, tmp_path / "two"))
    assert wide.width > 1.3 * narrow.width


def printed(rows):
    """Lines of the table, in 120 columns."""
    console = Console(file=io.StringIO(), width=120)
    for sheet in row_sheets(rows):
        console.print(sheet)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_notes_stand_below_the_table_of_measures_and_marks_lead_to_them():
    few, many = "2 of 40 images left out: constant responses", "900 centroids"
    rows = [
        measure("augmentation_centroid", "a", 0.5, 0.4, 0.6),
        measure("spatial_photometric", "a", 0.7, 0.6, 0.8),
        measure("spatial_photometric", "b", 0.3, 0.2, 0.4),
    ]
    rows[0] = rows[0].model_copy(update={"note": many})
    rows[2] = rows[2].model_copy(update={"note": f"{many}; {few}"})
    lines = [" ".join(line.split()) for line in printed(rows)]
    for line in (
        "augmentation_centroid a 0.5000 [1] [0.4000, 0.6000] 3",
        "spatial_photometric a 0.7000 [0.6000, 0.8000] 3",
        "b 0.3000 [1] [2] [0.2000, 0.4000] 3",
    ):
        assert any(line.startswith(found) for found in lines), lines
    assert lines[-2:] == [f"[1] {many}", f"[2] {few}"]


def test_tables_name_what_intervals_are_over():
    def over(word, metric):
        row = measure(metric, "a", 0.5, 0.4, 0.6)
        return row.model_copy(update={"interval": word})

    rows = [over("classes", "class_class"), over("comparisons", "spatial_photometric")]
    lines = printed([*rows, measure("factorization_weak", "a", 0.7)])
    (classes,) = [line for line in lines if "class_class" in line]
    (papers,) = [line for line in lines if "spatial_photometric" in line]
    assert "classes" in classes
    assert "comparisons" in papers
    assert "over comparisons: comparisons, as if independent (the paper's)" in lines
