"""What a reader of a figure relies on: its numbers, words, letters and colours."""

import dataclasses
import re
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.colors import to_rgb
from matplotlib.text import Text
from synthetic_rows import row
from test_paper import assert_texts_lie_apart
from test_paper_cases import with_rows

from ce_align.report.inputs import Inputs
from ce_align.report.paper import FIGURES, TABLES, build_table, draw
from ce_align.report.paper.overview import network_points
from ce_align.report.select import colours_and_labels, network_colours
from ce_align.report.style import (
    FURTHER,
    OBJECTIVES,
    further_colours,
    objective_colour,
    style,
)
from ce_align.results import NetworkFacts

#: The column of the data that is drawn upwards, or as colour.
OTHERWISE = ("1", "6", "forest", "geometry", "overlap", "scores")
DRAWN = {"4": "score", "6": "distance", "networks": "y"}


def values_drawn(figure):
    """Heights of lines that have a label, and of dots, and colours of cells."""
    for ax in figure.axes:
        for line in ax.lines:
            if not line.get_label().startswith(("_", "√")):
                yield from line.get_ydata()
        for found in ax.collections:
            if isinstance(found, PathCollection):
                yield from found.get_offsets()[:, 1]
            elif isinstance(found, QuadMesh) and ax.get_label() != "<colorbar>":
                yield from np.ma.compressed(np.ma.masked_invalid(found.get_array()))


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in FIGURES if n not in OTHERWISE])
def test_the_csv_has_the_numbers_that_are_drawn(drawn, name):
    data = drawn(name).data[DRAWN.get(name, "value")]
    found = np.sort(np.asarray(list(values_drawn(drawn(name).figure)), float))
    np.testing.assert_allclose(found, np.sort(data.to_numpy(float)), rtol=1e-6)


@pytest.mark.slow
def test_the_csv_has_the_comparisons_and_correlations_that_are_drawn(drawn):
    figure, data = drawn("6").figure, drawn("6").data
    dots = [c.get_offsets() for ax in figure.axes for c in ax.collections]
    pairs = data[["baseline_distance", "distance"]].to_numpy()
    np.testing.assert_allclose(
        sorted(map(tuple, np.vstack(dots))), sorted(map(tuple, pairs))
    )
    for name in ("forest", "geometry", "overlap"):
        figure, data = drawn(name).figure, drawn(name).data
        cells = list(values_drawn(figure))
        lines = [line for ax in figure.axes for line in ax.lines]
        dots = [line.get_xdata() for line in lines if line.get_marker() == "o"]
        found = [*cells, *(x[0] for x in dots if len(x))]
        np.testing.assert_allclose(sorted(found), sorted(data["value"]), rtol=1e-6)


#: What is written in a figure or table, and what its caption then says.
DEFINED = {
    r"±": r"±.*(standard deviation|sd|interval)",
    r"√c\b": r"√ceiling, the r that a perfect",
    r"\bq\b": r"q: false discovery rate",
    r"excess": r"Excess: D_B − its floor, (the distance|both of halves)",
    r"Delta D_B|ΔD_B": r"ΔD_B",
    r"n = \d+ × \d+": r"n in a panel: comparisons × networks",
    r"given λ": r"given λ|given objective and λ",
    r"R\^2|R²": r"R²",
    r"[Ee]ffective rank": r"Effective rank: exponential",
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*FIGURES, *(f"table {n}" for n in TABLES)])
def test_a_caption_defines_what_is_written(drawn, otherwise, name):
    if name.startswith("table"):
        made = build_table(name.split()[1], otherwise)
        texts = made.shown.to_numpy().astype(str).ravel().tolist()
    else:
        made = drawn(name)
        texts = [text.get_text() for text in made.figure.findobj(Text)]
    words = "\n".join(texts)
    for shown, defined in DEFINED.items():
        if re.search(shown, words):
            assert re.search(defined, made.caption), shown


@pytest.mark.parametrize("name", ["3", "forest"])
def test_a_title_is_the_same_whatever_the_numbers(drawn, synthetic, name):
    rows = synthetic.rows.assign(value=-synthetic.rows["value"].to_numpy()[::-1])
    other = draw(name, with_rows(synthetic, rows))
    assert other.title == drawn(name).title


@pytest.mark.parametrize("name", FIGURES)
def test_no_title_states_a_result(drawn, name):
    words = "chang|improv|better|closer|higher|best|more|less|reduc|increas"
    assert not re.search(words, drawn(name).title)


def letters_of(figure):
    bold = [text for text in figure.findobj(Text) if text.get_weight() == "bold"]
    return [text.get_text() for text in bold if len(text.get_text()) == 1]


def test_panels_keep_their_letters_when_another_is_missing(synthetic):
    rows = synthetic.rows
    without = with_rows(synthetic, rows[rows["metric"] != "spatial_photometric"])
    made = draw("2", without)
    assert letters_of(made.figure) == ["A", "B", "D", "E"]
    assert "A, B, D: expected difference" in made.caption
    others = with_rows(synthetic, rows[~rows["model"].str.startswith("ce_mmcr")])
    assert letters_of(draw("3", others).figure) == ["B", "C"]


def test_negative_shares_of_variance_are_shown_below_a_line_at_zero(synthetic):
    rows = synthetic.rows.copy()
    weak = rows["metric"] == "decoding_ridge_weak"
    rows.loc[weak, ["value", "low", "high"]] -= 1
    made = draw("7", with_rows(synthetic, rows))
    first, second = made.figure.axes[:2]
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] < made.data["low"].min() < 0
    assert "Below the grey line (0) decoding is worse" in made.caption
    assert "Below the grey line" not in draw("7", synthetic).caption


def test_a_figure_of_few_networks_says_so(synthetic):
    rows = synthetic.rows.copy()
    rows["n_networks"] = rows["n_networks"].where(rows["n_networks"].isna(), 6)
    made = draw("forest", with_rows(synthetic, rows))
    assert "n = 6 (few)" in made.figure.axes[0].get_title(loc="left")
    # Student's t of r = .811 at 4 degrees of freedom is 2.776, its 97.5 % quantile.
    assert "6 networks are few: |r| below 0.81" in made.caption
    assert "are few" not in draw("forest", synthetic).caption


def test_the_band_of_the_online_probe_is_wilsons(synthetic):
    rows = synthetic.rows.copy()
    rows["n_validation"] = np.where(rows["metric"] == "probe_top1", 500, np.nan)
    made = draw("5", with_rows(synthetic, rows))
    p, n, z = made.data["value"].to_numpy() / 100, 500, 1.959964
    p = np.round(p * n) / n
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    np.testing.assert_allclose(made.data["low"], 100 * (middle - half), rtol=1e-6)
    np.testing.assert_allclose(made.data["high"], 100 * (middle + half), rtol=1e-6)
    assert "95 % interval over images" in made.caption
    table = build_table("3", with_rows(synthetic, rows))
    assert table.shown["λ = 0"].iloc[0] == "69.0 ± 4.0"


def test_points_of_networks_are_their_rows_with_and_without_an_objective(synthetic):
    found = network_points(synthetic)
    frame = found.frame.set_index("model")
    rows = synthetic.rows
    own = rows[rows["model"] == "ce_barlow_l0.3"]
    (measured,) = own.loc[own["metric"] == "class_class", "value"]
    (scored,) = own.loc[own["recording"] == "set 2", "raw"]
    assert frame.loc["ce_barlow_l0.3", "class_class"] == measured
    assert frame.loc["ce_barlow_l0.3", "predictivity, set 2"] == scored
    assert found.measures["class_class"] == "Class–class"
    assert found.scores["predictivity, set 2"] == "set 2"
    other = frame.loc["torchvision/resnet50"]
    assert other["label"] == "resnet50"
    assert other["objective"] is None
    assert other.notna()["predictivity, area IT"]
    assert frame["colour"].nunique() == len(frame)


@pytest.mark.slow
def test_names_as_long_as_real_ones_lie_apart(synthetic):
    layers = [f"blocks.{k}" for k in range(12)]
    places = {"freemanziemba2013-public": "V1", "majajhong2015-public": "V4"}
    places |= {"freemanziemba2013-public-v2": "V2", "li2026-it": "IT"}
    rows = [
        row("timm/vit_small_patch16_224", "predictivity", 0.5, recording=name)
        | {"region": region, "layer": layer, "raw": 0.1 * k, "error": 0.01}
        | {"stage": "score", "origin": "recorded", "config_id": f"{name}{k}"}
        for name, region in places.items()
        for k, layer in enumerate(layers)
    ]
    inputs = Inputs(pd.DataFrame(rows))
    renamed = dict(zip([f"set {k}" for k in range(1, 5)], places, strict=True))
    others = with_rows(synthetic, synthetic.rows.replace({"recording": renamed}))
    drawings = {"depth": inputs, "layers": inputs, "forest": others, "networks": others}
    for name, own in drawings.items():
        with style():
            figure = draw(name, own).figure
            FigureCanvasAgg(figure).draw()
            assert_texts_lie_apart(figure)


#: Machado, Oliveira and Fernandes (2009), severity 1, of linear red, green and blue.
BLINDNESS = {
    "none": np.eye(3),
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
}


def lab(colour, matrix):
    """CIE L*a*b* of a colour under D65, as it is seen with such eyes."""
    rgb = np.asarray(to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.asarray(matrix) @ linear, 0, 1)
    to_xyz = [
        [0.4124, 0.3576, 0.1805],
        [0.2126, 0.7152, 0.0722],
        [0.0193, 0.1192, 0.9505],
    ]
    xyz = np.asarray(to_xyz) @ seen / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("kind", BLINDNESS)
def test_objectives_are_told_apart_by_any_eyes(kind):
    colours = [*OBJECTIVES.values(), *FURTHER]
    seen = [lab(colour, BLINDNESS[kind]) for colour in colours]
    least = min(np.linalg.norm(a - b) for a, b in combinations(seen, 2))
    # A just noticeable difference is about 2.3.
    assert least > 10
    added = objective_colour("mine", ["mine"])
    assert added not in OBJECTIVES.values()


def test_an_untrained_network_has_no_colour_of_an_objective():
    facts = {"objective": "mmcr", "weight": 0.1}
    rows = pd.DataFrame(
        [{"model": name, **facts, "epochs": n} for name, n in (("a", 9), ("b", 0))]
    )
    looks = colours_and_labels(rows, {"a": "A", "b": "B"})
    assert [label for _, label in looks.values()] == ["A", "B"]
    assert looks["b"][0] == further_colours(1)[0]
    known = NetworkFacts(objective="mmcr", equivariance_weight=0.1, epochs=9)
    untrained = dataclasses.replace(known, epochs=0)
    colours = network_colours({"a": known, "b": untrained})
    assert list(colours.values()) == further_colours(2)


def layered(names, depths=None):
    rows = [
        row(
            "net",
            "predictivity",
            0.3,
            stage="score",
            recording="it",
            region="IT",
            layer=name,
            raw=0.5,
            error=0.01,
            regression="pls",
            n_splits=10,
            seed=1,
            recording_digest="d",
            model_digest="m",
            config_id=str(k),
            **({} if depths is None else {"layer_depth": depths[k]}),
        )
        for k, name in enumerate(names)
    ]
    return Inputs(rows=pd.DataFrame(rows))


def test_layers_stand_from_the_input_up_however_their_rows_came():
    named = draw("depth", layered(["b.10", "b.9", "b.2"])).data
    assert list(named["layer"]) == ["b.2", "b.9", "b.10"]
    inputs = layered(["tail", "stem", "stage", "stage.1"], [9, 1, 5, 5])
    told = draw("depth", inputs).data
    # A stage has the output of its last block.
    assert list(told["layer"]) == ["stem", "stage.1", "tail"]
    assert list(told["depth"]) == [0, 0.5, 1]


def test_the_layer_that_most_splits_chose_is_framed_and_the_best_stands_apart(drawn):
    drawn = drawn("layers")
    (ax, *_) = drawn.figure.axes
    frames = [patch.get_y() for patch in ax.patches if not patch.get_fill()]
    assert [int(y) for y in frames] == [0, 1, 2, 3]
    assert [label.get_text() for label in ax.get_yticklabels()][-1] == "best"
    chosen = drawn.data.set_index(["recording", "layer"])["chosen"]
    assert chosen["area V1", "layer1"] == 0.8
    assert chosen["area V2", "layer2"] == 0.9
    assert np.isnan(chosen["area V1", "layer4"])


def test_measures_and_scores_of_different_layers_are_said_to_be_so(synthetic):
    rows = synthetic.rows
    rows = rows.assign(layer=np.where(rows["stage"] == "analyze", "deep", "shallow"))
    notes = network_points(dataclasses.replace(synthetic, rows=rows)).notes
    said = "Different layers: measures are of deep, predictivity of shallow."
    assert said in notes
    # Of networks that only one of the two has, nothing is compared.
    scored = rows["stage"] == "score"
    unmeasured = ~rows["model"].isin(rows["model"][rows["stage"] == "analyze"])
    assert unmeasured[scored].any()
    rows = rows.assign(layer=np.where(scored & unmeasured, "complex", "deep"))
    notes = network_points(dataclasses.replace(synthetic, rows=rows)).notes
    assert not [note for note in notes if "Different layers" in note]
