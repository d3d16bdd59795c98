"""How well features predict responses to stimuli that the regression never saw."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import named_some
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import GRAM_DTYPES, Array, Indices, Splits, centred_gram
from ce_align.metrics.held_out import HeldOut, shuffled_splits
from ce_align.metrics.pls import PLS_MODES, check_components, kernel_pls
from ce_align.metrics.ridge import check_alphas, kernel_ridge, leave_one_out_alphas
from ce_align.metrics.unitwise import neuron_to_neuron, reverse_pls_r

__all__ = [
    *(
        "BRAINSCORE_ALPHAS",
        "REGRESSIONS",
        "brainscore_splits",
        "cross_validated_r",
        "held_out",
        "normalised_score",
    ),
    *("summarise", "working_bytes"),
]

#: Forms the Gram matrix of the features, which takes long.
FormGram = Callable[[], Array]

#: Strengths that Brain-Score's `ridgecv` chooses from, in squared feature units.
BRAINSCORE_ALPHAS = (
    *(0.01, 0.1, 0.5, 1.0),
    *np.linspace(1e1, 1e2, 4, endpoint=False),
    *np.linspace(1e2, 1e3, 18, endpoint=False),
    *np.linspace(1e3, 1e4, 18, endpoint=False),
    *np.linspace(1e4, 1e5, 18, endpoint=False),
    *np.linspace(1e5, 1e6, 18, endpoint=False),
    *np.linspace(1e6, 1e7, 19),
)

#: A correlation needs at least two points.
MIN_TEST = 2


def brainscore_splits(
    n_stimuli: int,
    *,
    stratify: ArrayLike | None = None,
    n_splits: int = 10,
    train_size: float = 0.9,
    seed: int = 1,
) -> list[tuple[Indices, Indices]]:
    """Random splits of stimuli into training and test rows, exactly as Brain-Score's.

    Parameters
    ----------
    n_stimuli : rows of the repetition-averaged recording, in its own order: another
        order gives other splits
    stratify : (n_stimuli,), class of each stimulus (`object_name`), to balance classes
        between training and test as the HvM benchmarks do
    n_splits, train_size, seed : Brain-Score's are the defaults

    Raises
    ------
    ConfigError
        If `train_size` is not between 0 and 1, or `n_splits` is below 1.
    DataError
        If there are too few stimuli, or too few to balance the classes.
    """
    if not 0 < train_size < 1:
        raise ConfigError(f"train_size must lie between 0 and 1, not {train_size}")
    if n_splits < 1:
        raise ConfigError(f"n_splits must be at least 1, not {n_splits}")
    n_train = int(train_size * n_stimuli)
    n_test = n_stimuli - n_train
    if n_train < 1 or n_test < MIN_TEST:
        raise DataError(
            f"{n_stimuli} stimuli are too few: {n_train} would train and {n_test} "
            f"test, but at least 1 and {MIN_TEST} are needed"
        )
    if stratify is None:
        return shuffled_splits(n_stimuli, n_train, n_splits=n_splits, seed=seed)
    from sklearn.model_selection import StratifiedShuffleSplit

    classes = _checked_classes(stratify, n_stimuli, n_train, n_test)
    options = {"n_splits": n_splits, "train_size": train_size, "random_state": seed}
    return list(StratifiedShuffleSplit(**options).split(classes, classes))


def _checked_classes(
    stratify: ArrayLike, n_stimuli: int, n_train: int, n_test: int
) -> NDArray[np.generic]:
    """The classes, once each can be in training and in test."""
    classes = np.asarray(stratify)
    if classes.shape != (n_stimuli,):
        raise DataError(
            f"stratify must name one class for each of {n_stimuli} stimuli, but has "
            f"shape {classes.shape}"
        )
    try:
        names, counts = np.unique(classes, return_counts=True)
    except TypeError:
        raise DataError(
            "classes of stimuli must be all text or all numbers, but are mixed; fill "
            "missing ones in"
        ) from None
    single = names[counts == 1]
    if len(single):
        raise DataError(
            f"each class needs at least 2 stimuli to be split, but {len(single)} have "
            f"one only ({named_some(single.tolist())}); merge them or do not stratify"
        )
    if len(names) > min(n_train, n_test):
        raise DataError(
            f"{len(names)} classes cannot all be in {n_train} training and {n_test} "
            "test stimuli; use more stimuli, fewer classes or do not stratify"
        )
    return classes


@dataclass(frozen=True)
class _Settings:
    """What the regressions may be told; each heeds what concerns it."""

    regression: str
    mode: str
    n_components: int
    alpha: float | None
    gram_dtype: str
    groups: Sequence[Indices] | None

    def __post_init__(self) -> None:
        for what, value, known in (
            ("regression", self.regression, REGRESSIONS),
            ("PLS mode", self.mode, PLS_MODES),
            ("Gram precision", self.gram_dtype, GRAM_DTYPES),
        ):
            if value not in known:
                raise ConfigError(
                    f"unknown {what} {value!r}; choose from {sorted(known)}"
                )
        if self.alpha is not None:
            check_alphas([self.alpha])


def _pls(
    features: NDArray[Any],
    gram: FormGram,
    rates: Array,
    splits: Splits,
    settings: _Settings,
) -> Sequence[Array]:
    check_components(settings.n_components, splits)
    if features.ndim == 2 and settings.n_components > features.shape[1]:
        raise DataError(
            f"{settings.n_components} components need as many features, found "
            f"{features.shape[1]}; take fewer components, or ridge regression"
        )
    found = [np.empty((len(test), rates.shape[1])) for _, test in splits]
    for places in settings.groups or [np.arange(rates.shape[1])]:
        fit = kernel_pls(
            gram(),
            rates[:, places],
            splits,
            n_components=settings.n_components,
            mode=settings.mode,
            gram_dtype=settings.gram_dtype,
        )
        for whole, part in zip(found, fit.predictions, strict=True):
            whole[:, places] = part
    return found


def _ridge(
    features: NDArray[Any],
    gram: FormGram,
    rates: Array,
    splits: Splits,
    settings: _Settings,
) -> Sequence[Array]:
    formed, alpha = gram(), settings.alpha
    alphas = leave_one_out_alphas(formed) if alpha is None else [alpha]
    fit = kernel_ridge(formed, rates, splits, alphas=alphas, groups=settings.groups)
    return fit.predictions


def _ridgecv(
    features: NDArray[Any],
    gram: FormGram,
    rates: Array,
    splits: Splits,
    settings: _Settings,
) -> Sequence[Array]:
    fit = kernel_ridge(
        gram(), rates, splits, alphas=BRAINSCORE_ALPHAS, groups=settings.groups
    )
    return fit.predictions


def _neuron_to_neuron(
    features: NDArray[Any],
    gram: FormGram,
    rates: Array,
    splits: Splits,
    settings: _Settings,
) -> Sequence[Array]:
    return neuron_to_neuron(features, rates, splits)


#: Each checks its settings, and predicts the test stimuli of every split.
_FORWARD = {
    "pls": _pls,
    "ridge": _ridge,
    "ridgecv": _ridgecv,
    "neuron_to_neuron": _neuron_to_neuron,
}
#: From units to neuroids, and from neuroids to units.
REGRESSIONS = (*_FORWARD, "reverse_pls")


def cross_validated_r(
    features: ArrayLike,
    responses: ArrayLike,
    splits: Splits,
    *,
    regression: str = "pls",
    mode: str = "nipals",
    n_components: int = 25,
    alpha: float | None = None,
    groups: ArrayLike | None = None,
    gram_dtype: str = "float64",
    gram: FormGram | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Array:
    """Held-out correlation of predicted and recorded responses.

    Parameters
    ----------
    features : (n_stimuli, n_features), any real precision; may be a memory map, of
        which no copy is made
    responses : (n_stimuli, n_neuroids), averaged over repetitions, finite, rows in the
        order of `features`
    splits : (train, test), row numbers, such as `brainscore_splits` gives
    regression : ``pls``; ``ridge``; ``ridgecv``, whose strength is one of Brain-Score's
        97; ``reverse_pls``, from neuroids to units; ``neuron_to_neuron``, by the unit
        that is most like a neuroid
    mode, n_components : for PLS, see `kernel_pls`; Brain-Score has 25 components
    alpha : for ridge, the strength, 1 being Brain-Score's `ridge`. Without it each
        split takes the strength of least leave-one-out error among 22, from 1e-6 to 10
        times the total variation of the features
    groups : (n_neuroids,), such as animals: each is fitted by itself, so that each has
        a strength of its own; not for ``reverse_pls``
    gram_dtype, progress : see `centred_gram`
    gram : gives what `centred_gram` gives of these features, if it is at hand

    Returns
    -------
    (n_splits, n_neuroids), of ``reverse_pls`` (n_splits, n_features)
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
    prepared = _prepared(
        features,
        responses,
        splits,
        groups=groups,
        gram=gram,
        progress=progress,
        regression=regression,
        mode=mode,
        n_components=n_components,
        alpha=alpha,
        gram_dtype=gram_dtype,
    )
    if regression == "reverse_pls":
        values, form, rates, rows, _ = prepared
        return reverse_pls_r(values, form(), rates, rows, n_components=n_components)
    return _held_out(*prepared).r


def held_out(
    features: ArrayLike, responses: ArrayLike, splits: Splits, **settings: Any
) -> HeldOut:
    """Held-out predictions of recorded responses.

    Arguments and errors are those of `cross_validated_r`, which correlates them.

    Raises
    ------
    ConfigError
        Also for ``reverse_pls``, which predicts units in place of neuroids.
    """
    if settings.get("regression") == "reverse_pls":
        raise ConfigError(
            "reverse_pls predicts units, not neuroids; choose from "
            f"{', '.join(sorted(_FORWARD))}"
        )
    return _held_out(*_prepared(features, responses, splits, **settings))


def _prepared(
    features: ArrayLike,
    responses: ArrayLike,
    splits: Splits,
    *,
    groups: ArrayLike | None = None,
    gram: FormGram | None = None,
    progress: Callable[[int, int], None] | None = None,
    regression: str = "pls",
    mode: str = "nipals",
    n_components: int = 25,
    alpha: float | None = None,
    gram_dtype: str = "float64",
) -> tuple[NDArray[Any], FormGram, Array, Splits, _Settings]:
    """Arguments of a regression, once they fit each other."""
    members = None
    if groups is not None:
        names, group = np.unique(np.asarray(groups), return_inverse=True)
        members = [np.flatnonzero(group == i) for i in range(len(names))]
    settings = _Settings(regression, mode, n_components, alpha, gram_dtype, members)
    values = np.asanyarray(features)
    rates = _checked_responses(responses)
    if values.ndim == 2 and len(values) != len(rates):
        raise DataError(
            f"features has {len(values)} stimuli but responses has {len(rates)}; "
            "align both on stimulus_id"
        )
    if not len(splits):
        raise DataError("there are no splits; give at least one (train, test)")
    rows = [_checked_split(train, test, len(rates)) for train, test in splits]
    form = gram or cache(
        partial(centred_gram, values, dtype=gram_dtype, progress=progress)
    )
    return values, form, rates, rows, settings


def _held_out(
    features: NDArray[Any],
    gram: FormGram,
    rates: Array,
    splits: Splits,
    settings: _Settings,
) -> HeldOut:
    predict = _FORWARD[settings.regression]
    return HeldOut(predict(features, gram, rates, splits, settings), rates, splits)


def working_bytes(
    shape: tuple[int, int],
    n_neuroids: int,
    splits: Splits,
    *,
    regression: str = "pls",
    n_components: int = 25,
) -> int:
    """Memory that `cross_validated_r` takes for features of a shape, in bytes.

    Of what it holds at its peak, without the features; arrays of ten splits were
    measured to take from 0.7 to 1.2 of it.
    """
    n, n_features = shape
    n_splits, block = len(splits), min(n_features, 4096)
    n_train, n_test = (max(len(part[k]) for part in splits) for k in (0, 1))
    targets, gram = min(n, n_neuroids), n * n
    if regression == "neuron_to_neuron":
        working = 3 * block * (n + n_neuroids)
    elif regression == "reverse_pls":
        working = gram + n_splits * n_features + 4 * n * block
    elif regression == "pls":
        kept = targets**2 + (n + n_train) * targets + n_components * (3 * n + targets)
        working = gram + n_splits * kept + 3 * n * targets
    else:  # the inverse of one strength beside that of the next
        duals = (n_splits + 1) * n_train * targets
        working = 3 * gram + duals + 3 * n * targets + 2 * n * n_test
    forming = gram + 2 * n * block
    rates = 2 * n * n_neuroids
    if n_neuroids > n:
        rates += n_neuroids * (targets + n)
    return 8 * (max(forming, working) + rates + n_splits * n_test * n_neuroids)


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


def _checked_split(
    train: ArrayLike, test: ArrayLike, n_stimuli: int
) -> tuple[Indices, Indices]:
    """Row numbers, once they exist, occur once and do not overlap."""
    first, second = np.asarray(train), np.asarray(test)
    if any(rows.ndim != 1 or rows.dtype.kind not in "iu" for rows in (first, second)):
        raise DataError("a split must be two lists of row numbers, training and test")
    if len(first) < 1 or len(second) < MIN_TEST:
        raise DataError(
            f"a split has {len(first)} training and {len(second)} test stimuli; at "
            f"least 1 and {MIN_TEST} are needed"
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


def summarise(r: ArrayLike) -> tuple[float, float]:
    """Raw score and its error, as Brain-Score aggregates correlations.

    Parameters
    ----------
    r : (n_splits, n_neuroids), NaN where undefined

    Returns
    -------
    raw : mean over splits of the median over neuroids, of those that are defined
    error : standard deviation of the medians over splits (divided by their number, not
        one less) over the square root of their number

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
