import importlib.util
import io
import pickle
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import CenterCrop, Compose, InterpolationMode, Resize

from ce_align.data.imagefiles import MemorySource, order_names
from ce_align.data.imagesets import (
    GRAY,
    ImageSet,
    centre_crop,
    centre_cropped,
    decode_image,
    place_on_screen,
    validation_crop,
    validation_crops,
)
from ce_align.errors import ConfigError, DataError


def png(color, size=(5, 4), mode="RGB"):
    buffer = io.BytesIO()
    Image.new(mode, size, color).save(buffer, format="PNG")
    return buffer.getvalue()


FILES = {f"set/im{i}.png": png((i, 2 * i, 3 * i)) for i in (1, 2, 10, 9)}
JUNK = {"set/notes.txt": b"no image", "__MACOSX/set/._im1.png": b"x", ".x.png": b""}


def make_folder(path, files):
    for name, data in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def make_zip(path, files):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def make_tar(path, files):
    with tarfile.open(path, "w:xz" if path.suffix == ".xz" else "w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


MAKERS = {
    "folder": make_folder,
    "a.zip": make_zip,
    "a.tar": make_tar,
    "a.tar.xz": make_tar,
}


@pytest.mark.parametrize("name", MAKERS)
def test_folder_zip_and_tar_hold_the_same_images(tmp_path, name):
    images = ImageSet.from_path(MAKERS[name](tmp_path / name, FILES | JUNK))
    assert images.ids == ("im1", "im2", "im9", "im10")
    assert [images.load(i).getpixel((0, 0))[0] for i in range(4)] == [1, 2, 9, 10]
    reference = ImageSet.from_path(make_folder(tmp_path / "reference", FILES))
    assert images.digest == reference.digest


@pytest.mark.parametrize("name", MAKERS)
def test_image_sets_can_be_sent_to_worker_processes(tmp_path, name):
    images = ImageSet.from_path(MAKERS[name](tmp_path / name, FILES))
    images.load(0)
    received = pickle.loads(pickle.dumps(images))
    assert received.load(3).getpixel((0, 0)) == (10, 20, 30)


def test_order_by_letter_and_by_list_are_obeyed(tmp_path):
    path = make_zip(tmp_path / "a.zip", FILES)
    assert ImageSet.from_path(path, order="name").ids == ("im1", "im10", "im2", "im9")
    listed = ImageSet.from_path(path, order=["im9.png", "set/im1.png"])
    assert listed.ids == ("im9", "im1")
    with pytest.raises(DataError, match="1 of 2 listed images"):
        ImageSet.from_path(path, order=["im9.png", "im7.png"])
    with pytest.raises(ConfigError, match="unknown order 'random'"):
        ImageSet.from_path(path, order="random")


@given(st.lists(st.integers(0, 10**9), min_size=1, unique=True))
def test_natural_order_is_the_order_of_the_numbers(numbers):
    names = [f"Image_{number}.JPG" for number in numbers]
    expected = tuple(f"Image_{number}.JPG" for number in sorted(numbers))
    assert order_names(names, "natural") == expected


def test_folders_of_images_become_labels(tmp_path):
    files = {"train/cat/1.png": png("red"), "train/dog/1.png": png("blue")}
    images = ImageSet.from_path(make_folder(tmp_path / "d", files))
    assert images.ids == ("cat/1", "dog/1")
    assert list(images.columns["label"]) == ["cat", "dog"]


def test_two_files_of_one_name_are_refused(tmp_path):
    files = {"a.png": png("red"), "a.bmp": png("red")}
    with pytest.raises(DataError, match=r"must be unique.*: a"):
        ImageSet.from_path(make_folder(tmp_path / "d", files))


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_every_8_bit_mode_becomes_rgb(mode):
    suffix = "TIFF" if mode == "CMYK" else "PNG"
    buffer = io.BytesIO()
    Image.new("RGB", (3, 3), (200, 200, 200)).convert(mode).save(buffer, format=suffix)
    image = decode_image(buffer.getvalue(), "x")
    assert image.mode == "RGB"
    assert image.size == (3, 3)


def test_16_bit_images_are_refused_and_not_clipped():
    buffer = io.BytesIO()
    Image.fromarray(np.full((3, 3), 4000, np.uint16)).save(buffer, format="PNG")
    with pytest.raises(DataError, match=r"deep\.png has more than 8 bits"):
        decode_image(buffer.getvalue(), "deep.png")


@pytest.mark.parametrize("cut", [0, 10, 50, 70])
def test_a_broken_image_is_named(tmp_path, cut):
    noise = np.random.default_rng(0).integers(0, 255, (16, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, format="PNG")
    files = {"good.png": png("red"), "torn.png": buffer.getvalue()[:cut]}
    images = ImageSet.from_path(make_folder(tmp_path / "d", files))
    with pytest.raises(DataError, match=r"torn\.png"):
        images.load(1)


@pytest.mark.parametrize("side", [12_000, 2**30])
def test_a_small_file_that_declares_a_huge_image_is_refused(side):
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = b""
    for kind, data in (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ):
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        chunks += struct.pack(">I", len(data)) + kind + data + checksum
    with pytest.raises(DataError, match="bomb"):
        decode_image(b"\x89PNG\r\n\x1a\n" + chunks, "bomb.png")


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: p / "absent", "no images at"),
        (lambda p: make_folder(p / "empty", {"a.txt": b""}), "holds no image"),
        (lambda p: make_folder(p, {"a.zip": b"not a zip"}) / "a.zip", "damaged"),
        (lambda p: make_folder(p, {"a.tar": b"not a tar"}) / "a.tar", "damaged"),
        (lambda p: make_folder(p, {"a.rar": b""}) / "a.rar", "not a folder, a zip"),
        (lambda p: make_zip(p / "a.zip", {"a.txt": b""}), "holds no image"),
    ],
)
def test_places_without_images_are_refused(tmp_path, make, expected):
    with pytest.raises(DataError, match=expected):
        ImageSet.from_path(make(tmp_path))


def test_arrays_are_images():
    array = np.arange(2 * 3 * 4 * 3, dtype=np.uint8).reshape(2, 3, 4, 3)
    images = ImageSet.from_array("a", array)
    assert np.array_equal(np.asarray(images.load(1)), array[1])
    assert np.array_equal(decode_image(images.encoded(1), "x"), array[1])
    assert images.image_digest(0) != images.image_digest(1)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 4)), np.zeros((2, 3, 4, 3)), np.zeros((2, 3, 4, 1), "u1")]
)
def test_arrays_of_other_shape_or_type_are_refused(array):
    with pytest.raises(DataError, match="uint8 array"):
        ImageSet.from_array("a", array)


def test_selection_keeps_rows_together():
    array = (
        np.zeros((4, 2, 2, 3), np.uint8)
        + np.arange(4, dtype=np.uint8)[:, None, None, None]
    )
    images = ImageSet.from_array("a", array, columns={"k": np.arange(4)})
    chosen = images.select([3, 1]).select([1, 0])
    assert list(chosen.columns["k"]) == [1, 3]
    assert [chosen.load(i).getpixel((0, 0))[0] for i in range(2)] == [1, 3]
    assert chosen.image_digest(0) == images.image_digest(1)


def test_screen_changes_pixels_and_digest():
    images = ImageSet.from_array("a", np.zeros((1, 10, 10, 3), np.uint8))
    larger = images.on_screen(5, 8)
    assert larger.load(0).size == (16, 16)
    assert larger.digest != images.digest
    assert images.on_screen(8, 8).digest == images.digest


@pytest.mark.real
def test_real_archives_are_read_in_the_order_of_their_numbers(real_data: Path):
    path = real_data / "macaque_v4" / "images_190923.zip"
    images = ImageSet.from_path(path)
    assert len(images) == 1200
    assert images.ids[:2] == ("image0001", "image0002")
    assert images.load(1199).size == (112, 112)


def test_digits_that_are_no_numbers_sort_as_letters():
    assert order_names(["m²10.png", "m²9.png", "m2.png", "m①.png"], "natural") == (
        *("m2.png", "m²9.png", "m²10.png", "m①.png"),
    )


def test_pixels_have_one_digest_whatever_encodes_them(rng):
    pixels = rng.integers(0, 255, (2, 5, 4, 3)).astype(np.uint8)
    files = {}
    for name in ("a.png", "a.bmp", "a.tiff"):
        buffer = io.BytesIO()
        Image.fromarray(pixels[0]).save(buffer, format=name[2:].upper())
        files[name] = buffer.getvalue()
    turned = Image.fromarray(pixels[0].reshape(4, 5, 3))
    buffer = io.BytesIO()
    turned.save(buffer, format="PNG")
    files["turned.png"] = buffer.getvalue()
    images = ImageSet.from_encoded(
        "x", list(files), MemorySource(files), list(files), {}
    )
    digests = [images.pixel_digest(i) for i in range(4)]
    assert len(set(digests[:3])) == 1
    assert digests[3] != digests[0]
    assert len({images.image_digest(i) for i in range(4)}) == 4
    array = ImageSet.from_array("x", pixels[:1])
    assert array.pixel_digest(0) == digests[0]


def test_previews_behind_a_photograph_are_not_read(rng):
    photograph, preview = (
        Image.fromarray(rng.integers(0, 255, (size, size, 3)).astype(np.uint8))
        for size in (16, 8)
    )
    buffer = io.BytesIO()
    photograph.save(buffer, format="MPO", save_all=True, append_images=[preview])
    assert decode_image(buffer.getvalue(), "a.jpg").size == (16, 16)


def test_sizes_are_those_of_the_decoded_images(tmp_path):
    for i, (height, width) in enumerate([(30, 50), (50, 30), (7, 7)]):
        Image.new("RGB", (width, height)).save(tmp_path / f"{i}.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown on its side
    Image.new("RGB", (40, 20)).save(tmp_path / "3.jpg", exif=turned)
    images = ImageSet.from_path(tmp_path)
    array = ImageSet.from_array("array", np.zeros((2, 8, 9, 3), np.uint8))
    for found in (images, images.select([2, 0]), images.on_screen(8, 4), array):
        decoded = [found.load(i).size[::-1] for i in range(len(found))]
        np.testing.assert_array_equal(found.sizes, decoded)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_an_image_of_one_pixel_across_is_refused_by_its_name(size):
    with pytest.raises(DataError, match=rf"image dot\.png has {size[0]}×{size[1]} pix"):
        decode_image(png((1, 2, 3), size), "dot.png")


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
    rows = np.arange(0, 1000, 4)
    hits = {"cropped": 0, "squeezed": 0}
    for batch in np.split(rows, 25):
        shown = [images.load(row) for row in batch]
        views = {
            "cropped": [validation_crop(image, 224) for image in shown],
            "squeezed": [
                image.resize((224,) * 2, Image.Resampling.BICUBIC) for image in shown
            ],
        }
        for name, seen in views.items():
            pixels = torch.tensor(np.stack([np.asarray(view) for view in seen]))
            with torch.no_grad():
                best = network(pixels.permute(0, 3, 1, 2) / 127.5 - 1).argmax(1)
            # Class 0 is the background.
            hits[name] += np.count_nonzero(best.numpy() == batch + 1)
    assert hits["cropped"] / len(rows) == pytest.approx(0.884, abs=0.01)
    assert hits["squeezed"] / len(rows) == pytest.approx(0.836, abs=0.01)
