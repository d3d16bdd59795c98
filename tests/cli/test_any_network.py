"""Networks that fail in every way, beside one that works: nothing of it is lost."""

import json
import subprocess
import sys

import numpy as np
import pytest
from test_cli import make_recording

pytestmark = pytest.mark.slow

NETWORKS = """
import torch
from torch import nn

print("a file speaks at import")


class Network(nn.Module):
    def __init__(self, act=lambda x: x):
        super().__init__()
        self.first, self.body = nn.Conv2d(3, 8, 5, stride=4), nn.Flatten()
        self.act = act
        self.ce_align = dict(input_size=32, layers=dict(V4="body", IT="body"))

    def forward(self, x):
        print("a network speaks")
        return self.body(self.act(self.first(x)))


def fails(error):
    def act(x):
        raise error
    return lambda: Network(act)


good = Network
crashes = fails(RuntimeError("mat1 and mat2\\ncannot be multiplied"))
asserts = fails(AssertionError())
exits = fails(SystemExit("away"))
divides = fails(ZeroDivisionError("division by zero"))


def constant():
    return Network(lambda x: torch.zeros_like(x))


def nan():
    return Network(lambda x: x / 0 * 0)


def unbuildable():
    return {}["weights"]


def leaves():
    raise SystemExit(3)
"""

FAILING = {
    "crashes": "RuntimeError: mat1 and mat2",
    "asserts": "AssertionError",
    "exits": "SystemExit: away",
    "divides": "ZeroDivisionError: division by zero",
    "nan": "NaN",
    "unbuildable": "KeyError: 'weights'",
    "leaves": "SystemExit: 3",
    "absent": "absent",
}


@pytest.fixture
def toy(tmp_path):
    make_recording(tmp_path / "toy.nc")
    (tmp_path / "net.py").write_text(NETWORKS)
    names = [*list(FAILING)[:3], "good", *list(FAILING)[3:]]
    return [part for name in names for part in ("--model", f"net.py:{name}")]


def errors_of(err):
    assert "Traceback" not in err
    return [line for line in err.splitlines() if line.startswith("error: ")]


@pytest.mark.parametrize("json_or_table", ["--json", None])
def test_scores_of_a_network_survive_all_that_fail_beside_it(
    ce_align, toy, json_or_table
):
    options = [json_or_table] if json_or_table else []
    status, out, err = ce_align(
        *("score", "--recording", "toy.nc", "--components", 5, *toy, *options)
    )
    assert status == 2
    assert "speaks" not in out
    assert "speaks" in err
    lines = errors_of(err)
    assert len(lines) == len(FAILING)
    for name, message in FAILING.items():
        (line,) = [x for x in lines if f"net.py:{name}" in x or f"'{name}'" in x]
        assert message in line
    if json_or_table:
        (row,) = json.loads(out)
        assert row["model"] == "net.py:good"
        alone = ce_align(
            *("score", "--recording", "toy.nc", "--components", 5, "--json"),
            *("--model", "net.py:good", "--results", "elsewhere"),
        )
        assert row["raw"] == json.loads(alone[1])[0]["raw"]
    else:
        assert "net.py:good" in out


def test_a_layer_that_is_not_there_does_not_cost_the_others(ce_align, toy):
    status, out, err = ce_align(
        *("score", "--recording", "toy.nc", "--components", 5, "--json"),
        *("--model", "net.py:good", "--layer", "bdy", "--layer", "first"),
    )
    assert status == 2
    assert [row["layer"] for row in json.loads(out)] == ["first"]
    (line,) = errors_of(err)
    assert "net.py:good" in line
    assert "'bdy'" in line


METRICS = ("bures", "factorization", "dimensionality", "decoding", "steerability")


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    from PIL import Image

    for label in ("a", "b"):
        folder = tmp_path / "pictures" / label
        folder.mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (6, 6, 3), np.uint8)
            Image.fromarray(pixels).resize((48, 48)).save(folder / f"{i}.png")
    return "pictures"


@pytest.mark.parametrize("metric", METRICS)
def test_a_collapsed_network_is_refused_in_words_by_every_metric_and_others_stay(
    ce_align, toy, pictures, metric
):
    names = ("constant", "good", "crashes")
    models = [part for name in names for part in ("--model", f"net.py:{name}")]
    status, out, err = ce_align(
        *("analyze", "--metric", metric, "--images", pictures, "--json"),
        *("--comparisons", 10, "--views", 8, "--crops", 4, "--photometrics", 4),
        *models,
    )
    assert status in (1, 2)
    rows = json.loads(out)
    assert {row["model"] for row in rows} == {"net.py:good"}
    lines = errors_of(err)
    assert "unexpected" not in err
    assert "Warning" not in err
    assert [("net.py:constant" in x, "net.py:crashes" in x) for x in lines] in (
        [(True, False), (False, True)],
        [(False, True), (True, False)],
    )


KINDS = '''
import torch
import torchvision
from torch import nn


def described(module, size=32, **more):
    module.ce_align = dict(input_size=size, **more)
    return module


class Registers(nn.Module):
    """A vision transformer with class and register tokens."""

    def __init__(self, token_first=False):
        super().__init__()
        self.patches = nn.Conv2d(3, 32, 8, stride=8)
        self.extra = nn.Parameter(torch.randn(1, 1 + 4, 32))
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                32, 4, 64, batch_first=not token_first, activation="gelu"
            )
            for _ in range(2)
        )
        self.token_first = token_first

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.extra.expand(len(x), -1, -1), x], 1)
        if self.token_first:
            x = x.transpose(0, 1)
        for block in self.blocks:
            x = block(x)
        return x[0] if self.token_first else x[:, 0]


class Sixteen(Registers):
    """As many tokens as images in a batch."""

    def __init__(self, token_first=True):
        super().__init__(token_first)
        self.extra = nn.Parameter(torch.zeros(1, 0, 32))


def small():
    torch.manual_seed(2)
    return nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(512, 30))


registers = lambda: described(Registers(), layers=dict(IT="blocks.1"))
clip = lambda: described(Registers(True), layers=dict(IT="blocks.1"))
sixteen = lambda: described(Sixteen())
tokens = lambda: described(Sixteen(token_first=False))
swin = lambda: described(torchvision.models.swin_transformer.SwinTransformer(
    patch_size=[4, 4], embed_dim=24, depths=[2, 2], num_heads=[2, 4],
    window_size=[4, 4]))
half = lambda: described(small().half(), layers=dict(IT="4"))
bfloat = lambda: described(small().bfloat16())
double = lambda: described(small().double(), layers=dict(IT="4"))
wide = lambda: described(small()[:5], size=[32, 48], layers=dict(IT="4"))


def grey():
    module = small()
    module[0] = nn.Conv2d(1, 8, 5, stride=3)
    return described(module, layers=dict(IT="4"))


class Mixed(nn.Module):
    """Layers with and without features."""

    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 5, stride=4)
        self.pair = Pair()
        self.narrow = nn.Conv2d(8, 2, 7)
        self.dead = Dead()
        self.unused = nn.ReLU()

    def forward(self, x):
        x = self.body(x)
        first, _ = self.pair(x)
        self.dead(first)
        return self.narrow(first)


class Pair(nn.Module):
    def forward(self, x):
        return x * 2, None


class Dead(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x)


mixed = lambda: described(Mixed())


class Crashing(Mixed):
    def forward(self, x):
        raise RuntimeError("mat1 and mat2")


single = lambda: described(nn.Identity())
crashing = lambda: described(Crashing(), layers=dict(IT="body"))
'''

KINDS_THAT_WORK = (
    *("registers", "clip", "sixteen", "swin", "half", "bfloat", "double", "wide"),
    *("grey", "mixed"),
)


def test_networks_of_every_kind_are_scored_in_one_command(ce_align, tmp_path):
    make_recording(tmp_path / "toy.nc")
    (tmp_path / "kinds.py").write_text(KINDS)
    names = ("crashing", *KINDS_THAT_WORK, "single")
    models = [part for name in names for part in ("--model", f"kinds.py:{name}")]
    status, out, err = ce_align(
        *("score", "--recording", "toy.nc", "--layer", "all", "--json", *models),
        *("--components", 25),
    )
    assert status == 2
    rows = json.loads(out)
    layers = {
        name: [row["layer"] for row in rows if row["model"] == f"kinds.py:{name}"]
        for name in names
    }
    assert all(layers[name] for name in KINDS_THAT_WORK)
    blocks = ["blocks.0", "blocks.1"]
    for name in ("registers", "clip", "sixteen"):
        assert layers[name][-2:] == blocks
    # Two constant or narrow layers cost no other one.
    assert layers["mixed"] == ["body", "pair"]
    lines = errors_of(err)
    for name, layer, message in [
        ("mixed", "narrow", "25 components need as many features, found 2"),
        ("mixed", "dead", "the same for every stimulus"),
        ("mixed", "unused", "takes no part in the pass"),
        ("crashing", "", "RuntimeError: mat1 and mat2"),
        ("single", "", "has no layers"),
    ]:
        (line,) = [x for x in lines if f"kinds.py:{name}" in x and layer in x]
        assert message in line


@pytest.mark.parametrize("pair", [("registers", "clip"), ("tokens", "sixteen")])
def test_a_token_first_transformer_scores_as_the_batch_first_one_does(
    ce_align, tmp_path, pair
):
    make_recording(tmp_path / "toy.nc")
    text = KINDS.replace(
        "lambda: described(", "lambda: torch.manual_seed(3) and described("
    )
    (tmp_path / "kinds.py").write_text(text)
    models = [part for name in pair for part in ("--model", f"kinds.py:{name}")]
    _, out, _ = ce_align(
        *("score", "--recording", "toy.nc", "--layer", "blocks.1", "--json"),
        *("--components", 5, *models),
    )
    first, second = json.loads(out)
    assert first["model_digest"] != second["model_digest"]
    assert first["raw"] == pytest.approx(second["raw"], abs=1e-4)


def test_brainscores_own_numbers_survive_layers_that_fail(ce_align, tmp_path):
    make_recording(tmp_path / "toy.nc")
    (tmp_path / "kinds.py").write_text(KINDS)
    models = [p for name in ("mixed", "clip") for p in ("--model", f"kinds.py:{name}")]
    status, out, err = ce_align(
        *("score", "--recording", "toy.nc", "--layer", "all", "--json", "--official"),
        *models,
    )
    assert status in (1, 2)
    rows = json.loads(out)
    scored = [(row["model"], row["layer"]) for row in rows]
    assert ("kinds.py:mixed", "body") in scored
    assert {model for model, _ in scored} == {"kinds.py:mixed"}
    lines = errors_of(err)
    (line,) = [x for x in lines if "kinds.py:mixed" in x and "unused" in x]
    assert "takes no part in the pass" in line
    (line,) = [x for x in lines if "kinds.py:clip" in x and "blocks.0" in x]
    assert "images on axis 1, but Brain-Score takes the first" in line


def test_networks_of_every_kind_are_analysed_in_one_command(
    ce_align, tmp_path, pictures
):
    text = KINDS.replace(
        "lambda: described(", "lambda: torch.manual_seed(3) and described("
    )
    (tmp_path / "kinds.py").write_text(text)
    names = ("registers", "clip", "half", "double", "wide", "crashing", "grey")
    status, out, err = ce_align(
        *("analyze", "--metric", "factorization", "--images", pictures, "--json"),
        *("--comparisons", 10, "--views", 8, "--crops", 4, "--photometrics", 4),
        *(part for name in names for part in ("--model", f"kinds.py:{name}")),
    )
    assert status == 2
    values = {}
    for row in json.loads(out):
        name = row["model"].removeprefix("kinds.py:")
        values.setdefault(name, []).append(row["value"])
    assert values.keys() == set(names) - {"crashing"}
    # One network with its tokens on another axis, and one in another precision.
    assert values["clip"] == pytest.approx(values["registers"], rel=1e-3)
    assert values["half"] == pytest.approx(values["double"], rel=1e-2)
    assert values["half"] != values["double"]
    assert values["wide"] != pytest.approx(values["double"], rel=1e-2)
    (line,) = errors_of(err)
    assert "kinds.py:crashing" in line
    assert "RuntimeError: mat1 and mat2" in line


NOISY = """
import atexit, ctypes, os, subprocess, sys
from torch import nn

atexit.register(print, "at the end")
os.system("echo from a shell")


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Conv2d(3, 8, 5, stride=4)
        self.ce_align = dict(input_size=32, layers=dict(V4="body", IT="body"))

    def forward(self, x):
        subprocess.run(["echo", "from a process"])
        sys.__stdout__.write("past every redirection")
        ctypes.CDLL(None).puts(b"from C")
        return self.body(x)


build = Network
"""


def test_whatever_prints_beside_rows_goes_to_standard_error(tmp_path):
    (tmp_path / "noisy.py").write_text(NOISY)
    make_recording(tmp_path / "toy.nc")
    arguments = ("score", "--model", "noisy.py:build", "--recording", "toy.nc")
    done = subprocess.run(
        [sys.executable, "-m", "ce_align", *arguments, "--components", "5", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert row["layer"] == "body"
    for text in ("a shell", "a process", "from C", "past every", "at the end"):
        assert text in done.stderr
