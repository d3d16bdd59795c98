"""Recorded numbers: what is defined, told and timed."""

import math

from ce_align.trainer import module as records
from ce_align.trainer.module import Speedometer, epoch_line


def test_speed_is_images_over_time_since_the_last_look(monkeypatch):
    times = iter([10.0, 10.5, 12.0, 20.0, 21.0])
    monkeypatch.setattr(records.time, "perf_counter", lambda: next(times))
    speed = Speedometer(images_per_step=8)
    assert math.isnan(speed.read(3))
    assert speed.read(5) == 2 * 8 / 0.5
    assert math.isnan(speed.read(5))
    speed.restart(6)
    assert speed.read(7) == 8


def test_a_person_is_told_what_is_defined():
    numbers = {"epoch": 2.0, "loss_invariant": 1.25, "knn_top1": math.nan, "loss": 3}
    assert epoch_line(2, 8, numbers) == "epoch 2 of 8: loss invariant 1.25, loss 3"
