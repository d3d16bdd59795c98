"""Half-splits, steps and views: complete, reproducible, the same however shared."""

import zipfile
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ce_align.augment import AugmentationLedger, apply
from ce_align.data.imagesets import ImageSet
from ce_align.errors import ConfigError, DataError
from ce_align.trainer import data as data_module
from ce_align.trainer import views as views_module
from ce_align.trainer.data import (
    check_images,
    data_digest,
    image_labels,
    open_images,
    pack,
)
from ce_align.trainer.views import PairedViews, PairPlan, half_split, view_loader

PLAN = PairPlan(n_images=50, pairs_per_step=8, seed=3)


def same_batches(first, second):
    return (
        np.array_equal(first.images, second.images)
        and first.view_a == second.view_a
        and first.view_b == second.view_b
    )


@given(st.integers(2, 300), st.integers(0, 2**70), st.integers(0, 1000))
def test_halves_are_disjoint_and_hold_all_images_but_an_odd_one(n, seed, epoch):
    halves = half_split(n, seed, epoch)
    assert halves.shape == (n // 2, 2)
    assert len(np.unique(halves)) == n // 2 * 2
    assert halves.min() >= 0
    assert halves.max() < n


@given(st.integers(20, 100), st.integers(0, 10**6), st.integers(0, 100))
def test_halves_follow_from_seed_and_epoch_and_change_with_both(n, seed, epoch):
    halves = half_split(n, seed, epoch)
    half_split(n, seed + 2, epoch)
    half_split(n, seed + 3, epoch)
    assert np.array_equal(halves, half_split(n, seed, epoch))
    assert not np.array_equal(halves, half_split(n, seed, epoch + 1))
    assert not np.array_equal(halves, half_split(n, seed + 1, epoch))


def test_every_image_is_equally_likely_in_either_half():
    n_epochs = 2000
    first = np.zeros(10)
    together = 0
    for epoch in range(n_epochs):
        halves = half_split(10, 0, epoch)
        first[halves[:, 0]] += 1
        together += (np.sort(halves, axis=1) == [0, 1]).all(1).any()
    # Five standard deviations of a binomial count.
    assert np.abs(first / n_epochs - 1 / 2).max() < 5 * np.sqrt(0.25 / n_epochs)
    chance = 1 / 9
    spread = np.sqrt(chance * (1 - chance) / n_epochs)
    assert abs(together / n_epochs - chance) < 5 * spread


def test_no_one_can_alter_the_halves():
    with pytest.raises(ValueError, match="read-only"):
        half_split(10, 0, 0)[0, 0] = 1


def test_steps_of_an_epoch_show_no_image_twice():
    batches = list(PLAN.batches(epoch=2))
    assert len(batches) == PLAN.steps_per_epoch == 3
    images = np.concatenate([batch.images for batch in batches])
    assert len(np.unique(images)) == images.size == 48
    assert np.array_equal(images, half_split(50, 3, 2)[:24])


def test_views_are_of_their_families_and_differ():
    batch = PLAN.batch(0, 0)
    assert len(batch.view_a) == len(batch.view_b) == len(batch.images) == 8
    assert set(batch.view_a.family) == {"strong_a"}
    assert set(batch.view_b.family) == {"strong_b"}
    assert (batch.view_a.blur_sigma > 0).all()
    assert not np.isin(batch.view_a.crop_left, batch.view_b.crop_left).any()


def test_no_augmentation_is_used_in_two_steps():
    tops = [
        view.crop_width
        for epoch in range(3)
        for batch in PLAN.batches(epoch)
        for view in (batch.view_a, batch.view_b)
    ]
    # The largest crops repeat: rejection falls back on the whole frame.
    widths = np.concatenate(tops)
    assert len(np.unique(widths[widths < 1])) == (widths < 1).sum()


@pytest.mark.slow
@given(
    st.sampled_from([1, 2, 4, 8]), st.integers(0, 20), st.integers(0, 2), st.integers(0)
)
def test_rows_of_all_processes_are_those_of_one(n_processes, epoch, step, seed):
    plan = replace(PLAN, seed=seed)
    sizes = np.random.default_rng(seed).integers(8, 99, (8, 2))
    whole = plan.batch(epoch, step, sizes=sizes)
    parts = [
        replace(plan, n_processes=n_processes, process=p).batch(
            epoch, step, sizes=np.split(sizes, n_processes)[p]
        )
        for p in range(n_processes)
    ]
    joined = replace(
        whole,
        images=np.concatenate([part.images for part in parts]),
        view_a=AugmentationLedger.concat([part.view_a for part in parts]),
        view_b=AugmentationLedger.concat([part.view_b for part in parts]),
    )
    assert same_batches(whole, joined)


def test_any_two_families_of_one_view_are_shared_out():
    plan = replace(PLAN, families=("weak_a", "photometric"))
    half = replace(plan, n_processes=2, process=1).batch(1, 1)
    assert half.view_b == plan.batch(1, 1).view_b[4:]
    assert set(half.view_b.family) == {"photometric"}


@given(st.integers(0, 5), st.integers(0, 3))
def test_resuming_in_the_middle_gives_the_steps_that_were_left(epoch, first):
    whole = list(PLAN.batches(epoch))
    rest = list(PairPlan(n_images=50, pairs_per_step=8, seed=3).batches(epoch, first))
    assert len(rest) == len(whole) - first
    assert all(same_batches(*steps) for steps in zip(whole[first:], rest, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_images": 15}, "15 images do not fill a step of 8"),
        ({"pairs_per_step": 0}, "do not fill"),
        ({"n_processes": 3}, "8 pairs a step .* among 3 processes"),
        ({"n_processes": 2, "process": 2}, "process 2 is not one of 2"),
        ({"seed": -1}, "seed is -1"),
        ({"families": ("strong_a", "strong_c")}, "strong_c.*choose from"),
        ({"families": ("strong", "strong_b")}, "several views"),
    ],
)
def test_impossible_plans_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(PLAN, **change)


@pytest.mark.parametrize(("epoch", "step"), [(0, 3), (0, -1), (-1, 0)])
def test_steps_outside_an_epoch_are_refused(epoch, step):
    with pytest.raises(ConfigError, match="3 steps"):
        PLAN.batch(epoch, step)


SIZE, N_IMAGES, PAIRS = 16, 24, 4


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (N_IMAGES, 24, 24, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 3}" for i in range(N_IMAGES)])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


def paired(images, **changes):
    plan = PairPlan(
        len(images), PAIRS, seed=7, families=("tiny_a", "tiny_b"), **changes
    )
    return PairedViews(images, plan, image_labels(images)[0], SIZE)


def batches(views, start=(0, 0), workers=0):
    return list(view_loader(views, lambda: start, workers=workers))


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.views, b.views) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


def test_a_step_holds_both_images_under_both_augmentations(images):
    views = paired(images)
    batch = views[1, 2]
    sizes = np.full((PAIRS, 2), 24)
    plan = views.plan.batch(1, 2, sizes=sizes)
    for pair, (first, second) in enumerate(plan.images):
        for view, (image, ledger) in enumerate(
            (image, ledger)
            for image in (first, second)
            for ledger in (plan.view_a, plan.view_b)
        ):
            expected = apply(
                np.asarray(images.load(image)), ledger[pair : pair + 1], SIZE
            )
            assert np.array_equal(batch.views[view, pair], expected[0])
        assert batch.labels[pair].tolist() == [first % 3, second % 3]


def test_crops_are_sampled_for_the_first_image_of_a_pair(tmp_path):
    shapes = [(30, 60), (60, 30), (40, 40), (25, 90)] * 6
    for i, shape in enumerate(shapes):
        Image.new("RGB", shape[::-1]).save(tmp_path / f"{i:02d}.png")
    images = ImageSet.from_path(tmp_path)
    views = paired(images)
    ledgers = []

    def record(pixels, ledger, size):
        ledgers.append(ledger)
        return apply(pixels, ledger, size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(views_module, "apply", record)
        _ = views[0, 1]
    first_a, first_b, second_a, second_b = ledgers
    assert first_a == second_a
    assert first_b == second_b
    for ledger in (first_a, first_b):
        for row, image in zip(ledger, views.plan.images(0, 1)[:, 0], strict=True):
            pixels = row.parameters()[0, :4] * np.tile(shapes[image], 2)
            np.testing.assert_allclose(pixels, np.rint(pixels), atol=1e-9)
            # Both sides are rounded to whole pixels.
            tall, wide = pixels[2:]
            assert (wide - 0.5) / (tall + 0.5) < 4 / 3
            assert (wide + 0.5) / (tall - 0.5) > 3 / 4


def test_the_number_of_workers_changes_no_bit(images):
    views = paired(images)
    alone = batches(views, (3, 0))
    assert len(alone) == 3
    assert same(alone, batches(views, (3, 0), workers=1))
    assert same(alone, batches(views, (3, 0), workers=2))


def test_a_resumed_epoch_has_the_remaining_steps(images):
    views = paired(images)
    assert same(batches(views, (2, 1)), batches(views, (2, 0))[1:])


def test_epochs_pair_other_images(images):
    plan = paired(images).plan
    first, second = (
        np.concatenate([b.images for b in plan.batches(epoch)]) for epoch in (0, 1)
    )
    assert Counter(first.ravel()) == Counter(range(N_IMAGES))
    assert {tuple(sorted(p)) for p in first} != {tuple(sorted(p)) for p in second}


def test_two_processes_share_out_the_step_of_one(images):
    whole = paired(images)[1, 1]
    parts = [paired(images, n_processes=2, process=p)[1, 1] for p in (0, 1)]
    assert torch.equal(whole.views, torch.cat([p.views for p in parts], dim=1))
    assert torch.equal(whole.labels, torch.cat([p.labels for p in parts]))


def test_packed_images_give_the_same_views(images, tmp_path):
    packed = open_images(str(pack(images, tmp_path / "packed")), SIZE)
    assert same(batches(paired(images)), batches(paired(packed), workers=1))


def test_an_unreadable_image_arrives_as_its_error(tmp_path):
    for i in range(8):
        Image.new("RGB", (20, 20)).save(tmp_path / f"{i}.png")
    (tmp_path / "5.png").write_bytes(b"no image")
    views = paired(ImageSet.from_path(tmp_path))
    (found,) = batches(views, workers=1)
    assert isinstance(found, DataError)
    assert "5.png" in str(found)
    assert "\n" not in str(found)


def test_images_are_looked_at_beforehand(images):
    check_images(images, 24)
    with pytest.raises(DataError, match="smaller than a view of 32"):
        check_images(images, 32)
    with pytest.raises(DataError, match="at least two"):
        check_images(images.select([0]), SIZE)


@pytest.mark.slow
def test_the_digest_of_the_data_follows_ids_and_content(images, rng):
    digest = data_digest(images)
    assert digest == data_digest(images.select(range(N_IMAGES)))
    assert digest != data_digest(images.select(range(N_IMAGES - 1)))
    pixels = rng.integers(0, 256, (N_IMAGES, 24, 24, 3), dtype=np.uint8)
    assert digest != data_digest(ImageSet.from_array("noise", pixels))


def test_images_without_classes_have_no_labels(images):
    plain = ImageSet.from_array("plain", np.zeros((4, 9, 9, 3), np.uint8))
    labels, n_classes = image_labels(plain)
    assert n_classes == 0
    assert labels.tolist() == [-1] * 4
    assert image_labels(images)[1] == 3


def test_a_folder_inside_an_archive_can_be_named(tmp_path):
    path = tmp_path / "images.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in ("train/a/1", "train/b/2", "train/b/3", "training/4", "val/5"):
            Image.new("RGB", (9, 9)).save(tmp_path / "one.png")
            archive.write(tmp_path / "one.png", f"set/{name}.png")
    images = open_images(f"{path}:train", 8)
    assert images.ids == ("train/a/1", "train/b/2", "train/b/3")
    assert image_labels(images)[0].tolist() == [0, 1, 1]
    with pytest.raises(DataError, match="train, training, val"):
        open_images(f"{path}:tests", 8)
    with pytest.raises(ConfigError, match="no images at"):
        open_images(f"{tmp_path}/absent.zip:train", 8)


def test_any_image_that_changes_is_noticed_in_a_set_that_is_digested_whole(rng):
    pixels = rng.integers(0, 256, (30, 8, 8, 3), dtype=np.uint8)
    digest = data_digest(ImageSet.from_array("noise", pixels))
    for i in range(len(pixels)):
        changed = pixels.copy()
        changed[i, 3, 3, 1] ^= 1
        assert data_digest(ImageSet.from_array("noise", changed)) != digest


def test_of_a_large_set_a_sample_is_digested_and_that_is_said(rng, monkeypatch):
    monkeypatch.setattr(data_module, "N_WHOLE", 20)
    monkeypatch.setattr(data_module, "N_DIGESTED", 10)
    pixels = rng.integers(0, 256, (28, 8, 8, 3), dtype=np.uint8)
    digest = data_digest(ImageSet.from_array("noise", pixels))
    noticed = []
    for i in range(len(pixels)):
        changed = pixels.copy()
        changed[i] ^= 1
        noticed.append(data_digest(ImageSet.from_array("noise", changed)) != digest)
    assert noticed == [i % 3 == 0 for i in range(28)]
    assert data_module.digested(28) == (
        "names of all 28 images, content of 10 evenly spaced"
    )
    assert data_module.digested(20) == "names of all 20 images, content of all"
