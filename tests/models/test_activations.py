"""Any output of any layer is read, or said to be none in words."""

import sys
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from ce_align.errors import DataError, Stopped
from ce_align.models.activations import (
    ActivationReader,
    first_tensor,
    network_inputs,
    summarise,
)
from ce_align.models.preprocessing import Preprocessing

Named = namedtuple("Named", "logits aux")


@dataclass
class Outcome:
    loss: object
    maps: torch.Tensor


class Saying(nn.Module):
    """Returns what it is told to, and may print or fail."""

    def __init__(self, says, *, error=None):
        super().__init__()
        self.says, self.error = says, error

    def forward(self, x):
        print("a layer speaks")
        if self.error is not None:
            raise self.error
        return self.says(x)


MAPS = torch.arange(24.0).reshape(2, 3, 2, 2)


@pytest.mark.parametrize(
    "output",
    [
        MAPS,
        (MAPS, MAPS + 1),
        [None, [MAPS], MAPS + 1],
        {"maps": MAPS, "other": MAPS + 1},
        OrderedDict(loss=None, maps=MAPS),
        Named(MAPS, None),
        Outcome(None, MAPS),
        ({"deep": [("text", MAPS)]},),
    ],
)
def test_the_first_tensor_of_any_output_is_read(output):
    assert first_tensor(output, "layer") is MAPS
    found = summarise(output, "layer", 2, None)
    torch.testing.assert_close(found, MAPS.flatten(1), rtol=0, atol=0)


@pytest.mark.parametrize("output", [None, 3.0, "text", (), {"a": None}, np.ones(2)])
def test_an_output_without_a_tensor_is_refused_in_words(output):
    with pytest.raises(DataError, match=r"layer body returns a \w+ without any tensor"):
        summarise(output, "body", 2, None)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32, torch.bool]
)
def test_features_are_float32_whatever_the_layer_computes_in(dtype):
    output = (MAPS % 2).to(dtype)
    for pool in (None, "average"):
        found = summarise(output, "layer", 2, pool)
        assert found.dtype == torch.float32
        expected = MAPS % 2
        expected = expected.flatten(1) if pool is None else expected.mean((2, 3))
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_images_on_another_axis_come_first():
    tokens = torch.arange(2 * 5 * 3.0).reshape(2, 5, 3)
    moved = tokens.transpose(0, 1).contiguous()
    for pool in (None, "average"):
        torch.testing.assert_close(
            summarise(moved, "layer", 2, pool, axis=1),
            summarise(tokens, "layer", 2, pool),
        )
    with pytest.raises(DataError, match="one row for each of 5 images"):
        summarise(moved, "layer", 5, None, axis=1)
    with pytest.raises(DataError, match="one row for each of 2 images"):
        summarise(torch.ones(2), "layer", 2, None, axis=1)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (torch.ones(2, 3, dtype=torch.complex64), "complex numbers"),
        (torch.eye(2).to_sparse(), "sparse numbers"),
        (torch.ones(2, 0), r"returns nothing: shape \(2, 0\)"),
        (torch.tensor(1.0), "one row for each of 2 images"),
    ],
)
def test_numbers_that_are_no_features_are_refused_in_words(output, message):
    with pytest.raises(DataError, match=message):
        summarise(output, "layer", 2, None)


@pytest.mark.parametrize(
    ("shape", "size", "places"),
    [
        ((2, 8, 4, 4), (32, 32), (2, 3)),
        ((2, 4, 4, 8), (32, 32), (1, 2)),
        ((2, 8, 4, 7), (32, 56), (2, 3)),
        ((2, 4, 7, 8), (32, 56), (1, 2)),
        ((2, 32, 15, 27), (32, 56), (2, 3)),
    ],
)
def test_maps_are_averaged_over_the_axes_that_are_similar_to_the_input(
    shape, size, places
):
    output = torch.arange(float(np.prod(shape))).reshape(shape)
    found = summarise(output, "layer", 2, "average", size=size)
    torch.testing.assert_close(found, output.mean(places))


class Several(nn.Module):
    """Layers of which some have no features."""

    def __init__(self):
        super().__init__()
        self.good = nn.Conv2d(3, 2, 3)
        self.pair = Saying(lambda x: (x, None))
        self.none = Saying(lambda x: None)
        self.unused = nn.ReLU()
        self.rows = Saying(lambda x: x.flatten(0, 1))

    def forward(self, x):
        x = self.good(x)
        self.pair(x)
        self.none(x)
        self.rows(x)
        return x


def test_layers_that_have_no_features_are_told_once_and_the_others_are_read():
    module, told = Several().eval(), []
    layers = ["good", "none", "unused", "pair", "rows"]
    inputs = torch.randn(4, 3, 8, 8)
    with ActivationReader(
        module, layers, on_error=lambda layer, error: told.append((layer, str(error)))
    ) as read:
        first, second = read(inputs), read(inputs[:2])
    expected = module.good(inputs).flatten(1)
    for layer in ("good", "pair"):
        torch.testing.assert_close(first[layer], expected)
        torch.testing.assert_close(second[layer], expected[:2])
    assert set(first) == set(second) == {"good", "pair"}
    assert [layer for layer, _ in told] == ["none", "unused", "rows"]
    assert "takes no part in the pass" in dict(told)["unused"]


def test_only_the_last_call_of_a_layer_counts_also_if_an_earlier_one_is_no_feature():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.same = nn.Identity()

        def forward(self, x):
            self.same(x.flatten(0, 1))
            return self.same(x)

    inputs = torch.randn(2, 3, 4, 4)
    with ActivationReader(Twice(), ["same"]) as read:
        torch.testing.assert_close(read(inputs)["same"], inputs.flatten(1))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (RuntimeError("no\nroom"), r": RuntimeError: no$"),
        (AssertionError(), r": AssertionError$"),
        (KeyError("a"), r": KeyError: 'a'$"),
        (SystemExit("away"), r": SystemExit: away$"),
    ],
)
def test_whatever_a_network_raises_is_one_line(error, message):
    module = nn.Sequential(nn.Identity(), Saying(None, error=error))
    with (
        ActivationReader(module, ["0"]) as read,
        pytest.raises(DataError, match=r"the pass fails \(.*, line \d+\)" + message),
    ):
        read(torch.ones(1, 3, 4, 4))


@pytest.mark.parametrize("error", [KeyboardInterrupt(), Stopped(15)])
def test_what_asks_to_stop_is_no_failure_of_the_network(error):
    module = nn.Sequential(Saying(None, error=error))
    with ActivationReader(module, ["0"]) as read, pytest.raises(type(error)):
        read(torch.ones(1, 3, 4, 4))


def test_what_a_network_prints_reaches_standard_error_alone(capsys):
    with ActivationReader(nn.Sequential(Saying(lambda x: x)), ["0"]) as read:
        read(torch.ones(1, 3, 4, 4))
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "a layer speaks\n")
    assert sys.stdout is not sys.stderr


def test_a_network_that_cannot_be_compiled_is_read_plainly(monkeypatch):
    def refuse(module):
        def fail(_inputs):
            raise RuntimeError("no compiler")

        return fail

    monkeypatch.setattr(torch, "compile", refuse)
    module, inputs = nn.Sequential(nn.Conv2d(3, 2, 3)), torch.randn(2, 3, 5, 5)
    expected = module(inputs).flatten(1)
    with ActivationReader(module, ["0"], compile=True) as read:
        torch.testing.assert_close(read(inputs)["0"], expected)
        torch.testing.assert_close(read(inputs)["0"], expected)


PIXELS = np.random.default_rng(3).integers(0, 256, (2, 6, 6, 3), np.uint8)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_inputs_have_the_type_of_the_weights(dtype):
    module = nn.Conv2d(3, 2, 3).to(dtype)
    found = network_inputs(module, Preprocessing(), PIXELS, "cpu")
    assert found.dtype == dtype
    expected = Preprocessing().normalise(torch.from_numpy(PIXELS)).to(dtype)
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    module(found)


def test_a_network_of_one_channel_is_fed_luminance():
    pre = Preprocessing(mean=(0.5, 0.5, 0.5), std=(0.2, 0.2, 0.2))
    found = network_inputs(nn.Conv2d(1, 2, 3), pre, PIXELS, "cpu").numpy()
    grey = PIXELS.astype(float) @ [0.299, 0.587, 0.114] / 255
    np.testing.assert_allclose(found, (grey[:, None] - 0.5) / 0.2, atol=1e-5)


def test_a_network_that_makes_its_own_grey_keeps_colour():
    class Grey(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)

        def forward(self, x):
            return self.conv(x[:, 1:2])

    found = network_inputs(Grey(), Preprocessing(), PIXELS, "cpu")
    assert found.shape == (2, 3, 6, 6)


def test_other_numbers_of_channels_are_refused_in_words():
    with pytest.raises(DataError, match="takes 4 channels; expected 3 of colour or 1"):
        network_inputs(nn.Conv2d(4, 2, 3), Preprocessing(), PIXELS, "cpu")


def test_a_network_that_works_on_its_input_in_place_answers_alike_each_time():
    module = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 2, 3))
    inputs = torch.randn(2, 3, 5, 5)
    before = inputs.clone()
    with ActivationReader(module, ["1"]) as read:
        torch.testing.assert_close(read(inputs)["1"], read(inputs)["1"])
    torch.testing.assert_close(inputs, before, rtol=0, atol=0)


def test_a_part_in_torchscript_cannot_be_read_and_the_others_can():
    module = nn.Sequential(torch.jit.script(nn.Conv2d(3, 2, 3)), nn.ReLU())
    told, inputs = {}, torch.randn(2, 3, 5, 5)
    with ActivationReader(module, ["0", "1"], on_error=told.__setitem__) as read:
        assert set(read(inputs)) == {"1"}
    assert "layer 0 cannot be read" in str(told["0"])
    with (
        pytest.raises(DataError, match="layer 0 cannot be read"),
        ActivationReader(module, ["0"]),
    ):
        pass


def test_an_error_without_a_text_is_a_line_too():
    class Silent(Exception):
        def __str__(self):
            raise RuntimeError("no text")

    module = nn.Sequential(Saying(None, error=Silent()))
    with (
        ActivationReader(module, ["0"]) as read,
        pytest.raises(DataError, match=r"the pass fails \(.*line \d+\): Silent$"),
    ):
        read(torch.ones(1, 3, 4, 4))
