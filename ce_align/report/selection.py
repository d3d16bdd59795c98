"""Which rows belong into one figure, and in words which do not."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import named_some
from ce_align.models.catalogue import (
    EQUIVARIANCE_WEIGHTS,
    OBJECTIVE_NAMES,
    equivariance_weight_of,
    find_published,
    objective_of,
    training_settings,
)
from ce_align.report.origins import origins_of
from ce_align.report.style import (
    objective_colour,
    objective_label,
    objective_order,
    shade,
    weight_label,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("MEASURE_SETTINGS", "RAW_SETTINGS", "SCORE_SETTINGS", "TRANSFER_SETTINGS"),
    "Selection",
    *("average", "comparable", "describe", "interval_over", "main_recipe"),
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

#: What the authors trained their networks on.
PAPER_IMAGES = "ImageNet-1k"


#: Columns that rows of every stage have.
USUAL = ("stage", "model", "metric", "value", "config_id", "created")
#: What is known of a network beside its rows.
ABOUT = ("objective", "weight", "backbone", "epochs", "pretraining", "recipe")


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


def describe(model: str) -> dict[str, Any]:
    """What is known of the training of a network, by its name.

    Returns
    -------
    ``objective``, ``weight``, ``backbone``, ``epochs`` and ``pretraining`` (the
    images), None where unknown; and ``recipe``, which networks share that differ only
    in objective, weight and seed
    """
    entry = find_published(model)
    if entry is not None:
        known: dict[str, Any] = {
            "backbone": entry.architecture,
            "epochs": entry.epochs,
            "pretraining": PAPER_IMAGES,
        }
        views = ""
    else:
        settings = training_settings(model)
        known = {
            "backbone": settings.get("backbone"),
            "epochs": settings.get("epochs"),
            "pretraining": settings.get("images"),
        }
        families = settings.get("families") or ()
        views = "" if "strong_a" in families else f", {families[0]}" if families else ""
    recipe = f"{known['backbone']}, {known['epochs']} epochs, {known['pretraining']}"
    return {
        "objective": objective_of(model),
        "weight": equivariance_weight_of(model),
        **known,
        "recipe": recipe + views if known["backbone"] else None,
    }


def network_labels(models: Sequence[str]) -> dict[str, str]:
    """Short labels that tell networks apart: objective and λ, else what ends a name."""
    labels = {}
    for model in models:
        about = describe(model)
        if about["objective"] is None or about["weight"] is None:
            labels[model] = model.rpartition("/")[2]
        else:
            weight = weight_label(about["weight"])
            labels[model] = f"{objective_label(about['objective'])}, λ = {weight}"
    shared = [label for label, n in Counter(labels.values()).items() if n > 1]
    return {m: m if label in shared else label for m, label in labels.items()}


def network_colours(models: Sequence[str]) -> list[tuple[float, float, float]]:
    """A colour for each network, in their order.

    Shades of the objective's colour, darker for larger λ, if that tells all networks
    apart; else as many steps from blue to green.
    """
    import matplotlib

    about = [describe(model) for model in models]
    distinct = {(a["objective"], a["weight"]) for a in about}
    unknown = any(a["objective"] is None or a["weight"] is None for a in about)
    if unknown or len(distinct) < len(models):
        # The yellow end is too pale for a line.
        cmap = matplotlib.colormaps["viridis"]
        steps = [0.9 * k / max(len(models) - 1, 1) for k in range(len(models))]
        return [cmap(step)[:3] for step in steps]
    among = objective_order(a["objective"] for a in about)
    weights = sorted({a["weight"] for a in about})
    # The lightest shade is too pale, too.
    return [
        shade(
            objective_colour(a["objective"], among),
            weights.index(a["weight"]) + 1,
            len(weights) + 1,
        )
        for a in about
    ]


def with_networks(rows: "pd.DataFrame") -> Selection:
    """Rows of networks of known objective and weight, with what `describe` says.

    Rows that say themselves how their network was trained are believed.
    """
    import pandas as pd

    if rows.empty:
        every = dict.fromkeys((*USUAL, *rows.columns, *ABOUT, "origin"))
        return Selection(rows.reindex(columns=list(every)))
    names = list(dict.fromkeys(rows["model"]))
    about = pd.DataFrame([describe(name) for name in names], index=names)
    told = {"objective": "objective", "equivariance_weight": "weight"}
    told |= {"backbone": "backbone", "epochs": "epochs"}
    for column, name in told.items():
        if column in rows:
            said = rows.dropna(subset=[column]).drop_duplicates("model", keep="last")
            by_name = dict(zip(said["model"], said[column], strict=True))
            about[name] = [
                by_name.get(model) if pd.isna(known) else known
                for model, known in about[name].items()
            ]
    about["weight"] = pd.to_numeric(about["weight"])
    parts = zip(about["recipe"], about["backbone"], about["epochs"], strict=True)
    about["recipe"] = [
        _recipe(backbone, epochs) if recipe is None else recipe
        for recipe, backbone, epochs in parts
    ]
    columns = [c for c in (*told, *about) if c in rows]
    joined = rows.drop(columns=columns).join(about, on="model")
    joined = joined.assign(origin=origins_of(joined))
    known = joined["objective"].notna() & joined["weight"].notna()
    others = list(dict.fromkeys(joined["model"][~known]))
    notes = []
    if others:
        notes.append(f"Left out, of no known objective or λ: {named_some(others)}.")
    return Selection(joined[known], tuple(notes))


def _recipe(backbone: "str | None", epochs: "float | str | None") -> str:
    """Backbone and epochs, as far as they are known."""
    import pandas as pd

    named = "unknown backbone" if pd.isna(backbone) else str(backbone)
    # Beside rows without epochs a table makes 100.0 of 100.
    n = "unknown" if pd.isna(epochs) else f"{float(epochs or 0):.0f}"
    return f"{named}, {n} epochs"


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
