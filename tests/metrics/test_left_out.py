"""Effects of reference points, beside distances computed without each of them."""

import numpy as np
import pytest

from ce_align.errors import DataError
from ce_align.metrics.bures import squared_bures_distances_to_reference
from ce_align.metrics.left_out import half_effects, reference_effects


@pytest.mark.parametrize(
    ("n", "n_points", "n_features"),
    [(60, 12, 24), (30, 12, 100), (12, 12, 50), (25, 25, 300), (6, 12, 3)],
)
def test_effects_are_those_of_leaving_each_point_out(rng, n, n_points, n_features):
    scales = np.arange(1, n_features + 1) ** -0.8
    clouds = rng.normal(size=(5, n_points, n_features)) * scales
    reference = 3 + rng.normal(size=(n, n_features)) * scales
    without = [
        squared_bures_distances_to_reference(clouds, np.delete(reference, k, axis=0))
        for k in range(n)
    ]
    means = np.mean(without, axis=1)
    expected = (n - 1) * (means.mean() - means)
    found = reference_effects(clouds, reference)
    np.testing.assert_allclose(found, expected, atol=5e-4 * np.abs(expected).max())
    assert found.sum() == pytest.approx(0, abs=1e-10)


def test_a_point_at_the_centre_of_many_adds_nothing_of_its_own(rng):
    clouds = rng.normal(size=(3, 10, 6))
    reference = rng.normal(size=(40, 6))
    reference = np.concatenate([reference, -reference, np.zeros((1, 6))])
    effects = reference_effects(clouds, reference)
    # Without it the shape is the same, so it lies above and below as the mean does.
    own = squared_bures_distances_to_reference(clouds, reference).mean()
    without = squared_bures_distances_to_reference(clouds, reference[:-1]).mean()
    assert own == pytest.approx(without, abs=1e-12)
    assert abs(effects[-1]) < np.abs(effects).mean()


def test_too_few_points_to_leave_one_out_have_no_effects(rng):
    clouds = rng.normal(size=(3, 10, 6))
    assert np.isnan(reference_effects(clouds, rng.normal(size=(3, 6)))).all()
    alone = np.zeros((5, 6))
    alone[2] = 1
    assert np.isnan(reference_effects(clouds, alone)).all()
    with pytest.raises(DataError, match="constant"):
        reference_effects(clouds, np.ones((5, 6)))


def test_effects_of_halves_are_those_of_the_references_they_are(rng):
    clouds = rng.normal(size=(4, 9, 30)) * rng.lognormal(size=30)
    own, content = (clouds[0], clouds[1]), (clouds[2], clouds[3])
    found = half_effects(own, content)
    for k in (0, 1):
        for j, other in enumerate((own[1 - k], content[1 - k])):
            expected = reference_effects([other], content[k])
            np.testing.assert_allclose(found[k, j], expected, atol=1e-8)
    few = tuple(half[:3] for half in content)
    assert np.isnan(half_effects(own, few)).all()
