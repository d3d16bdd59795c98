"""Which rows may stand side by side: one rule of correlations, tables, figures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import counted, named_some
from ce_align.stages.scores import BEST

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("CHOOSING", "MEASURE_SETTINGS", "MEASURING", "RAW_SETTINGS", "SCORE_SETTINGS"),
    *("TIME_SETTINGS", "TRANSFER_SETTINGS"),
    *(
        "Selection",
        "algorithm_of",
        "comparable",
        "interval_over",
        "of_recording",
        "one_interval",
    ),
    "pooled",
]

#: Regression from neuroids to a network's units.
REVERSE = "reverse_pls"
#: Stages of numbers that may go along with predictivity.
MEASURING = ("analyze", "similarity")
#: Rows of one measure are comparable only if these agree; of a similarity, `method`,
#: and the recording.
MEASURE_SETTINGS = (
    *("views_digest", "images_digest", "n_points", "n_comparisons"),
    *("recording_digest", "region", "method", "algorithm"),
)
#: Raw correlations with one recording are comparable only if these agree.
RAW_SETTINGS = (
    *("recording_digest", "region", "regression", "n_splits", "seed", "algorithm"),
)
#: And raw correlations at two moments: the responses are others in each bin.
TIME_SETTINGS = tuple(name for name in RAW_SETTINGS if name != "recording_digest")
#: And scores, which are relative to a ceiling.
SCORE_SETTINGS = (*RAW_SETTINGS, "ceiling_kind")
#: Accuracies on one data set are comparable only if these agree.
TRANSFER_SETTINGS = ("n_train", "n_test", "algorithm")

#: What chooses a layer, in the algorithm of a result: its number is computed alike.
CHOOSING = "best layer"

#: What intervals are over, where the word in the row says too little: each is a kind
#: of its own. All others are over what images and classes were drawn from. The last
#: two are of release 0.1.
INTERVALS = {
    "comparisons": "comparisons, as if independent (the paper's)",
    "bootstrap": "images or classes, their reference held fixed",
    "runs": "runs, as if independent",
}
POPULATION = "images or classes, as if drawn anew"

WORDS = {"n_points": "number of points", "n_comparisons": "number of comparisons"}
WORDS |= {"n_splits": "number of splits"}


@dataclass(frozen=True, eq=False)
class Selection:
    """Rows to show.

    Attributes
    ----------
    rows : the rows that were kept
    notes : what was left out, and why
    """

    rows: "pd.DataFrame"
    notes: tuple[str, ...] = ()

    def then(
        self, choose: "Callable[..., Selection]", *settings: Any, **named: Any
    ) -> "Selection":
        """What `choose` keeps of the rows, with its notes after those of before."""
        found = choose(self.rows, *settings, **named)
        return Selection(found.rows, (*self.notes, *found.notes))


def algorithm_of(document: Mapping[str, Any]) -> str | None:
    """Versions of what computed a stored result; None if it does not say.

    Releases raise them when numbers change; that of choosing the layer is left out.
    """
    parts = str(document.get("content", {}).get("algorithm", "")).split(", ")
    return ", ".join(one for one in parts if not one.startswith(CHOOSING)) or None


def pooled(rows: "pd.DataFrame") -> Selection:
    """Scores of all animals together, one window a recording; other rows as they are.

    Reverse regressions, from neuroids to units, are no predictivity of the brain: they
    stand only where there are no others. A recording of several regions becomes one
    each, called ``NAME, REGION``. Of several windows in time the widest counts; if
    there are only bins, none does.
    """
    import pandas as pd

    notes = []
    if "animal" in rows:
        rows = rows[rows["animal"].isna()]
    if not {"recording", "region"} <= set(rows):
        return Selection(rows)
    if "regression" in rows:
        reverse = rows["regression"] == REVERSE
        forward = rows["stage"].eq("score") & ~reverse
        left = reverse & rows["recording"].isin(set(rows["recording"][forward]))
        for name, n in rows["recording"][left].value_counts(sort=False).items():
            notes.append(f"{name}: {counted(n, 'row')} of {REVERSE} left out.")
        rows = rows[~left]
    n_regions = rows.groupby("recording")["region"].transform("nunique")
    several = (n_regions > 1) & rows["region"].notna()
    parts = zip(rows["recording"], rows["region"], several, strict=True)
    names = [f"{name}, {region}" if many else name for name, region, many in parts]
    rows = rows.assign(recording=names)
    if "time_start" not in rows:
        return Selection(rows, tuple(notes))
    edges = rows[["time_start", "time_end"]].apply(pd.to_numeric, errors="coerce")
    width = edges["time_end"] - edges["time_start"]
    kept = pd.Series(True, rows.index)
    for name, of_one in edges[width.notna()].groupby(rows["recording"]):
        windows = of_one.drop_duplicates()
        sizes = windows["time_end"] - windows["time_start"]
        widest = sizes.max()
        if len(windows) == 1:
            continue
        only_bins = int((sizes == widest).sum()) > 1
        narrower = of_one.index[only_bins | (width[of_one.index] < widest)]
        kept[narrower] = False
        why = "the widest counts"
        if only_bins:
            why = "score a window, such as --time 70:170"
        notes.append(
            f"{name}: {_rows(~kept[of_one.index])} of {len(windows)} time windows left "
            f"out; {why}."
        )
    return Selection(rows[kept], tuple(notes))


def of_recording(wanted: str, names: Sequence[str]) -> list[str]:
    """Of names that `pooled` gives, those of a recording: its own, or its regions'."""
    return [n for n in names if wanted in (n, n.rpartition(", ")[0])]


def comparable(
    rows: "pd.DataFrame",
    settings: Sequence[str],
    what: str,
    keys: Sequence[str] = (),
    *,
    intervals: bool = True,
) -> Selection:
    """One row a network, its latest, of the settings that most networks share.

    Of scores it is that of all neuroids, whatever their animal. Of several layers it is
    the one that most networks have, or else the best one chosen by other images, or
    else the first that was measured.

    Of settings that equally many share, those of the latest row count. What is not
    known of a setting is one more value that it can have.

    Parameters
    ----------
    rows : of one measure
    settings : columns in which rows must agree; those that are absent are ignored
    what : the measure, for the notes
    keys : columns of which each value has a row of its own, beside the network
    intervals : whether intervals are shown, which must then be of one kind
    """
    import pandas as pd

    if rows.empty:
        return Selection(rows)
    notes = []
    if "animal" in rows:  # of all animals together
        rows = rows[rows["animal"].isna()]
    rows = rows.assign(value=pd.to_numeric(rows["value"], errors="coerce"))
    empty = ~np.isfinite(rows["value"].to_numpy(np.float64))
    if empty.any():
        lost = sorted(set(rows["model"][empty]) - set(rows["model"][~empty]))
        names = lost or list(dict.fromkeys(rows["model"][empty]))
        notes.append(f"{what}: no value of {named_some(names)}.")
    rows = rows[~empty].sort_values("created", kind="stable")
    shared = [name for name in settings if name in rows]
    if shared and len(rows):
        known = rows[shared].astype(object).where(rows[shared].notna(), "unknown")
        settled = known.astype(str).agg("\n".join, axis=1)
        agrees = settled == _most_shared(settled, rows["model"])
        if not agrees.all():
            differing = [name for name in shared if known[name].nunique() > 1]
            note = f"{what}: {_rows(~agrees)} of another "
            note += f"{' or '.join(map(_plain, differing))} left out"
            if "regression" in differing:
                note += f"; {known['regression'][agrees].iloc[0]} is shown"
            again = " Ask for all of them again." if "algorithm" in differing else ""
            notes.append(f"{note}.{again}")
            rows = rows[agrees]
    if "layer" in rows and "layer" not in keys:
        found = _one_layer(rows, what)
        rows, notes = found.rows, [*notes, *found.notes]
    found = one_interval(rows, what) if intervals else Selection(rows)
    rows, notes = found.rows, [*notes, *found.notes]
    later = rows.duplicated(["model", *keys], keep="last")
    if later.any():
        notes.append(
            f"{what}: {_rows(later)} replaced by later ones of the same network."
        )
    # By name: neither what is drawn nor what is resampled must depend on the order in
    # which rows were written.
    return Selection(rows[~later].sort_values("model", kind="stable"), tuple(notes))


def one_interval(rows: "pd.DataFrame", what: str) -> Selection:
    """Rows whose intervals are of the kind that most networks have, or that have none.

    Parameters
    ----------
    rows : of one panel, the latest last
    what : the panel, for the notes
    """
    if rows.empty or "interval" not in rows:
        return Selection(rows)
    kinds = rows["interval"].map(_kind_of, na_action="ignore")
    there = kinds.notna()
    if kinds[there].nunique() < 2:
        return Selection(rows)
    chosen = _most_shared(kinds[there], rows["model"][there])
    shown = kinds == chosen
    others = named_some(list(dict.fromkeys(kinds[there & ~shown])))
    kept = rows[shown | ~there]
    lost = sorted(set(rows["model"]) - set(kept["model"]))
    note = (
        f"{what}: intervals are over {chosen}; {_rows(there & ~shown)} "
        f"with intervals over {others} left out"
    )
    return Selection(kept, (f"{note}: {named_some(lost)}." if lost else f"{note}.",))


def interval_over(word: str) -> str:
    """What an interval is over, from the column ``interval``, as readers are told."""
    return INTERVALS.get(word, word)


def _kind_of(interval: str) -> str:
    return INTERVALS.get(interval, POPULATION)


def _most_shared(groups: "pd.Series[str]", models: "pd.Series[str]") -> str:
    """The group of most networks; of equals the one with the latest row."""
    sizes = models.groupby(groups).nunique()
    best = groups[groups.isin(sizes.index[sizes == sizes.max()])]
    return str(best.iloc[-1])


def _one_layer(rows: "pd.DataFrame", what: str) -> Selection:
    """Rows at one layer of each network; the latest are the last."""
    stated = rows[rows["layer"] != BEST]
    counts = stated.groupby("model")["layer"].nunique()
    several = list(counts.index[counts > 1])
    # Of a network with one layer the best one is that, or stands beside it.
    kept = dict(zip(stated["model"], stated["layer"], strict=True))
    shared = stated.groupby("layer")["model"].nunique()
    # Of equally common ones the last, which is nearest to IT.
    common = sorted(shared.index[shared == shared.max()])[-1] if several else None
    told: dict[str, list[str]] = {}
    for name in several:
        own = rows["layer"][rows["model"] == name]
        if common in set(own):
            kept[name], how = common, f"of several layers, {common} is shown"
        elif BEST in set(own):
            kept[name], how = BEST, "the best layer, chosen by other images, is shown"
        else:
            kept[name] = own.iloc[0]
            how = f"of several layers, {kept[name]}, the first measured, is shown"
        told.setdefault(how, []).append(name)
    notes = [f"{what}: {how}: {named_some(names)}." for how, names in told.items()]
    chosen = rows["model"].map(kept)
    return Selection(rows[chosen.isna() | (rows["layer"] == chosen)], tuple(notes))


def _rows(which: "pd.Series[bool]") -> str:
    n = int(which.sum())
    return f"{n} row" if n == 1 else f"{n} rows"


def _plain(column: str) -> str:
    return WORDS.get(column, column.removesuffix("_digest").replace("_", " "))
