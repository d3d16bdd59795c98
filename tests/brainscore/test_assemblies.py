"""Recordings and Brain-Score's assemblies say the same."""

import numpy as np
import pytest

from ce_align.errors import DataError

pytestmark = pytest.mark.brainscore


def to_recording(assembly, **kwargs):
    from ce_align.brainscore.assemblies import recording_from_assembly

    settings = {"region": "IT", "degrees": 8.0, "stratify": "object_name", **kwargs}
    return recording_from_assembly(assembly, identifier="stand-in", **settings)


def official(assembly, average: bool):
    """Region and time bin as Brain-Score's MajajHong2015 benchmark selects them."""
    from brainscore_vision.benchmark_helpers.neural_common import average_repetition

    assembly = assembly.squeeze("time_bin").sel(region="IT")
    assembly["region"] = "neuroid", ["IT"] * len(assembly["neuroid"])
    assembly = assembly.transpose("presentation", "neuroid", ...)
    return average_repetition(assembly) if average else assembly


def test_order_and_averages_are_those_of_brainscore(stand_in):
    assembly = stand_in()
    recording = to_recording(assembly)
    averaged = official(assembly, average=True)
    assert list(averaged["stimulus_id"].values) == list(recording.images.ids)
    assert list(averaged["neuroid_id"].values) == list(recording.neuroid_ids)
    np.testing.assert_allclose(recording.averaged(), averaged.values, rtol=1e-12)
    np.testing.assert_array_equal(recording.strata(), averaged["object_name"].values)


def test_order_is_brainscores_even_where_it_is_not_sorted_by_stimulus(stand_in):
    """Its averaging sorts by all coordinates, in their order, not by stimulus."""
    assembly = stand_in()
    position = np.argsort(assembly["size"].values)
    coords = {"a_first": ("presentation", assembly["size"].values[position])}
    names = ["stimulus_id", "repetition", "object_name"]
    coords |= {n: ("presentation", assembly[n].values[position]) for n in names}
    names = ["neuroid_id", "region", "animal"]
    coords |= {n: ("neuroid", assembly[n].values) for n in names}
    coords |= {n: ("time_bin", assembly[n].values) for n in ["time_bin_start"]}
    rearranged = type(assembly)(
        assembly.values[position], coords=coords, dims=assembly.dims
    )
    rearranged.attrs["stimulus_set"] = assembly.attrs["stimulus_set"]
    recording = to_recording(rearranged)
    averaged = official(rearranged, average=True)
    assert list(averaged["stimulus_id"].values) == list(recording.images.ids)
    assert list(recording.images.ids) != sorted(recording.images.ids)


def test_every_presentation_stands_in_its_place(stand_in):
    assembly = official(stand_in(), average=False)
    recording = to_recording(assembly)
    row = {key: i for i, key in enumerate(recording.images.ids)}
    keys, repetitions = assembly["stimulus_id"].values, assembly["repetition"].values
    for key, repetition, values in zip(keys, repetitions, assembly.values, strict=True):
        ours = recording.responses[row[key], repetition]
        np.testing.assert_array_equal(ours, values)
    n_shown = (~np.isnan(recording.responses).any(axis=2)).sum()
    assert n_shown == assembly.sizes["presentation"]
    assert np.isnan(recording.responses).any()


def test_repetition_axis_is_the_sorted_unique_repetitions(stand_in):
    assembly = stand_in(n_repetitions=4, missing=0.0)
    expected = to_recording(assembly).responses
    relabelled = assembly.reset_index("presentation")
    # Labels that are neither dense nor from 0, in the same order.
    labels = np.array([3, 10, 11, 40])[assembly["repetition"].values]
    relabelled["repetition"] = "presentation", labels
    relabelled = type(assembly)(relabelled)
    relabelled.attrs.update(assembly.attrs)
    np.testing.assert_array_equal(to_recording(relabelled).responses, expected)


def test_images_are_read_in_place_and_carry_their_columns(stand_in):
    assembly = stand_in()
    stimuli = assembly.attrs["stimulus_set"]
    images = to_recording(assembly).images
    table = stimuli.set_index("stimulus_id").loc[list(images.ids)]
    for name in ("object_name", "size", "background_id"):
        np.testing.assert_array_equal(images.columns[name], table[name].values)
    for i in (0, 11):
        assert images.encoded(i) == stimuli.stimulus_paths[images.ids[i]].read_bytes()


def test_assembly_without_repetition_is_one_showing(stand_in):
    assembly = official(stand_in(), average=True)
    recording = to_recording(assembly)
    assert not recording.has_repetitions
    np.testing.assert_array_equal(recording.averaged(), assembly.values)


@pytest.mark.parametrize("column", ["size", "object_name"])
def test_nan_in_a_coordinate_is_reported_not_left_unaveraged(stand_in, column):
    assembly = stand_in()
    stimuli = assembly.attrs["stimulus_set"]
    holed = assembly.reset_index("presentation")
    values = assembly[column].values.astype(object)
    values[assembly["stimulus_id"].values == stimuli["stimulus_id"][0]] = np.nan
    holed[column] = "presentation", values
    holed = type(assembly)(holed)
    with pytest.raises(DataError, match=rf"NaN \({column}\)"):
        to_recording(holed)


def test_coordinate_that_varies_between_repetitions_is_named(stand_in):
    assembly = stand_in()
    varied = assembly.reset_index("presentation")
    varied["trial"] = "presentation", np.arange(assembly.sizes["presentation"])
    with pytest.raises(DataError, match="differ in trial"):
        to_recording(type(assembly)(varied))


def test_repetition_numbered_twice_is_reported(stand_in):
    assembly = stand_in(missing=0.0)
    same = assembly.reset_index("presentation")
    same["repetition"] = "presentation", assembly["repetition"].values // 2
    with pytest.raises(DataError, match=r"240 presentations .* number the repetitions"):
        to_recording(type(assembly)(same))


def test_time_bins_are_kept_and_one_of_them_is_the_recording_of_it(stand_in):
    assembly = stand_in(n_bins=3)
    recording = to_recording(assembly)
    np.testing.assert_array_equal(
        recording.time_bins, [[70, 170], [170, 270], [270, 370]]
    )
    attributes = assembly.attrs
    second = assembly.isel(time_bin=1)
    second.attrs.update(attributes)
    alone, selected = to_recording(second), recording.select(time=1)
    np.testing.assert_array_equal(selected.averaged(), alone.averaged())
    assert selected.window == alone.window == (170, 270)


def test_absent_region_and_images_are_explained(stand_in):
    assembly = stand_in()
    with pytest.raises(DataError, match="no neuroid in V1, only in IT, V4"):
        to_recording(assembly, region="V1")
    next(iter(assembly.attrs["stimulus_set"].stimulus_paths.values())).unlink()
    with pytest.raises(DataError, match=r"1 of 80 stimuli .* have no image file"):
        to_recording(assembly)
    del assembly.attrs["stimulus_set"]
    with pytest.raises(DataError, match="no stimulus_set"):
        to_recording(assembly)


def test_recording_survives_the_way_there_and_back(stand_in, tmp_path):
    from ce_align.brainscore.assemblies import assembly_from_recording

    first = to_recording(stand_in())
    # An order that is sorted by nothing, and a column that could stop averaging.
    order = np.random.default_rng(0).permutation(len(first.images))
    images = first.images.select(list(order))
    images = images.with_columns({"hole": np.where(order == 3, np.nan, order)})
    recording = type(first)(
        "shuffled", images, first.responses[order], first.neuroid_ids, "IT"
    )
    assembly = assembly_from_recording(recording, False, tmp_path / "images")
    again = to_recording(assembly)
    assert again.images.ids == recording.images.ids
    np.testing.assert_array_equal(again.responses, recording.responses)
    for i in (0, 40):
        pixels = np.asarray(again.images.load(i))
        np.testing.assert_array_equal(pixels, np.asarray(recording.images.load(i)))


def test_averaged_assembly_is_brainscores_average_of_the_repeated(stand_in):
    from brainscore_vision.benchmark_helpers.neural_common import average_repetition

    from ce_align.brainscore.assemblies import assembly_from_recording

    recording = to_recording(stand_in())
    averaged = assembly_from_recording(recording, averaged=True)
    repeated = assembly_from_recording(recording, averaged=False)
    theirs = average_repetition(repeated)
    assert set(averaged.dims) == {"presentation", "neuroid"}
    for name in ("stimulus_id", "object_name", "neuroid_id", "region"):
        np.testing.assert_array_equal(averaged[name].values, theirs[name].values)
    np.testing.assert_allclose(averaged.values, theirs.values, rtol=1e-12)
