"""Neurodata Without Borders: spikes of trials, or spikes binned around stimuli."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.checks import named_some
from ce_align.data.imagefiles import MemorySource, encode_ppm
from ce_align.data.imagesets import ImageSet
from ce_align.data.importers.common import (
    Importer,
    Request,
    counted,
    find_images,
    finished,
    known_window,
    open_hdf5,
    ordered_files,
    read_field,
    texts,
)
from ce_align.data.recordings import Recording
from ce_align.errors import ConfigError, DataError

__all__ = ["NWB", "spike_counts"]

Indices = NDArray[np.intp]

TRIALS, UNITS = "intervals/trials", "units"
ELECTRODES = "general/extracellular_ephys/electrodes"
STIMULI = "stimulus/presentation/stimuli"
SHOWN = "stimulus/presentation/stimulus_presentation"
BINNED = "processing/ecephys/BinnedAlignedSpikesToStimulus"

#: Columns of trials that say what was shown, and when; the first that is there counts.
STIMULUS_COLUMNS = ("stimulus_presented", "stim_ID", "stimulus_filename")
ONSET_COLUMNS = ("pdOnTS", "pdOn", "start_time")
#: What laboratories write for a stimulus that they hold back.
HELD_OUT = -1
NANOSECONDS = 1e9


@dataclass(frozen=True)
class _Events:
    """What was shown, and when.

    shown : (n_events,) numbers or names of images
    onset : (n_events,) in s
    degrees : visual angle, where trials state one
    """

    shown: NDArray[Any]
    onset: NDArray[np.float64]
    degrees: float | None = None


def spike_counts(
    spikes: NDArray[np.float64], onset: NDArray[np.float64], edges: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Numbers of spikes in [edge, next edge) after each onset, (n_events, n_bins).

    spikes, onset : in s, `edges` in ms; they are compared in whole nanoseconds, so that
    a spike on an edge is counted once
    """
    times = np.sort(np.rint(spikes * NANOSECONDS).astype(np.int64))
    starts = np.rint(onset * NANOSECONDS).astype(np.int64)
    offsets = np.rint(edges * (NANOSECONDS / 1e3)).astype(np.int64)
    before = np.searchsorted(times, starts[:, np.newaxis] + offsets, side="left")
    return np.diff(before, axis=1).astype(np.float64)


def _edges(asked: Request) -> NDArray[np.float64]:
    """Edges of the time bins in ms; the window alone has two."""
    start, end = known_window(asked)
    width = asked.settings.bins
    if width is None:
        return np.array([start, end])
    n_bins = round((end - start) / width)
    if n_bins < 1 or not np.isclose(n_bins * width, end - start):
        raise ConfigError(
            f"bins of {width:g} ms do not divide a window of {start:g} to {end:g} ms"
        )
    return start + width * np.arange(n_bins + 1)


def _events(asked: Request, file: Any, keys: dict[str, str]) -> _Events:
    """Presentations of the table of trials, or of the series of stimuli."""
    if TRIALS not in file:
        if f"{SHOWN}/data" not in file:
            raise DataError(
                f"{asked.path.name} has neither {TRIALS} nor {SHOWN}, which would say "
                "what was shown and when"
            )
        shown = read_field(file, f"{SHOWN}/data", (None,))[:].astype(np.int64)
        onset = read_field(file, f"{SHOWN}/timestamps", shown.shape)[:]
        asked.tell(f"presentations are those of {SHOWN}, onsets its timestamps (s)")
        return _Events(shown, onset.astype(np.float64))
    trials = file[TRIALS]
    columns = {}
    for role, known in (("stimulus", STIMULUS_COLUMNS), ("onset", ONSET_COLUMNS)):
        stated = keys.get(role)
        there = [name for name in known if name in trials]
        if stated is None and not there:
            raise DataError(
                f"{TRIALS} of {asked.path.name} has none of the columns "
                f"{', '.join(known)}; name the one of the {role} (--key {role}=COLUMN) "
                f"out of {named_some(list(trials), 12)}"
            )
        columns[role] = stated or there[0]
    shown = read_field(trials, columns["stimulus"], (None,))[:]
    shown = texts(shown) if shown.dtype.kind in "OS" else _whole(shown, columns)
    onset = read_field(trials, columns["onset"], shown.shape)[:].astype(np.float64)
    begun = read_field(trials, "start_time", shown.shape)[:]
    ended = read_field(trials, "stop_time", shown.shape)[:]
    outside = ~((onset >= begun) & (onset <= ended))
    if outside.all():
        raise DataError(
            f"{columns['onset']} of {asked.path.name} is never between start_time and "
            "stop_time of its trial, hence not in seconds of the file; name another "
            "column (--key onset=start_time)"
        )
    # A trial without a photodiode's signal was not shown.
    kept = ~outside
    reasons = [f"{int(outside.sum())} with an onset outside of the trial"]
    if "fixation_correct" in trials:
        broken = ~read_field(trials, "fixation_correct", shown.shape)[:].astype(bool)
        kept &= ~broken
        reasons.append(f"{int(broken.sum())} without fixation")
    if shown.dtype.kind == "i":
        hidden = shown == HELD_OUT
        kept &= ~hidden
        reasons.append(f"{int(hidden.sum())} held out ({HELD_OUT})")
    if not kept.all():
        asked.tell(
            f"{int((~kept).sum())} of {len(kept)} trials are left out: "
            + ", ".join(reason for reason in reasons if not reason.startswith("0 "))
        )
    if not kept.any():
        raise DataError(f"no trial of {asked.path.name} is left")
    degrees = None
    if "stimulus_size_degrees" in trials:
        stated = np.unique(read_field(trials, "stimulus_size_degrees")[:])
        if len(stated) > 1:
            raise DataError(
                f"stimulus_size_degrees of {asked.path.name} differs between trials "
                f"({named_some(stated.tolist())}); one recording has one size"
            )
        degrees = float(stated[0])
    asked.tell(
        f"stimuli are {TRIALS}/{columns['stimulus']}, onsets "
        f"{TRIALS}/{columns['onset']} (s)"
    )
    return _Events(shown[kept], onset[kept], degrees)


def _whole(values: NDArray[Any], columns: dict[str, str]) -> NDArray[np.int64]:
    """Whole numbers, also where they are stored as floats."""
    found = values.astype(np.int64)
    if (found != values).any():
        raise DataError(
            f"column {columns['stimulus']} must hold whole numbers or names of images"
        )
    return found


def _own_images(file: Any) -> list[tuple[str, Any]] | None:
    """Names and datasets of the images inside, in their order; None if there are none.

    Stored as (height, width[, channel]) of uint8.
    """
    if STIMULI not in file:
        return None
    group = file[STIMULI]
    if "order_of_images" in group:
        found = [file[reference] for reference in group["order_of_images"][:]]
        lost = [i for i, held in enumerate(found) if held.name is None]
        if lost:
            raise DataError(
                f"{STIMULI}/order_of_images names images that are not there: numbers "
                f"{named_some(lost)}"
            )
        return [(held.name.rpartition("/")[2], held) for held in found]
    return [(name, group[name]) for name in group]


def _pixels(name: str, held: Any) -> NDArray[np.uint8]:
    if (
        held.dtype != np.uint8
        or held.ndim not in (2, 3)
        or (held.ndim == 3 and held.shape[2] not in (3, 4))
    ):
        raise DataError(
            f"image {STIMULI}/{name} must be uint8 (height, width, 3), found "
            f"{held.dtype} {held.shape}"
        )
    pixels: NDArray[np.uint8] = held[:]
    if pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    return pixels[:, :, :3]


def _images(
    asked: Request, file: Any, shown: NDArray[Any]
) -> tuple[ImageSet, NDArray[np.intp]]:
    """Images that were shown, and the place among them of each presentation."""
    values, place = np.unique(shown, return_inverse=True)
    own = None if asked.settings.images is not None else _own_images(file)
    if own is not None:
        chosen = _by_number_or_name([name for name, _ in own], values, asked)
        if "order_of_images" not in file[STIMULI] and values.dtype.kind == "i":
            raise DataError(
                f"{STIMULI} of {asked.path.name} lacks order_of_images, so that the "
                "numbers of its trials name no image; give the images (--images) in "
                "their order"
            )
        names = [own[i][0] for i in chosen]
        files = {
            name: encode_ppm(_pixels(*own[i]))
            for name, i in zip(names, chosen, strict=True)
        }
        return ImageSet.from_encoded(
            asked.identifier, names, MemorySource(files), names, {}
        ), place
    if values.dtype.kind == "U":
        return find_images(asked, values.tolist()), place
    names = ordered_files(asked, asked.source())
    chosen = _by_number_or_name(names, values, asked)
    return find_images(asked, [names[i] for i in chosen]), place


def _by_number_or_name(
    names: Sequence[str], values: NDArray[Any], asked: Request
) -> list[int]:
    """Places of images that numbers from 0, or from 1, or names stand for."""
    if values.dtype.kind == "U":
        place = {name: i for i, name in enumerate(names)}
        absent = [value for value in values.tolist() if value not in place]
        if absent:
            raise DataError(
                f"{len(absent)} stimuli of {asked.path.name} are not among its images: "
                f"{named_some(absent)}"
            )
        return [place[value] for value in values.tolist()]
    low, high = int(values.min()), int(values.max())
    from_one = low >= 1 and high == len(names)
    if low < 0 or high - from_one >= len(names):
        raise DataError(
            f"stimuli of {asked.path.name} are numbered {low} to {high}, but there are "
            f"{len(names)} images"
        )
    if from_one:
        asked.tell(f"stimuli are numbered from 1, as the last is {high}")
    return [int(value) - from_one for value in values]


def _ends(file: Any, group: str, name: str, n_rows: int) -> NDArray[np.int64]:
    """Where each row of a ragged column ends."""
    index = read_field(file, f"{group}/{name}_index", (n_rows,))
    # Stored in the smallest unsigned type: differences and sums would wrap around.
    ends: NDArray[np.int64] = index[:].astype(np.int64)
    n_values = len(read_field(file, f"{group}/{name}"))
    if (np.diff(ends, prepend=0) < 0).any() or (len(ends) and ends[-1] > n_values):
        raise DataError(
            f"{group}/{name}_index of {Path(file.filename).name} must rise to at most "
            f"{n_values}, the length of {name}"
        )
    return ends


def _neuroids(file: Any, n_units: int | None) -> dict[str, NDArray[Any]]:
    """Columns of the units: id, animal and area where they are stated."""
    columns: dict[str, NDArray[Any]] = {}
    if f"{UNITS}/id" in file:
        columns["neuroid_id"] = texts(file[f"{UNITS}/id"][:])
        n_units = len(columns["neuroid_id"]) if n_units is None else n_units
    if len(columns.get("neuroid_id", ())) != n_units:
        columns["neuroid_id"] = np.arange(n_units or 0).astype(str)
    if "general/subject/subject_id" in file:
        animal = texts(file["general/subject/subject_id"][()])[0]
        columns["animal"] = np.full(len(columns["neuroid_id"]), animal)
    where = f"{ELECTRODES}/location"
    if f"{UNITS}/electrodes" in file and where in file:
        areas = texts(read_field(file, where)[:])
        rows = read_field(file, f"{UNITS}/electrodes")[:].astype(np.int64)
        n_rows = len(file[f"{UNITS}/id"])
        if f"{UNITS}/electrodes_index" in file:
            ends = _ends(file, UNITS, "electrodes", n_rows)
        else:
            ends = np.arange(1, n_rows + 1)
        found = []
        for unit, (start, end) in enumerate(zip([0, *ends[:-1]], ends, strict=True)):
            named = set(areas[rows[start:end]].tolist())
            if len(named) != 1:
                raise DataError(
                    f"unit {columns['neuroid_id'][unit]} must have electrodes of one "
                    f"{where}, found {named_some(sorted(named)) or 'none'}"
                )
            found.append(named.pop())
        if len(found) == n_units:
            columns["region"] = np.array(found)
    return columns


def _stated(group: Any, *names: str) -> float:
    """A number that one of several names has, as an attribute or a dataset."""
    for name in names:
        if name in group.attrs:
            return float(group.attrs[name])
        if name in group:
            return float(group[name][()])
    raise DataError(f"{group.name} must have one of {' or '.join(names)}")


def _binned(
    asked: Request, file: Any, group: str, edges: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[Any], dict[str, NDArray[Any]]]:
    """Counts (event, unit, bin), stimulus of each event and columns of the units."""
    held = file[group]
    width = _stated(held, "bin_width_in_milliseconds", "bin_width_in_ms")
    first = _stated(
        held, "milliseconds_from_event_to_first_bin", "event_to_bin_offset_in_ms"
    )
    data = read_field(file, f"{group}/data", (None, None, None))
    n_units, n_events, n_bins = data.shape
    places = np.rint((edges - first) / width).astype(np.int64)
    if (
        not np.allclose(first + places * width, edges)
        or places[0] < 0
        or places[-1] > n_bins
    ):
        raise ConfigError(
            f"a window must fall on bins of {group}: from {first:g} to "
            f"{first + n_bins * width:g} ms in steps of {width:g}; found "
            f"{named_some([f'{edge:g}' for edge in edges])} (--window)"
        )
    counts = np.empty((n_events, n_units, len(edges) - 1))
    for unit in range(n_units):
        # Bytes would overflow when they are summed.
        values = data[unit].astype(np.float64)
        for i, (start, end) in enumerate(pairwise(places)):
            counts[:, unit, i] = values[:, start:end].sum(axis=1)
    shown = read_field(file, f"{group}/condition_indices", (n_events,))[:]
    numbers = shown.astype(np.int64)
    if f"{group}/condition_labels" in file:
        labels = texts(file[f"{group}/condition_labels"][:])
        if numbers.min() < 0 or numbers.max() >= len(labels):
            raise DataError(
                f"{group}/condition_indices go from {numbers.min()} to "
                f"{numbers.max()}, but there are {len(labels)} condition_labels"
            )
        own = _own_images(file)
        known = {name for name, _ in own or ()}
        # Labels of other meaning, such as "condition 3", are no names of images.
        if asked.settings.images is not None or known.issuperset(labels):
            return counts, labels[numbers], _neuroids_of_bins(file, group, n_units)
    return counts, numbers, _neuroids_of_bins(file, group, n_units)


def _neuroids_of_bins(file: Any, group: str, n_units: int) -> dict[str, NDArray[Any]]:
    """Columns of the units that were binned; they may be some of the table's."""
    columns = _neuroids(file, None if f"{group}/units_region" in file else n_units)
    if f"{group}/units_region" not in file:
        return columns
    rows = read_field(file, f"{group}/units_region", (n_units,))[:].astype(np.int64)
    return {name: values[rows] for name, values in columns.items()}


def _read(asked: Request) -> Recording:
    keys = asked.keys("stimulus", "onset", "binned")
    edges = _edges(asked)
    with open_hdf5(asked.path) as file:
        group = keys.get("binned", BINNED)
        degrees = None
        if f"{UNITS}/spike_times" in file and "binned" not in keys:
            events = _events(asked, file, keys)
            shown, degrees = events.shown, events.degrees
            ends = _ends(file, UNITS, "spike_times", len(file[f"{UNITS}/id"]))
            times = file[f"{UNITS}/spike_times"]
            counts = np.empty((len(shown), len(ends), len(edges) - 1))
            for unit, (start, end) in enumerate(
                zip([0, *ends[:-1]], ends, strict=True)
            ):
                counts[:, unit] = spike_counts(times[start:end], events.onset, edges)
            neuroids, how = _neuroids(file, len(ends)), "spike times (s)"
        elif group in file:
            counts, shown, neuroids = _binned(asked, file, group, edges)
            how = group
        else:
            raise DataError(
                f"{asked.path.name} has neither {UNITS}/spike_times nor {BINNED}; "
                "these are what is read of an NWB file (--key binned=PATH names "
                "another group of binned spikes)"
            )
        images, place = _images(asked, file, shown)
    spans = ", ".join(f"{a:g}–{b:g}" for a, b in pairwise(edges))
    asked.tell(f"spikes of {how} are counted in [start, end) of {spans} ms")
    several = len(edges) > 2
    return finished(
        asked,
        images,
        counted(counts if several else counts[:, :, 0], place),
        neuroids,
        degrees=degrees,
        window=(float(edges[0]), float(edges[-1])),
        time_bins=np.stack([edges[:-1], edges[1:]], axis=1) if several else None,
    )


NWB = Importer(
    name="nwb",
    holds="Neurodata Without Borders: units with spike times and trials, or binned "
    "spikes; images inside or given",
    recognises=lambda path: path.suffix == ".nwb",
    read=_read,
    takes=("images", "order", "key", "window", "bins"),
)
