import io

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from ce_align.errors import ConfigError
from ce_align.names import printable
from ce_align.report.fitting import shortened
from ce_align.report.sheet import (
    UNBOUNDED,
    Column,
    Sheet,
    as_asked,
)

COLUMNS = (
    Column("metric", kind="text"),
    Column("model", keep=True),
    Column("value", form=".4f", kind="number", keep=True),
    Column("layer"),
    Column("note", "what is said of it", kind="text"),
    *(Column("n", extra=True), Column("seed", extra=True)),
)

texts = st.text(max_size=90) | st.sampled_from(
    ["[/bold]", "[red]a", ":leaves:", "a\nb", "\x1b[31mred", "名前" * 30, "‮abc", ""]
)
names = st.builds(
    "{}{}{}".format,
    st.sampled_from(["", "runs/", "runs/2026-11-28_a_long_prefix/"]),
    texts,
    st.sampled_from(["", "_l0.1", "_l0.3", "_with_a_long_end_of_its_name"]),
)
records = st.lists(
    st.fixed_dictionaries(
        {
            "model": names,
            "layer": names | st.none(),
            "metric": st.sampled_from(["bures", "decoding_ridge_hue"]),
            "value": st.floats(-1e6, 1e6) | st.none(),
            "note": texts | st.none(),
            "n": st.integers(0, 10**9),
            "seed": st.integers(0, 3),
        }
    ),
    min_size=1,
    max_size=8,
)


def lines_of(sheet, width):
    console = Console(file=io.StringIO(), width=width)
    console.print(sheet)
    return console.file.getvalue().split("\n")


def sheet_of(found, **settings):
    by = ("metric",)
    return Sheet(found, COLUMNS, "Title", by=by, effect=("value",), **settings)


@pytest.mark.slow
@given(records, st.integers(60, 220), st.booleans(), st.booleans())
def test_no_line_is_wider_than_the_terminal(found, width, full, noted):
    notes_of = (lambda record: [record["note"] or "none"]) if noted else (lambda _: [])
    sheet = sheet_of(found, notes_of=notes_of).asked(full=full)
    for line in lines_of(sheet, width):
        assert cell_len(line) <= width
        assert line.isprintable()


@given(st.lists(names, min_size=1, max_size=12), st.integers(1, 60))
def test_shortened_names_fit_and_are_different_if_the_names_are(found, width):
    found = [printable(name) for name in found]
    short = shortened(found, width)
    assume(short is not None)
    assert short.keys() == set(found)
    assert len(set(short.values())) == len(short)
    assert all(cell_len(text) <= width for text in short.values())
    assert all(short[name] == name for name in found if cell_len(name) <= width)


@given(st.sets(names.map(printable).map(str.strip), min_size=2, max_size=8))
def test_rows_of_different_names_never_look_alike(found):
    assume(all("…" not in name and name and name != "–" for name in found))
    columns = [Column("model", keep=True), Column("n", keep=True)]
    rows = [{"model": name, "n": 10**50} for name in sorted(found)]
    lines = lines_of(Sheet(rows, columns), 80)
    # A row ends where its number does; its name may take several lines.
    cells, name = [], ""
    for line in lines[2:]:
        if line[-51:] == f"1{'0' * 50}":
            cells.append(name)
            name = ""
        name += line[:27]
    assert len({*cells[1:], name}) == len(found)


@given(records, st.integers(60, 120))
def test_the_full_table_has_every_text_as_a_whole(found, width):
    shown = "".join("".join(lines_of(sheet_of(found).asked(full=True), width)).split())
    for record in found:
        for text in filter(None, (record["model"], record["layer"], record["note"])):
            inside = "".join(printable(text).split())
            in_lines = width >= cell_len(printable(text)) + 40
            assert inside in shown or not in_lines


def test_what_all_rows_share_stands_once_above_the_table():
    rows = [{"model": m, "value": v, "seed": 7} for m, v in (("a", 0.5), ("b", 0.7))]
    title, facts, heads, _, *body = lines_of(sheet_of(rows), 80)
    assert (title, facts) == ("Title", "seed 7")
    assert heads.split() == ["model", "value"]
    assert [line.split() for line in body[:2]] == [["b", "0.7000"], ["a", "0.5000"]]


def test_rows_of_one_comparison_share_a_heading_where_names_have_no_room():
    rows = [
        {"metric": metric, "model": f"a_network_of_a_long_name_{k}", "value": k, "n": n}
        for metric, n in (("a_measure_of_a_long_name", 4), ("another_measure", 8))
        for k in range(2)
    ]
    columns = [Column("metric"), Column("model", keep=True)]
    columns += [Column("value", keep=True), Column("n"), Column("none")]
    lines = lines_of(Sheet(rows, columns, by=("metric",), effect=("value",)), 60)
    assert lines[0].split() == ["model", "value"]
    assert lines[2] == "a_measure_of_a_long_name · n 4"
    assert [line.split()[-1] for line in lines[3:5]] == ["1", "0"]
    assert lines[5] == "another_measure · n 8"
    wide = lines_of(Sheet(rows, columns), UNBOUNDED)[-2]
    assert wide.split() == ["another_measure", "a_network_of_a_long_name_1", "1", "8"]


def test_a_heading_is_wrapped_only_where_its_words_have_no_room():
    columns = [Column("name", keep=True), Column("n", "two words", keep=True)]
    rows = [{"name": "a" * 30 + str(k), "n": k} for k in range(2)]
    for width, wrapped in ((42, False), (41, True), (30, True)):
        first = lines_of(Sheet(rows, columns), width)[0]
        assert first.endswith("two words") != wrapped


def test_columns_without_room_are_in_tables_below_that_name_their_rows_again():
    names = ("one", "two", "three")
    columns = [
        Column(name, kind="number", keep=True)
        for name in ("objective", "weight", *names)
    ]
    rows = [
        {"objective": o, "weight": w, **{n: f"{o}{w}{n}".ljust(30, ".") for n in names}}
        for o in ("a", "b")
        for w in (0, 1)
    ]
    lines = lines_of(Sheet(rows, columns), 90)
    heads = [line.split() for line in lines if line.startswith("objective")]
    keys = ["objective", "weight"]
    assert heads == [[*keys, *names[:2]], [*keys, names[2]]]
    for name in names:
        for row in rows:
            (line,) = (line for line in lines if row[name] in line)
            assert line.split()[:2] == [row["objective"], str(row["weight"])]


def test_long_words_of_texts_are_broken_at_their_hyphens_and_headings_in_three_lines():
    texts = [Column(f"text{k}", kind="text", keep=True) for k in range(4)]
    sign = Column("sign", "sign of it in the paper", keep=True)
    row = {f"text{k}": "spatial–photometric and further words" for k in range(4)}
    rows = [row | {"sign": sign} for sign in "+-"]
    lines = lines_of(Sheet(rows, [*texts, sign]), 80)
    assert lines[3].startswith("─")
    assert lines[4].split() == [*["spatial–"] * 4, "+"]


def test_columns_and_sorting_are_as_asked_for():
    rows = [
        {"model": m, "value": v, "seed": s}
        for m, v, s in (("a", 1.0, 2), ("b", None, 10), ("c", 3.0, 9))
    ]

    def firsts(**asked):
        (sheet,) = as_asked([sheet_of(rows)], **asked)
        return [line.split() for line in lines_of(sheet, 80)[3:-1]]

    assert firsts(columns=["seed", "model"], sort="-seed") == [
        ["10", "b"],
        ["9", "c"],
        ["2", "a"],
    ]
    assert [row[0] for row in firsts(columns=["value"], sort="value")] == [
        "1.0000",
        "3.0000",
        "–",
    ]
    with pytest.raises(ConfigError, match="no column 'modle'; the nearest are model"):
        as_asked([sheet_of(rows)], columns=["modle"])
    with pytest.raises(ConfigError, match="no column 'what'"):
        as_asked([sheet_of(rows)], sort="-what")


@pytest.mark.parametrize(("terminal", "sign"), [(True, "−"), (False, "-")])
def test_negative_numbers_have_signs_for_people_and_hyphens_for_programs(
    terminal, sign
):
    rows = [{"model": "a-b", "value": -0.5}, {"model": "c", "value": 0.25}]
    console = Console(file=io.StringIO(), width=60, force_terminal=terminal)
    console.print(Sheet(rows, COLUMNS))
    text = console.file.getvalue()
    assert f"{sign}0.5000" in text
    assert "a-b" in text
