"""Which rows belong into one figure, and in words which do not."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ce_align.checks import named_some
from ce_align.models.catalogue import (
    EQUIVARIANCE_WEIGHTS,
    OBJECTIVE_NAMES,
    find_published,
    label_of,
    trained_label,
)
from ce_align.report.style import (
    further_colours,
    objective_colour,
    objective_label,
    objective_order,
    shade,
    weight_label,
)
from ce_align.results import FACTS, LABELLED, NetworkFacts
from ce_align.stages.comparable import Selection, interval_over

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    *("average", "colours_and_labels", "labels_of", "main_recipe", "missing_weights"),
    *("network_colours", "only", "told_apart", "with_networks"),
]

#: Augmentation that a recipe does not name.
USUAL_VIEWS = "strong"

#: Columns that rows of every stage have.
USUAL = ("stage", "model", "metric", "value", "config_id", "created")
#: And what `with_networks` adds.
ABOUT = ("objective", "weight", "recipe")


def labels_of(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What each network that rows are of, or are about, is called, by its name.

    Older rows do not say everything.
    """
    found: dict[str, str] = {}
    # What rows of a network say goes before what rows of others say of it.
    for column, role in reversed(LABELLED.items()):
        for record in records:
            name, label = record.get(role), record.get(column)
            if isinstance(name, str):
                found[name] = label if isinstance(label, str) else label_of(name)
    return told_apart(found)


def told_apart(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels by name, each of one network only.

    >>> told_apart({"old/a": "a", "new/a": "a", "runs/b": "b"})
    {'old/a': 'a (old)', 'new/a': 'a (new)', 'runs/b': 'b'}
    """
    names_of: dict[str, list[str]] = {}
    for name, label in labels.items():
        names_of.setdefault(label, []).append(name)
    found = dict(labels)
    for label, names in names_of.items():
        if len(names) > 1:
            for name, part in zip(names, _differing(names), strict=True):
                found[name] = f"{label} ({part})" if part else label
    return found


def _differing(names: Sequence[str]) -> list[str]:
    """The last parts of paths by which they differ."""
    parts = [name.split("/")[::-1] for name in names]
    n_same = 0
    while len({tuple(part[: n_same + 1]) for part in parts}) == 1:
        n_same += 1
    n = n_same + 1
    while len({tuple(part[:n]) for part in parts}) < len(parts):
        n += 1
    return ["/".join(part[n_same:n][::-1]) for part in parts]


def network_colours(
    networks: Mapping[str, NetworkFacts],
) -> dict[str, tuple[float, float, float]]:
    """A colour for each network, by its name.

    Shades of the objective's colour, darker for larger λ, if that tells all networks
    apart; else colours that stand for no objective.
    """
    known = {
        model: (facts.objective, facts.equivariance_weight)
        for model, facts in networks.items()
        if facts.objective is not None
        and facts.equivariance_weight is not None
        and facts.epochs != 0  # untrained
    }
    if len(set(known.values())) < len(networks):
        return dict(zip(networks, further_colours(len(networks)), strict=True))
    among = objective_order(objective for objective, _ in known.values())
    weights = sorted({weight for _, weight in known.values()})
    # The lightest shade is too pale, too.
    n = len(weights) + 1
    return {
        model: shade(objective_colour(objective, among), weights.index(weight) + 1, n)
        for model, (objective, weight) in known.items()
    }


def colours_and_labels(
    rows: "pd.DataFrame", labels: Mapping[str, str]
) -> dict[str, tuple[Any, str]]:
    """Colour by objective and λ, and a label of each colour, by network.

    Networks of no known objective, or untrained, have colours that stand for none.

    Parameters
    ----------
    rows : with columns ``model``, ``objective`` and ``weight``, or as they are stored;
        with ``epochs``, where they are known
    labels : of networks by name, `Inputs.labels`
    """
    every = rows.drop_duplicates("model").rename(
        columns={"equivariance_weight": "weight"}
    )
    every = every.reindex(columns=["model", "objective", "weight", "epochs"])
    trained = every[every["epochs"] != 0]
    named = trained.dropna(subset=["objective", "weight"])
    objectives = objective_order(named["objective"])
    weights = sorted(set(named["weight"]))
    found: dict[str, tuple[Any, str]] = {}
    for objective in objectives:
        own = named[named["objective"] == objective].sort_values(["weight", "model"])
        for row in own.to_dict("records"):
            label = labels[row["model"]]
            n_alike = int((own["weight"] == row["weight"]).sum())
            if n_alike > 1:  # they share a colour, and so a place in the legend
                label = trained_label(objective, row["weight"])
                label += f" ({n_alike} trainings)"
            # The lightest shade is too pale for a line.
            place = weights.index(row["weight"]) + 1
            colour = objective_colour(objective, objectives)
            found[row["model"]] = shade(colour, place, len(weights) + 1), label
    rest = [str(model) for model in every["model"] if model not in found]
    for model, rgb in zip(rest, further_colours(len(rest)), strict=True):
        found[model] = rgb, labels[model]
    return found


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
    if "weighting" in known:
        drawn = known["weighting"] == "drawn"
        parts.append("one network for all λ" if drawn else f"λ of {known['weighting']}")
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
