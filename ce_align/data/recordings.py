"""Neural recordings: responses to an image set, with their repetitions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import check_unique, named_some
from ce_align.data.imagesets import ImageSet
from ce_align.data.presentations import (
    Presentations,
    Responses,
    average_of,
    digest_of,
    faults_of,
    of_neuroids,
)
from ce_align.digests import combine_digests, digest_json
from ce_align.errors import ConfigError, DataError

__all__ = [
    *("MAX_DEGREES", "Origin", "Protocol", "Recording", "canonical_region"),
]

#: Regions that networks commit layers for; they are written in any case.
REGIONS = ("V1", "V2", "V4", "IT")
Indices = NDArray[np.intp]
Origin = Literal["recorded", "simulated", "imported"]

#: No screen is seen at more.
MAX_DEGREES = 180


def canonical_region(name: str) -> str:
    """Region as networks know it: ``v4`` is V4; other areas keep their name.

    >>> canonical_region(" it ")
    'IT'
    """
    stripped = name.strip()
    return stripped.upper() if stripped.upper() in REGIONS else stripped


@dataclass(frozen=True)
class Protocol:
    """How Brain-Score scores on a recording that is its own.

    benchmark : its identifier there
    metric : its metric, in words
    regression : the same here; None if its number cannot be had from ours
    components, alpha : of the regression
    ceiling : kind of its ceiling; None if it is none of ours
    by : column of the neuroids, such as ``animal``: each of its values is fitted and
        scored by itself, and the score is the mean over them
    order : ids of the stimuli in the order in which networks see them, None if it is
        that of the recording
    """

    benchmark: str
    metric: str = "pls"
    regression: str | None = "pls"
    components: int = 25
    alpha: float | None = None
    ceiling: Literal["split-half", "stated", "predictor-consistency"] | None = (
        "split-half"
    )
    by: str | None = None
    order: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Responses of neuroids to every image of a set.

    Raises DataError if shapes do not fit, ids repeat, a value is infinite, or a neuroid
    has no response or never changes.

    Attributes
    ----------
    images : the stimuli
    responses : spike counts or rates: (n_stimuli, n_repetitions, n_neuroids) in the
        order of the images, NaN where a stimulus was shown fewer times; or
        `Presentations`, whose memory does not grow with the most repetitions
    neuroid_ids : unique names of the recorded sites, such as ``animal/site``
    region : V1, V2, V4, IT or another area; of several, where `neuroids` has a column
        ``region``, it is their list
    degrees : visual angle of the images
    stratify : column of ``images`` over which splits are balanced, or None
    origin : ``recorded``, ``simulated`` or ``imported``
    notes : what a reader of its numbers should know, such as neuroids left out
    protocol : of a recording that Brain-Score holds: its splits and its ceiling are
        kept, whatever they are
    neuroids : columns with a value a neuroid; ``animal``, ``region`` and the stated
        ``reliability`` have a meaning
    split : ``train`` or ``test`` for each stimulus, where that is fixed
    window : start and end in ms after stimulus onset of what was summed or averaged
    time_bins : (n_bins, 2), the same for each bin of `Presentations` with time
    licence, citation : of published recordings
    """

    identifier: str
    images: ImageSet
    responses: Responses
    neuroid_ids: tuple[str, ...]
    region: str = ""
    degrees: float = 8.0
    stratify: str | None = None
    origin: str = "recorded"
    notes: tuple[str, ...] = ()
    protocol: Protocol | None = None
    neuroids: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    split: NDArray[np.str_] | None = None
    window: tuple[float, float] | None = None
    time_bins: NDArray[np.float64] | None = None
    licence: str = ""
    citation: str = ""

    def __post_init__(self) -> None:
        self._check_shapes()
        check_unique(self.neuroid_ids, f"neuroid ids of {self.identifier}")
        if not 0 < self.degrees <= MAX_DEGREES:
            raise DataError(
                f"degrees must be positive and at most {MAX_DEGREES}, found "
                f"{self.degrees}; give the visual angle of the images"
            )
        if self.stratify is not None and self.stratify not in self.images.columns:
            raise DataError(
                f"{self.identifier} has no column {self.stratify!r} to stratify by; "
                f"its columns are {sorted(self.images.columns)}"
            )
        if self.origin not in get_args(Origin):
            raise DataError(f"origin must be of {get_args(Origin)}, not {self.origin}")
        self._check_columns()
        self._check_values()

    def __repr__(self) -> str:
        n = len(self.images), self.n_repetitions, len(self.neuroid_ids)
        shape = "{} stimuli × {} repetitions × {} neuroids".format(*n)
        what = f"{shape}, {self.region}, {self.degrees:g}°, {self.origin}"
        return f"<Recording {self.identifier}: {what}>"

    def _check_shapes(self) -> None:
        n_stimuli, n_neuroids = len(self.images), len(self.neuroid_ids)
        responses = self.responses
        if not isinstance(responses, Presentations):
            shape = responses.shape
            if responses.ndim != 3 or (shape[0], shape[2]) != (n_stimuli, n_neuroids):
                raise DataError(
                    f"responses of {self.identifier} must be (stimulus, repetition, "
                    f"neuroid) = ({n_stimuli}, any, {n_neuroids}), found {shape}; "
                    "check the order of the axes and that every image has a row"
                )
        else:
            shape = responses.values.shape
            if shape[1] != n_neuroids:
                raise DataError(
                    f"presentations of {self.identifier} must have {n_neuroids} "
                    f"neuroids, found values {shape}"
                )
        if 0 in shape:
            raise DataError(f"{self.identifier} is empty: responses are {shape}")
        n_bins = 0
        if isinstance(responses, Presentations):
            n_bins = shape[2] if len(shape) == 3 else 0
            shown = np.unique(responses.stimulus)
            if len(shown) != n_stimuli or shown[-1] != n_stimuli - 1:
                raise DataError(
                    f"{self.identifier} has {n_stimuli} images, but presentations of "
                    f"{len(shown)}; leave out images that were not shown"
                )
        stated = 0 if self.time_bins is None else len(self.time_bins)
        if n_bins != stated:
            raise DataError(
                f"{self.identifier} has {n_bins} time bins, but {stated} are named"
            )

    def _check_columns(self) -> None:
        for name, values in self.neuroids.items():
            if np.shape(values) != (len(self.neuroid_ids),):
                raise DataError(
                    f"column {name!r} of the neuroids of {self.identifier} must have "
                    f"{len(self.neuroid_ids)} values, found {np.shape(values)}"
                )
        if "region" in self.neuroids:
            regions = [canonical_region(str(name)) for name in self.neuroids["region"]]
            columns = {**self.neuroids, "region": np.array(regions)}
            object.__setattr__(self, "neuroids", columns)
            listed = ", ".join(dict.fromkeys(regions))
            if self.region not in ("", listed):
                raise DataError(
                    f"{self.identifier} is said to be of {self.region}, but its "
                    f"neuroids are of {listed}"
                )
            object.__setattr__(self, "region", listed)
        if not self.region:
            raise DataError(f"{self.identifier} has no region; give one, such as IT")
        if self.split is not None:
            parts = set(map(str, self.split))
            if len(self.split) != len(self.images) or parts != {"train", "test"}:
                raise DataError(
                    f"the split of {self.identifier} must say 'train' or 'test' for "
                    f"each of {len(self.images)} stimuli, and both; found "
                    f"{sorted(parts)} for {len(self.split)}"
                )

    def _check_values(self) -> None:
        name, bad = self.identifier, faults_of(self.responses, len(self.images))
        if bad.n_infinite:
            raise DataError(f"{name} has {bad.n_infinite} infinite responses")
        faults = {
            "have no response at all (only NaN)": bad.absent,
            "respond equally to every stimulus": bad.silent,
        }
        for fault, which in faults.items():
            names = [self.neuroid_ids[i] for i in np.flatnonzero(which)]
            if names:
                raise DataError(
                    f"{len(names)} of {len(self.neuroid_ids)} neuroids of {name} "
                    f"{fault}: {named_some(names)}; leave them out"
                )

    @classmethod
    def without_silent(
        cls,
        identifier: str,
        images: ImageSet,
        responses: Responses,
        neuroid_ids: tuple[str, ...],
        region: str = "",
        *,
        neuroids: Mapping[str, NDArray[Any]] | None = None,
        notes: tuple[str, ...] = (),
        **fields: Any,
    ) -> "Recording":
        """Recording without neuroids that tell no stimulus from another.

        A note says which were left out. If all are silent, or a response is infinite,
        it is refused as by the class.
        """
        neuroids = neuroids or {}
        held = responses.values if isinstance(responses, Presentations) else responses
        n_neuroids = held.shape[1 if held is not responses else -1]
        fits = held.size > 0 and n_neuroids == len(neuroid_ids)
        if fits:
            faults = faults_of(responses, len(images))
            silent = faults.silent
            if not faults.n_infinite and silent.any() and not silent.all():
                names = [neuroid_ids[i] for i in np.flatnonzero(silent)]
                note = (
                    f"{len(names)} of {len(neuroid_ids)} neuroids are silent and left "
                    f"out: {named_some(names)}"
                )
                responses = of_neuroids(responses, ~silent)
                neuroid_ids = tuple(neuroid_ids[i] for i in np.flatnonzero(~silent))
                neuroids = {k: np.asarray(v)[~silent] for k, v in neuroids.items()}
                notes = (*notes, note)
        return cls(
            identifier, images, responses, neuroid_ids, region,
            neuroids=neuroids, notes=notes, **fields,
        )  # fmt: skip

    @property
    def regions(self) -> tuple[str, ...]:
        """Regions of the neuroids, in order."""
        held = self.neuroids.get("region")
        return (self.region,) if held is None else tuple(dict.fromkeys(map(str, held)))

    @property
    def animals(self) -> tuple[str, ...]:
        """Animals of the neuroids, in order; none if they are not named."""
        return tuple(dict.fromkeys(map(str, self.neuroids.get("animal", ()))))

    @property
    def n_repetitions(self) -> int:
        """Largest number of times that a stimulus was shown."""
        held = self.responses
        if isinstance(held, Presentations):
            return held.n_repetitions
        return int(held.shape[1])

    @property
    def has_repetitions(self) -> bool:
        """Whether a stimulus was shown twice, so that there may be a ceiling."""
        held = self.responses
        if isinstance(held, Presentations):
            return bool((np.bincount(held.stimulus) > 1).any())
        return bool(((~np.isnan(held)).sum(axis=1) > 1).any())

    def averaged(self) -> NDArray[np.float64]:
        """Responses averaged over repetitions, (n_stimuli, n_neuroids[, n_bins]).

        Raises DataError if a neuroid has no response to some stimulus.
        """
        average = average_of(self.responses, len(self.images))
        absent = np.isnan(average)
        if absent.any():
            some = absent if absent.ndim == 2 else absent.any(axis=2)
            ids = [self.images.ids[i] for i in np.flatnonzero(some.any(axis=1))]
            raise DataError(
                f"{self.identifier} lacks {int(absent.sum())} averages: "
                f"{int(some.any(axis=0).sum())} neuroids have no response to "
                f"{len(ids)} stimuli ({named_some(ids)}); leave out those stimuli or "
                "neuroids"
            )
        return average

    def presentations(self) -> Presentations:
        """Every presentation, in the order of stimuli and repetitions."""
        held = self.responses
        if isinstance(held, Presentations):
            return held.in_order()
        stimulus, repetition = np.nonzero(~np.isnan(held).all(axis=2))
        return Presentations(held[stimulus, repetition], stimulus, repetition)

    def repeated(self) -> tuple[NDArray[np.float64], NDArray[np.floating[Any]] | None]:
        """What a ceiling is computed from.

        Returns
        -------
        rectangle : (n, n_repetitions, n_neuroids), stimuli with their repetitions
        once : (m, n_neuroids), the stimuli that were shown once where presentations
            are ragged, so that no rectangle of all is made; else None
        """
        held = self.responses
        if not isinstance(held, Presentations):
            return held, None
        counts = np.bincount(held.stimulus)
        often = np.flatnonzero(counts > 1)
        alone = held.values[counts[held.stimulus] == 1]
        if not len(often):
            return held.rectangle(np.flatnonzero(counts)), None
        return held.rectangle(often), alone if len(alone) else None

    def strata(self, column: str | None = None) -> NDArray[np.str_] | None:
        """Class of each stimulus for stratified splits, or None.

        `column` replaces the recording's own, ``"none"`` by none. Raises ConfigError if
        there is no such column.
        """
        column = column if column is not None else self.stratify
        if column is None or column == "none":
            return None
        if column not in self.images.columns:
            raise ConfigError(
                f"{self.identifier} has no column {column!r} to stratify by; choose "
                f"from {[*sorted(self.images.columns), 'none']}"
            )
        return np.asarray(self.images.columns[column]).astype(str)

    def select(
        self,
        *,
        region: str | None = None,
        animal: str | None = None,
        reliability: float | None = None,
        neuroids: Sequence[str] | None = None,
        time: int | tuple[float, float] | None = None,
    ) -> "Recording":
        """Recording of some neuroids, or of one time bin or window.

        Parameters
        ----------
        region, animal : of the neuroids to keep
        reliability : keep neuroids whose stated reliability is larger
        neuroids : ids to keep
        time : place of a time bin, or start and end in ms of a window, over whose bins
            responses are averaged; neuroids that are silent there are left out

        Raises
        ------
        ConfigError
            If there is no such region, animal, neuroid, bin or column, or nothing is
            left; it says what there is.
        """
        kept = np.ones(len(self.neuroid_ids), dtype=bool)
        if region is not None:
            kept &= self._of(canonical_region(region), "region", self.regions)
        if animal is not None:
            kept &= self._of(animal, "animal", self.animals)
        if reliability is not None:
            if "reliability" not in self.neuroids:
                raise ConfigError(
                    f"{self.identifier} states no reliability of its neuroids, so that "
                    "none can be asked for"
                )
            stated = np.asarray(self.neuroids["reliability"], dtype=np.float64)
            kept &= stated > reliability
        if neuroids is not None:
            unknown = [name for name in neuroids if name not in set(self.neuroid_ids)]
            if unknown:
                raise ConfigError(
                    f"{self.identifier} has no neuroids {named_some(unknown)}; its ids "
                    f"are such as {named_some(self.neuroid_ids)}"
                )
            kept &= np.isin(np.array(self.neuroid_ids), list(neuroids))
        if not kept.any():
            raise ConfigError(
                f"no neuroid of {self.identifier} is left of {len(kept)}; ask for less"
            )
        responses, bins, window = self.responses, self.time_bins, self.window
        if time is not None:
            inside = self._bins(time)
            assert bins is not None and isinstance(responses, Presentations)
            window = (float(bins[inside, 0].min()), float(bins[inside, 1].max()))
            one = responses.values[:, :, inside[0]]  # no copy
            values = one if len(inside) == 1 else responses.values[:, :, inside].mean(2)
            responses, bins = replace(responses, values=values), None
        if kept.all() and time is None:
            return self
        columns = {k: np.asarray(v)[kept] for k, v in self.neuroids.items()}
        chosen: dict[str, Any] = {
            "responses": responses if kept.all() else of_neuroids(responses, kept),
            "neuroid_ids": tuple(self.neuroid_ids[i] for i in np.flatnonzero(kept)),
            "neuroids": columns,
            "region": "" if "region" in columns else self.region,
            "window": window,
            "time_bins": bins,
        }
        if time is None:
            return replace(self, **chosen)
        # Some neuroids respond in some bins only.
        whole = {field.name: getattr(self, field.name) for field in fields(self)}
        return self.without_silent(**(whole | chosen))

    def _of(
        self, wanted: str, column: str, there: tuple[str, ...]
    ) -> NDArray[np.bool_]:
        """Neuroids with a value in a column."""
        if wanted not in there:
            what = ", ".join(there) or "no names of any"
            raise ConfigError(
                f"{self.identifier} has no {column} {wanted!r}; it has {what}"
            )
        # Without the column all are of the one region.
        held = self.neuroids.get(column, np.full(len(self.neuroid_ids), wanted))
        chosen: NDArray[np.bool_] = np.asarray(held).astype(str) == wanted
        return chosen

    def _bins(self, time: int | tuple[float, float]) -> Indices:
        """Places of the bins of a window, or of one bin."""
        bins = self.time_bins
        if bins is None:
            raise ConfigError(f"{self.identifier} has no time bins, so no bin {time}")
        if isinstance(time, int):
            inside, there = np.arange(len(bins)) == time, f"bins 0 to {len(bins) - 1}"
        else:
            inside = (bins[:, 0] >= time[0]) & (bins[:, 1] <= time[1])
            there = f"bins from {bins[:, 0].min():g} to {bins[:, 1].max():g} ms"
        if not inside.any():
            what = time if isinstance(time, int) else f"{time[0]:g}:{time[1]:g}"
            raise ConfigError(
                f"{self.identifier} has no time bin {what}: it has {there}"
            )
        return np.flatnonzero(inside)

    def of_stimuli(self, places: Indices) -> "Recording":
        """Recording of some stimuli, in the order given."""
        held, images = self.responses, self.images.select(places.tolist())
        responses: Responses
        if isinstance(held, Presentations):
            responses = held.of_stimuli(places)
        else:
            responses = held[places]
        return replace(self, images=images, responses=responses, split=None)

    @cached_property
    def digest(self) -> str:
        """Digest of images, responses and everything that names their rows."""
        columns = {k: [str(v) for v in vs] for k, vs in self.images.columns.items()}
        ids = self.images.ids, self.neuroid_ids
        named: list[Any] = [*ids, self.region, self.degrees, columns]
        # Those of Brain-Score come with its files, which are known by their SHA-1.
        stated = self.neuroids if self.protocol is None else {}
        further = {
            "neuroids": {k: [str(v) for v in vs] for k, vs in stated.items()},
            "split": None if self.split is None else list(map(str, self.split)),
            "time_bins": None if self.time_bins is None else self.time_bins.tolist(),
            "window": self.window,
        }
        # What a recording does not have is no part of what it is.
        if there := {name: value for name, value in further.items() if value}:
            named.append(there)
        responses = digest_of(self.responses, len(self.images))
        return combine_digests(self.images.digest, digest_json(named), *responses)
