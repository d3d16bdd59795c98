"""The four views of a step follow from the plan, whoever renders them."""

import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from ce_align.augment import apply
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
from ce_align.trainer.views import PairedViews, PairPlan, view_loader

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
