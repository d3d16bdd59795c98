"""Images become inputs of any size, square or not."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import nn

from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError
from ce_align.models.devices import PooledReader
from ce_align.models.features import extract
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing

WIDE = Preprocessing(input_size=(12, 20))


def test_height_comes_before_width(rng):
    image = Image.fromarray(rng.integers(0, 256, (30, 30, 3), dtype=np.uint8))
    assert WIDE.resize(image).shape == (12, 20, 3)
    expected = np.asarray(image.resize((20, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(WIDE.resize(image), expected)


@pytest.mark.parametrize("size", [(32, 32), [32, 32], 32, 32.0, "32"])
def test_a_square_is_the_same_settings_whichever_way_it_is_said(size):
    found = Preprocessing(input_size=size)
    assert found.input_size == 32
    assert found.size == (32, 32)
    assert found.fingerprint == Preprocessing(input_size=32).fingerprint


def test_settings_of_0_1_keep_their_identity():
    """As it was written by the release before sizes could differ."""
    assert Preprocessing().fingerprint == "547bb5ed94995064d9f1"


@pytest.mark.parametrize(
    "size", ["large", 0, -3, 1025, 3.5, (3,), (3, 4, 5), (0, 4), None, float("nan")]
)
def test_no_other_size_is_taken(size):
    with pytest.raises(ValidationError, match="expected pixels from 1 to 1024"):
        Preprocessing(input_size=size)


def test_one_mean_stands_for_three_colours():
    assert Preprocessing(mean=(0.5,), std=[0.25]) == Preprocessing(
        mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)
    )


def test_features_of_inputs_that_are_no_square(rng):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU()).eval()
    network = Network("wide", module, WIDE)
    array = rng.integers(0, 256, (5, 24, 24, 3), dtype=np.uint8)
    images = ImageSet.from_array("noise", array)
    pixels = np.stack([WIDE.resize(images.load(i)) for i in range(5)])
    with torch.no_grad():
        maps = module(WIDE.normalise(torch.from_numpy(pixels)))
    assert maps.shape == (5, 40, 10, 18)
    found = extract(network, images, ["1"], cache=None)["1"].values
    np.testing.assert_allclose(found, maps.flatten(1), rtol=0, atol=1e-5)
    with PooledReader(network, "1", device="cpu") as reader:
        pooled = reader(pixels)
        resized = reader(np.ascontiguousarray(array))
    np.testing.assert_allclose(pooled, maps.mean((2, 3)), rtol=0, atol=1e-5)
    assert resized.shape == (5, 40)


def test_what_needs_a_square_says_so():
    assert Preprocessing(input_size=32).edge("transfer") == 32
    with pytest.raises(ConfigError, match=r"transfer needs .* square inputs, found 12"):
        WIDE.edge("transfer")
