"""Pixels against Pillow, which is the authors' pipeline."""

import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ce_align.augment import JITTER_ORDERS, AugmentationLedger, apply, sample
from ce_align.augment.transforms import pixel_boxes

pytestmark = pytest.mark.slow

SIZE = 48
seeds = st.integers(0, 2**32 - 1)


def shift_hue(image, hue):
    h, s, v = image.convert("HSV").split()
    shifted = np.asarray(h) + np.array(int(hue * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(shifted), s, v)).convert("RGB")


def pillow_view(image, row, size):
    """The authors' pipeline, one Pillow call an operation."""
    height, width = image.shape[:2]
    whole = [
        int(share[0] * edge + 1e-9)  # shares of whole pixels, but for rounding
        for share, edge in [
            (row.crop_top, height),
            (row.crop_left, width),
            (row.crop_height, height),
            (row.crop_width, width),
        ]
    ]
    top, left, h, w = whole
    h, w = max(h, 1), max(w, 1)
    top, left = min(top, height - h), min(left, width - w)
    view = Image.fromarray(image).crop((left, top, left + w, top + h))
    # In two steps, because Pillow 13 takes rows first in some tall crops.
    view = view.resize((size, h), Image.Resampling.BICUBIC)
    view = view.resize((size, size), Image.Resampling.BICUBIC)
    if row.flip[0]:
        view = ImageOps.mirror(view)
    for operation in JITTER_ORDERS[row.jitter_order[0]]:
        if operation == 0 and row.brightness[0] != 1:
            view = ImageEnhance.Brightness(view).enhance(float(row.brightness[0]))
        elif operation == 1 and row.contrast[0] != 1:
            view = ImageEnhance.Contrast(view).enhance(float(row.contrast[0]))
        elif operation == 2 and row.saturation[0] != 1:
            view = ImageEnhance.Color(view).enhance(float(row.saturation[0]))
        elif operation == 3 and row.hue[0] != 0:
            view = shift_hue(view, row.hue[0])
    if row.grayscale[0]:
        view = view.convert("L").convert("RGB")
    if row.blur_sigma[0] > 0:
        view = view.filter(ImageFilter.GaussianBlur(float(row.blur_sigma[0])))
    if row.solarize[0]:
        view = ImageOps.solarize(view, 128)
    return np.asarray(view)


def pillow_views(images, ledger, size):
    pairs = zip(images, ledger, strict=True)
    return np.stack([pillow_view(i, row, size) for i, row in pairs])


@pytest.fixture(scope="module")
def photographs(real_data):
    """Every fortieth photograph of the set."""
    path = real_data / "imagenet_photos" / "imagenet1000_short256.zip"
    with zipfile.ZipFile(path) as archive:
        return [
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for name in sorted(archive.namelist())[::40]
        ]


def test_identity_row_is_the_resized_image(image):
    view = apply(image, AugmentationLedger.identity(1), size=SIZE)[0]
    columns = Image.fromarray(image).resize((SIZE, 60), Image.Resampling.BICUBIC)
    expected = columns.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(view, np.asarray(expected))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 130), st.integers(2, 130), st.integers(1, 70), seeds)
def test_crop_of_any_shape_equals_pillow(height, width, size, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    row = sample("spatial", 1, rng, sizes=(height, width))
    np.testing.assert_array_equal(
        apply(image, row, size=size)[0], pillow_view(image, row, size)
    )


@pytest.mark.parametrize("size", [SIZE, 5, 2, 1])
def test_each_transform_alone_equals_pillow(neutral, image, size):
    values = {
        "brightness": [0, 0.6, 0.99, 1.4, 3],
        "contrast": [0, 0.6, 1.01, 1.4, 5],
        "saturation": [0, 0.8, 1.2, 4],
        "hue": [-0.5, -0.1, -0.001, 0.003, 0.1, 0.5],
        "flip": [True],
        "grayscale": [True],
        "blur_sigma": [0.1, 0.25, 0.5, 1.0, 1.25, 1.9, 2.0, 3.7, 12.0],
        "solarize": [True],
    }
    for name, choices in values.items():
        for value in choices:
            row = neutral(**{name: value})
            np.testing.assert_array_equal(
                apply(image, row, size=size)[0],
                pillow_view(image, row, size),
                err_msg=f"{name} {value}",
            )


def test_hue_of_a_grid_of_colours_equals_pillow(neutral):
    levels = np.append(np.arange(0, 255, 4), 255).astype(np.uint8)
    cube = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(-1, 3)
    square = np.resize(cube, (516, 516, 3))
    for hue in (-0.1, 0.002, 0.07):
        view = apply(square, neutral(hue=hue), size=516)[0]
        expected = np.asarray(shift_hue(Image.fromarray(square), hue))
        np.testing.assert_array_equal(view, expected)


def test_whole_pipeline_in_all_orders_equals_pillow(image):
    ledger = replace(
        sample("strong", 24, 1),
        jitter_order=np.arange(24),
        hue=np.linspace(-0.1, 0.11, 24),
        brightness=np.linspace(1.4, 0.61, 24),
        contrast=np.linspace(0.61, 1.4, 24),
        saturation=np.linspace(0.81, 1.2, 24),
    )
    expected = pillow_views([image] * 24, ledger, SIZE)
    np.testing.assert_array_equal(apply(image, ledger, size=SIZE), expected)


def test_images_may_differ_in_size_layout_and_writability(make_scene, rng, image):
    frozen = image.copy()
    frozen.flags.writeable = False
    turned = np.asfortranarray(image)
    other = make_scene(rng, 90, 33)
    ledger = sample("strong", 4, 12)
    views = apply([frozen, turned, other, image[::-1][::-1]], ledger, size=SIZE)
    expected = pillow_views([image, image, other, image], ledger, SIZE)
    np.testing.assert_array_equal(views, expected)


@pytest.mark.real
def test_views_of_photographs_equal_pillow(photographs):
    ledger = sample("strong", len(photographs), 1)
    views = apply(photographs, ledger)
    np.testing.assert_array_equal(views, pillow_views(photographs, ledger, 224))


@pytest.mark.real
def test_views_of_photographs_stay_close_to_torchvision(photographs):
    """Whatever the order in which the installed Pillow resamples."""
    transforms = pytest.importorskip("torchvision.transforms")
    functional, bicubic = transforms.functional, transforms.InterpolationMode.BICUBIC
    adjust = [
        functional.adjust_brightness,
        functional.adjust_contrast,
        functional.adjust_saturation,
        functional.adjust_hue,
    ]
    rows = sample("strong", len(photographs), 1)
    for image, row in zip(photographs, rows, strict=True):
        box = pixel_boxes(row, *image.shape[:2])[0].tolist()
        view = functional.resized_crop(
            Image.fromarray(image), *box, [224, 224], bicubic
        )
        if row.flip[0]:
            view = functional.hflip(view)
        factors = row.parameters()[0, 5:9]
        if factors[0] != 1:
            for operation in JITTER_ORDERS[row.jitter_order[0]]:
                view = adjust[operation](view, float(factors[operation]))
        if row.grayscale[0]:
            view = functional.to_grayscale(view, 3)
        if row.blur_sigma[0] > 0:
            view = view.filter(ImageFilter.GaussianBlur(float(row.blur_sigma[0])))
        if row.solarize[0]:
            view = functional.solarize(view, 128)
        difference = np.abs(apply(image, row)[0].astype(int) - np.asarray(view))
        assert difference.mean() < 0.2


@pytest.mark.real
def test_crops_of_photographs_have_the_shapes_of_the_authors(photographs):
    shapes = np.array([image.shape[:2] for image in photographs])
    assert (shapes[:, 0] != shapes[:, 1]).mean() > 0.9
    sizes = np.tile(shapes, (200, 1))

    def aspects(sampled_for):
        ledger = sample("strong", len(sizes), 0, sizes=sampled_for)
        boxes = [
            pixel_boxes(row, *size)[0] for row, size in zip(ledger, sizes, strict=True)
        ]
        return np.array([width / height for _, _, height, width in boxes])

    low, middle, high = np.quantile(aspects(sizes), [0.05, 0.5, 0.95])
    assert (low, middle, high) == pytest.approx((0.77, 1.02, 1.30), abs=0.02)
    # As if photographs were square, half of the crops are of no shape trained on.
    outside = aspects(None)
    assert np.mean((outside < 3 / 4) | (outside > 4 / 3)) > 0.4
