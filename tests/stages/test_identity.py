"""What makes a network another one, and what does not."""

import dataclasses
import enum
import importlib.metadata
import os
import random
import shutil
import subprocess
import sys
import threading
import types
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from toys import toy_config, toy_images

from ce_align.data.imagesets import ImageSet
from ce_align.data.published_sets import load_splits
from ce_align.data.recordings import Recording
from ce_align.errors import DataError
from ce_align.files import cache_folder
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing
from ce_align.models.sources import load_network
from ce_align.results import ResultStore
from ce_align.stages.analyze import Job, analyze
from ce_align.stages.responses import Responses, Subject
from ce_align.stages.score import ScoreConfig, score
from ce_align.stages.transfer import TransferConfig, transfer

MODEL = """
import functools
import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import helper
from package import part
from package.deep.inner import last

SCALE = 1.0
TABLE = {"gain": 1.0}


def bend(x):
    return torch.tanh(x)


def powered(exponent):
    def inner(x):
        return x.abs() ** exponent
    return inner


class Net(nn.Module):
    gain = 1.0

    def __init__(self):
        super().__init__()
        # made in a fixed order
        self.conv = nn.Conv2d(3, 6, 5, stride=3)
        self.tanh = nn.Tanh()
        self.read = nn.Flatten()
        self.power = powered(1)
        self.act = functools.partial(torch.clamp, max=10.0)
        settings = Path(__file__).with_name("settings.json")
        self.offset = json.loads(settings.read_text())["offset"]
        self.seen = None

    def forward(self, x):
        "Features of images."
        import late
        self.seen = x.mean()
        y = self.act(self.conv(x)) * SCALE * TABLE["gain"] * self.gain
        y = late.shift(helper.squash(part.turn(last(bend(y)))))
        y = y + self.offset + float(os.environ.get("TOY_OFFSET", 0)) * y
        return self.read(self.tanh(self.power(y)))


def build():
    torch.manual_seed(0)
    net = Net()
    net.ce_align = {"input_size": 16, "layers": {"IT": "tanh"}}
    return net
"""
FILES = {
    "model.py": MODEL,
    "helper.py": "import other\n\ndef squash(x):\n    return x * other.FACTOR\n",
    "other.py": "FACTOR = 0.5\n",
    "late.py": "def shift(x):\n    return x + 0.25\n",
    "package/__init__.py": "",
    "package/part.py": "from . import sibling\n\ndef turn(x):\n"
    "    return sibling.pick(x)\n",
    "package/sibling.py": "def pick(x):\n    return x.flip(1)\n",
    "package/deep/__init__.py": "from .inner import last\n",
    "package/deep/inner.py": "def last(x):\n    return x - 0.125\n",
    "settings.json": '{"offset": 0.0}',
}


def write_files(folder, files=FILES):
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def edit(name, old, new):
    """A change of one file beside the network's own, or of itself."""

    def change(folder, monkeypatch):
        path = folder / name
        assert old in path.read_text()
        path.write_text(path.read_text().replace(old, new))

    return change


def environment(folder, monkeypatch):
    monkeypatch.setenv("TOY_OFFSET", "0.5")


#: Changes of code and of what it reads, by which the network answers otherwise.
CODE_CHANGES = {
    "forward": edit("model.py", "y + self.offset", "2 * y + self.offset"),
    "a module's constant": edit("model.py", "SCALE = 1.0", "SCALE = 2.0"),
    "a module's table": edit("model.py", '{"gain": 1.0}', '{"gain": 3.0}'),
    "a class's attribute": edit("model.py", "    gain = 1.0", "    gain = 1.5"),
    "a function of the file": edit("model.py", "torch.tanh(x)", "torch.sin(x)"),
    "a closure's variable": edit("model.py", "powered(1)", "powered(2)"),
    "a closure's code": edit("model.py", "x.abs() **", "x.cos() **"),
    "a partial's argument": edit("model.py", "max=10.0", "max=0.01"),
    "a partial's function": edit(
        "model.py", "partial(torch.clamp, max=", "partial(torch.mul, other="
    ),
    "a layer's stride": edit("model.py", "5, stride=3", "5, stride=2"),
    "the seed of weights": edit("model.py", "manual_seed(0)", "manual_seed(1)"),
    "the input's size": edit("model.py", '"input_size": 16', '"input_size": 17'),
    "normalisation": edit("model.py", '"input_size": 16', '"std": [1, 1, 2]'),
    "a helper": edit("helper.py", "x * other", "x / other"),
    "a helper's helper": edit("other.py", "0.5", "0.6"),
    "a module of a package": edit("package/part.py", "sibling.pick(x)", "x"),
    "a relative import": edit("package/sibling.py", "x.flip(1)", "x.flip(2)"),
    "a package in a package": edit("package/deep/inner.py", "0.125", "0.5"),
    "an import inside of forward": edit("late.py", "0.25", "0.75"),
    "a file of settings": edit("settings.json", "0.0", "1.0"),
    "the environment": environment,
}


def comment(folder, monkeypatch):
    for name in ("model.py", "helper.py"):
        path = folder / name
        path.write_text("# A comment.\n\n" + path.read_text() + "\n\n# Another.\n")


def unrelated(folder, monkeypatch):
    (folder / "unrelated.py").write_text("FACTOR = 3\n")


def touched(folder, monkeypatch):
    for path in folder.rglob("*.py"):
        os.utime(path, (1_000_000_000, 1_000_000_000))


def unread_environment(folder, monkeypatch):
    monkeypatch.setenv("TOY_UNREAD", "1")


def renamed(folder, monkeypatch):
    folder.rename(folder.with_name("elsewhere"))


def renamed_file(folder, monkeypatch):
    (folder / "model.py").rename(folder / "network.py")


#: Changes by which the network answers as before.
NO_CHANGES = {
    "comments": comment,
    "a docstring": edit("model.py", '"Features of images."', '"Numbers."'),
    "layout": edit("helper.py", "def squash(x):\n", "def squash(\n    x\n):\n"),
    "an unrelated file": unrelated,
    "times of files": touched,
    "an unread variable": unread_environment,
    "the folder's name": renamed,
    "the file's name": renamed_file,
}


def load(folder):
    """The network, wherever its folder and file are now."""
    (path,) = folder.parent.rglob("*.py") if folder.is_file() else candidates(folder)
    return load_network(f"{path}:build")


def candidates(folder):
    folder = folder if folder.exists() else folder.with_name("elsewhere")
    return [p for p in (folder / "model.py", folder / "network.py") if p.exists()]


def identity(network, layer="tanh"):
    """Digest of a network, and what its layer answers."""
    probe = network.probe([layer])
    assert not probe.failures, probe.failures
    assert not probe.unknown
    return probe.digest, probe.behaviours[layer]


def is_another(one, two):
    return one[0] != two[0] or not one[1].agrees(two[1])


@pytest.mark.parametrize("change", CODE_CHANGES)
def test_changed_code_is_another_network(tmp_path, monkeypatch, change):
    folder = write_files(tmp_path / "net")
    before = identity(load(folder))
    assert not is_another(before, identity(load(folder)))
    CODE_CHANGES[change](folder, monkeypatch)
    assert is_another(before, identity(load(folder)))


@pytest.mark.parametrize("change", NO_CHANGES)
def test_what_changes_no_answer_is_the_same_network(tmp_path, monkeypatch, change):
    folder = write_files(tmp_path / "net")
    before = identity(load(folder))
    NO_CHANGES[change](folder, monkeypatch)
    assert identity(load(folder))[0] == before[0]
    assert not is_another(before, identity(load(folder)))


def test_two_folders_with_equally_named_modules_never_meet(tmp_path):
    one = write_files(tmp_path / "one")
    two = write_files(tmp_path / "two")
    (two / "late.py").write_text("def shift(x):\n    return x * 0\n")
    (two / "package" / "part.py").write_text("def turn(x):\n    return -x\n")
    first, second = load(one), load(two)
    # Their passes alternate; the import inside of forward finds the own module, too.
    own = [identity(n)[1] for n in (first, second, first, second)]
    assert own[0].agrees(own[2])
    assert own[1].agrees(own[3])
    assert not own[0].agrees(own[1])
    alone = identity(load(two))[1]
    assert alone.agrees(own[1])


def test_modules_of_a_network_leave_those_of_the_program_alone(tmp_path):
    folder = write_files(tmp_path / "net")
    program = types.ModuleType("helper")
    sys.modules["helper"] = program
    try:
        network = load(folder)
        network.probe(["tanh"])
        assert sys.modules["helper"] is program
        assert not {"late", "other", "package"} & set(sys.modules)
        assert str(folder) not in sys.path
    finally:
        del sys.modules["helper"]


def test_a_module_that_changes_within_a_second_is_read_anew(tmp_path):
    folder = write_files(tmp_path / "net")
    stamp = (folder / "late.py").stat()
    before = identity(load(folder))
    # Equal in size and time: bytecode that Python keeps would be taken for it.
    (folder / "late.py").write_text("def shift(x):\n    return x - 0.25\n")
    os.utime(folder / "late.py", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    after = identity(load(folder))
    assert before[0] != after[0]
    assert not before[1].agrees(after[1])


def test_code_that_is_made_at_run_time_counts_by_what_it_does(tmp_path):
    folder = write_files(tmp_path / "net")
    text = "from pathlib import Path\n\n" + MODEL.replace(
        "def build():",
        "exec(Path(__file__).with_name('made.txt').read_text())\n\n\ndef build():",
    )
    (folder / "model.py").write_text(text)
    (folder / "made.txt").write_text("def bend(x):\n    return torch.tanh(x)\n")
    before = load(folder).digest
    assert load(folder).digest == before
    (folder / "made.txt").write_text("def bend(x):\n    return torch.sin(x)\n")
    assert load(folder).digest != before


def test_global_that_changes_at_run_time_is_another_network(tmp_path):
    network = load(write_files(tmp_path / "net"))
    before = network.digest
    network.module.forward.__func__.__globals__["TABLE"]["gain"] = 2.0
    assert network.digest != before


# -- attributes ---------------------------------------------------------------------


@dataclasses.dataclass
class Options:
    gain: float


class Mode(enum.Enum):
    SOFT = 1
    HARD = 2


class Callable:
    def __init__(self, gain):
        self.gain = gain

    def __call__(self, x):
        return x * self.gain


class Slotted:
    __slots__ = ("gain",)

    def __init__(self, gain):
        self.gain = gain


def closed(gain):
    return lambda x: x * gain


def defaulted(gain):
    def scale(x, gain=gain):
        return x * gain

    return scale


def cyclic(gain):
    found = {"gain": gain}
    found["self"] = found
    return found


def linear(seed):
    torch.manual_seed(seed)
    return nn.Linear(2, 2)


#: What a layer may hold as a mere attribute: one value, and another of the same kind.
ATTRIBUTES = {
    "function": (lambda: F.relu, lambda: torch.square),
    "own function": (lambda: closed, lambda: defaulted),
    "lambda": (lambda: lambda x: x + 1, lambda: lambda x: x + 2),
    "closure": (lambda: closed(1), lambda: closed(2)),
    "default": (lambda: defaulted(1), lambda: defaulted(2)),
    "partial": (lambda: partial(pow, 2), lambda: partial(pow, 3)),
    "dict": (lambda: {"gain": 1}, lambda: {"gain": 2}),
    "key": (lambda: {"gain": 1}, lambda: {"loss": 1}),
    "set": (lambda: {"a", "b"}, lambda: {"a", "c"}),
    "frozenset": (lambda: frozenset({1, 2}), lambda: frozenset({1, 3})),
    "namespace": (
        lambda: types.SimpleNamespace(gain=1),
        lambda: types.SimpleNamespace(gain=2),
    ),
    "dataclass": (lambda: Options(1.0), lambda: Options(2.0)),
    "enum": (lambda: Mode.SOFT, lambda: Mode.HARD),
    "numpy scalar": (lambda: np.float32(1), lambda: np.float32(2)),
    "numpy integer": (lambda: np.int64(1), lambda: np.int64(2)),
    "array": (lambda: np.arange(3), lambda: np.arange(3)[::-1]),
    "array of objects": (
        lambda: np.array([1, "a"], object),
        lambda: np.array([1, "b"], object),
    ),
    "list of tensors": (lambda: [torch.ones(2)], lambda: [torch.zeros(2)]),
    "dict of tensors": (lambda: {"w": torch.ones(2)}, lambda: {"w": torch.zeros(2)}),
    "tuple of arrays": (lambda: (np.ones(2),), lambda: (np.zeros(2),)),
    "sparse tensor": (
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.ones(2, 2).to_sparse(),
    ),
    "type of tensor": (lambda: torch.float32, lambda: torch.float64),
    "callable object": (lambda: Callable(1), lambda: Callable(2)),
    "object with slots": (lambda: Slotted(1), lambda: Slotted(2)),
    "bound method": (lambda: Callable(1).__call__, lambda: Callable(2).__call__),
    "nested": (lambda: {"a": [(1, {2})]}, lambda: {"a": [(1, {3})]}),
    "cycle": (lambda: cyclic(1), lambda: cyclic(2)),
    "class": (lambda: nn.ReLU, lambda: nn.GELU),
    "hidden module": (lambda: [linear(0)], lambda: [linear(1)]),
    "random state": (lambda: random.Random(1), lambda: random.Random(2)),
    "numpy generator": (
        lambda: np.random.default_rng(1),
        lambda: np.random.default_rng(2),
    ),
    "number": (lambda: 1, lambda: 1.0),
    "text": (lambda: "a", lambda: b"a"),
    "none": (lambda: None, lambda: False),
    "range": (lambda: range(3), lambda: range(4)),
}


class Layer(nn.Module):
    def __init__(self, held=None):
        super().__init__()
        self.held = held

    def forward(self, x):
        return x


def network(module, name="net", **settings):
    return Network(name, nn.Sequential(module), Preprocessing(input_size=8, **settings))


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_attributes_of_any_kind_count_by_their_content(kind):
    make_one, make_other = ATTRIBUTES[kind]
    one = network(Layer(make_one()))
    assert one.probe(["0"]).unknown == ()
    assert one.digest == network(Layer(make_one())).digest
    assert one.digest != network(Layer(make_other())).digest


def doubled(module):
    module[0].weight.data.mul_(2)


#: Changes of a module in place.
IN_PLACE = {
    "a weight": lambda m: m[0].weight.data[0, 0, 0, 0].add_(1e-6),
    "a statistic": lambda m: m[1].running_mean.add_(1),
    "a plain attribute": lambda m: setattr(m[0], "stride", (2, 2)),
    "a new attribute": lambda m: setattr(m[2], "table", np.arange(3)),
    "another layer": lambda m: m.append(nn.ReLU()),
    "precision": lambda m: m.half(),
    "a hook": lambda m: m[2].register_forward_hook(lambda _m, _i, out: out * 2),
    "training mode": lambda m: m[1].train(),
    "a method of its own": lambda m: setattr(m[2], "forward", torch.sin),
    "a buffer that is not saved": lambda m: m[2].register_buffer(
        "extra", torch.ones(1), persistent=False
    ),
    "order of layers": lambda m: m.insert(0, m.pop(2)),
}


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), nn.ReLU())


@pytest.mark.parametrize("change", IN_PLACE)
def test_a_module_that_is_changed_in_place_is_another_network(change):
    one = Network("net", small(), Preprocessing(input_size=8))
    before = one.digest
    assert before == Network("net", small(), Preprocessing(input_size=8)).digest
    IN_PLACE[change](one.module)
    assert one.digest != before


def attended(module):
    module(torch.rand(4, 3, 8, 8))


#: What may be done with a module without making it another network.
HARMLESS = {
    "a pass": attended,
    "passes": lambda m: [attended(m) for _ in range(3)],
    "memory order": lambda m: m.to(memory_format=torch.channels_last),
    "frozen weights": lambda m: m.requires_grad_(False),
    "gradients": lambda m: m(torch.rand(2, 3, 8, 8)).sum().backward(),
    "evaluation mode": lambda m: m.eval(),
}


class Attention(nn.Module):
    """Keeps of a pass what it has seen, as many transformers do."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3)
        self.attn = None
        self.kept = {"maps": []}
        self.register_buffer("last", torch.zeros(1))

    def forward(self, x):
        y = self.conv(x)
        self.attn = y.softmax(1)
        self.kept["maps"] = [y.mean()]
        self.size = x.shape[-1]
        self.last = x.mean()
        return y


def attention():
    torch.manual_seed(0)
    return nn.Sequential(Attention()).eval()


@pytest.mark.parametrize("use", HARMLESS)
def test_state_of_passes_and_memory_is_no_part_of_a_network(use):
    fresh = Network("net", attention(), Preprocessing(input_size=8))
    used = attention()
    HARMLESS[use](used)
    again = Network("net", used, Preprocessing(input_size=8))
    assert again.digest == fresh.digest == fresh.digest
    assert fresh.probe(["0"]).behaviours["0"].agrees(again.probe(["0"]).behaviours["0"])


def test_what_cannot_be_told_is_named_and_never_taken_for_known():
    probe = network(Layer(n for n in range(3))).probe(["0"])
    assert probe.unknown == ("attribute 0.held (a generator)",)
    assert probe.behaviour("0") is None
    assert "content is unknown: attribute 0.held" in probe.note("0")


def test_locks_and_loggers_are_nothing_that_answers_hang_on():
    import logging

    held = [threading.Lock(), logging.getLogger("net")]
    assert network(Layer(held)).probe(["0"]).unknown == ()


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_another_version_of_the_package_is_another_network(package, monkeypatch):
    name = {"timm": "timm/resnet10t:none", "torchvision": "torchvision/alexnet:none"}
    before = load_network(name[package]).digest
    real = importlib.metadata.version
    monkeypatch.setattr(
        importlib.metadata, "version", lambda n: "0" if n == package else real(n)
    )
    assert load_network(name[package]).digest != before


def test_a_method_that_was_replaced_in_an_installed_class_counts(monkeypatch):
    one = Network("net", small(), Preprocessing(input_size=8))
    before = one.digest
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: x.sigmoid())
    assert one.digest != before


def test_digest_is_the_same_in_every_process(tmp_path):
    path = write_files(tmp_path / "net") / "model.py"
    code = (
        "import sys; from ce_align.models.sources import load_network; "
        "print(load_network(sys.argv[1]).digest)"
    )
    digests = {
        subprocess.run(
            [sys.executable, "-c", code, f"{path}:build"],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert digests == {f"{load(path.parent).digest}\n"}


def test_names_are_no_identity(tmp_path):
    folder = write_files(tmp_path / "net")
    shutil.copytree(folder, tmp_path / "copy")
    assert load(folder).digest == load(tmp_path / "copy").digest


def test_committed_layers_are_no_part_of_a_network():
    one = Network("net", small(), Preprocessing(input_size=8), {"IT": "1"})
    other = Network("net", small(), Preprocessing(input_size=8), {"V4": "2"})
    assert one.digest == other.digest


def test_digest_ignores_addresses_of_functions():
    class Printed(nn.Module):
        def __init__(self):
            super().__init__()
            self.function = lambda x: x

        def extra_repr(self):
            return f"{self.function}"

    assert network(Printed()).digest == network(Printed()).digest


def test_layers_that_are_materialised_by_a_pass_have_a_digest():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    one = Network("lazy", module, Preprocessing(input_size=8))
    assert one.digest == one.digest
    assert not one.probe(["1"]).failures


# -- what is stored -------------------------------------------------------------------


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


@dataclasses.dataclass
class Stages:
    """Score, analysis and transfer of a network, each from one store."""

    inputs: tuple
    folder: Path

    def run(self, network, layer, **options):
        """Rows of all three, and which of them were stored."""
        recording, images, data = self.inputs
        store = ResultStore(self.folder / "results")
        scored = score(
            network,
            recording,
            [
                ScoreConfig(
                    model="net",
                    recording="toy",
                    layer=layer,
                    components=2,
                    splits=2,
                )
            ],
            store,
            **options,
        )
        assert not scored.failures, scored.failures
        config = toy_config(
            metric="dimensionality", model="net", layer=layer, comparisons=10, views=4
        )
        subject = Subject.of(
            network, layer, allow_unstable=options.get("allow_unstable", False)
        )
        unmarked = {k: v for k, v in options.items() if k != "allow_unstable"}
        analysed = analyze(
            [Job(config, subject)],
            images,
            store,
            Responses(self.folder / "responses"),
            **unmarked,
        )
        assert not analysed.failures, analysed.failures
        config = TransferConfig(
            model="net", dataset="labelled", layer=layer, size=16, runs=1
        )
        row, stored = transfer(network, data, config, store, **options)
        rows = [*scored.rows, *analysed.rows, row]
        return rows, [scored.n_stored == 1, analysed.n_stored == 1, stored]


@pytest.fixture
def stages(inputs, tmp_path, monkeypatch):
    monkeypatch.setattr("ce_align.stages.transfer.STRENGTHS", np.logspace(0, 2, 2))
    return Stages(inputs, tmp_path)


def values(rows):
    return [(row.metric, row.value, getattr(row, "raw", None)) for row in rows]


@pytest.mark.parametrize("change", [*CODE_CHANGES, *NO_CHANGES])
def test_stored_numbers_are_those_of_the_network_as_it_is(
    stages, tmp_path, monkeypatch, change
):
    folder = write_files(tmp_path / "net")
    rows, stored = stages.run(load(folder), "tanh")
    assert stored == [False] * 3
    (CODE_CHANGES | NO_CHANGES)[change](folder, monkeypatch)
    again, stored = stages.run(load(folder), "tanh")
    assert stored == [change in NO_CHANGES] * 3
    if change in NO_CHANGES:
        assert values(again) == values(rows)
        return
    # What is computed in an empty store is right: nothing of before entered.
    fresh, _ = Stages(stages.inputs, tmp_path / "fresh").run(load(folder), "tanh")
    assert values(again) == values(fresh)


@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_stored_numbers_are_those_of_the_attributes(stages, kind):
    make_one, make_other = ATTRIBUTES[kind]
    stages.run(network(Layer(make_one())), "0")
    assert stages.run(network(Layer(make_one())), "0")[1] == [True] * 3
    assert stages.run(network(Layer(make_other())), "0")[1] == [False] * 3


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
            Subject.of(load(), "0")
    finally:
        del os.environ["BROKEN"]
    assert stages.run(load(), "0")[1] == [True] * 3


def test_a_change_that_only_the_answers_tell_is_said_in_a_line(stages, monkeypatch):
    class Reading(nn.Module):
        def forward(self, x):
            return x[:, :1] * float(os.environ.get("TOY_GAIN", 1)) + x[:, 1:2] ** 2

    said = []
    rows, _ = stages.run(network(Reading()), "0", notify=said.append)
    assert said == []
    monkeypatch.setenv("TOY_GAIN", "-2")
    again, stored = stages.run(network(Reading()), "0", notify=said.append)
    assert stored == [False] * 3
    # The digest is the same: only the answers could tell.
    assert again[0].config_id == rows[0].config_id
    assert values(again) != values(rows)
    assert "net 0 answers otherwise than when its score rows were stored" in said[0]
    assert all("\n" not in line for line in said)
    assert any("responses were stored; it is asked again" in line for line in said)


def test_random_networks_are_marked_and_never_answered_from_the_store(stages):
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


def test_recurrent_layers_are_known_by_their_content():
    """Torch keeps weak references to their weights."""

    def network(seed):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(2), nn.LSTM(64, 5, batch_first=True))
        return Network("recurrent", module, Preprocessing(input_size=8))

    first, same, other = (network(seed).probe(["1"]) for seed in (0, 0, 1))
    assert first.unknown == ()
    assert first.digest == same.digest != other.digest
