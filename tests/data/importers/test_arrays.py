from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io
from PIL import Image

from ce_align.data.importers import ImportSettings, import_recording
from ce_align.data.importers.arrays import AXES
from ce_align.data.netcdf import read_recording, write_recording
from ce_align.errors import ConfigError, DataError
from ce_align.progress import quiet

N_STIMULI, N_REPETITIONS, N_NEUROIDS = 5, 3, 2


@pytest.fixture
def lab(tmp_path, rng):
    """Files as a lab has them; image k is filled with k."""
    (tmp_path / "images").mkdir()
    for k in range(N_STIMULI):
        image = Image.new("RGB", (8, 8), (k, k, k))
        image.save(tmp_path / "images" / f"s{k + 7}.png")
    responses = rng.poisson(9, (N_NEUROIDS, N_STIMULI, N_REPETITIONS)).astype(float)
    responses[0, 1, 2] = np.nan
    np.save(tmp_path / "responses.npy", responses)
    lines = [f"{'ab'[k % 2]},{k}" for k in range(N_STIMULI)]
    (tmp_path / "stimuli.csv").write_text("object_name,k\n" + "\n".join(lines) + "\n")
    return tmp_path


def import_lab(lab, identifier="lab", tell=quiet, **changes):
    options = {
        "responses": lab / "responses.npy",
        "images": lab / "images",
        "axes": ("neuroid", "stimulus", "repetition"),
        "region": "V4",
        "degrees": 8,
    }
    given = {
        k: str(v) if isinstance(v, Path) else v for k, v in (options | changes).items()
    }
    settings = ImportSettings(
        file=given.pop("responses"), **given | {"axes": ",".join(given["axes"])}
    )
    return import_recording(settings, identifier, tell=tell)


def test_rows_follow_the_images_and_axes_are_ordered(lab):
    recording = import_lab(lab, stimuli=lab / "stimuli.csv", stratify="object_name")
    stored = np.load(lab / "responses.npy")
    assert np.array_equal(
        recording.responses, stored.transpose(1, 2, 0), equal_nan=True
    )
    assert [recording.images.load(k).getpixel((0, 0))[0] for k in range(5)] == [
        *range(5)
    ]
    assert list(recording.strata()) == list("ababa")
    assert recording.origin == "imported"


def test_averages_have_one_repetition(lab):
    np.save(lab / "average.npy", np.arange(10.0).reshape(5, 2))
    recording = import_lab(
        lab, responses=lab / "average.npy", axes=("stimulus", "neuroid")
    )
    assert recording.responses.shape == (5, 1, 2)
    assert not recording.has_repetitions


def test_a_csv_states_the_order_of_the_rows(lab):
    (lab / "rows.csv").write_text("file,x\ns9.png,1\ns7,2\ns8.png,\ns10.png,\ns11,\n")
    recording = import_lab(lab, order=str(lab / "rows.csv"))
    assert recording.images.ids == ("s9", "s7", "s8", "s10", "s11")


def test_npz_with_one_array_is_read(lab):
    np.savez(lab / "one.npz", np.load(lab / "responses.npy"))
    assert import_lab(lab, responses=lab / "one.npz").digest == import_lab(lab).digest


@pytest.mark.parametrize(
    ("changes", "error", "expected"),
    [
        ({"axes": ("neuroid", "stimulus")}, DataError, "3 axes, but 2 are named"),
        ({"axes": ("a", "b", "c")}, ConfigError, "axes must name stimulus"),
        ({"axes": ("stimulus",) * 3}, ConfigError, "axes must name stimulus"),
        (
            {"axes": ("stimulus", "neuroid", "repetition")},
            DataError,
            "2 stimuli × .* has 5 images",
        ),
        ({"order": "absent.csv"}, ConfigError, "order must be name or natural"),
    ],
)
def test_each_mistake_is_explained(lab, changes, error, expected):
    with pytest.raises(error, match=expected):
        import_lab(lab, **changes)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (None, "no responses at"),
        (b"no array", "not a .npy or .npz array"),
        (b"", "not a .npy or .npz array"),
        (np.array([["a"]]), "not numbers"),
        (np.full((4, 3), np.nan), "holds no finite number"),
        (np.array([{}], dtype=object), "not a .npy or .npz array"),
    ],
)
def test_unusable_responses_are_refused(lab, content, expected):
    path = lab / "bad.npy"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    with pytest.raises(DataError, match=expected):
        import_lab(lab, responses=path, axes=("stimulus", "neuroid"))


def test_an_npz_of_several_arrays_is_refused(lab):
    np.savez(lab / "two.npz", a=np.zeros(3), b=np.zeros(3))
    with pytest.raises(DataError, match="2 arrays, not one: a, b"):
        import_lab(lab, responses=lab / "two.npz")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a,b\n1,2\n", "1 lines for 5 stimuli"),
        ("a,b\n1\n", "other numbers of values"),
        ("a,a\n" + "1,2\n" * 5, "columns of .* must be unique.*: a"),
        ("", "is empty"),
        ("a,b\n", "no line below its header"),
    ],
)
def test_unusable_stimulus_tables_are_refused(lab, text, expected):
    (lab / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=expected):
        import_lab(lab, stimuli=lab / "bad.csv")


def listed(lab, text):
    (lab / "rows.csv").write_text(text)
    return str(lab / "rows.csv")


def test_the_index_that_pandas_writes_names_no_image(lab):
    for k in range(N_STIMULI):
        (lab / "images" / f"s{k + 7}.png").rename(lab / "images" / f"{k}.png")
    order = listed(lab, ",file\n0,3.png\n1,0.png\n2,1.png\n3,4.png\n4,2.png\n")
    assert import_lab(lab, order=order).images.ids == ("3", "0", "1", "4", "2")


def test_the_column_of_file_names_is_found_wherever_it_stands(lab):
    order = listed(lab, "k,x,shown\n" + "".join(f"{k},a,s{11 - k}\n" for k in range(5)))
    assert import_lab(lab, order=order).images.ids == ("s11", "s10", "s9", "s8", "s7")


def test_paths_of_another_machine_and_a_list_without_header_are_understood(lab):
    order = listed(lab, "".join(f"C:\\lab\\s{11 - k}.png\n" for k in range(5)))
    assert import_lab(lab, order=order).images.ids == ("s11", "s10", "s9", "s8", "s7")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a,b\n" + "".join(f"s{k + 7}.png,s{11 - k}.png\n" for k in range(5)),
            "columns 'a' and 'b' .* both name the images, in different orders",
        ),
        (
            "a,b\n" + "".join(f"{k},s{k + 8}.png\n" for k in range(5)),
            r"nearest is 'b': 1 of 5 listed images are not there.*: s12\.png",
        ),
        ("a\n" + "x\n" * 5, "no column of .* names the images"),
    ],
)
def test_a_list_that_names_no_image_for_each_row_is_refused(lab, text, expected):
    with pytest.raises(DataError, match=expected):
        import_lab(lab, order=listed(lab, text))


def test_columns_of_stimuli_follow_the_file_names_and_not_the_lines(lab):
    lines = [f"s{k + 7}.png,{k}" for k in (3, 1, 0, 4, 2)]
    (lab / "stimuli.csv").write_text("filename,filled\n" + "\n".join(lines) + "\n")
    recording = import_lab(lab, stimuli=lab / "stimuli.csv")
    filled = [recording.images.load(k).getpixel((0, 0))[0] for k in range(5)]
    assert recording.images.columns["filled"].astype(int).tolist() == filled
    assert recording.images.ids == tuple(f"s{k + 7}" for k in range(5))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "filename,x\n" + "".join(f"s{k + 6}.png,{k}\n" for k in range(5)),
            r"column 'filename' .* names 1 files that are not among.*: s6\.png",
        ),
        (
            "filename,x\n" + "".join(f"s{k}.png,{k}\n" for k in (8, 7, 7, 9, 10)),
            "another order than the rows, and does not name s11.png",
        ),
        (
            "a,b\n" + "".join(f"s{k + 7}.png,s{11 - k}.png\n" for k in range(5)),
            "both name the images, in different orders",
        ),
    ],
)
def test_stimuli_that_contradict_the_images_are_refused(lab, text, expected):
    (lab / "stimuli.csv").write_text(text)
    with pytest.raises(DataError, match=expected):
        import_lab(lab, stimuli=lab / "stimuli.csv")


def test_numbers_that_could_be_names_are_not_taken_for_them(lab):
    for k in range(N_STIMULI):
        (lab / "images" / f"s{k + 7}.png").rename(lab / "images" / f"{k}.png")
    (lab / "stimuli.csv").write_text("rank\n4\n3\n2\n1\n0\n")
    with pytest.raises(DataError, match=r"'rank' .* may name the images"):
        import_lab(lab, stimuli=lab / "stimuli.csv")
    (lab / "stimuli.csv").write_text("filename\n4\n3\n2\n1\n0\n")
    found = import_lab(lab, stimuli=lab / "stimuli.csv").images.columns["filename"]
    assert found.tolist() == list("01234")


def test_axes_in_another_order_are_answered_with_the_orders_that_fit(lab):
    asked = ("stimulus", "repetition", "neuroid")
    shape = f"{N_NEUROIDS} stimuli × {N_STIMULI} repetitions × {N_REPETITIONS} neuroids"
    with pytest.raises(DataError) as told:
        import_lab(lab, axes=asked)
    assert shape in str(told.value)
    assert "images has 5 images" in str(told.value)
    assert str(told.value).endswith(
        "--axes repetition,stimulus,neuroid or neuroid,stimulus,repetition would have "
        "as many stimuli"
    )


def test_lines_tell_how_files_were_understood(lab):
    lines = []
    import_lab(lab, stimuli=lab / "stimuli.csv", tell=lines.append)
    assert lines == [
        "responses.npy is read as arrays (an array in .npy, .npz, .mat 5 or 7.3, .h5)",
        "images are ordered by the numbers in their names: s7.png, s8.png, s9.png "
        "and 2 more",
        "stimuli.csv is attached line by line, in the rows' order",
    ]
    np.save(lab / "square.npy", np.random.default_rng(0).normal(size=(5, 5)))
    import_lab(
        lab,
        responses=lab / "square.npy",
        axes=("stimulus", "neuroid"),
        tell=lines.append,
    )
    assert "stimulus and neuroid both have 5 entries" in lines[-1]


@pytest.mark.parametrize(
    ("axes", "told"),
    [(("stimulus", "neuroid", "repetition"), False), (AXES, True)],
)
def test_neuroids_that_look_like_repetitions_are_told(lab, rng, axes, told):
    rates = 5 * np.arange(8)[:, None] + rng.normal(size=(5, 8, 3))
    np.save(lab / "rates.npy", rates)
    lines = []
    import_lab(lab, responses=lab / "rates.npy", axes=axes, tell=lines.append)
    swapped = "if they are swapped, name the axes stimulus,neuroid,repetition"
    assert any(swapped in line for line in lines) == told
    np.save(lab / "centred.npy", rates - rates.mean(axis=(0, 2), keepdims=True))
    lines.clear()
    axes = ("stimulus", "neuroid", "repetition")
    import_lab(lab, responses=lab / "centred.npy", axes=axes, tell=lines.append)
    assert not any("swapped" in line for line in lines)


def test_responses_whose_other_axis_fits_the_images_are_refused_with_that_hint(lab):
    np.save(lab / "average.npy", np.arange(10.0).reshape(2, 5))
    with pytest.raises(DataError, match="--axes neuroid,stimulus would have as many"):
        import_lab(lab, responses=lab / "average.npy", axes=("stimulus", "neuroid"))


def test_the_origin_is_stated_by_who_imports(lab):
    assert import_lab(lab, origin="simulated").origin == "simulated"


def test_rows_that_name_one_image_are_its_repetitions(lab, rng):
    trials = rng.normal(size=(7, 2))
    np.save(lab / "trials.npy", trials)
    names = ["s8", "s7", "s8", "s9", "s7", "s8", "s11"]
    lines = []
    recording = import_lab(
        lab,
        responses=lab / "trials.npy",
        axes=("stimulus", "neuroid"),
        order=listed(lab, "image\n" + "\n".join(names)),
        tell=lines.append,
    )
    assert recording.images.ids == ("s8", "s7", "s9", "s11")
    assert recording.responses.shape == (4, 3, 2)
    for row, rows in enumerate([[0, 2, 5], [1, 4], [3], [6]]):
        shown = recording.responses[row, : len(rows)]
        assert np.array_equal(shown, trials[rows])
        assert np.isnan(recording.responses[row, len(rows) :]).all()
    (note,) = recording.notes
    assert note.startswith(
        "5 rows show 2 images more than once and are repetitions now"
    )
    assert note in lines


def test_copies_are_found_by_their_pixels_and_join_their_repetitions(lab):
    """s9 becomes a copy of s7 in another format, with other bytes."""
    (lab / "images" / "s9.png").unlink()
    Image.open(lab / "images" / "s7.png").save(lab / "images" / "s9.bmp")
    recording = import_lab(lab, stimuli=lab / "stimuli.csv")
    stored = np.load(lab / "responses.npy").transpose(1, 2, 0)
    assert recording.images.ids == ("s7", "s8", "s10", "s11")
    assert np.array_equal(recording.responses[0], np.concatenate(stored[[0, 2]]))
    assert recording.responses.shape == (4, 6, 2)
    # Of the columns, k differs between the copies.
    assert list(recording.images.columns) == ["object_name"]
    assert "without the columns that differ: k" in recording.notes[0]
    with pytest.raises(DataError, match="equal images with different values of 'k'"):
        import_lab(lab, stimuli=lab / "stimuli.csv", stratify="k")


def test_silent_neuroids_are_left_out_counted_and_named(lab, rng):
    responses = rng.poisson(9.0, (4, 5, 3)).astype(float)
    responses[1], responses[3] = np.nan, 2.0
    np.save(lab / "responses.npy", responses)
    lines = []
    recording = import_lab(lab, tell=lines.append)
    assert recording.neuroid_ids == ("neuroid_0000", "neuroid_0002")
    assert np.array_equal(recording.responses, responses[[0, 2]].transpose(1, 2, 0))
    note = "2 of 4 neuroids are silent and left out: neuroid_0001, neuroid_0003"
    assert recording.notes == (note,)
    assert note in lines
    with pytest.raises(DataError, match=r"1 of 4 neuroids .* no response at all"):
        import_lab(lab, keep_silent=True)


def test_notes_and_regions_survive_the_file(lab, rng):
    responses = rng.poisson(9.0, (2, 5, 3)).astype(float)
    responses[1] = np.nan
    np.save(lab / "responses.npy", responses)
    recording = import_lab(lab, region=" v4 ")
    write_recording(recording, lab / "lab.nc")
    back = read_recording(lab / "lab.nc")
    assert (back.region, back.notes) == ("V4", recording.notes)
    assert import_lab(lab, region="aIT").region == "aIT"


def test_any_name_of_a_column_survives_the_file(lab):
    names = ["object/name", "size (°)", "a b", "_x", "²", "name"]
    lines = [",".join(f"{k}{i}" for i in range(len(names))) for k in range(N_STIMULI)]
    text = ",".join(names) + "\n" + "\n".join(lines) + "\n"
    (lab / "stimuli.csv").write_text(text, encoding="utf-8")
    recording = import_lab(lab, stimuli=lab / "stimuli.csv", stratify="object/name")
    write_recording(recording, lab / "lab.nc")
    back = read_recording(lab / "lab.nc")
    assert set(back.images.columns) == set(names)
    assert back.images.columns["²"].tolist() == [f"{k}4" for k in range(N_STIMULI)]
    assert back.digest == recording.digest


def test_orientations_are_said_and_not_applied(lab):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (8, 4), (200, 0, 0))
    image.save(lab / "images" / "s8.png", exif=exif)
    lines = []
    recording = import_lab(lab, tell=lines.append)
    assert recording.images.load(1).size == (8, 4)
    assert any("1 images state an orientation (EXIF)" in line for line in lines)
    assert any("s8" in line for line in lines if "EXIF" in line)


def test_transparent_pixels_are_said(lab):
    Image.new("RGBA", (8, 8), (9, 9, 9, 255)).save(lab / "images" / "s7.png")
    Image.new("RGBA", (8, 8), (7, 8, 9, 0)).save(lab / "images" / "s8.png")
    lines = []
    recording = import_lab(lab, tell=lines.append)
    assert recording.images.load(1).getpixel((0, 0)) == (7, 8, 9)
    (line,) = [line for line in lines if "transparent" in line]
    assert line.startswith("1 images have transparent pixels")
    assert "s8" in line


@pytest.mark.parametrize("suffix", [".gif", ".tiff", ".png", ".webp"])
def test_files_of_several_frames_are_refused_by_name(lab, suffix, rng):
    (lab / "images" / "s8.png").unlink()
    arrays = rng.integers(0, 255, (3, 8, 8, 3)).astype(np.uint8)
    first, *others = map(Image.fromarray, arrays)
    path = lab / "images" / f"s8{suffix}"
    first.save(path, save_all=True, append_images=others)
    with pytest.raises(DataError, match=rf"image s8\{suffix} holds 3 images"):
        import_lab(lab)


def matlab_text(file, name, strings):
    """A cell array of text as MATLAB 7.3 stores it."""
    cells = [
        file.create_dataset(
            f"#refs#/{k}", data=np.array([[ord(c)] for c in text], "u2")
        )
        for k, text in enumerate(strings)
    ]
    held = np.array([[cell.ref] for cell in cells], dtype=h5py.ref_dtype)
    file.create_dataset(name, data=held)


def write_matlab_5(lab, responses, names):
    held = {
        "data": {"rates": responses},
        "images": np.array(names, dtype=object),
        "areas": np.array(["V4", "IT"], dtype=object),
    }
    scipy.io.savemat(lab / "lab.mat", held)
    return lab / "lab.mat", ("data.rates", "images", "areas")


def write_matlab_73(lab, responses, names):
    with h5py.File(lab / "lab.mat", "w", userblock_size=512) as file:
        # MATLAB counts the first axis fastest.
        file["data/rates"] = responses.T
        matlab_text(file, "images", names)
        file["areas"] = ["V4", "IT"]
    return lab / "lab.mat", ("data.rates", "images", "areas")


def write_hdf5(lab, responses, names):
    with h5py.File(lab / "lab.h5", "w") as file:
        file["data/rates"], file["images"] = responses, names
        file["areas"] = ["V4", "IT"]
    return lab / "lab.h5", ("data/rates", "images", "areas")


def write_npz(lab, responses, names):
    areas = np.array(["V4", "IT"])
    np.savez(lab / "lab.npz", rates=responses, images=np.array(names), areas=areas)
    return lab / "lab.npz", ("rates", "images", "areas")


@pytest.mark.parametrize(
    "write", [write_matlab_5, write_matlab_73, write_hdf5, write_npz]
)
def test_fields_of_a_file_are_found_by_their_roles(lab, write):
    names = [f"s{k + 7}" for k in (3, 1, 0, 4, 2)]
    responses = np.load(lab / "responses.npy")
    path, (rates, stimuli, areas) = write(lab, responses, names)
    roles = (f"responses={rates}", f"stimuli={stimuli}", f"region={areas}")
    recording = import_lab(lab, responses=path, key=roles, region=None)
    assert recording.images.ids == tuple(names)
    found = recording.responses
    assert np.array_equal(found, responses.transpose(1, 2, 0), equal_nan=True)
    assert recording.neuroids["region"].tolist() == ["V4", "IT"]
    v4 = import_lab(lab, responses=path, key=roles)
    assert np.array_equal(v4.responses, found[:, :, :1], equal_nan=True)
    with pytest.raises(DataError, match="has no field speed; it has"):
        import_lab(lab, responses=path, key=("responses=speed",))
    with pytest.raises(DataError, match=r"arrays, not one.*--key responses=NAME"):
        import_lab(lab, responses=path)


@pytest.mark.parametrize("name", ["torn.mat", "torn.h5", "torn.npz"])
def test_damaged_files_are_one_line(lab, name):
    (lab / name).write_bytes(b"MATLAB 5.0 MAT-file" + bytes(300))
    with pytest.raises(DataError, match=rf"{name} is (damaged or no|not a)"):
        import_lab(lab, responses=lab / name)


def test_a_format_that_is_not_known_is_asked_for(lab):
    (lab / "rates.xyz").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"is of no format .*--format tvsd, triplen"):
        import_lab(lab, responses=lab / "rates.xyz")
    with pytest.raises(ConfigError, match="unknown format 'nbw'; nearest: nwb"):
        import_lab(lab, format="nbw")
    with pytest.raises(ConfigError, match="arrays takes no window"):
        import_lab(lab, window=(70, 170))
