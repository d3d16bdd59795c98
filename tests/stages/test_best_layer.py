"""`--layer best`: each split at the layer that its training images choose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_score import noise_like, planted, score

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError
from ce_align.metrics.predictivity import brainscore_splits
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.stages import score as stage
from ce_align.stages.running import Run
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.targets import Target

pytestmark = pytest.mark.slow

RIDGE = {"regression": "ridge", "alpha": 1.0}


@pytest.fixture
def images(rng):
    return ImageSet.from_array("noise", rng.integers(0, 255, (120, 16, 16, 3), "u1"))


def config_for(layer, **settings):
    return ScoreConfig(model="toy", recording="toy", layer=layer, **settings)


def network_of(*blocks):
    module = torch.nn.Sequential(*blocks)
    return Network("toy", module, Preprocessing(input_size=16), {"IT": "0"})


def layered(width=6):
    """Blocks of which the second has lost nearly all that there was."""
    torch.manual_seed(0)
    keep = torch.nn.Sequential(torch.nn.Conv2d(3, width, 8, stride=8), torch.nn.ReLU())
    lose = torch.nn.Sequential(torch.nn.Conv2d(width, 1, 1), torch.nn.Tanh())
    return network_of(keep, lose)


def best_run(recording, folder, network=None, **settings):
    config = config_for("best", **RIDGE, **settings)
    given = Run(ResultStore(folder))
    network = network or layered()
    rows = stage.score_best(network, {config: recording}, given)
    assert not given.outcome.failures
    return rows[0], given.store.arrays("score", rows[0].config_id)


def test_a_layer_is_chosen_by_images_that_are_not_tested(images, tmp_path, rng):
    """An independent route: what a split tests may be anything, its layer stays."""
    recording = noise_like(images, 1, n_neuroids=5)
    _, arrays = best_run(recording, tmp_path / "a", splits=4)
    splits = brainscore_splits(120, n_splits=4)
    for split, (_, test) in enumerate(splits):
        rates = np.array(recording.responses)
        rates[test] = rng.normal(size=rates[test].shape)
        other = replace(recording, responses=rates)
        _, changed = best_run(other, tmp_path / str(split), splits=4)
        assert changed["layer"].values[split] == arrays["layer"].values[split]


def test_the_best_layer_has_the_score_of_the_layer_that_it_is(images, tmp_path):
    network = layered()
    recording = planted(images, 0.9).recording
    row, arrays = best_run(recording, tmp_path, network)
    assert set(arrays["layer"].values) == {"0.1"}
    assert row.layer == "best"
    assert row.note.endswith("layers by the training images of 10 splits: 0.1 10")
    named = [config_for("0.1", **RIDGE)]
    (alone,) = score(network, recording, named, ResultStore(tmp_path)).rows
    assert row.raw == pytest.approx(alone.raw, abs=1e-12)
    again, _ = best_run(recording, tmp_path, network)
    assert again == row


def test_a_choice_among_layers_of_noise_gains_nothing(images, tmp_path):
    """The best of many by the tested images would be above 0; the nested is not."""
    torch.manual_seed(3)
    blocks = [torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)]
    network = network_of(*map(torch.nn.Sequential, blocks))
    nested, largest = [], []
    for seed in range(6):
        recording = noise_like(images, seed, n_neuroids=1)
        row, _ = best_run(recording, tmp_path / str(seed), network, splits=2)
        nested.append(row.raw)
        named = [config_for(str(k), **RIDGE, splits=2) for k in range(6)]
        rows = score(network, recording, named, ResultStore(tmp_path / str(seed))).rows
        largest.append(max(one.raw for one in rows))
        assert row.raw <= largest[-1] + 1e-12
    assert np.mean(nested) < np.mean(largest) - 0.02


def test_units_of_different_layers_have_no_best(images, tmp_path):
    config = config_for("best", regression="reverse_pls")
    given = Run(ResultStore(tmp_path))
    stage.score_best(layered(), {config: planted(images, 0.9)}, given)
    ((_, why),) = given.outcome.failures
    assert "so name a layer" in str(why)


class Holed(torch.nn.Module):
    """Not a number where its input is large, which images of the probe are not."""

    def forward(self, values):
        return torch.where(values > 1.5, torch.nan, values)


class Mended(torch.nn.Module):
    def forward(self, values):
        return torch.nan_to_num(values)


class Narrow(torch.nn.Module):
    def forward(self, values):
        return values[:, :6]


@pytest.mark.parametrize("fault", ["numbers", "memory"])
@pytest.mark.parametrize("layer", ["best", "all"])
def test_a_block_that_fails_is_named_and_the_others_are_scored(
    layer, fault, images, tmp_path, monkeypatch
):
    recording = noise_like(images, 1, n_neuroids=5)
    torch.manual_seed(0)
    network = network_of(torch.nn.Conv2d(3, 6, 8, stride=8), Holed(), Mended())
    if fault == "memory":
        whole = Target.check_memory

        def check_memory(target, n_features, config):
            if n_features > 100:
                raise CeAlignError("not enough memory: 1 is too wide")
            whole(target, n_features, config)

        monkeypatch.setattr(Target, "check_memory", check_memory)
        wide = torch.nn.Conv2d(6, 30, 1)
        network = network_of(torch.nn.Conv2d(3, 6, 8, stride=8), wide, Narrow())
    given = {("network", "toy"): network, ("recording", "toy"): recording}
    for n_stored in (0, 0 if layer == "best" else 2):
        run = Run(ResultStore(tmp_path), given=given)
        stage.execute([config_for(layer, **RIDGE, splits=2)], run)
        ((what, error),) = run.outcome.failures
        assert what == "toy 1 × toy"
        assert ("NaN" if fault == "numbers" else "too wide") in str(error)
        assert run.outcome.n_stored == n_stored
        rows = run.outcome.rows
        if layer == "all":
            assert [row.layer for row in rows] == ["0", "2"]
            continue
        arrays = run.store.arrays("score", rows[0].config_id)
        assert set(arrays["layer"].values) <= {"0", "2"}
        assert rows[0].note.endswith("; without 1, which failed")


def test_where_every_block_fails_there_is_no_best(images, tmp_path):
    given = {
        ("network", "toy"): network_of(Holed()),
        ("recording", "toy"): noise_like(images, 1, n_neuroids=5),
    }
    run = Run(ResultStore(tmp_path), given=given)
    stage.execute([config_for("best", **RIDGE, splits=2)], run)
    assert run.outcome.rows == []
    assert [what for what, _ in run.outcome.failures] == ["toy 0 × toy"]
    assert [failure.what for failure in run.store.failures()] == ["toy · best · toy"]
