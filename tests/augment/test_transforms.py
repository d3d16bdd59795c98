"""Properties of views: what each transform does, replay, and bad input."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.augment import AugmentationLedger, apply, apply_batch, sample
from ce_align.augment.kernels import compiled
from ce_align.augment.transforms import pixel_boxes
from ce_align.errors import DataError

SIZE = 48


def test_identity_at_the_image_size_changes_no_pixel(image):
    square = image[:, :60]
    view = apply(square, AugmentationLedger.identity(1), size=60)[0]
    np.testing.assert_array_equal(view, square)


def test_flipping_twice_is_no_flip(neutral, image):
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


def test_solarising_inverts_exactly_the_bright_half(neutral, image):
    plain = apply(image, neutral(), size=SIZE)
    solarised = apply(image, neutral(solarize=True), size=SIZE)
    np.testing.assert_array_equal(solarised, np.where(plain < 128, plain, 255 - plain))
    assert (solarised != plain).any()
    assert solarised.max() < 128


@settings(max_examples=20, deadline=None)
@given(st.floats(0.1, 5.0))
def test_blur_of_an_edge_has_the_variance_of_the_gaussian(neutral, sigma):
    side = 80
    edge = np.zeros((side, side, 3), np.uint8)
    edge[:, side // 2 :] = 255
    slope = np.diff(apply(edge, neutral(blur_sigma=sigma), size=side)[0, 9, :, 0] / 255)
    place = np.arange(side - 1)
    mean = (slope * place).sum()
    variance = (slope * (place - mean) ** 2).sum()
    assert slope.sum() == pytest.approx(1)
    assert variance == pytest.approx(sigma**2, rel=0.05, abs=0.05)


def test_views_do_not_depend_on_the_other_rows_or_on_workers(image):
    ledger = sample("strong", 30, 2)
    whole = apply(image, ledger, size=SIZE)
    with ThreadPoolExecutor(3) as pool:
        parts = list(pool.map(lambda row: apply(image, row, size=SIZE), ledger))
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    reverse = apply(image, ledger[::-1], size=SIZE)[::-1]
    np.testing.assert_array_equal(reverse, whole)


@pytest.mark.slow
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


def test_a_pair_gets_the_crop_at_the_same_relative_place(make_scene, rng):
    row = sample("spatial", 1, 8)
    small = make_scene(rng, 40, 60)
    large = small.repeat(5, axis=0).repeat(5, axis=1)
    a, b = apply([small, large], AugmentationLedger.concat([row, row]), size=24)
    # Five times larger pixels: the same place to within half a small pixel.
    assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95
    elsewhere = apply(large, sample("spatial", 1, 9), size=24)[0]
    assert np.corrcoef(a.ravel(), elsewhere.ravel())[0, 1] < 0.8


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


@given(
    st.tuples(st.integers(2, 3000), st.integers(2, 3000)),
    st.tuples(st.integers(2, 3000), st.integers(2, 3000)),
    st.integers(0, 2**32 - 1),
)
def test_the_second_image_of_a_pair_gets_the_box_that_the_authors_truncate(
    first, second, seed
):
    (height_1, width_1), (height_2, width_2) = first, second
    ledger = sample("spatial", 20, seed, sizes=first)
    boxes_1 = pixel_boxes(ledger, *first).tolist()
    boxes_2 = pixel_boxes(ledger, *second).tolist()
    for (top, left, height, width), found in zip(boxes_1, boxes_2, strict=True):
        expected = [
            int(top * height_2 / height_1),
            int(left * width_2 / width_1),
            # An image so small that nothing is left keeps one pixel.
            max(1, int(height * height_2 / height_1)),
            max(1, int(width * width_2 / width_1)),
        ]
        expected[0] = min(expected[0], height_2 - expected[2])
        expected[1] = min(expected[1], width_2 - expected[3])
        assert found == expected


torch = pytest.importorskip("torch")

seeds = st.integers(0, 2**32 - 1)


def as_batch(images):
    return torch.from_numpy(np.stack(images).transpose(0, 3, 1, 2).copy())


def test_batch_of_tensors_equals_the_kernels(make_scene, rng, image):
    images = [image, *(make_scene(rng, 60, 80) for _ in range(39))]
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
    ledger = sample("strong", 6, 3)
    plain = apply_batch(as_batch([image]), ledger, size=SIZE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(apply_batch(as_batch([image]), ledger, size=SIZE), plain)


@pytest.mark.gpu
def test_batch_on_the_gpu_stays_close_to_the_kernels(image):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    ledger = sample("strong", 64, 5)
    views = apply_batch(as_batch([image]).cuda(), ledger, size=SIZE)
    assert views.is_cuda
    views = views.permute(0, 2, 3, 1).cpu().numpy()
    difference = np.abs(views.astype(int) - apply(image, ledger, size=SIZE))
    assert difference.mean() < 0.002


def test_tensors_that_are_not_rgb_bytes_are_refused():
    two = AugmentationLedger.identity(2)
    good = torch.zeros(2, 3, 8, 8, dtype=torch.uint8)
    for images in (good.float(), good[0], good[:, :1], good[..., :1]):
        with pytest.raises(DataError, match="give a uint8 tensor of shape"):
            apply_batch(images, two)
    with pytest.raises(DataError, match="3 rows but there are 2 images"):
        apply_batch(good, AugmentationLedger.identity(3))
    with pytest.raises(DataError, match="ledger is empty"):
        apply_batch(good, AugmentationLedger.identity(0))
