"""Responses in one row a presentation, for stimuli that are shown unequally often."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.digests import digest_array, digest_blocks
from ce_align.errors import DataError

__all__ = [
    *("Faults", "Presentations", "Responses", "average_of", "digest_of", "faults_of"),
    "of_neuroids",
]

Indices = NDArray[np.intp]

#: Columns (neuroids, or their time bins) that are averaged at a time, so that memory
#: stays bounded.
BLOCK = 256
#: Values that a digest looks at at a time.
MOST_VALUES = 2**22


@dataclass(frozen=True, eq=False)
class Presentations:
    """Responses in one row a presentation, where stimuli are shown unequally often.

    values : (n_presentations, n_neuroids), or (n_presentations, n_neuroids, n_bins)
        with time; NaN where a neuroid was not recorded
    stimulus : (n_presentations,), place of what was shown among the images
    repetition : (n_presentations,), whole numbers, in the order of which they become
        0, 1, 2, ...; no stimulus has one twice

    Rows of NaN alone are no presentations and left out. Raises DataError if shapes do
    not fit or a repetition stands twice.
    """

    values: NDArray[np.floating[Any]]
    stimulus: Indices
    repetition: Indices

    def __post_init__(self) -> None:
        n_rows = len(self.values)
        if self.values.ndim not in (2, 3) or not (
            self.stimulus.shape == self.repetition.shape == (n_rows,)
        ):
            raise DataError(
                "presentations need values (presentation, neuroid) or (presentation, "
                "neuroid, time bin) with a stimulus and a repetition each; found "
                f"{self.values.shape}, {self.stimulus.shape}, {self.repetition.shape}"
            )
        if n_rows and self.stimulus.min() < 0:
            raise DataError("places of stimuli must not be negative")
        held = self._held()
        if held.any() and not held.all():
            object.__setattr__(self, "values", self.values[held])
            object.__setattr__(self, "stimulus", self.stimulus[held])
        numbers = self.repetition if held.all() else self.repetition[held]
        # One content must not have as many digests as there are ways to count.
        names, repetition = np.unique(numbers, return_inverse=True)
        object.__setattr__(self, "repetition", repetition.astype(np.intp))
        slots = self.stimulus.astype(np.int64) * len(names) + repetition
        if n_twice := len(slots) - len(np.unique(slots)):
            raise DataError(
                f"{n_twice} presentations repeat both stimulus and repetition of "
                "another; number the repetitions of each stimulus"
            )

    def _held(self) -> NDArray[np.bool_]:
        """Rows that have a response, (n_presentations,); all, if none has."""
        held = np.ones(len(self.values), dtype=bool)
        if self.values.size:
            column = self.values.reshape(len(held), -1)[:, 0]
            for row in np.flatnonzero(np.isnan(column)):
                held[row] = not np.isnan(self.values[row]).all()
        return held if held.any() else ~held

    @property
    def n_repetitions(self) -> int:
        """Largest number of repetitions that a stimulus may have."""
        return int(self.repetition.max()) + 1 if len(self.repetition) else 0

    def averaged(self, n_stimuli: int) -> NDArray[np.float64]:
        """Averages over what is not NaN, (n_stimuli, n_neuroids[, n_bins])."""
        average = np.empty((n_stimuli, *self.values.shape[1:]))
        for some, block in self.averages(n_stimuli):
            average[:, some] = block
        return average

    def averages(self, n_stimuli: int) -> Iterator[tuple[slice, NDArray[np.float64]]]:
        """The same in blocks of neuroids, with their places."""
        numbers = np.unique(self.repetition)
        rounds = [np.flatnonzero(self.repetition == number) for number in numbers]
        n_neuroids, *bins = self.values.shape[1:]
        width = max(BLOCK // max(*bins, 1), 1) if bins else BLOCK
        for start in range(0, n_neuroids, width):
            some = slice(start, start + width)
            total = np.zeros((n_stimuli, *self.values[:1, some].shape[1:]))
            n_shown = np.zeros(total.shape, dtype=np.int32)
            for rows in rounds:  # each has a stimulus at most once
                values = self.values[rows, some]
                seen = ~np.isnan(values)
                total[self.stimulus[rows]] += np.where(seen, values, 0)
                n_shown[self.stimulus[rows]] += seen
            with np.errstate(invalid="ignore"):
                yield some, total / n_shown

    def rectangle(
        self, stimuli: Indices, *, every: bool = False
    ) -> NDArray[np.float64]:
        """Responses (n, n_repetitions, n_neuroids[, n_bins]) to some stimuli, in order.

        Repetitions that none of them has are left out, unless `every` is asked for.
        """
        place = np.full(int(max(self.stimulus.max(), stimuli.max())) + 1, -1)
        place[stimuli] = np.arange(len(stimuli))
        rows = np.flatnonzero(place[self.stimulus] >= 0)
        n_repetitions, repetition = self.n_repetitions, self.repetition[rows]
        if not every:
            numbers, repetition = np.unique(repetition, return_inverse=True)
            n_repetitions = len(numbers)
        shape = (len(stimuli), n_repetitions, *self.values.shape[1:])
        filled = np.full(shape, np.nan)
        filled[place[self.stimulus[rows]], repetition] = self.values[rows]
        return filled

    def joined(self, place: Indices) -> "Presentations":
        """The same with stimuli at other places, (n_stimuli,), which may be shared.

        Repetitions are numbered anew, in the order of stimuli and repetitions.
        """
        old = self.in_order()
        stimulus = place[old.stimulus]
        order = np.argsort(stimulus, kind="stable")
        repetition = np.empty_like(order)
        _, starts, counts = np.unique(
            stimulus[order], return_index=True, return_counts=True
        )
        repetition[order] = np.arange(len(order)) - np.repeat(starts, counts)
        return Presentations(old.values, stimulus, repetition)

    def of_stimuli(self, places: Indices) -> "Presentations":
        """Presentations of some stimuli, which have their order from now on."""
        place = np.full(int(max(self.stimulus.max(), places.max())) + 1, -1)
        place[places] = np.arange(len(places))
        rows = np.flatnonzero(place[self.stimulus] >= 0)
        _, repetition = np.unique(self.repetition[rows], return_inverse=True)
        return Presentations(self.values[rows], place[self.stimulus[rows]], repetition)

    def in_order(self) -> "Presentations":
        """The same, by stimulus and repetition."""
        order = np.lexsort((self.repetition, self.stimulus))
        if (order == np.arange(len(order))).all():
            return self
        values = self.values[order]
        return Presentations(values, self.stimulus[order], self.repetition[order])


#: Responses to stimuli: a rectangle, or a row a presentation.
Responses = NDArray[np.float64] | Presentations


def average_of(responses: Responses, n_stimuli: int) -> NDArray[np.float64]:
    """Averages over repetitions that are not NaN, (n_stimuli, n_neuroids[, n_bins])."""
    if isinstance(responses, Presentations):
        return responses.averaged(n_stimuli)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # rows without repetition
        average: NDArray[np.float64] = np.nanmean(responses, axis=1)
    return average


@dataclass(frozen=True, eq=False)
class Faults:
    """What responses must not have.

    n_infinite : infinite values
    absent : (n_neuroids,), neuroids of NaN alone
    silent : (n_neuroids,), these and neuroids with one average for all stimuli
    """

    n_infinite: int
    absent: NDArray[np.bool_]
    silent: NDArray[np.bool_]


def faults_of(responses: Responses, n_stimuli: int) -> Faults:
    """Faults of responses, looked for in blocks so that memory stays bounded."""
    if isinstance(responses, Presentations):
        n_infinite, found = 0, []
        for some, average in responses.averages(n_stimuli):
            n_infinite += int(np.isinf(responses.values[:, some]).sum())
            found.append(_silence(average))
    else:
        n_infinite = int(np.isinf(responses).sum())
        found = [_silence(average_of(responses, n_stimuli))]
    absent, silent = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return Faults(n_infinite, absent, silent)


def _silence(
    average: NDArray[np.float64],
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Neuroids without averages, and those whose averages do not differ."""
    missing = np.isnan(average)
    highest = np.where(missing, -np.inf, average).max(axis=0)
    lowest = np.where(missing, np.inf, average).min(axis=0)
    # Equal responses may have averages that differ by rounding.
    with np.errstate(invalid="ignore"):
        rounding = 1e-12 * np.maximum(np.abs(highest), np.abs(lowest))
        silent: NDArray[np.bool_] = ~(highest - lowest > rounding)
    absent: NDArray[np.bool_] = missing.all(axis=0)
    # A neuroid that is silent in some time bins only is not.
    if silent.ndim == 2:
        return absent.all(axis=1), silent.all(axis=1)
    return absent, silent


def digest_of(responses: Responses, n_stimuli: int) -> list[str]:
    """Digests of responses.

    Presentations that fill half of a rectangle have that of the rectangle, which is
    formed in blocks; others that of their rows, in the order of stimuli and
    repetitions.
    """
    if not isinstance(responses, Presentations):
        return [_digest_of_rows(responses)]
    n_rows, *each = responses.values.shape
    n_repetitions = responses.n_repetitions
    if len(each) == 1 and 2 * n_rows >= n_stimuli * n_repetitions:
        step = max(MOST_VALUES // (n_repetitions * each[0]), 1)
        blocks = (
            responses.rectangle(
                np.arange(start, min(start + step, n_stimuli)), every=True
            )
            for start in range(0, n_stimuli, step)
        )
        shape = (n_stimuli, n_repetitions, *each)
        return [digest_blocks(np.dtype(np.float64), shape, blocks)]
    held = responses.in_order()
    return [
        digest_array(held.stimulus.astype(np.int64)),
        digest_array(held.repetition.astype(np.int64)),
        _digest_of_rows(held.values),
    ]


def _digest_of_rows(values: NDArray[np.floating[Any]]) -> str:
    step = max(MOST_VALUES // max(values[:1].size, 1), 1)
    rows = (values[start : start + step] for start in range(0, len(values), step))
    # NaN has many bit patterns; two readings of one recording must agree.
    canonical = (np.where(np.isnan(block), np.nan, block) for block in rows)
    return digest_blocks(values.dtype, values.shape, canonical)


def of_neuroids(responses: Responses, kept: NDArray[Any]) -> Responses:
    """Responses of some neuroids, by a mask or by their places."""
    if isinstance(responses, Presentations):
        return replace(responses, values=responses.values[:, kept])
    return responses[:, :, kept]
