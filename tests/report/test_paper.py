"""Every table and figure: what is drawn, byte for byte, and how it looks."""

import io
from pathlib import Path

import matplotlib.text
import numpy as np
import pytest
from PIL import Image, ImageFilter
from synthetic_rows import OWN_INPUTS

from ce_align.errors import ConfigError
from ce_align.report.paper import FIGURES, TABLES, build_table, draw
from ce_align.report.paper.files import csv_text, latex, markdown
from ce_align.report.paper.items import NothingToDraw
from ce_align.report.style import style

pytestmark = pytest.mark.slow

#: Written by write_golden.py beside this file.
GOLDEN = Path(__file__).parent / "golden"
#: Dots an inch of the golden images.
DPI = 50
#: Root mean square difference of blurred grey levels, of 255. Letters that another
#: version of freetype places elsewhere make about 1; a missing line more than 3.
TOLERANCE = 2.5


def pixels(figure):
    """A figure as an image, under a blur that hides how letters are drawn."""
    stream = io.BytesIO()
    with style():
        figure.savefig(stream, format="png", dpi=DPI)
    return Image.open(stream).convert("L")


def difference(first, second):
    blurred = [image.filter(ImageFilter.GaussianBlur(2)) for image in (first, second)]
    a, b = (np.asarray(image, float) for image in blurred)
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_what_it_was(drawn, name):
    golden = (GOLDEN / f"figure_{name}.csv").read_text()
    assert csv_text(drawn(name).data) == golden
    image = Image.open(GOLDEN / f"figure_{name}.png").convert("L")
    found = pixels(drawn(name).figure)
    assert found.size == image.size
    assert difference(found, image) < TOLERANCE


def test_a_line_that_is_missing_would_be_seen(synthetic):
    drawn = draw("5", synthetic)
    drawn.figure.axes[0].lines[0].remove()
    image = Image.open(GOLDEN / "figure_5.png").convert("L")
    assert difference(pixels(drawn.figure), image) > TOLERANCE


@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_what_it_was(synthetic, name):
    own = OWN_INPUTS.get(("table", name))
    table = build_table(name, own() if own else synthetic)
    texts = {"csv": csv_text(table.frame), "md": markdown(table), "tex": latex(table)}
    for suffix, text in texts.items():
        assert text == (GOLDEN / f"table_{name}.{suffix}").read_text(), suffix


def shown_texts(figure):
    """What is written, with the box of its letters in pixels."""
    renderer = figure.canvas.get_renderer()
    hidden = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            # Ticks beyond the limits of an axis exist, and are not drawn.
            drawn = {id(tick) for tick in axis._update_ticks()} if axes.axison else ()
            ticks = [tick for tick in axis.get_children() if hasattr(tick, "label1")]
            unseen = [tick for tick in ticks if id(tick) not in drawn]
            hidden |= {id(text) for tick in unseen for text in tick.findobj()}
            if not axes.axison:
                hidden.add(id(axis.label))
    for text in figure.findobj(matplotlib.text.Text):
        written = text.get_visible() and text.get_text().strip()
        if written and id(text) not in hidden:
            yield text, text.get_window_extent(renderer)


def assert_texts_lie_apart(figure):
    """No text of a figure that was drawn is cut, or lies on another."""
    texts = list(shown_texts(figure))
    width, height = figure.canvas.get_width_height()
    for text, box in texts:
        words = text.get_text()
        assert box.x0 > -2, words
        assert box.y0 > -2, words
        assert box.x1 < width + 2, words
        assert box.y1 < height + 2, words
    for k, (text, box) in enumerate(texts):
        for other, its in texts[k + 1 :]:
            across = min(box.x1, its.x1) - max(box.x0, its.x0)
            down = min(box.y1, its.y1) - max(box.y0, its.y0)
            # Boxes have room above letters, and around those that are oblique.
            oblique = text.get_rotation() % 90 and other.get_rotation() % 90
            apart = across < 2 or down < 3 or oblique
            assert apart, (text.get_text(), other.get_text())


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("name", FIGURES)
def test_no_text_is_cut_or_lies_on_another(drawn, name, columns):
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    with style():
        figure = drawn(name, columns).figure
        FigureCanvasAgg(figure).draw()
        assert_texts_lie_apart(figure)


@pytest.mark.parametrize("columns", [1, 2])
def test_a_figure_is_as_wide_as_its_columns(synthetic, columns):
    width = draw("2", synthetic, columns).figure.get_size_inches()[0]
    assert width == {1: 3.5, 2: 7.2}[columns]


def test_synthetic_rows_are_marked_in_figure_caption_and_notes(synthetic):
    drawn = draw("3", synthetic)
    assert "SYNTHETIC ROWS" in [text.get_text() for text in drawn.figure.texts]
    assert synthetic.remark in drawn.caption
    assert synthetic.remark in drawn.notes
    assert synthetic.remark in build_table("1", synthetic).notes


def test_names_that_do_not_exist_are_refused_with_those_that_do(synthetic):
    with pytest.raises(ConfigError, match="choose from 1, 2"):
        draw("9", synthetic)
    with pytest.raises(ConfigError, match="choose from 1, 2"):
        build_table("9", synthetic)
    with pytest.raises(ConfigError, match="1 or 2 columns"):
        draw("2", synthetic, 3)


def test_networks_of_one_recipe_have_no_other_backbones(synthetic):
    with pytest.raises(NothingToDraw, match="ce-align train --backbone"):
        draw("8", synthetic)
    with pytest.raises(NothingToDraw, match="ce-align transfer"):
        build_table("4", synthetic)
