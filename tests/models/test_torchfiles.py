import collections
import datetime
import pickle
import struct
import sys
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from checkpoint_server import (
    authors_state,
    small_network,
    write_authors_checkpoint,
)
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import DataError
from ce_align.models.torchfiles import read_torch_file


def written(path: Path, pickled: bytes, **storages: bytes) -> Path:
    """File of torch.save whose pickle is stated."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", pickled)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key[1:]}", content)
    return path


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


def test_zip_with_two_entries_of_one_name_is_refused(tmp_path):
    path = written(tmp_path / "twice.pt", pickle.dumps({}, 2))
    with (
        zipfile.ZipFile(path, "a") as archive,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        archive.writestr("archive/data.pkl", pickle.dumps({"other": 1}, 2))
    with pytest.raises(DataError, match="two entries of one name"):
        read_torch_file(path)


def test_names_that_lead_out_of_the_archive_are_never_written(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    path = written(folder / "path.pt", pickle.dumps({"a": 1}, 2))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("../evil", "archive/data/../../../evil", f"{tmp_path}/evil"):
            archive.writestr(name, b"evil")
    assert read_torch_file(path) == {"a": 1}
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["folder", "path.pt"]


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


def test_random_generators_of_either_numpy_stand_around_weights(tmp_path):
    """A generator's seed, which NumPy 2 rebuilds by a function of its own."""
    seed = (
        b"cnumpy.random.bit_generator\n__pyx_unpickle_SeedSequence\n"
        b"(cnumpy.random.bit_generator\nSeedSequence\nI1\nNtR(dV_state\nNsb"
    )
    path = written(tmp_path / "file.pt", b"(dVmodel\n(dsVrng\n" + seed + b"s.")
    assert read_torch_file(path, lambda content: content["model"]) == {}
    with pytest.raises(DataError, match="stands where tensors should be"):
        read_torch_file(path, lambda content: content["rng"])


def test_authors_checkpoint_is_read_whatever_stands_around_the_weights(tmp_path):
    network = small_network()
    write_authors_checkpoint(tmp_path / "composer", network)
    loaded = set(sys.modules)
    found = read_torch_file(tmp_path / "composer", lambda c: c["state"]["model"])
    expected = authors_state(network)
    assert found.keys() == expected.keys()
    assert torch.equal(found["module.f.conv1.0.weight"], network.conv1[0].weight)
    assert not {"composer", "lab"} & (set(sys.modules) - loaded)
    for part in ("callbacks", "timestamp", "train_metrics"):
        with pytest.raises(DataError, match="stands where tensors should be"):
            read_torch_file(tmp_path / "composer", lambda c, p=part: c["state"][p])


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
