import numpy as np
import pytest
from PIL import Image

from ce_align.data.importing import import_recording
from ce_align.errors import ConfigError, DataError

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


def import_lab(lab, **changes):
    options = {
        "responses": lab / "responses.npy",
        "images": lab / "images",
        "axes": ("neuroid", "stimulus", "repetition"),
        "region": "V4",
        "identifier": "lab",
    }
    return import_recording(**(options | changes))


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
            "2 stimuli but images has 5 images",
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
    [("a,b\n1,2\n", "1 lines for 5 stimuli"), ("a,b\n1\n", "other numbers of values")],
)
def test_unusable_stimulus_tables_are_refused(lab, text, expected):
    (lab / "bad.csv").write_text(text)
    with pytest.raises(DataError, match=expected):
        import_lab(lab, stimuli=lab / "bad.csv")
