"""Transfer of small networks: rows, resuming, identity, and what fails."""

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.linear_model import LogisticRegression
from toys import toy_network

from ce_align.data.imagesets import centre_crop
from ce_align.data.labelled import load_splits
from ce_align.errors import ConfigError, DataError
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.runner import run
from ce_align.stages import transfer as stage
from ce_align.stages.running import Run
from ce_align.stages.train import OnlineConfig, TrainRow
from ce_align.stages.transfer import TransferConfig, TransferRow
from ce_align.trainer.presets import preset_config

pytestmark = pytest.mark.slow

CLASSES = ("blue", "green", "red")


def write_images(root, n=8, splits=("train", "test"), seed=0):
    """Noise of a tint, which is the class."""
    rng = np.random.default_rng(seed)
    for split in splits:
        for tint, name in enumerate(CLASSES):
            folder = root / split / name
            folder.mkdir(parents=True)
            for k in range(n):
                pixels = rng.integers(0, 200, (20, 24, 3), np.uint8)
                pixels[..., 2 - tint] += 40
                Image.fromarray(pixels).save(folder / f"{k}.png")
    return root


@pytest.fixture(autouse=True)
def few_strengths(monkeypatch):
    monkeypatch.setattr(stage, "STRENGTHS", np.logspace(-1, 3, 5))


@pytest.fixture
def images(tmp_path):
    return load_splits(str(write_images(tmp_path / "tints")), tmp_path)


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


def config(data, **settings):
    options = {"layer": "1", "size": 16, "runs": 1, **settings}
    return TransferConfig(model="toy", dataset=data.name, **options)


def transfer(network, data, config, store, **settings):
    """The row, and whether it was in the store."""
    run = Run(store, **settings)
    row = stage.transfer(network, data, config, run)
    return row, run.outcome.n_stored == 1


def test_a_row_is_the_accuracy_of_pooled_features_of_crops(images, store):
    network = toy_network(width=8)
    row, stored = transfer(network, images, config(images), store)
    assert not stored

    def pooled(part):
        pixels = [
            np.asarray(centre_crop(part.images.load(i), 16)) for i in range(len(part))
        ]
        inputs = network.preprocessing.normalise(torch.from_numpy(np.stack(pixels)))
        with torch.no_grad():
            return network.module[:2](inputs).mean((2, 3)).numpy()

    model = LogisticRegression(C=1 / row.strength, tol=1e-8, max_iter=20_000)
    model.fit(pooled(images.train), images.train.labels)
    expected = model.score(pooled(images.test), images.test.labels)
    assert row.value == pytest.approx(expected, abs=1.5 / 24)
    assert row.value > 0.6
    assert (row.n_train, row.n_validation, row.n_test, row.n_classes) == (21, 3, 24, 3)
    assert (row.metric, row.convention, row.sd) == ("transfer", "top1", None)
    assert row.error == pytest.approx(np.sqrt(row.value * (1 - row.value) / 24))
    assert row.n_unconverged == 0


def test_what_is_stored_is_not_computed_again(images, store, monkeypatch):
    first, _ = transfer(toy_network(), images, config(images), store)
    with monkeypatch.context() as patch:
        patch.setattr(stage, "evaluate_linearly", None)
        again, stored = transfer(toy_network(), images, config(images), store)
    assert stored
    assert again == first
    forced, stored = transfer(toy_network(), images, config(images), store, force=True)
    assert not stored
    assert forced.value == first.value
    arrays = store.arrays("transfer", first.config_id)
    assert arrays["validation_top1"].shape == (1, 5)
    np.testing.assert_allclose(arrays["top1"].mean(), first.value)


@pytest.mark.parametrize(
    "change", [{"size": 12}, {"seed": 1}, {"runs": 2}, "weights", "images"]
)
def test_another_setting_weight_or_image_is_another_result(
    images, store, tmp_path, change
):
    first, _ = transfer(toy_network(), images, config(images), store)
    network, settings = toy_network(), change if isinstance(change, dict) else {}
    if change == "weights":
        network = toy_network(seed=1)
    if change == "images":
        Image.new("RGB", (20, 24)).save(tmp_path / "tints" / "test" / "red" / "0.png")
        images = load_splits(images.name, tmp_path)
    other, stored = transfer(network, images, config(images, **settings), store)
    assert not stored
    assert other.config_id != first.config_id
    # Of the network as other stages know it, whatever it was shown here.
    assert (other.model_digest != first.model_digest) == (change == "weights")
    assert other.plain_digest


def test_an_interrupted_pass_over_images_goes_on(images, store, monkeypatch):
    monkeypatch.setattr(stage, "BLOCK", 8)

    def interrupt(what, done, total):
        if done == 16:
            raise KeyboardInterrupt

    network = toy_network()
    with pytest.raises(KeyboardInterrupt):
        transfer(network, images, config(images), store, progress=interrupt)
    assert not list(store.folder.rglob("*.json"))
    seen = []
    transfer(
        network,
        images,
        config(images),
        store,
        progress=lambda what, done, total: seen.append((what, done, total)),
    )
    # The first eight images are known; the next eight were not finished.
    assert seen[0] == ("toy × tints images", 16, 24)


def test_many_networks_and_data_sets_and_what_is_not_at_hand(tmp_path, store):
    write_images(tmp_path / "tints")

    def configs(*models):
        return [
            TransferConfig(model=model, dataset=name, size=8, runs=1)
            for model in models
            for name in (str(tmp_path / "tints"), "dtd")
        ]

    absent = str(tmp_path / "absent.py:build")
    report = run(configs("pixels", absent), store, datasets=tmp_path)
    assert [row.model for row in report.rows] == ["pixels"]
    assert report.rows[0].size == 8
    assert [what for what, _ in report.failures] == ["dtd", absent]
    again = run(configs("pixels")[:1], store)
    assert again.n_stored == 1
    assert again.rows == report.rows
    assert list(store.load("transfer")["value"]) == [report.rows[0].value]


def test_a_network_of_fixed_size_says_so(images, store):
    torch.manual_seed(0)
    module = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(3 * 16 * 16, 4), torch.nn.Tanh()
    )
    network = Network("fixed", module, Preprocessing(input_size=16))
    row, _ = transfer(network, images, config(images, layer="2"), store)
    assert row.size == 16
    with pytest.raises(DataError, match="shown images of 12 pixels"):
        transfer(network, images, config(images, layer="2", size=12), store)


def test_a_layer_that_is_not_there(images, store):
    with pytest.raises(ConfigError, match="no layer"):
        transfer(toy_network(), images, config(images, layer="7"), store)


def trained(folder, weight=0.3):
    settings = preset_config(
        "tiny", "barlow", equivariance_weight=weight, images="simulated"
    )
    identity = settings.fingerprint(images="data")
    rows = [
        TrainRow(
            model="elsewhere/run",
            metric=metric,
            value=value,
            config_id=identity,
            objective="barlow",
            equivariance_weight=weight,
            backbone="tiny",
            epochs=1,
            seed=0,
            data_digest="data",
            n_images=9,
        )
        for metric, value in (("probe_top1", 0.5), ("loss", 2.0))
    ]
    ResultStore(folder).put("train", identity, settings, rows)
    return folder


def test_the_online_probe_joins_the_results(tmp_path, store):
    folders = [str(trained(tmp_path / f"l{w}", w)) for w in (0.0, 0.3)]
    configs = [OnlineConfig(model=folder) for folder in folders]
    rows = run(configs, store).rows
    run(configs, store)
    found = store.load("train")
    probes = found[found["metric"] == "probe_top1"]
    assert list(probes["objective"]) == ["barlow", "barlow"]
    assert sorted(probes["equivariance_weight"]) == [0.0, 0.3]
    assert set(probes["model"]) == set(folders)
    assert len(found) == len(rows) == 4


def test_a_folder_without_a_training_has_no_online_probe(tmp_path, store):
    ((what, error),) = run([OnlineConfig(model=str(tmp_path))], store).failures
    assert what == str(tmp_path)
    assert "ce-align train" in str(error)


def test_rows_have_the_columns_that_tables_read(images, store):
    transfer(toy_network(), images, config(images), store)
    wanted = {"model", "dataset", "value", "sd", "n_runs", "convention", "strength"}
    assert wanted <= set(store.load("transfer").columns)
    assert set(TransferRow.model_fields) >= {"model_digest", "images_digest"}


def resnet20(real_data):
    """The CIFAR ResNet of the developers' data, as its authors wrote it."""
    from torch import nn

    class Block(nn.Module):
        def __init__(self, width_in, width, stride):
            super().__init__()
            self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(width)
            self.stride, self.pad = stride, (width - width_in) // 2

        def forward(self, x):
            y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
            if self.stride > 1:
                channels = (0, 0, 0, 0, self.pad, self.pad)
                x = nn.functional.pad(x[:, :, ::2, ::2], channels)
            return torch.relu(x + y)

    module = nn.Sequential()
    module.conv1, module.bn1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16)
    module.relu = nn.ReLU()
    widths = (16, 16, 32, 64)
    for k in (1, 2, 3):
        blocks = [Block(widths[k - 1], widths[k], 1 + (k > 1))]
        blocks += [Block(widths[k], widths[k], 1) for _ in range(2)]
        setattr(module, f"layer{k}", nn.Sequential(*blocks))
    path = real_data / "cifar10_resnets" / "resnet20-12fca82f.th"
    state = torch.load(path, weights_only=True, map_location="cpu")["state_dict"]
    state = {name.removeprefix("module."): values for name, values in state.items()}
    module.load_state_dict({k: v for k, v in state.items() if "linear" not in k})
    return Network("resnet20", module, Preprocessing(input_size=32), {"IT": "layer3"})


@pytest.mark.real
def test_a_cifar_network_reads_out_cifar(real_data, store, tmp_path):
    path = real_data / "cifar10" / "cifar10_jpeg.tar.xz"
    whole = load_splits(str(path), tmp_path)
    few = stage.LabelledSplits(
        "cifar10 few",
        whole.classes,
        *(
            None if part is None else _few(part, n)
            for part, n in ((whole.train, 60), (None, 0), (whole.test, 40))
        ),
    )
    settings = config(few, layer="layer3", size=32, runs=1)
    row, _ = transfer(resnet20(real_data), few, settings, store)
    # The network itself has 91.7 % on the original images; these are lossy and few.
    assert row.value > 0.8


def _few(part, n):
    rows = np.concatenate([np.flatnonzero(part.labels == k)[:n] for k in range(10)])
    return type(part)(part.images.select(rows.tolist()), part.labels[rows])
