"""`correlate` of networks that were trained again: by command and by recipe."""

import json

import numpy as np
import pandas as pd
import pytest

from ce_align.config import StageConfig
from ce_align.results import ResultStore
from ce_align.runner import run
from ce_align.stages.correlate import CorrelateConfig
from ce_align.stages.imported import ImportedRow
from ce_align.stages.measures import MeasureRow
from ce_align.stages.scores import ScoreRow

NAMES = tuple(f"runs/{k}" for k in range(8))
MEASURES = np.array([0.1, 0.5, 0.2, 0.9, 0.4, 0.8, 0.3, 0.6])
SCORES = np.array([0.3, 0.6, 0.2, 0.1, 0.5, 0.7, 0.4, 0.5])
#: Of the fourth network after it was trained again.
AGAIN = (0.95, 0.85)
OLD, NEW = "2024-01-01T00:00:00+00:00", "2024-02-01T00:00:00+00:00"


class Settings(StageConfig):
    name: str


def put(store, stage, row):
    config_id = (
        f"{row.model}-{row.created[:7]}-{row.recording if stage != 'analyze' else ''}"
    )
    config_id = config_id.replace("/", "_")
    named = row.model_copy(update={"config_id": config_id})
    store.put(stage, config_id, Settings(name=config_id), [named])


def put_measure(store, model, digest, value, created, **columns):
    about = {"layer": "layer4", "low": None, "high": None, "n_points": 9}
    about |= {"n_comparisons": 9, "n_units": 9, "baseline": None, "images": "x"}
    about |= {"interval": None, "seed": 0, "images_digest": "i", "views_digest": "v"}
    row = MeasureRow(
        model=model,
        metric="class_class",
        value=value,
        config_id="",
        created=created,
        model_digest=digest,
        **about | columns,
    )
    put(store, "analyze", row)


def put_score(store, model, digest, value, created):
    row = ScoreRow(
        model=model,
        metric="predictivity",
        value=value,
        config_id="",
        created=created,
        recording="it",
        region="IT",
        layer="layer4",
        raw=value / 2,
        error=0.01,
        ceiling=0.8,
        n_stimuli=64,
        n_neuroids=9,
        n_splits=10,
        regression="pls",
        seed=1,
        model_digest=digest,
        recording_digest="r",
    )
    put(store, "score", row)


@pytest.fixture
def store(tmp_path):
    """Scores and measures of eight networks."""
    store = ResultStore(tmp_path / "results")
    for name, x, y in zip(NAMES, MEASURES, SCORES, strict=True):
        put_measure(store, name, f"first {name}", float(x), OLD)
        put_score(store, name, f"first {name}", float(y), OLD)
    return store


def by_recipe(store, *recordings):
    report = run([CorrelateConfig(recordings=recordings or ("it",))], store)
    assert not report.failures, report.failures
    return report


def both_ways(ce_align, store, *recordings):
    """The one row of correlate, by command and by recipe, and the command's notes."""
    status, out, err = ce_align("correlate", "--json")
    assert status == 0, err
    (row,) = json.loads(out)
    report = by_recipe(store, *recordings)
    (other,) = (found.model_dump(mode="json") for found in report.rows)
    assert {**row, "created": ""} == {**other, "created": ""}
    for note in report.notes:
        assert note in err.replace("\n", " ")
    return row, err


def r(x, y):
    return pytest.approx(np.corrcoef(x, y)[0, 1])


def test_old_scores_never_meet_the_measures_of_a_network_trained_again(ce_align, store):
    row, _ = both_ways(ce_align, store)
    assert row["value"] == r(MEASURES, SCORES)
    put_measure(store, NAMES[3], "second", AGAIN[0], NEW)
    row, err = both_ways(ce_align, store)
    others = np.arange(8) != 3
    assert row["value"] == r(MEASURES[others], SCORES[others])
    assert row["networks"] == [name for name in NAMES if name != NAMES[3]]
    assert row["network_digests"][0] == "first runs/0"
    assert "runs/3: 2 rows of older networks of this name left out." in err
    assert "has no scores; run `ce-align score` for it" in err
    put_score(store, NAMES[3], "second", AGAIN[1], NEW)
    row, err = both_ways(ce_align, store)
    now = np.where(others, [MEASURES, SCORES], np.array(AGAIN)[:, None])
    assert row["value"] == r(*now)
    assert row["n_networks"] == 8
    assert row["network_digests"][3] == "second"
    assert "has no scores" not in err


def test_a_network_of_two_names_counts_once(ce_align, store):
    put_measure(store, "moved/3", f"first {NAMES[3]}", 0.9, NEW)
    put_score(store, "moved/3", f"first {NAMES[3]}", 0.1, NEW)
    row, err = both_ways(ce_align, store)
    assert row["value"] == r(MEASURES, SCORES)
    assert row["n_networks"] == 8
    assert "runs/3 and moved/3 are one network, counted once as moved/3." in err


def test_differences_from_another_baseline_of_one_name_are_not_mixed(ce_align, store):
    for folder in (store.folder / "analyze").glob("*.json"):
        folder.unlink()
    delta = {"baseline": "runs/0", "baseline_digest": "first runs/0"}
    for name, x in zip(NAMES, MEASURES, strict=True):
        put_measure(store, name, f"first {name}", float(x), OLD, **delta)
    # Trained again, the baseline gives other differences.
    put_score(store, "runs/0", "second", 0.3, NEW)
    changed = {"baseline": "runs/0", "baseline_digest": "second"}
    for name, x in list(zip(NAMES, MEASURES, strict=True))[2:]:
        put_measure(store, name, f"first {name}", float(x) ** 2, NEW, **changed)
    row, err = both_ways(ce_align, store)
    assert row["value"] == r(MEASURES[2:] ** 2, SCORES[2:])
    assert "differences from an older network of the name runs/0 left out" in err


def test_imported_scores_are_correlated_by_name_and_it_is_said(ce_align, store):
    for folder in (store.folder / "score").glob("*.json"):
        folder.unlink()
    for name, y in zip(NAMES, SCORES, strict=True):
        row = ImportedRow(
            model=name,
            metric="predictivity",
            value=float(y),
            config_id="",
            recording="it",
            region="IT",
            benchmark="b",
            raw=None,
            error=None,
            ceiling=None,
            imported_from="board.csv",
        )
        put(store, "imported", row)
    row, err = both_ways(ce_align, store)
    assert row["value"] == r(MEASURES, SCORES)
    assert row["imported_from"] == "board.csv"
    assert "scores are imported, from board.csv; joined by name" in err


def test_the_table_says_what_its_intervals_are_over_and_which_are_unknown(
    ce_align, store
):
    status, out, err = ce_align("correlate")
    assert status == 0, err
    out = " ".join(out.split())
    assert "95 %: over networks within objectives" in out
    assert "one group of unknown objective: runs/0, runs/1, runs/2 and 5 more" in out
    assert "no correlation given λ: λ is unknown or the same" in out
    assert "of unknown objective, taken for one group" in err


def test_what_trainings_say_of_their_networks_gives_objective_and_weight(
    ce_align, store
):
    for k, name in enumerate(NAMES):
        told = {"objective": "mmcr" if k < 4 else "barlow", "backbone": "tiny"}
        told |= {"equivariance_weight": 0.1 * (k % 4), "epochs": 1, "seed": 0}
        told |= {"model": name, "metric": "probe_top1", "value": 0.5, "created": OLD}
        told |= {
            "version": "0.1.0",
            "config_id": f"t{k}",
            "data_digest": "d",
            "n_images": 9,
        }
        path = store.folder / "train" / f"t{k}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"stage": "train", "rows": [told]}))
    row, _ = both_ways(ce_align, store)
    centred = [
        np.concatenate([v[:4] - v[:4].mean(), v[4:] - v[4:].mean()])
        for v in (MEASURES, SCORES)
    ]
    assert row["within"] == r(*centred)
    assert row["within_low"] < row["within"] < row["within_high"]
    weights = 0.1 * (np.arange(8) % 4)
    model = np.stack([np.arange(8) < 4, np.arange(8) >= 4, weights, weights**2], axis=1)
    fits = [
        v - model @ np.linalg.lstsq(model, v, rcond=None)[0] for v in (MEASURES, SCORES)
    ]
    assert row["partial"] == r(*fits)
    assert row["given"] == "objective, λ and λ²"
    assert row["low"] is None
    assert pd.isna(row["note"]) or "unknown" not in row["note"]


def test_stored_rows_of_older_networks_are_marked_in_results(ce_align, store):
    put_measure(store, NAMES[3], "second", AGAIN[0], NEW)
    status, out, _ = ce_align("results", "--stage", "score")
    assert status == 0
    lines = [line for line in out.splitlines() if "an older network of this" in line]
    assert [line[:3] for line in lines] == ["[1]"]
    (marked,) = [line for line in out.splitlines() if " [1]" in line]
    assert marked.startswith("3 ")  # the folder of runs/3
    ce_align("results", "--csv", "rows.csv")
    rows = pd.read_csv("rows.csv")
    marked = rows[rows["left_out"].notna()]
    assert list(marked["model"]) == ["runs/3", "runs/3"]
    assert set(marked["stage"]) == {"score", "analyze"}
