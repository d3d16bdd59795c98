"""What tables and figures read from files, and the files that they become."""

import numpy as np
import pandas as pd
import pytest

from ce_align.errors import DataError
from ce_align.report.inputs import Inputs, read_others
from ce_align.report.paper import draw
from ce_align.report.paper.files import FigureConfig, TableConfig
from ce_align.report.style import save_figure
from ce_align.runner import run

pytestmark = pytest.mark.slow


def test_other_networks_are_ranked_with_ours(synthetic):
    drawn = draw("4", synthetic)
    scores = drawn.data.sort_values("rank")["score"].to_numpy()
    assert (np.diff(scores) <= 0).all()
    assert list(drawn.data["rank"]) == list(range(1, 82))
    own = synthetic.rows[synthetic.rows["model"] == "ce_mmcr_l0.2"]
    mean = own.loc[own["stage"] == "score", "value"].mean()
    (shown,) = drawn.data.loc[drawn.data["model"] == "ce_mmcr_l0.2", "score"]
    assert shown == pytest.approx(mean)


def test_scores_of_others_may_name_the_recording(synthetic):
    others = synthetic.others.assign(recording="set 3")
    inputs = Inputs(synthetic.rows, others=others)
    own = draw("4", inputs).data.dropna(subset=["recordings"])
    assert set(own["recordings"]) == {"set 3"}


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("name,score\na,1\n", "needs columns model and score, found name, score"),
        ("model,score\na,good\n", "'good' of a"),
        ("model,score,recording\na,1,x\nb,2,y\n", "several recordings"),
    ],
)
def test_scores_of_others_that_cannot_be_read_are_explained(tmp_path, text, match):
    path = tmp_path / "others.csv"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        read_others(path)


def test_histories_of_a_resumed_training_are_joined(tmp_path):
    for version, (start, loss) in enumerate([(0, 3.0), (4, 1.0)]):
        folder = tmp_path / "run" / "log" / f"version_{version}"
        folder.mkdir(parents=True)
        steps = np.arange(start, start + 6)
        table = pd.DataFrame({"step": steps, "loss": loss, "knn_top1": np.nan})
        table.to_csv(folder / "metrics.csv", index=False)
    inputs = Inputs.load(tmp_path / "results", runs=[tmp_path / "run"])
    drawn = draw("training", inputs)
    assert list(drawn.data["step"]) == list(range(10))
    assert list(drawn.data["value"]) == [3.0] * 4 + [1.0] * 6


def test_files_are_written_and_what_has_no_rows_is_named(tmp_path):
    configs = [
        FigureConfig(figure="1"),
        FigureConfig(figure="3"),
        TableConfig(table="5"),
    ]
    written = run(configs, tmp_path / "results", out=tmp_path / "out")
    assert {path.name for path in written.files} == {
        *(f"figure_1.{suffix}" for suffix in ("pdf", "svg", "png", "md", "csv")),
        *(f"table_5.{suffix}" for suffix in ("md", "tex", "csv")),
    }
    assert all(path.is_file() for path in written.files)
    ((name, error),) = written.failures
    assert name == "figure_3"
    assert "ce-align score" in str(error)
    pdf = (tmp_path / "out" / "figure_1.pdf").read_bytes()
    # Letters that can be searched, not shapes.
    assert b"/Type /Font" in pdf
    assert b"/Subtype /Type3" not in pdf
    svg = (tmp_path / "out" / "figure_1.svg").read_text()
    assert ">backbone</text>" in svg
    words = (tmp_path / "out" / "figure_1.md").read_text()
    assert "**Contrastive-equivariant self-supervised learning.** Two images" in words
    assert "Alternative text: " in words


def test_the_same_figure_is_the_same_file(tmp_path):
    texts = []
    for k in range(2):
        written = run(
            [FigureConfig(figure="1")], tmp_path / "results", out=tmp_path / str(k)
        )
        texts.append([path.read_bytes() for path in written.files])
    assert texts[0] == texts[1]


def test_a_figure_is_laid_out_once_for_all_its_files(synthetic, tmp_path, monkeypatch):
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    laid_out = []
    execute = ConstrainedLayoutEngine.execute
    monkeypatch.setattr(
        ConstrainedLayoutEngine,
        "execute",
        lambda self, figure: laid_out.append(figure) or execute(self, figure),
    )
    figure = draw("2", synthetic).figure
    before = figure.get_layout_engine(), figure.canvas, figure.dpi
    save_figure(figure, tmp_path / "figure")
    assert laid_out == [figure]
    # Whoever goes on with it finds it as it was.
    assert (figure.get_layout_engine(), figure.canvas, figure.dpi) == before
