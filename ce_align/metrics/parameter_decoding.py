"""Decoding of augmentation parameters from clean and augmented responses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.checks import check_finite, check_unique
from ce_align.errors import ConfigError, DataError
from ce_align.metrics.gram import Array
from ce_align.metrics.paired_design import (
    PairedDesign,
    Precision,
    check_varied,
    fit_least_squares,
    fit_ridge,
    is_constant,
    r2_effects,
    r2_scores,
    split_views,
)

__all__ = ["Decoding", "decode_parameters"]

Method = Literal["ols", "ridge"]


@dataclass(frozen=True)
class Decoding:
    """How well each augmentation parameter is decoded on held-out images.

    Attributes
    ----------
    r2 : for every subset of views (``"all"`` first), R² of each parameter; NaN where a
        parameter does not vary among the training views or among the subset
    names : parameters, in order
    strengths : ridge strength of every parameter; zero for ``"ols"``, NaN where it is
        not decoded
    n_train_views, n_test_views : rows that were fitted and rows that were held out
    n_held_out : rows that were held out, of every subset
    effects : for every subset of views, (n_images, n_parameters), see `r2_effects`
    """

    r2: Mapping[str, Array]
    names: tuple[str, ...]
    strengths: Array
    n_train_views: int
    n_test_views: int
    n_held_out: Mapping[str, int]
    effects: Mapping[str, Array]

    def mean_r2(self, subset: str = "all") -> float:
        """Uniform mean over the parameters that are defined; NaN if there is none."""
        defined = self.r2[subset][np.isfinite(self.r2[subset])]
        return float(defined.mean()) if defined.size else float("nan")

    def mean_effects(self, subset: str = "all") -> Array:
        """What each image adds to `mean_r2`, (n_images,)."""
        defined = np.isfinite(self.r2[subset])
        effects = self.effects[subset]
        if not defined.any():
            return np.full(len(effects), np.nan)
        return np.asarray(effects[:, defined].mean(axis=1), dtype=np.float64)


def decode_parameters(
    clean: NDArray[Any],
    views: NDArray[Any],
    image_index: ArrayLike,
    parameters: ArrayLike,
    *,
    train_images: ArrayLike,
    test_images: ArrayLike,
    method: Method = "ols",
    strengths: ArrayLike | None = None,
    per_parameter: bool = False,
    precision: Precision = "double",
    subsets: Mapping[str, ArrayLike] | None = None,
    names: Sequence[str] | None = None,
) -> Decoding:
    """Regress z-scored augmentation parameters on [f(clean), f(view)].

    Parameters
    ----------
    clean : (n_images, n_features), responses to the images
    views : (n_views, n_features), responses to their augmented copies
    image_index : (n_views,), row of `clean` that each view was made from
    parameters : (n_views, n_parameters), as the augmentation drew them
    train_images, test_images : disjoint rows of `clean`; their views are fitted and
        held out
    method : ``"ols"``, least squares of minimum norm, or ``"ridge"``, whose strength
        minimises the leave-one-out error of the training views
    strengths, precision : of ridge, see `fit_ridge`
    per_parameter : one ridge strength for each parameter instead of one for all
    subsets : name -> (n_views,) mask; R² is also reported within the held-out views of
        each mask, after training on all training views
    names : names of the parameters; None numbers them

    Raises
    ------
    DataError
        For shapes that do not agree, NaN, equal responses to everything, images in both
        sets or without views, and subsets without held-out views.
    ConfigError
        For an unknown method or strengths that are not positive.

    Notes
    -----
    R² compares with the mean of the same views, as scikit-learn's ``r2_score`` does.

    Reference: Yerxa, Feather, Simoncelli and Chung (2024), NeurIPS.
    """
    if method not in get_args(Method):
        known = list(get_args(Method))
        raise ConfigError(f"unknown method {method!r}; choose from {known}")
    index = np.asarray(image_index)
    targets = np.asarray(parameters, dtype=np.float64)
    train, test = split_views(clean, views, index, train_images, test_images)
    check_varied(clean, views)
    if targets.ndim != 2 or len(targets) != len(views) or not targets.size:
        raise DataError(
            f"parameters must have the shape ({len(views)} views, n_parameters), found "
            f"{targets.shape}; give one row a view"
        )
    check_finite(targets, "parameters")
    n_parameters = targets.shape[1]
    if names is None:
        names = [f"parameter_{k}" for k in range(n_parameters)]
    if len(names) != n_parameters:
        raise DataError(
            f"expected {n_parameters} names of parameters, found {len(names)}"
        )
    check_unique(names, "names of parameters")
    held_out = {"all": np.ones(int(test.sum()), bool)}
    for name, mask in (subsets or {}).items():
        held_out[name] = _checked_mask(name, mask, test)

    varied = ~is_constant(targets[train])
    mean, scale = targets[train].mean(axis=0), targets[train].std(axis=0)
    scores = (targets - mean) / np.where(varied, scale, 1.0)
    used = np.full(n_parameters, np.nan)
    observed, image = scores[test], index[test]
    predicted = np.full_like(observed, np.nan)
    if varied.any():
        design = PairedDesign(clean, views[train], index[train])
        if method == "ols":
            fit = fit_least_squares(design, scores[train][:, varied])
        else:
            fit = fit_ridge(
                design,
                scores[train][:, varied],
                _checked_strengths(strengths),
                per_target=per_parameter,
                precision=precision,
            )
        used[varied] = fit.strengths
        predicted[:, varied] = fit.predict(PairedDesign(clean, views[test], image))
    of_subset = {
        name: (observed[mask], predicted[mask]) for name, mask in held_out.items()
    }
    return Decoding(
        r2={name: r2_scores(*both) for name, both in of_subset.items()},
        names=tuple(names),
        strengths=used,
        n_train_views=int(train.sum()),
        n_test_views=int(test.sum()),
        n_held_out={name: int(mask.sum()) for name, mask in held_out.items()},
        effects={
            name: r2_effects(*both, image[held_out[name]], len(clean))
            for name, both in of_subset.items()
        },
    )


def _checked_strengths(strengths: ArrayLike | None) -> Array | None:
    if strengths is None:
        return None
    values = np.atleast_1d(np.asarray(strengths, dtype=np.float64))
    if values.ndim != 1 or not values.size or not (values > 0).all():
        raise ConfigError(f"ridge strengths must be positive, found {strengths!r}")
    return values


def _checked_mask(
    name: str, mask: ArrayLike, test: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """What a mask of all views says of the held-out ones."""
    values = np.asarray(mask)
    if values.shape != test.shape or values.dtype.kind != "b":
        raise DataError(
            f"subset {name!r} must be a mask of {len(test)} views, found "
            f"{values.dtype} {values.shape}"
        )
    if name == "all" or not values[test].any():
        raise DataError(
            f"subset {name!r} has no held-out view, or takes the name of all views"
        )
    return np.asarray(values[test], dtype=bool)
