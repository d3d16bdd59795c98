"""Which rows belong into one figure, and in words which do not."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import named_some
from ce_align.models.catalogue import (
    EQUIVARIANCE_WEIGHTS,
    OBJECTIVE_NAMES,
    find_published,
)
from ce_align.report.style import (
    objective_colour,
    objective_label,
    objective_order,
    shade,
    weight_label,
)
from ce_align.results import FACTS, NetworkFacts, Row

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("MEASURE_SETTINGS", "RAW_SETTINGS", "SCORE_SETTINGS", "TRANSFER_SETTINGS"),
    "Selection",
    *("average", "comparable", "interval_over", "main_recipe"),
    "missing_weights",
    *("network_colours", "network_labels", "only", "with_networks"),
]

#: What intervals are over, where the word in the row says too little. The last two are
#: of release 0.1.
INTERVALS = {
    "comparisons": "comparisons, as if independent (the paper's)",
    "bootstrap": "images or classes, their reference held fixed",
    "runs": "runs, as if independent",
}
#: Rows of one measure are comparable only if these agree.
MEASURE_SETTINGS = ("views_digest", "images_digest", "n_points", "n_comparisons")
#: Raw correlations with one recording are comparable only if these agree.
RAW_SETTINGS = ("recording_digest", "region", "regression", "n_splits")
#: And scores, which are relative to a ceiling.
SCORE_SETTINGS = (*RAW_SETTINGS, "ceiling_kind")
#: Accuracies on one data set are comparable only if these agree.
TRANSFER_SETTINGS = ("n_train", "n_test")

#: Augmentation that a recipe does not name.
USUAL_VIEWS = "strong"

#: Columns that rows of every stage have.
USUAL = ("stage", "model", "metric", "value", "config_id", "created")
#: And what `with_networks` adds.
ABOUT = ("objective", "weight", "recipe")


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


def network_labels(networks: Mapping[str, NetworkFacts]) -> dict[str, str]:
    """Short labels that tell networks apart: objective and λ, else what ends a name."""
    labels = {}
    for model, facts in networks.items():
        if facts.objective is None or facts.equivariance_weight is None:
            labels[model] = model.rpartition("/")[2]
        else:
            weight = weight_label(facts.equivariance_weight)
            labels[model] = f"{objective_label(facts.objective)}, λ = {weight}"
    shared = [label for label, n in Counter(labels.values()).items() if n > 1]
    return {m: m if label in shared else label for m, label in labels.items()}


def network_colours(rows: Iterable[Row]) -> dict[str, tuple[float, float, float]]:
    """A colour for each network of rows, by its name.

    Shades of the objective's colour, darker for larger λ, if that tells all networks
    apart; else as many steps from blue to green.
    """
    import matplotlib

    networks = {row.model: (row.objective, row.equivariance_weight) for row in rows}
    known = {model: (o, w) for model, (o, w) in networks.items() if o and w is not None}
    if len(set(known.values())) < len(networks):
        # The yellow end is too pale for a line.
        cmap = matplotlib.colormaps["viridis"]
        last = max(len(networks) - 1, 1)
        return {m: cmap(0.9 * k / last)[:3] for k, m in enumerate(networks)}
    among = objective_order(objective for objective, _ in known.values())
    weights = sorted({weight for _, weight in known.values()})
    # The lightest shade is too pale, too.
    n = len(weights) + 1
    return {
        model: shade(objective_colour(objective, among), weights.index(weight) + 1, n)
        for model, (objective, weight) in known.items()
    }


def with_networks(rows: "pd.DataFrame") -> Selection:
    """Rows of networks of known objective and weight.

    Their λ is in the column ``weight``; ``recipe`` says in words how a network was
    trained, which networks share that differ only in objective, λ and seed.
    """
    import pandas as pd

    if rows.empty:
        every = dict.fromkeys((*USUAL, *rows.columns, *ABOUT, "origin"))
        return Selection(rows.reindex(columns=list(every)))
    weight = pd.to_numeric(rows["equivariance_weight"])
    recipe = [_recipe(row) for row in rows[list(FACTS)].itertuples()]
    joined = rows.assign(weight=weight, recipe=recipe)
    joined = joined.drop(columns="equivariance_weight")
    known = joined["objective"].notna() & joined["weight"].notna()
    others = list(dict.fromkeys(joined["model"][~known]))
    notes = []
    if others:
        notes.append(f"Left out, of no known objective or λ: {named_some(others)}.")
    return Selection(joined[known], tuple(notes))


def _recipe(facts: Any) -> str:
    """Backbone, epochs, images and views, as far as they are known."""
    import pandas as pd

    known = {name: value for name in FACTS if pd.notna(value := getattr(facts, name))}
    # Beside rows without epochs a table makes 100.0 of 100.
    epochs = f"{known['epochs']:.0f}" if "epochs" in known else "unknown"
    parts = [known.get("backbone", "unknown backbone"), f"{epochs} epochs"]
    if "pretraining" in known:
        parts.append(known["pretraining"])
    if known.get("augmentation", USUAL_VIEWS) != USUAL_VIEWS:
        parts.append(f"{known['augmentation']} views")
    return ", ".join(map(str, parts))


def main_recipe(rows: "pd.DataFrame") -> Selection:
    """Rows of the recipe that most networks share; others are not averaged with it."""
    if rows.empty:
        return Selection(rows)
    recipes = rows["recipe"].fillna("unknown")
    counts = rows.groupby(recipes, sort=True)["model"].nunique()
    if len(counts) == 1:
        return Selection(rows)
    chosen = counts.idxmax()
    others = list(dict.fromkeys(rows["model"][recipes != chosen]))
    note = f"Left out, trained otherwise than {chosen}: {named_some(others)}."
    return Selection(rows[recipes == chosen], (note,))


def comparable(
    rows: "pd.DataFrame", settings: Sequence[str], what: str, keys: Sequence[str] = ()
) -> Selection:
    """One row a network, its latest, of the settings that most networks share.

    Parameters
    ----------
    rows : of one measure
    settings : columns in which rows must agree; those that are absent are ignored
    what : the measure, for the notes
    keys : columns of which each value has a row of its own, beside the network
    """
    import pandas as pd

    if rows.empty:
        return Selection(rows)
    notes = []
    rows = rows.assign(value=pd.to_numeric(rows["value"], errors="coerce"))
    empty = ~np.isfinite(rows["value"].to_numpy(np.float64))
    if empty.any():
        names = list(dict.fromkeys(rows["model"][empty]))
        notes.append(f"{what}: no value for {named_some(names)}.")
    rows = rows[~empty].sort_values("created", kind="stable")
    shared = [name for name in settings if name in rows]
    if shared and len(rows):
        settled = rows[shared].astype(str)
        sizes = rows.groupby([settled[c] for c in shared], sort=True)["model"].nunique()
        if len(sizes) > 1:
            chosen = sizes.idxmax()
            wanted = chosen if isinstance(chosen, tuple) else (chosen,)
            agrees = (settled == list(wanted)).all(axis=1)
            differing = [c for c in shared if settled[c].nunique() > 1]
            notes.append(
                f"{what}: {_rows(int((~agrees).sum()))} of another "
                f"{' or '.join(_plain(c) for c in differing)} left out."
            )
            rows = rows[agrees]
    latest = rows.drop_duplicates(["model", *keys], keep="last")
    dropped = len(rows) - len(latest)
    if dropped:
        notes.append(
            f"{what}: {_rows(dropped)} replaced by later ones of the same network."
        )
    # By name: what is drawn must not depend on the order in which rows were written.
    return Selection(latest.sort_values("model", kind="stable"), tuple(notes))


def _rows(n: int) -> str:
    return f"{n} row" if n == 1 else f"{n} rows"


def _plain(column: str) -> str:
    words = {"n_points": "number of points", "n_comparisons": "number of comparisons"}
    return words.get(column, column.removesuffix("_digest").replace("_", " "))


def interval_over(word: str) -> str:
    """What an interval is over, from the column ``interval``, as readers are told."""
    return INTERVALS.get(word, word)


def average(rows: "pd.DataFrame", keys: Sequence[str] = ()) -> "pd.DataFrame":
    """Mean over the networks of each objective and weight, with its spread.

    Parameters
    ----------
    rows : a row a network, with ``value`` and perhaps ``low`` and ``high``
    keys : columns to tell apart beside objective and weight

    Returns
    -------
    ``objective``, ``weight``, the keys, ``value``, ``low``, ``high``, ``spread`` (what
    low and high are: of one network its own interval, of several mean ± sd),
    ``n_networks``, ``networks``, ``origin``
    """
    import pandas as pd

    found = []
    groups = ["objective", "weight", *keys]
    for names, group in rows.groupby(groups, sort=True):
        values = group["value"].to_numpy(np.float64)
        mean, low, high, spread = float(values.mean()), np.nan, np.nan, "none"
        if len(values) > 1:
            sd = float(values.std(ddof=1))
            low, high, spread = mean - sd, mean + sd, "sd over networks"
        elif "low" in group and pd.notna(group["low"]).all():
            low, high = float(group["low"].iloc[0]), float(group["high"].iloc[0])
            spread = "95 % interval" if low < high else "none"
            over = group["interval"].iloc[0] if "interval" in group else None
            if low < high and isinstance(over, str):
                spread += f" over {interval_over(over)}"
        found.append(
            {
                **dict(zip(groups, names, strict=True)),
                "value": mean,
                "low": low,
                "high": high,
                "spread": spread,
                "n_networks": len(values),
                "networks": " ".join(group["model"]),
                "origin": "+".join(sorted(set(group["origin"]))),
                "source": only(group.get("source", ())),
            }
        )
    columns = [*groups, "value", "low", "high", "spread", "n_networks", "networks"]
    columns += ["origin", "source"] if "source" in rows else ["origin"]
    return pd.DataFrame(found, columns=columns)


def only(values: Iterable[Any]) -> Any:
    """The one value that all are, or None: of several stored rows none is shown."""
    distinct = set(values)
    return distinct.pop() if len(distinct) == 1 else None


def missing_weights(points: "pd.DataFrame", what: str) -> list[str]:
    """Which networks of the grid objective × λ have no point, in words.

    The grid is the paper's if a published network is there; else it is spanned by the
    points themselves.
    """
    if points.empty:
        return []
    named = " ".join(points["networks"]).split()
    published = any(find_published(name) for name in named)
    weights = set(points["weight"])
    objectives = set(points["objective"])
    if published:
        weights |= {float(weight) for weight in EQUIVARIANCE_WEIGHTS}
        objectives |= set(OBJECTIVE_NAMES)
    parts = []
    for objective in objective_order(objectives):
        there = set(points["weight"][points["objective"] == objective])
        absent = sorted(weights - there)
        if not there:
            parts.append(f"{objective_label(objective)} (all λ)")
        elif absent:
            shown = ", ".join(map(weight_label, absent))
            parts.append(f"{objective_label(objective)} λ = {shown}")
    return [f"{what}: no rows for {'; '.join(parts)}."] if parts else []
