import numpy as np
import pytest

from ce_align.checks import check_finite, check_unique, named_some, nearest_names
from ce_align.errors import DataError


def test_nearest_names_come_best_first():
    known = ["ce_mmcr_l0.1", "ce_barlow_l0.1", "pixels"]
    assert nearest_names("CE_MMCR_l01", known)[0] == "ce_mmcr_l0.1"
    assert nearest_names("zzzz", known) == []


def test_named_some_says_how_many_are_left_out():
    assert named_some(["a", "b"]) == "a, b"
    assert named_some(list("abcdef")) == "a, b, c and 3 more"


def test_repeated_values_are_named():
    with pytest.raises(DataError, match="2 occur more than once: a, b"):
        check_unique(["a", "b", "a", "b", "b", "c"], "ids")
    check_unique(["a", "b"], "ids")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_are_counted(bad):
    array = np.zeros((4, 5))
    array[1, 2] = array[3, 3] = bad
    with pytest.raises(DataError, match="features has 2 NaN or infinite"):
        check_finite(array, "features")


def test_large_finite_values_are_not_refused():
    check_finite(np.full(10, 1e308), "features")
