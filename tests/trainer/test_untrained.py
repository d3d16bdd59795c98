"""The network before training: the first weights, with statistics that fit them."""

import json

import pytest
import torch
from safetensors import safe_open
from test_engine import noise_images, small_config, train

from ce_align.errors import ConfigError
from ce_align.models.load import load_network
from ce_align.stages.train import train as train_stage
from ce_align.trainer.engine import calibrate
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import PairedNetwork
from ce_align.trainer.presets import Hardware


def export(folder, **changes):
    config = small_config(epochs=0, **changes)
    rows = train_stage(
        config, noise_images(), folder, Hardware(workers=0), notify=lambda text: None
    )
    with safe_open(folder / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return rows, tensors, file.metadata()


def test_the_weights_are_those_that_training_begins_with(tmp_path, monkeypatch):
    begun = {}
    started = PairedTraining.on_train_epoch_start

    def noted(self):
        if not begun:
            state = self.network.backbone.state_dict().items()
            begun.update({name: value.clone() for name, value in state})
        started(self)

    monkeypatch.setattr(PairedTraining, "on_train_epoch_start", noted)
    train(tmp_path / "trained", config=small_config(epochs=1))
    rows, found, metadata = export(tmp_path / "run")
    for name, value in begun.items():
        if "running" not in name and "tracked" not in name:
            assert torch.equal(found[name], value), name
    assert (metadata["epochs"], metadata["steps"]) == ("0", "0")
    assert {row.metric for row in rows} >= {"knn_top1", "effective_rank"}
    assert {row.epochs for row in rows} == {0}
    assert json.loads(metadata["metrics"])["knn_top1"] > 0
    network = load_network(str(tmp_path / "run"))
    assert network.layer_for("IT") == "layer4"
    assert {row.model_digest for row in rows} == {network.digest}
    again, other, _ = export(tmp_path / "run", seed=1)
    assert {row.model_digest for row in again}.isdisjoint({network.digest})
    assert not torch.equal(found["conv1.weight"], other["conv1.weight"])


def test_statistics_are_those_of_all_views_of_the_batches(rng):
    module = PairedTraining(small_config(epochs=0), 4)
    network: PairedNetwork = module.network
    batches = [torch.from_numpy(rng.normal(size=(32, 3, 16, 16))).float() for _ in "ab"]
    shares = network.backbone.bn1.momentum
    seen = calibrate(network, batches)
    maps = [network.backbone.conv1(view) for b in batches for view in b.chunk(4)]
    mean = torch.stack([m.mean((0, 2, 3)) for m in maps]).mean(0)
    variance = torch.stack([m.var((0, 2, 3)) for m in maps]).mean(0)
    assert torch.allclose(network.backbone.bn1.running_mean, mean, atol=1e-5)
    assert torch.allclose(network.backbone.bn1.running_var, variance, rtol=1e-4)
    assert network.backbone.bn1.momentum == shares
    assert seen.features.shape[:2] == (4, 8)


def test_in_evaluation_it_gives_what_it_gives_in_training(rng):
    batch = torch.from_numpy(rng.normal(size=(256, 3, 16, 16))).float()
    first, second = (PairedTraining(small_config(epochs=0), 4).network for _ in "ab")
    seen = calibrate(first, [batch])
    with torch.no_grad():
        ratios = [
            float(network.eval()(batch).features.std() / seen.features.std())
            for network in (first, second)
        ]
    assert ratios[0] == pytest.approx(1, abs=0.1)
    assert abs(ratios[1] - 1) > 0.1


def test_a_trained_network_is_not_replaced(tmp_path):
    train(tmp_path, config=small_config(epochs=1))
    with pytest.raises(ConfigError, match="holds a training; choose another --out"):
        export(tmp_path)
