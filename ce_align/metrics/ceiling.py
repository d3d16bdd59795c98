"""The ceiling: how well one half of the repetitions predicts the other."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.pearson import columnwise_pearson_r

__all__ = ["Ceiling", "split_half_ceiling"]

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Ceiling:
    """Split-half reliability of a recording.

    Attributes
    ----------
    value : float
        Mean over splits of the median over neuroids.
    per_split_neuroid : (n_splits, n_neuroids)
        Spearman–Brown-corrected correlations; NaN where undefined.
    """

    value: float
    per_split_neuroid: Array


def split_half_ceiling(
    responses: ArrayLike, *, n_splits: int = 10, seed: int = 1
) -> Ceiling:
    """Split-half reliability with Brain-Score's own halves.

    Parameters
    ----------
    responses : (n_stimuli, n_repetitions, n_neuroids)
        One slice a repetition, in ascending order of its label; NaN where a stimulus
        was not shown or a neuroid not recorded.
    n_splits, seed
        Brain-Score's are the defaults.

    Raises
    ------
    ConfigError
        If `n_splits` is below 1.
    DataError
        If there are fewer than two repetitions or stimuli, a value is infinite, or in
        some split no neuroid has responses that vary in both halves.

    Notes
    -----
    Repetitions (not presentations) are divided in two; each half is averaged over what
    it has, the halves are correlated over stimuli for each neuroid, and r becomes
    2r / (1 + r). A stimulus without any repetition in one of the halves is left out of
    that split; Brain-Score's `internal_consistency`, equal otherwise, fails there or
    drops the neuroid.

    Reference: Spearman (1910); Brown (1910), both on the correlation of halves.
    """
    from sklearn.model_selection import ShuffleSplit

    if n_splits < 1:
        raise ConfigError(f"n_splits must be at least 1, not {n_splits}")
    values = _checked_repetitions(responses)
    halves = ShuffleSplit(n_splits=n_splits, train_size=0.5, random_state=seed)
    corrected = np.stack(
        [
            _spearman_brown(
                columnwise_pearson_r(
                    _mean_of_shown(values[:, first]), _mean_of_shown(values[:, second])
                )
            )
            for first, second in halves.split(np.zeros(values.shape[1]))
        ]
    )
    for split, row in enumerate(corrected):
        if np.isnan(row).all():
            raise DataError(
                f"no neuroid has varying responses in both halves of split {split}, so "
                "there is no ceiling; check the repetitions of each stimulus"
            )
    value = float(np.nanmedian(corrected, axis=1).mean())
    return Ceiling(value=value, per_split_neuroid=corrected)


def _checked_repetitions(responses: ArrayLike) -> Array:
    """Responses as float64, once they are stimuli × repetitions × neuroids."""
    values = np.asarray(responses, dtype=np.float64)
    if values.ndim != 3 or values.shape[0] < 2 or values.shape[2] < 1:
        raise DataError(
            "responses must be stimuli × repetitions × neuroids with at least two "
            f"stimuli and a neuroid, but have shape {values.shape}"
        )
    if values.shape[1] < 2:
        raise DataError(
            f"a ceiling needs at least 2 repetitions, but there is {values.shape[1]}; "
            "score without a ceiling"
        )
    if np.isinf(values).any():
        raise DataError("responses have infinite values; use NaN for what is missing")
    return values


def _mean_of_shown(half: Array) -> Array:
    """Mean over the repetitions that are not NaN; NaN where there is none."""
    shown = ~np.isnan(half)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(shown, half, 0.0).sum(axis=1) / shown.sum(axis=1)
    return mean


def _spearman_brown(r: Array) -> Array:
    """Reliability of the whole from the correlation of its halves."""
    with np.errstate(divide="ignore", invalid="ignore"):
        corrected: Array = 2 * r / (1 + r)
    return corrected
