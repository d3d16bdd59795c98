"""Images that fit into memory are decoded once."""

import pickle

import numpy as np
import pytest

from ce_align.data.imagesets import ImageSet
from ce_align.errors import DataError
from ce_align.trainer.data import PlacedPixels, image_arrays, in_memory


@pytest.fixture
def images(tmp_path, rng):
    from PIL import Image

    for i in range(9):
        pixels = rng.integers(0, 256, (5 + i, 12 - i, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    return ImageSet.from_path(tmp_path)


def equal(one, other):
    return len(one) == len(other) and all(
        np.array_equal(one.load(i), other.load(i)) for i in range(len(one))
    )


def test_images_in_memory_are_the_same(images):
    chosen = images.select([7, 2, 5])
    for original in (images, chosen, chosen.on_screen(8, 16)):
        kept = in_memory(original)
        assert isinstance(kept.pixels, PlacedPixels)
        assert kept.ids == original.ids
        assert equal(kept, original)
        assert equal(kept.select([1, 0]), original.select([1, 0]))
        rows = range(len(original))
        for a, b in zip(
            image_arrays(kept, rows), image_arrays(original, rows), strict=True
        ):
            assert np.array_equal(a, b)


def test_nothing_is_decoded_twice(images, monkeypatch):
    kept = in_memory(images)
    monkeypatch.setattr(type(images.pixels), "load", None)
    assert equal(kept, in_memory(kept))


def test_pixels_travel_to_other_processes(images):
    kept = in_memory(images)
    assert equal(pickle.loads(pickle.dumps(kept)), kept)
    assert len(pickle.dumps(kept)) < 20_000


def test_sets_that_are_too_large_stay_as_they_are(images):
    needed = sum(np.asarray(images.load(i)).nbytes for i in range(len(images)))
    assert in_memory(images, needed - 1) is images
    assert in_memory(images, needed) is not images


def test_shared_pixels_cannot_be_changed(images):
    (array,) = image_arrays(in_memory(images), [3])
    with pytest.raises(ValueError, match="read-only"):
        array[0, 0, 0] = 1


def test_an_unreadable_image_is_named(images, tmp_path):
    (tmp_path / "4.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"image 4\.png cannot be read"):
        in_memory(images)
