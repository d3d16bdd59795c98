"""Views rendered where the network is are those that the workers render."""

import itertools
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer import views as rendering
from ce_align.trainer.data import image_labels, in_memory, pack
from ce_align.trainer.engine import fit
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.presets import Hardware, augments_on_device, preset_config
from ce_align.trainer.views import PairedViews, PairPlan, PixelBatch, view_loader

pytestmark = pytest.mark.slow

SIZE, PAIRS = 16, 4


def pictures(folder, sizes):
    """Smooth images of these sizes in files, in two classes."""
    from PIL import Image

    rng = np.random.default_rng(3)
    for i, size in enumerate(sizes):
        coarse = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8)
        place = folder / f"class {i % 2}" / f"{i}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(place)
    return ImageSet.from_path(folder)


UNEVEN = [(20 + 7 * (i % 5), 60 - 9 * (i % 4)) for i in range(24)]


def paired(images, families=("strong_a", "strong_b"), **changes):
    plan = PairPlan(len(images), PAIRS, seed=7, families=families)
    return PairedViews(images, plan, image_labels(images)[0], SIZE, **changes)


def on_device(images, start=(0, 0), **options):
    views = paired(images, on_device=True)
    loader = view_loader(views, lambda: start, **options)
    return [batch.to("cpu").rendered(SIZE) for batch in loader]


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a.views, b.views) and torch.equal(a.labels, b.labels)
        for a, b in zip(one, other, strict=True)
    )


@pytest.mark.parametrize("sizes", [UNEVEN, [(40, 30)] * 24])
@pytest.mark.parametrize("keep", [lambda images: images, in_memory])
def test_both_loaders_give_the_same_views(tmp_path, sizes, keep):
    images = keep(pictures(tmp_path / "images", sizes))
    for epoch, step in itertools.product(range(2), range(3)):
        rendered = paired(images)[epoch, step]
        pixels = paired(images, on_device=True)[epoch, step]
        assert isinstance(pixels, PixelBatch)
        found = pixels.rendered(SIZE)
        assert torch.equal(found.labels, rendered.labels)
        difference = (found.views.float() - rendered.views.float()).abs()
        assert difference.mean() <= 1.5
        # On a CPU there is no tolerance to use up.
        assert difference.max() == 0


def test_packed_images_give_the_same_views(tmp_path):
    images = pictures(tmp_path / "images", UNEVEN)
    packed = pack(images, tmp_path / "packed")
    from ce_align.trainer.data import open_packed

    assert same(on_device(open_packed(packed)), on_device(images))


def test_workers_and_resuming_change_no_bit(tmp_path):
    images = pictures(tmp_path, UNEVEN)
    alone = on_device(images, (1, 0))
    assert len(alone) == 3
    assert same(alone, on_device(images, (1, 0), workers=2))
    assert same(alone[1:], on_device(images, (1, 1), workers=1))


def test_every_image_travels_once_and_padding_is_bounded(tmp_path):
    views = paired(pictures(tmp_path, UNEVEN), on_device=True)
    batch = views[0, 0]
    places = torch.cat(
        [torch.stack([block.halves, block.pairs], 1) for block in batch.blocks]
    )
    wanted = torch.cartesian_prod(torch.arange(2), torch.arange(PAIRS))
    assert sorted(places.tolist()) == wanted.tolist()


@given(
    st.lists(st.tuples(st.integers(2, 60), st.integers(2, 60)), min_size=1, max_size=20)
)
def test_blocks_hold_every_image_without_much_padding(sizes):
    array = np.array(sizes)
    blocks = list(rendering._alike(array))
    assert sorted(np.concatenate(blocks).tolist()) == list(range(len(sizes)))
    for rows in blocks:
        frame = array[rows].max(axis=0).prod() * len(rows)
        content = array[rows].prod(axis=1).sum()
        assert content >= (1 - rendering.MOST_PADDING) * frame
        assert len(rows) == 1 or frame <= rendering.MOST_PIXELS


def test_blocks_of_large_images_are_small(monkeypatch):
    monkeypatch.setattr(rendering, "MOST_PIXELS", 1000)
    blocks = list(rendering._alike(np.array([(20, 20)] * 5 + [(50, 50)])))
    assert [len(rows) for rows in blocks] == [2, 2, 1, 1]


STEPS = 4


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (64, 20, 24, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 4}" for i in range(64)])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


CONFIG = preset_config(
    "tiny",
    "simclr",
    equivariance_weight=0.3,
    images="noise",
    view_size=16,
    epochs=2,
    pairs_per_step=8,
    options={"head_widths": (16, 8)},
)


def train(images, folder, augment, workers=0):
    hardware = Hardware(workers=workers, augment=augment)
    return fit(CONFIG, images, folder, hardware, notify=lambda text: None)


def same_weights(one, other):
    return all(
        torch.equal(a, b)
        for a, b in zip(
            one.state_dict().values(), other.state_dict().values(), strict=True
        )
    )


def test_on_a_cpu_the_weights_are_those_of_views_from_workers(tmp_path, images):
    by_workers = train(images, tmp_path / "cpu", "cpu")
    for workers in (0, 2):
        found = train(images, tmp_path / f"device {workers}", "device", workers)
        assert same_weights(found, by_workers)


def test_stopped_and_resumed_it_ends_with_the_same_weights(
    tmp_path, images, monkeypatch
):
    whole = train(images, tmp_path / "whole", "device")
    moved = PairedTraining.optimizer_step

    def interrupted(self, *args, **kwargs):
        moved(self, *args, **kwargs)
        if self.global_step + 1 == STEPS + 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(PairedTraining, "optimizer_step", interrupted)
        with pytest.raises(CeAlignError, match=f"stopped after step {STEPS + 2}"):
            train(images, tmp_path / "again", "device")
    assert same_weights(train(images, tmp_path / "again", "device", workers=1), whole)


def test_the_place_is_that_of_the_network_on_a_gpu_unless_one_is_named():
    assert augments_on_device(Hardware(), "cuda")
    assert not augments_on_device(Hardware(), "cpu")
    assert not augments_on_device(Hardware(augment="cpu"), "cuda")
    assert augments_on_device(Hardware(augment="device"), "cpu")
    with pytest.raises(ConfigError, match="choose from auto, cpu, device"):
        augments_on_device(Hardware(augment="gpu"), "cuda")
