"""Correlation of every representational measure with predictivity."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import NonNegativeInt, PositiveInt

from ce_align.checks import named_some
from ce_align.config import StageConfig
from ce_align.digests import digest_json
from ce_align.errors import DataError
from ce_align.metrics.correlation import Association, correlate
from ce_align.metrics.significance import benjamini_hochberg
from ce_align.models.catalogue import objective_of
from ce_align.results import ResultStore, Row

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["CorrelateConfig", "CorrelationRow", "correlate_measures"]

STAGE = "correlate"
ALGORITHM = "correlation 2"

#: Fewer networks have no correlation worth a number.
MIN_NETWORKS = 5

#: Rows of one measure are comparable only if these agree.
MEASURE_SETTINGS = ["views_digest", "n_points", "n_comparisons"]

#: Scores against one recording are comparable only if these agree.
SCORE_SETTINGS = ["recording_digest", "region", "regression", "n_splits", "seed"]


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
    networks within their objective; `q` its false discovery rate over the table;
    `imported_from` the file of scores that were measured elsewhere.
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
    imported_from: str | None = None


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
    config : recordings to correlate with, resampling
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
    targets, files = {}, {}
    for recording in config.recordings:
        targets[recording], files[recording], found = _scores(scores, recording)
        notes += [f"{recording}: {note}" for note in found]
    tables: dict[tuple[str, ...], dict[str, pd.Series[float]]] = {}
    for metric, group in measures.groupby("metric", sort=False):
        chosen, found = _comparable(group, MEASURE_SETTINGS)
        notes += [f"{metric}: {note}" for note in found]
        values = chosen["value"].astype("float64")
        for recording, target in targets.items():
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
    rows = [
        _row(association, networks, files[association.target])
        for networks, association in _associate(tables, config)
    ]
    content = digest_json([row.model_dump(exclude={"created"}) for row in rows])
    config_id = config.fingerprint(rows=content, algorithm=ALGORITHM)
    rows = [row.model_copy(update={"config_id": config_id}) for row in rows]
    store.put(STAGE, config_id, config, rows)
    return rows, notes


def _comparable(
    rows: "pd.DataFrame", settings: list[str]
) -> "tuple[pd.DataFrame, list[str]]":
    """One row a network, its latest, of the settings that most networks share."""
    notes = []
    rows = rows.dropna(subset=["value", *settings])
    rows = rows.sort_values("created", kind="stable")
    sizes = rows.groupby(settings, sort=False)["model"].nunique()
    if len(sizes) > 1:
        agrees = (rows[settings] == sizes.idxmax()).all(axis=1)
        notes.append(
            f"{(~agrees).sum()} rows with another {_differing(rows, settings)} than "
            "most are left out, for they cannot be compared"
        )
        rows = rows[agrees]
    layers = rows.groupby("model")["layer"].nunique()
    if (layers > 1).any():
        several = named_some(list(layers.index[layers > 1]))
        notes.append(f"several layers of {several}; the latest row of each counts")
    latest = rows.drop_duplicates("model", keep="last").set_index("model")
    # By name: resampling must not depend on the order in which rows were written.
    return latest.sort_index(), notes


def _differing(rows: "pd.DataFrame", settings: list[str]) -> str:
    return " or ".join(name for name in settings if rows[name].nunique() > 1)


def _scores(
    scores: "pd.DataFrame", recording: str
) -> "tuple[pd.Series[float], str | None, list[str]]":
    """Score of each network, or its raw correlation where there is no ceiling.

    With the files that scores were imported from, and notes.
    """
    rows = scores[scores["recording"] == recording]
    without = rows["value"].isna().any()
    rows = rows.assign(value=rows["raw"] if without else rows["value"])
    if "imported_from" in rows:
        # Nothing is known of their settings but that Brain-Score's are one.
        imported = rows["imported_from"].notna()
        absent = dict.fromkeys(set(SCORE_SETTINGS) - set(rows))
        settings = rows.assign(**absent)[SCORE_SETTINGS].astype(object)
        rows = rows.assign(**settings.mask(imported, "imported"))
    chosen, notes = _comparable(rows, SCORE_SETTINGS)
    if without:
        notes.insert(0, "no ceiling, so measures meet the raw correlation")
    files = chosen["imported_from"].dropna() if "imported_from" in chosen else ()
    origin = named_some(list(dict.fromkeys(files))) or None
    if origin:
        notes.insert(0, f"scores are imported, from {origin}")
    return chosen["value"].astype("float64"), origin, notes


def _unusable(values: "pd.Series[float]", target: "pd.Series[float]") -> str:
    if len(values) < MIN_NETWORKS:
        return f"{len(values)} networks have both, {MIN_NETWORKS} are needed"
    if np.ptp(values) == 0 or np.ptp(target) == 0:
        return "all networks have the same value"
    return ""


def _objectives(networks: Sequence[str]) -> list[str]:
    """Objective of each network; those of which none is known form one group."""
    return [objective_of(network) or "other" for network in networks]


def _associate(
    tables: "dict[tuple[str, ...], dict[str, pd.Series[float]]]",
    config: CorrelateConfig,
) -> list[tuple[tuple[str, ...], Association]]:
    """Associations of all tables, with one false discovery rate over all of them."""
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
    found: Association, networks: tuple[str, ...], imported_from: str | None
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
        imported_from=imported_from,
    )
