from datetime import UTC, datetime

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numbered import number_of, numbered_pixels, rectangle_of

from ce_align.data.importers.nwb import spike_counts
from ce_align.errors import ConfigError, DataError

N_IMAGES, N_TRIALS, N_UNITS = 4, 30, 3
#: Presented images; -1 is held out.
SHOWN = np.array([k % N_IMAGES if k % 7 else -1 for k in range(N_TRIALS)])
ONSETS = 1.0 + 0.5 * np.arange(N_TRIALS)
NAMES = [f"im{k}.png" for k in range(N_IMAGES)]


def planted_spikes(rng):
    """Counts in 70–170 ms (trial, unit), and spike times of each unit that have them.

    A spike stands exactly on the start of each window, which counts, and one on its
    end, which does not.
    """
    counts = rng.integers(1, 90, (N_TRIALS, N_UNITS))
    times = []
    for unit in range(N_UNITS):
        inside = [
            onset + 0.07 + 0.099 * rng.random(n - 1)
            for onset, n in zip(ONSETS, counts[:, unit], strict=True)
        ]
        edges = [ONSETS + 0.07, ONSETS + 0.17, ONSETS - 0.01, ONSETS + 0.3]
        times.append(np.sort(np.concatenate([*inside, *edges])))
    return counts, times


def put_images(file):
    """Images in another order than that of their names."""
    references = np.empty(N_IMAGES, dtype=h5py.ref_dtype)
    group = file.require_group("stimulus/presentation/stimuli")
    for k, name in enumerate(NAMES):
        held = group.create_dataset(f"z{9 - k}_{name}", data=numbered_pixels(k))
        references[k] = held.ref
    group["order_of_images"] = references


@pytest.fixture
def session(tmp_path, rng):
    """A session as NWB 2 lays it out, and its counts."""
    counts, times = planted_spikes(rng)
    path = tmp_path / "session.nwb"
    with h5py.File(path, "w") as file:
        trials = file.require_group("intervals/trials")
        trials["start_time"], trials["stop_time"] = ONSETS, ONSETS + 0.1
        trials["stimulus_presented"] = SHOWN
        trials["fixation_correct"] = np.arange(N_TRIALS) % 5 > 0
        units = file.require_group("units")
        units["id"] = np.arange(N_UNITS) + 40
        units["spike_times"] = np.concatenate(times)
        ends = np.cumsum([len(t) for t in times])
        units["spike_times_index"] = ends.astype(np.uint16)
        # Stored as small as it fits: 200 + 100 would be 44.
        units["electrodes"] = np.array([0, 1, 2, 3], np.uint8)
        units["electrodes_index"] = np.array([1, 3, 4], np.uint8)
        places = file.require_group("general/extracellular_ephys/electrodes")
        places["location"] = ["V4", "IT", "IT", "IT"]
        file["general/subject/subject_id"] = "M1"
        put_images(file)
    return path, counts


KEPT = (SHOWN >= 0) & (np.arange(N_TRIALS) % 5 > 0)


def assert_planted(recording, counts, units):
    shown = recording.presentations()
    numbers = [number_of(recording.images, k) for k in range(len(recording.images))]
    for image in range(N_IMAGES):
        rows = shown.stimulus == numbers.index(image)
        found = shown.values[rows][np.argsort(shown.repetition[rows])]
        assert np.array_equal(found, counts[KEPT & (image == SHOWN)][:, units])


def test_spikes_of_trials_are_counted_exactly(session, read):
    path, counts = session
    recording = read(path, window=(70, 170))
    assert recording.neuroid_ids == ("M1/40", "M1/41", "M1/42")
    assert list(recording.neuroids["region"]) == ["V4", "IT", "IT"]
    assert recording.window == (70, 170)
    assert_planted(recording, counts, [0, 1, 2])
    told = "\n".join(read.lines)
    for word in ("onsets intervals/trials/start_time (s)", "70–170 ms",
                 "6 without fixation", "5 held out (-1)"):  # fmt: skip
        assert word in told
    assert_planted(read(path, region="IT"), counts, [1, 2])


def test_time_bins_add_up_to_the_window(session, read):
    path, counts = session
    recording = read(path, window=(70, 170), bins=20)
    assert recording.time_bins.tolist() == [
        [70 + 20 * k, 90 + 20 * k] for k in range(5)
    ]
    values = recording.presentations().values
    assert values.shape == (KEPT.sum(), N_UNITS, 5)
    assert values.sum() == counts[KEPT].sum()
    with pytest.raises(ConfigError, match="bins of 30 ms do not divide"):
        read(path, window=(70, 170), bins=30)
    with pytest.raises(ConfigError, match="must end after it starts"):
        read(path, window=(170, 70))


@given(
    spikes=st.lists(st.integers(0, 3000), max_size=40),
    onsets=st.lists(st.integers(0, 2000), min_size=1, max_size=5),
)
def test_counts_agree_with_counting_in_whole_milliseconds(spikes, onsets):
    """Every spike may lie on an edge, which binary fractions do not represent."""
    edges = np.array([70, 90, 170])
    found = spike_counts(np.array(spikes) / 1e3, np.array(onsets) / 1e3, edges)
    for row, onset in zip(found, onsets, strict=True):
        expected = [
            sum(onset + a <= spike < onset + b for spike in spikes)
            for a, b in ((70, 90), (90, 170))
        ]
        assert row.tolist() == expected


@pytest.mark.parametrize("version", ["0.2", "0.3"])
def test_binned_spikes_are_summed_without_overflow(tmp_path, read, rng, version):
    names = {
        "0.2": ("bin_width_in_milliseconds", "milliseconds_from_event_to_first_bin"),
        "0.3": ("bin_width_in_ms", "event_to_bin_offset_in_ms"),
    }
    data = rng.integers(0, 200, (2, 8, 20)).astype(np.uint8)
    conditions = np.array([2, 0, 1, 3, 3, 1, 0, 2], np.uint8)
    with h5py.File(tmp_path / "binned.nwb", "w") as file:
        group = file.require_group("processing/ecephys/BinnedAlignedSpikesToStimulus")
        for name, value in zip(names[version], (10.0, -20.0), strict=True):
            group.attrs[name] = value
        group["data"], group["condition_indices"] = data, conditions
        group["event_timestamps"] = np.arange(8.0)
        group["condition_labels"] = [f"condition {k}" for k in range(N_IMAGES)]
        put_images(file)
    recording = read(tmp_path / "binned.nwb", window=(70, 170), region="IT")
    expected = data[:, :, 9:19].astype(int).sum(axis=2)
    for image in range(N_IMAGES):
        place = [number_of(recording.images, k) for k in range(4)].index(image)
        shown = expected[:, conditions == image].T
        assert np.array_equal(rectangle_of(recording)[place], shown)
    with pytest.raises(ConfigError, match=r"must fall on bins .* -20 to 180 ms"):
        read(tmp_path / "binned.nwb", window=(75, 170), region="IT")


def test_images_of_a_folder_follow_names_or_numbers(session, read, write_images):
    path, counts = session
    folder = write_images(NAMES)
    assert_planted(read(path, images=folder), counts, [0, 1, 2])
    with h5py.File(path, "r+") as file:
        file["intervals/trials/stimulus_filename"] = [NAMES[k] for k in SHOWN]
    named = read(path, images=folder, key=("stimulus=stimulus_filename",))
    assert named.images.ids == tuple(NAMES)
    with h5py.File(path, "r+") as file:
        del file["stimulus/presentation/stimuli/order_of_images"]
    with pytest.raises(DataError, match="lacks order_of_images"):
        read(path)
    with h5py.File(path, "r+") as file:
        del file["stimulus"]
    with pytest.raises(ConfigError, match="holds no images"):
        read(path)


def spoiled(path, name, values=None):
    with h5py.File(path, "r+") as file:
        del file[name]
        if values is not None:
            file[name] = values


@pytest.mark.parametrize(
    ("name", "values", "expected"),
    [
        ("units/spike_times_index", [3, 2, 9], "spike_times_index .* must rise"),
        ("units/spike_times_index", [3, 9], r"must be \(3\), found \(2,\)"),
        ("units/spike_times", None, "neither units/spike_times nor"),
        ("intervals/trials", None, "neither intervals/trials nor stimulus"),
        ("intervals/trials/stimulus_presented", None, "none of the columns stimulus"),
        ("intervals/trials/stimulus_presented", SHOWN + 0.5, "whole numbers or names"),
        ("intervals/trials/stop_time", None, "no field /intervals/trials/stop_time"),
        ("general/extracellular_ephys/electrodes/location", ["V4", "IT", "V2", "IT"],
         "unit 41 must have electrodes of one"),
        ("stimulus/presentation/stimuli/z8_im1.png", None, "not there: numbers 1"),
    ],
)  # fmt: skip
def test_a_field_that_is_wrong_is_named(session, read, name, values, expected):
    path, _ = session
    spoiled(path, name, values)
    with pytest.raises(DataError, match=expected):
        read(path)


def test_onsets_in_another_unit_are_refused(session, read):
    path, counts = session
    with h5py.File(path, "r+") as file:
        file["intervals/trials/pdOn"] = ONSETS * 1e3
    with pytest.raises(DataError, match=r"pdOn .* not in seconds .*onset=start_time"):
        read(path)
    assert_planted(read(path, key=("onset=start_time",)), counts, [0, 1, 2])
    with pytest.raises(ConfigError, match="role out of stimulus, onset, binned"):
        read(path, key=("start=start_time",))


@pytest.mark.slow
def test_a_file_of_pynwb_is_read(tmp_path, read, rng):
    """The layout that other tests write by hand is that of the format's own writer."""
    pynwb = pytest.importorskip("pynwb", reason="pip install pynwb (extra dev)")
    from pynwb.base import ImageReferences, Images
    from pynwb.image import RGBImage

    counts, times = planted_spikes(rng)
    file = pynwb.NWBFile("planted", "id", datetime(2026, 1, 1, tzinfo=UTC))
    file.subject = pynwb.file.Subject(subject_id="M1", species="Macaca mulatta")
    probe = file.create_device("probe")
    group = file.create_electrode_group("group", "probe", "IT", probe)
    for area in ("V4", "IT", "IT"):
        file.add_electrode(location=area, group=group)
    for unit in range(N_UNITS):
        file.add_unit(spike_times=times[unit], electrodes=[unit], id=unit + 40)
    file.add_trial_column("stimulus_presented", "number of the image")
    file.add_trial_column("fixation_correct", "whether the animal fixated")
    for k in range(N_TRIALS):
        file.add_trial(
            start_time=ONSETS[k],
            stop_time=ONSETS[k] + 0.1,
            stimulus_presented=int(SHOWN[k]),
            fixation_correct=bool(k % 5),
        )
    images = [
        RGBImage(name=f"z{9 - k}_{name}", data=numbered_pixels(k))
        for k, name in enumerate(NAMES)
    ]
    order = ImageReferences(name="order_of_images", data=images)
    file.add_stimulus(Images(name="stimuli", images=images, order_of_images=order))
    with pynwb.NWBHDF5IO(tmp_path / "own.nwb", "w") as io:
        io.write(file)
    recording = read(tmp_path / "own.nwb", window=(70, 170))
    assert list(recording.neuroids["region"]) == ["V4", "IT", "IT"]
    assert_planted(recording, counts, [0, 1, 2])
