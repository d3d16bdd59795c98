"""Measures: what `ce-align analyze` knows of each, in one place.

A measure is an entry of `MEASURES`: the views that it takes, how its numbers come
from the responses to them, and what tables and figures call these. Nothing else lists
measures: `register_measure` adds one to settings, commands, correlations, tables and
figures. Its mathematics is a function of arrays in `ce_align.metrics`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from ce_align.augment import PARAMETER_NAMES
from ce_align.checks import named_some
from ce_align.config import COMMITTED, NetworkConfig, OneOf, Spelled
from ce_align.errors import ConfigError, DataError
from ce_align.foreign import guarded
from ce_align.models.catalogue import facts_of, invariant_sibling
from ce_align.names import plain_path, split_name
from ce_align.results import NetworkFacts, Row
from ce_align.stages.estimates import IntervalKind, Measured
from ce_align.stages.quantities import Panel, Place, Quantity, check_new
from ce_align.stages.readout import decode, factorize, measure_dimensionality, steer
from ce_align.stages.responses import NetworkResponses
from ce_align.stages.variability import (
    COMPARISONS,
    Clouds,
    Comparison,
    compare,
    measure_shapes,
)
from ce_align.stages.views import FAMILY, GEOMETRY_FAMILIES

__all__ = [
    *("COMPARISON_TITLES", "MEASURES", "AnalysisConfig", "Measure", "MeasureRow"),
    *("NO_BASELINE", "register_measure", "with_baselines"),
]

#: Stands for no network to compare distances with.
NO_BASELINE = "none"

FloatArray = NDArray[np.float32]


@dataclass(frozen=True)
class Measure:
    """One kind of measure of a network.

    Attributes
    ----------
    name : in settings and commands
    about : what it says of a network, in a few words
    views : that it takes: ``clean`` images, a family of augmentations such as
        ``strong`` (or `ce_align.stages.views.FAMILY`, that of the settings), ``shared``
        transformations, ``crossed`` crops and photometrics, labelled ``classes``,
        ``centroids`` of images that are not compared
    quantities : its numbers, in the order of tables and figures
    read : gives, from responses and settings, what is to be known of a network: all
        its numbers, `Measured`, unless there is `against`
    against : gives the numbers from what was read of the network, and of its baseline
        or None; a network is read once, whatever the number that it is a baseline of
    version : changes whenever the same responses would give another number
    """

    name: str
    about: str
    views: tuple[str, ...]
    quantities: tuple[Quantity, ...]
    read: Callable[[NetworkResponses, "AnalysisConfig"], Any]
    against: Callable[[Any, Any | None, "AnalysisConfig"], Measured] | None = None
    version: str = ""

    def view_names(self, family: str) -> tuple[str, ...]:
        """Names of its view sets, with the family that settings name."""
        return tuple(family if name == FAMILY else name for name in self.views)


class AnalysisConfig(NetworkConfig):
    """Settings of one kind of measure of one network.

    `layer` is averaged over places; ``committed`` is the one committed for IT.

    `centroids` are those of all images that are given, as the authors take them, or of
    those that are compared, which costs fewer passes where there are more images than
    comparisons.

    `interval` says what a 95 % interval is over: ``population``, the images (or
    classes) that those at hand were drawn from, see `MeasureRow`; ``comparisons`` is
    the paper's, which takes every comparison for independent and is too narrow.
    """

    stage: ClassVar = "analyze"

    metric: Annotated[str, OneOf("measure", lambda: MEASURES)] = Field(
        description="What to measure."
    )
    layer: str = Field(
        default=COMMITTED,
        description="Layer, averaged over places; 'committed' for that of IT.",
    )
    baseline: str | None = Field(
        default=None,
        description="Network that distances are compared with, in place of the one at "
        "λ = 0 that was otherwise trained alike; 'none' for none.",
    )
    images: str = Field(description="Folder, zip or tar of images, or 'simulated'.")
    comparisons: int = Field(
        default=800, ge=10, description="Comparisons, and images compared, at most."
    )
    views: int = Field(default=50, ge=4, description="Views of each image.")
    crops: int = Field(default=20, ge=4, description="Crops of each image.")
    photometrics: int = Field(
        default=20, ge=4, description="Photometric draws on every crop."
    )
    independent_photometrics: bool = Field(
        default=False, description="New draws for every crop, not the same."
    )
    classes: int | None = Field(
        default=None, ge=5, description="Classes to compare, in place of enough."
    )
    centroids: Literal["all", "compared"] = Field(
        default="all",
        description="Of all images given, or of those compared (fewer passes).",
    )
    runs: Annotated[PositiveInt, Spelled("--repeats")] = Field(
        default=5, description="Splits of decoding."
    )
    size: int = Field(default=224, ge=8, description="Pixels of a view.")
    family: Literal["strong", "weak", "tiny"] = Field(
        default="strong",
        description="Augmentations that are compared and decoded; tiny: 32 px.",
    )
    interval: IntervalKind = Field(
        default="population",
        description="Over images and classes as if drawn anew, or the paper's: over "
        "comparisons as if none shared an image, which is too narrow.",
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of every draw.")

    @field_validator("baseline")
    @classmethod
    def _none(cls, baseline: str | None) -> str | None:
        return None if baseline == NO_BASELINE else baseline


def with_baselines(
    configs: Iterable[AnalysisConfig],
    baseline: str | None = None,
    facts: Callable[[str], NetworkFacts] = facts_of,
) -> tuple[list[AnalysisConfig], list[str]]:
    """Configurations with the networks that their distances are compared with.

    Parameters
    ----------
    configs : of all networks that were asked for, without baselines
    baseline : of all of them; None for one each, which is at λ = 0 and else the same:
        one of those asked for that was trained alike, seed and all, or else the
        published one; ``none`` for none
    facts : what is known of a network by its name

    Returns
    -------
    The configurations, and in words which baselines they have and why others have none.
    """
    asked, notes = list(configs), []
    if baseline not in (None, NO_BASELINE):
        baseline = str(split_name(plain_path(baseline)))  # as those of `model` are
    compared = [one.model for one in asked if MEASURES[one.metric].against is not None]
    known = {model: replace(facts(model), label=None) for model in compared}
    chosen = {model: None if model == baseline else baseline for model in known}
    if baseline is None:
        unlike: list[str] = []
        for model, own in known.items():
            if own.equivariance_weight == 0:
                continue
            at_zero = replace(own, equivariance_weight=0.0)
            alike = [m for m, it in known.items() if own.objective and it == at_zero]
            chosen[model] = alike[0] if alike else invariant_sibling(model)
            unlike += [] if chosen[model] else [model]
        if unlike:
            notes.append(
                f"no ΔD_B of {named_some(unlike)}: no network that was asked for was "
                "trained alike at λ = 0, with the same seed; name one with --baseline"
            )
        for name in dict.fromkeys(filter(None, chosen.values())):
            of = [model for model, one in chosen.items() if one == name]
            notes.append(f"ΔD_B of {named_some(of)}: from {name}, at λ = 0")
    elif baseline == NO_BASELINE:
        chosen = {}
    elif known and baseline not in known:
        notes.append(
            f"{baseline} is the baseline only; for its own numbers ask for it, too "
            f"(--model {baseline})"
        )
    found = [
        one.model_copy(update={"baseline": chosen[one.model]})
        if one.model in chosen and MEASURES[one.metric].against is not None
        else one
        for one in asked
    ]
    return found, notes


class MeasureRow(Row):
    """One measure of one network.

    Attributes
    ----------
    value : None where it is not defined, such as R² of a parameter that never varied
    low, high : 95 % interval of `value`; None where none is defined
    n_points : points in each cloud that was compared, or training views of a
        regression; values of different n_points must not be compared
    n_comparisons, n_units : comparisons, and images, classes or runs behind them
    baseline : network that a difference was taken from, or None
    baseline_digest : of that network; None in rows of ce_align 0.1
    baseline_objective, baseline_equivariance_weight, baseline_label : of that network
    interval : what the interval is over, None if there is none. It is for the value
        that is expected of so many images, views and classes: ``images``, if images,
        their views and crops were drawn anew; ``classes``, if classes with their images
        were; ``images and transformations``, if the transformations that all images
        share were, too; ``comparisons``, the paper's, as if no two comparisons shared
        an image
    views_digest : of the views that were looked at; only values of the same views are
        compared across networks
    note : what a reader must know of the value, such as how many images were left out
    """

    stage: str = AnalysisConfig.stage
    layer: str
    low: float | None
    high: float | None
    n_points: int
    n_comparisons: int
    n_units: int
    baseline: str | None
    images: str
    interval: str | None
    seed: int
    model_digest: str
    images_digest: str
    views_digest: str
    baseline_digest: str | None = None
    baseline_objective: str | None = None
    baseline_equivariance_weight: float | None = None
    baseline_label: str | None = None


def _clouds(
    responses: NetworkResponses, config: AnalysisConfig
) -> dict[str, Comparison]:
    clouds = Clouds(
        strong=responses[FAMILY],
        crossed=responses["crossed"],
        by_class=responses.get("classes"),
        beyond=responses.get("centroids"),
    )
    return compare(clouds, config)


def _decoded(responses: NetworkResponses, config: AnalysisConfig) -> Measured:
    ledger = responses.ledger(FAMILY)
    return decode(responses["clean"], responses[FAMILY], ledger, config)


def _steered(responses: NetworkResponses, config: AnalysisConfig) -> Measured:
    ledger = responses.ledger("shared")
    return steer(responses["clean"], responses["shared"], ledger, config)


def _families(responses: NetworkResponses) -> Iterator[tuple[str, FloatArray]]:
    """Responses of one family after the other: each is large."""
    return ((name, responses[name]) for name in GEOMETRY_FAMILIES)


#: The paper's comparisons A–D, as tables and figures call them.
COMPARISON_TITLES = {name: name.replace("_", "–").capitalize() for name in COMPARISONS}


def _distances() -> Iterator[Quantity]:
    shapes = Panel("Shapes of variability", "$D_B$")
    above = Panel("Excess over the floor", "excess of $D_B$")
    deltas = Panel("Against the baseline", "$\\Delta D_B$ = baseline − network")
    titles = COMPARISON_TITLES.items()
    for name, title in titles:
        yield Quantity(name, title, 0, 2, "table", shapes)
    for name, title in titles:
        yield Quantity(f"{name}_floor", f"{title}, floor", 0, 2, "rows", tested=False)
    for name, title in titles:
        label = title.lower()
        yield Quantity(
            f"{name}_excess", f"{title}, excess", -2, 2, panel=above, label=label
        )
    for name, title in titles:
        label = title.lower()
        yield Quantity(f"{name}_delta", f"{title}, Δ", -2, 2, "rows", deltas, label)
        name, title = f"{name}_excess_delta", f"{title}, excess, Δ"
        label = f"{label}, excess"
        yield Quantity(name, title, -4, 4, "rows", deltas, label)


def _decodings() -> Iterator[Quantity]:
    parts: dict[str, tuple[str, str, Place]] = {
        "": ("Parameter decoding", "mean over parameters", "table"),
        "_strong_only": ("Decoding, strong views", "strong only", "forest"),
        "_weak": ("Decoding, weak views", "weak", "forest"),
        "_within_weak": ("Decoding, within weak", "within weak", "rows"),
    }
    for parameter in PARAMETER_NAMES:
        words = parameter.replace("_", " ")
        place: Place = "table" if parameter == "hue" else "rows"
        parts[f"_{parameter}"] = (f"{words.capitalize()} decoding", words, place)
    ridge = Panel("Decoding of augmentations, ridge", "$R^2$ on held-out images")
    for method, panel in (("ridge", ridge), ("OLS", None)):
        for ending, (title, label, place) in parts.items():
            name = f"decoding_{method.lower()}{ending}"
            title = f"{title} ({method})"
            yield Quantity(name, title, -inf, 1, place, panel, label)


def _of_families(
    name: str, least: float, most: float, panel: Panel
) -> Iterator[Quantity]:
    for family in GEOMETRY_FAMILIES:
        title = f"{name}_{family}".replace("_", " ").capitalize()
        label = title.removeprefix(f"{panel.title} ") if panel == DIMENSIONALITY else ""
        yield Quantity(f"{name}_{family}", title, least, most, panel=panel, label=label)


SHARES = Panel("Factorization and invariance", "share of variance")
DIMENSIONALITY = Panel("Dimensionality", "participation ratio")
STEERED = Panel("Steerability", "share of the displacement explained")

_REGISTERED: dict[str, Measure] = {}
#: Every measure by its name; `register_measure` adds to it.
MEASURES: Mapping[str, Measure] = MappingProxyType(_REGISTERED)


def register_measure(measure: Measure) -> None:
    """Add a measure of one's own, which analyses then take by name.

    What it returns is checked: its numbers are those that it names.

    Raises
    ------
    ConfigError
        If there is one of that name, or with numbers of one of its names.
    """
    if measure.name in MEASURES:
        raise ConfigError(
            f"there is a measure {measure.name!r} already; choose another name"
        )
    check_new(measure.quantities)
    name, known = f"measure {measure.name!r}", {one.name for one in measure.quantities}

    def measured(found: Any, *_: Any) -> Measured:
        if not isinstance(found, Measured):
            kind = type(found).__name__
            raise DataError(f"{name} returned {kind}, expected Measured")
        for one in found.numbers:
            interval = one.estimate.interval
            if one.metric not in known:
                raise DataError(
                    f"{name} gives {one.metric}; expected {named_some(sorted(known))}"
                )
            # Raises of what is no number; NaN may be one.
            np.isfinite([interval.estimate, interval.low, interval.high, one.n_points])
        return found

    read = guarded(measure.read, name, object if measure.against else measured)
    against = measure.against and guarded(measure.against, name, measured)
    _REGISTERED[measure.name] = replace(measure, read=read, against=against)


for _measure in (
    Measure(
        "bures",
        "Bures distances A–D between shapes of variability",
        (FAMILY, "crossed", "classes", "centroids"),
        tuple(_distances()),
        _clouds,
        measure_shapes,
    ),
    Measure(
        "decoding",
        "R² of augmentation parameters",
        ("clean", FAMILY),
        tuple(_decodings()),
        _decoded,
    ),
    Measure(
        "factorization",
        "variance of augmentations outside of that of content",
        GEOMETRY_FAMILIES,
        (
            *_of_families("factorization", 0, 1, SHARES),
            *_of_families("invariance", -inf, 1, SHARES),
        ),
        lambda responses, config: factorize(_families(responses), config),
    ),
    Measure(
        "dimensionality",
        "participation ratio of augmentations and of content",
        GEOMETRY_FAMILIES,
        (
            *_of_families("dimensionality", 1, inf, DIMENSIONALITY),
            *_of_families("dimensionality_content", 1, inf, DIMENSIONALITY),
        ),
        lambda responses, config: measure_dimensionality(_families(responses), config),
    ),
    Measure(
        "steerability",
        "how a transformation moves responses, whatever the image",
        ("clean", "shared"),
        (
            *(
                Quantity(
                    f"steerability_{n}",
                    f"Steerability {n}".replace("_", " "),
                    -inf,
                    1,
                    panel=STEERED,
                    label=n.replace("_", " "),
                )
                for n in ("by_parameters", "by_transformation")
            ),
            Quantity(
                "steerability_displacement_share", "Steerability displacement share", 0
            ),
        ),
        _steered,
    ),
):
    _REGISTERED[_measure.name] = _measure
