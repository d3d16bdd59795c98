"""Table 1 and the forest of correlations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ce_align.checks import counted, named_some
from ce_align.metrics.correlation import least_r
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
from ce_align.stages.quantities import quantities

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from ce_align.stages.correlate import CorrelationRow
    from ce_align.stages.measures import MeasureRow

__all__ = [
    *("FRAME", "correlation_forest", "figure_forest", "forest_axes"),
    *("mark_estimate", "save_correlations", "table_1"),
]

#: Numbers of a correlation, in the order of the rows behind tables and figures.
NUMBERS = (
    *("value", "low", "high", "abs_r", "r_squared", "spearman"),
    *("within", "within_low", "within_high", "held_out_r2", "p", "q"),
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
#: Fewer networks than these say little, and a figure says so.
FEW_NETWORKS = 10
#: As many letters of a recording's name above a panel.
LONGEST_NAME = 18
#: Places of the three beside each other.
ABOVE, BELOW = -0.25, 0.25
#: Height of one mark, and of title and axis, in inches.
MARK, FRAME = 0.11, 0.75


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
        notes.append(f"Replaced by later ones: {counted(n, 'correlation')}.")
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


def _few_words(rows: "pd.DataFrame") -> str:
    """What a reader must know of few networks; empty of many."""
    n = int(rows["n_networks"].min())
    if n >= FEW_NETWORKS:
        return ""
    return (
        f" {n} networks are few: |r| below {least_r(n):.2f} is what unrelated numbers "
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
        alt=f"Forest plot of {counted(len(data), 'correlation')}. The strongest is "
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
    chance = least_r(int(n))
    ax.axvspan(-chance, chance, color=CHANCE, linewidth=0, zorder=-1)
    for place, row in enumerate(rows):
        mark_estimate(ax, row, place + ABOVE, OVERALL, -1.0, hollow=not row.q < 0.05)
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
    forest_axes(ax, [measure_name(row.measure) for row in rows])
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


def forest_axes(ax: "Axes", labels: Sequence[str]) -> None:
    """Names from top to bottom, and a line at zero."""
    ax.axvline(0, color=GUIDE, linewidth=0.8, zorder=0)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.5, -0.5)
    ax.grid(visible=False)
    ax.tick_params(axis="y", length=0)
    ax.spines[["top", "right", "left"]].set_visible(False)


def mark_estimate(
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
