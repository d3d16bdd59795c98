"""Features from files score as the network that they are from."""

import csv
import re

import numpy as np
import pytest

import ce_align as ce
from ce_align.errors import ConfigError, DataError
from ce_align.files import import_xarray
from ce_align.models.given import FeatureArray, load_features

SMALL = {"components": 3, "splits": 2}
IDS = [f"image_{k}" for k in range(40)]


@pytest.fixture
def features(rng):
    return rng.normal(size=(40, 12)).astype(np.float32)


@pytest.fixture
def recording(features, rng):
    signal = features @ rng.normal(size=(12, 3))
    responses = signal[:, None] + 0.3 * rng.normal(size=(40, 4, 3))
    pixels = rng.integers(0, 256, (40, 4, 4, 3), np.uint8)
    images = ce.ImageSet.from_array("toy", pixels, ids=IDS)
    return ce.make_recording(responses, images, "IT", name="toy", origin="simulated")


def raw(name, recording, folder, **settings):
    outcome = ce.score(name, recording, results=folder, **SMALL, **settings)
    return [row.raw for row in outcome.rows]


def write_npy(path, values, ids):
    np.save(path, values)


def write_npz(path, values, ids):
    np.savez(path, deep=values, shallow=values[:, ::2], stimulus_id=np.array(ids))


def write_h5(path, values, ids):
    import h5py

    with h5py.File(path, "w") as file:
        file["net/deep"] = values
        file["stimulus_id"] = ids


def write_nc(path, values, ids):
    xarray = import_xarray()
    layers = np.array(["deep"] * 12 + ["wide"] * 12)
    both = np.concatenate([values, values[:, ::-1]], axis=1)
    coordinates = {
        "stimulus_id": ("presentation", np.array(ids, dtype=object)),
        "layer": ("neuroid", layers.astype(object)),
    }
    dims = ("presentation", "neuroid")
    array = xarray.DataArray(both, dims=dims, coords=coordinates, name="activations")
    array.to_netcdf(path, engine="netcdf4")


def write_safetensors(path, values, ids):
    import torch
    from safetensors.torch import save_file

    save_file({"deep": torch.from_numpy(values.copy())}, path)


def write_table(path, ids, header="stimulus_id"):
    with path.open("w", newline="") as file:
        rows = [[k, name] for k, name in enumerate(ids)]
        csv.writer(file).writerows([["", header], *rows] if header else rows)


WRITERS = {
    ".npy": (write_npy, "features"),
    ".npz": (write_npz, "deep"),
    ".h5": (write_h5, "net/deep"),
    ".nc": (write_nc, "deep"),
    ".safetensors": (write_safetensors, "deep"),
}


@pytest.mark.parametrize("suffix", WRITERS)
def test_a_file_of_any_order_scores_as_its_array(
    suffix, features, recording, tmp_path, rng
):
    write, layer = WRITERS[suffix]
    order = rng.permutation(40)
    ids = [IDS[k] for k in order]
    path = tmp_path / f"features{suffix}"
    write(path, features[order], ids)
    name = f"features:{path}"
    if suffix in (".npy", ".safetensors"):
        write_table(tmp_path / "ids.csv", ids)
        name += f":{tmp_path / 'ids.csv'}"
    expected = raw(features, recording, tmp_path / "a")
    assert raw(name, recording, tmp_path / "b", layer=layer) == expected


def test_layers_of_a_file_are_layers_of_a_network(features, recording, tmp_path):
    path = tmp_path / "features.npz"
    write_npz(path, features, IDS)
    outcome = ce.score(
        f"features:{path}", recording, layer="all", results=tmp_path, **SMALL
    )
    assert [row.layer for row in outcome.rows] == ["deep", "shallow"]
    (row,) = ce.score(
        f"features:{path}", recording, layer="d*", results=tmp_path, **SMALL
    ).rows
    assert row.layer == "deep"
    with pytest.raises(ConfigError, match=r"several|commits no layer.*deep, shallow"):
        ce.score(f"features:{path}", recording, results=tmp_path, **SMALL)


@pytest.mark.parametrize("header", ["stimulus_id", None])
@pytest.mark.parametrize("suffix", ["", ".png"])
def test_a_table_may_have_a_header_and_names_of_files(
    header, suffix, features, recording, tmp_path
):
    np.save(tmp_path / "f.npy", features[::-1])
    table = tmp_path / "ids.csv"
    write_table(table, [f"{name}{suffix}" for name in IDS[::-1]], header)
    name = f"features:{tmp_path / 'f.npy'}:{table}"
    assert raw(name, recording, tmp_path) == raw(features, recording, tmp_path / "b")


def test_what_the_recording_does_not_show_is_left_out(features, recording, tmp_path):
    more = np.concatenate([features[:1] + 1, features])
    given = FeatureArray("mine", more, ids=["extra", *IDS])
    assert raw(given, recording, tmp_path) == raw(features, recording, tmp_path / "b")


def test_rows_that_were_matched_by_order_say_so(features, recording, tmp_path):
    ordered = ce.score(features, recording, results=tmp_path, **SMALL).rows[0]
    given = FeatureArray("named", features, ids=IDS)
    named = ce.score(given, recording, results=tmp_path, **SMALL).rows[0]
    assert "in the order of the stimuli" in ordered.note
    assert "in the order of the stimuli" not in named.note


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([*IDS[:39], "image_x"], "no features of 1 of 40 stimuli of toy.*image_39"),
        ([*IDS, IDS[3]], r"must be unique.*image_3"),
        (IDS[:39], "40 stimuli, but 39 ids"),
    ],
)
def test_ids_that_do_not_fit_are_one_line(ids, message, features, recording, tmp_path):
    values = features if len(ids) != 41 else np.concatenate([features, features[:1]])
    with pytest.raises(DataError, match=message) as refusal:
        raw(FeatureArray("mine", values, ids=ids), recording, tmp_path)
    assert "\n" not in str(refusal.value)


def test_identity_is_content_whatever_the_file_is_called(features, tmp_path):
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", features)
    np.save(tmp_path / "c.npy", features + 1)
    a, b, c = (load_features(f"features:{tmp_path}/{n}.npy").digest for n in "abc")
    assert a == b == FeatureArray("array", features).digest
    assert c != a
    assert FeatureArray("named", features, ids=IDS).digest != a


@pytest.mark.parametrize(
    ("content", "kind", "message"),
    [
        ("f.txt", ConfigError, "no file of features; expected one of .npy"),
        ("missing.npy", ConfigError, "there is no file"),
        (b"no array", DataError, "f.npy is damaged or no .npy file"),
        (np.zeros(4), DataError, r"no features \(n_stimuli, n_features\)"),
        (np.array([{"a": 1}]), DataError, "f.npy is damaged or no .npy file"),
        (np.full((4, 2), np.nan), DataError, "8 NaN or infinite"),
    ],
)
def test_a_file_that_holds_no_features_is_one_line(content, kind, message, tmp_path):
    path = tmp_path / "f.npy"
    if isinstance(content, str):
        path = tmp_path / content
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(kind, match=message) as refusal:
        load_features(f"features:{path}")
    assert "\n" not in str(refusal.value)


def test_ids_in_a_file_that_repeat_are_no_reason_to_guess(
    features, recording, tmp_path
):
    write_npz(tmp_path / "f.npz", features, [*IDS[:39], IDS[0]])
    with pytest.raises(DataError, match="no features of 1 of 40 stimuli"):
        raw(f"features:{tmp_path}/f.npz", recording, tmp_path, layer="deep")
    more = np.concatenate([features, features[:1]])
    write_npz(tmp_path / "g.npz", more, [*IDS, IDS[0]])
    with pytest.raises(DataError, match=r"must be unique.*image_0"):
        raw(f"features:{tmp_path}/g.npz", recording, tmp_path, layer="deep")


def test_a_table_of_another_length_is_refused(features, tmp_path):
    np.save(tmp_path / "f.npy", features)
    write_table(tmp_path / "ids.csv", IDS[:20])
    with pytest.raises(DataError, match=r"21 lines; expected one for each of 40 rows"):
        load_features(f"features:{tmp_path}/f.npy:{tmp_path}/ids.csv")


def test_features_are_no_network_that_could_be_shown_views(features, tmp_path):
    np.save(tmp_path / "f.npy", features)
    name = f"features:{tmp_path}/f.npy"
    with pytest.raises(ConfigError, match="give a network for analyses"):
        ce.analyze(name, results=tmp_path, layer="features")
    with pytest.raises(ConfigError, match=re.escape("ce-align score --features")):
        ce.load_network(name)
