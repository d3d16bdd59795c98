import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.splits import brainscore_splits


@given(n=st.integers(11, 300), seed=st.integers(0, 5), n_splits=st.integers(1, 4))
def test_each_split_divides_all_stimuli_nine_to_one(n, seed, n_splits):
    splits = brainscore_splits(n, n_splits=n_splits, seed=seed)
    assert len(splits) == n_splits
    for train, test in splits:
        assert sorted([*train, *test]) == list(range(n))
        assert len(train) == int(0.9 * n)


def test_stratified_splits_balance_the_classes():
    classes = np.repeat(["bear", "car", "face", "plane"], 50)
    for train, test in brainscore_splits(200, stratify=classes):
        assert set(np.unique(classes[test], return_counts=True)[1]) == {5}
        assert set(np.unique(classes[train], return_counts=True)[1]) == {45}


def test_splits_follow_the_seed():
    first, again, other = (brainscore_splits(50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first[0][1], again[0][1])
    assert list(first[0][1]) != list(other[0][1])


@pytest.mark.brainscore
@pytest.mark.parametrize("stratified", [True, False])
def test_splits_equal_those_of_brain_score(rng, stratified):
    from brainscore_core.supported_data_standards.brainio.assemblies import (
        NeuronRecordingAssembly,
    )
    from brainscore_vision.metric_helpers.transformations import Split

    names = rng.choice(["bear", "car", "face"], 90)
    ids = [f"image_{number}" for number in rng.permutation(90)]
    assembly = NeuronRecordingAssembly(
        np.zeros((90, 2)),
        coords={
            "stimulus_id": ("presentation", ids),
            "object_name": ("presentation", names),
            "neuroid_id": ("neuroid", ["a", "b"]),
            "region": ("neuroid", ["IT", "IT"]),
        },
        dims=["presentation", "neuroid"],
    )
    theirs = Split(
        stratification_coord="object_name" if stratified else None
    ).build_splits(assembly)[1]
    ours = brainscore_splits(90, stratify=names if stratified else None)
    assert len(ours) == len(theirs) == 10
    for (train, test), (their_train, their_test) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(train, their_train)
        np.testing.assert_array_equal(test, their_test)


@pytest.mark.parametrize(
    ("n_stimuli", "classes", "words"),
    [
        (10, None, "10 stimuli are too few: 9 would train and 1 test"),
        (0, None, "too few"),
        (40, ["a"] * 39 + ["b"], r"1 have one only \(b\)"),
        (40, list("abcde") * 8, "5 classes cannot all be in 36 training and 4 test"),
        (40, ["a"] * 39, r"has shape \(39,\)"),
        (40, [["a"]] * 40, r"has shape \(40, 1\)"),
    ],
)
def test_stimuli_that_cannot_be_split_are_refused(n_stimuli, classes, words):
    with pytest.raises(DataError, match=words):
        brainscore_splits(n_stimuli, stratify=classes)


def test_missing_classes_are_refused():
    classes = np.array(["a", None] * 20, dtype=object)
    with pytest.raises(DataError, match="mixed"):
        brainscore_splits(40, stratify=classes)


@pytest.mark.parametrize(
    "options", [{"train_size": 0}, {"train_size": 1.0}, {"n_splits": 0}]
)
def test_impossible_options_of_splits_are_refused(options):
    with pytest.raises(ConfigError):
        brainscore_splits(100, **options)
