"""A training that is stopped goes on as if it had not been; untrained; estimated."""

import csv
import hashlib
import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from ce_align.data.imagesets import ImageSet
from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.models.load import load_network
from ce_align.stages.train import train as train_stage
from ce_align.trainer import callbacks, engine
from ce_align.trainer import estimate as estimates
from ce_align.trainer.callbacks import checkpoint_paths
from ce_align.trainer.engine import calibrate, fit
from ce_align.trainer.estimate import estimate
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.networks import PairedNetwork
from ce_align.trainer.presets import (
    Hardware,
    TrainConfig,
    n_workers,
    preset_config,
    resolve_devices,
)

pytestmark = pytest.mark.slow

EPOCHS, STEPS = 3, 4


def noise_images(n=64):
    rng = np.random.default_rng(5)
    pixels = rng.integers(0, 256, (n, 20, 20, 3), dtype=np.uint8)
    labels = np.array([f"class {i % 4}" for i in range(n)])
    return ImageSet.from_array("noise", pixels, columns={"label": labels})


def small_config(**changes):
    settings = {
        "equivariance_weight": 0.3,
        "weighting": "gradients",  # by what has been measured so far
        "images": "noise",
        "view_size": 16,
        "epochs": EPOCHS,
        "pairs_per_step": 8,
        "options": {"head_widths": (16, 8), "ema": 0.9},
    }
    return preset_config("tiny", "mmcr", **{**settings, **changes})


def train(folder, *, config=None, **hardware):
    told: list[str] = []
    options = {"workers": 0, **hardware}
    images = noise_images()
    module = fit(
        config or small_config(),
        images,
        folder,
        Hardware(**options),
        notify=told.append,
    )
    return digest(module), told


def digest(module):
    state = module.state_dict().values()
    return hashlib.sha256(b"".join(t.numpy().tobytes() for t in state)).hexdigest()


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    torch.set_num_threads(1)
    return train(tmp_path_factory.mktemp("whole"))[0]


KILLED = """
import os, signal, sys, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_engine import PairedTraining, train

moved = PairedTraining.optimizer_step

def killed(self, *args, **kwargs):
    if self.global_step == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    moved(self, *args, **kwargs)

PairedTraining.optimizer_step = killed
train(Path(sys.argv[2]))
"""


def test_progress_tells_the_epochs_mean_loss_and_counts_all_steps(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(engine._Told, "INTERVAL", 0.0)
    told = []
    fit(
        small_config(),
        noise_images(),
        tmp_path,
        Hardware(workers=0, log_every=1),
        notify=lambda line: None,
        progress=lambda *one: told.append(one),
    )
    (path,) = tmp_path.glob("log/*/metrics.csv")
    with path.open() as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file) if row["loss"]]
    n_steps, a_epoch = EPOCHS * STEPS, STEPS
    assert len(losses) == n_steps
    assert [(what, done, total) for what, done, total, _ in told] == [
        ("training", done, n_steps) for done in range(n_steps + 1)
    ]
    for step, (*_, state) in enumerate(told[1:]):
        epoch = step // a_epoch
        mean = np.mean(losses[epoch * a_epoch : step + 1])
        words = state.split()
        assert words[:3] == ["epoch", f"{epoch + 1}/{EPOCHS}", "loss"]
        assert float(words[3]) == pytest.approx(mean, rel=1e-3)
        assert words[5] == "images/s"


def test_killed_at_a_random_step_it_ends_with_the_same_weights(
    tmp_path, uninterrupted, python
):
    # After the first epoch there is a checkpoint to resume from.
    step = int(np.random.default_rng().integers(STEPS, EPOCHS * STEPS))
    here = str(Path(__file__).parent)
    done = python("-c", KILLED, here, tmp_path, step)
    _, errors = done.communicate()
    assert done.returncode == -signal.SIGKILL, errors
    assert checkpoint_paths(tmp_path / "checkpoints")
    assert train(tmp_path, workers=1)[0] == uninterrupted, f"killed at step {step}"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("step", [2, STEPS])
def test_asked_to_stop_it_saves_the_step_and_goes_on_from_there(
    tmp_path, uninterrupted, monkeypatch, step, signum
):
    moved = PairedTraining.optimizer_step

    def interrupted(self, *args, **kwargs):
        moved(self, *args, **kwargs)
        if self.global_step + 1 == step:
            os.kill(os.getpid(), signum)

    handlers = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(PairedTraining, "optimizer_step", interrupted)
        with pytest.raises(CeAlignError, match=f"stopped after step {step}") as found:
            train(tmp_path)
    assert found.value.exit_status == 128 + signum
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == (
        handlers
    )
    (path,) = checkpoint_paths(tmp_path / "checkpoints")
    assert path.name == f"step-{step:09d}.ckpt"
    weights, told = train(tmp_path)
    assert told[0] == f"resuming from {path}"
    assert weights == uninterrupted


def test_another_number_of_workers_gives_the_same_weights(tmp_path, uninterrupted):
    assert train(tmp_path, workers=2)[0] == uninterrupted


def test_another_seed_gives_other_weights(tmp_path, uninterrupted):
    assert train(tmp_path, config=small_config(seed=1))[0] != uninterrupted


@pytest.mark.parametrize("fault", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    tmp_path, uninterrupted, fault
):
    train(tmp_path)
    last, before, _ = checkpoint_paths(tmp_path / "checkpoints")
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 255
    damaged = {"truncated": content[:-100], "flipped": content, "empty": b""}
    last.write_bytes(damaged[fault])
    weights, told = train(tmp_path)
    assert last.name in told[0]
    assert "falling back" in told[0]
    assert "\n" not in told[0]
    assert told[1] == f"resuming from {before}"
    assert weights == uninterrupted


def test_a_finished_training_stays_as_it_is(tmp_path, uninterrupted):
    train(tmp_path)
    weights, told = train(tmp_path)
    assert weights == uninterrupted
    assert len(told) == 1


def test_a_checkpoint_runs_no_code(tmp_path):
    class Malice:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    folder = tmp_path / "checkpoints"
    folder.mkdir()
    torch.save({"ce_align": Malice()}, folder / "step-000000001.ckpt")
    _, told = train(tmp_path, config=small_config(epochs=1))
    assert "cannot be resumed from" in told[0]
    assert not (tmp_path / "harm").exists()


def test_other_settings_do_not_mix_with_a_training(tmp_path):
    config = small_config(epochs=1)
    train(tmp_path, config=config)
    with pytest.raises(ConfigError, match=r"equivariance_weight 0\.3 instead of 0\.5"):
        train(tmp_path, config=small_config(epochs=1, equivariance_weight=0.5))
    with pytest.raises(ConfigError, match="other images"):
        fit(config, noise_images(62), tmp_path, Hardware(workers=0))
    with pytest.raises(ConfigError, match="holds a training already"):
        train(tmp_path, config=config, resume="never")
    with pytest.raises(ConfigError, match="no checkpoint"):
        train(tmp_path, config=config, resume="absent.ckpt")


def test_a_training_of_other_crops_is_not_gone_on_with(tmp_path, monkeypatch):
    config = small_config(epochs=1)
    with monkeypatch.context() as patch:
        patch.setattr(callbacks, "TRANSFORMS_VERSION", 1)
        train(tmp_path, config=config)
    with pytest.raises(ConfigError, match="crops as an earlier version"):
        train(tmp_path, config=config)


def test_a_named_checkpoint_is_resumed_from(tmp_path, uninterrupted):
    train(tmp_path)
    _, _, first = checkpoint_paths(tmp_path / "checkpoints")
    weights, told = train(tmp_path / "elsewhere", resume=str(first))
    assert told[0] == f"resuming from {first}"
    assert weights == uninterrupted


def test_a_loss_that_is_not_finite_stops_with_step_terms_and_checkpoint(
    tmp_path, monkeypatch
):
    terms_of = PairedTraining.loss_terms

    def broken(self, batch):
        if self.global_step == STEPS + 2:
            terms, features, embeddings = terms_of(self, self._features_of)
            nan = terms.total * float("nan")
            return type(terms)(nan, nan, terms.equivariant), features, embeddings
        self._features_of = batch
        return terms_of(self, batch)

    monkeypatch.setattr(PairedTraining, "loss_terms", broken)
    with pytest.raises(CeAlignError) as found:
        train(tmp_path)
    text = str(found.value)
    assert f"step {STEPS + 2} (epoch 1)" in text
    assert "invariant nan, equivariant -" in text
    assert f"step-{STEPS:09d}.ckpt" in text
    assert "\n" not in text


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, uninterrupted, monkeypatch):
    import resource

    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    begun = PairedTraining.on_train_epoch_start

    def filling(self):
        begun(self)
        if self.current_epoch == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))

    with monkeypatch.context() as patch:
        patch.setattr(PairedTraining, "on_train_epoch_start", filling)
        try:
            with pytest.raises(CeAlignError, match=r"cannot write .*; free some space"):
                train(tmp_path)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    kept = [path.name for path in (tmp_path / "checkpoints").iterdir()]
    assert kept == [f"step-{STEPS:09d}.ckpt"]
    assert train(tmp_path)[0] == uninterrupted


def test_an_image_that_becomes_unreadable_stops_in_one_line(tmp_path):
    from PIL import Image

    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(200):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(folder / f"{i:03d}.png")
    # Not among the evenly spaced images that are looked at beforehand.
    (folder / "001.png").write_bytes(b"no image")
    images = ImageSet.from_path(folder)
    config = small_config(epochs=1, pairs_per_step=50)
    with pytest.raises(DataError, match=r"^image 001\.png cannot be read[^\n]*$"):
        fit(config, images, tmp_path / "run", Hardware(workers=1))


def test_devices_are_counted(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert resolve_devices(Hardware()) == ("cpu", 1)
    with pytest.raises(ConfigError, match="devices asked for, but there are"):
        resolve_devices(Hardware(devices=10_000))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert resolve_devices(Hardware()) == ("cuda", 3)
    with pytest.raises(ConfigError, match="4 devices asked for, but there are 3 GPUs"):
        resolve_devices(Hardware(devices=4))


def test_workers_share_the_cores_that_the_process_may_use(monkeypatch):
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(8)))
    assert [n_workers(Hardware(), n) for n in (1, 2, 8)] == [7, 3, 0]
    assert n_workers(Hardware(workers=5), 8) == 5
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", "6")
    assert n_workers(Hardware(), 8) == 5


def test_a_training_is_settings_that_cannot_change():
    config = small_config()
    assert TrainConfig.model_validate_json(config.model_dump_json()).model_dump(
        mode="json"
    ) == config.model_dump(mode="json")


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


def test_a_small_training_is_measured_whole():
    found = estimate(small_config(pairs_per_step=4), noise_images(), Hardware())
    assert (found.steps_per_epoch, found.steps) == (8, 24)
    assert (found.share, found.measured_pairs) == (4, 4)
    assert found.seconds(0) == pytest.approx(
        24 * (found.step_seconds + found.render_seconds)
    )
    assert found.seconds(2) == pytest.approx(
        24 * max(found.step_seconds, found.render_seconds / 2)
    )


def test_a_large_step_is_extrapolated(monkeypatch):
    """A step of 8 pairs takes 140 bytes, one of 16 takes 220, and so 32 take 380."""
    peaks = iter([110, 140, 220])
    monkeypatch.setattr(estimates, "peak_bytes", lambda kind: next(peaks))
    monkeypatch.setattr(estimates, "SECONDS", 0.0)
    found = estimate(small_config(pairs_per_step=32), noise_images(), Hardware())
    assert (found.share, found.measured_pairs) == (32, 16)
    assert found.memory_bytes == 380


SCRIPT = """
import os, sys, tempfile
import numpy as np
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from test_engine import small_config
from ce_align.data.imagesets import ImageSet
from ce_align.trainer import estimate as estimates
from ce_align.trainer.engine import fit
from ce_align.trainer.estimate import estimate
from ce_align.trainer.presets import Hardware
config = small_config(epochs=1, pairs_per_step=32, view_size=96)
pixels = np.random.default_rng(0).integers(0, 256, (64, 104, 104, 3), dtype=np.uint8)
images = ImageSet.from_array("noise", pixels)

def plan():
    estimates.SECONDS = 0.0  # the plan of a slow machine, from its smallest steps
    return estimate(config, images, Hardware(workers=0)).memory_bytes

def training():
    with tempfile.TemporaryDirectory() as folder:
        fit(config, images, Path(folder), Hardware(workers=0), notify=lambda text: None)
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024

# Both begin alike, with nothing but what was imported.
for measured in (plan, training):
    if not os.fork():
        print(measured(), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak from /proc")
def test_the_memory_of_a_training_is_within_a_quarter_of_the_plan(python):
    # A process forked from this one would begin with the memory that this has freed.
    out, err = python("-c", SCRIPT, Path(__file__).parent).communicate()
    assert len(out.split()) == 2, err
    planned, taken = map(int, out.split())
    assert planned == pytest.approx(taken, rel=0.25)
