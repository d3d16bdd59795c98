import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.data.imagesets import ImageSet
from ce_align.data.joining import join_equal_images
from ce_align.data.netcdf import describe_file, read_recording, write_recording
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.ceiling import repeated_ceiling, variance_ceiling


def make_images(n):
    array = np.random.default_rng(n).integers(0, 255, (n, 6, 5, 3), np.uint8)
    return ImageSet.from_array("toy", array)


def make_ragged(n_stimuli=12, most=7, n_neuroids=4, seed=0, **fields):
    """Two stimuli that are shown often, and others that are shown once."""
    rng = np.random.default_rng(seed)
    counts = np.ones(n_stimuli, dtype=int)
    counts[[3, 8]] = most
    stimulus = np.repeat(np.arange(n_stimuli), counts)
    repetition = np.concatenate([np.arange(count) for count in counts])
    values = rng.normal(size=(len(stimulus), n_neuroids)).astype(np.float32)
    order = rng.permutation(len(stimulus))
    shown = Presentations(values[order], stimulus[order], repetition[order])
    given = {
        "identifier": "ragged",
        "images": make_images(n_stimuli),
        "responses": shown,
        "neuroid_ids": tuple(f"n{i}" for i in range(n_neuroids)),
        "region": "V4",
    }
    return Recording(**(given | fields))


def rectangle_of(recording):
    stimuli = np.arange(len(recording.images))
    return recording.presentations().rectangle(stimuli)


@given(st.integers(0, 1000), st.integers(2, 6))
def test_presentations_average_as_the_rectangle_does(seed, n_repetitions):
    rng = np.random.default_rng(seed)
    rectangle = rng.normal(size=(5, n_repetitions, 3))
    rectangle[rng.random(rectangle.shape[:2]) < 0.4] = np.nan
    rectangle[:, 0] = rng.normal(size=(5, 3))
    held = Recording("toy", make_images(5), rectangle, tuple("abc"), "IT")
    shown = held.presentations()
    assert np.allclose(shown.averaged(5), held.averaged(), atol=1e-14)
    assert (
        np.isnan(shown.rectangle(np.arange(5))).sum()
        == np.isnan(rectangle[:, ~np.isnan(rectangle).all(axis=(0, 2))]).sum()
    )


@given(st.integers(0, 1000), st.integers(1, 5))
def test_presentations_have_the_digest_of_the_rectangle_that_they_fill(seed, n_rounds):
    rng = np.random.default_rng(seed)
    rectangle = rng.normal(size=(9, n_rounds, 2)).astype(np.float32)
    rectangle[rng.random(rectangle.shape) < 0.1] = np.nan
    rectangle[:5, -1] = np.arange(10).reshape(5, 2)
    rectangle[:, 0] = rng.normal(size=(9, 2))
    whole = Recording("toy", make_images(9), rectangle.astype(float), ("a", "b"), "IT")
    shown = whole.presentations()
    order = rng.permutation(len(shown.values))
    rows = shown.values[order].astype(np.float32)
    parts = Presentations(rows, shown.stimulus[order], shown.repetition[order])
    assert replace(whole, responses=parts).digest == whole.digest


def test_a_rectangle_in_blocks_has_the_digest_of_the_whole(monkeypatch):
    values = np.random.default_rng(0).normal(size=(40, 3))
    stimulus, repetition = np.divmod(np.arange(40), 2)
    held = Recording(
        "toy",
        make_images(20),
        Presentations(values, stimulus, repetition),
        tuple("abc"),
        "IT",
    )
    monkeypatch.setattr("ce_align.data.presentations.MOST_VALUES", 20)
    direct = replace(held, responses=values.reshape(20, 2, 3))
    assert held.digest == direct.digest


def test_the_order_of_presentations_is_no_part_of_a_digest():
    one, other = make_ragged(), make_ragged()
    order = np.random.default_rng(5).permutation(len(one.responses.values))
    held = other.responses
    moved = Presentations(
        held.values[order], held.stimulus[order], held.repetition[order]
    )
    changed = Presentations(held.values + 1, held.stimulus, held.repetition)
    assert make_ragged(responses=moved).digest == one.digest
    assert make_ragged(responses=changed).digest != one.digest


def test_one_content_has_one_digest_however_it_is_counted():
    one = make_ragged()
    held = one.responses
    counted = Presentations(held.values, held.stimulus, 10 * held.repetition + 1)
    empty = np.full((2, 4), np.nan, dtype=np.float32)
    padded = Presentations(
        np.concatenate([empty, held.values]),
        np.concatenate([[0, 3], held.stimulus]),
        np.concatenate([[50, 51], held.repetition]),
    )
    assert make_ragged(responses=counted).digest == one.digest
    assert make_ragged(responses=padded).digest == one.digest


@pytest.mark.slow
def test_memory_is_that_of_the_presentations_not_of_their_rectangle(tmp_path):
    write_recording(make_ragged(), tmp_path / "a.nc")  # what is imported is no cost
    tracemalloc.start()
    try:
        made = make_ragged(n_stimuli=2000, most=40, n_neuroids=300)
        repeated_ceiling(*made.repeated())
        write_recording(made, tmp_path / "a.nc")
        found = read_recording(tmp_path / "a.nc").select(neuroids=["n1", "n7"])
        found.averaged()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    rows, rectangle = made.responses.values.nbytes, 2000 * 40 * 300 * 8
    assert peak < 10 * rows < rectangle / 7


@given(st.integers(0, 1000))
def test_blocks_of_neuroids_average_as_all_together(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(9, 5, 200))
    values[1:][rng.random(values[1:].shape) < 0.3] = np.nan
    stimulus, repetition = np.arange(9) % 4, np.arange(9) // 4
    shown = Presentations(values, stimulus, repetition)
    rectangle = shown.rectangle(np.arange(4))
    n_shown = (~np.isnan(rectangle)).sum(axis=1)
    total = np.nansum(rectangle, axis=1)
    expected = np.where(n_shown, total / np.maximum(n_shown, 1), np.nan)
    assert np.allclose(shown.averaged(4), expected, equal_nan=True)


@pytest.mark.parametrize("seed", range(3))
def test_ceiling_of_ragged_presentations_is_that_of_their_rectangle(seed):
    recording = make_ragged(n_stimuli=20, seed=seed)
    whole = variance_ceiling(rectangle_of(recording))
    ragged = repeated_ceiling(*recording.repeated())
    assert ragged.kind == "variance"
    assert np.allclose(ragged.per_split_neuroid, whole.per_split_neuroid, atol=1e-12)
    assert ragged.n_stimuli == whole.n_stimuli == 2


def test_a_file_keeps_what_a_recording_knows(tmp_path):
    n = 12
    recording = make_ragged(
        region="",
        neuroids={
            "animal": np.array(["F", "F", "N", "N"]),
            "region": np.array(["V1", "IT", "V1", "IT"]),
            "reliability": np.array([0.2, 0.4, 0.6, 0.8]),
        },
        split=np.where(np.isin(np.arange(n), [3, 8]), "test", "train"),
        window=(75.0, 175.0),
        licence="CC-BY 4.0",
        citation="Nobody (2026)",
    )
    path = tmp_path / "a.nc"
    write_recording(recording, path)
    found = read_recording(path)
    assert found.digest == recording.digest
    assert found.regions == ("V1", "IT") and found.animals == ("F", "N")
    assert found.window == (75, 175) and found.citation == "Nobody (2026)"
    assert found.split.tolist() == recording.split.tolist()
    assert found.responses.values.dtype == np.float32
    entry = describe_file(path)
    assert (entry.repetitions, entry.neuroids, entry.region) == (7, 4, "V1, IT")


def test_a_file_keeps_time_bins(tmp_path):
    values = np.random.default_rng(0).normal(size=(6, 3, 5))
    shown = Presentations(values, np.arange(6), np.zeros(6, dtype=int))
    bins = np.stack([np.arange(5) * 10.0, np.arange(5) * 10.0 + 10], axis=1)
    recording = Recording(
        "toy", make_images(6), shown, tuple("abc"), "IT", time_bins=bins
    )
    write_recording(recording, tmp_path / "a.nc")
    found = read_recording(tmp_path / "a.nc")
    assert found.digest == recording.digest
    assert found.averaged().shape == (6, 3, 5)
    third = found.select(time=2)
    assert third.window == (20, 30) and third.time_bins is None
    assert np.array_equal(third.averaged(), values[:, :, 2])
    with pytest.raises(ConfigError, match="no time bin 5: it has bins 0 to 4"):
        found.select(time=5)


def test_a_neuroid_that_is_silent_in_a_bin_is_left_out_of_that_bin():
    values = np.random.default_rng(0).normal(size=(6, 3, 2))
    values[:, 1, 0] = 0
    shown = Presentations(values, np.arange(6), np.zeros(6, dtype=int))
    bins = np.array([[0.0, 10.0], [10.0, 20.0]])
    recording = Recording(
        "toy", make_images(6), shown, tuple("abc"), "IT", time_bins=bins
    )
    first = recording.select(time=0)
    assert first.neuroid_ids == ("a", "c")
    assert "1 of 3 neuroids are silent and left out: b" in first.notes
    assert recording.select(time=1).neuroid_ids == tuple("abc")
    whole = recording.select(time=(0, 20))
    assert whole.window == (0, 20)
    assert np.allclose(whole.averaged(), values.mean(axis=2))


COLUMNS = {
    "animal": np.array(["F", "F", "N", "N"]),
    "region": np.array(["V1", "IT", "V1", "IT"]),
    "reliability": np.array([0.2, 0.4, 0.6, 0.8]),
}


def test_selections_commute():
    recording = make_ragged(region="", neuroids=COLUMNS)
    one = recording.select(region="it").select(animal="N")
    other = recording.select(animal="N").select(region="IT")
    assert one.digest == other.digest
    assert one.neuroid_ids == ("n3",) and one.region == "IT"
    both = recording.select(region="IT", animal="N", reliability=0.4, neuroids=["n3"])
    assert both.digest == one.digest
    assert np.array_equal(one.averaged(), recording.averaged()[:, 3:])


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"region": "V2"}, "has no region 'V2'; it has V1, IT"),
        ({"animal": "M"}, "has no animal 'M'; it has F, N"),
        ({"reliability": 0.9}, "no neuroid of ragged is left of 4"),
        ({"neuroids": ["x"]}, "has no neuroids x; its ids are such as n0"),
        ({"time": 0}, "has no time bins, so no bin 0"),
    ],
)
def test_what_cannot_be_selected_is_said(asked, expected):
    recording = make_ragged(region="", neuroids=COLUMNS)
    with pytest.raises(ConfigError, match=expected):
        recording.select(**asked)


def test_reliability_that_is_not_stated_cannot_be_asked_for():
    with pytest.raises(ConfigError, match="states no reliability"):
        make_ragged().select(reliability=0.4)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"neuroids": {"animal": np.array(["F"])}}, "'animal' .* must have 4 values"),
        ({"neuroids": COLUMNS}, "said to be of V4, but its neuroids are of V1, IT"),
        ({"region": ""}, "has no region"),
        ({"split": np.full(12, "train")}, r"'train' or 'test' for each .*\['train'\]"),
        ({"time_bins": np.zeros((3, 2))}, "has 0 time bins, but 3 are named"),
        ({"images": make_images(13)}, "13 images, but presentations of 12"),
    ],
)
def test_what_does_not_fit_is_refused(changes, expected):
    with pytest.raises(DataError, match=expected):
        make_ragged(**changes)


def test_a_repetition_that_stands_twice_is_refused():
    zeros = np.zeros(3, dtype=int)
    with pytest.raises(DataError, match="2 presentations repeat both"):
        Presentations(np.zeros((3, 2)), zeros, zeros)


def test_equal_images_of_ragged_presentations_are_joined():
    recording = make_ragged()
    first = np.arange(12)
    first[5] = 3
    joined = join_equal_images(recording, first)
    assert len(joined.images) == 11
    counts = np.bincount(joined.responses.stimulus)
    assert counts[3] == 8 and counts.sum() == len(recording.responses.values)
    split = np.where(np.arange(12) == 5, "test", "train")
    with pytest.raises(DataError, match="1 stimuli of ragged show an image of the oth"):
        join_equal_images(make_ragged(split=split), first)


def test_some_stimuli_keep_their_responses():
    recording = make_ragged()
    some = recording.of_stimuli(np.array([8, 2, 3]))
    assert some.images.ids == tuple(recording.images.ids[i] for i in (8, 2, 3))
    assert np.allclose(some.averaged(), recording.averaged()[[8, 2, 3]])


@pytest.mark.parametrize("lost", ["region", "degrees", "identifier", "digest"])
def test_a_file_that_lacks_something_is_refused_by_its_name(tmp_path, lost):
    import netCDF4

    path = tmp_path / "a.nc"
    write_recording(make_ragged(), path)
    with netCDF4.Dataset(path, "a") as opened:
        opened.delncattr(lost)
    with pytest.raises(DataError, match=rf"a\.nc is no whole recording: .*'{lost}'"):
        read_recording(path)
