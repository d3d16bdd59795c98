import h5py
import numpy as np
import pytest
import scipy.io
from numbered import number_of, rectangle_of

from ce_align.data.importers import triplen
from ce_align.errors import ConfigError, DataError

N_NSD, N_ALL, N_UNITS = 6, 9, 4


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    """The layout is that of the data set, with fewer images."""
    monkeypatch.setattr(triplen, "N_NSD", N_NSD)
    monkeypatch.setattr(triplen, "N_ALL", N_ALL)


@pytest.fixture
def nsd(write_images):
    return write_images([f"nsd_{k}.png" for k in range(N_NSD)])


@pytest.fixture
def sessions(tmp_path, rng):
    """Two sessions of averages as MATLAB 5 files, and their responses."""
    folder = tmp_path / "sessions"
    folder.mkdir()
    planted = {}
    for number, animal in ((3, "M1"), (12, "M4")):
        fields = {
            name: rng.normal(size=(N_UNITS, N_ALL))
            for name in ("response_best", "response_basic")
        }
        fields |= {
            name: rng.random((1, N_UNITS))
            for name in ("reliability_best", "reliability_basic", "F_SI")
        }
        fields |= {"pos": np.arange(N_UNITS) * 100.0, "UnitType": np.ones(N_UNITS)}
        name = f"Processed_ses{number:02d}_240101_{animal}_1.mat"
        scipy.io.savemat(folder / name, fields)
        planted[number] = fields
    return folder, planted


def test_sessions_are_joined_with_their_animals_and_reliability(sessions, nsd, read):
    folder, planted = sessions
    recording = read(folder, images=nsd, region="IT")
    assert recording.animals == ("M1", "M4")
    assert recording.neuroid_ids[::4] == ("M1/3.0", "M4/12.0")
    assert [number_of(recording.images, k) for k in range(N_NSD)] == [*range(N_NSD)]
    for name, found in (
        ("response_best", recording.averaged().T),
        ("reliability_best", recording.neuroids["reliability"]),
    ):
        parts = [planted[number][name] for number in (3, 12)]
        parts = [part[:, :N_NSD] if part.ndim == 2 and len(part) > 1 else part.ravel()
                 for part in parts]  # fmt: skip
        assert np.array_equal(found, np.concatenate(parts))
    assert recording.degrees == 11
    basic = read(folder, images=nsd, region="IT", key=("responses=response_basic",))
    assert np.array_equal(
        basic.averaged()[:, :N_UNITS].T, planted[3]["response_basic"][:, :N_NSD]
    )


def test_areas_follow_the_depth_of_units(sessions, nsd, read, tmp_path):
    folder, planted = sessions
    areas = tmp_path / "areas.csv"
    areas.write_text(
        "SesIdx,y1,y2,AREALABEL,Area\n3,0,150,MSB1,IT\n3,151,250,v4,V4\n12,300,400,x,IT\n"
    )
    recording = read(folder, images=nsd, key=(f"areas={areas}",))
    assert recording.neuroid_ids == ("M1/3.0", "M1/3.1", "M1/3.2", "M4/12.3")
    assert recording.neuroids["region"].tolist() == ["IT", "IT", "V4", "IT"]
    only = read(folder, images=nsd, key=(f"areas={areas}",), region="V4")
    expected = planted[3]["response_best"][2, :N_NSD]
    assert np.array_equal(only.averaged()[:, 0], expected)
    areas.write_text("SesIdx,y1,y2\n3,0,150\n")
    with pytest.raises(DataError, match=r"must have the columns .* it lacks Area"):
        read(folder, images=nsd, key=(f"areas={areas}",))


@pytest.fixture
def units(tmp_path, rng):
    """One session of single trials as a MATLAB 7.3 file; trials and spikes."""
    shown = np.array([0, 1, 3, 2, 0, 6, 4, 5, 1, 8, 3, 2, 6, 9, 5, 4])
    valid = shown[shown > 0]
    rasters = rng.integers(0, 2, (N_UNITS, 450, len(valid))).astype(np.uint8)
    path = tmp_path / "GoodUnit_240101_x.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["global_params/pre_onset"] = [[50.0]]
        file["global_params/post_onset"] = [[400.0]]
        file["meta_data/trial_valid_idx"] = shown[:, np.newaxis].astype(float)
        references = np.empty((N_UNITS, 1), dtype=h5py.ref_dtype)
        for k, raster in enumerate(rasters):
            references[k, 0] = file.create_dataset(f"#refs#/r{k}", data=raster).ref
        file["GoodUnitStrc/Raster"] = references
    return path, valid, rasters


def test_spikes_of_single_trials_are_counted(units, nsd, read):
    path, valid, rasters = units
    recording = read(path, images=nsd, region="IT", animal="M2", window=(70, 370))
    assert recording.neuroid_ids[0] == "M2/0"
    counts = rasters[:, 120:420].sum(axis=1, dtype=int)
    assert counts.max() > 127
    for k in range(N_NSD):
        expected = counts[:, valid == number_of(recording.images, k) + 1].T
        assert np.array_equal(rectangle_of(recording)[k], expected)
    assert "2 failed trials and 2 of the localiser are left out" in "\n".join(
        read.lines
    )
    with pytest.raises(ConfigError, match="must lie in -50 to 400 ms"):
        read(path, images=nsd, region="IT", window=(70, 470))


def test_wrong_files_are_named_with_their_field(sessions, units, nsd, read, tmp_path):
    folder, planted = sessions
    path = folder / "Processed_ses03_240101_M1_1.mat"
    scipy.io.savemat(path, {"response_best": planted[3]["response_best"]})
    with pytest.raises(DataError, match="has no field reliability_best"):
        read(path, images=nsd, region="IT")
    scipy.io.savemat(path, planted[3] | {"response_best": np.zeros((4, 5))})
    with pytest.raises(DataError, match=r"response_best .* must be \(units, 9\)"):
        read(path, images=nsd, region="IT")
    path.write_bytes(b"MATLAB 5.0" + bytes(200))
    with pytest.raises(DataError, match="damaged or no MATLAB file"):
        read(path, images=nsd, region="IT")
    with h5py.File(units[0], "r+") as file:
        del file["meta_data/trial_valid_idx"]
    with pytest.raises(DataError, match="no field /meta_data/trial_valid_idx"):
        read(units[0], images=nsd, region="IT")
    (nsd / "nsd_0.png").unlink()
    with pytest.raises(DataError, match=r"must hold the 6 images of NSD.* found 5"):
        read(folder / "Processed_ses12_240101_M4_1.mat", images=nsd, region="IT")
    with pytest.raises(ConfigError, match="holds averages over windows"):
        read(folder, images=nsd, region="IT", window=(70, 170))
