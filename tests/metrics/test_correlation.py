"""Correlation across networks: agreement with scipy, coverage, planted effects."""

import numpy as np
import pytest
import scipy.stats

from ce_align.errors import DataError
from ce_align.metrics.correlation import correlate

GROUPS = np.repeat(["mmcr", "barlow", "simclr"], 7)
WITHIN = np.tile(np.linspace(-1.5, 1.5, 7), 3)
BETWEEN = np.repeat([-1.0, 0.0, 1.0], 7)


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
    assert record.within_pearson == pytest.approx(np.corrcoef(*centred)[0, 1])
    assert record.low < record.pearson < record.high
    assert record.n_networks == 21


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
    assert planted.low > 0.8


def test_difference_between_objectives_is_told_from_an_effect_within(rng):
    noise = 0.1 * rng.normal(size=(2, 21))
    between = one(BETWEEN + noise[0], BETWEEN + noise[1], rng)
    assert between.pearson > 0.95
    assert abs(between.within_pearson) < 0.6
    assert between.p > 0.05
    within = one(WITHIN + BETWEEN, WITHIN - BETWEEN + noise[1], rng)
    assert within.within_pearson > 0.95
    assert within.p < 0.001


def test_same_seed_gives_the_same_table(rng):
    x, y = rng.normal(size=(2, 21))
    first = one(x, y, np.random.default_rng(1))
    assert first == one(x, y, np.random.default_rng(1))


def test_measure_that_varies_between_objectives_only_has_no_within_correlation(rng):
    record = one(BETWEEN + 0.1, rng.normal(size=21), rng)
    assert np.isnan(record.within_pearson)
    assert record.p == 1


@pytest.mark.slow
@pytest.mark.parametrize("design", ["normal", "graded"])
@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_intervals_cover_the_planted_correlation(design, rho):
    rng = np.random.default_rng(int(100 * rho))
    graded = WITHIN / WITHIN.std()
    hits = []
    for _ in range(1500):
        x = rng.normal(size=21) if design == "normal" else graded
        y = rho * x + np.sqrt(1 - rho**2) * rng.normal(size=21)
        record = one(x, y, rng, n_resamples=400, n_permutations=1)
        hits.append(record.low <= rho <= record.high)
    assert 0.93 <= np.mean(hits) <= 0.97


def test_p_is_uniform_where_nothing_is_planted(rng):
    p = [
        one(
            rng.normal(size=21) + BETWEEN, rng.normal(size=21) + BETWEEN, rng,
            n_resamples=20, n_permutations=199,
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
