"""The report: one valid, accessible page without a request, where numbers lead home."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import html5lib
import numpy as np
import pandas as pd
import pytest
from synthetic_rows import all_rows
from waiting import LIMIT

from ce_align.config import StageConfig
from ce_align.errors import DataError
from ce_align.report.inputs import Inputs
from ce_align.report.page import parts, write_report
from ce_align.report.page.summary import findings
from ce_align.results import ResultStore, Row

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("letters_as_outlines")]

HTML = "{http://www.w3.org/1999/xhtml}"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
HOSTILE = "<script>alert('x')</script>\"&"


class Settings(StageConfig):
    model: str


class AnyRow(Row, extra="allow"):
    stage: str = "any"


def put_rows(rows, folder):
    """Store rows of a table, those of one identity in one file."""
    store = ResultStore(folder)
    clean = rows.astype(object).where(rows.notna(), None)
    for (stage, config_id), group in clean.groupby(["stage", "config_id"], sort=False):
        found = [
            AnyRow(**{k: v for k, v in row.items() if k == "value" or v is not None})
            for row in group.drop(columns="stage").to_dict("records")
        ]
        config_id = config_id.replace(" ", "-")
        store.put(stage, config_id, Settings(model=found[0].model), found)
    return store


def write(results, **options):
    out = results.parent / "report.html"
    missing = write_report(results, out, **options)
    return out.read_text(), missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture
def results(synthetic, folder):
    """Rows of two objectives at three weights, of every stage; made once."""
    if not (folder / "results").exists():
        rows = synthetic.rows
        named = r"ce_(mmcr|simclr)_l0(\.[15])?|pixels|torchvision/resnet50|21 networks"
        put_rows(rows[rows["model"].str.fullmatch(named)], folder / "results")
    return folder / "results"


@pytest.fixture
def text(results):
    """The page of these rows, written once."""
    page = results.parent / "report.html"
    return page.read_text() if page.exists() else write(results)[0]


@pytest.fixture
def tree(text):
    return parsed(text)


@cache
def parsed(text):
    """Document as a tree; a fault of the grammar is an error."""
    return html5lib.HTMLParser(strict=True).parse(text)


def links(tree):
    """Addresses by the text that shows them."""
    return [(a.get("href"), "".join(a.itertext())) for a in tree.iter(f"{HTML}a")]


def test_the_page_follows_the_grammar_of_html(text):
    assert parsed(text).tag == f"{HTML}html"


def test_the_page_asks_for_nothing_but_itself(text, tree):
    for element in tree.iter():
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            value = element.get(name)
            assert value is None or value.startswith(("#", "data:")), value
    assert not re.search(r"@import|url\((?!#)", text)
    assert "default-src 'none'" in text


def test_every_identifier_is_unique_and_every_link_has_its_target(tree):
    names = [e.get("id") for e in tree.iter() if e.get("id") is not None]
    assert len(names) == len(set(names))
    targets = {href[1:] for href, _ in links(tree) if not href.startswith("data:")}
    assert targets <= set(names)
    references = {
        word for e in tree.iter() for word in (e.get("aria-labelledby") or "").split()
    }
    assert references <= set(names)


def test_figures_stand_in_the_page_with_words_for_who_cannot_see_them(tree):
    every = [e for e in tree.iter() if e.tag.endswith("}svg")]
    drawings = [e for e in every if e.get("class") == "plot"]
    assert len(drawings) >= 4
    for drawing in drawings:
        title, description = list(drawing)[:2]
        assert drawing.get("role") == "img"
        assert drawing.get("aria-labelledby") == f"{title.get('id')} " + (
            description.get("id")
        )
        assert len(description.text) > 20


def test_a_value_leads_to_its_settings_digests_and_command(results, tree):
    rows = ResultStore(results).load("score")
    wanted = rows[(rows["recording"] == "set 2") & (rows["model"] == "ce_mmcr_l0.1")]
    [wanted] = wanted.to_dict("records")
    identity = wanted["config_id"]
    [shown] = {
        content
        for href, text in links(tree)
        if text == f"{wanted['value']:.4f}"
        and identity in (content := source_text(tree, href[1:]))
    }
    expected = ("ce_mmcr_l0.1", "environment", "numpy", "ce-align score --model")
    digests = (wanted["model_digest"], wanted["recording_digest"], wanted["created"])
    for word in (*expected[:2], expected[3], *digests):
        assert word in shown, word


@cache
def identified(tree):
    return {e.get("id"): e for e in tree.iter() if e.get("id") is not None}


def source_text(tree, name):
    return " ".join("".join(identified(tree)[name].itertext()).split())


def test_a_number_in_a_table_leads_to_its_row(results, tree):
    rows = ResultStore(results).load("correlate")
    wanted = rows[(rows["measure"] == "class_class") & (rows["recording"] == "set 3")]
    [body] = [e for e in tree.iter() if e.get("id") == "table-1-data"]
    found = [href for href, _ in links(body)]
    texts = [source_text(tree, href[1:]) for href in found]
    value = f"{float(wanted['abs_r'].iloc[0]):.4f}"
    assert any("class_class" in t and "set 3" in t and value in t for t in texts)


def test_a_printed_correlation_leads_to_the_row_of_its_measure_and_recording(tree):
    [table] = [e for e in tree.iter() if e.get("id") == "table-1-printed"]
    head, *lines = [list(line) for line in table.iter(f"{HTML}tr")]
    recordings = ["".join(cell.itertext()) for cell in head]
    measures = {"Class–class": "class_class", "Spatial–photometric": "spatial_"}
    found = {"".join(line[0].itertext()): line for line in lines}
    for title, measure in measures.items():
        for recording, cell in zip(recordings[1:], found[title][1:], strict=True):
            [link] = cell.iter(f"{HTML}a")
            row = source_text(tree, link.get("href")[1:])
            assert measure in row
            assert recording in row


def executed(tree):
    """Scripts that run; others hold data."""
    return [s for s in tree.iter(f"{HTML}script") if s.get("type") is None]


@pytest.mark.usefixtures("few_figures")
def test_names_of_others_are_shown_and_never_executed(tmp_path):
    row = AnyRow(
        model=HOSTILE,
        metric=HOSTILE,
        value=0.123,
        config_id=HOSTILE,
        recording=HOSTILE,
        region=HOSTILE,
        layer=HOSTILE,
        raw=0.4,
        error=0.1,
        ceiling=0.9,
        regression="pls",
        recording_digest=HOSTILE,
    )
    store = ResultStore(tmp_path / "results")
    path = store.put("score", "a", Settings(model=HOSTILE), [row])
    document = json.loads(path.read_text())
    document["environment"] = {HOSTILE: HOSTILE}
    document["config_id"] = HOSTILE
    del document["digest"]
    path.write_text(json.dumps(document))
    text, _ = write(tmp_path / "results", title=HOSTILE)
    tree = parsed(text)
    assert len(executed(tree)) == 1
    assert HOSTILE in "".join(tree.itertext())
    assert "<script>alert" not in text
    # Nothing was trained, so that a schematic of trainings says nothing.
    assert not [e for e in tree.iter() if e.get("id") == "figure-1"]


def test_only_the_page_s_own_script_may_run(tree):
    [script] = executed(tree)
    digest = base64.b64encode(hashlib.sha256(script.text.encode()).digest()).decode()
    [policy] = [e.get("content") for e in tree.iter() if e.get("http-equiv")]
    assert f"script-src 'sha256-{digest}'" in policy


def warned(results):
    tree = parsed(write(results)[0])
    [box] = [e for e in tree.iter() if e.get("class") == "warnings"]
    return " ".join("".join(box.itertext()).split())


@pytest.mark.usefixtures("no_figures")
def test_the_reader_is_warned_of_what_limits_the_numbers(synthetic, tmp_path):
    rows = synthetic.rows
    rows = rows[rows["stage"].isin(["score", "analyze", "correlate"])].copy()
    correlated = rows["stage"] == "correlate"
    rows.loc[correlated, "n_networks"] = 5
    scored = rows.index[rows["stage"] == "score"]
    rows.loc[scored[:2], "recording"] = "simulated"
    rows.loc[scored[2], "recording"] = "mine.nc"
    rows.loc[scored[3], "value"] = np.nan
    measured = rows.index[rows["metric"] == "class_class"]
    rows.loc[measured[0], "n_points"] = 7
    rows.loc[measured[0], "version"] = "9.9"
    rows["note"] = None
    chance = "the ceiling is not told from chance (p = 0.3)"
    rows.loc[scored[5:7], "note"] = chance
    rows.loc[scored[7], "note"] = f"{chance}; score 7.18 is above 1"
    put_rows(rows, tmp_path / "results")
    said = warned(tmp_path / "results")
    for words in (
        "Simulated. 2 of",
        "Imported. 1 of",
        "Few networks. Correlations are over 5",
        "Differing n. The number of points differs within class_class;",
        "No ceiling. Without repetitions set 4",
        "Several versions. Rows are of ce_align 0, 9.9",
        f"Noted. 3 of {len(rows)} rows: {chance}.",
    ):
        assert words in said, said
    # How many are above 1 is said once for all.
    assert "7.18" not in said


@pytest.mark.usefixtures("few_figures")
def test_rows_without_a_fault_need_no_warning(synthetic, tmp_path):
    rows = synthetic.rows
    put_rows(rows[rows["stage"] == "correlate"], tmp_path / "results")
    assert warned(tmp_path / "results").startswith(
        "What limits it, failed or is missing Not drawn. "
    )


@pytest.mark.usefixtures("few_figures")
def test_what_cannot_be_drawn_is_named_with_the_reason(synthetic, tmp_path):
    rows = synthetic.rows
    put_rows(rows[rows["stage"] == "transfer"], tmp_path / "results")
    text, missing = write(tmp_path / "results")
    assert "Figure 3" in dict(missing)
    assert "Not drawn" in text


def test_the_summary_names_the_best_network(results, tree):
    scores = ResultStore(results).load("score")
    scores = scores[scores["recording"] == "set 1"]
    best = scores.sort_values("value").iloc[-1]
    [found] = [e for e in tree.iter() if e.get("class") == "findings"]
    said = " ".join("".join(found.itertext()).split())
    label = Inputs.load(results).labels[best["model"]]
    assert label != best["model"]
    assert f"Highest score on set 1 {best['value']:.4f} {label}, " in said


def correlated(synthetic, **columns):
    """What the page finds in rows of correlations with other numbers."""
    rows = synthetic.rows[synthetic.rows["stage"] == "correlate"].assign(**columns)
    found = findings(rows.assign(objective=None, equivariance_weight=None), {})
    return [f for f in found if "predictivity" in f.label or "correlation" in f.label]


def test_a_correlation_is_a_headline_only_if_it_holds_after_correction(synthetic):
    (none,) = correlated(synthetic, q=0.2, n_networks=21)
    assert none.text == "Nothing can be told at n = 21"
    # scipy's t with 19 degrees of freedom: r of a p of .05.
    assert "cannot tell |r| below 0.43 from 0" in none.detail
    (held,) = correlated(synthetic, q=0.01, n_networks=21)
    assert "hold after correction" in held.label and held.text.startswith("r = ")
    assert "q = 0.01, n = 21 networks" in held.detail


def test_a_gain_is_told_from_none_only_by_enough_trainings():
    def rows(n_seeds):
        return pd.DataFrame(
            {
                **dict.fromkeys(("metric", "layer", "recording", "regression"), "a"),
                "stage": "score",
                "model": f"{weight} {seed}",
                "objective": "mmcr",
                "equivariance_weight": weight,
                "network_seed": seed,
                "created": "",
                "value": 0.4 + weight * (0.2 + 0.002 * seed),
                "raw": 0.5,
                "ceiling": 0.9,
                "error": 0.01,
                "augmentation": None,
                "origin": "recorded",
                "config_id": "",
            }
            for weight in (0.0, 0.5)
            for seed in range(n_seeds)
        ).assign(
            backbone=None,
            epochs=None,
            pretraining=None,
            augmentation=None,
            label=None,
            weighting=None,
        )

    (few, _), (enough, _) = (
        findings(rows(n), {name: name for name in rows(n)["model"]}) for n in (3, 8)
    )
    same = rows(3).assign(value=0.4)
    alike, _ = findings(same, {name: name for name in same["model"]})
    assert "a +0.0000 (n = 3" in alike.detail
    assert few.text == "Not told from 0" and "(n = 3, q = 0.25)" in few.detail
    assert enough.text == "+0.1035"
    assert "over n = 8 trainings" in enough.detail and "q = 0.0078" in enough.detail


def test_methods_and_references_are_of_what_is_stored(text):
    assert "partial least squares over 10 random splits" in text
    for key in ("yerxa2024contrastive", "schrimpf2018brainscore", "bhatia2019bures"):
        assert key in text
    assert "hoerl1970ridge" not in text


def test_pairs_of_networks_make_a_headline_only_where_they_are_told_apart():
    def rows(stage, metric, **columns):
        made = pd.DataFrame({"value": [0.1, -0.3], **columns})
        return made.assign(
            stage=stage,
            metric=metric,
            model=["a", "a"],
            other=["b", "c"],
            recording="set",
            regression="pls",
            config_id="one",
            interval="stimuli and neuroids",
            n_stimuli=640,
            n_neuroids=50,
            low=[0.0, -0.4],
            high=[0.2, -0.2],
            created="",
            animal=None,
        )

    labels = {name: name.upper() for name in "abc"}
    apart = rows("compare", "difference_raw", p=[0.3, 0.005])
    [found] = findings(apart, labels)
    assert "1 of 2 told apart" in found.label
    assert found.text == "−0.3000"
    assert "A minus that of C on set: −0.3000 [−0.4000, −0.2000]" in found.detail
    assert "640 stimuli and 50 neuroids), q = 0.01" in found.detail
    # A later comparison of others hides none; one of the same pair takes its place.
    later = apart.iloc[:1].assign(config_id="two", created="1")
    [found] = findings(pd.concat([apart, later.assign(other="d")]), labels)
    assert "1 of 3 told apart" in found.label
    assert found.detail.endswith("q = 0.015")
    turned = later.assign(model="c", other="a", p=0.9)
    [found] = findings(pd.concat([apart, turned]), labels)
    assert found.text == "Not told apart"
    assert found.detail.startswith("2 pairs, over stimuli and neuroids")
    # Other regressions and intervals are families of their own.
    ridge = later.assign(regression="ridge", n_neuroids=40)
    [first, second] = findings(pd.concat([apart, ridge]), labels)
    assert "1 of 2 told apart" in first.label
    assert second.detail.startswith("A and B, ridge, over stimuli and neuroids")
    [_, second] = findings(pd.concat([apart, later.assign(interval="n")]), labels)
    assert second.detail.startswith("A and B, over n (640 stimuli")
    fewer = later.assign(other="d", n_neuroids=40)
    [found] = findings(pd.concat([apart, fewer]), labels)
    assert "(640 stimuli and 40 to 50 neuroids)" in found.detail
    [found] = findings(apart.assign(p=0.2), labels)
    assert found.text == "Not told apart"
    # q of an overlap is over the pairs that are there.
    overlap = rows("overlap", "overlap_difference", p=[0.04, 0.9])
    [found] = findings(overlap, labels)
    assert found.text == "Not told apart"
    assert found.detail.endswith("smallest q = 0.08")
    [found] = findings(overlap.iloc[:1], labels)
    assert "R² of A minus that of B" in found.detail


def test_only_scores_that_were_not_compared_are_said_not_to_be_tested():
    facts = "equivariance_weight weighting recipe objective backbone epochs pretraining"
    columns = f"{facts} augmentation network_seed training_seed label other error"
    scores = pd.DataFrame({"model": ["a", "b"], "value": [0.1, 0.2]}).assign(
        stage="score",
        metric="predictivity",
        created="",
        recording="set",
        regression="pls",
        layer="x",
        raw=0.3,
        ceiling=1.0,
        **dict.fromkeys(columns.split()),
    )
    labels = {"a": "A", "b": "B"}
    [found] = findings(scores, labels)
    assert found.detail.endswith(
        "highest of 2 networks, whose differences are not tested"
    )
    compared = scores.iloc[:1].assign(
        stage="compare",
        metric="difference_raw",
        other="b",
        p=0.9,
        interval="stimuli",
        n_stimuli=9,
        n_neuroids=9,
        low=0.0,
        high=1.0,
    )
    *_, found = findings(pd.concat([scores, compared]), labels)
    assert found.detail.endswith("highest of 2 networks")
    others = compared.assign(regression="ridge")
    *_, found = findings(pd.concat([scores, others]), labels)
    assert found.detail.endswith("whose differences are not tested")
    third = scores.iloc[:1].assign(model="c")
    *_, found = findings(pd.concat([scores, third, compared]), {**labels, "c": "C"})
    assert found.detail.endswith("highest of 3 networks; its lead over C is not tested")


def test_a_figure_can_be_saved_as_pdf(tree):
    saved = [e.get("href") for e in tree.iter() if e.get("download")]
    assert len(saved) >= 4
    for href in saved:
        content = base64.b64decode(href.removeprefix("data:application/pdf;base64,"))
        assert content.startswith(b"%PDF")


def test_points_of_the_scatter_are_networks_with_their_values(results, tree):
    [holder] = [s for s in tree.iter(f"{HTML}script") if s.get("type")]
    scatter = json.loads(holder.text)
    scores = ResultStore(results).load("score")
    raw = scores[scores["recording"] == "set 1"].set_index("model")["raw"]
    points = {p["model"]: p["values"] for p in scatter["points"]}
    assert scatter["axes"]["predictivity, set 1"] == "set 1, raw r"
    for model, value in raw.items():
        assert points[model]["predictivity, set 1"] == pytest.approx(value)


def test_an_empty_folder_is_one_clear_error(tmp_path):
    with pytest.raises(DataError, match="no results in"):
        write_report(tmp_path / "results", tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_a_value_that_is_not_there_is_a_dash_and_sorts_last(tmp_path):
    rows = [
        AnyRow(model=name, metric="dimension", value=value, config_id="a", n_points=3)
        for name, value in (("one", None), ("two", 0.25))
    ]
    ResultStore(tmp_path / "results").put("other", "a", Settings(model="x"), rows)
    tree = parsed(write(tmp_path / "results")[0])
    cells = [
        ("".join(cell.itertext()), cell.get("data-key"))
        for cell in tree.iter(f"{HTML}td")
    ]
    assert ("–", None) in cells
    assert ("0.2500", "0.25") in cells


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(text, scheme):
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    colours = dict(re.findall(r"--([a-z-]+): (#\w{6})", blocks[scheme == "dark"]))
    pairs = [
        *(
            (text, behind)
            for text in ("ink", "soft", "link")
            for behind in ("page", "raised", "faint")
        ),
        *(("ink", "mark"), ("ink", "warn-page"), ("warn-line", "page")),
    ]
    for name, behind in pairs:
        light, deep = sorted((luminance(colours[name]), luminance(colours[behind])))[
            ::-1
        ]
        assert (light + 0.05) / (deep + 0.05) >= 4.5, (name, behind)


CHECK = """
<script>%s</script>
<script>
document.querySelectorAll("details").forEach((part) => { part.open = true; });
document.querySelector("th button").click();
const sorted = document.querySelector("th[aria-sort]") !== null;
axe.run().then((found) => {
  const faults = found.violations.map((v) => `${v.id}: ${v.nodes[0].html}`);
  const asked = performance.getEntriesByType("resource").map((entry) => entry.name);
  const wide = document.documentElement.scrollWidth > innerWidth;
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify({ faults, asked, sorted, wide });
  document.body.append(answer);
});
</script>
"""


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """A small page that examines itself."""
    folder = tmp_path_factory.mktemp("checked")
    rows = all_rows()
    few = rows["model"].isin(["ce_mmcr_l0", "ce_mmcr_l0.1", "21 networks"])
    put_rows(rows[few & rows["stage"].isin(["score", "correlate"])], folder / "results")
    figures = {name: parts.FIGURES[name] for name in ("1", "3", "forest")}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "FIGURES", figures)
        text, _ = write(folder / "results")
    package = Path(find_spec("axe_core_python").origin).parent
    axe = (package / "axe.min.js").read_text()
    # The page's policy would forbid the examiner's script, too.
    text = re.sub(r"<meta http-equiv[^>]*>", "", text)
    page = folder / "checked.html"
    page.write_text(text.replace("</body>", CHECK % axe + "</body>"))
    return page


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.skipif(find_spec("axe_core_python") is None, reason="axe is not installed")
@pytest.mark.parametrize(("dark", "width"), [(False, 1280), (True, 500)])
def test_a_browser_finds_the_page_accessible(checked, tmp_path, dark, width):
    command = [
        *(BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update"),
        *("--disable-sync", f"--user-data-dir={tmp_path / 'profile'}"),
        *(f"--window-size={width},900", "--virtual-time-budget=20000"),
        *(["--blink-settings=preferredColorScheme=0"] if dark else []),
        *("--dump-dom", checked.as_uri()),
    ]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    answer = re.search(r'<pre id="answer">(.*?)</pre>', shown.stdout, re.DOTALL)
    assert answer, shown.stderr[-2000:]
    found = json.loads(answer[1].replace("&lt;", "<").replace("&gt;", ">"))
    assert found == {"faults": [], "asked": [], "sorted": True, "wide": False}
