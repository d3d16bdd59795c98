"""Stored numbers are those of the network as it is now."""

import contextvars
import dataclasses
import os
from functools import partial
from itertools import cycle
from pathlib import Path

import numpy as np
import pytest
import torch
from changes import (
    ATTRIBUTES,
    CODE_CHANGES,
    HARMLESS,
    NO_CHANGES,
    Layer,
    attention,
    load,
    network,
    write_files,
)
from PIL import Image
from torch import nn
from toys import toy_config, toy_images

from ce_align.data.imagesets import ImageSet
from ce_align.data.labelled import load_splits
from ce_align.data.recordings import Recording
from ce_align.errors import DataError
from ce_align.files import cache_folder
from ce_align.models.load import load_network
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.results import ResultStore
from ce_align.stages.analyze import Job, analyze
from ce_align.stages.running import Hardware, NetworkLayer, Run
from ce_align.stages.score import score
from ce_align.stages.scores import ScoreConfig, ScoreRow
from ce_align.stages.transfer import TransferConfig, transfer

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """A recording, images and a labelled data set, all small."""
    root = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (30, 16, 16, 3), np.uint8)
    recording = Recording(
        identifier="toy",
        images=ImageSet.from_array("toy", pixels),
        responses=rng.normal(size=(30, 2, 3)),
        neuroid_ids=("a", "b", "c"),
        region="IT",
        degrees=8.0,
    )
    for part in ("train", "test"):
        for name in ("one", "two"):
            folder = root / "labelled" / part / name
            folder.mkdir(parents=True)
            for k in range(5):
                noise = rng.integers(0, 256, (16, 16, 3), np.uint8)
                Image.fromarray(noise).save(folder / f"{k}.png")
    data = load_splits(str(root / "labelled"), root)
    return recording, toy_images(10), data


STAGES = ("score", "analyze", "transfer")


@dataclasses.dataclass
class Stages:
    """Score, analysis and transfer of a network, each from one store."""

    inputs: tuple
    folder: Path

    def run(self, network, layer, name="net", stages=STAGES, **options):
        """Rows of these stages, and which of them were stored."""
        store = ResultStore(self.folder / "results")
        rows, stored = [], []
        for stage in stages:
            run = Run(store, responses=self.folder / "responses", **options)
            rows += getattr(self, stage)(network, layer, name, run)
            assert not run.outcome.failures, run.outcome.failures
            stored.append(run.outcome.n_stored == 1)
        return rows, stored

    def score(self, network, layer, name, run):
        config = ScoreConfig(
            model=name, recording="toy", layer=layer, components=2, splits=2
        )
        return score(network, {config: self.inputs[0]}, run)

    def analyze(self, network, layer, name, run):
        config = toy_config(
            metric="dimensionality", model=name, layer=layer, comparisons=10, views=4
        )
        subject = NetworkLayer.of(network, layer, allow_unstable=run.allow_unstable)
        return analyze([Job(config, subject)], self.inputs[1], run)

    def transfer(self, network, layer, name, run):
        config = TransferConfig(
            model=name, dataset="labelled", layer=layer, size=16, runs=1
        )
        return [transfer(network, self.inputs[2], config, run)]


@pytest.fixture
def stages(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("ce_align.stages.transfer.STRENGTHS", np.logspace(0, 2, 2))
    return Stages(inputs, tmp_path)


def in_turn(cases):
    """Each case with one stage: all know a network by the same digest."""
    return list(zip(cases, cycle(STAGES)))


def values(rows):
    return [(row.metric, row.value, getattr(row, "raw", None)) for row in rows]


@pytest.mark.parametrize(("change", "stage"), in_turn([*CODE_CHANGES, *NO_CHANGES]))
def test_stored_numbers_are_those_of_the_network_as_it_is(
    stages, tmp_path, monkeypatch, change, stage
):
    folder, asked = write_files(tmp_path / "net"), {"stages": [stage]}
    rows, stored = stages.run(load(folder), "tanh", **asked)
    assert stored == [False]
    (CODE_CHANGES | NO_CHANGES)[change](folder, monkeypatch)
    again, stored = stages.run(load(folder), "tanh", **asked)
    assert stored == [change in NO_CHANGES]
    if change in NO_CHANGES:
        assert values(again) == values(rows)
        return
    # What is computed in an empty store is right: nothing of before entered.
    empty = Stages(stages.inputs, tmp_path / "fresh")
    fresh, _ = empty.run(load(folder), "tanh", **asked)
    assert values(again) == values(fresh)


@pytest.mark.parametrize(("kind", "stage"), in_turn(ATTRIBUTES))
def test_stored_numbers_are_those_of_the_attributes(stages, kind, stage):
    def stored(value):
        return stages.run(network(Layer(value)), "0", stages=[stage])[1]

    make_one, make_other = ATTRIBUTES[kind]
    assert stored(make_one()) == [False]
    assert stored(make_one()) == [True]
    assert stored(make_other()) == [False]


@pytest.mark.parametrize("use", HARMLESS)
def test_passes_and_memory_order_do_not_compute_anew(stages, use):
    def asked(module):
        return Network("net", module, Preprocessing(input_size=8))

    rows, _ = stages.run(asked(attention()), "0")
    used = attention()
    HARMLESS[use](used)
    again, stored = stages.run(asked(used), "0")
    assert stored == [True] * 3
    assert values(again) == values(rows)


def test_batches_and_committed_layers_do_not_compute_anew(stages):
    one = network(nn.Conv2d(3, 4, 3))
    stages.run(one, "0", hardware=Hardware(batch_size=3))
    other = Network("net", one.module, one.preprocessing, {"IT": "0"})
    assert stages.run(other, "0", hardware=Hardware(batch_size=7))[1] == [True] * 3


READ_IN_A_PASS = {
    "environment": "float(os.environ.get('TOY_GAIN', 1))",
    "getenv": "float(os.getenv('TOY_GAIN') or 1)",
    "settings": "json.loads((HERE / 'gain.json').read_text())",
    "array": "float(np.load(HERE / 'gain.npy'))",
    "weights": "torch.load(str(HERE / 'gain.pt'))",
}


@pytest.mark.parametrize("read", READ_IN_A_PASS)
def test_what_a_pass_reads_counts_though_the_probe_images_do_not_show_it(
    stages, tmp_path, monkeypatch, read
):
    folder = tmp_path / "net"
    folder.mkdir()

    def write(gain):
        monkeypatch.setenv("TOY_GAIN", str(gain))
        (folder / "gain.json").write_text(str(gain))
        np.save(folder / "gain.npy", gain)
        torch.save(gain, folder / "gain.pt")

    path = folder / "model.py"
    path.write_text(
        "import json, os\nimport numpy as np\nimport torch\n"
        "from pathlib import Path\nfrom torch import nn\n"
        "HERE = Path(__file__).parent\n\n"
        "class Net(nn.Module):\n"
        "    def forward(self, x):\n"
        f"        gain = {READ_IN_A_PASS[read]}\n"
        "        dark = x.amax((1, 2, 3), keepdim=True) < -1\n"
        "        return torch.where(dark, x * gain, x)\n\n"
        "def build():\n"
        "    net = nn.Sequential(Net())\n"
        "    net.ce_align = {'input_size': 16}\n"
        "    return net\n"
    )
    load = partial(load_network, f"{path}:build")
    write(1.0)
    stages.run(load(), "0")
    assert stages.run(load(), "0")[1] == [True] * 3
    write(2.0)
    assert stages.run(load(), "0")[1] == [False] * 3


def test_a_network_under_another_name_has_the_rows_that_it_had(stages):
    one = network(nn.Conv2d(3, 4, 3))
    rows, _ = stages.run(one, "0", name="runs/a")
    again, stored = stages.run(one, "0", name="runs/b")
    assert stored == [True] * 3
    assert values(again) == values(rows)
    assert {row.model for row in again} == {"runs/b"}
    assert {r.config_id for r in again}.isdisjoint({r.config_id for r in rows})
    # They are there under both names, with their arrays.
    store = ResultStore(stages.folder / "results")
    for row in (rows[0], again[0]):
        assert store.get("score", row.config_id, ScoreRow) == [row]
        assert store.arrays("score", row.config_id)["r"].shape == (2, 3)
    other = network(nn.Conv2d(3, 5, 3))
    assert stages.run(other, "0", name="runs/b")[1] == [False] * 3


def spoil(folder):
    """Replace every number in the files below a folder by another."""
    files = list(folder.rglob("*.npy"))
    assert files
    for path in files:
        np.save(path, np.load(path)[::-1].copy() * 3)


def test_force_takes_nothing_of_what_was_kept(stages):
    one = network(nn.Conv2d(3, 4, 3), name="net")
    rows, _ = stages.run(one, "0")
    spoil(cache_folder("features"))
    spoil(stages.folder / "responses")
    again, stored = stages.run(one, "0", force=True)
    assert stored == [False] * 3
    assert values(again) == values(rows)


@pytest.mark.parametrize(
    ("constant", "expected"),
    [
        ("ce_align.models.features.ALGORITHM_VERSION", [False, True, False]),
        ("ce_align.stages.analyze.TRANSFORMS_VERSION", [True, False, True]),
        ("ce_align.stages.analyze.RESPONSES_VERSION", [True, False, True]),
    ],
)
def test_a_raised_version_computes_rows_again(stages, monkeypatch, constant, expected):
    one = network(nn.Conv2d(3, 4, 3))
    stages.run(one, "0")
    monkeypatch.setattr(constant, 99)
    assert stages.run(one, "0")[1] == expected


@pytest.mark.parametrize("fault", ["raise ValueError('gone')", "return x * nan"])
def test_a_network_that_has_broken_has_no_rows_of_before(stages, tmp_path, fault):
    folder = tmp_path / "net"
    folder.mkdir()
    path = folder / "model.py"
    path.write_text(
        "import os\nfrom torch import nn\nnan = float('nan')\n\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.tanh = nn.Tanh()\n"
        "    def forward(self, x):\n"
        f"        if 'BROKEN' in os.environ:\n            {fault}\n"
        "        return self.tanh(x)\n\n"
        "    def build():\n        pass\n\n"
        "def build():\n"
        "    net = nn.Sequential(Net())\n"
        "    net.ce_align = {'input_size': 16}\n"
        "    return net\n"
    )
    load = partial(load_network, f"{path}:build")
    stages.run(load(), "0")
    assert stages.run(load(), "0")[1] == [True] * 3
    os.environ["BROKEN"] = "1"
    try:
        with pytest.raises(AssertionError, match=r"gone|NaN"):
            stages.run(load(), "0")
        with pytest.raises(DataError, match=r"gone|NaN"):
            NetworkLayer.of(load(), "0")
    finally:
        del os.environ["BROKEN"]
    assert stages.run(load(), "0")[1] == [True] * 3


GAIN = contextvars.ContextVar("gain", default=1.0)


def test_a_change_that_only_features_show_is_said_in_a_line(stages):
    class Reading(nn.Module):
        def forward(self, x):
            return x[:, :1] * GAIN.get() + x[:, 1:2] ** 2

    said = []
    rows, _ = stages.run(network(Reading()), "0", notify=said.append)
    assert said == []
    token = GAIN.set(-2.0)
    again, stored = stages.run(network(Reading()), "0", notify=said.append)
    GAIN.reset(token)
    assert stored == [False] * 3
    # The digest is the same: only the features can tell.
    assert again[0].config_id == rows[0].config_id
    assert values(again) != values(rows)
    assert "net 0 gives other features than when its score rows were stored" in said[0]
    assert all("\n" not in line for line in said)
    assert any("stored; they are computed again" in line for line in said[1:])


def test_random_networks_are_marked_and_never_taken_from_the_store(stages):
    class Noisy(nn.Module):
        def forward(self, x):
            return x + torch.randn_like(x)

    with pytest.raises(AssertionError, match="is random"):
        stages.run(network(Noisy()), "0")
    first, _ = stages.run(network(Noisy()), "0", allow_unstable=True)
    again, stored = stages.run(network(Noisy()), "0", allow_unstable=True)
    assert stored == [False] * 3
    for row in (*first, *again):
        assert "layer 0 is random: one image gives different answers" in row.note
    assert values(first) != values(again)


def test_what_cannot_be_told_apart_is_computed_each_time(stages):
    one = network(Layer(n for n in range(3)))
    stages.run(one, "0")
    rows, stored = stages.run(one, "0")
    assert stored == [False] * 3
    assert all("held (a generator)" in row.note for row in rows)
    assert not list(cache_folder("features").rglob("*.npy"))
