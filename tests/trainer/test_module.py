"""One step of training, and what is recorded of it."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer import module as records
from ce_align.trainer.engine import fit
from ce_align.trainer.module import FiniteGuard, PairedTraining, Speedometer, epoch_line
from ce_align.trainer.monitor import normalise_pixels
from ce_align.trainer.objectives import (
    OBJECTIVES,
    LossTerms,
    combined_loss,
    gradient_share,
    simclr,
)
from ce_align.trainer.presets import Hardware, preset_config
from ce_align.trainer.views import Batch

pytestmark = pytest.mark.slow

SIZE, PAIRS, STEPS = 16, 8, 2


def config(objective="mmcr", weight=0.3, **changes):
    options = {"head_widths": (16, 8)}
    if objective == "mmcr":
        options["ema"] = 0.9
    settings = {
        "images": "noise",
        "view_size": SIZE,
        "epochs": 2,
        "pairs_per_step": PAIRS,
        "options": options,
    }
    return preset_config(
        "tiny", objective, equivariance_weight=weight, **{**settings, **changes}
    )


@pytest.fixture
def images(rng):
    pixels = rng.integers(0, 256, (2 * PAIRS * STEPS, 20, 20, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 4}" for i in range(len(pixels))])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


@pytest.fixture
def views(rng):
    pixels = rng.integers(0, 256, (4, PAIRS, SIZE, SIZE, 3), dtype=np.uint8)
    return torch.from_numpy(pixels)


def train(images, folder, settings, **hardware):
    told = []
    module = fit(
        settings,
        images,
        folder,
        Hardware(workers=0, **hardware),
        notify=told.append,
    )
    return module, told


def test_the_seed_alone_decides_the_first_weights():
    def weights(seed):
        torch.manual_seed(int(torch.randint(1000, ())))
        module = PairedTraining(config(seed=seed), STEPS, n_classes=4)
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_the_loss_is_that_of_the_composed_objective(views):
    module = PairedTraining(config(), STEPS)
    twin = PairedTraining(config(), STEPS)
    terms, features, embeddings = module.loss_terms(Batch(views, None, None))
    flat = normalise_pixels(views.flatten(0, 1))
    own, followed = twin.network(flat), twin.momentum(flat)
    expected = combined_loss(
        twin.objective,
        own.invariant,
        own.equivariant,
        0.3,
        momentum_invariant=followed.invariant,
        momentum_equivariant=followed.equivariant,
    )
    assert torch.equal(terms.total, expected.total)
    assert torch.equal(features, own.features)
    assert torch.equal(embeddings, own.invariant)


@pytest.mark.parametrize(
    ("weight", "frozen", "moved"),
    [
        (0, ["head_equivariant"], ["backbone", "head_invariant"]),
        (1, ["head_invariant"], ["backbone", "head_equivariant"]),
        (0.5, [], ["backbone", "head_invariant", "head_equivariant"]),
    ],
)
def test_a_head_of_weight_zero_rests_and_all_else_learns(
    tmp_path, images, weight, frozen, moved
):
    settings = config("barlow", weight)
    before = PairedTraining(settings, STEPS, 4).network.state_dict()
    module, _ = train(images, tmp_path, settings)
    for name, value in module.network.named_parameters():
        part = name.partition(".")[0]
        assert torch.equal(value, before[name]) == (part in frozen)
        assert (part in frozen) != (part in moved)


def test_the_momentum_copy_follows_every_step(tmp_path, images, monkeypatch):
    settings = config()
    seen = [PairedTraining(settings, STEPS, 4).network]
    expected = [p.detach().clone() for p in seen[0].parameters()]
    moved = PairedTraining.optimizer_step

    def watched(self, *args, **kwargs):
        moved(self, *args, **kwargs)
        for own, target in zip(expected, self.network.parameters(), strict=True):
            own.copy_(0.9 * own + 0.1 * target.detach())

    monkeypatch.setattr(PairedTraining, "optimizer_step", watched)
    module, _ = train(images, tmp_path, settings)
    for own, found in zip(expected, module.momentum.network.parameters(), strict=True):
        assert torch.allclose(own, found, atol=1e-6)
    assert not torch.equal(expected[0], next(module.network.parameters()))


def test_the_probe_changes_nothing_in_the_network(tmp_path, images):
    with_probe, _ = train(images, tmp_path / "a", config())
    without, _ = train(images, tmp_path / "b", config(probe=False))
    assert with_probe.probe is not None
    assert without.probe is None
    for name, value in without.network.state_dict().items():
        assert torch.equal(value, with_probe.network.state_dict()[name])


def test_the_probe_learns_planted_classes(tmp_path, rng):
    colours = np.array([[250, 20, 20], [20, 250, 20]], np.uint8)
    labels = np.arange(64) % 2
    noise = rng.integers(0, 250, (64, 20, 20, 3), dtype=np.uint8)
    pixels = noise // 3 + colours[labels][:, None, None] // 2
    names = np.array(["red", "green"])[labels]
    images = ImageSet.from_array("colours", pixels, columns={"label": names})
    settings = config("simclr", 0.0, epochs=10, families=("spatial", "spatial"))
    told = []
    module = fit(
        settings,
        images,
        tmp_path,
        Hardware(workers=0),
        validation=images,
        notify=told.append,
    )
    found = module.accuracies()
    assert found["probe_top1"] > 0.9
    assert found["knn_top1"] > 0.9


def test_records_have_terms_gradients_rate_speed_and_health(tmp_path, images):
    module, told = train(images, tmp_path, config(), log_every=1)
    (path,) = tmp_path.glob("log/*/metrics.csv")
    header, *lines = path.read_text().splitlines()
    assert {
        *("loss", "loss_invariant", "loss_equivariant", "learning_rate"),
        *("gradient_invariant", "gradient_equivariant", "images_per_second"),
        *("effective_rank", "embedding_norm", "knn_top1", "probe_train_top1"),
    } <= set(header.split(","))
    assert len(lines) == 2 * (STEPS + 1)
    assert len(told) == 2
    latest = module.latest
    mixed = 0.7 * latest["loss_invariant"] + 0.3 * latest["loss_equivariant"]
    assert latest["loss"] == pytest.approx(mixed, rel=1e-6)
    assert latest["gradient_equivariant"] > 0
    assert 1 < latest["effective_rank"] < 4 * PAIRS
    records = csv.DictReader(path.open())
    of_steps = [float(r["probe_train_top1"]) for r in records if r["probe_train_top1"]]
    assert len(set(of_steps[-STEPS:])) > 1
    assert latest["probe_epoch_top1"] == pytest.approx(np.mean(of_steps[-STEPS:]))


def test_a_weight_of_gradients_is_their_share_whatever_the_scale_of_a_loss(
    tmp_path, images, monkeypatch
):
    def share(weighting, scale):
        def scaled(view_a, view_b, *, group=None):
            loss = simclr(view_a, view_b, group=group)
            return loss * scale if len(view_a) == PAIRS else loss

        objective = OBJECTIVES["simclr"].configured(head_widths=(16, 8))
        objective = replace(objective, loss=scaled)
        monkeypatch.setattr(records, "find_objective", lambda name: objective)
        settings = config("simclr", weighting=weighting, epochs=3, options={})
        folder = tmp_path / f"{weighting}{scale}"
        module, _ = train(images, folder, settings, log_every=1)
        found = module.latest
        weight = found["loss_weight"] if module.balanced else 0.3
        ratio = found["gradient_equivariant"] / found["gradient_invariant"]
        assert gradient_share(weight, ratio) == pytest.approx(
            found["effective_weight"], abs=0.1
        )
        return found["effective_weight"]

    assert share("losses", 1) < 0.7 < share("losses", 10)
    assert share("gradients", 10) == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("objective", ["mmcr", "barlow", "simclr"])
@pytest.mark.parametrize("optimizer", ["lars", "adamw"])
def test_every_objective_trains_with_either_optimiser_in_half_precision(
    tmp_path, images, objective, optimizer
):
    settings = config(objective, optimizer=optimizer, precision="bf16")
    module, _ = train(images, tmp_path, settings)
    assert module.global_step == 2 * STEPS
    assert all(torch.isfinite(p).all() for p in module.parameters())


def test_a_warm_up_that_does_not_fit_is_refused():
    settings = config().model_copy(update={"warmup_epochs": 2})
    with pytest.raises(ConfigError, match="warm-up"):
        PairedTraining(settings, STEPS)


class OnGpu(torch.Tensor):
    is_cuda = True


def test_on_a_gpu_a_bad_loss_is_noticed_one_step_late_and_before_a_checkpoint():
    def terms(value):
        total = torch.tensor(value).as_subclass(OnGpu)
        return LossTerms(total, total, None)

    guard = FiniteGuard(steps_per_epoch=10)
    guard.check(11, terms(1.0), "before.ckpt")
    guard.check(12, terms(float("inf")), "before.ckpt")
    with pytest.raises(CeAlignError, match=r"step 12 \(epoch 1\).*before\.ckpt"):
        guard.check(13, terms(1.0), "before.ckpt")
    guard.check(14, terms(float("nan")), None)
    with pytest.raises(CeAlignError, match="none yet"):
        guard.flush(None)
    guard.flush(None)


def test_speed_is_images_over_time_since_the_last_look(monkeypatch):
    times = iter([10.0, 10.5, 12.0, 20.0, 21.0])
    monkeypatch.setattr(records.time, "perf_counter", lambda: next(times))
    speed = Speedometer(images_per_step=8)
    assert math.isnan(speed.read(3))
    assert speed.read(5) == 2 * 8 / 0.5
    assert math.isnan(speed.read(5))
    speed.restart(6)
    assert speed.read(7) == 8


def test_a_person_is_told_what_is_defined_in_a_line_that_fits():
    numbers = {"epoch": 2.0, "loss_invariant": 1.25, "knn_top1": math.nan, "loss": 3}
    assert epoch_line(2, 8, numbers) == "epoch 2 of 8: loss 3"
    numbers |= {"loss": -31.42, "knn_top1": 0.15923, "probe_epoch_top1": 0.10169}
    assert len(epoch_line(100, 100, numbers | {"effective_rank": 98.39})) <= 80
