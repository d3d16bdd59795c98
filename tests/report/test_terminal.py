import io

from rich.console import Console

from ce_align.report.terminal import comparison_tables, official_tables, score_tables
from ce_align.stages.official import OfficialRow
from ce_align.stages.scores import ScoreRow


def make_row(**changes):
    fields = {
        "model": "pixels",
        "metric": "predictivity",
        "value": 0.25,
        "config_id": "c",
        "recording": "simulated",
        "region": "IT",
        "layer": "pixels",
        "raw": 0.4,
        "error": 0.01,
        "ceiling": 0.64,
        "n_stimuli": 640,
        "n_neuroids": 96,
        "n_splits": 10,
        "regression": "pls",
        "seed": 1,
        "model_digest": "m",
        "recording_digest": "r",
    }
    return ScoreRow(**(fields | changes))


def shown(rows):
    return printed(score_tables(rows))


def printed(tables):
    stream = io.StringIO()
    console = Console(file=stream, width=200)
    for table in tables:
        console.print(table)
    return stream.getvalue()


def test_each_recording_has_a_table_with_its_ceiling():
    rows = [make_row(), make_row(recording="v4", ceiling=0.7), make_row(model="gabor")]
    text = shown(rows)
    assert text.count("┏") == 2
    assert "ceiling 0.6400" in text
    assert "ceiling 0.7000" in text
    assert text.index("gabor") < text.index("v4")


def test_a_table_without_ceiling_says_why_and_shows_the_raw_correlation():
    text = shown([make_row(ceiling=None, value=None)])
    assert "no repetitions" in text
    assert "0.4000" in text
    assert "None" not in text


def words(rows):
    """What is shown, whatever the width of the table."""
    return " ".join(shown(rows).split())


def test_a_table_says_what_is_behind_the_ceiling():
    few = make_row(ceiling_kind="variance", n_ceiling_stimuli=50)
    assert "ceiling 0.6400 (variance, from 50 of 640 stimuli)" in words([few])
    all_of_them = make_row(ceiling_kind="split-half", n_ceiling_stimuli=640)
    assert "ceiling 0.6400 (split-half), score" in words([all_of_them])


def test_notes_of_a_row_stand_below_the_table_and_its_score_is_marked():
    common = "1 of 4 neuroids are silent and left out: n1"
    above = "score 7.18 is above 1: raw² exceeds the ceiling"
    rows = [
        make_row(note=common),
        make_row(model="gabor", value=7.18, note=f"{common}; {above}"),
    ]
    assert words(rows).count(common) == 1
    assert f"[1] {above}" in words(rows)
    lines = {
        name: next(line for line in shown(rows).splitlines() if f"│ {name}" in line)
        for name in ("gabor", "pixels")
    }
    assert "7.1800 [1]" in lines["gabor"]
    assert "[1]" not in lines["pixels"]
    assert "[" not in shown([make_row()])


def test_a_table_without_a_ceiling_gives_the_reason_of_its_rows():
    note = "no score: Brain-Score's ceiling is computed another way"
    text = words([make_row(ceiling=None, value=None, note=note)])
    assert "no repetitions" not in text
    assert note in text


def test_a_ceiling_below_zero_is_shown_without_a_score_or_a_line():
    row = make_row(ceiling=-0.02, value=None, note="no score: the ceiling is -0.02")
    text = words([row])
    assert "-0.0200" in text
    assert "no score: the ceiling is -0.02" in text
    assert "raw² / ceiling" not in text


def make_official(**changes):
    names = ("model", "value", "config_id", "recording", "region", "layer", "raw")
    names += ("error", "ceiling", "model_digest", "recording_digest")
    fields = {name: getattr(make_row(), name) for name in names}
    own = {"metric": "brainscore", "benchmark": "B.IT-pls", "brainscore": "2"}
    return OfficialRow(**(fields | own | changes))


def test_a_comparison_of_two_kinds_of_ceiling_says_so():
    ours = make_row(ceiling_kind="variance")
    text = printed(comparison_tables([ours], [make_official(ceiling=0.7)]))
    assert "our ceiling is from their variance" in " ".join(text.split())
    ours = make_row(ceiling_kind="split-half")
    assert "variance" not in printed(comparison_tables([ours], [make_official()]))


def test_notes_of_official_rows_stand_below_their_table():
    row = make_official(value=7.18, note="score 7.18 is above 1")
    text = printed(official_tables([row]))
    assert "pixels pixels: score 7.18 is above 1" in " ".join(text.split())
