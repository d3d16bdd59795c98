"""What makes a network another one, and what does not."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
import torch
from changes import (
    ATTRIBUTES,
    CODE_CHANGES,
    HARMLESS,
    MODEL,
    NO_CHANGES,
    Layer,
    attention,
    load,
    network,
    write_files,
)
from torch import nn
from torch.nn import functional as F

from ce_align.models.load import load_network
from ce_align.models.networks import Network
from ce_align.models.preprocessing import Preprocessing


def identity(network, layer="tanh"):
    """Digest of a network, and what its layer answers."""
    probe = network.probe([layer])
    assert not probe.failures, probe.failures
    assert not probe.unknown
    return probe.digest, probe.behaviours[layer]


def is_another(one, two):
    return one[0] != two[0] or not one[1].agrees(two[1])


@pytest.mark.slow
@pytest.mark.parametrize("change", CODE_CHANGES)
def test_changed_code_is_another_network(tmp_path, monkeypatch, change):
    folder = write_files(tmp_path / "net")
    before = identity(load(folder))
    assert not is_another(before, identity(load(folder)))
    CODE_CHANGES[change](folder, monkeypatch)
    assert is_another(before, identity(load(folder)))


@pytest.mark.slow
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


CHANGES_OF_ALL = {
    "a function of torch": "torch.tanh = lambda x: x.sin()",
    "a functional": "F.relu = lambda x: x.abs()\n_relu = F.relu",
    "a method of a class": "nn.Tanh.forward = lambda self, x: x.sigmoid()",
    "the environment": "os.environ['TOY_OFFSET'] = '0.5'",
    "the default type": "torch.set_default_dtype(torch.float64)",
}


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES_OF_ALL)
def test_what_a_file_changes_of_the_process_is_its_own(tmp_path, change):
    plain = write_files(tmp_path / "plain")
    before = identity(load(plain))
    state = torch.tanh, F.relu, nn.Tanh.forward, os.environ.get("TOY_OFFSET")
    patched = write_files(tmp_path / "patched")
    text = MODEL.replace("def build():", CHANGES_OF_ALL[change] + "\n\n\ndef build():")
    (patched / "model.py").write_text(text)
    other = load(patched)
    assert is_another(identity(other), before)
    # Beside it and after it, the plain network is what it was.
    assert identity(load(plain))[0] == before[0]
    assert not is_another(identity(load(plain)), before)
    assert (torch.tanh, F.relu, nn.Tanh.forward, os.environ.get("TOY_OFFSET")) == state
    assert torch.get_default_dtype() == torch.float32
    # And the other goes on with what it has changed.
    assert not is_another(identity(other), identity(load(patched)))


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


@pytest.mark.slow
@pytest.mark.parametrize("kind", ATTRIBUTES)
def test_attributes_of_any_kind_count_by_their_content(kind):
    make_one, make_other = ATTRIBUTES[kind]
    one = network(Layer(make_one()))
    assert one.probe(["0"]).unknown == ()
    assert one.digest == network(Layer(make_one())).digest
    assert one.digest != network(Layer(make_other())).digest


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


@pytest.mark.slow
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


@pytest.mark.slow
def test_digest_is_the_same_in_every_process(tmp_path):
    path = write_files(tmp_path / "net") / "model.py"
    code = (
        "import sys; from ce_align.models.load import load_network; "
        "print(load_network(sys.argv[1]).digest)"
    )
    # Sets and dictionaries have another order there.
    other = {"1": "2"}.get(os.environ.get("PYTHONHASHSEED", ""), "1")
    found = subprocess.run(
        [sys.executable, "-c", code, f"{path}:build"],
        env={**os.environ, "PYTHONHASHSEED": other},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert found == f"{load(path.parent).digest}\n"


@pytest.mark.slow
def test_a_compiled_part_counts_by_what_it_compiles():
    def around(part):
        compiled = torch.compile(nn.Sequential(part), backend="eager")
        return Network("net", nn.Sequential(compiled), Preprocessing(input_size=8))

    one = around(small()[0])
    assert one.probe(["0"]).unknown == ()
    assert one.digest == around(small()[0]).digest
    assert one.digest != around(nn.Conv2d(3, 3, 3)).digest


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


def test_recurrent_layers_are_known_by_their_content():
    """Torch keeps weak references to their weights."""

    def network(seed):
        torch.manual_seed(seed)
        module = nn.Sequential(nn.Flatten(2), nn.LSTM(64, 5, batch_first=True))
        return Network("recurrent", module, Preprocessing(input_size=8))

    first, same, other = (network(seed).probe(["1"]) for seed in (0, 0, 1))
    assert first.unknown == ()
    assert first.digest == same.digest != other.digest
