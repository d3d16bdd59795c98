"""Responses in one row a presentation, for stimuli that are shown unequally often."""

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ce_align.errors import DataError

__all__ = ["Presentations", "Responses", "average_of", "is_silent", "of_neuroids"]

Indices = NDArray[np.intp]

#: Neuroids whose responses are averaged at a time, so that memory stays bounded.
BLOCK = 256


@dataclass(frozen=True, eq=False)
class Presentations:
    """Responses in one row a presentation, where stimuli are shown unequally often.

    values : (n_presentations, n_neuroids), or (n_presentations, n_neuroids, n_bins)
        with time; NaN where a neuroid was not recorded
    stimulus : (n_presentations,), place of what was shown among the images
    repetition : (n_presentations,), whole numbers from 0; no stimulus has one twice

    Raises DataError if shapes do not fit or a repetition stands twice.
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
        if n_rows and min(self.stimulus.min(), self.repetition.min()) < 0:
            raise DataError("places of stimuli and repetitions must not be negative")
        slots = self.stimulus.astype(np.int64) * (self.n_repetitions + 1)
        slots = slots + self.repetition
        if n_twice := len(slots) - len(np.unique(slots)):
            raise DataError(
                f"{n_twice} presentations repeat both stimulus and repetition of "
                "another; number the repetitions of each stimulus"
            )

    @property
    def n_repetitions(self) -> int:
        """Largest number of repetitions that a stimulus may have."""
        return int(self.repetition.max()) + 1 if len(self.repetition) else 0

    def averaged(self, n_stimuli: int) -> NDArray[np.float64]:
        """Averages over what is not NaN, (n_stimuli, n_neuroids[, n_bins])."""
        average = np.full((n_stimuli, *self.values.shape[1:]), np.nan)
        numbers = np.unique(self.repetition)
        rounds = [np.flatnonzero(self.repetition == number) for number in numbers]
        for start in range(0, self.values.shape[1], BLOCK):
            some = slice(start, start + BLOCK)
            total = np.zeros_like(average[:, some])
            n_shown = np.zeros(total.shape, dtype=np.int32)
            for rows in rounds:  # each has a stimulus at most once
                values = self.values[rows, some]
                seen = ~np.isnan(values)
                total[self.stimulus[rows]] += np.where(seen, values, 0)
                n_shown[self.stimulus[rows]] += seen
            np.divide(total, n_shown, out=average[:, some], where=n_shown > 0)
        return average

    def rectangle(self, stimuli: Indices) -> NDArray[np.float64]:
        """Responses (n, n_repetitions, n_neuroids[, n_bins]) to some stimuli, in order.

        Repetitions that none of them has are left out.
        """
        place = np.full(int(max(self.stimulus.max(), stimuli.max())) + 1, -1)
        place[stimuli] = np.arange(len(stimuli))
        rows = np.flatnonzero(place[self.stimulus] >= 0)
        _, repetition = np.unique(self.repetition[rows], return_inverse=True)
        shape = (len(stimuli), int(repetition.max()) + 1, *self.values.shape[1:])
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


def is_silent(average: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Neuroids of NaN alone, or with one average for all stimuli, (n_neuroids,)."""
    highest = np.where(np.isnan(average), -np.inf, average).max(axis=0)
    lowest = np.where(np.isnan(average), np.inf, average).min(axis=0)
    # Equal responses may have averages that differ by rounding.
    rounding = 1e-12 * np.maximum(np.abs(highest), np.abs(lowest))
    silent: NDArray[np.bool_] = ~(highest - lowest > rounding)
    # A neuroid that is silent in some time bins only is none.
    return silent if silent.ndim == 1 else silent.all(axis=1)


def of_neuroids(responses: Responses, kept: NDArray[Any]) -> Responses:
    """Responses of some neuroids, by a mask or by their places."""
    if isinstance(responses, Presentations):
        return replace(responses, values=responses.values[:, kept])
    return responses[:, :, kept]
