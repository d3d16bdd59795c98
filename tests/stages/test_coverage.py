"""Intervals of analyses hold what they should, where all that is random is drawn anew.

Small versions of ``benchmarks/coverage``; bands follow from the binomial error.
"""

import numpy as np
import pytest

from benchmarks.coverage.analyses import coverages, readouts, shapes
from benchmarks.coverage.planted import Sizes

pytestmark = pytest.mark.slow

SIZES = Sizes(20, 8, 4, 4, 9, 6, 8)
N = 40


def lowest(n):
    """Four binomial errors below 92 %."""
    return 0.92 - 4 * np.sqrt(0.92 * 0.08 / n)


def test_coverage_counts_the_intervals_that_hold_the_target():
    draws = [{"m": (k, k - 1.5, k + 1.5, "units")} for k in (-2, -1, 0, 1, 2)]
    draws.append({"m": (0.0, np.nan, np.nan, None)})
    (found,) = coverages(draws)
    assert (found.measure, found.over, found.n) == ("m", "units", 6)
    assert found.covered == pytest.approx(3 / 5)
    assert found.printed == pytest.approx(5 / 6)
    assert found.error == pytest.approx(np.sqrt(0.6 * 0.4 / 5))
    (at_one,) = coverages(draws, {"m": 2.0})
    assert at_one.covered == pytest.approx(2 / 5)


def test_intervals_of_distances_cover_images_classes_and_views_drawn_anew():
    found = shapes(SIZES, 40, N)
    assert {one.over for one in found} == {"images", "classes"}
    for one in found:
        assert one.printed == 1, one
        assert one.covered >= lowest(N), one
    # Nor are they far too wide: about 2 standard deviations, more of few classes.
    for over, most in (("images", 3.0), ("classes", 4.5)):
        widths = [one.width for one in found if one.over == over]
        assert np.mean(widths) < most


def test_intervals_over_comparisons_are_too_narrow_and_say_that_they_are():
    found = shapes(SIZES, 60, 15, "comparisons")
    assert {one.over for one in found} == {"comparisons"}
    centroid = [one.covered for one in found if "centroid" in one.measure]
    assert np.mean(centroid) < 0.85


def test_intervals_of_readouts_cover_images_and_views_drawn_anew():
    sizes = Sizes(90, 12, 4, 4, 8, 4, 10)
    found = {one.measure: one for one in readouts(sizes, N)}
    printed = [one for one in found.values() if one.printed > 0.5]
    names = {one.measure for one in printed}
    assert {"decoding_ols", "decoding_ridge_hue", "dimensionality_strong"} <= names
    assert {"steerability_by_parameters", "steerability_displacement_share"} <= names
    for one in printed:
        assert one.covered >= lowest(N * one.printed), one
    # Thirteen parameters each and means, of two methods: far less chance than one.
    decoding = [one.covered for one in printed if "decoding" in one.measure]
    assert np.mean(decoding) >= 0.92 - 4 * np.sqrt(0.92 * 0.08 / (5 * N))
    # Weak views are too few here for a regression to be trusted.
    assert found["decoding_ols_within_weak"].printed < 0.5
