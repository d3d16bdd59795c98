"""Linear probes against scikit-learn's optimum, closed forms and invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax
from sklearn.linear_model import LogisticRegression

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.linear_evaluation import (
    Sample,
    accuracies,
    evaluate_linearly,
    stratified_split,
)
from ce_align.metrics.linear_probe import STRENGTHS, ProbeProblem


def problem(n=300, d=20, n_classes=4, noise=1.0, seed=0):
    """Rectified features of latents that also decide the class, as networks have."""
    rng = np.random.default_rng(seed)
    latents = rng.normal(size=(n, 8)) * np.arange(1, 9) ** -0.7
    features = np.maximum(latents @ rng.normal(size=(8, d)), 0).astype(np.float32)
    outputs = 3 * latents @ rng.normal(size=(8, n_classes))
    labels = (outputs + noise * rng.gumbel(size=outputs.shape)).argmax(axis=1)
    return features, labels


def objective(features, labels, weights, intercepts, strength):
    """In double precision."""
    log_p = log_softmax(features.astype(np.float64) @ weights + intercepts, axis=1)
    fit = -log_p[np.arange(len(labels)), labels].sum()
    return fit + strength / 2 * np.square(weights).sum()


def gradient(features, labels, probe):
    wide = features.astype(np.float64)
    p = np.exp(log_softmax(wide @ probe.weights + probe.intercepts, axis=1))
    p[np.arange(len(labels)), labels] -= 1
    return wide.T @ p + probe.strength * probe.weights, p.sum(axis=0)


def optimum(features, labels, strength):
    model = LogisticRegression(C=1 / strength, tol=1e-10, max_iter=50_000)
    return model.fit(features.astype(np.float64), labels)


@pytest.mark.parametrize("noise", [1.0, 0.0], ids=["overlapping", "separable"])
@pytest.mark.parametrize("strength", [1e5, 1e2, 1.0, 1e-2])
def test_a_probe_is_scikit_learns_optimum(strength, noise):
    features, labels = problem(noise=noise)
    probe = ProbeProblem(features, labels).fit([strength])[0]
    model = optimum(features, labels, strength)
    expected = objective(features, labels, model.coef_.T, model.intercept_, strength)
    found = objective(features, labels, probe.weights, probe.intercepts, strength)
    assert probe.converged
    assert found == pytest.approx(expected, rel=1e-4)
    assert probe.objective == pytest.approx(found, rel=1e-6)
    agreement = (probe.classify(features) == model.predict(features)).mean()
    assert agreement >= 0.99


def test_the_whole_path_is_scikit_learns():
    features, labels = problem(n=150, d=10, n_classes=3)
    path = ProbeProblem(features, labels).fit()
    assert [probe.strength for probe in path] == list(STRENGTHS)
    for probe in path[0::8]:
        model = optimum(features, labels, probe.strength)
        expected = objective(
            features, labels, model.coef_.T, model.intercept_, probe.strength
        )
        found = objective(
            features, labels, probe.weights, probe.intercepts, probe.strength
        )
        assert found == pytest.approx(expected, rel=1e-4)
    values = [probe.objective for probe in path]
    assert (np.diff(values) > -1e-4 * np.array(values[1:])).all()


def test_the_gradient_vanishes_at_the_optimum():
    features, labels = problem(n=500)
    untrained, _ = gradient(features, labels, _still(features, labels))
    for probe in ProbeProblem(features, labels).fit([1e3, 1.0, 1e-2], tolerance=1e-10):
        of_weights, of_intercepts = gradient(features, labels, probe)
        assert np.abs(of_weights).max() < 2e-4 * np.abs(untrained).max()
        assert np.abs(of_intercepts).max() < 2e-4 * len(labels)
        assert probe.gradient < 2e-4 * np.abs(untrained).max()


class _still:
    """Before anything is learnt."""

    strength = 1.0

    def __init__(self, features, labels):
        self.weights = np.zeros((features.shape[1], labels.max() + 1))
        self.intercepts = np.zeros(labels.max() + 1)


def test_features_that_tell_nothing_give_the_log_of_the_prior():
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    for probe in ProbeProblem(np.zeros((100, 5), np.float32), labels).fit([1e-6, 1e5]):
        p = np.exp(log_softmax(probe.intercepts))
        np.testing.assert_allclose(p, [0.1, 0.3, 0.6], rtol=1e-3)
        np.testing.assert_array_equal(probe.weights, 0)
        entropy = -100 * (np.array([0.1, 0.3, 0.6]) @ np.log([0.1, 0.3, 0.6]))
        assert probe.objective == pytest.approx(entropy, rel=1e-6)


def test_an_endless_penalty_leaves_the_prior():
    features, labels = problem()
    probe = ProbeProblem(features, labels).fit([1e12])[0]
    prior = np.bincount(labels) / len(labels)
    np.testing.assert_allclose(
        np.exp(log_softmax(probe.intercepts)), prior, rtol=1e-3, atol=1e-4
    )
    assert np.abs(probe.weights).max() < 1e-8


@given(seed=st.integers(0, 100), shift=st.floats(-50, 50))
@settings(max_examples=10)
def test_a_constant_added_to_features_changes_only_intercepts(seed, shift):
    features, labels = problem(n=80, d=6, seed=seed, n_classes=3)
    labels[:3] = range(3)
    here = ProbeProblem(features, labels, n_classes=3).fit([1.0])[0]
    there = ProbeProblem(features + np.float32(shift), labels, n_classes=3)
    moved = there.fit([1.0])[0]
    assert moved.objective == pytest.approx(here.objective, rel=1e-4)
    np.testing.assert_allclose(moved.weights, here.weights, atol=0.02)


@pytest.mark.parametrize("strengths", [(0.1, 100, 1), (1e5, 9e4, 1e-3), (1, 1, 0.5)])
def test_strengths_in_any_order_and_in_company_give_the_same_optimum(strengths):
    features, labels = problem()
    one = ProbeProblem(features, labels)
    alone = [one.fit([s])[0].objective for s in strengths]
    together = [probe.objective for probe in one.fit(strengths)]
    np.testing.assert_allclose(together, alone, rtol=1e-5)


def test_a_subset_of_rows_is_fitted_as_if_it_were_all():
    features, labels = problem()
    rows = np.arange(0, 300, 2)
    part = ProbeProblem(features, labels).fit([1.0], rows=rows)[0]
    alone = ProbeProblem(features[rows], labels[rows]).fit([1.0])[0]
    assert part.objective == pytest.approx(alone.objective, rel=1e-5)


def test_more_features_than_images_and_a_class_without_images():
    features, labels = problem(n=30, d=100, n_classes=3)
    probe = ProbeProblem(features, labels, n_classes=5).fit([0.1])[0]
    assert probe.weights.shape == (100, 5)
    assert set(probe.classify(features)) <= {0, 1, 2}
    model = optimum(features, labels, 0.1)
    three = objective(features, labels, model.coef_.T, model.intercept_, 0.1)
    assert probe.objective == pytest.approx(three, rel=1e-3)


def test_a_fit_that_may_not_go_on_says_so():
    features, labels = problem()
    probe = ProbeProblem(features, labels).fit([1e-4], max_passes=3)[0]
    assert not probe.converged
    assert probe.n_passes == 3


def test_the_metric_keeps_passes_few():
    """Gradient methods without it take thousands; here 63, twice as many at most."""
    features, labels = problem()
    features = features * np.logspace(0, -4, 20, dtype=np.float32)
    fitted = ProbeProblem(features, labels)
    passes = [fitted.fit([s])[0].n_passes for s in (1e8, 1e2, 1.0, 1e-2, 1e-4)]
    assert sum(passes) <= 126


def test_accuracies_by_hand():
    labels = np.array([0, 0, 0, 1])
    top1, per_class, error = accuracies(np.array([0, 0, 1, 1]), labels)
    assert (top1, per_class) == (0.75, pytest.approx((2 / 3 + 1) / 2))
    assert error == pytest.approx(np.sqrt((2 / 3) * (1 / 3) / 3) / 2)


@pytest.mark.parametrize(
    ("features", "labels", "said"),
    [
        (np.zeros((3, 2)), [0, 1], "do not agree"),
        (np.zeros(3), [0, 1, 0], "do not agree"),
        (np.zeros((3, 2)), [0, 0, 0], "two classes"),
        (np.zeros((3, 2)), [0, 1, -1], "from 0"),
        (np.zeros((3, 2)), [0.0, 1.0, 1.0], "from 0"),
        (np.full((3, 2), np.nan), [0, 1, 1], "NaN"),
        (np.full((3, 2), 1e30), [0, 1, 1], "scale"),
    ],
)
def test_what_is_no_problem_is_refused(features, labels, said):
    with pytest.raises(DataError, match=said):
        ProbeProblem(features, labels)


def test_strengths_are_positive():
    features, labels = problem()
    with pytest.raises(ConfigError, match="positive"):
        ProbeProblem(features, labels).fit([1.0, 0.0])


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
    judged = accuracies(both.predict(test.features), test.labels)
    assert (found.mean_per_class, found.error) == ([judged[1]], [judged[2]])
    assert (found.n_train, found.n_validation) == (120, 60)


def test_probes_that_were_not_finished_are_counted(monkeypatch):
    fit = ProbeProblem.fit

    def hurried(self, *arguments, **options):
        return fit(self, *arguments, **options | {"max_passes": 1})

    monkeypatch.setattr(ProbeProblem, "fit", hurried)
    found = evaluate(n_runs=3)
    # Three strengths a run, and those that were chosen, once each.
    assert found.n_unconverged == 3 * 3 + len(set(found.strengths))
    monkeypatch.undo()
    assert evaluate(n_runs=3).n_unconverged == 0


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


@pytest.mark.slow
def test_runs_of_one_strength_are_equal_and_seeds_repeat():
    found = evaluate(strengths=np.array([1.0]), n_runs=3)
    assert len(set(found.top1)) == 1
    assert evaluate(seed=4) == evaluate(seed=4)
    assert evaluate(seed=4).validation != evaluate(seed=5).validation


@pytest.mark.slow
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

    def tell(what, done, total):
        assert what == "fits"
        told.append((done, total))

    evaluate(progress=tell)
    assert told[-1] == (8, 8)
    assert {total for _, total in told} == {8}
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
