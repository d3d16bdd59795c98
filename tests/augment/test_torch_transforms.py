"""Views of tensors: those of the kernels, which are Pillow's."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ce_align.augment import AugmentationLedger, apply, apply_batch, sample
from ce_align.errors import DataError

torch = pytest.importorskip("torch")

SIZE = 48
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
