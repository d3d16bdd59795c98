"""A measure is one entry; rows, correlations, tables and figures follow from it."""

import numpy as np
import pytest
import typer
from toys import toy_config, toy_images, toy_network
from typer.testing import CliRunner

from ce_align.cli.flags import Asked, flags
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.report.paper.geometry import save_measures
from ce_align.report.terminal import row_sheets
from ce_align.runner import run
from ce_align.stages import measures
from ce_align.stages.correlate import CorrelateConfig, CorrelationRow
from ce_align.stages.estimates import Measured, Measurement, mean_over_units
from ce_align.stages.measures import (
    MEASURES,
    AnalysisConfig,
    Measure,
    MeasureRow,
    register_measure,
)
from ce_align.stages.quantities import Panel, Quantity, quantities
from ce_align.stages.scores import ScoreConfig, ScoreRow
from ce_align.stages.similarities import SIMILARITIES

pytestmark = pytest.mark.slow

NAMES = [f"net{seed}" for seed in range(5)]
TITLE = "Distance of views from their image"


def spread(responses, config):
    """Mean distance of views from the clean image, as a measure of one's own has it."""
    moved = responses["strong"] - responses["clean"][:, None]
    values = np.linalg.norm(moved, axis=-1).mean(axis=1).astype(np.float64)
    mean = mean_over_units(values, config.interval, config.seed)
    n_images, n_views, _ = moved.shape
    return Measured([Measurement("spread", mean, n_views, n_images, note=mean.note)])


SPREAD = Measure(
    "spread",
    "how far views are from their image",
    ("clean", "strong"),
    (Quantity("spread", TITLE, 0, place="table", panel=Panel("Spread", "distance")),),
    spread,
)


@pytest.fixture
def registered():
    """A measure of one's own, for a while."""
    register_measure(SPREAD)
    yield
    del measures._REGISTERED["spread"]


@pytest.fixture
def given(rng):
    """Five networks, images, and a recording of a few neuroids."""
    images = toy_images(30)
    recording = Recording(
        identifier="toy",
        images=images,
        responses=rng.normal(size=(30, 2, 3)),
        neuroid_ids=("a", "b", "c"),
        region="IT",
        degrees=8.0,
    )
    networks = {("network", name): toy_network(k, name) for k, name in enumerate(NAMES)}
    return networks | {("images", "toys"): images, ("recording", "toy"): recording}


def test_a_registered_measure_reaches_rows_correlations_tables_and_figures(
    registered, given, tmp_path
):
    scores = [
        ScoreConfig(model=name, recording="toy", layer="1", components=2, splits=2)
        for name in NAMES
    ]
    analyses = [toy_config("spread", model=name) for name in NAMES]
    done = run(
        [
            *(*scores, *analyses, CorrelateConfig(permutations=20)),
            *(TableConfig(table="1"), FigureConfig(figure="forest")),
        ],
        tmp_path / "results",
        given=given,
        out=tmp_path / "paper",
        responses=tmp_path / "responses",
    )
    assert not done.failures
    rows = done.of(MeasureRow)
    assert [(row.metric, row.n_points) for row in rows] == [("spread", 6)] * 5
    assert len({row.value for row in rows}) == 5
    (found,) = done.of(CorrelationRow)
    assert found.measure == "spread"
    scored = done.of(ScoreRow)
    column = "raw" if any(row.value is None for row in scored) else "value"
    numbers = [[row.value for row in rows], [getattr(row, column) for row in scored]]
    assert found.value == pytest.approx(np.corrcoef(numbers)[0, 1])
    assert TITLE in (tmp_path / "paper" / "table_1.md").read_text()
    assert list(done.store.load("analyze")["metric"]) == ["spread"] * 5
    assert [len(sheet.records) for sheet in row_sheets(rows)] == [5]
    assert save_measures(rows, tmp_path / "measures").is_file()
    # As with any other, what is stored is not measured again.
    assert run(analyses, tmp_path / "results", given=given).n_stored == 5


def test_a_registered_measure_is_a_choice_of_its_option(registered):
    @flags()
    def command(asked: Asked[AnalysisConfig]) -> None:
        """Planted."""

    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, "--help", env={"COLUMNS": "200"}).output
    assert "dimensionality|steerability|spread" in shown


def test_a_version_of_a_measure_is_part_of_its_identity(registered, given, tmp_path):
    asked = [toy_config("spread", model=NAMES[0])]
    places = {"given": given, "responses": tmp_path / "responses"}
    (first,) = run(asked, tmp_path, **places).rows
    measures._REGISTERED["spread"] = Measure(**{**vars(SPREAD), "version": "2"})
    (second,) = run(asked, tmp_path, **places).rows
    assert first.config_id != second.config_id


def test_a_measure_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match="no measure 'bure'; choose from bures, decod"):
        toy_config("bure")


def test_names_that_are_taken_are_refused(registered):
    with pytest.raises(ConfigError, match="'spread' already"):
        register_measure(SPREAD)
    other = Measure("other", "", ("clean",), SPREAD.quantities, spread)
    with pytest.raises(ConfigError, match="numbers called 'spread'"):
        register_measure(other)


def test_no_two_numbers_are_called_the_same():
    found = [one for measure in MEASURES.values() for one in measure.quantities]
    found += [similarity.quantity for similarity in SIMILARITIES.values()]
    assert len({one.title for one in found}) == len(quantities()) == len(found)
