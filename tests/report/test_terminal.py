import io

from rich.console import Console

from ce_align.report.terminal import comparison_sheets, row_sheets, sheets_of
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


def printed(rows, width=80):
    return text_of(row_sheets(rows), width)


def text_of(sheets, width=80):
    stream = io.StringIO()
    console = Console(file=stream, width=width)
    for sheet in sheets:
        console.print(sheet)
    return stream.getvalue()


def words(rows):
    """What is shown, wherever lines end."""
    return " ".join(printed(rows).split())


def test_each_recording_has_a_table_with_its_ceiling():
    rows = [make_row(), make_row(recording="v4", ceiling=0.7), make_row(model="gabor")]
    text = printed(rows)
    assert text.count("───\n") == 2
    assert "ceiling 0.6400" in text
    assert "ceiling 0.7000" in text
    assert text.index("gabor") < text.index("v4")


def test_a_ceiling_stands_above_only_if_all_rows_have_it():
    text = printed([make_row(), make_row(model="gabor", ceiling=0.5)])
    above, below = text.split("───\n")
    assert "ceiling 0." not in above
    assert {"0.6400", "0.5000"} <= set(below.split())


def test_a_table_without_ceiling_says_why_and_shows_the_raw_correlation():
    text = printed([make_row(ceiling=None, value=None)])
    assert "no repetitions" in text
    assert "0.4000" in text
    assert "None" not in text


def test_a_table_says_what_is_behind_the_ceiling():
    few = make_row(ceiling_kind="variance", n_ceiling_stimuli=50)
    for told in ("ceiling by variance", "ceiling from 50 stimuli", "640 stimuli"):
        assert told in words([few])
    all_of_them = make_row(ceiling_kind="split-half", n_ceiling_stimuli=640)
    assert "ceiling by split-half" in words([all_of_them])
    assert "ceiling from" not in words([all_of_them])


def test_scores_stand_from_the_best_to_the_worst_and_those_without_one_last():
    values = {"a": 0.1, "b": None, "c": 0.3, "d": -0.2}
    text = printed([make_row(model=name, value=v) for name, v in values.items()])
    assert [line[0] for line in text.split("───\n")[1].splitlines()[:4]] == list("cadb")


def test_animals_and_windows_of_one_network_stay_together():
    rows = [
        make_row(model=model, value=value, animal=animal)
        for model, value in (("pixels", 0.2), ("gabor", 0.3))
        for value, animal in ((value, None), (value - 0.2, "a"), (value + 0.5, "b"))
    ]
    lines = [line.split() for line in printed(rows).splitlines()]
    shown = [line[:2] for line in lines if {"all", "a", "b"} & set(line[:2])]
    assert shown == [
        ["gabor", "all"],
        *[[n, s] for n, s in (("a", "0.1000"),)],
        ["b", "0.8000"],
        ["pixels", "all"],
        ["a", "0.0000"],
        ["b", "0.7000"],
    ]


def test_tables_of_several_correlations_are_not_mixed():
    fields = {"model": "all", "metric": "pearson", "value": 0.5, "measure": "bures"}
    fields |= {"recording": "it", "n_networks": 6, "p": 0.1, "stage": "correlate"}
    rows = [
        {**fields, "config_id": name * 9, "q": q}
        for name, q in (("a", 0.1), ("b", 0.2))
    ]
    first, second = sheets_of(rows)
    assert ("aaaaaaaa" in first.title, "bbbbbbbb" in second.title) == (True, True)
    assert "config_id" not in next(sheets_of(rows[:1])).title


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
        name: next(line for line in printed(rows).splitlines() if line.startswith(name))
        for name in ("gabor", "pixels")
    }
    assert "7.1800  [1]" in lines["gabor"]
    assert "[1]" not in lines["pixels"]
    assert "[" not in printed([make_row()])


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
    text = text_of(comparison_sheets([ours], [make_official(ceiling=0.7)]))
    assert "our ceiling is from their variance" in " ".join(text.split())
    ours = make_row(ceiling_kind="split-half")
    assert "variance" not in text_of(comparison_sheets([ours], [make_official()]))


def test_notes_of_official_rows_stand_below_their_table():
    row = make_official(value=7.18, note="score 7.18 is above 1")
    text = printed([row])
    assert "score 7.18 is above 1" in " ".join(text.split())
