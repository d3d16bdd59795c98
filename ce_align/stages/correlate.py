"""Correlation of every representational measure with predictivity.

The tests of one table, all measures × all its recordings, are of one family: q is the
false discovery rate over the table. Those of partial correlations are a second family
of the same table. Floors are not tested, and what says the same as another measure of
the same networks is not tested twice. p and q are computed in
`ce_align.metrics.correlation`.

Over several recordings a measure is correlated once more, with networks as units: both
sides are standardised within each recording and averaged over recordings. As all
networks that count have all recordings, that is the mixed model of predictivity with
random intercepts of recordings and of networks: r and t of the measure are the same.
These tests are a family of their own.
"""

import json
import sys
from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt

from ce_align.checks import named_some
from ce_align.config import Spelled, StageConfig
from ce_align.digests import digest_json
from ce_align.errors import ConfigError, DataError
from ce_align.files import read_bytes
from ce_align.metrics.correlation import (
    MIN_NETWORKS,
    Association,
    correlate,
    one_family,
)
from ce_align.results import PROVENANCE, NetworkFacts, Row
from ce_align.stages.comparable import (
    MEASURE_SETTINGS,
    MEASURING,
    RAW_SETTINGS,
    SCORE_SETTINGS,
    comparable,
    of_recording,
    pooled,
)
from ce_align.stages.quantities import quantities
from ce_align.stages.running import Run
from ce_align.stages.same_network import load_rows, resolve_networks
from ce_align.stages.scores import with_ceiling_kinds

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("CorrelateConfig", "CorrelationRow", "correlate_rows", "execute"),
    *("scored_recordings", "shared"),
]

ALGORITHM = "correlation 5"

#: By recording and networks, the numbers of each measure and of the predictivity.
_Tables = dict[tuple[str, ...], "dict[str, pd.Series[float]]"]

#: Two measures whose |r| is nearer to 1 differ in unit, sign and rounding only.
SAME = 1e-9

#: What intervals are over, in rows and tables.
INTERVAL = "networks within objectives"

#: The group of networks whose objective is not known.
UNKNOWN = "unknown"


class CorrelateConfig(StageConfig):
    """Settings of a table of correlations, with all recordings that have scores."""

    stage: ClassVar = "correlate"

    recordings: Annotated[tuple[str, ...], Spelled("--against")] = Field(
        default=(), description="Recording, in place of all that have scores."
    )
    permutations: PositiveInt = Field(
        default=10_000, description="Exchanges of networks behind each p."
    )
    seed: NonNegativeInt = Field(default=0, description="Seed of the resampling.")


class CorrelationRow(Row):
    """One measure against one recording across networks.

    Attributes
    ----------
    recording : that predictivity is of, or ``mean of 4 recordings``, over which both
        sides were averaged, each standardised; these tests are a family of their own
    value : Pearson r across all networks; `low` and `high` its 95 % interval, where all
        networks are of one objective
    within : r after removing each objective's mean, with `within_low`, `within_high`
    held_out_r2 : R² of predicting the networks of each objective by a line through
        those of all others; None for a single objective, or too few networks
    partial : r given λ, too, over `n_partial` networks of known λ, with `partial_low`,
        `partial_high`, and `partial_p` of Student's t; `given` says what it is given.
        None where λ does not vary or too few networks are left, see `note`
    interval : what the intervals are over; None if there is none
    p : of exchanging networks within their objective
    q, partial_q : false discovery rates of `p` and `partial_p` over the table, that is
        all measures and recordings that were correlated together
    networks, network_digests : that were correlated; "" for a digest that is not known
    imported_from : the file of scores that were measured elsewhere
    """

    stage: str = CorrelateConfig.stage
    measure: str
    recording: str
    low: float | None
    high: float | None
    abs_r: float
    r_squared: float
    spearman: float
    within: float | None
    within_low: float | None = None
    within_high: float | None = None
    held_out_r2: float | None = None
    partial: float | None = None
    partial_low: float | None = None
    partial_high: float | None = None
    partial_p: float | None = None
    partial_q: float | None = None
    n_partial: int = 0
    given: str | None = None
    interval: str | None = None
    p: float
    q: float
    n_networks: int
    networks: tuple[str, ...]
    network_digests: tuple[str, ...] = ()
    imported_from: str | None = None


@dataclass(frozen=True, eq=False)
class _Series:
    """A number of each network, by its name."""

    values: "pd.Series[float]"
    digests: dict[str, str]
    origins: dict[str, str]
    files: str | None = None

    @classmethod
    def of(cls, rows: "pd.DataFrame", files: str | None = None) -> "_Series":
        names = [str(name) for name in rows.index]
        known = rows["model_digest"] if "model_digest" in rows else [None] * len(rows)
        digests = {
            n: d for n, d in zip(names, known, strict=True) if isinstance(d, str)
        }
        origins = dict(zip(names, rows["origin"].map(str), strict=True))
        return cls(rows["value"].astype("float64"), digests, origins, files)


def scored_recordings(rows: "pd.DataFrame") -> tuple[str, ...]:
    """Recordings that there are scores against, measured or imported.

    Raises
    ------
    DataError
        If there are no rows of scores, or none of measures.
    """
    columns = set(rows)
    measured = columns & {"views_digest", "ceiling_low"}  # or similar
    if not measured or not {"raw", "recording"} <= columns:
        raise DataError(
            "a correlation needs rows of `ce-align score` (or `import-scores`) and of "
            "`ce-align analyze` or `similarity`; run both for the same networks, or "
            "add --rows"
        )
    scores = rows[rows["metric"] == "predictivity"]
    return tuple(dict.fromkeys(scores["recording"]))


def shared(config: CorrelateConfig) -> Hashable:
    """What configurations have in common that are computed together: all of it."""
    return config


def execute(configs: Sequence[CorrelateConfig], run: Run) -> None:
    """Correlate measures with scores over the rows of the store, and others given."""
    import pandas as pd

    for config in configs:
        against = ", ".join(config.recordings) or "every recording"
        with run.attempt(f"correlation with {against}", config):
            parts = [load_rows(run.store), *map(_read_rows, run.other_rows)]
            selection = pooled(pd.concat(parts, ignore_index=True))
            found = selection.rows
            run.outcome.notes += [n.removesuffix(".") for n in selection.notes]
            known = scored_recordings(found)
            wanted = {name: of_recording(name, known) for name in config.recordings}
            unknown = [name for name, names in wanted.items() if not names]
            if unknown:
                raise ConfigError(
                    f"no scores against {unknown[0]}; there are scores against "
                    f"{', '.join(known)}"
                )
            asked = [name for names in wanted.values() for name in names]
            recordings = tuple(dict.fromkeys(asked or known))
            named = config.model_copy(update={"recordings": recordings})
            run.outcome.rows += correlate_rows(found, named, run)
            # Its rows are of the recordings that were found.
            run.store.clear_failure(config.stage, config)


def _read_rows(path: Path) -> "pd.DataFrame":
    """Rows of another run, as ``--json`` printed them; ``-`` for standard input."""
    import pandas as pd

    try:
        rows = json.loads(sys.stdin.read() if str(path) == "-" else read_bytes(path))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is not a JSON array of rows: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{path} is not a JSON array of rows; make it with --json")
    return pd.DataFrame(rows)


def correlate_rows(
    rows: "pd.DataFrame", config: CorrelateConfig, run: Run
) -> list[CorrelationRow]:
    """Correlate measures with scores over all networks that have both.

    A score and a measure meet if they are of one network, which its digest says: see
    `ce_align.stages.same_network`. It is always computed: it is quick, and depends on
    all rows that there are.

    Parameters
    ----------
    rows : of every stage, see `ce_align.stages.same_network.load_rows`
    config : recordings to correlate with, permutations
    run : where the rows go; its notes say what was left out

    Raises
    ------
    DataError
        If no measure has five networks or more with a score.
    """
    scored_recordings(rows)
    resolved = resolve_networks(_with_stages(rows))
    kept = resolved.rows
    scores = kept[kept["metric"] == "predictivity"]
    notes = resolved.notes(
        *("score", "imported", *MEASURING),
        where=lambda found: (
            found["stage"].isin(MEASURING) | found["recording"].isin(config.recordings)
        ),
    )
    targets: dict[str, _Series] = {}
    for recording in config.recordings:
        targets[recording], found = _scores(scores, recording)
        notes += found
    tables: _Tables = {}
    met_by: dict[str, dict[str, tuple[pd.Series[float], pd.Series[float]]]] = {}
    digests: dict[str, str] = {}
    origins: dict[tuple[str, str], dict[str, str]] = {}
    unusable: dict[str, list[str]] = {}
    measures = kept[kept["stage"].isin(MEASURING)]
    by_metric = {str(name): group for name, group in measures.groupby("metric")}
    for metric in _tested(by_metric):
        for met, group in _meetings(by_metric[metric], tuple(targets)):
            chosen, found = _chosen(group, MEASURE_SETTINGS, metric)
            notes += found
            measured = _Series.of(chosen)
            digests |= measured.digests
            for recording in met:
                target, of_both = targets[recording], f"{metric} × {recording}"
                origins[metric, recording] = measured.origins
                both = [n for n in measured.values.index if n in target.values.index]
                values, scored = measured.values[both], target.values[both]
                reason = _unusable(values, scored)
                if reason:
                    unusable.setdefault(reason, []).append(of_both)
                    continue
                table = tables.setdefault((recording, *both), {recording: scored})
                same = _same_as(values, table, recording)
                if same:
                    notes.append(
                        f"{of_both}: says the same as {same}, and is not tested twice"
                    )
                    continue
                table[metric] = values
                met_by.setdefault(metric, {})[recording] = values, scored
    notes += [f"{named_some(pairs)}: {reason}" for reason, pairs in unusable.items()]
    if not tables:
        raise DataError(
            f"no measure has {MIN_NETWORKS} networks or more with a score: "
            f"{named_some(notes) or 'there are no rows'}; run `ce-align score` and "
            "`ce-align analyze` for the same networks"
        )
    averaged = _averaged(met_by, targets, origins)
    training = {
        name: _Training.of(resolved.facts.get(name, NetworkFacts()))
        for name in sorted({name for _, *names in tables for name in names})
    }
    notes += _training_notes(training)
    associations = [
        *_associate(tables, training, config),
        *_associate(averaged, training, config),
    ]
    made = [
        _row(
            association,
            networks,
            digests,
            training,
            targets[association.target],
            origins[association.measure, association.target],
        )
        for networks, association in associations
    ]
    numbers = [row.model_dump(exclude={*PROVENANCE}) for row in made]
    content = digest_json(numbers)
    config_id = config.fingerprint(rows=content, algorithm=ALGORITHM)
    made = [row.model_copy(update={"config_id": config_id}) for row in made]
    run.keep(config, config_id, made)
    run.outcome.notes += notes
    return made


def _averaged(
    met_by: "Mapping[str, Mapping[str, tuple[pd.Series[float], pd.Series[float]]]]",
    targets: dict[str, _Series],
    origins: dict[tuple[str, str], dict[str, str]],
) -> _Tables:
    """Measures and predictivity over all recordings, of networks that have them all.

    What the averages are called, and where they come from, is added to `targets` and
    `origins`.
    """
    tables: _Tables = {}
    n_recordings = len(targets)
    for metric, of_each in met_by.items():
        both = [
            name
            for name in next(iter(of_each.values()))[0].index
            if all(name in values.index for values, _ in of_each.values())
        ]
        if len(of_each) < 2 or len(both) < MIN_NETWORKS:
            continue
        x, y = (_mean_of(pair[k][both] for pair in of_each.values()) for k in (0, 1))
        if _unusable(x, y):
            continue
        of = [targets[name] for name in of_each]
        name = f"mean of {len(of)} recordings"
        if len(of) < n_recordings:
            name += f": {', '.join(of_each)}"
        files = [one.files for one in of if one.files]
        kinds: dict[str, set[str]] = {}
        for one in of:
            for network, kind in one.origins.items():
                kinds.setdefault(network, set()).update(kind.split("+"))
        targets[name] = _Series(
            y,
            {network: d for one in of for network, d in one.digests.items()},
            {network: "+".join(sorted(every)) for network, every in kinds.items()},
            "; ".join(dict.fromkeys(files)) or None,
        )
        origins[metric, name] = origins[metric, next(iter(of_each))]
        tables.setdefault((name, *both), {name: y})[metric] = x
    return tables


def _mean_of(numbers: "Iterable[pd.Series[float]]") -> "pd.Series[float]":
    """Numbers of the same networks, each standardised, on average."""
    import pandas as pd

    table = pd.concat(list(numbers), axis=1)
    return ((table - table.mean()) / table.std()).mean(axis=1)


def _with_stages(rows: "pd.DataFrame") -> "pd.DataFrame":
    """Rows of a file do not say their stage, but have its columns."""
    views = rows.get("views_digest", rows["metric"].map(lambda _: None))
    stage = rows.get("stage", rows["metric"].map(lambda _: None))
    by_columns = np.where(views.notna(), "analyze", "score")
    return rows.assign(stage=stage.where(stage.notna(), by_columns))


def _meetings(
    measures: "pd.DataFrame", recordings: tuple[str, ...]
) -> "Iterator[tuple[tuple[str, ...], pd.DataFrame]]":
    """Rows of a measure, with the recordings whose scores they meet.

    A similarity to a recording meets the scores with it, any other measure all.
    """
    own = measures.get("recording")
    if own is None or own.isna().all():
        yield recordings, measures
        return
    for name in recordings:
        if (of_one := own == name).any():
            yield (name,), measures[of_one]


def _chosen(
    rows: "pd.DataFrame", settings: Sequence[str], what: str
) -> "tuple[pd.DataFrame, list[str]]":
    """A row of each network, by its name, and what was left out."""
    found = comparable(rows, settings, what, intervals=False)
    notes = [note.removesuffix(".") for note in found.notes]
    return found.rows.set_index("model"), notes


def _scores(scores: "pd.DataFrame", recording: str) -> tuple[_Series, list[str]]:
    """Score of each network, or its raw correlation where there is no ceiling."""
    rows = with_ceiling_kinds(scores[scores["recording"] == recording])
    without = rows["value"].isna().any()
    rows = rows.assign(value=rows["raw"] if without else rows["value"])
    settings = RAW_SETTINGS if without else SCORE_SETTINGS
    chosen, notes = _chosen(rows, settings, recording)
    if without:
        notes.insert(
            0, f"{recording}: no ceiling, so measures meet the raw correlation"
        )
    files = chosen["imported_from"].dropna() if "imported_from" in chosen else ()
    origin = named_some(list(dict.fromkeys(files))) or None
    if origin:
        notes.insert(
            0,
            f"{recording}: scores are imported, from {origin}; {_joined_by(chosen)}",
        )
    return _Series.of(chosen, origin), notes


def _joined_by(imported: "pd.DataFrame") -> str:
    digests = _Series.of(imported).digests
    return "joined by digest where known" if digests else "joined by name"


def _tested(metrics: Collection[str]) -> list[str]:
    """Metrics that are correlated: known ones in their order, then others by name."""
    known = quantities()
    first = [name for name in known if name in metrics and known[name].tested]
    return first + sorted(name for name in metrics if name not in known)


def _same_as(
    values: "pd.Series[float]", table: "Mapping[str, pd.Series[float]]", recording: str
) -> str | None:
    """The measure of a table that differs in unit and sign only, if there is one."""
    for name, others in table.items():
        r = np.corrcoef(values, others)[0, 1]
        if name != recording and abs(r) > 1 - SAME:
            return name
    return None


def _unusable(values: "pd.Series[float]", target: "pd.Series[float]") -> str:
    if len(values) < MIN_NETWORKS:
        return f"{len(values)} networks have both, {MIN_NETWORKS} are needed"
    if np.ptp(values) == 0 or np.ptp(target) == 0:
        return "all networks have the same value"
    return ""


@dataclass(frozen=True)
class _Training:
    """What is known of how a network was trained."""

    objective: str
    weight: float | None

    @classmethod
    def of(cls, facts: NetworkFacts) -> "_Training":
        """Of a network; unknown objectives form one group."""
        return cls(facts.objective or UNKNOWN, facts.equivariance_weight)


def _training_notes(training: Mapping[str, _Training]) -> list[str]:
    unknown = [n for n, known in training.items() if known.objective == UNKNOWN]
    if not unknown:
        return []
    alone = len(unknown) == len(training)
    return [
        f"of unknown objective, taken for one group: {named_some(unknown)}; "
        + (
            "differences between their trainings are in every number"
            if alone
            else "differences between their trainings count as within objectives"
        )
    ]


def _associate(
    tables: _Tables,
    training: Mapping[str, _Training],
    config: CorrelateConfig,
) -> list[tuple[tuple[str, ...], Association]]:
    """Networks and correlation of every measure × recording, as one family of tests."""
    rng = np.random.default_rng(config.seed)
    among: list[tuple[str, ...]] = []
    found: list[Association] = []
    for (recording, *networks), columns in tables.items():
        measures = {n: v.to_numpy() for n, v in columns.items() if n != recording}
        weights = [training[name].weight for name in networks]
        associations = correlate(
            measures,
            {recording: columns[recording].to_numpy()},
            [training[name].objective for name in networks],
            rng,
            covariate=[np.nan if weight is None else weight for weight in weights],
            n_permutations=config.permutations,
        )
        found += associations
        among += [tuple(networks)] * len(associations)
    return list(zip(among, one_family(found), strict=True))


def _row(
    found: Association,
    networks: tuple[str, ...],
    digests: Mapping[str, str],
    training: Mapping[str, _Training],
    target: _Series,
    measured_on: Mapping[str, str],
) -> CorrelationRow:
    within, partial = found.within, found.partial
    both = (target.origins, measured_on)
    origins = {kinds[name] for kinds in both for name in networks}
    return CorrelationRow(
        model=f"{found.n_networks} networks",
        metric="correlation",
        value=found.pearson,
        config_id="",
        origin="+".join(sorted(origins)),
        measure=found.measure,
        recording=found.target,
        low=_finite(found.low),
        high=_finite(found.high),
        abs_r=found.abs_pearson,
        r_squared=found.r_squared,
        spearman=found.spearman,
        within=_finite(within.r),
        within_low=_finite(within.low),
        within_high=_finite(within.high),
        held_out_r2=_finite(found.held_out_r2),
        partial=_finite(partial.r),
        partial_low=_finite(partial.low),
        partial_high=_finite(partial.high),
        partial_p=_finite(partial.p),
        partial_q=_finite(found.partial_q),
        n_partial=found.n_partial,
        given=found.given or None,
        interval=INTERVAL if np.isfinite([within.low, partial.low]).any() else None,
        p=found.p,
        q=found.q,
        n_networks=found.n_networks,
        networks=networks,
        network_digests=tuple(
            digests.get(name) or target.digests.get(name, "") for name in networks
        ),
        imported_from=target.files,
        note=_note(found, [training[name] for name in networks], networks),
    )


def _note(
    found: Association, training: Sequence[_Training], networks: Sequence[str]
) -> str | None:
    """What must be known to use these numbers."""
    parts = []
    pairs = list(zip(networks, training, strict=True))
    unknown = [name for name, known in pairs if known.objective == UNKNOWN]
    if unknown:
        parts.append(f"one group of unknown objective: {named_some(unknown)}")
    if not np.isfinite(found.within.low):
        parts.append("too few networks, or values, for an interval within objectives")
    without = [name for name, known in pairs if known.weight is None]
    if not found.given:
        varies = len({known.weight for known in training} - {None}) > 1
        parts.append(
            "no correlation given λ: "
            + ("too few networks of known λ" if varies else "λ is unknown or the same")
        )
    elif not np.isfinite(found.partial.r):
        parts.append("no correlation given λ: nothing varies at equal λ")
    else:
        if without:
            parts.append(f"given λ without {named_some(without)}, of unknown λ")
        if not np.isfinite(found.partial.low):
            parts.append("too few networks for an interval given λ")
        if "each λ" not in found.given:
            parts.append(
                "a step along λ, which no curve of λ² follows, is in r given λ"
            )
    return "; ".join(parts) or None


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
