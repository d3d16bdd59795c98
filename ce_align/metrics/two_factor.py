"""Intervals of statistics of a table, of whose rows and columns others might be drawn.

Rows are stimuli; columns are neuroids, or belong to animals. A statistic is given how
often each is drawn, so that one function serves correlations, dissimilarities and
kernels; several networks that are resampled together are compared as pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ce_align.errors import DataError
from ce_align.metrics.gram import Array
from ce_align.metrics.inference import MIN_UNITS, Interval

__all__ = ["Factor", "Resamples", "resample"]

#: What is drawn anew: rows, columns, or both.
Factor = Literal["rows", "columns", "both"]

#: From how often each row (b, n_rows) and column (b, n_columns) is drawn, to values
#: (b, k). Where only one of the two is drawn, the other has one line of ones.
Statistic = Callable[[NDArray[np.int64], NDArray[np.int64]], Array]

#: Columns of so few groups are resampled: of one nothing is known of others.
MIN_GROUPS = 2
#: Draws that a statistic sees at once.
BATCH = 100
#: A statistic that more draws leave undefined has no interval.
MOST_UNDEFINED = 0.1


@dataclass(frozen=True, eq=False)
class Resamples:
    """Numbers of a table, and their variation over draws of its rows and columns.

    Attributes
    ----------
    estimate : (k,)
    covariance : (k, k), of the estimates
    parts : covariance over rows and over columns, as far as each is drawn, with the
        degrees of freedom
    n_units : rows or columns (or their groups) that are drawn; the fewer of both
    """

    estimate: Array
    covariance: Array
    parts: tuple[tuple[Array, int], ...]
    n_units: int

    def interval(self, contrast: ArrayLike, level: float = 0.95) -> Interval:
        """Interval of a weighted sum, such as ``[1, -1]`` for a difference.

        Parameters
        ----------
        contrast : (k,), weight of each number
        level : confidence level
        """
        from scipy import special

        weights = np.asarray(contrast, dtype=np.float64)
        error, freedom = self._error(weights)
        half = error * float(special.stdtrit(freedom, (1 + level) / 2))
        value = float(weights @ self.estimate)
        return Interval(value, value - half, value + half, level, self.n_units)

    def p(self, contrast: ArrayLike) -> float:
        """Two-sided p of a weighted sum being zero, by Student's t; 1 if it is 0 ± 0.

        The interval at level 1 − p ends at zero.
        """
        from scipy import special

        weights = np.asarray(contrast, dtype=np.float64)
        error, freedom = self._error(weights)
        value = abs(float(weights @ self.estimate))
        if error == 0:
            return float(value == 0)
        return float(2 * special.stdtr(freedom, -value / error))

    def _error(self, weights: Array) -> tuple[float, float]:
        """Standard error, and Satterthwaite's degrees of freedom."""
        parts = [(float(weights @ part @ weights), df) for part, df in self.parts]
        alone = max(part for part, _ in parts)
        # Neither below what one factor has alone, nor above their sum.
        variance = float(weights @ self.covariance @ weights)
        total = sum(part for part, _ in parts)
        variance = min(max(variance, alone), total)
        if not total > 0:
            return 0.0, float(min(df for _, df in parts))
        freedom = total**2 / sum(part**2 / df for part, df in parts)
        return float(np.sqrt(variance)), freedom


def resample(
    statistic: Statistic,
    n_rows: int,
    n_columns: int,
    rng: np.random.Generator,
    *,
    over: Factor = "both",
    groups: ArrayLike | None = None,
    n_resamples: int = 1000,
) -> Resamples:
    """Bootstrap rows, columns, or both with the correction for two factors.

    Parameters
    ----------
    statistic : of counts of rows (b, n_rows) and of columns (b, n_columns), to values
        (b, k); counts of what is not drawn are one line of ones. Values may be NaN for
        draws that leave them undefined
    n_rows, n_columns : of the table
    over : what is drawn: ``rows``, ``columns``, or ``both``
    groups : (n_columns,), such as animals: whole groups are drawn instead of columns
    n_resamples : draws of each kind

    Raises
    ------
    DataError
        For fewer than five rows or columns, or than two groups; or if the statistic is
        undefined for the table, or for more than a tenth of the draws.

    Notes
    -----
    Drawing both at once counts what belongs to single cells three times: of
    Σ (row + column + cell) effects it has about the variance r + c + 3 e, rows alone
    have r + e, columns alone c + e, and the truth is r + c + e. With the factors
    f = n / (n − 1) that make each of these three right for few units, too, the truth is
    rows · (1 + f of columns) + columns · (1 + f of rows) − both. Bounds come from
    Student's t with Satterthwaite's degrees of freedom: two animals give an interval
    that is wide, and right.

    Rows and columns are drawn as whole units: what was fitted to other rows, such as a
    regression behind held-out predictions, stays as it is.

    Reference: Schütt, Kipnis, Diedrichsen and Kriegeskorte (2023), Statistical
    inference on representational geometries, eLife 12:e82566.
    """
    if groups is None:
        member = np.arange(n_columns)
        n_groups, least = n_columns, MIN_UNITS
    else:
        names, member = np.unique(np.asarray(groups), return_inverse=True)
        n_groups, least = len(names), MIN_GROUPS
    rows, columns = over in ("rows", "both"), over in ("columns", "both")
    for asked, n, few, what in (
        (rows, n_rows, MIN_UNITS, "rows (stimuli)"),
        (
            columns,
            n_groups,
            least,
            "columns (neuroids)" if groups is None else "groups",
        ),
    ):
        if asked and n < few:
            raise DataError(
                f"an interval over {what} needs {few} or more, found {n}; take the "
                "interval over the other factor"
            )
    ones = np.ones((1, n_rows), dtype=np.int64), np.ones((1, n_columns), dtype=np.int64)
    estimate = np.asarray(statistic(*ones), dtype=np.float64)[0]
    if not np.isfinite(estimate).all():
        raise DataError("the statistic is undefined for the whole table")

    def covariance(with_rows: bool, with_columns: bool) -> Array:
        found = []
        for start in range(0, n_resamples, BATCH):
            b = min(BATCH, n_resamples - start)
            drawn_rows, drawn_columns = ones
            if with_rows:
                drawn_rows = rng.multinomial(n_rows, np.full(n_rows, 1 / n_rows), b)
            if with_columns:
                even = np.full(n_groups, 1 / n_groups)
                drawn_columns = rng.multinomial(n_groups, even, b)[:, member]
            found.append(np.asarray(statistic(drawn_rows, drawn_columns)))
        values = np.concatenate(found)
        values = values[np.isfinite(values).all(axis=1)]
        if len(values) < (1 - MOST_UNDEFINED) * n_resamples:
            raise DataError(
                f"the statistic is undefined for {n_resamples - len(values)} of "
                f"{n_resamples} draws; take more stimuli or neuroids, or an interval "
                "over one of them"
            )
        enlarged = n_rows / (n_rows - 1) if with_rows else 1.0
        enlarged *= n_groups / (n_groups - 1) if with_columns else 1.0
        return enlarged * np.cov(values, rowvar=False, ddof=0).reshape(
            (len(estimate),) * 2
        )

    parts = []
    if rows:
        parts.append((covariance(True, False), n_rows - 1))
    if columns:
        parts.append((covariance(False, True), n_groups - 1))
    whole = parts[0][0]
    if over == "both":
        f_rows, f_columns = n_rows / (n_rows - 1), n_groups / (n_groups - 1)
        whole = parts[0][0] * (1 + f_columns) + parts[1][0] * (1 + f_rows)
        whole = whole - covariance(True, True)
    n_units = min(df for _, df in parts) + 1
    return Resamples(estimate, whole, tuple(parts), n_units)
