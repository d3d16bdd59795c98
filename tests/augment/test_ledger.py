"""The ledger records, replays and travels without losing a bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.augment import PARAMETER_NAMES, AugmentationLedger, sample
from ce_align.augment.parameters import COLUMNS
from ce_align.errors import AccessError, DataError

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
