"""Correlation of every representational measure with predictivity."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from ce_align.checks import named_some
from ce_align.config import StageConfig
from ce_align.digests import digest_json
from ce_align.errors import DataError
from ce_align.metrics.correlation import Association, correlate
from ce_align.models.catalogue import find_published
from ce_align.results import ResultStore, Row

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CorrelateConfig", "CorrelationRow", "correlate_measures"]

STAGE = "correlate"
ALGORITHM = "correlation 1"

#: Fewer networks have no correlation worth a number.
MIN_NETWORKS = 5

#: Rows of one measure are comparable only if these agree.
SETTINGS = ["images_digest", "n_points", "n_comparisons", "seed"]


class CorrelateConfig(StageConfig):
    """Settings of a table of correlations."""

    recordings: tuple[str, ...]
    resamples: PositiveInt = 2000
    permutations: PositiveInt = 10_000
    seed: NonNegativeInt = 0


class CorrelationRow(Row):
    """One measure against one recording across networks.

    `value` is Pearson r; `low` and `high` its 95 % bootstrap interval over networks;
    `within` the correlation after removing each objective's mean; `p` of exchanging
    networks within their objective; `q` its false discovery rate over the table.
    """

    measure: str
    recording: str
    low: float | None
    high: float | None
    abs_r: float
    r_squared: float
    spearman: float
    within: float | None
    p: float
    q: float
    n_networks: int
    networks: tuple[str, ...]


def correlate_measures(
    measures: "pd.DataFrame",
    scores: "pd.DataFrame",
    config: CorrelateConfig,
    store: ResultStore,
) -> tuple[list[CorrelationRow], list[str]]:
    """Correlate measures with scores over all networks that have both.

    Parameters
    ----------
    measures, scores : rows of representational measures and of predictivity
    config : recordings to correlate with
    store : where the rows go

    Returns
    -------
    rows, notes : notes say in words what was left out

    Raises
    ------
    DataError
        If no measure has five networks or more with a score.
    """
    notes: list[str] = []
    rows: list[CorrelationRow] = []
    tables: dict[tuple[str, ...], dict[str, pd.Series[float]]] = {}
    for metric, group in measures.groupby("metric", sort=False):
        values, left_out = _comparable(group)
        notes += [f"{metric}: {note}" for note in left_out]
        for recording in config.recordings:
            target = _scores(scores, recording)
            both = [n for n in values.index if n in target.index]
            reason = _unusable(values[both], target[both])
            if reason:
                notes.append(f"{metric} × {recording}: {reason}")
                continue
            table = tables.setdefault((recording, *both), {recording: target[both]})
            table[str(metric)] = values[both]
    if not tables:
        raise DataError(
            f"no measure has {MIN_NETWORKS} networks or more with a score: "
            f"{named_some(notes) or 'there are no rows'}; run `ce-align score` and "
            "`ce-align analyze` for the same networks"
        )
    associations = _associate(tables, config)
    for networks, association in associations:
        rows.append(_row(association, networks, config))
    content = digest_json([row.model_dump(exclude={"created"}) for row in rows])
    config_id = config.fingerprint(rows=content, algorithm=ALGORITHM)
    rows = [row.model_copy(update={"config_id": config_id}) for row in rows]
    store.put(STAGE, config_id, config, rows)
    return rows, notes


def _comparable(rows: "pd.DataFrame") -> "tuple[pd.Series[float], list[str]]":
    """One value a network, from the settings that most networks share."""
    rows = rows.dropna(subset=["value"]).sort_values("created")
    rows = rows.drop_duplicates(["model", *SETTINGS], keep="last")
    if rows.empty:
        return rows.set_index("model")["value"], ["no value is defined"]
    sizes = rows.groupby(SETTINGS, sort=False)["model"].nunique()
    best = sizes.idxmax()
    chosen = rows.set_index(SETTINGS).sort_index().loc[[best]]
    notes = []
    if len(sizes) > 1:
        notes.append(
            f"{len(rows) - len(chosen)} rows of other images, numbers of views or "
            "seeds are left out; they cannot be compared"
        )
    return chosen.set_index("model")["value"], notes


def _scores(scores: "pd.DataFrame", recording: str) -> "pd.Series[float]":
    """Score of each network: of its latest row, raw where there is no ceiling."""
    rows = scores[scores["recording"] == recording].sort_values("created")
    rows = rows.drop_duplicates("model", keep="last").set_index("model")
    if rows["value"].isna().any():
        return rows["raw"].astype("float64")
    return rows["value"].astype("float64")


def _unusable(values: "pd.Series[float]", target: "pd.Series[float]") -> str:
    if len(values) < MIN_NETWORKS:
        return f"{len(values)} networks have both, {MIN_NETWORKS} are needed"
    if np.ptp(values) == 0 or np.ptp(target) == 0:
        return "all networks have the same value"
    return ""


def _objectives(networks: Sequence[str]) -> list[str]:
    """Objective of each network; those that are not published form one group."""
    entries = map(find_published, networks)
    return [entry.objective if entry else "other" for entry in entries]


def _associate(
    tables: "dict[tuple[str, ...], dict[str, pd.Series[float]]]",
    config: CorrelateConfig,
) -> list[tuple[tuple[str, ...], Association]]:
    """Associations of all tables, with one false discovery rate over all of them."""
    from dataclasses import replace

    from ce_align.metrics.significance import benjamini_hochberg

    rng = np.random.default_rng(config.seed)
    found: list[tuple[tuple[str, ...], Association]] = []
    for (recording, *networks), columns in tables.items():
        measures = {n: v.to_numpy() for n, v in columns.items() if n != recording}
        associations = correlate(
            measures,
            {recording: columns[recording].to_numpy()},
            _objectives(networks),
            rng,
            n_resamples=config.resamples,
            n_permutations=config.permutations,
        )
        found += [(tuple(networks), association) for association in associations]
    q = benjamini_hochberg([association.p for _, association in found])
    return [
        (networks, replace(association, q=float(value)))
        for (networks, association), value in zip(found, q, strict=True)
    ]


def _row(
    found: Association, networks: tuple[str, ...], config: CorrelateConfig
) -> CorrelationRow:
    def finite(value: float) -> float | None:
        return value if np.isfinite(value) else None

    return CorrelationRow(
        model=f"{found.n_networks} networks",
        metric="correlation",
        value=found.pearson,
        config_id="",
        measure=found.measure,
        recording=found.target,
        low=finite(found.low),
        high=finite(found.high),
        abs_r=found.abs_pearson,
        r_squared=found.r_squared,
        spearman=found.spearman,
        within=finite(found.within_pearson),
        p=found.p,
        q=found.q,
        n_networks=found.n_networks,
        networks=networks,
    )
