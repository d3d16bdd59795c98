"""Table 1 and the forest of correlations; measures and correlations as one drawing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from ce_align.checks import named_some
from ce_align.errors import DataError
from ce_align.report.fitting import shortened
from ce_align.report.inputs import Inputs
from ce_align.report.paper.items import (
    BuiltTable,
    Drawn,
    NothingToDraw,
    Numbered,
    because,
    built,
    completed,
    mark_of,
)
from ce_align.report.select import network_colours, network_labels
from ce_align.report.style import (
    GUIDE,
    INK,
    WIDTHS,
    finish,
    letter,
    measure_name,
    minus,
    panel_grid,
    save_figure,
    style,
)
from ce_align.stages.comparable import interval_over
from ce_align.stages.measures import COMPARISON_TITLES, Panel, Quantity, quantities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ce_align.stages.correlate import CorrelationRow
    from ce_align.stages.measures import MeasureRow

__all__ = [
    *("correlation_forest", "figure_forest", "measure_forest"),
    *("save_correlations", "save_measures", "table_1"),
]

#: Numbers of a correlation, in the order of the rows behind tables and figures.
NUMBERS = (
    *("value", "low", "high", "abs_r", "r_squared", "spearman"),
    *("within", "within_low", "within_high", "p", "q"),
    *("partial", "partial_low", "partial_high", "partial_p", "partial_q"),
    *("n_networks", "n_partial"),
)

#: Colours of r, of r within objectives and of r given λ: none is an objective's.
OVERALL, WITHIN, PARTIAL = INK, "#6b6b6b", "#9c9c9c"
#: What could be chance, as a single test of so many networks has it.
CHANCE = "#f1efe9"
#: What the marks of a forest mean.
FOREST_KEY = (
    "Lines: 95 % intervals over networks within objectives. Shaded: |r| with p > .05 "
    "for so many networks, in a single test without correction."
)
#: What a number is, by what its name has in it.
DEFINED = {
    **dict.fromkeys(
        COMPARISON_TITLES,
        "D_B: squared Bures distance of covariances divided by their traces, from 0 "
        "(the same shape) to 2 (no direction in common).",
    ),
    "_excess": "Excess: D_B − its floor, both of halves of the clouds of responses; "
    "the floor is the mean distance between two halves of one cloud.",
    "_delta": "Δ: the baseline's value − the network's, on the same images and draws.",
    "decoding": "R²: share of the variance of augmentation parameters that is decoded "
    "of held-out images; below 0, guessing their mean is better.",
}
#: Fewer networks than these say little, and a figure says so.
FEW_NETWORKS = 10
#: As many letters of a recording's name above a panel.
LONGEST_NAME = 18
#: Places of the three beside each other.
ABOVE, BELOW = -0.25, 0.25
#: Height of one mark, and of title and axis, in inches.
MARK, FRAME = 0.11, 0.75
#: Smaller shares of variance are drawn at this edge.
LEAST = -0.5


def _latest(inputs: Inputs) -> "tuple[pd.DataFrame, list[str]]":
    """The latest correlation of each measure and recording, with its origin, and notes.

    Rows of networks whose names stand for others by now are left out.
    """
    import pandas as pd

    found = inputs.stage("correlate")
    rows, notes = found.rows, list(found.notes)
    if rows.empty:
        return rows, notes
    rows = rows.sort_values("created", kind="stable")
    latest = rows.drop_duplicates(["measure", "recording"], keep="last")
    n = len(rows) - len(latest)
    if n:
        notes.append(f"{n} correlations are replaced by later ones.")
    empty = pd.to_numeric(latest["value"], errors="coerce").isna()
    if empty.any():
        pairs = latest[empty][["measure", "recording"]].itertuples(index=False)
        names = [f"{measure_name(str(m))} with {r}" for m, r in pairs]
        notes.append(f"No correlation is defined of {named_some(names)}.")
        latest = latest[~empty]
    columns = ["measure", "recording", *NUMBERS, "given", "interval", "note"]
    latest = latest.reindex(columns=list(dict.fromkeys([*latest, *columns])))
    old = latest["interval"].isna() & latest["low"].notna()
    if old.any():
        # Those of ce_align 0.1 took networks of one objective for independent.
        bounds = {name: latest[name].mask(old) for name in ("low", "high")}
        latest = latest.assign(**bounds)
        notes.append(
            "Intervals that do not say what they are over are left out; run `ce-align "
            "correlate` again."
        )
    for note, group in latest.groupby("note", sort=False):
        measures = map(measure_name, dict.fromkeys(map(str, group["measure"])))
        every = len(group) == len(latest)
        words = f"{str(note)[0].upper()}{str(note)[1:]}."
        notes.append(words if every else f"{named_some(list(measures))}: {note}.")
    columns += ["origin", *(["source"] if "source" in latest else [])]
    return latest[columns], notes


def _interval_words(rows: "pd.DataFrame") -> str:
    """What the intervals are over, and what r is given besides objective and λ."""
    over = named_some(list(dict.fromkeys(rows["interval"].dropna())))
    given = named_some(list(dict.fromkeys(rows["given"].dropna())))
    parts = [f"95 % intervals are over {over}" if over else "no interval is defined"]
    if over and rows["low"].isna().any():
        parts.append(
            "r itself has none, for a few objectives do not say how objectives vary"
        )
    if given:
        parts.append(f"given λ means given {given}")
    return "; ".join(parts)


def table_1(inputs: Inputs) -> BuiltTable:
    """r of each measure with predictivity on each recording, with interval and q."""
    rows, notes = _latest(inputs)
    titles = {n: one.title for n, one in quantities().items() if one.place == "table"}
    rows = rows[rows["measure"].isin(titles)] if len(rows) else rows
    if rows.empty:
        raise NothingToDraw(
            "Table 1 needs rows of `ce-align correlate` for the measures of `ce-align "
            f"analyze`; run both for the same networks{because(notes)}"
        )
    ridge = rows["measure"].str.startswith("decoding_ridge").any()
    if ridge:
        rows = rows[~rows["measure"].str.startswith("decoding_ols")]
    recordings = list(dict.fromkeys(rows["recording"]))
    measures = [name for name in titles if name in set(rows["measure"])]
    order = {name: k for k, name in enumerate([*measures, *recordings])}
    frame = rows.sort_values(
        ["measure", "recording"], key=lambda column: column.map(order)
    ).reset_index(drop=True)
    cells = {
        (row["measure"], row["recording"]): (row, place)
        for place, row in enumerate(frame.to_dict("records"))
    }
    lines: list[dict[str, str | Numbered]] = []
    for measure in measures:
        kinds = {"": titles[measure], "within": "… within objectives"}
        for kind, title in (kinds | {"partial": "… given λ"}).items():
            line: dict[str, str | Numbered] = {"Measure": title}
            for name in recordings:
                row, place = cells.get((measure, name), (None, -1))
                line[name] = Numbered(_cell(row, kind), place) if row else "–"
            lines.append(line)
    absent = [
        title
        for name, title in titles.items()
        if name not in measures and ("ols" in name) != ridge
    ]
    if absent:
        notes.append(f"No rows of {', '.join(absent)}.")
    pairs = [(measure, name) for measure in measures for name in recordings]
    without = [
        f"{titles[m]} with {name}" for m, name in pairs if (m, name) not in cells
    ]
    if without:
        notes.append(f"No rows of {named_some(without)}.")
    counts = "/".join(map(str, sorted(set(frame["n_networks"].astype(int)))))
    return built(
        frame,
        lines,
        inputs,
        notes,
        title="Representational measures and predictivity",
        caption=f"Pearson r across {counts} networks between each measure and the "
        "predictivity of each recording; below it r within objectives and r given "
        f"objective and λ; {_interval_words(frame)}. q: false discovery rate over all "
        "measures and recordings that were correlated together, of exchanging networks "
        f"within objectives (r) and of Student's t (given λ).{_few_words(frame)}",
    )


def _cell(row: Mapping[Any, Any], kind: str) -> str:
    """A correlation with its sign, its interval and its q, as far as defined."""
    name = kind or "value"
    if not _defined(row[name]):
        return "–"
    low, high = (f"{kind}_{end}" if kind else end for end in ("low", "high"))
    text = f"{row[name]:+.2f}"
    if _defined(row[low]):
        text += f" [{row[low]:+.2f}, {row[high]:+.2f}]"
    q = row.get({"": "q", "partial": "partial_q"}.get(kind, ""))
    if _defined(q):
        text += f", q {'< .001' if q < 0.001 else '= ' + f'{q:.3f}'.lstrip('0')}"
    return minus(text)


def _least_r(n: int) -> float:
    """|r| that so many unrelated networks reach in one of twenty samples.

    >>> round(_least_r(21), 2), _least_r(2)
    (0.43, 1.0)
    """
    from scipy.stats import t

    if n < 3:
        return 1.0
    quantile = float(t.ppf(0.975, n - 2))
    return float(quantile / np.sqrt(n - 2 + quantile**2))


def _few_words(rows: "pd.DataFrame") -> str:
    """What a reader must know of few networks; empty of many."""
    n = int(rows["n_networks"].min())
    if n >= FEW_NETWORKS:
        return ""
    return (
        f" {n} networks are few: |r| below {_least_r(n):.2f} is what unrelated numbers "
        "reach, before any correction."
    )


def figure_forest(inputs: Inputs, columns: int = 2) -> Drawn:
    """Correlation of measures with predictivity, a panel for each recording."""
    rows, notes = _latest(inputs)
    if rows.empty:
        raise NothingToDraw(
            "the forest plot needs rows of `ce-align correlate`; run `ce-align score` "
            "and `ce-align analyze` for five networks, then `ce-align correlate`"
            f"{because(notes)}"
        )
    order = {name: k for k, name in enumerate(quantities())}
    shown = [name for name in dict.fromkeys(rows["measure"]) if _is_shown(str(name))]
    shown.sort(key=lambda name: order.get(name, len(order)))
    n_rest = rows["measure"].nunique() - len(shown)
    if n_rest:
        notes.append(f"{n_rest} further measures are in the rows, not in the figure.")
    data = rows[rows["measure"].isin(shown)].reset_index(drop=True)
    recordings = list(dict.fromkeys(data["recording"]))
    whole = {name: name for name in recordings}
    short = shortened(recordings, LONGEST_NAME) or whole
    across = min(len(recordings), 4 if columns == 2 else 2)
    with style():
        height = 0.65 + 0.22 * len(shown)
        figure, axes, _ = panel_grid(
            columns, len(recordings), across, height, 0.3, sharey=True
        )
        for k, (ax, recording) in enumerate(zip(axes, recordings, strict=True)):
            own = data[data["recording"] == recording].set_index("measure")
            placed = own.reindex(shown).rename_axis("measure").reset_index()
            correlation_forest(list(placed.itertuples()), ax)
            ax.set_xlabel("Pearson r")
            n = "/".join(map(str, sorted(set(own["n_networks"].astype(int)))))
            few = " (few)" if own["n_networks"].min() < FEW_NETWORKS else ""
            letter(ax, "", f"{short[recording]}\nn = {n}{few}")
            if k % across:
                ax.tick_params(axis="y", labelleft=False)
        _forest_legend(figure, columns, data)
    strongest = data.iloc[int(data["abs_r"].argmax())]
    return completed(
        figure,
        data,
        inputs,
        [FOREST_KEY, *notes],
        title="Correlation of representational measures with predictivity",
        caption="Pearson r across networks, the same within objectives, and given "
        f"objective and λ; {_interval_words(data)}. q: false discovery rate, over all "
        "measures and recordings that were correlated together, of exchanging networks "
        f"within objectives.{_few_words(data)}",
        alt=f"Forest plot of {len(data)} correlations. The strongest is "
        f"{strongest['value']:.2f}: {measure_name(strongest['measure'])} with "
        f"{strongest['recording']}.",
    )


def _is_shown(measure: str) -> bool:
    known = quantities().get(measure)
    return known is None or known.place != "rows"


def correlation_forest(rows: "Sequence[CorrelationRow]", ax: "Axes") -> "Axes":
    """Pearson r of each measure with one recording, within objectives, and given λ.

    Parameters
    ----------
    rows : of one recording
    ax : axes to draw into
    """
    n = min((row.n_networks for row in rows if _defined(row.value)), default=0)
    chance = _least_r(int(n))
    ax.axvspan(-chance, chance, color=CHANCE, linewidth=0, zorder=-1)
    for place, row in enumerate(rows):
        _mark(ax, row, place + ABOVE, OVERALL, -1.0, hollow=not row.q < 0.05)
        for k, name, its, mark in (
            (0, "within", WITHIN, "s"),
            (BELOW, "partial", PARTIAL, "D"),
        ):
            r, low, high = (getattr(row, name + end) for end in ("", "_low", "_high"))
            if _defined(r):
                if _defined(low) and _defined(high):
                    ends, at = [low, high], [place + k] * 2
                    ax.plot(ends, at, color=its, linewidth=0.8, zorder=2)
                ax.plot(r, place + k, mark, color=its, markersize=2.4, zorder=4)
        ax.axhline(place + 0.5, color="0.9", linewidth=0.6, zorder=0)
    _forest_axes(ax, [measure_name(row.measure) for row in rows])
    ax.set_xlim(-1.03, 1.03)
    ax.set_xlabel("Pearson r across networks")
    return ax


def _forest_legend(figure: "Figure", columns: int, rows: "pd.DataFrame") -> None:
    """What each mark is of a forest of these rows."""
    from matplotlib.lines import Line2D

    def handle(mark: str, colour: str, label: str, fill: str = "") -> Line2D:
        look: Any = {"marker": mark, "color": colour, "markerfacecolor": fill or colour}
        return Line2D([], [], linestyle="none", markersize=3, label=label, **look)

    sure = rows["q"] < 0.05
    marks = {
        handle("o", OVERALL, "r, q < .05"): sure.any(),
        handle("o", OVERALL, "r, q ≥ .05", "white"): (~sure).any(),
        handle("s", WITHIN, "r within objectives"): rows["within"].notna().any(),
        handle("D", PARTIAL, "r given λ"): rows["partial"].notna().any(),
    }
    figure.legend(
        handles=[mark for mark, there in marks.items() if there],
        loc="outside upper left",
        ncols=4 if columns == 2 else 2,
        handletextpad=0.2,
    )


def _forest_axes(ax: "Axes", labels: Sequence[str]) -> None:
    """Names from top to bottom, and a line at zero."""
    ax.axvline(0, color=GUIDE, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def _mark(
    ax: "Axes",
    row: "MeasureRow | CorrelationRow",
    place: float,
    colour: object,
    least: float,
    *,
    hollow: bool = False,
) -> None:
    """One estimate: a dot on its interval, or a triangle at the left edge."""
    if not _defined(row.value):
        return
    if row.value < least:
        ax.plot(least, place, "<", color=colour, markersize=3.5, zorder=3)
        return
    if _defined(row.low) and _defined(row.high):
        low = max(row.low, least)
        ax.plot([low, row.high], [place, place], color=colour, linewidth=1, zorder=2)
    fill = "white" if hollow else colour
    ax.plot(
        row.value,
        place,
        "o",
        color=colour,
        markerfacecolor=fill,
        ms=3,
        mew=0.8,
        zorder=3,
    )


def _defined(value: float | None) -> TypeGuard[float]:
    """Whether there is a number; tables have NaN where rows have None."""
    return value is not None and value == value


def save_correlations(rows: "Sequence[CorrelationRow]", path: Path) -> Path:
    """Draw a panel for each recording as PDF, SVG and PNG; the PNG's path returns."""
    import pandas as pd
    from matplotlib.figure import Figure

    order = {name: k for k, name in enumerate(quantities())}
    rows = sorted(rows, key=lambda row: order.get(row.measure, len(order)))
    groups = {
        name: [row for row in rows if row.recording == name]
        for name in dict.fromkeys(row.recording for row in rows)
    }
    width = WIDTHS[1] * (0.6 + 0.8 * len(groups))
    height = FRAME + 0.3 + 2.2 * MARK * max(map(len, groups.values()))
    with style():
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = figure.subplots(1, len(groups), squeeze=False)[0]
        for ax, (recording, group) in zip(axes, groups.items(), strict=True):
            correlation_forest(group, ax)
            n = "/".join(map(str, sorted({row.n_networks for row in group})))
            ax.set_title(f"{recording}\nn = {n} networks", loc="left")
        _forest_legend(figure, 1, pd.DataFrame([row.model_dump() for row in rows]))
        data = pd.DataFrame([row.model_dump() for row in rows])
        notes = [FOREST_KEY, *filter(None, [_few_words(data).strip()])]
        finish(figure, notes, mark_of(row.origin or "" for row in rows))
        return save_figure(figure, path.with_suffix(""))[-1]


def save_measures(rows: "Sequence[MeasureRow]", path: Path) -> Path:
    """Draw a panel for each kind of measure; the path of the PNG returns.

    Raises
    ------
    DataError
        If no row is of a measure that has a panel.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    models = list(dict.fromkeys(row.model for row in rows))
    metrics = {row.metric for row in rows}
    drawn: dict[Panel, list[Quantity]] = {}
    for name, quantity in quantities().items():
        if quantity.panel is not None and name in metrics:
            drawn.setdefault(quantity.panel, []).append(quantity)
    panels = list(drawn.items())
    if not panels:
        raise DataError(
            f"no panel shows {named_some(sorted(metrics)) or 'rows that are not there'}"
            "; draw the rows of `ce-align analyze`"
        )
    heights = [FRAME + MARK * max(len(w) * (len(models) + 1), 4) for _, w in panels]
    # The second column begins where it makes both equally long.
    first = min(
        range(1, len(panels) + 1),
        key=lambda n: max(sum(heights[:n]), sum(heights[n:])),
    )
    columns = [part for part in (slice(first), slice(first, None)) if panels[part]]
    tallest = max(sum(heights[part]) for part in columns)
    with style():
        size = (1.3 * WIDTHS[1] * len(columns), tallest)
        figure = Figure(figsize=size, layout="constrained")
        subfigures = figure.subfigures(1, len(columns), squeeze=False)[0]
        for part, subfigure in zip(columns, subfigures, strict=True):
            # What is missing below a shorter column stays empty.
            rest = tallest - sum(heights[part])
            ratios = [*heights[part], *([rest] if rest > 0 else [])]
            grid = subfigure.add_gridspec(len(ratios), 1, height_ratios=ratios)
            for k, (panel, own) in enumerate(panels[part]):
                ax = subfigure.add_subplot(grid[k])
                # One share far below zero would hide all others.
                bounded = all(np.isfinite(one.least) for one in own)
                words = {one.name: one.beside_mark for one in own}
                measure_forest(rows, ax, words, -np.inf if bounded else LEAST)
                ax.set_title(panel.title, loc="left", fontweight="bold")
                values = [row.value for row in rows if row.metric in words]
                clipped = any(v is not None and v < LEAST for v in values)
                further = minus(f" (◂ below {LEAST})") if clipped else ""
                ax.set_xlabel(panel.axis + further)
        labels = network_labels(rows)
        handles = [
            Line2D([], [], color=c, marker="o", ms=3, linewidth=1, label=labels[model])
            for model, c in network_colours(rows).items()
        ]
        figure.legend(handles=handles, loc="outside upper left", frameon=False, ncols=3)
        over = dict.fromkeys(row.interval for row in rows if row.interval)
        shown = " ".join(metrics)
        notes = list(dict.fromkeys(w for name, w in DEFINED.items() if name in shown))
        if over:
            words_over = "; ".join(map(interval_over, over))
            notes.append(f"Lines: 95 % intervals over {words_over}.")
        finish(figure, notes, mark_of(row.origin or "" for row in rows))
        return save_figure(figure, path.with_suffix(""))[-1]


def measure_forest(
    rows: "Sequence[MeasureRow]", ax: "Axes", labels: dict[str, str], least: float
) -> "Axes":
    """Measures from top to bottom with their intervals, networks by colour.

    Parameters
    ----------
    rows : of any networks
    ax : axes to draw into
    labels : measures to show, from top to bottom, and what they are called
    least : values below it are drawn at the left edge as triangles
    """
    models = list(dict.fromkeys(row.model for row in rows))
    colours = network_colours(rows)
    by_place = {(row.metric, row.model): row for row in rows}
    for i, metric in enumerate(labels):
        for k, model in enumerate(models):
            row = by_place.get((metric, model))
            if row is not None:
                place = i + (k + 1) / (len(models) + 1) - 0.5
                _mark(ax, row, place, colours[model], least)
    for edge in range(1, len(labels)):
        ax.axhline(edge - 0.5, color="0.9", linewidth=0.6, zorder=0)
    _forest_axes(ax, list(labels.values()))
    return ax
