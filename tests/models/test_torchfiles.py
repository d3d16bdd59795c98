import builtins
import collections
import datetime
import importlib
import os
import pickle
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.models.torchfiles import read_torch_file


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def written(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """File of torch.save whose pickle is stated."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key[1:]}", content)
    return path


def dumped(value, protocol=2) -> bytes:
    return pickle.dumps({"state": {"model": {}, "integrations": value}}, protocol)


def named(module: str, name: str, arguments: bytes = b")") -> bytes:
    """Pickle that calls something by its name, importable here or not."""
    head = b"\x80\x02c" + f"{module}\n{name}\n".encode()
    return head + arguments + b"R."


def stacked(module: str, name: str, arguments: bytes) -> bytes:
    """The same with the instruction of protocol 4."""
    texts = b"".join(b"\x8c" + bytes([len(t)]) + t.encode() for t in (module, name))
    return b"\x80\x04" + texts + b"\x93" + arguments + b"R."


TOUCH = b"X\x08\x00\x00\x00touch ./\x85"
STORAGE = b"(X\x07\x00\x00\x00storageq\x00ctorch\nFloatStorage\nX\x01\x00\x00\x000"
PLACE = b"X\x03\x00\x00\x00cpu"


def tensor(n_elements: bytes, offset: bytes, size: bytes, stride: bytes) -> bytes:
    """Pickle of one float32 tensor that declares what is stated."""
    storage = STORAGE + PLACE + n_elements + b"tQ"
    flags = b"\x89ccollections\nOrderedDict\n)R"
    body = b"(" + storage + offset + size + stride + flags + b"t"
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n" + body + b"R."


MINUS = b"J\xff\xff\xff\xff\x85"
TERA = b"\x8a\x06" + (2**40).to_bytes(6, "little")
HOSTILE = {
    "os.system": dumped(Calls(os.system, "touch here")),
    "os.system, protocol 0": dumped(Calls(os.system, "touch here"), 0),
    "os.system, protocol 4": dumped(Calls(os.system, "touch here"), 4),
    "os.system, protocol 5": dumped(Calls(os.system, "touch here"), 5),
    "posix": named("posix", "system", TOUCH),
    "nt": named("nt", "system", TOUCH),
    "eval": dumped(Calls(eval, "open('here', 'w')")),
    "exec": dumped(Calls(exec, "open('here', 'w')")),
    "__import__": dumped(Calls(builtins.__import__, "canary")),
    "import_module": dumped(Calls(importlib.import_module, "canary")),
    "getattr": dumped(Calls(getattr, "", "join")),
    "open": dumped(Calls(open, "here", "w")),
    "python 2 builtins": named("__builtin__", "eval", TOUCH),
    "Popen": dumped(Calls(subprocess.Popen, ["touch", "here"])),
    "write_text": dumped(Calls(Path.write_text, Path("here"), "")),
    "nested": dumped([{"a": (1, [Calls(os.system, "touch here")])}]),
    "as argument": dumped(Calls(list, Calls(os.system, "touch here"))),
    "inside OrderedDict": dumped(collections.OrderedDict(a=Calls(eval, "1"))),
    "canary import": named("canary", "Thing"),
    "dotted name": stacked("composer.core", "os.system", TOUCH),
    "function of a trainer": stacked("composer.utils", "run_command", TOUCH),
    "torch.load": named("torch", "load", TOUCH),
    "torch.hub.load": named("torch.hub", "load", TOUCH),
    "bytes as storage": named("torch.storage", "_load_from_bytes", TOUCH),
    "typed rebuild": named("torch._tensor", "_rebuild_from_type_v2", TOUCH),
    "numpy runstring": named("numpy.testing._private.utils", "runstring", TOUCH),
    "timeit": named("timeit", "timeit", TOUCH),
    "runpy": named("runpy", "_run_code", TOUCH),
    "partial": named("functools", "partial", TOUCH),
    "pip": named("pip", "main", TOUCH),
    "pandas": named("pandas", "read_pickle", TOUCH),
    "call of a result": named("collections", "OrderedDict")[:-1] + TOUCH + b"R.",
    "instance by INST": b"(X\x01\x00\x00\x00ai" + b"os\nsystem\n.",
    "instance by OBJ": b"(cos\nsystem\nX\x01\x00\x00\x00ao.",
    "extension registry": b"\x80\x02\x82\x01.",
    "text persistent id": b"Pstorage\n.",
    "attributes of a name": b"\x80\x02ccollections\nOrderedDict\n}b.",
    "module as state": b"\x80\x02cposixpath\nos\n.",
    "giant storage": tensor(TERA, b"K\x00", TERA + b"\x85", b"K\x01\x85"),
    "overlapping strides": tensor(b"K\x01", b"K\x00", TERA + b"\x85", b"K\x00\x85"),
    "beyond its storage": tensor(b"K\x01", b"K\x01", b"K\x01\x85", b"K\x01\x85"),
    "negative stride": tensor(
        b"K\x01", b"K\x00", b"K\x01\x85", b"J\xff\xff\xff\xff\x85"
    ),
    "size no tuple": tensor(b"K\x01", b"K\x00", b"K\x01", b"K\x01\x85"),
    "giant bytearray": dumped(Calls(bytearray, 10**13)),
    "giant bytes declared": b"\x80\x04\x8e" + struct.pack("<Q", 2**50) + b"a.",
    "giant memo index": b"\x80\x02Nr\xff\xff\xff\xff0.",
    "keys that nest": b"\x80\x02})" + b"2\x86" * 60 + b"Ns.",
    "depth": b"\x80\x02" + b"]" * 5000 + b"a" * 4999 + b".",
    "empty": b"",
    "no end": b"\x80\x02N",
    "no stack": b"\x80\x02R.",
}


@pytest.fixture
def canary(tmp_path, monkeypatch):
    """Folder in which anything that runs would leave a file."""
    folder = tmp_path / "canary"
    folder.mkdir()
    (folder / "canary.py").write_text("open('here', 'w')\nThing = list\n")
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    return folder


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickle_is_refused_in_one_line_and_runs_nothing(name, canary, tmp_path):
    path = written(tmp_path / "hostile.pt", HOSTILE[name], _0=bytes(4))
    modules = set(sys.modules)
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as refusal:
            read_torch_file(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    message = str(refusal.value)
    assert "\n" not in message and len(message) < 400
    assert [p.name for p in canary.iterdir()] == ["canary.py"]
    imported = set(sys.modules) - modules
    assert all(name.startswith("encodings.") for name in imported)
    assert peak < 20e6


def test_refusal_names_what_the_file_wanted(tmp_path):
    path = written(tmp_path / "hostile.pt", named("os", "system", TOUCH))
    with pytest.raises(DataError, match=r"hostile\.pt is refused: it names os\.system"):
        read_torch_file(path)


@pytest.mark.parametrize("name", ["os.system", "eval", "giant storage", "no end"])
def test_hostile_legacy_file_is_refused(name, canary, tmp_path):
    head = b"".join(
        pickle.dumps(part, 2)
        for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    )
    path = tmp_path / "legacy.pt"
    path.write_bytes(head + HOSTILE[name] + pickle.dumps(["0"], 2) + bytes(12))
    with pytest.raises(DataError):
        read_torch_file(path)
    assert [p.name for p in canary.iterdir()] == ["canary.py"]


def test_compressed_zip_is_refused(tmp_path):
    path = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(10**7))
    with pytest.raises(DataError, match="declares more than it holds"):
        read_torch_file(path)


def test_zip_whose_entries_overlap_is_refused(tmp_path):
    path = written(tmp_path / "whole.pt", pickle.dumps({}, 2), _0=bytes(4000))
    content = bytearray(path.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 20 : place + 28] = struct.pack("<II", 2**30, 2**30)
    path.write_bytes(content)
    with pytest.raises(DataError, match="declares more than it holds"):
        read_torch_file(path)


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/constants.pkl", pickle.dumps((), 2))
    with pytest.raises(DataError, match="TorchScript"):
        read_torch_file(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"\x80\x02", b"text", bytes(99)]
)
def test_other_files_are_refused_in_one_line(content, tmp_path):
    path = tmp_path / "other.pt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"other\.pt"):
        read_torch_file(path)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.99])
def test_truncated_file_is_refused(legacy, share, tmp_path):
    path = tmp_path / "cut.pt"
    values = {"a": torch.randn(100)}
    torch.save(values, path, _use_new_zipfile_serialization=not legacy)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(DataError):
        read_torch_file(path)


CONTENT = {
    "float": torch.randn(3, 4),
    "view": torch.randn(6, 4).t()[1:3],
    "expanded once": torch.randn(1, 4).expand(1, 4),
    "half": torch.randn(5).half(),
    "bfloat": torch.randn(5).bfloat16(),
    "integers": torch.arange(7),
    "truth": torch.tensor([True, False]),
    "scalar": torch.tensor(3.5),
    "empty": torch.empty(0, 3),
    "parameter": torch.nn.Parameter(torch.randn(2)),
    "list": [1, 2.5, None, True, "text", b"bytes", (1, (2,)), 2**70],
    "ordered": collections.OrderedDict([("b", torch.ones(1)), ("a", 2)]),
    "size": torch.Size([2, 3]),
}


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_content_equals_that_of_torch(legacy, protocol, tmp_path):
    path = tmp_path / "content.pt"
    torch.save(
        CONTENT,
        path,
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    found, expected = read_torch_file(path), torch.load(path, weights_only=False)
    assert list(found) == list(expected)
    for name, value in expected.items():
        if isinstance(value, torch.Tensor):
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value.data), name
        else:
            assert list(found[name]) == list(value), name


def test_tensors_that_share_memory_share_it_after_reading(tmp_path):
    whole = torch.arange(6.0)
    torch.save({"whole": whole, "part": whole[2:4]}, tmp_path / "shared.pt")
    found = read_torch_file(tmp_path / "shared.pt")
    found["whole"][2] = 40
    assert found["part"][0] == 40


def test_only_the_selected_part_is_read_and_other_objects_around_it_are_inert(
    tmp_path, monkeypatch
):
    clock = type("Timestamp", (), {"__module__": "composer.core.time"})
    for name in ("composer", "composer.core", "composer.core.time"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["composer.core.time"].Timestamp = clock
    now = clock()
    now.epoch = 100
    state = {
        "model": {"a": torch.ones(2)},
        "clock": now,
        "rng": ("MT19937", np.arange(624, dtype=np.uint32), 624, 0, 0.0),
        "loss": np.float64(0.5),
        "spent": datetime.timedelta(hours=15),
        "folder": Path("runs"),
        "tags": {"a", "b"},
    }
    torch.save({"state": state}, tmp_path / "trainer.pt")
    found = read_torch_file(tmp_path / "trainer.pt", lambda c: c["state"]["model"])
    assert torch.equal(found["a"], torch.ones(2))
    with pytest.raises(DataError, match=r"time\.Timestamp stands where"):
        read_torch_file(tmp_path / "trainer.pt")


def test_class_outside_the_known_trainers_is_refused(tmp_path):
    torch.save({"model": {}, "mine": Calls(Calls, len)}, tmp_path / "mine.pt")
    with pytest.raises(DataError, match="which is neither a tensor nor plain data"):
        read_torch_file(tmp_path / "mine.pt", lambda c: c["model"])


@pytest.mark.real
@pytest.mark.parametrize("depth", [20, 32, 44, 56])
def test_legacy_networks_equal_what_torch_reads(depth, real_data):
    (path,) = (real_data / "cifar10_resnets").glob(f"resnet{depth}-*.th")
    found = read_torch_file(path, lambda content: content["state_dict"])
    expected = torch.load(path, map_location="cpu")["state_dict"]
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.parametrize("legacy", [False, True])
def test_damaged_file_is_read_or_refused_but_never_fails_otherwise(
    legacy, rng, tmp_path
):
    path = tmp_path / "damaged.pt"
    content = {"a": torch.ones(5, 6), "b": [torch.arange(4)]}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    refused = 0
    for _ in range(600):
        damaged = whole.copy()
        places = rng.integers(0, len(whole), rng.integers(1, 6))
        damaged[places] = rng.integers(0, 256, len(places))
        path.write_bytes(damaged.tobytes())
        try:
            read_torch_file(path)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 60


@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6
    )
)
def test_damaged_pickle_is_read_or_refused_but_never_fails_otherwise(
    edits, tmp_path_factory
):
    folder = tmp_path_factory.getbasetemp()
    torch.save(CONTENT, folder / "valid.pt")
    with zipfile.ZipFile(folder / "valid.pt") as archive:
        pickled = bytearray(archive.read("valid/data.pkl"))
    for place, value in edits:
        pickled[int(place * len(pickled))] = value
    try:
        read_torch_file(written(folder / "edited.pt", bytes(pickled), _0=bytes(48)))
    except DataError as error:
        assert "\n" not in str(error)
