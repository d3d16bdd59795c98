"""A similarity is one entry; rows, correlations, tables and figures follow from it."""

import numpy as np
import pytest
import typer
from toys import toy_images, toy_network
from typer.testing import CliRunner

from ce_align.cli.flags import Asked, flags
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.rdm import (
    compare_rdms,
    dissimilarities,
    noise_ceiling,
    squared_distances,
    unbiased_gram,
)
from ce_align.metrics.spectral_theory import expected_error, spectrum_of
from ce_align.models.given import FeatureArray
from ce_align.report.paper.files import FigureConfig
from ce_align.report.terminal import row_sheets
from ce_align.runner import plan, run
from ce_align.stages import similarities
from ce_align.stages.correlate import CorrelateConfig, CorrelationRow
from ce_align.stages.quantities import Panel, Quantity
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.similarities import (
    SIMILARITIES,
    Similarity,
    SimilarityConfig,
    SimilarityRow,
    register_similarity,
)

pytestmark = pytest.mark.slow

NAMES = [f"net{seed}" for seed in range(5)]
N = 30


def recording(rng, signal, *, name="toy", repetitions=4, noise=1.0, animals=1):
    """Repetitions of a signal (n_stimuli, n_neuroids) with noise."""
    n, n_neuroids = signal.shape
    drawn = rng.normal(size=(n, repetitions, n_neuroids))
    columns = {"animal": np.arange(n_neuroids) % animals} if animals > 1 else {}
    return Recording(
        identifier=name,
        images=toy_images(n),
        responses=signal[:, None] + noise * drawn,
        neuroid_ids=tuple(f"{name}{k}" for k in range(n_neuroids)),
        region="IT",
        neuroids=columns,
    )


@pytest.fixture
def signal(rng):
    return rng.normal(size=(N, 3)) @ rng.normal(size=(3, 12))


@pytest.fixture
def similar(tmp_path):
    """Rows of features and a recording."""

    def compute(features, held, *metrics, **settings):
        configs = [
            SimilarityConfig(
                metric=m,
                model="mine",
                layer="features",
                recording="toy",
                **settings,
            )
            for m in metrics
        ]
        given = {
            ("network", "mine"): FeatureArray("mine", {"features": features}),
            ("recording", "toy"): held,
        }
        outcome = run(configs, tmp_path / "results", given=given)
        assert not outcome.failures
        return outcome

    return compute


GRADED = [name for name, one in SIMILARITIES.items() if one.graded]


@pytest.mark.parametrize("metric", GRADED)
def test_the_truth_lies_between_both_bounds_and_noise_at_the_floor(
    metric, similar, rng, signal
):
    held = recording(rng, signal)
    (truth,) = similar(signal, held, metric).rows
    (other,) = similar(rng.normal(size=(N, 12)), held, metric).rows
    assert truth.ceiling_kind == "repetitions"
    assert truth.ceiling_low < truth.value < truth.ceiling_high + 0.05
    assert truth.floor < 0.5 * truth.value or metric == "shape"
    assert truth.low < truth.value < truth.high
    assert truth.interval == "stimuli and neuroids"
    assert other.value == pytest.approx(other.floor, abs=0.15)
    assert (truth.n_stimuli, truth.n_neuroids) == (N, 12)


@pytest.mark.parametrize("metric", sorted({*SIMILARITIES} - {*GRADED}))
def test_what_is_not_better_when_larger_has_an_interval_and_no_bounds(
    metric, similar, rng, signal
):
    features = rng.normal(size=(120, 60)) / np.sqrt(1 + np.arange(60))
    held = recording(rng, np.tile(signal, (4, 1)), animals=2)
    whole, *each, mean = similar(features, held, metric).rows
    assert whole.low < whole.value < whole.high
    assert mean.value == pytest.approx(np.mean([row.value for row in each]))
    for row in (whole, mean):
        assert row.floor is row.ceiling_low is row.ceiling_high is None
        assert row.ceiling_kind is None


def test_expected_errors_are_of_the_stimuli_that_folds_hold_out(similar, rng, signal):
    features = rng.normal(size=(N, 60)).astype(np.float32)
    held = recording(rng, signal)
    (row,) = similar(features, held, "expected_r2", folds=3).rows
    spectrum = spectrum_of(centred_gram(features), centred_gram(held.averaged()))
    error = expected_error(spectrum, round(N * 2 / 3)).error
    assert row.value == pytest.approx(1 - error, abs=1e-9)
    assert row.method == "1 of 3 stimuli held out, best penalty"


def test_rsa_is_of_crossvalidated_distances_where_there_are_any(similar, rng, signal):
    features = rng.normal(size=(N, 20))
    held = recording(rng, signal)
    (row,) = similar(features, held, "rsa").rows
    distances = squared_distances(unbiased_gram(held.responses))
    features = features.astype(np.float32)  # in which features are kept
    expected = compare_rdms(dissimilarities(features), distances)
    assert row.value == pytest.approx(expected, abs=1e-12)
    assert row.method == "crossvalidated, whitened"
    asked = {"distance": "correlation", "comparator": "spearman"}
    (row,) = similar(features, held, "rsa", **asked).rows
    both = dissimilarities(held.averaged(), "correlation")
    own = dissimilarities(features, "correlation")
    assert row.value == pytest.approx(compare_rdms(own, both, "spearman"), abs=1e-12)
    assert row.method == "correlation, spearman"


def test_without_repetitions_there_is_no_ceiling_and_a_note(similar, rng, signal):
    (row,) = similar(signal, recording(rng, signal, repetitions=1), "rsa").rows
    assert row.method == "euclidean, whitened"
    assert row.ceiling_low is row.ceiling_high is row.ceiling_kind is None
    assert "no ceiling: there are no two repetitions of every stimulus" in row.note
    assert row.low < row.value < row.high


def test_two_repetitions_cannot_be_halved_and_crossvalidated(similar, rng, signal):
    (row,) = similar(signal, recording(rng, signal, repetitions=2), "rsa").rows
    assert row.method == "crossvalidated, whitened"
    assert "no ceiling: crossvalidated distances need two repetitions" in row.note


def test_few_neuroids_leave_the_interval_to_stimuli(similar, rng, signal):
    held = recording(rng, signal[:, :3])
    (row,) = similar(signal, held, "cka").rows
    assert row.low is row.high is row.interval is None
    assert "no interval: an interval over neuroids needs 5 or more" in row.note
    (row,) = similar(signal, held, "cka", interval="stimuli").rows
    assert row.interval == "stimuli" and row.low < row.value < row.high


def test_animals_have_rows_and_their_mean_a_ceiling_of_its_own(similar, rng, signal):
    held = recording(rng, signal, animals=2)
    rows = similar(signal, held, "rsa").rows
    assert [row.animal for row in rows] == [None, "0", "1", "mean"]
    rdms = [
        squared_distances(unbiased_gram(held.responses[:, :, k::2])) for k in range(2)
    ]
    mean = rows[-1]
    assert (mean.ceiling_low, mean.ceiling_high) == noise_ceiling(rdms)
    assert mean.ceiling_kind == "animals" and mean.low is None
    assert mean.value == pytest.approx(np.mean([row.value for row in rows[1:3]]))
    assert mean.ceiling_low < mean.value < mean.ceiling_high + 0.05


def test_stored_rows_are_found_again(similar, rng, signal):
    held = recording(rng, signal)
    first = similar(signal, held, "rsa", "cka")
    again = similar(signal, held, "rsa", "cka")
    assert (first.n_done, again.n_stored) == (2, 2)
    assert [r.value for r in again.rows] == [r.value for r in first.rows]
    asked = [
        SimilarityConfig(metric=m, model="mine", recording="toy", layer="features")
        for m in ("rsa", "shape")
    ]
    states = plan(asked, again.store)["similarity"]
    assert [c.metric for c in states["done"]] == ["rsa"]
    assert [c.metric for c in states["never run"]] == ["shape"]


#: A similarity of one's own: correlation of the two sums over units.
TOTAL = Similarity(
    Quantity("total", "Agreement of sums", -1, 1, "table", Panel("Sums", "r")),
    "whether the same stimuli drive most",
    lambda features, config: np.asarray(features, dtype=np.float64).sum(axis=1),
    lambda a, b, config, folds: float(np.corrcoef(a, b)[0, 1]),
    lambda parts, config: np.sum(parts, axis=0),
    by_pairs=False,
)


@pytest.fixture
def registered():
    """A similarity of one's own, for a while."""
    register_similarity(TOTAL)
    yield
    del similarities._REGISTERED["total"]


def test_a_registered_similarity_reaches_rows_correlations_tables_and_figures(
    registered, rng, signal, tmp_path
):
    names = ("toy", "other")
    given = {("network", name): toy_network(k, name) for k, name in enumerate(NAMES)}
    given |= {("recording", n): recording(rng, signal, name=n) for n in names}
    both = [{"model": m, "recording": r, "layer": "1"} for m in NAMES for r in names]
    done = run(
        [
            *(ScoreConfig(**one, components=2, splits=2) for one in both),
            *(SimilarityConfig(metric="total", **one) for one in both),
            *(CorrelateConfig(permutations=20), FigureConfig(figure="forest")),
        ],
        tmp_path / "results",
        given=given,
        out=tmp_path / "paper",
    )
    assert not done.failures
    rows = done.of(SimilarityRow)
    assert [row.metric for row in rows] == ["total"] * 10
    # With one recording meets the scores with it alone.
    found = {row.recording: row for row in done.of(CorrelationRow)}
    over_both = found.pop("mean of 2 recordings")
    assert found.keys() == set(names)
    frame = done.frame.pivot(index="model", columns=["recording", "stage"])["value"]
    for name, row in found.items():
        expected = frame[name][["score", "similarity"]].corr().iloc[0, 1]
        assert (row.measure, row.value) == ("total", pytest.approx(expected))
    both = frame.loc[list(NAMES)].dropna(axis="columns")
    standardised = (both - both.mean()) / both.std()
    means = standardised.T.groupby("stage").mean().T
    assert over_both.value == pytest.approx(means.corr().iloc[0, 1])
    assert [len(sheet.records) for sheet in row_sheets(rows)] == [5, 5]


def test_a_registered_similarity_is_a_choice_of_its_option(registered):
    @flags()
    def command(asked: Asked[SimilarityConfig]) -> None:
        """Planted."""

    app = typer.Typer()
    app.command()(command)
    shown = CliRunner().invoke(app, "--help", env={"COLUMNS": "200"}).output
    assert "spectral_exponent|total" in shown


def test_names_that_are_taken_are_refused(registered):
    for name in ("total", "rsa", "class_class"):
        other = Similarity(**{**vars(TOTAL), "quantity": Quantity(name, "Other")})
        with pytest.raises(ConfigError, match=f"has numbers called '{name}'"):
            register_similarity(other)
