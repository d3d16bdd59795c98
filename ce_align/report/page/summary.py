"""What the rows say in a few sentences, and what a reader must be warned of."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.metrics.correlation import least_r
from ce_align.metrics.inference import benjamini_hochberg, sign_flip_p
from ce_align.report.page.stored import Source
from ce_align.report.select import with_networks
from ce_align.report.style import measure_name, minus
from ce_align.stages.comparable import pooled
from ce_align.stages.same_network import Resolved

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

__all__ = ["findings", "warnings_of"]

#: Correlations over fewer networks say little.
FEW_NETWORKS = 10
#: What holds after correction has a smaller q.
LEVEL = 0.05
#: Tests of pairs stand together if they are of the same.
FAMILY = ["recording", "regression", "interval"]
#: As many notes of rows are shown.
MOST_NOTES = 8
#: Notes of rows that are no warning, or that the summary gives by itself.
TOLD = re.compile(r"^\d+ centroids$|is above 1\b")


class Finding(NamedTuple):
    """A number in large letters, with its label, its detail, and the row it is from."""

    label: str
    text: str
    detail: str
    source: object = None


def findings(rows: "pd.DataFrame", labels: Mapping[str, str]) -> list[Finding]:
    """What holds after correction, and the highest score on every recording.

    Parameters
    ----------
    rows : of all stages
    labels : of networks by name, `Inputs.labels`
    """
    rows = pooled(rows).rows
    scores, pairs = list(_scores(rows)), _compared(rows)
    return [
        *_correlations(rows),
        *_gains(scores),
        *_comparisons(pairs, labels),
        *_overlaps(rows, labels),
        *_highest_scores(scores, pairs, labels),
    ]


def _stage(rows: "pd.DataFrame", name: str) -> "pd.DataFrame":
    found = rows[(rows["stage"] == name) & rows["value"].notna()]
    return found.sort_values("created", kind="stable")


def _span(numbers: "pd.Series[Any]") -> str:
    """``12``, or ``9 to 12`` where they differ."""
    fewest, most = int(numbers.min()), int(numbers.max())
    return str(most) if fewest == most else f"{fewest} to {most}"


def _scores(rows: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Latest scores of each recording, of its most frequent regression."""
    found = _stage(rows, "score")
    for recording, group in (
        found.groupby("recording", sort=False) if len(found) else ()
    ):
        same = group[group["regression"] == group["regression"].mode().iloc[0]]
        yield str(recording), same.drop_duplicates(["model", "layer"], keep="last")


def _highest_scores(
    scores: "Sequence[tuple[str, pd.DataFrame]]",
    pairs: "pd.DataFrame",
    labels: Mapping[str, str],
) -> Iterator[Finding]:
    for recording, group in scores:
        best = group.iloc[int(group["value"].astype(float).argmax())]
        n = group["model"].nunique()
        among = ""
        if n > 1:
            others = set(group["model"]) - {best["model"]}
            others -= _compared_with(best, pairs)
            among = f"; highest of {n} networks"
            if len(others) == n - 1:
                among += ", whose differences are not tested"
            elif others:
                untested = named_some(sorted(labels[name] for name in others))
                among += f"; its lead over {untested} is not tested"
        # One fixed split has none.
        known = best["error"] is not None and best["error"] == best["error"]
        error = f" ± {best['error']:.3f} over splits" if known else ""
        yield Finding(
            f"{'Highest score' if n > 1 else 'Score'} on {recording}",
            f"{best['value']:.4f}",
            f"{labels[best['model']]}, {best['layer']}: raw r {best['raw']:.3f}"
            f"{error}, ceiling {best['ceiling']:.3f}{among}",
            best.get("source"),
        )


def _gains(scores: "Sequence[tuple[str, pd.DataFrame]]") -> Iterator[Finding]:
    """Mean score at λ > 0 minus that at λ = 0, over trainings, if that is tested."""
    pairs: dict[str, NDArray[np.float64]] = {}
    for recording, group in scores:
        same = group[group["layer"] == group["layer"].mode().iloc[0]]
        known = with_networks(same).rows
        trained = ["recipe", "objective", "network_seed"]
        gains: list[float] = []
        for _, own in known.groupby(trained, dropna=False):
            zero = own["weight"] == 0
            if zero.any() and not zero.all():
                means = own["value"].astype(float).groupby(zero).mean()
                gains.append(means[False] - means[True])
        if gains:
            pairs[recording] = np.array(gains)
    if not pairs:
        return
    rng = np.random.default_rng(0)
    tests = [sign_flip_p(x, rng) if len(x) > 1 else 1.0 for x in pairs.values()]
    q_values = dict(zip(pairs, benjamini_hochberg(tests), strict=True))
    label = "Score at λ > 0 minus λ = 0"
    untold = []
    for recording, each in pairs.items():
        q, mean = q_values[recording], minus(f"{each.mean():+.4f}")
        n, between = f"n = {len(each)}", minus(_t_interval(each))
        if q < LEVEL:
            yield Finding(
                f"{label}, {recording}",
                mean,
                f"mean over all λ > 0; {mean}{between} over {n} trainings "
                f"(objective × seed), sign-flip test, q = {q:.2g}",
            )
        else:
            untold.append(f"{recording} {mean}{between} ({n}, q = {q:.2g})")
    if untold:
        yield Finding(
            label,
            "Not told from 0",
            "mean over all λ > 0, over n trainings (objective × seed), sign-flip test: "
            + "; ".join(untold),
        )


def _t_interval(gains: "NDArray[np.float64]") -> str:
    from scipy.stats import ttest_1samp

    if len(gains) < 2 or np.ptp(gains) < 1e-12:  # no spread to tell of
        return ""
    low, high = ttest_1samp(gains, 0).confidence_interval()
    return f" [{low:+.4f}, {high:+.4f}]"


def _compared(rows: "pd.DataFrame") -> "pd.DataFrame":
    """The latest comparison of each pair, of every regression and kind of interval."""
    found = _stage(rows, "compare")
    found = found[found["metric"] == "difference_raw"]
    if found.empty:
        return found
    # Either of two networks may have been named first, and any of their layers taken.
    pairs = np.sort(found[["model", "other"]].astype(str).to_numpy(), axis=1)
    ends = {"one": pairs[:, 0], "another": pairs[:, 1]}
    latest = found.assign(**ends).drop_duplicates([*FAMILY, *ends], keep="last")
    return latest.drop(columns=[*ends])


def _compared_with(best: "pd.Series[Any]", pairs: "pd.DataFrame") -> set[str]:
    """The networks that one was compared with, by the regression of its score."""
    if pairs.empty:
        return set()
    same = pairs[
        (pairs["recording"] == best["recording"])
        & (pairs["regression"] == best["regression"])
    ]
    ends = same[["model", "other"]].astype(str).to_numpy()
    return set(ends[(ends == best["model"]).any(axis=1)].ravel()) - {best["model"]}


def _comparisons(pairs: "pd.DataFrame", labels: Mapping[str, str]) -> Iterator[Finding]:
    """Which networks predict a recording better, of the pairs that were compared."""
    groups = pairs.groupby(FAMILY, sort=False) if len(pairs) else ()
    for (recording, regression, over), group in groups:
        # All pairs are one family of tests, whenever they were compared.
        family = group.assign(q=benjamini_hochberg(group["p"].astype(float)))
        n = " and ".join(
            f"{_span(family[f'n_{what}'])} {what}" for what in ("stimuli", "neuroids")
        )
        yield _told_apart(
            family,
            labels,
            f"Predictivity of {recording}, networks in pairs",
            "raw r",
            f"{'' if regression == 'pls' else f'{regression}, '}over {over} ({n})",
        )


def _overlaps(rows: "pd.DataFrame", labels: Mapping[str, str]) -> Iterator[Finding]:
    """Which networks explain more than others, of the pairs that were compared."""
    found = _stage(rows, "overlap")
    if "p" not in found or found["p"].isna().all():
        return
    pair = ["model", "other", "recording"]
    found = found[found["p"].notna()].drop_duplicates(pair, keep="last")
    yield _told_apart(
        found.assign(q=benjamini_hochberg(found["p"])),
        labels,
        "Explained variance of networks, in pairs",
        "R²",
        "sign-flip test over neuroids",
    )


def _told_apart(
    family: "pd.DataFrame", labels: Mapping[str, str], label: str, what: str, how: str
) -> Finding:
    """How many pairs of one family of tests differ, and the largest difference."""
    held = family[family["q"].astype(float) < LEVEL]
    if held.empty:
        first, n = family.iloc[0], len(family)
        which = f"{labels[first['model']]} and {labels[first['other']]}"
        return Finding(
            label,
            "Not told apart",
            f"{which if n == 1 else counted(n, 'pair')}, {how}, smallest q = "
            f"{family['q'].min():.2g}",
        )
    best = held.iloc[int(held["value"].astype(float).abs().argmax())]
    low, high, value = (minus(f"{best[x]:+.4f}") for x in ("low", "high", "value"))
    return Finding(
        f"{label}: {len(held)} of {len(family)} told apart; the largest difference",
        value,
        f"{what} of {labels[best['model']]} minus that of {labels[best['other']]} on "
        f"{best['recording']}: {value} [{low}, {high}], {how}, q = {best['q']:.2g}",
        best.get("source"),
    )


def _correlations(rows: "pd.DataFrame") -> Iterator[Finding]:
    """The strongest correlation that holds after correction, if one does."""
    found = _stage(rows, "correlate")
    if found.empty:
        return
    # The last table is one family of tests.
    family = found[found["config_id"] == found["config_id"].iloc[-1]]
    n_tests = len(family)
    held = family[family["q"].astype(float) < LEVEL]
    if held.empty:
        n = int(family["n_networks"].max())
        yield Finding(
            "Measures and predictivity",
            f"Nothing can be told at n = {n}",
            f"no correlation of {n_tests} tests holds after correction (smallest q = "
            f"{family['q'].astype(float).min():.2g}); with {n} networks even a single "
            f"test cannot tell |r| below {least_r(n):.2f} from 0",
        )
        return
    best = held.iloc[int(held["abs_r"].astype(float).argmax())]
    within = ""
    bounds = best.get("within_low"), best.get("within_high")
    if all(bound is not None and bound == bound for bound in bounds):
        r, low, high = (minus(f"{x:.2f}") for x in (best["within"], *bounds))
        within = f"; {r} [{low}, {high}] within objectives"
    yield Finding(
        f"{len(held)} of {n_tests} correlations hold after correction; the strongest",
        minus(f"r = {best['value']:.2f}"),
        f"{measure_name(str(best['measure']))} × {best['recording']}, "
        f"q = {best['q']:.2g}, n = {best['n_networks']:.0f} networks{within}",
        best.get("source"),
    )


def warnings_of(networks: Resolved, sources: Sequence[Source]) -> list[str]:
    """What limits the numbers, in sentences that begin with a word and a colon."""
    rows = pooled(networks.rows).rows
    return [
        *(f"Networks: {note}" for note in networks.notes()),
        *_origins(rows),
        *_few(rows),
        *_differing(rows),
        *_undefined(rows),
        *_noted(rows),
        *_unpaired(rows),
        *_computed_with(sources),
    ]


def _origins(rows: "pd.DataFrame") -> Iterator[str]:
    for origin, what in (
        ("simulated", "from procedural images or a simulated area, no animal"),
        ("imported", "from a file of the user, whose origin is not known here"),
    ):
        if n := sum(origin in str(found).split("+") for found in rows["origin"]):
            share = "All" if n == len(rows) else f"{n} of {len(rows)}"
            yield f"{origin.capitalize()}: {share} rows are {what}."


def _few(rows: "pd.DataFrame") -> Iterator[str]:
    found = _stage(rows, "correlate")
    if found.empty or int(found["n_networks"].min()) >= FEW_NETWORKS:
        return
    yield (
        f"Few networks: Correlations are over {_span(found['n_networks'])} networks; "
        "intervals are wide, and chance explains large values."
    )


def _differing(rows: "pd.DataFrame") -> Iterator[str]:
    measured = _stage(rows, "analyze")
    n = measured.groupby("metric")["n_points"].nunique() if len(measured) else None
    if n is not None and len(several := list(n.index[n > 1])):
        yield (
            f"Differing n: The number of points differs within {named_some(several)}; "
            "bias depends on it, so these values must not be compared."
        )
    for stage, key in (("score", "recording"), ("analyze", "images")):
        found = rows[rows["stage"] == stage]
        if len(found):
            n = found.groupby(key)[f"{key}_digest"].nunique()
            for name in n.index[n > 1]:
                yield f"Differing content: The {key} {name} had {n[name]} contents."


def _undefined(rows: "pd.DataFrame") -> Iterator[str]:
    without = rows[rows["value"].isna()]
    scores = without[without["stage"] == "score"]
    for low, why in (
        (False, "No ceiling: Without repetitions {} has raw values only."),
        (True, "No score: The ceiling of {} is not above 0; raw values only."),
    ):
        part = scores[(scores["ceiling"] <= 0) == low] if len(scores) else scores
        if len(part):
            yield why.format(named_some(list(dict.fromkeys(part["recording"]))))
    others = without[without["stage"] != "score"]
    if len(others):
        names = named_some(list(dict.fromkeys(others["metric"])))
        yield f"Not defined: {len(others)} rows have no value ({names})."
    if n_above := int((_stage(rows, "score")["value"].astype(float) > 1).sum()):
        yield (
            f"Above the ceiling: {n_above} scores exceed 1, for a ceiling is an "
            "estimate; they are shown as they are."
        )


def _noted(rows: "pd.DataFrame") -> Iterator[str]:
    """What rows say of themselves, the most frequent first."""
    noted = rows["note"].dropna() if "note" in rows else ()
    counts = Counter(
        one for note in noted for one in str(note).split("; ") if not TOLD.search(one)
    )
    for note, n in counts.most_common(MOST_NOTES):
        yield f"Noted: {n} of {len(rows)} rows: {note}."
    if len(counts) > MOST_NOTES:
        yield f"Noted: {len(counts) - MOST_NOTES} more notes are in the rows."


def _unpaired(rows: "pd.DataFrame") -> Iterator[str]:
    scored, measured = (
        set(rows["model"][rows["stage"] == stage]) for stage in ("score", "analyze")
    )
    if scored and measured and scored != measured:
        pairs = (("measures", scored - measured), ("scores", measured - scored))
        parts = [f"no {what} of {named_some(sorted(of))}" for what, of in pairs if of]
        yield f"Incomplete: There are {' and '.join(parts)}."


def _computed_with(sources: Sequence[Source]) -> Iterator[str]:
    versions = {v for s in sources for v in s.facts("version").split(", ") if v}
    machines = {tuple(sorted(s.environment.items())) for s in sources}
    if len(versions) > 1:
        yield f"Several versions: Rows are of ce_align {', '.join(sorted(versions))}."
    if len(machines) > 1:
        yield (
            f"Several environments: Rows are of {len(machines)} machines or sets of "
            "package versions; see provenance."
        )
