"""Similarities of a layer and a recording: what `ce-align similarity` knows of each.

A similarity is an entry of `SIMILARITIES`: how features and responses are represented,
and how two representations are compared. Ceilings, floors, intervals, rows, tables and
correlations follow from these; `register_similarity` adds one. Its mathematics is a
function of arrays in `ce_align.metrics`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ce_align.checks import check_finite
from ce_align.config import OneOf
from ce_align.errors import DataError
from ce_align.foreign import guarded
from ce_align.metrics.cka import linear_cka, mean_gram
from ce_align.metrics.gram import Array, Indices, centred_gram
from ce_align.metrics.jackknife import Over
from ce_align.metrics.matching import matching_score
from ce_align.metrics.rdm import (
    Comparator,
    compare_rdms,
    dissimilarities,
    mean_rdm,
    squared_distances,
    unbiased_gram,
)
from ce_align.metrics.shape import gram_factor, shape_similarity
from ce_align.metrics.spectral_theory import (
    ErrorModes,
    expected_error,
    power_law,
    spectrum_of,
)
from ce_align.results import Row
from ce_align.stages.quantities import Panel, Quantity, check_new
from ce_align.stages.scores import ComparisonConfig

__all__ = [
    *("SIMILARITIES", "Similarity", "SimilarityConfig", "SimilarityRow"),
    "register_similarity",
]


class SimilarityConfig(ComparisonConfig):
    """Settings of one similarity of one layer and one recording."""

    stage: ClassVar = "similarity"
    left_open: ClassVar = ("distance",)

    metric: Annotated[str, OneOf("similarity", lambda: SIMILARITIES)] = Field(
        description="How both are compared."
    )
    distance: Literal["crossvalidated", "euclidean", "correlation", "cosine"] | None = (
        Field(
            default=None,
            description="Of rsa: dissimilarity of two stimuli; without it "
            "crossvalidated where all stimuli were repeated, else euclidean.",
        )
    )
    comparator: Comparator = Field(
        default="whitened", description="Of rsa: how dissimilarities are compared."
    )
    folds: int = Field(
        default=5,
        ge=2,
        description="Of matching and expected errors: parts of stimuli, each held out.",
    )
    interval: Over = Field(
        default="both", description="What else might have been drawn."
    )

    def for_responses(self, responses: Array) -> "SimilarityConfig":
        """Settings with the dissimilarity that responses allow, if none is asked."""
        if self.metric != "rsa" or self.distance is not None:
            return self
        repeated = (~np.isnan(responses)).sum(axis=1).min() > 1
        distance = "crossvalidated" if repeated else "euclidean"
        return self.model_copy(update={"distance": distance})


class SimilarityRow(Row):
    """Similarity of one layer to one recording.

    Attributes
    ----------
    metric : its name
    method : with which settings, in words
    low, high : 95 % interval of `value`, None if there is none
    interval : what it is over: ``stimuli``, ``neuroids``, ``stimuli and neuroids``
    floor : mean of the value with stimuli exchanged: what there is without any relation
    ceiling_low, ceiling_high : between which a network of the true responses would be,
        as far as `ceiling_kind` tells: ``repetitions``, one half of them against the
        other and against all, or ``animals``, each against the others and against all
    animal : None of all neuroids together, one animal, or ``mean`` of several animals
    time_start, time_end : in ms after onset
    """

    stage: str = SimilarityConfig.stage
    recording: str
    region: str
    layer: str
    low: float | None
    high: float | None
    interval: str | None
    floor: float | None
    ceiling_low: float | None
    ceiling_high: float | None
    ceiling_kind: str | None
    method: str | None
    n_stimuli: int
    n_neuroids: int
    seed: int
    model_digest: str
    recording_digest: str
    animal: str | None = None
    time_start: float | None = None
    time_end: float | None = None


@dataclass(frozen=True)
class Similarity:
    """One way to compare a layer with a recording.

    A representation is an array with a row for each stimulus, such as features, or a
    row and a column, such as a Gram matrix, so that some stimuli can be taken of it.

    Attributes
    ----------
    quantity : name, title and bounds of its values
    about : what it says, in a few words
    represent : features (n_stimuli, n_features) as a representation
    compare : two representations of the same stimuli, of which each belongs to a fold
    pool : several representations, such as of animals, as one
    repeated : responses (n_stimuli, n_repetitions, n_neuroids), NaN where there is
        none, as a representation; None for that of their averages
    by_pairs : whether a representation has a column for each stimulus, too
    graded : whether larger values are more alike, so that floor and ceiling bound them
    method : settings that matter, in words
    version : changes whenever the same data would give another number
    """

    quantity: Quantity
    about: str
    represent: Callable[[NDArray[Any], SimilarityConfig], Array]
    compare: Callable[[Array, Array, SimilarityConfig, Indices], float]
    pool: Callable[[Sequence[Array], SimilarityConfig], Array]
    repeated: Callable[[Array, SimilarityConfig], Array] | None = None
    by_pairs: bool = True
    graded: bool = True
    method: Callable[[SimilarityConfig], str | None] = lambda config: None
    version: str = ""

    def of_responses(self, responses: Array, config: SimilarityConfig) -> Array:
        """Representation of a recording."""
        if self.repeated is not None:
            return self.repeated(responses, config)
        return self.represent(np.nanmean(responses, axis=1), config)

    def of_stimuli(self, representation: Array, some: Indices) -> Array:
        """Representation of some stimuli."""
        return representation[np.ix_(some, some) if self.by_pairs else some]


def _rdm(features: NDArray[Any], config: SimilarityConfig) -> Array:
    distance = config.distance
    if distance is None or distance == "crossvalidated":
        distance = "euclidean"  # a network has no noise to be freed from
    return dissimilarities(features, distance)


def _rdm_of_responses(responses: Array, config: SimilarityConfig) -> Array:
    if config.distance == "crossvalidated":
        return squared_distances(unbiased_gram(responses))
    return _rdm(np.nanmean(responses, axis=1), config)


def _matched(
    name: str, title: str, kind: Literal["soft", "one-to-one"], about: str
) -> Similarity:
    return Similarity(
        Quantity(name, title, -1, 1, panel=MATCHING),
        about,
        lambda features, config: np.asarray(features, dtype=np.float64),
        lambda a, b, config, folds: matching_score(a, b, kind, folds=folds),
        lambda parts, config: np.hstack(parts),
        by_pairs=False,
        method=lambda config: f"{config.folds} folds of stimuli",
    )


def _expected(
    name: str,
    title: str,
    most: float,
    about: str,
    of: Callable[[ErrorModes], float],
    graded: bool = False,
) -> Similarity:
    def compare(a: Array, b: Array, config: SimilarityConfig, folds: Indices) -> float:
        n_train = round(len(a) * (1 - 1 / config.folds))
        return of(expected_error(spectrum_of(a, b), n_train))

    return Similarity(
        Quantity(name, title, most=most, panel=EXPECTED),
        about,
        lambda features, config: centred_gram(features),
        compare,
        _mean_of_grams,
        graded=graded,
        method=lambda config: f"1 of {config.folds} stimuli held out, best penalty",
    )


def _mean_of_grams(grams: Sequence[Array], config: SimilarityConfig) -> Array:
    return np.asarray(np.mean([gram / np.trace(gram) for gram in grams], axis=0))


#: By so much rounding may take a value beyond its bounds.
ROUNDING = 1e-6

GEOMETRY = Panel("Similarity of geometry to the recording", "similarity")
MATCHING = Panel("Matched units", "held-out correlation")
EXPECTED = Panel("Ridge regression, expected from spectra", "value")

_REGISTERED: dict[str, Similarity] = {
    one.quantity.name: one
    for one in (
        Similarity(
            Quantity("rsa", "Representational similarity", -1, 1, panel=GEOMETRY),
            "whether the same pairs of stimuli are far from each other",
            _rdm,
            lambda a, b, config, folds: compare_rdms(a, b, config.comparator),
            lambda parts, config: mean_rdm(parts, config.comparator),
            _rdm_of_responses,
            method=lambda config: f"{config.distance}, {config.comparator}",
        ),
        Similarity(
            Quantity("cka", "Centred kernel alignment", -1, 1, panel=GEOMETRY),
            "whether the same stimuli are alike, without the bias of few stimuli",
            lambda features, config: centred_gram(features),
            lambda a, b, config, folds: linear_cka(a, b),
            lambda parts, config: mean_gram(parts),
            method=lambda config: "linear, unbiased",
        ),
        Similarity(
            Quantity("shape", "Shape similarity", 0, 1, panel=GEOMETRY),
            "what is alike after the best rotation: cosine of the shape distance",
            lambda features, config: gram_factor(centred_gram(features)),
            lambda a, b, config, folds: shape_similarity(a, b),
            lambda parts, config: np.hstack([f / np.linalg.norm(f) for f in parts]),
            by_pairs=False,
        ),
        _matched(
            *("soft_matching", "Soft matching", "soft"),
            "correlation of units of both, each matched evenly with the other side",
        ),
        _matched(
            *("one_to_one", "One-to-one matching", "one-to-one"),
            "correlation of each neuroid with a unit of its own",
        ),
        _expected(
            *("expected_r2", "Expected R² of ridge", 1),
            "share of the responses' variance that ridge regression would predict",
            lambda found: 1 - found.error,
            graded=True,
        ),
        _expected(
            *("error_radius", "Radius of error modes", inf),
            "size of what ridge regression would miss, in a few modes or in many",
            lambda found: found.radius,
        ),
        _expected(
            *("error_dimension", "Dimension of error modes", inf),
            "number of modes that what ridge regression would miss is spread over",
            lambda found: found.dimension,
        ),
        Similarity(
            Quantity("spectral_exponent", "Exponent of eigenspectrum", panel=EXPECTED),
            "how fast the layer's eigenvalues fall over these stimuli; of no recording",
            lambda features, config: centred_gram(features),
            lambda a, b, config, folds: power_law(spectrum_of(a, b)),
            _mean_of_grams,
            graded=False,
            method=lambda config: "ranks 10 to a quarter of the stimuli",
        ),
    )
}
#: Every similarity by its name; `register_similarity` adds to it.
SIMILARITIES: Mapping[str, Similarity] = MappingProxyType(_REGISTERED)


def register_similarity(similarity: Similarity) -> None:
    """Add a similarity of one's own, which is then taken by its name.

    What its functions return is checked: representations are finite numbers of every
    stimulus, and values lie within the bounds of the quantity.

    Raises
    ------
    ConfigError
        If there is a number of that name.
    """
    check_new([similarity.quantity])
    name, by_pairs = similarity.quantity.name, similarity.by_pairs
    least, most = similarity.quantity.least, similarity.quantity.most

    def represented(found: Any, given: Any, *_: Any) -> Array:
        n_stimuli = len(given[0] if isinstance(given, Sequence) else given)
        values, wanted = np.asarray(found), (n_stimuli,) * (1 + by_pairs)
        if values.dtype.kind not in "fiu" or values.shape[: len(wanted)] != wanted:
            axes = "stimulus, stimulus" if by_pairs else "stimulus, …"
            raise DataError(
                f"similarity {name!r} represents {n_stimuli} stimuli by "
                f"{values.dtype} {values.shape}; expected numbers ({axes})"
            )
        check_finite(values, f"what similarity {name!r} represents stimuli by")
        return values

    def compared(found: Any, *_: Any) -> float:
        value = np.asarray(found)
        is_number = not value.ndim and value.dtype.kind in "fiu"
        within = is_number and least - ROUNDING <= value <= most + ROUNDING
        if not within or not np.isfinite(value):
            raise DataError(
                f"similarity {name!r} is {value if is_number else type(found).__name__}"
                f"; expected a number from {least:g} to {most:g}"
            )
        return float(value)

    def part(function: Any, expected: Any) -> Any:
        return function and guarded(function, f"similarity {name!r}", expected)

    _REGISTERED[name] = replace(
        similarity,
        represent=part(similarity.represent, represented),
        compare=part(similarity.compare, compared),
        pool=part(similarity.pool, represented),
        repeated=part(similarity.repeated, represented),
        method=part(similarity.method, str | None),
    )
