"""From two networks and a recording to unique and shared explained variance."""

import json

import numpy as np
import pytest
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.data.recordings import Recording
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.stages.overlap import OverlapConfig, overlap
from ce_align.stages.running import Run

N = 120


class Channels(torch.nn.Module):
    """Coarse pixels of some colour channels."""

    def __init__(self, channels):
        super().__init__()
        self.channels = channels
        self.pool = torch.nn.AvgPool2d(8)

    def forward(self, images):
        return self.pool(images[:, self.channels])


def eye(name, *channels):
    return Network(
        name, Channels(list(channels)), Preprocessing(input_size=16), {"IT": "pool"}
    )


def recording(rng, n_neuroids=6, channel_weights=(1.0, 0.0, 0.0)):
    coarse = rng.integers(0, 256, (N, 2, 2, 3), np.uint8)
    images = ImageSet.from_array("x", coarse.repeat(8, axis=1).repeat(8, axis=2))
    signal = (coarse / 255.0).reshape(N, 4, 3) @ np.array(channel_weights)
    rates = signal @ rng.normal(size=(4, n_neuroids))
    rates += 0.1 * rng.normal(size=rates.shape)
    names = tuple(f"n{k}" for k in range(n_neuroids))
    return Recording("x", images, rates[:, None], names, "IT")


CONFIG = OverlapConfig(
    model_a="a", model_b="b", recording="x", layer_a="pool", layer_b="pool"
)


def parts(networks, planted, folder, config=CONFIG):
    run = Run(ResultStore(folder))
    rows = overlap(networks, planted, config, run)
    found = {row.metric.removeprefix("overlap_"): row for row in rows}
    return found, run.outcome.n_stored == 1


def test_what_one_network_alone_sees_is_its_unique_part(rng, tmp_path):
    planted = recording(rng)
    found, stored = parts((eye("red", 0), eye("green", 1)), planted, tmp_path)
    assert not stored
    assert found["unique_a"].value > 0.8
    assert abs(found["unique_b"].value) < 0.05
    assert abs(found["shared"].value) < 0.1
    joint = found["unique_a"].value + found["unique_b"].value + found["shared"].value
    assert joint == pytest.approx(found["r2_joint"].value)
    assert found["unique_a"].low < found["unique_a"].value < found["unique_a"].high
    more = found["difference"]
    assert more.value == pytest.approx(found["r2_a"].value - found["r2_b"].value)
    assert more.p == pytest.approx(2 / 2**6)  # of six neuroids, all with one sign
    assert 0.8 < more.low < more.value < more.high


def test_what_both_see_is_shared(rng, tmp_path):
    planted = recording(rng)
    found, _ = parts((eye("red", 0), eye("yellow", 0, 1)), planted, tmp_path)
    assert found["shared"].value > 0.8
    assert abs(found["unique_b"].value) < 0.05


def test_parts_of_every_neuroid_are_stored_beside_the_rows(rng, tmp_path):
    found, _ = parts((eye("red", 0), eye("green", 1)), recording(rng), tmp_path)
    row = found["unique_a"]
    arrays = ResultStore(tmp_path).arrays("overlap", row.config_id)
    assert arrays["unique_a"].values.mean() == pytest.approx(row.value)
    assert list(arrays["neuroid_id"].values) == [f"n{k}" for k in range(6)]


def test_a_second_run_answers_from_the_store_until_something_changes(rng, tmp_path):
    planted, red, green = recording(rng), eye("red", 0), eye("green", 1)
    first, _ = parts((red, green), planted, tmp_path)
    again, stored = parts((red, green), planted, tmp_path)
    assert stored
    assert again == first
    _, stored = parts((red, eye("blue", 2)), planted, tmp_path)
    assert not stored
    _, stored = parts((red, green), recording(rng), tmp_path)
    assert not stored
    other = CONFIG.model_copy(update={"seed": 1})
    _, stored = parts((red, green), planted, tmp_path, other)
    assert not stored


def test_rows_stored_without_a_difference_get_it_from_the_stored_parts(rng, tmp_path):
    planted, networks = recording(rng), (eye("red", 0), eye("green", 1))
    first, _ = parts(networks, planted, tmp_path)
    config_id = first["shared"].config_id
    (path,) = (tmp_path / "overlap").glob("*.json")
    document = json.loads(path.read_text())
    document["rows"].pop()
    del document["digest"]  # which that version did not write
    path.write_text(json.dumps(document))
    run = Run(ResultStore(tmp_path), notify=pytest.fail)
    rows = overlap(networks, planted, CONFIG, run)
    numbers = [(row.metric, row.value, row.low, row.high, row.p) for row in rows]
    assert numbers == [
        (row.metric, row.value, row.low, row.high, row.p) for row in first.values()
    ]
    assert {row.config_id for row in rows} == {config_id}
    assert (run.outcome.n_done, run.outcome.n_stored) == (1, 0)
    _, stored = parts(networks, planted, tmp_path)
    assert stored


def test_few_neuroids_have_no_interval(rng, tmp_path):
    planted = recording(rng, n_neuroids=3)
    found, _ = parts((eye("red", 0), eye("green", 1)), planted, tmp_path)
    assert found["r2_a"].low is None
    assert found["r2_a"].value > 0.8


def test_copies_of_an_image_stand_in_one_fold(rng, tmp_path):
    """Responses that no network predicts, each image in three rows."""
    coarse = rng.integers(0, 256, (40, 2, 2, 3), np.uint8)
    pixels = coarse.repeat(8, axis=1).repeat(8, axis=2)
    of_row = rng.permutation(np.repeat(np.arange(40), 3))
    rates = rng.normal(size=(40, 6))[of_row] + 0.1 * rng.normal(size=(N, 6))
    names = tuple(f"n{k}" for k in range(6))
    images = ImageSet.from_array("x", pixels[of_row])
    planted = Recording("x", images, rates[:, None], names, "IT")
    found, _ = parts((eye("red", 0), eye("all", 0, 1, 2)), planted, tmp_path)
    assert found["r2_joint"].value < 0.1
    assert found["r2_joint"].n_stimuli == 40
    assert "120 rows show 40 images more than once" in found["r2_joint"].note
