import hashlib
import zipfile

import numpy as np
import pytest
import xarray as xr
from numbered import number_of, rectangle_of

from ce_align.data.importers import brainio
from ce_align.errors import ConfigError, DataError
from ce_align.files import import_xarray

N_IMAGES, N_REPETITIONS, N_NEUROIDS, N_BINS = 5, 3, 4, 3


@pytest.fixture
def triple(tmp_path, rng, write_images):
    """A triple as Brain-Score stores it, with shuffled presentations; its values."""
    import_xarray()
    names = [f"pic{k}.png" for k in range(N_IMAGES)]
    images = write_images(names)
    folder = tmp_path / "triple"
    folder.mkdir()
    with zipfile.ZipFile(folder / "stimulus_toy_set.zip", "w") as archive:
        for name in names:
            archive.write(images / name, name)
    lines = [f"{k % 2},s{k},{name}" for k, name in enumerate(names)]
    (folder / "stimulus_toy_set.csv").write_text(
        "object_name,stimulus_id,filename\n" + "\n".join(lines[::-1]) + "\n"
    )
    values = rng.normal(size=(N_IMAGES, N_REPETITIONS, N_NEUROIDS, N_BINS))
    stimulus, repetition = map(np.ravel, np.indices(values.shape[:2]))
    order = rng.permutation(len(stimulus))
    stimulus, repetition = stimulus[order], repetition[order]
    ids = [f"s{k}" for k in stimulus]
    dataset = xr.Dataset(
        {
            "data": (
                ("presentation", "neuroid", "time_bin"),
                values[stimulus, repetition],
            )
        },
        coords={
            "stimulus_id": (
                "presentation",
                np.array(ids, object),
            ),
            "repetition": ("presentation", repetition),
            "neuroid_id": ("neuroid", np.array(list("1212"), object)),
            "subject": ("neuroid", np.array(list("AABB"), object)),
            "region": ("neuroid", np.array(["IT", "V4", "IT", "IT"], object)),
            "reliability": ("neuroid", np.array([0.1, 0.2, 0.3, 0.4])),
            "time_bin_start": ("time_bin", [70, 80, 90]),
            "time_bin_end": ("time_bin", [80, 90, 100]),
        },
        attrs={"stimulus_set_identifier": "toy.set", "image_size_degree": 5.0},
    )
    dataset.to_netcdf(folder / "assy_toy.nc", engine="netcdf4")
    return folder, values, dataset


def planted(recording, values):
    """Values in the order of the recording's images."""
    return values[[number_of(recording.images, k) for k in range(N_IMAGES)]]


def test_a_triple_keeps_what_its_coordinates_say(triple, read):
    folder, values, _ = triple
    recording = read(folder, window=(70, 100))
    assert recording.neuroid_ids == ("A/1", "A/2", "B/1", "B/2")
    assert (recording.animals, recording.regions) == (("A", "B"), ("IT", "V4"))
    assert recording.neuroids["reliability"].tolist() == [0.1, 0.2, 0.3, 0.4]
    assert (recording.degrees, recording.window) == (5, (70, 100))
    assert recording.images.ids == ("s4", "s3", "s2", "s1", "s0")
    assert recording.images.columns["object_name"].tolist() == list("01010")
    expected = planted(recording, values).mean(axis=3)
    assert np.allclose(rectangle_of(recording), expected, atol=1e-15)
    only = read(folder / "assy_toy.nc", window=(80, 90), region="V4")
    assert np.array_equal(
        rectangle_of(only)[:, :, 0], planted(only, values)[:, :, 1, 1]
    )


def test_time_bins_are_kept_where_no_window_is_asked_for(triple, read):
    folder, values, _ = triple
    recording = read(folder)
    assert recording.time_bins.tolist() == [[70, 80], [80, 90], [90, 100]]
    found = recording.presentations()
    expected = planted(recording, values)[found.stimulus, found.repetition]
    assert np.array_equal(found.values, expected)
    with pytest.raises(ConfigError, match="must be made of its time bins"):
        read(folder, window=(75, 90))


@pytest.mark.brainscore
def test_a_file_that_brainscore_writes_is_read(read, triple):
    from brainscore_core.supported_data_standards.brainio import assemblies, packaging

    folder, values, dataset = triple
    assembly = assemblies.NeuroidAssembly(
        dataset["data"].values,
        coords={name: (c.dims, c.values) for name, c in dataset.coords.items()},
        dims=dataset["data"].dims,
    )
    assembly.attrs["stimulus_set_identifier"] = "toy.set"
    (folder / "assy_toy.nc").unlink()
    packaging.write_netcdf(assembly, str(folder / "assy_toy.nc"))
    recording = read(folder, window=(70, 100))
    expected = planted(recording, values).mean(axis=3)
    assert np.allclose(rectangle_of(recording), expected, atol=1e-15)


def cached(folder, home):
    """The triple as Brain-Score's cache has it: each file below its SHA-1."""
    for path in folder.iterdir():
        place = home / hashlib.sha1(path.read_bytes()).hexdigest()
        place.mkdir(parents=True)
        (place / path.name).write_bytes(path.read_bytes())
    return next(home.glob("*/assy_toy.nc"))


def test_a_cache_is_read_and_its_sums_are_checked(triple, read, tmp_path, monkeypatch):
    folder, _, _ = triple
    path = cached(folder, tmp_path / "home")
    whole = read(folder).digest
    assert read(path).digest == read(tmp_path / "home").digest == whole
    table = next((tmp_path / "home").glob("*/*.csv"))
    table.write_text(table.read_text().replace("0,s0", "1,s0"))
    with pytest.raises(DataError, match=r"stimulus_toy_set.csv has the SHA-1"):
        read(path)
    monkeypatch.setitem(brainio.STATED_SHA1, "assy_toy.nc", "0" * 40)
    with pytest.raises(
        DataError, match=r"assy_toy.nc has the SHA-1 .* 0{40} is stated"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda d: d.drop_vars("stimulus_id"), "no coordinate stimulus_id"),
        (lambda d: d.drop_vars("neuroid_id"), "no coordinate neuroid_id"),
        (lambda d: d.drop_vars("time_bin_end"), "no coordinate time_bin_end"),
        (lambda d: d.rename(data="rates"), "no variable 'data'"),
        (lambda d: d.rename_dims(neuroid="unit"), "must be .presentation, neuroid"),
        (lambda d: d.assign_attrs(stimulus_set_identifier="x"), "stimulus_x.csv"),
        (lambda d: d.assign_attrs(stimulus_set_identifier=""), "no attribute stimulus"),
    ],
)
def test_a_file_that_lacks_something_is_named_with_it(triple, read, spoil, expected):
    folder, _, dataset = triple
    (folder / "assy_toy.nc").unlink()
    spoil(dataset).to_netcdf(folder / "assy_toy.nc", engine="netcdf4")
    with pytest.raises(DataError, match=expected):
        read(folder)


def test_a_damaged_file_is_one_line(triple, read):
    folder, _, _ = triple
    path = folder / "assy_toy.nc"
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(DataError, match="damaged or no netCDF file"):
        read(folder)
