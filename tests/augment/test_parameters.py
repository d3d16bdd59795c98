"""The ledger travels without losing a bit; samples have the families' distributions."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ce_align.augment import (
    FAMILIES,
    JITTER_ORDERS,
    PARAMETER_NAMES,
    AugmentationLedger,
    Family,
    ViewRanges,
    nested,
    outer,
    outside_ranges,
    sample,
)
from ce_align.augment.parameters import COLUMNS, SPATIAL_COLUMNS
from ce_align.augment.transforms import pixel_boxes
from ce_align.errors import AccessError, ConfigError, DataError

OTHER_VALUES = {
    "family": np.array(["other"]),
    "view": np.array(["Z"]),
    "crop_top": np.array([0.0]),
    "crop_left": np.array([0.0]),
    "crop_height": np.array([1e-3]),
    "crop_width": np.array([1e-3]),
    "jitter_order": np.array([3]),
}


@pytest.fixture(scope="module")
def ledger():
    return sample("strong", 40, 7)


def test_digest_changes_with_every_single_value(ledger):
    digests = {ledger.digest}
    for name in COLUMNS:
        column = getattr(ledger, name).copy()
        if column.dtype == bool:
            column[5] = ~column[5]
        elif name in OTHER_VALUES:
            column[5] = OTHER_VALUES[name][0]
        else:
            column[5] = np.nextafter(column[5], 0.3)
        digests.add(replace(ledger, **{name: column}).digest)
    assert len(digests) == 1 + len(COLUMNS)


def test_digest_changes_with_the_order_of_rows(ledger):
    assert ledger[::-1].digest != ledger.digest
    assert ledger[::-1][::-1] == ledger
    assert hash(ledger[:]) == hash(ledger)


def test_ledger_cannot_be_changed(ledger):
    with pytest.raises(ValueError, match="read-only"):
        ledger.hue[0] = 0.2
    with pytest.raises(AttributeError):
        ledger.hue = np.zeros(40)


def test_ledger_does_not_share_memory_with_what_it_was_made_of(ledger):
    hue = ledger.hue.copy()
    changed = replace(ledger, hue=hue)
    hue[0] = 0.4
    assert changed == ledger


def test_slices_joined_again_are_the_ledger(ledger):
    assert AugmentationLedger.concat([ledger[:11], ledger[11:]]) == ledger
    assert AugmentationLedger.concat(list(ledger)) == ledger
    assert len(ledger[ledger.view == "A"]) == 20
    assert ledger[-1] == ledger[[39]]
    with pytest.raises(IndexError):
        ledger[40]


def test_parameters_are_the_named_columns(ledger):
    values = ledger.parameters()
    assert values.shape == (40, 12)
    for index, name in enumerate(PARAMETER_NAMES):
        np.testing.assert_array_equal(values[:, index], getattr(ledger, name))


def test_identity_has_neutral_parameters():
    neutral = [0, 0, 1, 1, 0, 1, 1, 1, 0, 0, 0, 0]
    assert AugmentationLedger.identity(3).parameters().tolist() == [neutral] * 3


def test_saved_ledger_loads_bit_for_bit(ledger, tmp_path):
    path = ledger.save(tmp_path / "new" / "views.npz")
    loaded = AugmentationLedger.load(path)
    assert loaded == ledger
    for name in COLUMNS:
        assert getattr(loaded, name).tobytes() == getattr(ledger, name).tobytes()
    assert [p.name for p in path.parent.iterdir()] == ["views.npz"]


def test_altered_file_is_refused(ledger, tmp_path):
    path = ledger.save(tmp_path / "views.npz")
    with np.load(path) as archive:
        columns = dict(archive)
    columns["hue"][0] = 0.25
    np.savez(path, **columns)
    with pytest.raises(DataError, match="altered"):
        AugmentationLedger.load(path)


def test_file_with_pickles_is_refused(ledger, tmp_path):
    path = tmp_path / "views.npz"
    np.savez(path, digest=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="not an augmentation ledger"):
        AugmentationLedger.load(path)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 cut short"])
def test_file_that_is_no_ledger_is_refused(tmp_path, content):
    path = tmp_path / "views.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="not an augmentation ledger"):
        AugmentationLedger.load(path)


def test_truncated_file_is_refused(ledger, tmp_path):
    path = ledger.save(tmp_path / "views.npz")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match="not an augmentation ledger"):
        AugmentationLedger.load(path)


def test_absent_file_is_named(tmp_path):
    with pytest.raises(AccessError, match=r"no ledger at .*views\.npz"):
        AugmentationLedger.load(tmp_path / "views.npz")


def test_a_table_keeps_every_value(ledger, tmp_path):
    import pandas as pd

    path = tmp_path / "views.csv"
    ledger.to_frame().to_csv(path, index=False)
    read = pd.read_csv(path, keep_default_na=False, float_precision="round_trip")
    columns = {name: read[name].to_numpy() for name in COLUMNS}
    assert AugmentationLedger(**columns) == ledger


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("crop_height", 0.0, "crop_height must be between 0"),
        ("crop_width", 1.5, "crop_width must be between 0"),
        ("crop_top", 0.999, "crop_top must be inside"),
        ("crop_left", -0.1, "crop_left must be inside"),
        ("brightness", -0.1, "brightness must be 0 or more"),
        ("hue", 0.6, "hue must be between"),
        ("hue", np.nan, "NaN"),
        ("contrast", np.inf, "NaN or infinite"),
        ("jitter_order", 24, "jitter_order must be below 24"),
        ("jitter_order", -1, "cannot represent"),
        ("blur_sigma", -1.0, "blur_sigma must be 0 or more"),
        ("family", "x" * 33, "cannot represent"),
        ("flip", 0.5, "cannot represent"),
        ("saturation", "much", "must hold float64"),
    ],
)
def test_impossible_value_is_refused(name, value, message):
    neutral = AugmentationLedger.identity(1)
    full = replace(neutral, crop_height=[0.5], crop_width=[0.5])
    with pytest.raises(DataError, match=message):
        replace(full, **{name: np.array([value])})


def test_columns_of_different_length_or_shape_are_refused(ledger):
    with pytest.raises(DataError, match="hue has 3 rows but family has 40"):
        replace(ledger, hue=np.zeros(3))
    with pytest.raises(DataError, match="give one value a view"):
        replace(ledger, hue=np.zeros((40, 1)))
    with pytest.raises(DataError, match="no ledgers to join"):
        AugmentationLedger.concat([])


@given(st.lists(st.integers(0, 39), max_size=30))
def test_any_choice_of_rows_keeps_their_parameters(ledger, rows):
    chosen = ledger[np.array(rows, dtype=int)]
    np.testing.assert_array_equal(chosen.parameters(), ledger.parameters()[rows])


PHOTOMETRIC = [5, 6, 7, 8, 9, 10, 11]  # of PARAMETER_NAMES
seeds = st.integers(0, 2**32 - 1)


def ranges_of_rows(name, n):
    views = FAMILIES[name].views
    return [views[row % len(views)] for row in range(n)]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(FAMILIES)), seeds, st.integers(1, 60))
def test_every_row_lies_in_the_ranges_of_its_view(name, seed, n):
    ledger = sample(name, n, seed)
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


@pytest.mark.parametrize("shape", [(300, 300), (256, 384), (375, 150), (40, 13)])
def test_crops_are_distributed_as_torchvision_samples_them(shape):
    torch = pytest.importorskip("torch")
    from torchvision.transforms import RandomResizedCrop

    torch.manual_seed(0)
    image = torch.empty(3, *shape)
    reference = np.array(
        [
            RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(3000)
        ]
    )
    ours = pixel_boxes(sample("spatial", 3000, 11, sizes=shape), *shape)
    for column in range(4):
        found = stats.ks_2samp(ours[:, column], reference[:, column], method="asymp")
        assert found.pvalue > 1e-3
    for of in (area, aspect, lambda box: box[:, 0] == 0, reaches_the_bottom(shape)):
        found = stats.ks_2samp(of(ours), of(reference), method="asymp")
        assert found.pvalue > 1e-3


def area(boxes):
    return boxes[:, 2] * boxes[:, 3]


def aspect(boxes):
    return boxes[:, 3] / boxes[:, 2]


def reaches_the_bottom(shape):
    return lambda boxes: boxes[:, 0] + boxes[:, 2] == shape[0]


def test_crops_are_sampled_for_the_size_of_each_image():
    sizes = np.array([[200, 400], [300, 300], [500, 250]] * 400)
    for family in ("strong", "spatial"):
        ledger = sample(family, len(sizes), 5, sizes=sizes)
        boxes = np.concatenate(
            [pixel_boxes(ledger[i], *sizes[i]) for i in range(len(sizes))]
        )
        # Rounded to whole pixels, so a little beyond the range of the ratios.
        assert np.mean(aspect(boxes) > 4 / 3 * 1.03) == 0
        assert np.mean(aspect(boxes) < 3 / 4 / 1.03) == 0
        for start in range(3):
            row = 3 * 7 + start
            alone = sample(family, row + 1, 5, sizes=sizes[start])
            np.testing.assert_array_equal(
                alone.parameters()[row], ledger.parameters()[row]
            )


def test_crops_are_in_whole_pixels_of_the_image_they_are_for():
    sizes = np.random.default_rng(1).integers(20, 3000, (500, 2))
    ledger = sample("strong", 500, 2, sizes=sizes)
    shares = ledger.parameters()[:, :4]
    pixels = shares * np.hstack([sizes, sizes])
    np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-8)
    boxes = [pixel_boxes(ledger[i], *sizes[i])[0] for i in range(500)]
    np.testing.assert_array_equal(boxes, np.rint(pixels))


def test_crop_that_never_fits_is_the_largest_centred_one():
    whole = Family("whole", (ViewRanges(crop_area=(1.0, 1.0)),))
    for shape, expected in [
        ((100, 400), [0, 133, 100, 133]),
        ((400, 100), [133, 0, 133, 100]),
        ((90, 100), [0, 0, 90, 100]),
    ]:
        boxes = pixel_boxes(sample(whole, 3, 0, sizes=shape), *shape)
        np.testing.assert_array_equal(boxes, [expected] * 3)


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(sorted(set(FAMILIES) - {"strong-only"})),
    seeds,
    st.integers(1, 20),
    st.integers(1, 20),
)
def test_shorter_sample_of_given_sizes_begins_the_longer_one(name, seed, n, more):
    sizes = np.random.default_rng(seed).integers(1, 500, (n + more, 2))
    longer = sample(name, n + more, seed, sizes=sizes)
    assert longer[:n] == sample(name, n, seed, sizes=sizes[:n])


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
    ("n", "sizes", "message"),
    [
        (0, None, "at least one view"),
        (1, (0, 5), "height and width in pixels"),
        (1, (5.5, 5.5), "height and width in pixels"),
        (3, [(5, 5)] * 2, "height and width in pixels"),
    ],
)
def test_impossible_request_is_refused(n, sizes, message):
    with pytest.raises(ConfigError, match=message):
        sample("weak", n, 0, sizes=sizes)


def test_rows_that_are_drawn_until_they_fit_take_one_size():
    ledger = sample("strong-only", 20, 0, sizes=(300, 500))
    assert len(ledger) == 20
    with pytest.raises(ConfigError, match="one size for all"):
        sample("strong-only", 2, 0, sizes=[(300, 500), (500, 300)])


def test_view_b_is_blurred_as_in_training_or_as_in_the_analyses():
    for name in ("strong", "weak", "tiny"):
        trained = sample(f"{name}_b", 4000, 0).blur_sigma > 0
        read = sample(name, 8000, 0).blur_sigma[1::2] > 0
        assert trained.mean() == pytest.approx(0.2, abs=0.025)
        assert read.mean() == pytest.approx(0.1, abs=0.02)


@pytest.mark.slow
def test_family_inside_its_excluded_ranges_is_refused():
    strong = FAMILIES["strong_a"].views
    with pytest.raises(ConfigError, match="too rarely"):
        sample(Family("empty", strong, outside=strong), 1, 0)
    wider = replace(strong[0], hue=0.11)
    assert len(sample(Family("rare", (wider,), outside=strong), 1, 0)) == 1
