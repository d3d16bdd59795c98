"""Cross-validation splits over stimuli, the same as Brain-Score's."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import named_some
from ce_align.errors import ConfigError, DataError

__all__ = ["brainscore_splits"]

Indices = NDArray[np.intp]

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
    """Random splits of stimuli into training and test, exactly as Brain-Score's.

    Parameters
    ----------
    n_stimuli : int
        Rows of the repetition-averaged recording, in its own order: another order
        gives other splits.
    stratify : (n_stimuli,), optional
        Class of each stimulus (`object_name`), to balance classes between training and
        test as the HvM benchmarks do.
    n_splits, train_size, seed
        Brain-Score's are the defaults.

    Returns
    -------
    list of (train, test)
        Row numbers.

    Raises
    ------
    ConfigError
        If `train_size` is not between 0 and 1, or `n_splits` is below 1.
    DataError
        If there are too few stimuli, or too few to balance the classes.
    """
    from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit

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
    options = {"n_splits": n_splits, "train_size": train_size, "random_state": seed}
    rows = np.zeros(n_stimuli)
    if stratify is None:
        return list(ShuffleSplit(**options).split(rows))
    classes = _checked_classes(stratify, n_stimuli, n_train, n_test)
    return list(StratifiedShuffleSplit(**options).split(rows, classes))


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
