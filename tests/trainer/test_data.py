"""Images in memory and packed ones are those of the files."""

import json
import pickle
import signal
import zipfile

import numpy as np
import pytest
from PIL import Image

from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError, DataError
from ce_align.trainer.data import (
    PlacedPixels,
    image_arrays,
    in_memory,
    is_packed,
    open_packed,
    pack,
)


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


@pytest.fixture
def archive(tmp_path, rng):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as file:
        for i, (height, width) in enumerate([(20, 30), (9, 12), (16, 16), (40, 24)]):
            pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "one.png")
            file.write(tmp_path / "one.png", f"class_{i % 2}/{i}.png")
    return ImageSet.from_path(path)


def test_packed_images_have_the_pixels_ids_and_labels_of_their_source(
    archive, tmp_path
):
    packed = open_packed(pack(archive, tmp_path / "packed"))
    assert packed.ids == archive.ids
    assert packed.columns["label"].tolist() == archive.columns["label"].tolist()
    for i in range(len(archive)):
        assert np.array_equal(packed.load(i), archive.load(i))
        assert np.array_equal(packed.pixels.array(i), archive.load(i))


def test_packed_images_travel_to_workers_without_their_pixels(tmp_path, rng):
    pixels = rng.integers(0, 256, (50, 32, 32, 3), dtype=np.uint8)
    folder = pack(ImageSet.from_array("a", pixels), tmp_path / "packed")
    packed = open_packed(folder)
    packed.load(3)
    sent = pickle.dumps(packed)
    assert len(sent) < pixels.nbytes / 10
    assert np.array_equal(pickle.loads(sent).load(3), pixels[3])


def test_a_resized_pack_says_so_and_keeps_smaller_images(archive, tmp_path):
    folder = pack(archive, tmp_path / "packed", short_edge=12)
    packed = open_packed(folder)
    assert json.loads((folder / "metadata.json").read_text())["short_edge"] == 12
    assert [packed.load(i).size for i in range(4)] == [
        (18, 12),
        (12, 12),
        (12, 9),
        (12, 20),
    ]


def test_packing_leaves_nothing_behind_if_an_image_cannot_be_read(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    Image.new("RGB", (9, 9)).save(source / "a.png")
    (source / "b.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"b\.png"):
        pack(ImageSet.from_path(source), tmp_path / "packed")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


@pytest.mark.parametrize("other", ["images", "short_edge", "notes"])
def test_packing_does_not_overwrite_anything_else(archive, tmp_path, other):
    folder = tmp_path / "packed"
    if other == "notes":
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")
    else:
        pack(archive.select([0, 1]) if other == "images" else archive, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ConfigError, match="exists"):
        pack(archive, folder, short_edge=12 if other == "short_edge" else None)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_packing_the_same_images_again_leaves_them_as_they_are(archive, tmp_path):
    folder = pack(archive, tmp_path / "packed")
    before = (folder / "pixels.u8").stat()
    assert pack(archive, folder) == folder
    assert (folder / "pixels.u8").stat() == before


@pytest.mark.parametrize("lost", ["pixels.u8", "places.npy", "metadata.json", "end"])
def test_part_of_a_pack_is_made_whole_by_packing_again(archive, tmp_path, lost):
    folder = pack(archive, tmp_path / "packed")
    if lost == "end":
        pixels = folder / "pixels.u8"
        pixels.write_bytes(pixels.read_bytes()[:-1])
    else:
        (folder / lost).unlink()
    packed = open_packed(pack(archive, folder))
    assert [packed.load(i).tobytes() for i in range(4)] == [
        archive.load(i).tobytes() for i in range(4)
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
from ce_align.data.imagesets import ImageSet
from ce_align.trainer.data import pack

def killed(what, done, total):
    if done == 3:
        os.kill(os.getpid(), signal.SIGKILL)

pack(ImageSet.from_path(Path(sys.argv[1])), Path(sys.argv[2]), progress=killed)
"""


@pytest.mark.slow
def test_packing_that_was_killed_is_done_by_the_next_and_leaves_nothing(
    archive, tmp_path, python
):
    place = tmp_path / "out"
    killed = python("-c", KILLED, tmp_path / "images.zip", place / "packed")
    killed.communicate()
    assert killed.returncode == -signal.SIGKILL
    assert len(list(place.iterdir())) == 1
    packed = open_packed(pack(archive, place / "packed"))
    assert np.array_equal(packed.load(3), archive.load(3))
    assert [path.name for path in place.iterdir()] == ["packed"]


def test_a_truncated_pack_is_refused(archive, tmp_path):
    folder = pack(archive, tmp_path / "packed")
    pixels = folder / "pixels.u8"
    pixels.write_bytes(pixels.read_bytes()[:-1])
    assert is_packed(folder)
    with pytest.raises(DataError, match="incomplete"):
        open_packed(folder)
