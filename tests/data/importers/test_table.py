from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
from numbered import number_of, rectangle_of

from ce_align.errors import ConfigError, DataError

N_IMAGES, N_REPETITIONS, N_NEUROIDS = 5, 3, 4
NAMES = [f"im{k}.png" for k in range(N_IMAGES)]


@pytest.fixture
def long(rng):
    """A row for each neuroid of a trial, shuffled, and the values by number."""
    values = rng.normal(size=(N_IMAGES, N_REPETITIONS, N_NEUROIDS))
    image, repetition, neuroid = map(np.ravel, np.indices(values.shape))
    table = pd.DataFrame(
        {
            "stimulus": [NAMES[k] for k in image],
            "trial": image * N_REPETITIONS + repetition,
            "neuroid": [f"u{k % 2}" for k in neuroid],
            "animal": ["AB"[k // 2] for k in neuroid],
            "region": [("IT", "V4")[k % 2] for k in neuroid],
            "reliability": neuroid / 10,
            "value": values.ravel(),
        }
    )
    return table, values


def assert_sorted_planted(recording, values):
    """Responses to each image are those planted, in whatever order of repetitions."""
    for k, found in enumerate(rectangle_of(recording)):
        expected = values[number_of(recording.images, k)]
        assert np.array_equal(np.sort(found, axis=0), np.sort(expected, axis=0))


def test_a_long_table_is_read_in_any_order_of_rows(long, read, write_images, tmp_path):
    table, values = long
    images = write_images(NAMES)
    table.sample(frac=1, random_state=1).to_csv(tmp_path / "long.csv", index=False)
    recording = read(tmp_path / "long.csv", images=images)
    assert recording.neuroid_ids == ("A/u0", "B/u0", "A/u1", "B/u1")
    order = [0, 2, 1, 3]
    assert recording.neuroids["region"].tolist() == ["IT", "IT", "V4", "V4"]
    assert recording.neuroids["reliability"].tolist() == [0, 0.2, 0.1, 0.3]
    assert_sorted_planted(recording, values[:, :, order])
    # Neuroids of a trial stay together.
    pairs = {tuple(row) for row in values[:, :, order].reshape(-1, N_NEUROIDS)}
    assert {tuple(row) for row in rectangle_of(recording).reshape(-1, 4)} == pairs


def test_without_trials_responses_are_numbered_in_the_order_of_rows(
    long, read, write_images, tmp_path
):
    table, values = long
    images = write_images(NAMES)
    given = table.drop(columns="trial").rename(columns={"stimulus": "file"})
    given = given[given["animal"] == "A"].drop(columns=["animal", "region"])
    given.to_csv(tmp_path / "long.csv", index=False)
    with pytest.raises(DataError, match="no column 'stimulus'"):
        read(tmp_path / "long.csv", images=images, region="IT")
    key = ("stimulus=file",)
    recording = read(tmp_path / "long.csv", images=images, region="IT", key=key)
    assert np.array_equal(rectangle_of(recording), values[:, :, :2])


def test_a_column_a_neuroid_is_read(long, read, write_images, tmp_path):
    _, values = long
    images = write_images(NAMES)
    wide = pd.DataFrame(
        values.reshape(-1, N_NEUROIDS), columns=[f"unit_{k}" for k in range(4)]
    )
    wide["stimulus"] = np.repeat(NAMES, N_REPETITIONS)
    wide["note"] = "x"
    wide.to_csv(tmp_path / "wide.csv", index=False)
    with pytest.raises(DataError, match=r"column of numbers .* found note"):
        read(tmp_path / "wide.csv", images=images, region="IT")
    key = ("neuroids=unit_*",)
    recording = read(tmp_path / "wide.csv", images=images, region="IT", key=key)
    assert recording.neuroid_ids[3] == "unit_3"
    assert np.array_equal(rectangle_of(recording), values)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"value": "a"}, "column of numbers"),
        ({"trial": 1}, "one number has several stimuli"),
        ({"neuroid": "u0"}, "repeat both the trial and the neuroid"),
        ({"region": [*"ab"] * 30}, None),
        ({"region": [*"aab"] * 20}, "region .* differs within a neuroid"),
    ],
)
def test_contradictions_are_named_by_column(
    long, read, write_images, tmp_path, change, expected
):
    images = write_images(NAMES)
    long[0].assign(**change).to_csv(tmp_path / "long.csv", index=False)
    if expected is None:
        assert read(tmp_path / "long.csv", images=images).regions == ("a", "b")
        return
    with pytest.raises(DataError, match=expected):
        read(tmp_path / "long.csv", images=images)


def test_a_key_that_names_nothing_is_refused(long, read, write_images, tmp_path):
    long[0].to_csv(tmp_path / "long.csv", index=False)
    images = write_images(NAMES)
    with pytest.raises(DataError, match="has no column rate; it has stimulus"):
        read(tmp_path / "long.csv", images=images, key=("value=rate",))
    with pytest.raises(ConfigError, match=r"must be ROLE=NAME .* found 'rate'"):
        read(tmp_path / "long.csv", images=images, key=("rate",))


def test_parquet_is_read_or_what_it_needs_is_said(long, read, write_images, tmp_path):
    table, values = long
    images, path = write_images(NAMES), tmp_path / "long.parquet"
    if find_spec("pyarrow") is None:
        path.write_bytes(b"PAR1")
        with pytest.raises(ConfigError, match=r"long.parquet needs pyarrow"):
            read(path, images=images)
        return
    table.to_parquet(path)
    assert_sorted_planted(read(path, images=images), values[:, :, [0, 2, 1, 3]])
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match="damaged or no parquet table"):
        read(path, images=images)
