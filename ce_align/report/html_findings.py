"""What the rows say in a few sentences, and what a reader must be warned of."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ce_align.checks import named_some
from ce_align.report.html_sources import Source
from ce_align.report.measure_names import measure_name
from ce_align.report.origins import origins_of
from ce_align.report.selection import with_networks
from ce_align.report.style import objective_label, objective_order
from ce_align.stages.same_network import Resolved

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Finding", "findings", "warnings_of"]

#: Correlations over fewer networks say little.
FEW_NETWORKS = 10
#: As many notes of rows are shown.
MOST_NOTES = 8


@dataclass(frozen=True)
class Finding:
    """A number with its words: ``label``, large ``text``, and ``detail``.

    Attributes
    ----------
    label, text, detail : words
    value : the number that `text` shows, to find its row; None for a count
    names : what its row is told apart by
    """

    label: str
    text: str
    detail: str
    value: float | None = None
    names: tuple[str, ...] = ()


def findings(rows: "pd.DataFrame") -> list[Finding]:
    """The best score on every recording, the gain of λ > 0, the closest measure."""
    return [*_best_scores(rows), *_gains(rows), *_closest(rows)]


def _stage(rows: "pd.DataFrame", name: str) -> "pd.DataFrame":
    found = rows[rows["stage"] == name]
    return found[found["value"].notna()].sort_values("created", kind="stable")


def _scores(rows: "pd.DataFrame") -> "Iterator[tuple[str, pd.DataFrame]]":
    """Latest scores of each recording, of its most frequent regression."""
    found = _stage(rows, "score")
    if found.empty:
        return
    for recording, group in found.groupby("recording", sort=False):
        usual = group["regression"].mode().iloc[0]
        same = group[group["regression"] == usual]
        yield str(recording), same.drop_duplicates(["model", "layer"], keep="last")


def _best_scores(rows: "pd.DataFrame") -> Iterator[Finding]:
    for recording, group in _scores(rows):
        best = group.iloc[int(group["value"].astype(float).argmax())]
        n = group["model"].nunique()
        among = f", of {n} networks" if n > 1 else ""
        yield Finding(
            f"{'Best' if n > 1 else 'Score'} on {recording}",
            f"{best['value']:.4f}",
            f"{best['model']} {best['layer']}{among}; raw r {best['raw']:.3f} ± "
            f"{best['error']:.3f}, ceiling {best['ceiling']:.3f}",
            float(best["value"]),
            (str(best["model"]), recording),
        )


def _gains(rows: "pd.DataFrame") -> Iterator[Finding]:
    """How many objectives predict better at some λ > 0 than at λ = 0."""
    for recording, group in _scores(rows):
        same = group[group["layer"] == group["layer"].mode().iloc[0]]
        known = with_networks(same).rows
        if known.empty:
            continue
        gains = {}
        for objective in objective_order(known["objective"]):
            own = known[known["objective"] == objective]
            mean = own.groupby("weight")["value"].mean()
            positive = mean[mean.index > 0]
            if 0.0 in mean.index and len(positive):
                gains[objective] = (positive.max() - mean[0.0], positive.idxmax())
        if not gains:
            continue
        better = sum(gain > 0 for gain, _ in gains.values())
        shown = ", ".join(
            f"{objective_label(name)} {_minus(f'{gain:+.4f}')} at λ = {weight:g}"
            for name, (gain, weight) in gains.items()
        )
        yield Finding(
            f"λ > 0 against λ = 0, {recording}",
            f"{better} of {len(gains)}",
            f"objectives predict better at their best λ > 0, without a test: {shown}",
        )


def _closest(rows: "pd.DataFrame") -> Iterator[Finding]:
    found = _stage(rows, "correlate")
    if found.empty:
        return
    latest = found.drop_duplicates(["measure", "recording"], keep="last")
    best = latest.iloc[int(latest["abs_r"].astype(float).argmax())]
    within = ""
    bounds = best.get("within_low"), best.get("within_high")
    if all(bound is not None and bound == bound for bound in bounds):
        shown = [_minus(f"{number:.2f}") for number in (best["within"], *bounds)]
        within = f", {shown[0]} [{shown[1]}, {shown[2]}] within objectives"
    yield Finding(
        "Measure closest to predictivity",
        _minus(f"r = {best['value']:.2f}"),
        f"{measure_name(str(best['measure']))} × {best['recording']}{within}, "
        f"q = {best['q']:.2g}, {best['n_networks']:.0f} networks",
        float(best["value"]),
        (str(best["measure"]), str(best["recording"])),
    )


def _minus(text: str) -> str:
    """A number with the sign that is as wide as a plus."""
    return text.replace("-", "−")


def warnings_of(networks: Resolved, sources: Sequence[Source]) -> list[str]:
    """What limits the numbers, in sentences."""
    rows = networks.rows
    return [
        *(f"Networks: {note}" for note in networks.notes()),
        *_origins(rows, sources),
        *_few(rows),
        *_differing(rows),
        *_undefined(rows),
        *_noted(rows),
        *_unpaired(rows),
        *_computed_with(sources),
    ]


def _origins(rows: "pd.DataFrame", sources: Sequence[Source]) -> Iterator[str]:
    # The rows of a training do not name its images, its settings do.
    images = {s.config_id: s.config.get("images") for s in sources}
    found = origins_of(rows.assign(pretraining=rows["config_id"].map(images)))
    for origin, what in (
        ("simulated", "from procedural images or a simulated area, no animal"),
        ("imported", "from a file of the user, whose origin is not known here"),
    ):
        n = int((found == origin).sum())
        if n:
            share = "All" if n == len(rows) else f"{n} of {len(rows)}"
            yield f"{origin.capitalize()}: {share} rows are {what}."


def _few(rows: "pd.DataFrame") -> Iterator[str]:
    found = _stage(rows, "correlate")
    fewest = FEW_NETWORKS if found.empty else int(found["n_networks"].min())
    if fewest < FEW_NETWORKS:
        yield (
            f"Few networks: Correlations are over {fewest} networks; intervals are "
            "wide, and chance explains large values."
        )


def _differing(rows: "pd.DataFrame") -> Iterator[str]:
    measured = _stage(rows, "analyze")
    if len(measured):
        n = measured.groupby("metric")["n_points"].nunique()
        several = list(n.index[n > 1])
        if several:
            yield (
                "Differing n: The number of points differs within "
                f"{named_some(several)}; bias depends on it, so these values must not "
                "be compared."
            )
    for stage, key, digest in (
        ("score", "recording", "recording_digest"),
        ("analyze", "images", "images_digest"),
    ):
        found = rows[rows["stage"] == stage]
        if len(found):
            n = found.groupby(key)[digest].nunique()
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
    found = _stage(rows, "score")
    above = found[found["value"].astype(float) > 1] if len(found) else found
    if len(above):
        yield (
            f"Above the ceiling: {len(above)} scores exceed 1, for a ceiling is an "
            "estimate; they are shown as they are."
        )


def _noted(rows: "pd.DataFrame") -> Iterator[str]:
    """What rows say of themselves, the most frequent first."""
    if "note" not in rows:
        return
    counts: dict[str, int] = {}
    for note in rows["note"].dropna():
        for one in str(note).split("; "):
            counts[one] = counts.get(one, 0) + 1
    notes = sorted(counts, key=lambda one: -counts[one])
    for note in notes[:MOST_NOTES]:
        yield f"Noted: {counts[note]} of {len(rows)} rows: {note}."
    if len(notes) > MOST_NOTES:
        yield f"Noted: {len(notes) - MOST_NOTES} more notes are in the rows."


def _unpaired(rows: "pd.DataFrame") -> Iterator[str]:
    models = {
        stage: set(rows["model"][rows["stage"] == stage])
        for stage in ("score", "analyze")
    }
    scored, measured = models["score"], models["analyze"]
    if scored and measured and scored != measured:
        parts = [
            f"no {what} of {named_some(sorted(names))}"
            for names, what in (
                (scored - measured, "measures"),
                (measured - scored, "scores"),
            )
            if names
        ]
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
