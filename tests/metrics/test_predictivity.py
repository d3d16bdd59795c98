import tracemalloc
from functools import partial

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.model_selection import ShuffleSplit

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.pls import kernel_pls
from ce_align.metrics.predictivity import (
    REGRESSIONS,
    brainscore_splits,
    cross_validated_r,
    normalised_score,
    summarise,
    working_bytes,
)
from ce_align.metrics.ridge import kernel_ridge

N_STIMULI, N_FEATURES, N_NEUROIDS = 160, 300, 12

#: Regressions of each neuroid on all units.
FORWARD = ("pls", "ridge", "ridgecv")


@pytest.fixture
def planted(rng):
    """Rectified features, neuroids that share their causes, and splits."""
    latent = rng.standard_normal((N_STIMULI, 40)) * np.arange(1, 41) ** -0.6
    features = latent @ rng.standard_normal((40, N_FEATURES))
    features += 0.5 * rng.standard_normal(features.shape)
    features = np.maximum(features, 0).astype(np.float32)
    responses = latent @ rng.standard_normal((40, N_NEUROIDS))
    responses += rng.standard_normal(responses.shape)
    return features, responses + 2, brainscore_splits(N_STIMULI)


@pytest.mark.parametrize("n_stimuli", [20, 57, 3200])
@pytest.mark.parametrize("train_size", [0.5, 0.9])
def test_splits_are_those_of_scikit_learn(n_stimuli, train_size):
    for seed in (1, 7):
        theirs = ShuffleSplit(10, train_size=train_size, random_state=seed)
        splits = brainscore_splits(n_stimuli, train_size=train_size, seed=seed)
        expected = theirs.split(np.zeros(n_stimuli))
        for ours, pair in zip(splits, expected, strict=True):
            for found, wanted in zip(ours, pair, strict=True):
                np.testing.assert_array_equal(found, wanted)


def brainscore_r(features, responses, classes, stratified, regression):
    """Brain-Score's own metric on assemblies: score and r of each split."""
    from brainscore_core.supported_data_standards.brainio.assemblies import (
        NeuroidAssembly,
        NeuronRecordingAssembly,
    )
    from brainscore_vision.metrics import regression_correlation

    make, kind = {
        "pls": ("pls_regression", "CrossRegressedCorrelation"),
        "ridge": ("ridge_regression", "CrossRegressedCorrelation"),
        "ridgecv": ("dual_ridge_cv_regression", "CrossRegressedCorrelation"),
        "reverse_pls": ("pls_regression", "ReverseCrossRegressedCorrelation"),
        "neuron_to_neuron": ("single_regression", "CrossRegressedCorrelation"),
    }[regression]
    # Not in the order of identifiers, as recordings are not.
    order = np.random.default_rng(3).permutation(len(features))
    presentation = {
        "stimulus_id": ("presentation", [f"image_{number:04}" for number in order]),
        "object_name": ("presentation", classes),
    }

    def assembly(kind, values, prefix):
        names = [f"{prefix}_{number:04}" for number in range(values.shape[1])]
        return kind(
            values,
            coords={
                **presentation,
                "neuroid_id": ("neuroid", names),
                "region": ("neuroid", ["IT"] * len(names)),
            },
            dims=["presentation", "neuroid"],
        )

    metric = getattr(regression_correlation.metric, kind)(
        regression=getattr(regression_correlation.metric, make)(),
        correlation=regression_correlation.pearsonr_correlation(),
        crossvalidation_kwargs={
            "stratification_coord": "object_name" if stratified else None
        },
    )
    score = metric(
        assembly(NeuroidAssembly, features.astype(np.float64), "unit"),
        assembly(NeuronRecordingAssembly, responses, "site"),
    )
    raw = score.raw.transpose("split", "neuroid").values
    return float(score), float(score.attrs["error"]), raw


@pytest.mark.slow
@pytest.mark.brainscore
@pytest.mark.parametrize("regression", sorted(REGRESSIONS))
@pytest.mark.parametrize("stratified", [True, False])
def test_correlations_and_score_equal_brain_score(rng, planted, regression, stratified):
    features, responses, _ = planted
    if regression == "reverse_pls":  # 25 components need as many neuroids
        features = features[:, :60]  # Brain-Score correlates one unit after another
        mixed = responses @ rng.standard_normal((N_NEUROIDS, 40))
        responses = mixed + rng.standard_normal(mixed.shape)
    classes = rng.choice(["bear", "car", "face"], N_STIMULI)
    splits = brainscore_splits(N_STIMULI, stratify=classes if stratified else None)
    r = cross_validated_r(features, responses, splits, regression=regression, alpha=1.0)
    score, error, expected = brainscore_r(
        features, responses, classes, stratified, regression
    )
    np.testing.assert_allclose(r, expected, rtol=0, atol=1e-9)
    assert summarise(r) == pytest.approx((score, error), abs=1e-9)


@pytest.mark.slow
@pytest.mark.brainscore
@pytest.mark.filterwarnings("ignore:An input array is constant")
@pytest.mark.parametrize("n_features", [30, 150])
@pytest.mark.parametrize("n_neuroids", [3, 90])
def test_ridgecv_equals_brain_score_whatever_is_many(
    rng, planted, n_features, n_neuroids
):
    n_stimuli = 80
    features = planted[0][:n_stimuli, :n_features]
    responses = features @ rng.standard_normal((n_features, n_neuroids))
    responses += 20 * rng.standard_normal(responses.shape)
    r = cross_validated_r(
        features, responses, brainscore_splits(n_stimuli), regression="ridgecv"
    )
    _, _, expected = brainscore_r(
        features, responses, ["thing"] * n_stimuli, False, "ridgecv"
    )
    np.testing.assert_allclose(r, expected, rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.brainscore
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_units_that_are_silent_have_no_number_in_reverse_as_in_brain_score(
    rng, planted
):
    features, responses, splits = planted
    features = features[:, :60]
    features[:, [0, 5]] = 0.0  # the power iteration starts at the first that varies
    responses = np.hstack([responses, rng.standard_normal((N_STIMULI, 20))])
    r = cross_validated_r(features, responses, splits, regression="reverse_pls")
    _, _, expected = brainscore_r(
        features, responses, ["thing"] * N_STIMULI, False, "reverse_pls"
    )
    assert np.flatnonzero(np.isnan(r[0])).tolist() == [0, 5]
    np.testing.assert_allclose(r, expected, rtol=0, atol=1e-9)


def test_reverse_pls_refuses_fewer_neuroids_than_components(planted):
    features, responses, splits = planted
    with pytest.raises(DataError, match="12 are fewer than 25"):
        cross_validated_r(features, responses, splits, regression="reverse_pls")


@pytest.mark.slow
@pytest.mark.parametrize("regression", FORWARD)
def test_groups_of_neuroids_are_fitted_as_if_alone(rng, planted, regression):
    features, responses, splits = planted
    responses[:, ::2] *= 0.01  # of another strength
    responses[:, ::2] += rng.standard_normal((N_STIMULI, N_NEUROIDS // 2))
    animals = np.array(["F", "N"])[np.arange(N_NEUROIDS) % 2]
    options = {"regression": regression, "n_components": 5}
    r = cross_validated_r(features, responses, splits, groups=animals, **options)
    for animal in "FN":
        alone = cross_validated_r(
            features, responses[:, animals == animal], splits, **options
        )
        np.testing.assert_allclose(r[:, animals == animal], alone, atol=1e-11)
    pooled = cross_validated_r(features, responses, splits, **options)
    assert np.abs(pooled - r).max() > 1e-6


@pytest.mark.slow
@pytest.mark.brainscore
@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_a_silent_neuroid_is_skipped_as_in_brain_score(planted):
    features, responses, splits = planted
    responses[:, 4] = 0.0
    r = cross_validated_r(features, responses, splits)
    score, error, expected = brainscore_r(
        features, responses, ["thing"] * N_STIMULI, False, "pls"
    )
    assert np.isnan(r[:, 4]).all()
    np.testing.assert_allclose(r, expected, rtol=0, atol=1e-9)
    assert summarise(r) == pytest.approx((score, error), abs=1e-9)


@pytest.mark.parametrize("regression", ["pls", "ridge"])
def test_float32_products_move_the_score_by_less_than_1e_5(planted, regression):
    features, responses, splits = planted
    double, single = (
        summarise(
            cross_validated_r(
                features,
                responses,
                splits,
                regression=regression,
                gram_dtype=gram_dtype,
            )
        )[0]
        for gram_dtype in ("float64", "float32")
    )
    assert 0 < abs(double - single) < 1e-5


@pytest.mark.parametrize(
    "predict",
    [
        kernel_pls,
        partial(kernel_pls, mode="exact"),
        partial(kernel_ridge, alphas=[10.0]),
    ],
)
def test_some_stimuli_of_a_larger_gram_give_their_own_predictions(planted, predict):
    features, responses, _ = planted
    rows = np.arange(0, N_STIMULI, 2)
    larger, own = centred_gram(features)[np.ix_(rows, rows)], features[rows]
    fits = [
        predict(gram, responses[rows], brainscore_splits(len(rows)))
        for gram in (larger, centred_gram(own))
    ]
    pairs = zip(*(fit.predictions for fit in fits), strict=True)
    for of_larger, of_own in pairs:
        np.testing.assert_allclose(of_larger, of_own, atol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"mode": "exact"}, {"regression": "ridge"}], ids=str
)
def test_predictivity_ignores_rotation_scale_shift_and_constants(rng, planted, options):
    features, responses, splits = planted
    features = features.astype(np.float64)
    rotation = np.linalg.qr(rng.standard_normal((N_FEATURES, N_FEATURES)))[0]
    constants = np.full((N_STIMULI, 7), 0.3)
    expected = cross_validated_r(features, responses, splits, **options)
    for same in (
        features @ rotation,
        1e-3 * features,
        features + rng.standard_normal(N_FEATURES),
        np.hstack([constants, features]),
        features[:, ::-1],
    ):
        r = cross_validated_r(same, responses, splits, **options)
        np.testing.assert_allclose(r, expected, atol=1e-7)


def test_predictivity_ignores_gain_and_baseline_common_to_neuroids(planted):
    features, responses, splits = planted
    np.testing.assert_allclose(
        cross_validated_r(features, 30 * responses - 8, splits),
        cross_validated_r(features, responses, splits),
        atol=1e-9,
    )


@pytest.mark.slow
@pytest.mark.parametrize("regression", FORWARD)
def test_shuffled_responses_are_not_predicted(rng, regression):
    features = rng.standard_normal((400, 40))
    responses = features @ rng.standard_normal((40, 20))
    splits = brainscore_splits(400)
    raw, null = (
        summarise(cross_validated_r(features, recorded, splits, regression=regression))
        for recorded in (responses, rng.permutation(responses))
    )
    assert raw[0] > 0.8
    assert abs(null[0]) < 0.1


def test_leave_one_out_ridge_beats_too_weak_and_too_strong_ridge(planted):
    features, responses, splits = planted

    def raw(alpha):
        r = cross_validated_r(
            features, responses, splits, regression="ridge", alpha=alpha
        )
        return summarise(r)[0]

    assert raw(None) > max(raw(1e-3), raw(1e6))


def test_correlation_is_undefined_where_a_neuroid_is_constant(planted):
    features, responses, splits = planted
    train, test = splits[0]
    responses[train, 0] = 0.3
    responses[test, 1] = 0.3
    responses[:, 2] = 0.3
    for regression in FORWARD:
        r = cross_validated_r(features, responses, splits[:1], regression=regression)
        np.testing.assert_array_equal(np.isnan(r[0]), np.arange(N_NEUROIDS) < 3)
        assert np.isfinite(summarise(r)).all()


def test_correlation_is_undefined_where_features_do_not_vary_in_training(rng):
    features = np.zeros((60, 40))
    features[50:] = rng.standard_normal((10, 40))
    split = (np.arange(50), np.arange(50, 60))
    r = cross_validated_r(features, rng.standard_normal((60, 3)), [split])
    assert np.isnan(r).all()
    with pytest.raises(DataError, match="no neuroid has a correlation in 1 of 1"):
        summarise(r)


@settings(max_examples=30, deadline=None)
@given(
    n_stimuli=st.integers(20, 50),
    n_features=st.integers(1, 60),
    n_neuroids=st.integers(1, 5),
    regression=st.sampled_from(FORWARD),
    dtype=st.sampled_from(["float16", "float32", "float64", "int8"]),
    seed=st.integers(0, 1000),
)
def test_any_shape_gives_correlations_of_its_shape(
    n_stimuli, n_features, n_neuroids, regression, dtype, seed
):
    rng = np.random.default_rng(seed)
    features = (5 * rng.standard_normal((n_stimuli, n_features))).astype(dtype)
    features[0, 0], features[1, 0] = 1, 2
    responses = rng.standard_normal((n_stimuli, n_neuroids))
    splits = brainscore_splits(n_stimuli, n_splits=3)
    r = cross_validated_r(
        features,
        responses,
        splits,
        regression=regression,
        n_components=min(n_features, 10),
    )
    assert r.shape == (3, n_neuroids)
    assert np.nanmax(np.abs(r), initial=0) <= 1


def test_summary_is_the_mean_of_medians_and_its_standard_error():
    r = np.array([[0.1, 0.3, np.nan, 0.2], [0.5, 0.4, 0.9, np.nan]])
    assert summarise(r) == pytest.approx((0.35, 0.15 / np.sqrt(2)))


def test_normalised_score_is_explained_variance_over_ceiling_unclipped():
    assert normalised_score(0.6, 0.8) == pytest.approx(0.45)
    assert normalised_score(0.9, 0.5) > 1


@pytest.mark.parametrize("ceiling", [0.0, -0.2, np.nan])
def test_scores_without_a_positive_ceiling_are_refused(ceiling):
    with pytest.raises(DataError, match="positive ceiling"):
        normalised_score(0.5, ceiling)


def with_value(array, value):
    changed = np.array(array, dtype=np.float64)
    changed[3, 1] = changed[4, 1] = changed[5, 2] = value
    return changed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x, y, s: (x, with_value(y, np.nan), s), "2 of 12 neuroids have NaN"),
        (lambda x, y, s: (x, with_value(y, np.inf), s), "2 of 12 neuroids have NaN"),
        (lambda x, y, s: (x[:-1], y, s), "159 stimuli but responses has 160"),
        (lambda x, y, s: (x, y[:, 0], s), "stimuli × neuroids"),
        (lambda x, y, s: (x, y[:, :0], s), "stimuli × neuroids"),
        (
            lambda x, y, s: (x[:, :24], y, s),
            "25 components need as many features, found 24; take fewer",
        ),
        (lambda x, y, s: (with_value(x, np.nan), y, s), "features have NaN"),
        (lambda x, y, s: (x[:, 0], y, s), "features must be a matrix"),
        (lambda x, y, s: (np.full_like(x, 0.1), y, s), "same for every stimulus"),
        (lambda x, y, s: (x, y, []), "there are no splits"),
        (lambda x, y, s: (x, y, [([0, 1], [1, 2])]), "names a row twice"),
        (lambda x, y, s: (x, y, [([0, 1], [160, 2])]), "rows go from 0 to 159"),
        (lambda x, y, s: (x, y, [([0, -1], [3, 2])]), "rows go from 0 to 159"),
        (lambda x, y, s: (x, y, [([0, 1], [2])]), "1 test stimuli"),
        (lambda x, y, s: (x, y, [([0.5, 1], [2, 3])]), "lists of row numbers"),
        (
            lambda x, y, s: (x, y, [(range(20), range(20, 40))]),
            "25 components need more training stimuli than 20; take",
        ),
    ],
)
def test_data_that_do_not_fit_are_refused_in_words(planted, change, words):
    with pytest.raises(DataError, match=words):
        cross_validated_r(*change(*planted))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            {"regression": "lasso"},
            r"unknown regression 'lasso'; choose from \['neuron_to_",
        ),
        ({"mode": "svd"}, "unknown PLS mode"),
        ({"gram_dtype": "float16"}, "unknown Gram precision"),
        ({"n_components": 0}, "n_components must be at least 1"),
        ({"regression": "ridge", "alpha": 0.0}, "ridge strengths must be positive"),
        ({"regression": "ridge", "alpha": np.nan}, "ridge strengths must be positive"),
    ],
)
def test_options_that_do_not_exist_are_refused_in_words(planted, options, words):
    with pytest.raises(ConfigError, match=words):
        cross_validated_r(*planted, **options)


@settings(max_examples=50, deadline=None)
@given(n=st.integers(2, 30), scale=st.integers(-150, 150), seed=st.integers(0, 1000))
def test_columnwise_correlation_is_scipys(n, scale, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, n, 4))
    b[:, 1] = -3 * a[:, 1]
    a[:, 2] = 0.1
    r = columnwise_pearson_r(a * 10.0**scale, b)
    expected = [scipy.stats.pearsonr(a[:, k], b[:, k])[0] for k in (0, 1, 3)]
    np.testing.assert_allclose(r[[0, 1, 3]], expected, atol=1e-12)
    assert np.isnan(r[2])


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


def test_as_many_classes_as_test_stimuli_can_be_split():
    classes = np.tile(list("abcd"), 10)
    for _, test in brainscore_splits(40, stratify=classes):
        assert sorted(classes[test]) == list("abcd")


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("n", "n_features", "n_neuroids", "regression"),
    [
        (600, 6000, 80, "pls"),
        (500, 3000, 900, "pls"),
        (600, 6000, 80, "ridge"),
        (500, 3000, 900, "ridge"),
        (900, 600, 20, "ridge"),
        (400, 9000, 40, "reverse_pls"),
        (400, 9000, 40, "neuron_to_neuron"),
    ],
)
def test_memory_is_known_before_it_is_taken(n, n_features, n_neuroids, regression, rng):
    features = rng.normal(size=(n, n_features)).astype(np.float32)
    mixed = features[:, :10] @ rng.normal(size=(10, n_neuroids))
    rates = mixed + rng.normal(size=(n, n_neuroids))
    splits = brainscore_splits(n)
    tracemalloc.start()
    try:
        cross_validated_r(features, rates, splits, regression=regression)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    known = working_bytes(features.shape, n_neuroids, splits, regression=regression)
    assert 0.65 * known < taken < 1.25 * known
