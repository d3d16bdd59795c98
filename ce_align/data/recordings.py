"""Neural recordings: responses to an image set, with their repetitions."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import check_unique, named_some, nearest_names
from ce_align.data.imagesets import ImageSet
from ce_align.digests import combine_digests, digest_array, digest_json
from ce_align.errors import ConfigError, DataError

__all__ = [
    "RECORDINGS",
    "Entry",
    "Protocol",
    "Recording",
    "canonical_region",
    "equal_files",
    "equal_pixels",
    "expand_recordings",
    "first_rows",
    "join_equal_images",
    "join_rows",
    "load_recording",
    "register_recording_reader",
    "register_recording_source",
    "register_recordings",
    "without_silent",
]

#: Regions that networks commit layers for; they are written in any case.
REGIONS = ("V1", "V2", "V4", "IT")
Indices = NDArray[np.intp]

#: No screen is seen at more.
MAX_DEGREES = 180


def canonical_region(name: str) -> str:
    """Region as networks know it: ``v4`` is V4; other areas keep their name.

    >>> canonical_region(" it ")
    'IT'
    """
    stripped = name.strip()
    return stripped.upper() if stripped.upper() in REGIONS else stripped


def without_silent(
    responses: NDArray[np.float64], neuroid_ids: tuple[str, ...]
) -> tuple[NDArray[np.float64], tuple[str, ...], str | None]:
    """Responses, and names, without neuroids that tell no stimulus from another.

    `responses` are (n_stimuli, n_repetitions, n_neuroids). A note says which were left
    out; all is as given, without a note, if no neuroid is silent or all are.
    """
    silent = _is_silent(responses)
    # Infinite responses are no silence: they are refused.
    if not silent.any() or silent.all() or np.isinf(responses).any():
        return responses, neuroid_ids, None
    names = [neuroid_ids[i] for i in np.flatnonzero(silent)]
    left = tuple(neuroid_ids[i] for i in np.flatnonzero(~silent))
    note = f"{len(names)} of {len(neuroid_ids)} neuroids are silent and left out: "
    return responses[:, :, ~silent], left, note + named_some(names)


def _is_silent(responses: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Neuroids of NaN alone, or with one average for all stimuli, (n_neuroids,)."""
    average = _nan_average(responses)
    highest = np.where(np.isnan(average), -np.inf, average).max(axis=0)
    lowest = np.where(np.isnan(average), np.inf, average).min(axis=0)
    # Equal responses may have averages that differ by rounding.
    rounding = 1e-12 * np.maximum(np.abs(highest), np.abs(lowest))
    silent: NDArray[np.bool_] = ~(highest - lowest > rounding)
    return silent


def _nan_average(responses: NDArray[np.float64]) -> NDArray[np.float64]:
    """Averages over repetitions that are not NaN, (n_stimuli, n_neuroids)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows without repetition
        average: NDArray[np.float64] = np.nanmean(responses, axis=1)
    return average


@dataclass(frozen=True)
class Protocol:
    """How Brain-Score scores on a recording that is its own.

    benchmark : its identifier there
    metric : its metric, in words
    regression : ``pls`` or ``ridge``; None if its number cannot be had from ours
    ceiling : whether its ceiling is the split-half reliability of the repetitions
    """

    benchmark: str
    metric: str = "pls"
    regression: str | None = "pls"
    components: int = 25
    alpha: float | None = None
    ceiling: bool = True


@dataclass(frozen=True, eq=False)
class Recording:
    """Responses of neuroids in one region to every image of a set.

    images : the stimuli, in the order of the rows
    responses : (n_stimuli, n_repetitions, n_neuroids), spike counts or rates; NaN
        where a stimulus was shown fewer times
    neuroid_ids : unique names of the recorded sites
    region : V1, V2, V4, IT or another area
    degrees : visual angle of the images
    stratify : column of ``images`` over which splits are balanced, or None
    origin : ``recorded``, ``simulated`` or ``imported``
    notes : what a reader of its numbers should know, such as neuroids left out
    protocol : of a recording that Brain-Score holds: its splits and its ceiling are
        kept, whatever they are

    Raises DataError if shapes do not fit, ids repeat, a value is infinite, or a neuroid
    has no response or never changes.
    """

    identifier: str
    images: ImageSet
    responses: NDArray[np.float64]
    neuroid_ids: tuple[str, ...]
    region: str
    degrees: float = 8.0
    stratify: str | None = None
    origin: str = "recorded"
    notes: tuple[str, ...] = ()
    protocol: Protocol | None = None

    def __post_init__(self) -> None:
        shape = self.responses.shape
        expected = (len(self.images), len(self.neuroid_ids))
        if self.responses.ndim != 3 or (shape[0], shape[2]) != expected:
            raise DataError(
                f"responses of {self.identifier} must be (stimulus, repetition, "
                f"neuroid) = ({expected[0]}, any, {expected[1]}), found {shape}; check "
                "the order of the axes and that every image has a row"
            )
        if 0 in shape:
            raise DataError(f"{self.identifier} is empty: responses are {shape}")
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
        self._check_values()

    def _check_values(self) -> None:
        n_infinite = int(np.isinf(self.responses).sum())
        if n_infinite:
            raise DataError(f"{self.identifier} has {n_infinite} infinite responses")
        faults = {
            "have no response at all (only NaN)": np.isnan(self.responses).all((0, 1)),
            "respond equally to every stimulus": _is_silent(self.responses),
        }
        for fault, which in faults.items():
            names = [self.neuroid_ids[i] for i in np.flatnonzero(which)]
            if names:
                raise DataError(
                    f"{len(names)} of {len(self.neuroid_ids)} neuroids of "
                    f"{self.identifier} {fault}: {named_some(names)}; leave them out"
                )

    @property
    def n_repetitions(self) -> int:
        """Largest number of times that a stimulus was shown."""
        return int(self.responses.shape[1])

    @property
    def has_repetitions(self) -> bool:
        """Whether a stimulus was shown twice, so that there may be a ceiling."""
        shown = ~np.isnan(self.responses)
        return bool((shown.sum(axis=1) > 1).any())

    def averaged(self) -> NDArray[np.float64]:
        """Responses averaged over repetitions, (n_stimuli, n_neuroids).

        Raises DataError if a neuroid has no response to some stimulus.
        """
        average = _nan_average(self.responses)
        absent = np.isnan(average)
        if absent.any():
            ids = [self.images.ids[i] for i in np.flatnonzero(absent.any(axis=1))]
            raise DataError(
                f"{self.identifier} lacks {int(absent.sum())} averages: "
                f"{int(absent.any(axis=0).sum())} neuroids have no response to "
                f"{len(ids)} stimuli ({named_some(ids)}); leave out those stimuli or "
                "neuroids"
            )
        return average

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

    @cached_property
    def digest(self) -> str:
        """Digest of images, responses and everything that names their rows."""
        columns = {k: [str(v) for v in vs] for k, vs in self.images.columns.items()}
        names = digest_json(
            [self.images.ids, self.neuroid_ids, self.region, self.degrees, columns]
        )
        # NaN has many bit patterns; two readings of one recording must agree.
        canonical = np.where(np.isnan(self.responses), np.nan, self.responses)
        return combine_digests(self.images.digest, names, digest_array(canonical))


@dataclass(frozen=True)
class Entry:
    """What is known of a recording before a byte of it is read.

    Counts that are not stated anywhere are None; `origin` is that of the recording.
    """

    name: str
    region: str
    load: Callable[[], Recording]
    images: int | None = None
    neuroids: int | None = None
    repetitions: int | None = None
    access: str = "open"
    groups: tuple[str, ...] = ()
    origin: str = "recorded"


#: Recordings by name. Other rooms add theirs; `load_recording` looks here.
RECORDINGS: dict[str, Entry] = {}


def register_recordings(entries: Mapping[str, Entry]) -> None:
    """Add recordings; a name registered again replaces the old entry."""
    RECORDINGS.update(entries)


#: Loader of each prefix of names; it takes what follows ``prefix/``.
SOURCES: dict[str, Callable[[str], Recording]] = {}
#: Reader of each kind of file, by the suffix of its name.
READERS: dict[str, Callable[[Path], Recording]] = {}


def register_recording_source(prefix: str, loader: Callable[[str], Recording]) -> None:
    """Let ``prefix/NAME`` name recordings, which are not listed."""
    SOURCES[prefix] = loader


def register_recording_reader(suffix: str, reader: Callable[[Path], Recording]) -> None:
    """Let paths with a suffix name recordings, which are not listed."""
    READERS[suffix] = reader


def _source_of(name: str) -> tuple[Callable[[str], Recording] | None, str]:
    """Loader of a name that says its source, and the name there."""
    prefix, _, rest = name.partition("/")
    is_file = Path(name).suffix in READERS
    return (None if is_file or not rest else SOURCES.get(prefix)), rest


def expand_recordings(patterns: tuple[str, ...]) -> list[str]:
    """Names of recordings that patterns stand for, each once, in order.

    A pattern is a name, a glob over names, a group, a path to a netCDF file or a glob
    over such paths, or a name with the prefix of a source. Raises ConfigError, which
    lists the nearest names, if a pattern stands for nothing.
    """
    found: dict[str, None] = {}
    for pattern in patterns:
        matches = [
            name
            for name, entry in RECORDINGS.items()
            if fnmatchcase(name, pattern.lower()) or pattern in entry.groups
        ]
        if not matches and _source_of(pattern)[0]:
            matches = [pattern]
        if not matches and Path(pattern).suffix in READERS:
            path = Path(pattern)
            matches = sorted(map(str, path.parent.glob(path.name))) or [pattern]
        if not matches:
            near = nearest_names(pattern, RECORDINGS) or sorted(RECORDINGS)
            raise ConfigError(
                f"unknown recording {pattern!r}; nearest: {', '.join(near)}; or give "
                "a .nc file that `ce-align import` wrote"
            )
        found.update(dict.fromkeys(matches))
    return list(found)


def load_recording(name: str) -> Recording:
    """Recording of a registered name, of a source, or of a netCDF file.

    Raises ConfigError if the name is unknown, DataError if the file holds no recording.
    """
    if name in RECORDINGS:
        return RECORDINGS[name].load()
    loader, rest = _source_of(name)
    if loader is not None:
        return loader(rest)
    if reader := READERS.get(Path(name).suffix):
        return reader(Path(name))
    return load_recording(expand_recordings((name,))[0])


def equal_files(images: ImageSet) -> Indices:
    """For each image the first one with the same encoded bytes, (n_images,)."""
    return first_rows([images.image_digest(i) for i in range(len(images))])


def equal_pixels(images: ImageSet) -> Indices:
    """For each image the first one with the same pixels, (n_images,); decodes all."""
    return first_rows([images.pixel_digest(i) for i in range(len(images))])


def first_rows(contents: Sequence[Any]) -> Indices:
    """For each content the first place where it stands.

    >>> first_rows(["a", "b", "a"]).tolist()
    [0, 1, 0]
    """
    places: dict[Any, int] = {}
    return np.array(
        [places.setdefault(content, i) for i, content in enumerate(contents)],
        dtype=np.intp,
    )


def join_rows(
    responses: NDArray[np.float64],
    columns: Mapping[str, NDArray[Any]],
    first: Indices,
    names: Sequence[str],
    *,
    stratify: str | None,
    identifier: str,
) -> tuple[NDArray[np.float64], dict[str, NDArray[Any]], str | None]:
    """Responses and columns with the rows of one image as its repetitions, and a note.

    responses : (n_rows, n_repetitions, n_neuroids)
    first : (n_rows,), for each row the first row of its image
    names : of the images of the rows, for the note; there is none if none are joined

    The responses (n_images, n_most, n_neuroids) are in the order of first rows, and NaN
    where an image was shown fewer times; columns that differ within an image are left
    out. Raises DataError if the column to stratify by differs.
    """
    rows, counts = np.unique(first, return_counts=True)
    if len(rows) == len(first):
        return responses, dict(columns), None
    same = {
        name: values[rows]
        for name, values in columns.items()
        if (values[first] == values).all()
    }
    differing = [name for name in columns if name not in same]
    if stratify in differing:
        raise DataError(
            f"{identifier} shows equal images with different values of {stratify!r}, "
            "the column to stratify by; correct it, or do not stratify"
        )
    parts = []
    for row, count in zip(rows, counts, strict=True):
        part = responses[first == row].reshape(-1, responses.shape[2])
        # Of several rows, padding in the middle would part their repetitions.
        parts.append(part[~np.isnan(part).all(axis=1)] if count > 1 else part)
    joined = np.full((len(parts), max(map(len, parts)), responses.shape[2]), np.nan)
    for place, part in zip(joined, parts, strict=True):
        place[: len(part)] = part
    shared = [names[row] for row in rows[counts > 1]]
    note = (
        f"{counts[counts > 1].sum()} rows show {len(shared)} "
        f"image{'s' if len(shared) > 1 else ''} more than once and are repetitions now "
        f"({named_some(shared)})"
    )
    if differing:
        note += f", without the columns that differ: {named_some(differing)}"
    return joined, same, note


def join_equal_images(recording: Recording, first: Indices) -> Recording:
    """Recording with the rows of equal images as repetitions of one stimulus.

    `first` (n_stimuli,) is for each row the first row of its image, such as
    `equal_pixels` gives. A note says what was joined; the same object is returned if
    nothing was. Raises DataError if the column to stratify by differs within an image.
    """
    images = recording.images
    responses, columns, note = join_rows(
        recording.responses,
        images.columns,
        first,
        images.ids,
        stratify=recording.stratify,
        identifier=recording.identifier,
    )
    if note is None:
        return recording
    return replace(
        recording,
        images=replace(images.select(np.unique(first).tolist()), columns=columns),
        responses=responses,
        notes=(*recording.notes, note),
    )
