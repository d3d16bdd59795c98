"""Crops of linear evaluation against torchvision's."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from ce_align.data.cropping import centre_crop, centre_cropped
from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError


@given(
    width=st.integers(1, 90),
    height=st.integers(1, 90),
    size=st.integers(1, 40),
    seed=st.integers(0, 9),
)
def test_a_crop_is_torchvisions(width, height, size, seed):
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    expected = Compose([Resize(size, InterpolationMode.BICUBIC), CenterCrop(size)])
    found = centre_crop(image, size)
    assert found.size == (size, size)
    np.testing.assert_array_equal(found, expected(image))


def test_crops_of_another_size_are_other_images(rng):
    pixels = rng.integers(0, 256, (3, 8, 12, 3), np.uint8)
    images = ImageSet.from_array("noise", pixels)
    small, large = centre_cropped(images, 4), centre_cropped(images, 6)
    assert len({images.digest, small.digest, large.digest}) == 3
    assert small.digest == centre_cropped(images, 4).digest
    assert small.select([2]).image_digest(0) == small.image_digest(2)
    assert small.load(1).size == (4, 4)
    assert small.encoded(1).startswith(b"P6 4 4 ")


def test_a_crop_has_pixels(rng):
    images = ImageSet.from_array("one", rng.integers(0, 256, (1, 8, 8, 3), np.uint8))
    with pytest.raises(ConfigError, match="1 pixel"):
        centre_cropped(images, 0)
