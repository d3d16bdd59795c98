"""Decoding, factorization, dimensionality and steerability of planted responses."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import LinearRegression
from sklearn.metrics import r2_score
from toys import toy_config

from ce_align.augment import PARAMETER_NAMES, sample
from ce_align.errors import DataError
from ce_align.stages.estimates import HeldOut, mean_over_runs, mean_over_units
from ce_align.stages.readout import (
    _splits,
    _subsets,
    decode,
    factorize,
    measure_dimensionality,
    steer,
)

N_IMAGES, N_VIEWS, D = 30, 10, 16


@pytest.fixture
def config():
    return toy_config("decoding", views=N_VIEWS, runs=3)


def estimates(measured):
    return {one.metric: one.estimate.interval.estimate for one in measured.numbers}


def test_decoding_is_the_regression_of_z_scored_parameters(rng, config):
    clean = rng.normal(size=(N_IMAGES, D))
    ledger = sample("strong", N_IMAGES * N_VIEWS, 0)
    parameters = ledger.parameters()
    views = clean.repeat(N_VIEWS, axis=0) + parameters @ rng.normal(size=(12, D))
    views += 0.3 * rng.normal(size=views.shape)
    measured = decode(clean, views.reshape(N_IMAGES, N_VIEWS, D), ledger, config)
    image = np.repeat(np.arange(N_IMAGES), N_VIEWS)
    expected = []
    for train, test in _splits(N_IMAGES, config):
        seen, held_out = np.isin(image, train), np.isin(image, test)
        mean, scale = parameters[seen].mean(axis=0), parameters[seen].std(axis=0)
        targets = (parameters - mean) / scale
        design = np.hstack([clean[image], views])
        fit = LinearRegression().fit(design[seen], targets[seen])
        predicted = fit.predict(design[held_out])
        expected.append(
            r2_score(targets[held_out], predicted, multioutput="raw_values")
        )
        assert not set(train) & set(test)
    r2 = measured.arrays["decoding_ols_r2"]
    np.testing.assert_allclose(r2.values, expected, atol=1e-8)
    found = estimates(measured)
    assert found["decoding_ols"] == pytest.approx(np.mean(expected))
    hue = PARAMETER_NAMES.index("hue")
    assert found["decoding_ols_hue"] == pytest.approx(np.mean(expected, axis=0)[hue])


def test_weak_and_strong_only_views_are_all_views():
    ledger = sample("strong", 400, 0)
    weak, beyond = _subsets(ledger).values()
    assert (weak ^ beyond).all()
    assert 0.05 < weak.mean() < 0.3
    weak_family = _subsets(sample("weak", 400, 0))
    assert weak_family["weak"].all()
    assert not _subsets(sample("strong-only", 400, 0))["weak"].any()


def test_a_readout_of_weak_views_is_trained_on_weak_views_too(rng, config):
    ledger = sample("strong", N_IMAGES * 40, 0)
    weak = _subsets(ledger)["weak"]
    # Fewer axes than training images, so that clean responses can be subtracted.
    clean = rng.normal(size=(N_IMAGES, 8)) @ rng.normal(size=(8, 30))
    moved = ledger.parameters() @ rng.normal(size=(12, 30))
    # Beyond the weak range, responses go the other way.
    views = clean.repeat(40, axis=0) + np.where(weak, 1, -1)[:, None] * moved
    views += 0.01 * rng.normal(size=views.shape)
    measured = decode(clean, views.reshape(N_IMAGES, 40, 30), ledger, config)
    found = estimates(measured)
    assert found["decoding_ols_within_weak"] > 0.9
    assert found["decoding_ols_weak"] < 0


def test_a_subset_without_held_out_views_has_no_value(rng, config):
    ledger = sample("strong-only", N_IMAGES * N_VIEWS, 0)
    clean = rng.normal(size=(N_IMAGES, D))
    views = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    found = estimates(decode(clean, views, ledger, config))
    assert np.isnan(found["decoding_ridge_weak"])
    assert np.isnan(found["decoding_ridge_within_weak"])
    assert found["decoding_ridge_strong_only"] == found["decoding_ridge"]


def test_parameters_that_do_not_vary_have_no_value(rng, config):
    ledger = sample("spatial", N_IMAGES * N_VIEWS, 0)
    clean = rng.normal(size=(N_IMAGES, D))
    views = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    found = estimates(decode(clean, views, ledger, config))
    assert np.isnan(found["decoding_ridge_hue"])
    assert np.isfinite(found["decoding_ridge_crop_top"])
    assert np.isfinite(found["decoding_ridge"])


def test_displacements_equal_for_all_images_are_steerable(rng, config):
    draws = sample("strong", N_VIEWS, 0)
    ledger = type(draws).concat([draws] * N_IMAGES)
    clean = rng.normal(size=(N_IMAGES, D))
    moved = draws.parameters() @ rng.normal(size=(12, D))
    equal = estimates(steer(clean, clean[:, None] + moved, ledger, config))
    assert equal["steerability_by_transformation"] == pytest.approx(1, abs=1e-9)
    of_image = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    own = estimates(steer(clean, clean[:, None] + of_image, ledger, config))
    assert own["steerability_by_transformation"] < 0.05
    assert own["steerability_by_parameters"] < 0.05
    still = np.repeat(clean[:, None], N_VIEWS, axis=1)
    nothing = estimates(steer(clean, still, ledger, config))
    assert nothing["steerability_displacement_share"] == 0
    assert np.isnan(nothing["steerability_by_parameters"])


def test_factorization_tells_orthogonal_from_shared_subspaces(rng, config):
    content = 5 * rng.normal(size=(N_IMAGES, 1, 4))
    change = rng.normal(size=(N_IMAGES, N_VIEWS, 4))
    zeros = np.zeros_like(change)
    apart = np.concatenate([content + zeros, change], axis=2)
    shared = np.concatenate([content + change, zeros], axis=2)
    families = [("strong", apart), ("weak", shared)]
    found = estimates(factorize(iter(families), config))
    assert found["factorization_strong"] > 0.99
    assert found["factorization_weak"] < 0.5
    assert found["invariance_strong"] == pytest.approx(1 - 1 / 25, abs=0.03)


def test_dimensionality_counts_the_axes_of_the_clouds(rng, config):
    clouds = np.zeros((N_IMAGES, 400, 10))
    clouds[:, :, :3] = rng.normal(size=(N_IMAGES, 400, 3))
    clouds[:, :, 5:] += 9 * rng.normal(size=(N_IMAGES, 1, 5))
    measured = measure_dimensionality([("strong", clouds)], config)
    by_name = {one.metric: one.estimate.interval for one in measured.numbers}
    cloud = by_name["dimensionality_strong"]
    assert cloud.estimate == pytest.approx(3, abs=0.05)
    assert cloud.low < 3 < cloud.high + 0.05
    assert 3.5 < by_name["dimensionality_content_strong"].estimate < 5
    assert len(measured.arrays["dimensionality_strong"]) == N_IMAGES


def runs_of(rng, values, n_images=400, n_views=100, size=0.1):
    """Runs that hold out a fifth of the images, with random effects of those."""
    found = []
    for value in values:
        effects = np.zeros(n_images)
        held_out = rng.permutation(n_images)[: n_images // 5]
        drawn = size * rng.normal(size=len(held_out))
        effects[held_out] = drawn - drawn.mean()
        found.append(HeldOut(value, effects, n_views))
    return found


def test_an_interval_over_runs_has_the_error_of_the_images_they_held_out(rng):
    runs = runs_of(rng, [0.3, 0.4, 0.5], n_images=400)
    found = mean_over_runs(runs, 0.2, 0)
    total = sum(run.effects for run in runs) / 3
    error = np.sqrt(np.sum(total**2) / 0.8)
    width = (found.interval.high - found.interval.low) / 2
    assert found.interval.estimate == pytest.approx(0.4)
    assert width == pytest.approx(1.98 * error, rel=0.06)
    assert (found.over, found.note) == ("images", None)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"values": [0.3, np.nan]}, "some run has no value"),
        ({"values": [0.3], "n_images": 200}, "fewer than 50 images"),
        ({"values": [0.3, 0.4], "n_views": 20}, "fewer than 50 views"),
        ({"values": [-0.3, 0.1]}, "the mean predicts better"),
        ({"values": [0.1, 0.9], "size": 0.01}, "runs differ by more than"),
    ],
)
def test_a_regression_whose_certainty_is_unknown_has_a_value_and_a_reason(
    rng, change, why
):
    found = mean_over_runs(runs_of(rng, **change), 0.2, 0)
    assert np.isnan(found.interval.low)
    assert found.over is None
    assert found.note.startswith(f"no interval: {why}")


def notes(measured):
    return {one.metric: one.note or "" for one in measured.numbers}


def test_a_row_says_when_views_are_too_few_to_be_decoded_from(rng, config):
    clean = rng.normal(size=(N_IMAGES, 400))
    ledger = sample("strong", N_IMAGES * N_VIEWS, 0)
    views = rng.normal(size=(N_IMAGES, N_VIEWS, 400))
    measured = decode(clean, views, ledger, config)
    found, said = estimates(measured), notes(measured)
    assert "240 training views for 800 features are too few" in said["decoding_ols"]
    assert "too few" not in said["decoding_ridge"]
    for name, value in found.items():
        assert ("worse than the mean" in said[name]) == (value < 0)
    weak = int(_subsets(ledger)["weak"].sum())
    assert weak < 100
    assert "held-out views only" in said["decoding_ridge_weak"]
    assert "held-out views only" not in said["decoding_ridge"]
    enough = rng.normal(size=(N_IMAGES, N_VIEWS, 4))
    measured = decode(clean[:, :4], enough, ledger, config)
    assert "too few" not in notes(measured)["decoding_ols"]


def test_a_network_that_answers_everything_alike_is_refused_in_words(rng, config):
    ledger = sample("strong", N_IMAGES * N_VIEWS, 0)
    for size in (0.0, 3e4):
        clean = np.full((N_IMAGES, D), size, np.float32)
        views = np.full((N_IMAGES, N_VIEWS, D), size, np.float32)
        # As different kernels round.
        views += np.float32(size * 1e-7 * rng.normal(size=views.shape))
        for measure in (
            lambda: decode(clean, views, ledger, config),  # noqa: B023
            lambda: steer(clean, views, ledger, config),  # noqa: B023
            lambda: factorize([("strong", views)], config),  # noqa: B023
            lambda: measure_dimensionality([("strong", views)], config),  # noqa: B023
        ):
            with (
                warnings.catch_warnings(),
                pytest.raises(DataError, match="the network has collapsed"),
            ):
                warnings.simplefilter("error")
                measure()


def test_a_cloud_that_does_not_move_is_left_out_of_dimensionality(rng, config):
    clouds = rng.normal(size=(N_IMAGES, N_VIEWS, D))
    whole = measure_dimensionality([("photometric", clouds)], config)
    clouds[4] = 2.0
    measured = measure_dimensionality([("photometric", clouds)], config)
    row, other = measured.numbers[0], whole.numbers[0]
    assert row.note == "1 of 30 images left out: constant responses"
    assert row.n_comparisons == 29
    values = np.delete(whole.arrays[other.metric].values, 4)
    assert row.estimate.interval.estimate == pytest.approx(values.mean())


def test_a_value_that_is_not_there_takes_its_effect_to_the_others(rng):
    values, effects = rng.normal(size=12), rng.normal(size=20)
    effects -= effects.mean()
    order = [*range(1, 12), 0, *range(12, 20)]
    without = mean_over_units(values[1:], "population", 0, effects[order])
    values[0] = np.nan
    assert mean_over_units(values, "population", 0, effects) == without
    assert without.interval.estimate == pytest.approx(values[1:].mean())
    nothing = mean_over_units(np.full(5, np.nan), "population", 0)
    assert np.isnan(nothing.interval.estimate)
    assert nothing.note == "no interval: no comparison is defined"
