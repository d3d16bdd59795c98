"""The regressions of predictivity: how each is checked and how it predicts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import GRAM_DTYPES
from ce_align.metrics.pls import check_components, kernel_pls
from ce_align.metrics.pls_weights import PLS_MODES
from ce_align.metrics.ridge import check_alphas, kernel_ridge, leave_one_out_alphas

__all__ = ["REGRESSIONS", "Regression", "RegressionSettings"]

Array = NDArray[np.float64]
Indices = NDArray[np.intp]
Splits = Sequence[tuple[Indices, Indices]]


@dataclass(frozen=True)
class RegressionSettings:
    """What the regressions may be told; each heeds what concerns it.

    Attributes
    ----------
    regression : a key of `REGRESSIONS`
    mode, n_components : for PLS
    alpha : for ridge; None chooses by leave-one-out error
    gram_dtype : precision in which the Gram matrix is formed
    """

    regression: str
    mode: str
    n_components: int
    alpha: float | None
    gram_dtype: str

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


@dataclass(frozen=True)
class Regression:
    """One way to predict responses from a Gram matrix.

    Attributes
    ----------
    check : raises DataError where splits or features (None: their number is unknown)
        are too few for the settings; called before the Gram matrix is formed
    predict : from Gram matrix, responses, splits and settings to the predictions of
        each split's test stimuli
    """

    check: Callable[[RegressionSettings, Splits, int | None], None]
    predict: Callable[[Array, Array, Splits, RegressionSettings], Sequence[Array]]


def _check_pls(
    settings: RegressionSettings, splits: Splits, n_features: int | None
) -> None:
    check_components(settings.n_components, splits)
    if n_features is not None and settings.n_components > n_features:
        raise DataError(
            "n_components must be at most the number of features, but is "
            f"{settings.n_components} for {n_features}; reduce n_components"
        )


def _predict_pls(
    gram: Array, responses: Array, splits: Splits, settings: RegressionSettings
) -> Sequence[Array]:
    return kernel_pls(
        gram,
        responses,
        splits,
        n_components=settings.n_components,
        mode=settings.mode,
        gram_dtype=settings.gram_dtype,
    ).predictions


def _check_ridge(
    settings: RegressionSettings, splits: Splits, n_features: int | None
) -> None:
    """Ridge regression is defined for any number of stimuli and features."""


def _predict_ridge(
    gram: Array, responses: Array, splits: Splits, settings: RegressionSettings
) -> Sequence[Array]:
    alphas = (
        leave_one_out_alphas(gram)
        if settings.alpha is None
        else np.array([settings.alpha])
    )
    return kernel_ridge(gram, responses, splits, alphas=alphas).predictions


REGRESSIONS: Mapping[str, Regression] = {
    "pls": Regression(_check_pls, _predict_pls),
    "ridge": Regression(_check_ridge, _predict_ridge),
}
