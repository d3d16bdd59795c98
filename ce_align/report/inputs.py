"""What tables and figures are made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ce_align.checks import named_some
from ce_align.errors import DataError
from ce_align.files import check_regular
from ce_align.models.catalogue import facts_of, label_of
from ce_align.names import plain_path
from ce_align.report.select import told_apart, with_networks
from ce_align.results import Failure, NetworkFacts, ResultStore
from ce_align.stages.comparable import (
    RAW_SETTINGS,
    SCORE_SETTINGS,
    Selection,
    comparable,
    pooled,
)
from ce_align.stages.same_network import (
    Resolved,
    identity,
    load_rows,
    resolve_networks,
)
from ce_align.stages.scores import with_ceiling_kinds

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

__all__ = ["Inputs", "predictivity_points", "read_others"]


@dataclass(frozen=True, eq=False)
class Inputs:
    """What tables and figures are made from.

    Attributes
    ----------
    rows : of all stages, as `ResultStore.load` gives them
    store : where the arrays behind the rows are; None if there are none
    others : scores of other networks, columns ``model``, ``score`` and perhaps
        ``recording``
    histories : what was recorded during trainings: network to a table with a column
        ``step``
    remark : shown with everything that is made from these
    failures : configurations that were run and have no rows
    """

    rows: "pd.DataFrame"
    store: ResultStore | None = None
    others: "pd.DataFrame | None" = None
    histories: "Mapping[str, pd.DataFrame]" = field(default_factory=dict)
    remark: str = ""
    failures: Sequence[Failure] = ()

    @classmethod
    def load(
        cls,
        results: Path,
        others: Path | None = None,
        runs: Sequence[Path] = (),
        remark: str = "",
    ) -> "Inputs":
        """Everything below a folder of results.

        Folders of trainings, those of `runs` and those that rows name, add the numbers
        at their end and their histories.

        Parameters
        ----------
        results : folder of a `ResultStore`
        others : CSV of other networks' scores, see `read_others`
        runs : folders of trainings
        remark : as of the class

        Raises
        ------
        DataError
            If a file is not what it should be.
        """
        import pandas as pd

        store = ResultStore(results)
        rows = load_rows(store, runs, sound=True)
        # Which stored row it is, through every selection and into the page.
        sources = [identity(row) for row in rows.to_dict("records")]
        rows = rows.assign(source=pd.Series(sources, rows.index, dtype=object))
        named = rows["model"].unique() if len(rows) else ()
        folders = {plain_path(str(run)): Path(run) for run in (*runs, *named)}
        found = {name: _history(folder) for name, folder in folders.items()}
        return cls(
            rows,
            store,
            None if others is None else read_others(others),
            {name: table for name, table in found.items() if table is not None},
            remark,
            store.failures(),
        )

    @cached_property
    def networks(self) -> Resolved:
        """Rows whose names stand for one network each, and those left out."""
        return resolve_networks(self.rows)

    @cached_property
    def labels(self) -> dict[str, str]:
        """What each network is called, the same in every table and figure, by name."""
        found = {name: label_of(name) for name in self.histories}
        for name, facts in self.networks.facts.items():
            found[name] = facts.label or label_of(name)
        return told_apart(found)

    def stage(
        self,
        *names: str,
        where: "Callable[[pd.DataFrame], pd.Series[bool]] | None" = None,
    ) -> Selection:
        """Rows of stages.

        Rows of networks that no longer have their names are left out, and the notes say
        so, as they do of what failed.

        Parameters
        ----------
        names : of stages
        where : which rows of them
        """
        failed: dict[str, list[str]] = {}
        for failure in self.failures:
            if failure.stage in names:
                failed.setdefault(failure.message, []).append(failure.what)
        every_one = [what for of in failed.values() for what in of]
        why = next(iter(failed)) if len(failed) == 1 else "`ce-align results` says why"
        notes = [f"Failed: {named_some(every_one)} ({why})."] if failed else []
        if self.rows.empty:
            return Selection(self.rows, tuple(notes))
        every = self.networks.rows
        rows = every[every["stage"].isin(names)]
        if where is not None and len(rows):
            rows = rows[where(rows)]
        return Selection(rows, (*self.networks.notes(*names, where=where), *notes))

    def facts(self, model: str) -> NetworkFacts:
        """How a network came to be, by its rows or by the folder of its training."""
        return self.networks.facts.get(model) or facts_of(model)

    def arrays(self, stage: str, config_id: str) -> "xr.Dataset | None":
        """Arrays behind a row, or None if they are not there."""
        if self.store is None:
            return None
        try:
            return self.store.arrays(stage, config_id)
        except DataError:
            return None


def read_others(path: Path) -> "pd.DataFrame":
    """Scores of other networks.

    Parameters
    ----------
    path : CSV with columns ``model`` and ``score``; a column ``recording``, the same in
        every row, says which of our own scores are compared with them

    Raises
    ------
    DataError
        If columns are missing, or a score is not a number.
    """
    import pandas as pd

    try:
        table = pd.read_csv(check_regular(path))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {path} as CSV: {error}") from error
    missing = {"model", "score"} - set(table.columns)
    if missing:
        raise DataError(
            f"{path} needs columns model and score, found {', '.join(table.columns)}"
        )
    scores = pd.to_numeric(table["score"], errors="coerce")
    bad = scores.isna() & table["score"].notna()
    if bad.any():
        raise DataError(
            f"{path} has a score that is no number, {table['score'][bad].iloc[0]!r} of "
            f"{table['model'][bad].iloc[0]}; correct it or leave the cell empty"
        )
    if "recording" in table and table["recording"].nunique() > 1:
        raise DataError(f"{path} has scores of several recordings; keep those of one")
    return table.assign(score=scores)


def _history(folder: Path) -> "pd.DataFrame | None":
    """What a training recorded, its resumed parts joined; None if there is nothing."""
    import pandas as pd

    # A training that was resumed begins a new file: the later part wins.
    files = sorted(
        folder.glob("log/version_*/metrics.csv"),
        key=lambda path: (len(path.parent.name), path.parent.name),
    )
    parts = []
    for path in files:
        try:
            parts.append(pd.read_csv(check_regular(path)))
        except ValueError as error:
            raise DataError(f"cannot read {path} as CSV: {error}") from error
    parts = [part for part in parts if "step" in part.columns and len(part)]
    if not parts:
        return None
    table = parts[0]
    for part in parts[1:]:
        table = pd.concat([table[table["step"] < part["step"].min()], part])
    return table.reset_index(drop=True)


def predictivity_points(
    inputs: Inputs, number: Literal["raw", "score"] = "raw", *, every: bool = False
) -> Selection:
    """Predictivity of every network and recording, one layer each.

    Scores that were imported are among them.

    Parameters
    ----------
    inputs : rows
    number : which of the two is the value; imported scores may have no raw correlation
    every : networks of no known objective or λ, too; columns are then those of rows

    Returns
    -------
    Selection
        Rows with ``value`` the number, ``score`` raw² / ceiling, ``low`` and ``high``
        one standard error over splits, if the value is the raw correlation.
    """
    import pandas as pd

    known = inputs.stage("score", "imported").then(pooled)
    known = known if every else known.then(with_networks)
    if known.rows.empty:
        return known
    parts, notes = [], list(known.notes)
    column = {"raw": "raw", "score": "value"}[number]
    for recording in dict.fromkeys(known.rows["recording"]):
        own = with_ceiling_kinds(known.rows[known.rows["recording"] == recording])
        own = own.assign(score=own["value"], value=own[column])
        settings = RAW_SETTINGS if number == "raw" else SCORE_SETTINGS
        found = comparable(own, settings, str(recording))
        notes += found.notes
        regressions = set(found.rows.get("regression", pd.Series()).dropna())
        if regressions - {"pls"}:
            notes.append(f"{recording}: regression {named_some(sorted(regressions))}.")
        parts.append(found.rows)
    joined = pd.concat(parts, ignore_index=True)
    error = joined["error"] if number == "raw" else float("nan")
    joined = joined.assign(low=joined["value"] - error, high=joined["value"] + error)
    return Selection(joined, tuple(notes))
