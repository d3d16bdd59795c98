"""The forest plot: every correlation with its interval."""

from ce_align.report.analysis_plots import FOREST_KEY, correlation_forest
from ce_align.report.drawing import completed
from ce_align.report.material import Drawn, Material, NothingToDraw
from ce_align.report.measure_names import measure_name
from ce_align.report.paper_tables import because, interval_words, latest_correlations
from ce_align.report.style import letter, new_figure, style

__all__ = ["figure_forest"]

#: Measures of the same kind as others, of which there are too many for a page.
LEFT_OUT = ("_floor", "_delta")
#: Parts of decoding that are shown beside its mean.
DECODED = ("_hue", "_weak", "_strong_only")


def figure_forest(material: Material, columns: int = 2) -> Drawn:
    """Correlation of measures with predictivity, a panel for each recording."""
    rows, notes = latest_correlations(material)
    if rows.empty:
        raise NothingToDraw(
            "the forest plot needs rows of `ce-align correlate`; run `ce-align score` "
            "and `ce-align analyze` for five networks, then `ce-align correlate`"
            f"{because(notes)}"
        )
    shown = [name for name in dict.fromkeys(rows["measure"]) if _is_shown(str(name))]
    n_rest = rows["measure"].nunique() - len(shown)
    if n_rest:
        notes.append(f"{n_rest} further measures are in the rows, not in the figure.")
    data = rows[rows["measure"].isin(shown)].reset_index(drop=True)
    recordings = list(dict.fromkeys(data["recording"]))
    across = min(len(recordings), 4 if columns == 2 else 2)
    down = -(-len(recordings) // across)
    with style():
        figure = new_figure(columns, down * (0.65 + 0.22 * len(shown)))
        axes = figure.subplots(down, across, squeeze=False, sharey=True).ravel()
        for k, (ax, recording) in enumerate(zip(axes, recordings, strict=False)):
            own = data[data["recording"] == recording].set_index("measure")
            placed = own.reindex(shown).rename_axis("measure").reset_index()
            correlation_forest(list(placed.itertuples()), ax)
            ax.set_xlabel("Pearson r")
            n = "/".join(map(str, sorted(set(own["n_networks"].astype(int)))))
            letter(ax, "", f"{recording}\n{n} networks")
            if k % across:
                ax.tick_params(axis="y", labelleft=False)
        for ax in axes[len(recordings) :]:
            ax.axis("off")
    strongest = data.iloc[int(data["abs_r"].argmax())]
    return completed(
        figure,
        data,
        material,
        [FOREST_KEY, *notes],
        title="Correlation of representational measures with predictivity",
        caption="Pearson r across networks, the same within objectives, and given "
        f"objective and λ; {interval_words(data)}; q is the false discovery rate of a "
        "permutation of networks within objectives.",
        alt=f"Forest plot of {len(data)} correlations. The strongest is "
        f"{strongest['value']:.2f}: {measure_name(strongest['measure'])} with "
        f"{strongest['recording']}.",
    )


def _is_shown(measure: str) -> bool:
    if measure.startswith("decoding_"):
        part = measure.removeprefix("decoding_ridge").removeprefix("decoding_ols")
        return part in ("", *DECODED)
    return not measure.endswith(LEFT_OUT)
