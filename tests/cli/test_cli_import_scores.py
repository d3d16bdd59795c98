"""`ce-align import-scores`, and what the rows are good for."""

import csv
import json
import re

import numpy as np
import pytest

from ce_align.models.catalogue import PUBLISHED
from ce_align.results import ResultStore
from ce_align.stages import imported
from ce_align.stages.measures import AnalysisConfig, MeasureRow
from ce_align.stages.scores import ScoreConfig, ScoreRow

pytestmark = pytest.mark.slow

HEADER = "model,benchmark,score\n"


def write_table(path, benchmarks, scores, **further):
    """Scores of the published networks, by their names in Brain-Score."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["model", "benchmark", "score", *further])
        for entry, score in zip(PUBLISHED.values(), scores, strict=True):
            for benchmark in benchmarks:
                name = entry.brainscore_id or entry.name
                writer.writerow([name, benchmark, score, *further.values()])


def store_measures(folder, values):
    for k, (model, value) in enumerate(zip(PUBLISHED, values, strict=True)):
        config = AnalysisConfig(
            metric="bures", model=model, layer="avgpool", images="x"
        )
        row = MeasureRow(
            model=model,
            metric="spatial_photometric",
            value=value,
            config_id=f"m{k}",
            layer="avgpool",
            low=None,
            high=None,
            n_points=9,
            n_comparisons=9,
            n_units=9,
            baseline=None,
            images="x",
            interval=None,
            seed=0,
            model_digest=f"d{k}",
            images_digest="d",
            views_digest="v",
        )
        ResultStore(folder).put("analyze", f"m{k}", config, [row])


def store_score(folder, model, recording, value):
    config = ScoreConfig(model=model, recording=recording, layer="layer4")
    row = ScoreRow(
        model=model,
        metric="predictivity",
        value=value,
        config_id="s",
        recording=recording,
        region="IT",
        layer="layer4",
        raw=0.6,
        error=0.01,
        ceiling=0.8,
        n_stimuli=64,
        n_neuroids=9,
        n_splits=10,
        regression="pls",
        seed=1,
        model_digest="d0",
        recording_digest="r",
    )
    ResultStore(folder).put("score", "s", config, [row])


@pytest.fixture
def scores(rng):
    return np.round(rng.uniform(0.4, 0.6, len(PUBLISHED)), 4)


def test_correlation_is_with_the_imported_scores_and_says_so(
    ce_align, tmp_path, rng, scores
):
    benchmarks = ("MajajHong2015.IT-pls", "dicarlo.Sanghavi2020.IT-pls_v2")
    write_table(tmp_path / "board.csv", benchmarks, scores)
    measures = scores + rng.normal(0, 0.02, len(scores))
    store_measures(tmp_path / "results", measures)
    # One score of our own is of settings that are not known to be the same.
    store_score(tmp_path / "results", "ce_mmcr_l0", "majajhong2015", 0.9)
    status, out, err = ce_align("import-scores", "board.csv")
    assert (status, out) == (0, "")
    assert "majajhong2015 (MajajHong2015.IT-pls): 22 networks, scores 0.4" in err
    assert "44 rows, marked as imported, in results" in err
    status, out, err = ce_align("correlate", "--json")
    assert status == 0, err
    rows = json.loads(out)
    over_both = "mean of 2 recordings"
    expected = {"majajhong2015", "sanghavi2020", over_both}
    assert {row["recording"] for row in rows} == expected
    for row in rows:
        assert row["value"] == pytest.approx(np.corrcoef(scores, measures)[0, 1])
        assert row["n_networks"] == 22
        assert row["imported_from"] == "board.csv"
    assert "majajhong2015: scores are imported, from board.csv" in err
    assert "majajhong2015: 1 row of another recording or regression" in err
    status, out, err = ce_align("tables", "--which", "1")
    assert status == 0, err
    assert "\nImported: from a file of the user." in out


def drawn(folder, name):
    with (folder / "paper-figures" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_figures_show_imported_scores_and_are_marked(ce_align, tmp_path, scores):
    benchmarks = ["MajajHong2015.IT-pls"]
    write_table(tmp_path / "board.csv", benchmarks, scores)
    (tmp_path / "others.csv").write_text("model,score\na,0.1\nb,0.45\n")
    assert ce_align("import-scores", "board.csv")[0] == 0
    status, _, err = ce_align(
        "figures", "--which", "3", "--which", "4", "--others", "others.csv"
    )
    assert status == 0, err
    assert "figure_3, figure_4: Imported: from a file of the user." in err
    expected = dict(zip(PUBLISHED, scores, strict=True))
    bars = {row["networks"]: float(row["value"]) for row in drawn(tmp_path, "figure_3")}
    expected.pop("ce_barlow_l0.2_ep1000")  # trained otherwise than the 21
    assert bars == pytest.approx(expected)
    assert {row["origin"] for row in drawn(tmp_path, "figure_3")} == {"imported"}
    assert len(drawn(tmp_path, "figure_4")) == 24


def test_the_next_release_knows_the_same_table_by_the_same_id(
    ce_align, tmp_path, scores, monkeypatch
):
    write_table(tmp_path / "b.csv", ["MajajHong2015.IT-pls"], scores)
    made = imported._row
    for version in ("1.0.0", "9.0.0"):
        later = {"version": version}
        monkeypatch.setattr(
            imported,
            "_row",
            lambda *args, later=later: made(*args).model_copy(update=later),
        )
        assert ce_align("import-scores", "b.csv")[0] == 0
    assert len(list((tmp_path / "results" / "imported").glob("*.json"))) == 1


def test_a_stated_ceiling_gives_the_raw_correlation(ce_align, tmp_path, scores):
    write_table(tmp_path / "b.csv", ["SanghaviMurty2020.IT-pls"], scores, ceiling=0.8)
    assert ce_align("import-scores", "b.csv")[0] == 0
    assert ce_align("figures", "--which", "3")[0] == 0
    for row in drawn(tmp_path, "figure_3"):
        assert float(row["value"]) ** 2 / 0.8 == pytest.approx(float(row["score"]))


def test_the_report_leads_back_to_the_table(ce_align, tmp_path, scores):
    write_table(tmp_path / "board.csv", ["MajajHong2015.IT-pls"], scores)
    assert ce_align("import-scores", "board.csv")[0] == 0
    assert ce_align("report", "--out", "report.html")[0] == 0
    page = re.sub("<[^>]*>", "", (tmp_path / "report.html").read_text())
    assert "Imported scores" in page
    assert "ce-align import-scores board.csv" in page
    assert "Imported. All rows are from a file of the user" in page


def test_what_was_not_scored_is_named_and_left_out(ce_align, tmp_path):
    lines = "alexnet,MajajHong2015.IT-pls,0.4\nother,MajajHong2015.V4-pls,X\n,,\n"
    (tmp_path / "b.csv").write_text("\ufeff" + HEADER + lines)
    status, out, err = ce_align("import-scores", "b.csv", "--json")
    assert status == 0
    (row,) = json.loads(out)
    assert (row["model"], row["value"], row["region"]) == ("alexnet", 0.4, "IT")
    assert "no score of other × MajajHong2015.V4-pls" in err


def test_a_submission_of_ones_own_is_known_by_its_digest(ce_align, tmp_path):
    from ce_align.brainscore.submission import default_identifier

    store_score(tmp_path / "results", "runs/mine", "simulated", 0.5)
    identifier = default_identifier("runs/mine", "d0")
    (tmp_path / "b.csv").write_text(
        f"{HEADER}{identifier},MajajHong2015.IT-pls,0.4\n"
        "ce_barlow_l0_2_ep1000,MajajHong2015.IT-pls,0.5\n"
    )
    _, out, _ = ce_align("import-scores", "b.csv", "--json")
    rows = json.loads(out)
    names = [row["model"] for row in rows]
    assert names == ["runs/mine", "ce_barlow_l0.2_ep1000"]
    # By which it is joined with other rows, whatever has its name by then.
    assert [row["model_digest"] for row in rows] == ["d0", None]


def test_of_two_tables_the_one_imported_last_counts(ce_align, tmp_path, scores):
    store_measures(tmp_path / "results", scores)
    for sign in (-1, 1):
        write_table(tmp_path / "b.csv", ["majajhong2015"], sign * scores)
        assert ce_align("import-scores", "b.csv")[0] == 0
        # Times are kept to the second.
        for path in (tmp_path / "results" / "imported").iterdir():
            if sign < 0:
                document = json.loads(path.read_text())
                del document["digest"]
                text = json.dumps(document).replace('"created": "2', '"created": "1')
                path.write_text(text)
    (row,) = json.loads(ce_align("correlate", "--json")[1])
    assert row["value"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs the columns model, benchmark, score, each once, found none"),
        ("model,score\n", "each once, found model, score"),
        ("model,benchmark,score,score\n", "each once"),
        (HEADER, "holds no score"),
        (HEADER + "a,MajajHong2015.IT-pls,X\n", "holds no score"),
        (HEADER + "a,MajajHong2015.IT-pls\n", "line 2 has 2 cells, expected 3"),
        (HEADER + ",MajajHong2015.IT-pls,0.3\n", "line 2 names no model"),
        (HEADER + "a,MajajHong2015.IT-pls,high\n", "line 2: the score 'high' is no"),
        (HEADER + "a,MajajHong2015.IT-pls,inf\n", "line 2: the score 'inf' is no"),
        (HEADER + "a,MajajHong2015.IT-pls,53.7\n", "divide percentages by 100"),
        (
            HEADER + "a,MajajHong2015.IT-psl,0.3\nb,average_vision,0.3\n",
            "no benchmark 'MajajHong2015.IT-psl' (line 2), 'average_vision' (line 3); "
            "nearest: MajajHong2015.IT-pls",
        ),
        (
            HEADER + "a,MajajHong2015.IT-pls,0.3\na,majajhong2015,0.4\n",
            "line 3: a has another score on MajajHong2015.IT-pls, 0.3",
        ),
        (
            "model,benchmark,score,raw,ceiling\na,majajhong2015,0.3,0.9,0.8\n",
            "raw² / ceiling is 1.0125, but the score 0.3000",
        ),
        (
            "model,benchmark,score,ceiling\na,majajhong2015,0.3,0\n",
            "a ceiling lies above 0 and up to 1, found 0",
        ),
        ('model,benchmark,score\n"a', "cannot read b.csv as CSV"),
    ],
)
@pytest.mark.brainscore
def test_fault_of_a_table_is_one_line_and_stores_nothing(
    text, message, ce_align, tmp_path
):
    (tmp_path / "b.csv").write_text(text)
    status, out, err = ce_align("import-scores", "b.csv")
    assert (status, out) == (2, "")
    assert message in err
    assert err.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [("absent.csv", "cannot read absent.csv as CSV"), (".", ". is a folder")],
)
def test_a_file_that_cannot_be_read_is_one_line(name, message, ce_align):
    status, _, err = ce_align("import-scores", name)
    assert status == 2
    assert message in err


@pytest.mark.real
@pytest.mark.brainscore
def test_public_scores_of_many_networks(ce_align, real_data, tmp_path):
    source = next((real_data / "brainscore_scores").glob("*.csv"))
    scores = {}
    with source.open(newline="") as file, (tmp_path / "b.csv").open("w") as table:
        table.write(HEADER)
        for row in csv.DictReader(file):
            if row["benchmark_name"].endswith(("IT-pls", "V4-pls", "V1-pls")):
                names = row["model_id"], row["benchmark_name"]
                if scores.setdefault(names, row["score"]) == row["score"]:
                    table.write(",".join((*names, row["score"])) + "\n")
    status, out, err = ce_align("import-scores", "b.csv", "--json")
    assert status == 0, err
    rows = json.loads(out)
    assert len(rows) == len(scores) > 900
    public = [r["value"] for r in rows if r["recording"] == "majajhong2015-public"]
    assert (round(min(public), 3), round(max(public), 3)) == (0.023, 0.579)
    assert {row["region"] for row in rows} == {"IT", "V4", "V1"}
