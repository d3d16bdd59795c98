from importlib.util import find_spec
from pathlib import Path

import h5py
import numpy as np
import pytest
from numbered import number_of

from ce_align.data.importers.tvsd import things_paths
from ce_align.errors import ConfigError, DataError

N_TRAIN, N_TEST, N_REPETITIONS, N_CHANNELS = 4, 2, 3, 1024


def put_text(file, group, field, strings):
    """A cell array of text as MATLAB 7.3 stores it: references to UTF-16."""
    references = np.empty((len(strings), 1), dtype=h5py.ref_dtype)
    for k, text in enumerate(strings):
        codes = np.frombuffer(text.encode("utf-16-le"), np.uint16)[:, np.newaxis]
        held = file.require_group("#refs#").create_dataset(
            f"{group[:2]}{field[:2]}{k}", data=codes
        )
        held.attrs["MATLAB_class"] = np.bytes_("char")
        references[k, 0] = held.ref
    file.create_dataset(f"{group}/{field}", data=references)


@pytest.fixture
def tvsd(tmp_path, rng, write_images):
    """Both animals' files, with random responses, and the folder of THINGS."""
    names = [f"c{k % 3}/c{k % 3}_{k:02d}b.jpg" for k in range(N_TRAIN + N_TEST)]
    write_images(names, "THINGS")
    planted = {}
    for animal in "FN":
        folder = tmp_path / "TVSD" / f"monkey{animal}"
        (folder / "_logs").mkdir(parents=True)
        train = rng.normal(size=(N_TRAIN, N_CHANNELS)).astype(np.float32)
        test = rng.normal(size=(N_REPETITIONS, N_TEST, N_CHANNELS)).astype(np.float32)
        reliability = rng.random((5, N_CHANNELS))
        if animal == "N":  # dead channels
            train[:, 256:320], test[:, :, 256:320] = 0, 0
        path = folder / "THINGS_normMUA.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            file["train_MUA"], file["test_MUA_reps"] = train, test
            file["test_MUA"], file["reliab"] = test.mean(axis=0), reliability
            file["oracle"] = rng.random((N_CHANNELS, 1))
            file["SNR"] = rng.random((4, N_CHANNELS))
            file["SNR_max"] = rng.random((N_CHANNELS, 1))
        with h5py.File(folder / "_logs" / "things_imgs.mat", "w") as file:
            windows = [name.replace("/", "\\") for name in names]
            put_text(file, "train_imgs", "things_path", windows[:N_TRAIN])
            put_text(file, "test_imgs", "things_path", windows[N_TRAIN:])
        planted[animal] = train, test, reliability
    return tmp_path / "TVSD", tmp_path / "THINGS", planted


def test_areas_channels_and_responses_are_right_in_both_animals(tvsd, read):
    folder, things, planted = tvsd
    recording = read(folder, images=things)
    ids = np.array(recording.neuroid_ids)
    assert recording.animals == ("F", "N")
    held = dict(zip(ids, recording.neuroids["region"], strict=True))
    edges = {"F": (0, 511, 512, 831, 832, 1023), "N": (0, 511, 512, 767, 768, 1023)}
    areas = {"F": ("V1", "IT", "V4"), "N": ("V1", "V4", "IT")}
    for animal, channels in edges.items():
        found = [held[f"{animal}/{channel}"] for channel in channels]
        assert found == [area for area in areas[animal] for _ in range(2)]
    silent = {f"N/{k}" for k in range(256, 320)}
    assert not silent & set(ids)
    assert len(ids) == 2 * N_CHANNELS - len(silent)
    assert "64 of 2048 neuroids are silent" in recording.notes[0]
    shown = recording.presentations()
    for animal, (train, test, reliability) in planted.items():
        mine = np.char.startswith(ids, f"{animal}/")
        channels = recording.neuroids["channel"][mine]
        values = shown.values[:, mine]
        once = shown.stimulus < N_TRAIN
        assert np.array_equal(values[once], train[:, channels])
        for k in range(N_REPETITIONS):
            rows = ~once & (shown.repetition == k)
            assert np.array_equal(values[rows], test[k][:, channels])
        stated = recording.neuroids["reliability"][mine]
        assert np.allclose(stated, reliability.mean(axis=0)[channels])


def test_images_follow_the_list_and_the_split_is_fixed(tvsd, read):
    folder, things, _ = tvsd
    recording = read(folder / "monkeyF" / "THINGS_normMUA.mat", images=things)
    assert [number_of(recording.images, k) for k in range(6)] == [*range(6)]
    assert recording.images.ids[:2] == ("c0_00b", "c1_01b")
    assert recording.images.columns["object_name"].tolist() == [*["c0", "c1", "c2"]] * 2
    assert recording.split.tolist() == ["train"] * 4 + ["test"] * 2
    assert (recording.degrees, recording.origin) == (18, "imported")


def test_one_area_of_one_animal_is_taken(tvsd, read):
    folder, things, planted = tvsd
    recording = read(folder, images=things, region="it", animal="F")
    assert recording.neuroid_ids == tuple(f"F/{k}" for k in range(512, 832))
    assert recording.window == (75, 175)
    shown = recording.presentations()
    first = shown.values[shown.stimulus < N_TRAIN]
    assert np.array_equal(first, planted["F"][0][:, 512:832])
    with pytest.raises(ConfigError, match="nothing of region V2"):
        read(folder, images=things, region="V2")


def renamed(path, old, new):
    with h5py.File(path, "r+") as file:
        file.move(old, new)


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (lambda p: renamed(p, "train_MUA", "trainMUA"), "no field /train_MUA; nearest: "
         "trainMUA"),
        (lambda p: renamed(p, "test_MUA_reps", "x"), "no field /test_MUA_reps"),
        (lambda p: renamed(p, "reliab", "x"), "no field /reliab"),
        (lambda p: p.write_bytes(p.read_bytes()[:4000]), "damaged or no HDF5 file"),
        (lambda p: p.write_bytes(b"text"), "damaged or no HDF5 file"),
        (lambda p: (p.parent / "_logs" / "things_imgs.mat").rename(p.parent / "x") and
         (p.parent.parent / "monkeyN/_logs/things_imgs.mat").unlink(),
         "list of images .* is not there"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_named_with_its_field(tvsd, read, spoil, expected):
    folder, things, _ = tvsd
    path = folder / "monkeyF" / "THINGS_normMUA.mat"
    spoil(path)
    with pytest.raises(DataError, match=expected):
        read(path, images=things)


def test_what_is_missing_is_asked_for(tvsd, read, tmp_path):
    folder, things, _ = tvsd
    with pytest.raises(ConfigError, match="tvsd needs images"):
        read(folder)
    (things / "c0" / "c0_00b.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 6 images .* c0\\c0_00b.jpg"):
        read(folder, images=things)
    with pytest.raises(ConfigError, match="takes no axes"):
        read(folder, images=things, axes="stimulus,neuroid")
    other = tmp_path / "elsewhere" / "THINGS_normMUA.mat"
    other.parent.mkdir()
    (folder / "monkeyF" / "THINGS_normMUA.mat").rename(other)
    with pytest.raises(DataError, match="folder monkeyF or monkeyN"):
        read(other, images=things)


@pytest.mark.slow
def test_the_real_list_of_images_is_read():
    found = find_spec("brainscore_vision")
    path = Path(found.origin).parent / "data/papale2025/data_packaging/things_imgs.mat"
    train, test = (things_paths(path, f"{part}_imgs") for part in ("train", "test"))
    assert (len(train), len(test)) == (22248, 100)
    stems = {Path(name.replace("\\", "/")).stem for name in (*train, *test)}
    assert len(stems) == 22348
    assert len({name.split("\\")[0] for name in train}) == 1854
    assert train[0] == "aardvark\\aardvark_01b.jpg"
