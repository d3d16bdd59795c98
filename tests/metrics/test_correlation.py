"""Correlation across networks: agreement with scipy, coverage, planted effects."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

from ce_align.errors import DataError
from ce_align.metrics.correlation import Coefficient, correlate, residual_r

ROOT = Path(__file__).resolve().parents[2]
SIMULATION = runpy.run_path(str(ROOT / "benchmarks" / "coverage" / "correlation.py"))
DESIGNS, simulate = SIMULATION["DESIGNS"], SIMULATION["simulate"]

GROUPS = np.repeat(["mmcr", "barlow", "simclr"], 7)
WITHIN = np.tile(np.linspace(-1.5, 1.5, 7), 3)
BETWEEN = np.repeat([-1.0, 0.0, 1.0], 7)
LAMBDA = np.tile([0, 0.001, 0.1, 0.2, 0.3, 0.4, 0.5], 3)


def one(x, y, rng, groups=GROUPS, **options):
    (record,) = correlate({"measure": x}, {"it": y}, groups, rng, **options)
    return record


def test_coefficients_agree_with_scipy(rng):
    x, y = rng.normal(size=(2, 21))
    record = one(x, y, rng)
    assert record.pearson == pytest.approx(scipy.stats.pearsonr(x, y).statistic)
    assert record.spearman == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    assert record.abs_pearson == abs(record.pearson)
    assert record.r_squared == pytest.approx(record.pearson**2)
    centred = [
        np.concatenate([v[g == GROUPS] - v[g == GROUPS].mean() for g in set(GROUPS)])
        for v in (x, y)
    ]
    assert record.within.r == pytest.approx(np.corrcoef(*centred)[0, 1])
    assert record.n_networks == 21


def test_each_objective_is_predicted_by_a_line_through_the_others(rng):
    x, y = rng.normal(size=(2, 21))
    y += x
    predicted = cross_val_predict(
        LinearRegression(), x[:, None], y, groups=GROUPS, cv=LeaveOneGroupOut()
    )
    means = np.array([y[group != GROUPS].mean() for group in GROUPS])
    expected = 1 - ((y - predicted) ** 2).sum() / ((y - means) ** 2).sum()
    assert one(x, y, rng).held_out_r2 == pytest.approx(expected)
    assert one(x, 2 * x - 1, rng).held_out_r2 == pytest.approx(1)
    # Opposite slopes: what holds in two objectives misleads in the third.
    turned = np.where(np.isin(GROUPS, ["mmcr"]), -x, x)
    assert one(x, turned, rng).held_out_r2 < 0
    assert np.isnan(one(x, y, rng, np.repeat("a", 21)).held_out_r2)


def test_table_has_every_measure_with_every_target_and_its_q(rng):
    measures = {name: rng.normal(size=21) for name in "abc"}
    measures["d"] = WITHIN
    targets = {"it": WITHIN + 0.2 * rng.normal(size=21), "v4": rng.normal(size=21)}
    records = correlate(measures, targets, GROUPS, rng, n_permutations=2000)
    assert [(r.measure, r.target) for r in records] == [
        (m, t) for m in "abcd" for t in ("it", "v4")
    ]
    p = [r.p for r in records]
    np.testing.assert_allclose(
        [r.q for r in records], scipy.stats.false_discovery_control(p)
    )
    planted = next(r for r in records if (r.measure, r.target) == ("d", "it"))
    assert planted.q < 0.05
    assert planted.within.low > 0.8


def test_difference_between_objectives_is_told_from_an_effect_within(rng):
    noise = 0.1 * rng.normal(size=(2, 21))
    between = one(BETWEEN + noise[0], BETWEEN + noise[1], rng)
    assert between.pearson > 0.95
    assert abs(between.within.r) < 0.6
    assert between.p > 0.05
    within = one(WITHIN + BETWEEN, WITHIN - BETWEEN + noise[1], rng)
    assert within.within.r > 0.95
    assert within.p < 0.001


def test_same_seed_gives_the_same_table(rng):
    x, y = rng.normal(size=(2, 21))
    first = one(x, y, np.random.default_rng(1))
    # As text, for bounds that are not defined are NaN.
    assert repr(first) == repr(one(x, y, np.random.default_rng(1)))


def test_measure_that_varies_between_objectives_only_has_no_within_correlation(rng):
    record = one(BETWEEN + 0.1, rng.normal(size=21), rng)
    assert np.isnan(record.within.r)
    assert record.p == 1


def test_interval_of_one_objective_is_that_of_r_and_equals_scipys(rng):
    x, y = rng.normal(size=(2, 30))
    record = one(x, y, rng, groups=np.repeat("mmcr", 30))
    assert (record.low, record.high) == (record.within.low, record.within.high)
    assert record.pearson == pytest.approx(record.within.r)
    theirs = scipy.stats.pearsonr(x, y).confidence_interval(0.95)
    # Never narrower than Fisher's, which is right for normal networks.
    assert record.low <= theirs.low + 1e-9
    assert record.high >= theirs.high - 1e-9
    assert record.high - record.low < 1.2 * (theirs.high - theirs.low)


def test_every_interval_has_the_level_that_is_asked_for(rng):
    x, y = rng.normal(size=(2, 21)) + LAMBDA
    for groups in (GROUPS, np.repeat("mmcr", 21)):
        narrow, wide = (
            one(x, y, rng, groups, covariate=LAMBDA, level=level)
            for level in (0.5, 0.95)
        )
        expected = scipy.stats.norm.ppf(0.75) / scipy.stats.norm.ppf(0.975)
        for name in ("within", "partial"):
            bounds = [
                (getattr(found, name).low, getattr(found, name).high)
                for found in (narrow, wide)
            ]
            widths = np.diff(np.arctanh(bounds), axis=1).ravel()
            assert widths[0] / widths[1] == pytest.approx(expected), name


def test_independent_networks_are_those_beyond_the_model(rng):
    x, y = rng.normal(size=(2, 21))
    record = one(x, y, rng, covariate=LAMBDA)
    assert (record.within.n_independent, record.partial.n_independent) == (19, 11)
    p = scipy.stats.t.sf(
        abs(record.within.r) * np.sqrt(17 / (1 - record.within.r**2)), 17
    )
    assert record.within.p == pytest.approx(2 * p)
    undefined = one(BETWEEN + 0.1, y, rng).within
    assert np.isnan([undefined.r, undefined.low, undefined.high, undefined.p]).all()
    assert undefined.n_independent == 19
    model = np.ones((21, 1))
    assert residual_r(x, x, model) == Coefficient(1, 1, 1, 0, 21)
    assert residual_r(x, -x, model) == Coefficient(-1, -1, -1, 0, 21)


def test_r_across_several_objectives_has_no_interval(rng):
    record = one(*rng.normal(size=(2, 21)), rng)
    assert np.isnan([record.low, record.high]).all()
    assert record.within.low < record.within.r < record.within.high


def test_long_tails_widen_an_interval(rng):
    x, y = rng.normal(size=(2, 21))
    outlying = np.where(np.arange(21) == 3, 8.0, 0.0)
    plain, far = one(x, y, rng).within, one(x + outlying, y + outlying, rng).within
    fisher = 2 * scipy.stats.norm.ppf(0.975) / np.sqrt(19 - 3)
    widths = [np.arctanh(c.high) - np.arctanh(c.low) for c in (plain, far)]
    assert widths[1] > 1.5 * fisher
    assert widths[0] < widths[1]


def test_jackknife_without_refitting_is_that_with_refitting(rng):
    """An outlier makes the jackknife's error the larger one; refit it by hand."""
    x, y = rng.normal(size=(2, 21))
    x[4] += 7
    y[4] += 5
    model = np.asarray(GROUPS[:, None] == np.unique(GROUPS), float)
    found = residual_r(x, y, model)

    def z(kept):
        left = np.stack([x, y])[:, kept]
        fit = np.linalg.lstsq(model[kept], left.T, rcond=None)[0]
        return np.arctanh(np.corrcoef(left - (model[kept] @ fit).T)[0, 1])

    every = np.arange(21)
    left_out = np.array([z(every != k) for k in every])
    error = np.sqrt(np.sum((left_out - z(every >= 0)) ** 2) * 18 / 21)
    assert error > 1 / np.sqrt(19 - 3)
    half = scipy.stats.norm.ppf(0.975) * 1.05 * error
    assert found.r == pytest.approx(np.tanh(z(every >= 0)))
    assert found.high == pytest.approx(np.tanh(z(every >= 0) + half))


def test_partial_correlation_is_that_of_residuals_by_least_squares(rng):
    x, y = rng.normal(size=(2, 21)) + 3 * LAMBDA + BETWEEN
    record = one(x, y, rng, covariate=LAMBDA)
    columns = [name == GROUPS for name in np.unique(GROUPS)]
    columns += [value == LAMBDA for value in np.unique(LAMBDA)[1:]]
    columns += [np.where(name == GROUPS, LAMBDA, 0) for name in np.unique(GROUPS)[1:]]
    model = np.stack(columns, axis=1).astype(float)
    assert np.linalg.matrix_rank(model) == 11
    residuals = [v - model @ np.linalg.lstsq(model, v, rcond=None)[0] for v in (x, y)]
    expected = np.corrcoef(*residuals)[0, 1]
    assert record.partial.r == pytest.approx(expected)
    assert record.given == "objective, each λ and its slope by objective"
    assert record.n_partial == 21
    # Student's t with 21 − 11 − 1 degrees of freedom, which pearsonr has for n = 11.
    p = scipy.stats.beta(4.5, 4.5, loc=-1, scale=2).cdf(-abs(expected)) * 2
    assert record.partial.p == record.partial_q == pytest.approx(p)


@pytest.mark.parametrize(
    ("groups", "weights", "given"),
    [
        (
            np.repeat(["a", "b", "c"], 3),
            np.tile([0, 0.1, 0.5], 3),
            "objective and each λ",
        ),
        (np.repeat("a", 8), np.arange(8.0), "λ and λ²"),
        (np.repeat("a", 7), np.arange(7.0), "λ and λ²"),
        (np.repeat("a", 6), np.arange(6.0), ""),
        (np.repeat(["a", "b"], 4), np.arange(8.0), "objective, λ and λ²"),
        (np.repeat("a", 5), np.arange(5.0), ""),
        (np.repeat("a", 9), np.repeat(0.1, 9), ""),
        (np.repeat("a", 9), np.repeat(np.nan, 9), ""),
    ],
)
def test_smaller_designs_have_simpler_models(groups, weights, given, rng):
    x, y = rng.normal(size=(2, len(groups)))
    record = one(x, y, rng, groups=groups, covariate=weights)
    assert record.given == given
    assert np.isnan(record.partial.r) == (given == "")


def test_networks_of_unknown_weight_do_not_enter_the_partial_correlation(rng):
    x, y = rng.normal(size=(2, 24))
    groups = np.append(GROUPS, ["unknown"] * 3)
    weights = np.append(LAMBDA, [np.nan] * 3)
    record = one(x, y, rng, groups=groups, covariate=weights)
    known = one(x[:21], y[:21], rng, covariate=LAMBDA)
    assert record.partial == known.partial
    assert (record.n_networks, record.n_partial) == (24, 21)


def within_binomial_error(hits, low, high):
    """Whether a share in [low, high] is compatible with these hits, at 4.5 sigma."""
    n, share = len(hits), np.mean(hits)
    margins = [4.5 * np.sqrt(edge * (1 - edge) / n) for edge in (low, high)]
    return low - margins[0] <= share <= min(high + margins[1], 1)


def in_ascii(design):
    """Of other letters, names differ when tests are collected a second time."""
    return f"{design.n_objectives}x{design.n_weights}"


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.5, 3.0])
@pytest.mark.parametrize("r", [0.0, 0.8])
@pytest.mark.parametrize("design", DESIGNS[:4], ids=in_ascii)
def test_intervals_cover_the_planted_correlation_whatever_objectives_share(
    design, r, offset
):
    rng = np.random.default_rng(int(10 * r + offset))
    found = list(simulate(design, 250, rng, r=r, offset=offset))
    for name in ("within", "partial"):
        parts = [getattr(record, name) for record in found]
        if np.isfinite(parts[0].low):
            hits = [part.low <= r <= part.high for part in parts]
            assert within_binomial_error(hits, 0.92, 0.98), name
    if design.n_objectives == 1:
        hits = [record.low <= r <= record.high for record in found]
        assert within_binomial_error(hits, 0.92, 0.98)
    else:
        assert np.isnan([record.low for record in found]).all()


@pytest.mark.slow
@pytest.mark.parametrize("cause", ["none", "linear", "saturating", "threshold"])
def test_a_common_cause_is_told_from_an_effect_by_the_partial_correlation(cause):
    rng = np.random.default_rng(5)
    found = list(simulate(DESIGNS[0], 250, rng, 99, cause=cause))
    wrong = [record.partial.p <= 0.05 for record in found]
    assert within_binomial_error(wrong, 0.05, 0.05)
    if cause != "none":  # the plain test takes λ for an effect of the measure
        assert np.mean([record.p <= 0.05 for record in found]) > 0.3


@pytest.mark.slow
def test_p_is_uniform_where_nothing_is_planted(rng):
    p = [
        one(
            rng.normal(size=21) + BETWEEN, rng.normal(size=21) + BETWEEN, rng,
            n_permutations=199,
        ).p
        for _ in range(600)
    ]  # fmt: skip
    assert scipy.stats.kstest(p, "uniform").pvalue > 0.01


def test_too_few_or_impossible_networks_are_refused(rng):
    x, y = rng.normal(size=(2, 21))
    with pytest.raises(DataError, match="5 or more"):
        one(x[:4], y[:4], rng, groups=GROUPS[:4])
    with pytest.raises(DataError, match="same for all networks"):
        one(np.ones(21), y, rng)
    with pytest.raises(DataError, match="measure has 20 networks"):
        one(x[:20], y, rng)
    with pytest.raises(DataError, match="it has 1 NaN"):
        one(x, np.where(np.arange(21) == 3, np.nan, y), rng)
    with pytest.raises(DataError, match="nothing can be exchanged"):
        one(x, y, rng, groups=np.arange(21))
