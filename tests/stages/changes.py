"""Networks from files and with attributes of any kind, and changes of them."""

import dataclasses
import enum
import os
import random
import types
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ce_align.models.load import load_network
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing

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


#: Changes of code and of what it reads, by which the network's features change.
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
    "a new docstring": edit("helper.py", "(x):\n", '(x):\n    "Smaller."\n'),
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
