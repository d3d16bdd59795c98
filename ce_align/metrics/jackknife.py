"""Intervals of numbers that take all stimuli and neuroids at once, by leaving out some.

A bootstrap has some stimuli twice, and each is too similar to itself: what compares
pairs of stimuli, or fits to them, changes. The jackknife has none twice.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

from ce_align.errors import DataError
from ce_align.metrics.gram import Array, Indices
from ce_align.metrics.inference import Interval

__all__ = ["Over", "jackknife_interval"]

Over = Literal["stimuli", "neuroids", "both"]

#: Groups of stimuli and of neuroids that are left out in turn.
GROUPS = {"stimuli": 20, "neuroids": 10}
#: With fewer units the spread of what is left out is not known.
LEAST = {"stimuli": 10, "neuroids": 5}


def jackknife_interval(
    statistic: Callable[[Indices, Indices], float],
    n_stimuli: int,
    n_neuroids: int,
    rng: np.random.Generator,
    *,
    over: Over = "both",
    level: float = 0.95,
) -> Interval:
    """Interval of a number of stimuli × neuroids, if others of them had been drawn.

    Parameters
    ----------
    statistic : the number, of the stimuli and neuroids in these places
    n_stimuli, n_neuroids : that there are
    rng : who is left out with whom
    over : what else might have been drawn
    level : confidence level

    Raises
    ------
    DataError
        For fewer than ten stimuli or five neuroids, of those that are drawn.

    Notes
    -----
    With groups left out in turn, the variance over stimuli, and that over neuroids, are
    (G − 1) / G times the sum of squares. Both have in them what belongs to single
    combinations of a stimulus and a neuroid, such as noise of responses; of the sum it
    is subtracted once, as it is found by leaving out both at once. Bounds are of
    Student's t with Satterthwaite's degrees of freedom.

    References: Efron and Stein (1981), Annals of Statistics 9; Schütt et al. (2023),
    eLife 12, for the same with the bootstrap.
    """
    from scipy import special

    sizes = {"stimuli": n_stimuli, "neuroids": n_neuroids}
    drawn = [name for name in sizes if over in (name, "both")]
    for name in drawn:
        if sizes[name] < LEAST[name]:
            raise DataError(
                f"an interval over {name} needs {LEAST[name]} or more, found "
                f"{sizes[name]}; take that over the other"
            )
    whole = np.arange(n_stimuli), np.arange(n_neuroids)
    value = statistic(*whole)
    kept: dict[str, list[Indices]] = {}
    without: dict[str, Array] = {}
    parts, squares = [], []
    for name in drawn:
        group = rng.permutation(sizes[name]) % min(GROUPS[name], sizes[name])
        kept[name] = [np.flatnonzero(group != k) for k in range(group.max() + 1)]
        values = [
            statistic(some, whole[1])
            if name == "stimuli"
            else statistic(whole[0], some)
            for some in kept[name]
        ]
        without[name], n = np.array(values), len(values)
        parts.append((n - 1) * float(np.var(values)))
        squares.append(parts[-1] ** 2 / (n - 1))
    variance = total = sum(parts)
    if over == "both":
        n_s, n_n = len(kept["stimuli"]), len(kept["neuroids"])
        # Every group of stimuli, with two of neuroids.
        s = np.tile(rng.permutation(n_s), 2)
        n = (np.arange(2 * n_s) + np.repeat([0, n_n // 2], n_s)) % n_n
        cells = [
            statistic(kept["stimuli"][i], kept["neuroids"][k])
            - without["stimuli"][i]
            - without["neuroids"][k]
            + value
            for i, k in zip(s, n, strict=True)
        ]
        of_cells = float(np.mean(np.square(cells))) * (n_s - 1) * (n_n - 1)
        # Never below what one of both has alone.
        variance = max(total - of_cells, *parts)
    n_units = min(sizes[name] for name in drawn)
    if not total > 0:
        return Interval(value, value, value, level, n_units)
    freedom = total**2 / sum(squares)
    half = float(special.stdtrit(freedom, (1 + level) / 2) * np.sqrt(variance))
    return Interval(value, value - half, value + half, level, n_units)
