"""Families: their ranges, probabilities and combinations."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ce_align.augment import (
    FAMILIES,
    JITTER_ORDERS,
    Family,
    ViewRanges,
    nested,
    outer,
    outside_ranges,
    sample,
)
from ce_align.augment.parameters import SPATIAL_COLUMNS
from ce_align.errors import ConfigError

PHOTOMETRIC = [5, 6, 7, 8, 9, 10, 11]  # of PARAMETER_NAMES
seeds = st.integers(0, 2**32 - 1)


def ranges_of_rows(name, n):
    views = FAMILIES[name].views
    return [views[row % len(views)] for row in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), seeds, st.integers(1, 60))
def test_every_row_lies_in_the_ranges_of_its_view(name, seed, n):
    ledger = sample(name, n, seed, aspect=1.0)
    assert len(ledger) == n
    assert set(ledger.family) == {name}
    for row, ranges in zip(ledger, ranges_of_rows(name, n), strict=True):
        assert row.view[0] == ranges.view
        assert not outside_ranges(row, ranges)[0]
        jittered = row.parameters()[0, 5:9] != [1, 1, 1, 0]
        assert jittered.all() or not jittered.any()
        assert not (jittered.any() and ranges.jitter == 0)
        if ranges.crop_area is None:
            assert row.parameters()[0, :5].tolist() == [0, 0, 1, 1, 0]


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), seeds, st.integers(1, 30), st.integers(1, 30))
def test_shorter_sample_begins_the_longer_one(name, seed, n, more):
    assert sample(name, n + more, seed)[:n] == sample(name, n, seed)


def test_same_seed_same_rows_and_other_seed_other_rows():
    a, b = (sample("strong", 10, np.random.default_rng(s)) for s in (4, 5))
    assert a == sample("strong", 10, 4)
    assert a != b


def test_fifty_strong_views_are_half_a_and_half_b():
    ledger = sample("strong", 50, 0)
    assert (ledger.view == "A").sum() == (ledger.view == "B").sum() == 25
    assert (ledger.blur_sigma[ledger.view == "A"] > 0).all()
    assert not ledger.solarize[ledger.view == "A"].any()


@pytest.mark.parametrize("name", sorted(set(FAMILIES) - {"strong-only"}))
def test_transforms_are_applied_as_often_as_the_family_says(name):
    n = 4000 * len(FAMILIES[name].views)
    ledger = sample(name, n, 3)
    for start, ranges in enumerate(FAMILIES[name].views):
        rows = ledger[start :: len(FAMILIES[name].views)]
        for observed, probability in [
            (rows.flip, ranges.flip),
            (rows.brightness != 1, ranges.jitter),
            (rows.grayscale, ranges.grayscale),
            (rows.blur_sigma > 0, ranges.blur),
            (rows.solarize, ranges.solarize),
        ]:
            low, high = stats.binom.interval(1 - 1e-6, len(rows), probability)
            assert low <= observed.sum() <= high or probability in (0, 1)
            assert probability not in (0, 1) or observed.mean() == probability


def test_magnitudes_are_uniform_and_orders_equally_likely():
    rows = sample("strong_a", 6000, 1)
    jittered = rows[rows.brightness != 1]
    for values, low, high in [
        (jittered.brightness, 0.6, 1.4),
        (jittered.contrast, 0.6, 1.4),
        (jittered.saturation, 0.8, 1.2),
        (jittered.hue, -0.1, 0.1),
        (rows.blur_sigma, 0.1, 2.0),
    ]:
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-4
    counts = np.bincount(rows.jitter_order, minlength=24)
    assert stats.chisquare(counts).pvalue > 1e-4
    assert len({tuple(order) for order in JITTER_ORDERS}) == 24


def test_parameters_of_a_row_are_independent():
    rows = sample("strong_b", 6000, 2)
    rows = rows[(rows.brightness != 1)]
    columns = [0, 1, 4, 5, 6, 7, 8, 9, 11]
    correlation = np.corrcoef(rows.parameters()[:, columns].T)
    off = correlation[~np.eye(len(columns), dtype=bool)]
    # Top and left share the size of the crop; everything else is independent.
    assert np.sort(np.abs(off))[:-2].max() < 5 / np.sqrt(len(rows))


@pytest.mark.parametrize("aspect", [1.0, 1.5, 0.4])
def test_crops_are_distributed_as_torchvision_samples_them(aspect):
    torch = pytest.importorskip("torch")
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    height, width, n = 2000, round(2000 * aspect), 1500
    image = torch.empty(3, height, width)
    reference = np.array(
        [
            RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(n)
        ]
    ) / [height, width, height, width]
    ours = sample("spatial", n, 11, aspect=aspect).parameters()[:, :4]
    for column in range(4):
        # The reference's whole pixels make ties: compare at its resolution.
        a, b = (np.round(x[:, column], 3) for x in (ours, reference))
        assert stats.ks_2samp(a, b).pvalue > 1e-3
    areas = [x[:, 2] * x[:, 3] for x in (ours, reference)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3


def test_crop_that_never_fits_is_the_largest_centred_one():
    wide = sample(Family("whole", (ViewRanges(crop_area=(1.0, 1.0)),)), 3, 0, aspect=4)
    np.testing.assert_allclose(
        wide.parameters()[:, :4], [[0, (1 - 1 / 3) / 2, 1, 1 / 3]] * 3
    )


def test_every_strong_only_row_leaves_the_weak_range():
    ledger = sample("strong-only", 400, 5)
    weak = FAMILIES["weak"].views
    area = ledger.crop_height * ledger.crop_width
    beyond = (
        (area < 0.16)
        | (np.abs(ledger.brightness - 1) > 0.2)
        | (np.abs(ledger.contrast - 1) > 0.2)
        | (np.abs(ledger.saturation - 1) > 0.1)
        | (np.abs(ledger.hue) > 0.05)
        | (ledger.blur_sigma > 1)
    )
    assert beyond.all()
    for view, ranges in enumerate(weak):
        assert outside_ranges(ledger[view::2], ranges).all()
        assert not outside_ranges(sample("weak", 400, 6)[view::2], ranges).any()


def test_strong_only_rows_are_the_strong_rows_that_leave_the_weak_range():
    strong, only = sample("strong", 400, 5), sample("strong-only", 50, 5)
    for view, ranges in enumerate(FAMILIES["weak"].views):
        rows = strong[view::2]
        kept = rows[outside_ranges(rows, ranges)][:25].parameters()
        np.testing.assert_array_equal(only[view::2].parameters(), kept)


def test_outer_pairs_every_crop_with_the_same_photometric_draws():
    spatial, photometric = sample("spatial", 3, 0), sample("photometric", 4, 1)
    grid = outer(spatial, photometric)
    values = grid.parameters().reshape(3, 4, 12)
    np.testing.assert_array_equal(
        values[:, :, :5],
        np.broadcast_to(spatial.parameters()[:, None, :5], (3, 4, 5)),
    )
    np.testing.assert_array_equal(
        values[:, :, PHOTOMETRIC],
        np.broadcast_to(photometric.parameters()[None, :, PHOTOMETRIC], (3, 4, 7)),
    )
    np.testing.assert_array_equal(
        grid.jitter_order.reshape(3, 4), [photometric.jitter_order] * 3
    )
    assert set(grid.family) == {"spatial x photometric"}


def test_nested_gives_every_crop_photometric_draws_of_its_own():
    spatial, photometric = sample("spatial", 3, 0), sample("photometric", 12, 1)
    grid = nested(spatial, photometric)
    for name in SPATIAL_COLUMNS:
        expected = np.repeat(getattr(spatial, name), 4)
        np.testing.assert_array_equal(getattr(grid, name), expected)
    np.testing.assert_array_equal(
        grid.parameters()[:, PHOTOMETRIC], photometric.parameters()[:, PHOTOMETRIC]
    )
    with pytest.raises(ConfigError, match="11 photometric rows cannot be shared"):
        nested(spatial, photometric[:11])


def test_unknown_family_names_the_nearest_and_all():
    with pytest.raises(ConfigError, match=r"did you mean strong.* choose from .*weak"):
        sample("strnog", 1, 0)


@pytest.mark.parametrize(
    ("n", "aspect", "message"),
    [(0, 1.0, "at least one view"), (1, 0.0, "width / height"), (1, np.nan, "width")],
)
def test_impossible_request_is_refused(n, aspect, message):
    with pytest.raises(ConfigError, match=message):
        sample("weak", n, 0, aspect=aspect)


def test_family_inside_its_excluded_ranges_is_refused():
    strong = FAMILIES["strong_a"].views
    with pytest.raises(ConfigError, match="too rarely"):
        sample(Family("empty", strong, outside=strong), 1, 0)
    wider = replace(strong[0], hue=0.11)
    assert len(sample(Family("rare", (wider,), outside=strong), 1, 0)) == 1
