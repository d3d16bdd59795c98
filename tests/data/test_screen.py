"""Placing images on a screen equals Brain-Score's rule, pixel for pixel."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from ce_align.data.imagesets import ImageSet
from ce_align.data.screen import GRAY, place_on_screen
from ce_align.errors import DataError

sides = st.integers(1, 40)
angles = st.one_of(st.sampled_from([5, 8, 5.0, 8.0, 4, 10]), st.floats(1, 20))


def photograph(width: int, height: int, mode: str = "RGB") -> Image.Image:
    pixels = np.random.default_rng(width * 100 + height).integers(
        256, size=(height, width, 3)
    )
    return Image.fromarray(pixels.astype(np.uint8)).convert(mode)


@pytest.mark.brainscore
@given(sides, sides, angles, angles, st.sampled_from(["RGB", "L", "P", "RGBA"]))
@example(256, 256, 5, 8, "RGB")
@example(256, 256, 8, 5, "RGB")
@example(375, 500, 8, 5, "L")
@example(35, 21, 8, 7, "RGB")  # offsets that end in .5
def test_equals_brainscore_pixel_for_pixel(width, height, source, target, mode):
    screen = pytest.importorskip("brainscore_vision.benchmark_helpers.screen")
    converter = screen.ImageConverter(target_dir=".")
    image = photograph(width, height, mode)
    expected = (
        image if source == target else converter.apply_ratio(image, target / source)
    ).convert("RGB")
    ours = place_on_screen(image.convert("RGB"), source, target)
    assert ours.size == expected.size
    assert ours.tobytes() == expected.tobytes()


@given(sides, sides)
def test_equal_angles_change_nothing(width, height):
    image = photograph(width, height)
    assert place_on_screen(image, 8, 8.0).tobytes() == image.tobytes()


def test_larger_screen_shows_the_whole_image_in_gray():
    image = photograph(20, 10)
    placed = np.asarray(place_on_screen(image, 5, 8))
    assert placed.shape == (16, 32, 3)
    np.testing.assert_array_equal(placed[3:13, 6:26], np.asarray(image))
    surround = np.ones(placed.shape[:2], bool)
    surround[3:13, 6:26] = False
    assert (placed[surround] == GRAY).all()


def test_smaller_screen_shows_the_centre():
    image = photograph(16, 32)
    placed = np.asarray(place_on_screen(image, 8, 4))
    np.testing.assert_array_equal(placed, np.asarray(image)[8:24, 4:12])


def test_image_set_on_a_screen_places_every_image_and_changes_its_digest(rng):
    array = rng.integers(256, size=(3, 10, 10, 3)).astype(np.uint8)
    images = ImageSet.from_array("set", array)
    placed = images.on_screen(5, 8)
    assert placed.load(1).size == (16, 16)
    assert placed.digest != images.digest
    assert images.on_screen(8, 8.0).digest == images.digest


@pytest.mark.parametrize("angles", [(0, 8), (8, -1), (float("nan"), 8)])
def test_angles_that_are_not_positive_are_refused(angles):
    with pytest.raises(DataError, match="visual angles must be positive"):
        place_on_screen(photograph(4, 4), *angles)
