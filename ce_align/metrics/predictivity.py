"""How well features predict responses to stimuli that the regression never saw."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import DataError
from ce_align.metrics.gram import centred_gram
from ce_align.metrics.pearson import columnwise_pearson_r
from ce_align.metrics.regressions import REGRESSIONS, RegressionSettings

__all__ = [
    "REGRESSIONS",
    "cross_validated_r",
    "cross_validated_r_from_gram",
    "normalised_score",
    "summarise",
]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Splits = Sequence[tuple[Indices, Indices]]


def cross_validated_r(
    features: ArrayLike,
    responses: ArrayLike,
    splits: Splits,
    *,
    regression: str = "pls",
    mode: str = "nipals",
    n_components: int = 25,
    alpha: float | None = None,
    gram_dtype: str = "float64",
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Held-out correlation of predicted and recorded responses.

    Parameters
    ----------
    features : (n_stimuli, n_features)
        Any real precision; may be a memory map, of which no copy is made.
    responses : (n_stimuli, n_neuroids)
        Averaged over repetitions, finite, rows in the order of `features`.
    splits : sequence of (train, test)
        Row numbers, such as `brainscore_splits` gives.
    regression : {"pls", "ridge"}
        A key of `REGRESSIONS`.
    mode : {"nipals", "exact"}
        For PLS: stop where scikit-learn and Brain-Score stop, or converge.
    n_components : int
        For PLS; Brain-Score's is 25.
    alpha : float, optional
        For ridge: the strength, 1 being Brain-Score's `ridge`. Without it each split
        takes the strength of least leave-one-out error among 22, from 1e-6 to 10 times
        the total variation of the features.
    gram_dtype : {"float64", "float32"}
        Precision of the products of features.
    progress : callable, optional
        Called with the numbers of features read and in all.

    Returns
    -------
    (n_splits, n_neuroids)
        Pearson r over the test stimuli; NaN where a neuroid does not vary over the
        training or the test stimuli, or its prediction does not.

    Raises
    ------
    ConfigError
        If a name or number is not one of the above.
    DataError
        If rows differ, values are missing or infinite, features do not vary, splits do
        not fit, or there are too few features or stimuli for `n_components`.

    Reference: Yamins et al. (2014); Schrimpf et al. (2018), Brain-Score.
    """
    settings = RegressionSettings(regression, mode, n_components, alpha, gram_dtype)
    values = np.asanyarray(features)
    rates = _checked_responses(responses)
    n_features = None
    if values.ndim == 2:  # the Gram matrix refuses any other
        n_features = values.shape[1]
        if len(values) != len(rates):
            raise DataError(
                f"features has {len(values)} stimuli but responses has {len(rates)}; "
                "align both on stimulus_id"
            )
    rows = _checked_splits(splits, len(rates))
    REGRESSIONS[regression].check(settings, rows, n_features)
    gram = centred_gram(values, dtype=gram_dtype, progress=progress)
    return _held_out_r(gram, rates, rows, settings)


def cross_validated_r_from_gram(
    gram: ArrayLike,
    responses: ArrayLike,
    splits: Splits,
    *,
    regression: str = "pls",
    mode: str = "nipals",
    n_components: int = 25,
    alpha: float | None = None,
    gram_dtype: str = "float64",
) -> Array:
    """Held-out correlation from the Gram matrix of the features alone.

    Parameters
    ----------
    gram : (n_stimuli, n_stimuli)
        From `centred_gram`, possibly with the rows and columns of fewer stimuli.
    gram_dtype : {"float64", "float32"}
        Precision in which it was formed.
    responses, splits, regression, mode, n_components, alpha
        As for `cross_validated_r`, which see for results and errors.
    """
    settings = RegressionSettings(regression, mode, n_components, alpha, gram_dtype)
    rates = _checked_responses(responses)
    rows = _checked_splits(splits, len(rates))
    REGRESSIONS[regression].check(settings, rows, None)
    return _held_out_r(_checked_gram(gram, len(rates)), rates, rows, settings)


def summarise(r: ArrayLike) -> tuple[float, float]:
    """Raw score and its error, as Brain-Score aggregates correlations.

    Parameters
    ----------
    r : (n_splits, n_neuroids)
        NaN where undefined.

    Returns
    -------
    raw : float
        Mean over splits of the median over neuroids, of those that are defined.
    error : float
        Standard deviation of the medians over splits (divided by their number, not one
        less) over the square root of their number.

    Raises
    ------
    DataError
        If in some split no neuroid has a correlation.
    """
    values = np.asarray(r, dtype=np.float64)
    undefined = np.flatnonzero(np.isnan(values).all(axis=1))
    if len(undefined):
        raise DataError(
            f"no neuroid has a correlation in {len(undefined)} of {len(values)} "
            "splits: responses or predictions are constant there; check both"
        )
    medians = np.nanmedian(values, axis=1)
    return float(medians.mean()), float(medians.std() / np.sqrt(len(medians)))


def normalised_score(raw: float, ceiling: float) -> float:
    """Explained variance relative to the ceiling, r² / ceiling, not clipped.

    Raises
    ------
    DataError
        If the ceiling is not positive.
    """
    if not ceiling > 0:
        raise DataError(
            f"a score needs a positive ceiling, not {ceiling}; the recording's halves "
            "do not agree"
        )
    return raw**2 / ceiling


def _checked_responses(responses: ArrayLike) -> Array:
    """Responses as float64, once they are a finite matrix."""
    values = np.asarray(responses, dtype=np.float64)
    if values.ndim != 2 or not values.size:
        raise DataError(
            f"responses must be stimuli × neuroids, but have shape {values.shape}"
        )
    missing = np.flatnonzero(~np.isfinite(values).all(axis=0))
    if len(missing):
        raise DataError(
            f"{len(missing)} of {values.shape[1]} neuroids have NaN or infinite "
            "responses to some stimuli; drop these neuroids or these stimuli"
        )
    return values


def _checked_gram(gram: ArrayLike, n_stimuli: int) -> Array:
    """The Gram matrix as float64, centred, once it fits the responses."""
    values = np.asarray(gram, dtype=np.float64)
    if values.shape != (n_stimuli, n_stimuli):
        raise DataError(
            f"the Gram matrix has shape {values.shape}, but responses has {n_stimuli} "
            "stimuli; align both on stimulus_id"
        )
    if not np.isfinite(values).all() or not np.trace(values) > 0:
        raise DataError("the Gram matrix must be finite and not zero; form it anew")
    return values


def _checked_splits(splits: Splits, n_stimuli: int) -> list[tuple[Indices, Indices]]:
    """The splits as row numbers, once each can be fitted and tested."""
    if not len(splits):
        raise DataError("there are no splits; give at least one (train, test)")
    return [_checked_split(train, test, n_stimuli) for train, test in splits]


def _checked_split(
    train: ArrayLike, test: ArrayLike, n_stimuli: int
) -> tuple[Indices, Indices]:
    """Row numbers, once they exist, occur once and do not overlap."""
    first, second = np.asarray(train), np.asarray(test)
    if any(rows.ndim != 1 or rows.dtype.kind not in "iu" for rows in (first, second)):
        raise DataError("a split must be two lists of row numbers, training and test")
    if len(first) < 1 or len(second) < 2:
        raise DataError(
            f"a split has {len(first)} training and {len(second)} test stimuli; at "
            "least 1 and 2 are needed"
        )
    both = np.concatenate([first, second])
    if len(np.unique(both)) != len(both):
        raise DataError("a split names a row twice; training and test must be disjoint")
    if both.min() < 0 or both.max() >= n_stimuli:
        raise DataError(
            f"a split names rows {both.min()} to {both.max()}, but rows go from 0 to "
            f"{n_stimuli - 1}"
        )
    return first.astype(np.intp), second.astype(np.intp)


def _held_out_r(
    gram: Array, responses: Array, splits: Splits, settings: RegressionSettings
) -> Array:
    """Correlations, (n_splits, n_neuroids); NaN where training responses are constant.

    A regression on a constant predicts it with rounding errors, whose correlation
    means nothing.
    """
    predict = REGRESSIONS[settings.regression].predict
    predictions = predict(gram, responses, splits, settings)
    r = np.empty((len(splits), responses.shape[1]))
    for split, (train, test) in enumerate(splits):
        r[split] = columnwise_pearson_r(predictions[split], responses[test])
        r[split, np.ptp(responses[train], axis=0) == 0] = np.nan
    return r
