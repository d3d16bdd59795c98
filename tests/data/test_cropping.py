"""Crops of linear evaluation against torchvision's."""

import importlib.util

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from ce_align.data.cropping import (
    centre_crop,
    centre_cropped,
    validation_crop,
    validation_crops,
)
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


@pytest.mark.parametrize(("size", "short_edge"), [(224, 256), (28, 32), (32, 37)])
@pytest.mark.parametrize("shape", [(60, 91), (91, 60), (300, 400), (32, 32)])
def test_images_without_augmentation_are_shown_as_the_authors_show_them(
    size, short_edge, shape, rng
):
    image = Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8))
    expected = Compose([Resize(short_edge), CenterCrop(size)])(image)
    np.testing.assert_array_equal(validation_crop(image, size), expected)
    images = ImageSet.from_array("one", np.asarray(image)[None])
    cropped = validation_crops(images, size)
    np.testing.assert_array_equal(cropped.load(0), expected)
    assert cropped.sizes.tolist() == [[size, size]]
    assert (
        len({images.digest, cropped.digest, centre_cropped(images, size).digest}) == 3
    )


@pytest.mark.real
@pytest.mark.slow
def test_a_trained_network_knows_cropped_photographs_better_than_squeezed_ones(
    real_data,
):
    folder = real_data / "mobilenet_v2"
    spec = importlib.util.spec_from_file_location(
        "load_mobilenet_v2", folder / "load_mobilenet_v2.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.mobilenet_v2(folder / "mobilenet_v2_1.0_224_float32.npz").eval()
    images = ImageSet.from_path(
        real_data / "imagenet_photos" / "imagenet1000_short256.zip", order="name"
    )
    rows = range(0, 1000, 4)
    hits = {"cropped": 0, "squeezed": 0}
    for row in rows:
        image = images.load(row)
        shown = {
            "cropped": validation_crop(image, 224),
            "squeezed": image.resize((224, 224), Image.Resampling.BICUBIC),
        }
        for name, view in shown.items():
            pixels = torch.tensor(np.asarray(view)).permute(2, 0, 1)[None]
            with torch.no_grad():
                best = int(network(pixels / 127.5 - 1).argmax())
            hits[name] += best == row + 1  # class 0 is the background
    assert hits["cropped"] / len(rows) == pytest.approx(0.884, abs=0.01)
    assert hits["squeezed"] / len(rows) == pytest.approx(0.836, abs=0.01)
