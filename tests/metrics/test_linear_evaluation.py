"""Linear evaluation: what chooses the strength, what is fitted, what runs differ in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.linear_evaluation import (
    Sample,
    evaluate_linearly,
    stratified_split,
)

N_CLASSES = 3
FEW = np.array([1e-2, 1.0, 1e2])


def sample(n, seed, offset=0.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, N_CLASSES, n)
    labels[:N_CLASSES] = range(N_CLASSES)
    centres = np.random.default_rng(0).normal(size=(N_CLASSES, 10))
    features = (offset + centres[labels] + rng.normal(size=(n, 10))).astype(np.float32)
    return Sample(features, labels)


def evaluate(validation=None, **settings):
    options = {"n_classes": N_CLASSES, "n_runs": 2, "strengths": FEW, **settings}
    return evaluate_linearly(sample(120, 1), validation, sample(200, 2), **options)


def test_it_is_scikit_learns_protocol_with_official_validation():
    train, validation, test = sample(120, 1), sample(60, 3), sample(200, 2)
    found = evaluate(validation, n_runs=1)
    shares = [
        LogisticRegression(C=1 / s, tol=1e-8, max_iter=5000)
        .fit(train.features, train.labels)
        .score(validation.features, validation.labels)
        for s in FEW
    ]
    assert found.validation == [pytest.approx(shares)]
    best = max(range(len(FEW)), key=lambda k: (shares[k], FEW[k]))
    assert found.strengths == [FEW[best]]
    both = LogisticRegression(C=1 / FEW[best], tol=1e-8, max_iter=5000).fit(
        np.concatenate([train.features, validation.features]),
        np.concatenate([train.labels, validation.labels]),
    )
    assert found.top1 == [pytest.approx(both.score(test.features, test.labels))]
    assert (found.n_train, found.n_validation) == (120, 60)


def test_ties_go_to_the_strongest_penalty():
    one = Sample(np.zeros((9, 2), np.float32), np.repeat([0, 1, 2], 3))
    found = evaluate_linearly(
        one, one, one, n_classes=3, n_runs=1, strengths=np.array([1.0, 100.0, 10.0])
    )
    assert found.strengths == [100.0]


def test_test_labels_choose_nothing():
    found = evaluate(n_runs=3)
    shuffled = sample(200, 2)
    np.random.default_rng(9).shuffle(shuffled.labels)
    other = evaluate_linearly(
        sample(120, 1), None, shuffled, n_classes=N_CLASSES, n_runs=3, strengths=FEW
    )
    assert other.strengths == found.strengths
    assert other.top1 != found.top1


def test_runs_of_one_strength_are_equal_and_seeds_repeat():
    found = evaluate(strengths=np.array([1.0]), n_runs=3)
    assert len(set(found.top1)) == 1
    assert evaluate(seed=4) == evaluate(seed=4)
    assert evaluate(seed=4).validation != evaluate(seed=5).validation


def test_only_the_first_run_uses_official_validation_images():
    validation = sample(60, 3)
    found = evaluate(validation, n_runs=3)
    assert found.validation[0] == evaluate(validation, n_runs=1).validation[0]
    assert len(found.top1) == 3


@given(
    counts=st.lists(st.integers(1, 40), min_size=1, max_size=6).filter(
        lambda counts: max(counts) > 1
    ),
    share=st.floats(0.05, 0.95),
    seed=st.integers(0, 9),
)
def test_a_split_takes_the_share_of_each_class(counts, share, seed):
    labels = np.random.default_rng(seed).permutation(
        np.repeat(np.arange(len(counts)), counts)
    )
    kept, off = stratified_split(labels, share, np.random.default_rng(seed))
    np.testing.assert_array_equal(
        np.sort(np.concatenate([kept, off])), np.arange(len(labels))
    )
    for label, count in enumerate(counts):
        n_off = int((labels[off] == label).sum())
        assert n_off == min(max(round(share * count), 1), count - 1)


def test_progress_ends_at_its_total():
    told = []
    evaluate(progress=lambda what, done, total: told.append((done, total)))
    assert told[-1] == (8, 8)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_cannot_be_evaluated_is_refused():
    with pytest.raises(ConfigError, match="a run"):
        evaluate(n_runs=0)
    with pytest.raises(ConfigError, match="share"):
        evaluate(validation_share=1.0)
    one, test = sample(3, 1), sample(20, 2)
    with pytest.raises(DataError, match="one image only"):
        evaluate_linearly(one, None, test, n_classes=3)
    narrow = Sample(test.features[:, :4], test.labels)
    with pytest.raises(DataError, match="same layer"):
        evaluate_linearly(sample(20, 1), None, narrow, n_classes=3)
