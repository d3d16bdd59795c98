import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.data import named as module
from ce_align.data.imagesets import ImageSet
from ce_align.data.joining import equal_files, equal_pixels, join_equal_images
from ce_align.data.named import Entry, expand_recordings, load_recording
from ce_align.data.netcdf import read_recording, write_recording
from ce_align.data.recordings import Recording, canonical_region
from ce_align.errors import ConfigError, DataError
from ce_align.files import import_xarray


def make_images(n, **columns):
    array = np.random.default_rng(n).integers(0, 255, (n, 6, 5, 3), np.uint8)
    return ImageSet.from_array("toy", array, columns=columns)


def make_recording(n_stimuli=6, n_repetitions=3, n_neuroids=4, seed=0, **changes):
    rng = np.random.default_rng(seed)
    responses = rng.poisson(5, (n_stimuli, n_repetitions, n_neuroids)).astype(float)
    fields = {
        "identifier": "toy",
        "images": make_images(n_stimuli),
        "responses": responses,
        "neuroid_ids": tuple(f"n{i}" for i in range(n_neuroids)),
        "region": "V4",
    }
    return Recording(**(fields | changes))


def with_value(value, *index):
    responses = make_recording().responses.copy()
    responses[index] = value
    return responses


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"images": make_images(5)}, r"must be \(stimulus, repetition, neuroid\)"),
        ({"neuroid_ids": ("a",)}, r"must be \(stimulus, repetition, neuroid\)"),
        ({"responses": np.zeros((6, 4))}, r"must be \(stimulus, repetition, neuroid"),
        ({"responses": np.zeros((6, 0, 4))}, "is empty"),
        ({"neuroid_ids": ("a", "a", "b", "c")}, "neuroid ids of toy must be unique"),
        ({"responses": with_value(np.inf, 0, 0, 0)}, "1 infinite"),
        ({"responses": with_value(np.nan, ..., 2)}, r"1 of 4 .* no response.*: n2"),
        ({"responses": with_value(3.0, ..., 1)}, "1 of 4 .* respond equally.*: n1"),
        ({"degrees": 0}, "degrees must be positive"),
        ({"degrees": 224}, "at most 180, found 224"),
        ({"stratify": "object_name"}, "no column 'object_name'"),
    ],
)
def test_each_fault_of_a_recording_has_its_own_error(changes, expected):
    with pytest.raises(DataError, match=expected):
        make_recording(**changes)


def test_averages_skip_missing_repetitions():
    responses = with_value(np.nan, 2, 1, 3)
    averaged = make_recording(responses=responses).averaged()
    assert averaged[2, 3] == responses[2, [0, 2], 3].mean()
    assert np.array_equal(averaged[0], responses[0].mean(axis=0))


def test_stimuli_without_any_response_are_named():
    recording = make_recording(responses=with_value(np.nan, 2, slice(None), 3))
    with pytest.raises(DataError, match="1 stimuli \\(toy_00002\\)"):
        recording.averaged()


def test_strata_come_from_the_recording_or_the_caller():
    images = make_images(6, object_name=np.array(list("aabbcc")), pose=np.arange(6))
    recording = make_recording(images=images, stratify="object_name")
    assert list(recording.strata()) == list("aabbcc")
    assert list(recording.strata("pose")) == list("012345")
    assert recording.strata("none") is None
    with pytest.raises(ConfigError, match="choose from"):
        recording.strata("size")


@pytest.mark.parametrize("place", ["inside", "beside"])
def test_a_written_recording_is_read_back_whole(tmp_path, place):
    columns = {"object_name": np.array(list("aabbcc")), "pose": np.arange(6) / 7}
    recording = make_recording(
        images=make_images(6, **columns),
        responses=with_value(np.nan, 2, 1, 3),
        stratify="object_name",
        degrees=5.0,
    )
    write_recording(recording, tmp_path / "toy.nc", images=place)
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    for path in list(tmp_path.glob("toy*")):
        path.rename(moved / path.name)
    back = read_recording(moved / "toy.nc")
    assert back.digest == recording.digest
    assert np.array_equal(back.responses, recording.responses, equal_nan=True)
    assert np.array_equal(back.images.columns["pose"], columns["pose"])
    assert np.array_equal(back.images.load(3), recording.images.load(3))
    assert (back.degrees, back.stratify, back.region) == (5.0, "object_name", "V4")


@pytest.mark.slow
@given(
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from("abc\u00e9"),
)
def test_any_shape_survives_the_file(tmp_path_factory, n, repetitions, neuroids, name):
    path = tmp_path_factory.mktemp("r") / "toy.nc"
    rng = np.random.default_rng(0)
    recording = make_recording(
        n + 1,
        repetitions,
        neuroids,
        identifier=name,
        responses=rng.normal(size=(n + 1, repetitions, neuroids)),
    )
    write_recording(recording, path)
    assert read_recording(path).digest == recording.digest


def test_changed_files_are_noticed(tmp_path):
    import netCDF4

    path = tmp_path / "toy.nc"
    write_recording(make_recording(), path)
    with netCDF4.Dataset(path, "a") as dataset:
        dataset["responses"][0, 0, 0] += 1
    with pytest.raises(DataError, match="changed after it was written"):
        read_recording(path)


def test_files_that_are_not_recordings_are_refused(tmp_path):
    (tmp_path / "text.nc").write_text("hello")
    with pytest.raises(DataError, match="not a netCDF file"):
        read_recording(tmp_path / "text.nc")
    with pytest.raises(DataError, match="no recording at"):
        read_recording(tmp_path / "absent.nc")
    xr = import_xarray()
    xr.Dataset({"x": ("a", [1, 2])}).to_netcdf(tmp_path / "other.nc")
    with pytest.raises(DataError, match="not a recording of ce_align"):
        read_recording(tmp_path / "other.nc")


def test_images_left_behind_are_missed(tmp_path):
    write_recording(make_recording(), tmp_path / "toy.nc", images="beside")
    (tmp_path / "toy.images.zip").unlink()
    with pytest.raises(DataError, match=r"should be beside it.*toy\.images\.zip"):
        read_recording(tmp_path / "toy.nc")


def test_digest_sees_every_part_of_a_recording():
    columns = {"object_name": np.array(list("aabbcc"))}
    variants = [
        make_recording(),
        make_recording(responses=with_value(99.0, 0, 0, 0)),
        make_recording(region="IT"),
        make_recording(degrees=5),
        make_recording(neuroid_ids=tuple("abcd")),
        make_recording(images=make_images(6, **columns)),
        make_recording(images=make_images(6).on_screen(5, 8)),
        make_recording(window=(70.0, 170.0)),
        make_recording(split=np.array(["train"] * 4 + ["test"] * 2)),
        make_recording(neuroids={"animal": np.array(list("ffnn"))}),
    ]
    assert len({recording.digest for recording in variants}) == len(variants)
    assert make_recording(identifier="other name").digest == variants[0].digest


@pytest.fixture
def toy_registry(monkeypatch):
    entries = {
        name: Entry(name, "IT", load=make_recording, groups=("it",))
        for name in ("majaj", "sanghavi", "sanghavi2")
    }
    monkeypatch.setattr(module, "RECORDINGS", entries)


@pytest.mark.usefixtures("toy_registry")
def test_patterns_expand_to_names_once(tmp_path):
    assert expand_recordings(("it", "majaj")) == ["majaj", "sanghavi", "sanghavi2"]
    assert expand_recordings(("sang*",)) == ["sanghavi", "sanghavi2"]
    for name in ("b.nc", "a.nc"):
        write_recording(make_recording(), tmp_path / name)
    found = expand_recordings((str(tmp_path / "*.nc"),))
    assert [load_recording(name).region for name in found] == ["V4", "V4"]
    assert found == sorted(found)


@pytest.mark.usefixtures("toy_registry")
def test_an_unknown_recording_lists_the_nearest():
    with pytest.raises(ConfigError, match="'sangavi'; nearest: sanghavi"):
        load_recording("sangavi")


def make_copied(**changes):
    """Six stimuli; 4 shows the image of 1, and 5 that of 2."""
    array = np.random.default_rng(6).integers(0, 255, (6, 6, 5, 3), np.uint8)
    array[4], array[5] = array[1], array[2]
    columns = {"object_name": np.array(list("abcdbc")), "trial": np.arange(6)}
    images = ImageSet.from_array("toy", array, columns=columns)
    return make_recording(images=images, **changes)


def test_rows_of_equal_images_are_repetitions_of_one_stimulus():
    recording = make_copied(stratify="object_name")
    first = equal_files(recording.images)
    assert first.tolist() == equal_pixels(recording.images).tolist()
    assert first.tolist() == [0, 1, 2, 3, 1, 2]
    joined = join_equal_images(recording, first)
    assert joined.images.ids == recording.images.ids[:4]
    assert joined.responses.shape == (4, 6, 4)
    for row, copy in ((1, 4), (2, 5)):
        both = recording.responses[[row, copy]].reshape(6, 4)
        assert np.array_equal(joined.responses[row], both)
    assert np.array_equal(joined.responses[0, :3], recording.responses[0])
    assert np.isnan(joined.responses[0, 3:]).all()
    assert list(joined.strata()) == list("abcd")
    assert "trial" not in joined.images.columns
    assert "4 rows show 2 images more than once" in joined.notes[0]
    distinct = make_recording()
    assert join_equal_images(distinct, equal_pixels(distinct.images)) is distinct


def test_padding_does_not_part_the_repetitions_of_joined_rows():
    responses = make_copied().responses.copy()
    responses[1, 1:], responses[4, 2:] = np.nan, np.nan
    joined = join_equal_images(
        make_copied(responses=responses), equal_files(make_copied().images)
    )
    shown = np.concatenate([responses[1, :1], responses[4, :2]])
    assert np.array_equal(joined.responses[1, :3], shown)
    assert np.isnan(joined.responses[1, 3:]).all()


def test_a_file_with_equal_images_is_read_as_one_stimulus_each(tmp_path):
    recording = make_copied()
    write_recording(recording, tmp_path / "toy.nc")
    back = read_recording(tmp_path / "toy.nc")
    expected = join_equal_images(recording, equal_files(recording.images))
    assert back.digest == expected.digest
    assert back.notes == expected.notes
    # Files of version 0.1 do not say whether their images are distinct.
    import netCDF4

    for name, fresh in (("toy.nc", expected), ("other.nc", make_recording())):
        path = tmp_path / name
        if not path.exists():
            write_recording(fresh, path)
        with netCDF4.Dataset(path, "a") as dataset:
            dataset.delncattr("distinct_images")
            dataset.delncattr("notes")
        assert read_recording(path).digest == fresh.digest


def test_a_repetition_is_one_only_if_a_neuroid_saw_it_twice():
    responses = make_recording().responses.copy()
    responses[:, 1:] = np.nan
    assert not make_recording(responses=responses).has_repetitions
    responses[2, 2, 1] = 3.0
    assert make_recording(responses=responses).has_repetitions


def test_equal_averages_that_differ_by_rounding_are_silence():
    responses = np.full((6, 3, 4), np.nan)
    responses[:, :, 0] = 0.1
    responses[3, 2, 0] = np.nan
    responses[:, 0, 1:] = np.random.default_rng(0).normal(size=(6, 3))
    images = make_images(6)
    left = Recording.without_silent("toy", images, responses, tuple("abcd"), "IT")
    assert left.neuroid_ids == ("b", "c", "d")
    assert left.notes == ("1 of 4 neuroids are silent and left out: a",)
    assert np.array_equal(left.responses, responses[:, :, 1:], equal_nan=True)
    again = Recording.without_silent("toy", images, left.responses, tuple("bcd"), "IT")
    assert again.notes == ()


@pytest.mark.parametrize(
    ("given", "expected"), [("v4", "V4"), (" It", "IT"), ("PIT", "PIT"), ("V1", "V1")]
)
def test_regions_are_known_in_any_case(given, expected):
    assert canonical_region(given) == expected
