"""Half-splits and steps: complete, reproducible, the same however they are shared."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.augment import AugmentationLedger
from ce_align.errors import ConfigError
from ce_align.trainer.views import PairPlan, half_split

PLAN = PairPlan(n_images=50, pairs_per_step=8, seed=3)


def same(first, second):
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
    assert same(whole, joined)


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
    assert all(same(*steps) for steps in zip(whole[first:], rest, strict=True))


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
