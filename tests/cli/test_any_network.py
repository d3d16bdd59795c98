"""Networks that fail in every way, beside one that works: nothing of it is lost."""

import json

import numpy as np
import pytest
from test_cli import make_recording

NETWORKS = """
import torch
from torch import nn

# print("a file speaks at import")


class Network(nn.Module):
    def __init__(self, act=lambda x: x, label="good"):
        super().__init__()
        self.label = label
        self.first, self.body = nn.Conv2d(3, 8, 5, stride=4), nn.Flatten()
        self.act = act
        self.ce_align = dict(input_size=32, layers=dict(V4="body", IT="body"))

    def forward(self, x):
        print("a network speaks")
        return self.body(self.act(self.first(x)))


def fails(error):
    def act(x):
        raise error
    return lambda: Network(act, repr(error))


good = Network
crashes = fails(RuntimeError("mat1 and mat2\\ncannot be multiplied"))
asserts = fails(AssertionError())
exits = fails(SystemExit("away"))
divides = fails(ZeroDivisionError("division by zero"))


def constant():
    return Network(lambda x: torch.zeros_like(x), "constant")


def nan():
    return Network(lambda x: x / 0 * 0, "nan")


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


METRICS = ("bures", "factorization", "dimensionality", "steerability")


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
