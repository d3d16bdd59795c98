"""Pixels: against Pillow, which is the authors' pipeline, and by properties."""

import io
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from ce_align.augment import (
    JITTER_ORDERS,
    AugmentationLedger,
    apply,
    apply_batch,
    sample,
)
from ce_align.augment.kernels.compilation import compiled
from ce_align.augment.transforms import pixel_boxes
from ce_align.errors import DataError

SIZE = 48
seeds = st.integers(0, 2**32 - 1)


def neutral(**changes):
    return replace(
        AugmentationLedger.identity(1),
        **{name: np.array([value]) for name, value in changes.items()},
    )


def shift_hue(image, hue):
    h, s, v = image.convert("HSV").split()
    shifted = np.asarray(h) + np.array(int(hue * 255)).astype(np.uint8)
    return Image.merge("HSV", (Image.fromarray(shifted), s, v)).convert("RGB")


def pillow_view(image, row, size):
    """The authors' pipeline, one Pillow call an operation."""
    height, width = image.shape[:2]
    h, w = round(row.crop_height[0] * height), round(row.crop_width[0] * width)
    top = min(round(row.crop_top[0] * height), height - h)
    left = min(round(row.crop_left[0] * width), width - w)
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


def scene(rng, height, width):
    """Smooth colours, hard edges, saturated and grey parts, and noise."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    waves = [np.sin(2 * np.pi * (a * x + b * y + c)) for a, b, c in rng.random((3, 3))]
    image = 128 + 127 * np.stack(waves, axis=2)
    image[height // 3 : height // 2, : width // 2] = rng.integers(0, 256, 3)
    image[height // 2 :, width // 2 :] = image[height // 2 :, width // 2 :, :1]
    image += rng.normal(0, 8, image.shape) * (x > 0.7)[:, :, None]
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def image():
    return scene(np.random.default_rng(0), 60, 80)


@pytest.fixture(scope="module")
def photographs(real_data):
    """Every fortieth photograph of the set."""
    path = real_data / "imagenet_photos" / "imagenet1000_short256.zip"
    with zipfile.ZipFile(path) as archive:
        return [
            np.asarray(Image.open(io.BytesIO(archive.read(name))).convert("RGB"))
            for name in sorted(archive.namelist())[::40]
        ]


# -- one operation at a time -----------------------------------------------------------


def test_identity_row_is_the_resized_image(image):
    view = apply(image, AugmentationLedger.identity(1), size=SIZE)[0]
    columns = Image.fromarray(image).resize((SIZE, 60), Image.Resampling.BICUBIC)
    expected = columns.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(view, np.asarray(expected))


def test_identity_at_the_image_size_changes_no_pixel(image):
    square = image[:, :60]
    view = apply(square, AugmentationLedger.identity(1), size=60)[0]
    np.testing.assert_array_equal(view, square)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 130), st.integers(2, 130), st.integers(1, 70), seeds)
def test_crop_of_any_shape_equals_pillow(height, width, size, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    row = sample("spatial", 1, rng)
    if min(height * row.crop_height[0], width * row.crop_width[0]) < 1:
        row = AugmentationLedger.identity(1)
    np.testing.assert_array_equal(
        apply(image, row, size=size)[0], pillow_view(image, row, size)
    )


@pytest.mark.parametrize("size", [SIZE, 5, 2, 1])
def test_each_transform_alone_equals_pillow(image, size):
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


def test_hue_of_a_grid_of_colours_equals_pillow():
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


def test_flipping_twice_is_no_flip(image):
    plain, flipped = neutral(), neutral(flip=True)
    once = apply(image[:, :60], flipped, size=60)[0]
    np.testing.assert_array_equal(apply(once, flipped, size=60)[0], image[:, :60])
    mirrored = apply(image, plain, size=SIZE)[0][:, ::-1]
    np.testing.assert_array_equal(apply(image, flipped, size=SIZE)[0], mirrored)


def test_grayscale_has_equal_channels(image):
    ledger = replace(sample("strong", 12, 4), grayscale=np.ones(12, bool))
    views = apply(image, ledger, size=SIZE)
    np.testing.assert_array_equal(views[..., 0], views[..., 1])
    np.testing.assert_array_equal(views[..., 0], views[..., 2])
    assert np.ptp(views[0]) > 20


def test_solarising_inverts_exactly_the_bright_half(image):
    plain = apply(image, neutral(), size=SIZE)
    solarised = apply(image, neutral(solarize=True), size=SIZE)
    np.testing.assert_array_equal(solarised, np.where(plain < 128, plain, 255 - plain))
    assert (solarised != plain).any()
    assert solarised.max() < 128


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 5.0))
def test_blur_of_an_edge_has_the_variance_of_the_gaussian(sigma):
    side = 80
    edge = np.zeros((side, side, 3), np.uint8)
    edge[:, side // 2 :] = 255
    slope = np.diff(apply(edge, neutral(blur_sigma=sigma), size=side)[0, 9, :, 0] / 255)
    place = np.arange(side - 1)
    mean = (slope * place).sum()
    variance = (slope * (place - mean) ** 2).sum()
    assert slope.sum() == pytest.approx(1)
    assert variance == pytest.approx(sigma**2, rel=0.05, abs=0.05)


# -- rows and images -------------------------------------------------------------------


def test_views_do_not_depend_on_the_other_rows_or_on_workers(image):
    ledger = sample("strong", 30, 2)
    whole = apply(image, ledger, size=SIZE)
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda row: apply(image, row, size=SIZE), ledger))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    reverse = apply(image, ledger[::-1], size=SIZE)[::-1]
    np.testing.assert_array_equal(reverse, whole)


def test_another_process_replays_a_saved_ledger_bit_for_bit(image, tmp_path):
    ledger = sample("strong", 6, 3)
    ledger.save(tmp_path / "views.npz")
    np.save(tmp_path / "image.npy", image)
    script = (
        "import sys, numpy as np; from ce_align.augment import *;"
        "image, ledger, views = sys.argv[1:];"
        "rows = AugmentationLedger.load(ledger);"
        "np.save(views, apply(np.load(image), rows, size=48))"
    )
    names = ("image.npy", "views.npz", "out.npy")
    paths = [str(tmp_path / name) for name in names]
    subprocess.run([sys.executable, "-c", script, *paths], check=True)
    replayed = np.load(tmp_path / "out.npy")
    np.testing.assert_array_equal(replayed, apply(image, ledger, size=SIZE))


def test_a_pair_gets_the_crop_at_the_same_relative_place(rng):
    row = sample("spatial", 1, 8)
    small = scene(rng, 40, 60)
    large = small.repeat(5, axis=0).repeat(5, axis=1)
    a, b = apply([small, large], AugmentationLedger.concat([row, row]), size=24)
    # Five times larger pixels: the same place to within half a small pixel.
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    elsewhere = apply(large, sample("spatial", 1, 9), size=24)[0]
    assert np.corrcoef(a.ravel(), elsewhere.ravel())[0, 1] < 0.8


def test_images_may_differ_in_size_layout_and_writability(rng, image):
    frozen = image.copy()
    frozen.flags.writeable = False
    turned = np.asfortranarray(image)
    other = scene(rng, 90, 33)
    ledger = sample("strong", 4, 12)
    views = apply([frozen, turned, other, image[::-1][::-1]], ledger, size=SIZE)
    expected = pillow_views([image, image, other, image], ledger, SIZE)
    np.testing.assert_array_equal(views, expected)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((8, 8, 3)), "float64 of shape"),
        (np.zeros((8, 8), np.uint8), "but there are 8 images"),
        (np.zeros((2, 8, 8), np.uint8), r"give a uint8 array of shape \(height, width"),
        (np.zeros((8, 8, 4), np.uint8), "height, width, 3"),
        (np.zeros((1, 8, 3), np.uint8), "at least 2 pixels"),
        (np.zeros((3, 8, 8, 3), np.uint8), "2 rows but there are 3 images"),
        ([[1, 2], [3, 4]], "image 0 is list"),
    ],
)
def test_images_that_are_not_rgb_bytes_are_refused(images, message):
    with pytest.raises(DataError, match=message):
        apply(images, AugmentationLedger.identity(2))


def test_empty_ledger_and_empty_view_are_refused(image):
    with pytest.raises(DataError, match="ledger is empty"):
        apply(image, AugmentationLedger.identity(0))
    with pytest.raises(DataError, match="size is 0"):
        apply(image, AugmentationLedger.identity(1), size=0)


def test_import_needs_neither_torch_nor_numba_nor_pandas():
    script = (
        "import sys, ce_align.augment as a; a.sample('strong', 4, 0).parameters();"
        "print([m for m in ('torch', 'numba', 'pandas', 'PIL') if m in sys.modules])"
    )
    answer = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )
    assert answer.stdout.strip() == "[]"


def test_kernels_compile_where_nothing_can_be_cached():
    import numba

    scope = {}
    exec(compile("def double(x):\n    return 2 * x", "<nowhere>", "exec"), scope)
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(scope["double"])
    assert compiled()(scope["double"])(4) == 8


# -- tensors ---------------------------------------------------------------------------


def as_batch(images):
    torch = pytest.importorskip("torch")
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


def test_batch_of_tensors_equals_the_kernels(rng, image):
    images = [image, *(scene(rng, 60, 80) for _ in range(39))]
    ledger = sample("strong", 40, 3)
    views = apply_batch(as_batch(images), ledger, size=SIZE).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(views.numpy(), apply(images, ledger, size=SIZE))
    views = apply_batch(as_batch([image]), ledger, size=SIZE).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(views.numpy(), apply(image, ledger, size=SIZE))


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200), st.integers(1, 70), seeds)
def test_tensors_of_any_shape_equal_the_kernels(height, width, size, seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    ledger = sample("strong", 4, rng)
    ledger = replace(ledger, blur_sigma=ledger.blur_sigma * rng.choice([1, 4]))
    views = apply_batch(as_batch([image]), ledger, size=size).permute(0, 2, 3, 1)
    np.testing.assert_array_equal(views.numpy(), apply(image, ledger, size=size))


def test_mixed_precision_does_not_change_the_views(image):
    torch = pytest.importorskip("torch")
    ledger = sample("strong", 6, 3)
    plain = apply_batch(as_batch([image]), ledger, size=SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_batch(as_batch([image]), ledger, size=SIZE), plain)


@pytest.mark.gpu
def test_batch_on_the_gpu_stays_close_to_the_kernels(image):
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ledger = sample("strong", 64, 5)
    views = apply_batch(as_batch([image]).cuda(), ledger, size=SIZE)
    assert views.is_cuda
    views = views.permute(0, 2, 3, 1).cpu().numpy()
    difference = np.abs(views.astype(int) - apply(image, ledger, size=SIZE))
    assert difference.mean() < 0.002


def test_tensors_that_are_not_rgb_bytes_are_refused():
    torch = pytest.importorskip("torch")
    two = AugmentationLedger.identity(2)
    good = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for images in (good.float(), good[0], good[:, :1], good[..., :1]):
        with pytest.raises(DataError, match="give a uint8 tensor of shape"):
            apply_batch(images, two)
    with pytest.raises(DataError, match="3 rows but there are 2 images"):
        apply_batch(good, AugmentationLedger.identity(3))
    with pytest.raises(DataError, match="ledger is empty"):
        apply_batch(good, AugmentationLedger.identity(0))


# -- photographs -----------------------------------------------------------------------


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
