"""What a job will take is known before, and refused where there is less."""

import re
import sys

import numpy as np
import pytest
import torch
from torch import nn

from ce_align.api import score
from ce_align.data.imagesets import ImageSet
from ce_align.data.made import make_recording
from ce_align.errors import CeAlignError, ConfigError
from ce_align.models import memory
from ce_align.models.features import extract
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing

pytestmark = pytest.mark.slow


@pytest.fixture
def network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 8, 3))
    return Network("net", module, Preprocessing(input_size=64), {"IT": "1"})


@pytest.fixture
def images(rng):
    return ImageSet.from_array("toy", rng.integers(0, 256, (40, 8, 8, 3), np.uint8))


def free(monkeypatch, n_bytes):
    monkeypatch.setenv("CE_ALIGN_MEMORY", str(n_bytes / 1e9))


def test_bytes_of_a_pass_are_those_of_its_largest_moment():
    module = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 1, 1)
    ).eval()
    inputs = torch.zeros(1, 3, 10, 10)
    # The copy of the input, then 8 and 2 channels, and what is read of the second.
    most = memory.pass_bytes(module, ["1"], inputs)
    assert most in [4 * 100 * n for n in (3 + 8 + 2, 3 + 8 + 2 + 2)]
    assert memory.pass_bytes(module, ["1"], inputs.repeat(4, 1, 1, 1)) == 4 * most


def test_bytes_of_a_pass_are_counted_without_importing_the_compiler_of_torch():
    # Where torch wraps it, the first call imports torch._dynamo, which takes seconds.
    assert not hasattr(memory._LiveBytes.__torch_dispatch__, "__wrapped__")


SCRIPT = """
import sys
from ce_align.models.activations import ActivationReader, network_inputs
from ce_align.models.load import load_network
from ce_align.models.memory import pass_bytes
from ce_align.models.networks import probe_pixels

def resident(kind):
    for line in open("/proc/self/status"):
        if line.startswith(kind):
            return int(line.split()[1]) * 1024

network, layer = load_network(sys.argv[1]), sys.argv[2]
pixels = probe_pixels(224, 224)
inputs = network_inputs(network.module, network.preprocessing, pixels[:1], "cpu")
known = 24 * pass_bytes(network.module, [layer], inputs)
batch = inputs.repeat(24, 1, 1, 1)
before = resident("VmRSS")
with ActivationReader(network.module, [layer]) as read:
    read(batch)
print(known, resident("VmHWM") - before)
"""


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("torchvision/resnet18:none", "layer4"),
        ("torchvision/squeezenet1_1:none", "features.12"),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_an_estimate_is_near_what_a_process_takes(name, layer, python):
    out, errors = python("-c", SCRIPT, name, layer).communicate()
    known, taken = map(int, out.split() or pytest.fail(errors))
    assert 0.5 * known < taken < 2 * known


def test_a_batch_is_as_small_as_the_memory_asks_for(network, images, monkeypatch):
    expected = extract(network, images, ["0", "1"], cache=None)
    free(monkeypatch, 24e6)
    found = extract(network, images, ["0", "1"], cache=None)
    for layer, features in expected.items():
        assert np.allclose(found[layer].values, features.values, atol=1e-5)


@pytest.mark.parametrize(
    ("n_bytes", "options", "message"),
    [
        (2e6, {"cache": None}, r"reading 0, 1 of net needs about .* GB .*features "),
        (24e6, {"batch_size": 64}, "a batch of 64 .*smaller batch size"),
    ],
)
def test_what_would_not_fit_is_refused_with_the_remedy(
    n_bytes, options, message, network, images, monkeypatch
):
    free(monkeypatch, n_bytes)
    with pytest.raises(CeAlignError, match=message) as refusal:
        extract(network, images, ["0", "1"], **options)
    assert "\n" not in str(refusal.value)


def test_regressions_are_refused_before_images_are_shown(
    network, images, rng, monkeypatch, tmp_path
):
    recording = make_recording(rng.normal(size=(40, 2, 3)), images, "IT", name="toy")
    shown = []
    monkeypatch.setattr(memory, "available_memory", lambda: 10_000)
    monkeypatch.setattr(ImageSet, "load", lambda self, index: shown.append(index))
    with pytest.raises(CeAlignError, match=r"regressions of 40 stimuli, 3 neuroids"):
        score(network, recording, results=tmp_path, components=3)
    assert shown == []


def test_features_that_are_cached_take_no_memory(network, images, monkeypatch):
    extract(network, images, ["0", "1"])
    free(monkeypatch, 1)
    assert set(extract(network, images, ["0", "1"])) == {"0", "1"}


def test_the_least_of_machine_and_groups_is_what_there_is(tmp_path, monkeypatch):
    group = tmp_path / "job" / "step"
    group.mkdir(parents=True)
    for folder, most, used, stat in (
        (tmp_path / "job", "9000000", "4000000", "inactive_file 1000000"),
        (group, "max", "2000000", "inactive_file 0"),
    ):
        (folder / "memory.max").write_text(most)
        (folder / "memory.current").write_text(used)
        (folder / "memory.stat").write_text(f"anon 5\n{stat}\n")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    listing = tmp_path / "cgroup"
    listing.write_text("0::/job/step\n")
    monkeypatch.setattr(memory, "OWN_GROUPS", listing)
    assert memory.available_memory() == 6_000_000
    monkeypatch.setenv("CE_ALIGN_MEMORY", "0.5")
    assert memory.available_memory() == 500_000_000
    monkeypatch.setenv("CE_ALIGN_MEMORY", "much")
    with pytest.raises(ConfigError, match=re.escape("memory in GB, such as 16")):
        memory.available_memory()
