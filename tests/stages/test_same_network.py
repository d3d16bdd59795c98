"""Which rows are of one network, by its digest and not by its name."""

import pandas as pd
import pytest

from ce_align.results import UNKNOWN_CONTENT
from ce_align.stages.same_network import resolve_networks


def rows(*found):
    """Rows of name, digest, day and further columns."""
    return pd.DataFrame(
        [
            {
                "stage": "score",
                "metric": "predictivity",
                "value": float(k),
                "model": model,
                "model_digest": digest,
                "created": f"2024-01-{day:02}",
                **columns,
            }
            for k, (model, digest, day, columns) in enumerate(
                (*one, {})[:4] for one in found
            )
        ]
    )


def kept(frame):
    found = resolve_networks(frame).rows
    return list(zip(found["model"], found["value"], strict=True))


def test_of_two_networks_of_one_name_the_later_counts_in_every_stage():
    frame = rows(
        ("runs/a", "new", 2, {"stage": "analyze"}),
        ("runs/a", "old", 1, {"stage": "score"}),
        ("runs/a", "old", 1, {"stage": "transfer", "plain_digest": True}),
        ("runs/b", "other", 1),
    )
    resolved = resolve_networks(frame)
    assert kept(frame) == [("runs/a", 0.0), ("runs/b", 3.0)]
    assert list(resolved.left_out["value"]) == [1.0, 2.0]
    assert resolved.notes("score") == [
        "runs/a: 1 row of an older network of this name left out.",
        "runs/a: the latest network of this name has no scores; run `ce-align score` "
        "for it.",
    ]
    assert resolved.notes("overlap") == []
    assert resolved.digests == {"runs/a": "new", "runs/b": "other"}


def test_one_network_of_two_names_has_its_latest():
    frame = rows(("runs/a", "d", 1), ("moved/a", "d", 2), ("runs/a", "d", 1))
    assert [name for name, _ in kept(frame)] == ["moved/a"] * 3
    note = "runs/a and moved/a are one network, counted once as moved/a."
    assert resolve_networks(frame).notes() == [note]
    again = rows(("runs/b", "e", 1), ("moved/b", "e", 2))
    note = "2 networks have several names, counted once as moved/a, moved/b."
    assert resolve_networks(pd.concat([frame, again])).notes() == [note]


def test_a_path_in_two_spellings_is_no_second_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frame = rows((str(tmp_path / "runs/a"), "d", 1), ("runs/a", "d", 2))
    assert [name for name, _ in kept(frame)] == ["runs/a"] * 2
    assert resolve_networks(frame).notes() == []


def test_a_path_seen_from_another_folder_is_no_other_name():
    frame = rows(("/home/lab/runs/a", "d", 1), ("runs/a", "d", 2))
    assert [name for name, _ in kept(frame)] == ["runs/a"] * 2
    assert resolve_networks(frame).notes() == []


def test_two_networks_that_no_digest_tells_apart_are_not_merged():
    held = {"note": f"computed anew each time, for {UNKNOWN_CONTENT}: net.act (dict)"}
    frame = rows(
        ("a.py:net", "d", 1, held),
        ("b.py:net", "d", 2, held),
        ("b.py:net", "d", 1, {"stage": "analyze"}),
    )
    assert [name for name, _ in kept(frame)] == ["a.py:net", "b.py:net", "b.py:net"]
    assert resolve_networks(frame).digests == {"a.py:net": "d", "b.py:net": "d"}


def test_a_moved_network_whose_name_was_taken_again_is_still_itself():
    frame = rows(
        ("runs/a", "first", 1), ("kept/a", "first", 2), ("runs/a", "second", 3)
    )
    assert kept(frame) == [("kept/a", 0.0), ("kept/a", 1.0), ("runs/a", 2.0)]


def test_a_name_that_tells_the_training_is_preferred():
    frame = rows(("ce_mmcr_l0.1", "d", 1), ("weights.pt", "d", 2))
    assert {name for name, _ in kept(frame)} == {"ce_mmcr_l0.1"}


def test_both_networks_of_an_overlap_are_looked_at():
    other = {"stage": "overlap", "other": "runs/a", "other_digest": "old"}
    frame = rows(("pixels", "p", 1, other), ("runs/a", "new", 2))
    assert kept(frame) == [("runs/a", 1.0)]


def test_rows_without_a_digest_are_known_by_their_name():
    imported = {"stage": "imported", "imported_from": "board.csv"}
    frame = rows(("runs/a", None, 1, imported), ("runs/a", "d", 2), ("x", None, 1))
    assert [name for name, _ in kept(frame)] == ["runs/a", "runs/a", "x"]
    assert resolve_networks(frame).notes() == []
    again = pd.concat([frame, rows(("runs/a", "e", 3))], ignore_index=True)
    notes = resolve_networks(again).notes("imported")
    assert len(notes) == 1
    assert notes[0].startswith("runs/a: imported scores do not say of which network")


def test_reading_a_file_of_scores_makes_no_network_the_latest():
    imported = {"stage": "imported", "imported_from": "board.csv"}
    frame = rows(
        ("runs/a", "old", 9, imported), ("runs/a", "new", 2), ("b", "only", 9, imported)
    )
    assert kept(frame) == [("runs/a", 1.0), ("b", 2.0)]


def test_a_training_makes_a_network_the_latest_before_anything_is_measured():
    frame = rows(("runs/a", "old", 1), ("runs/a", "new", 2, {"stage": "train"}))
    assert kept(frame) == [("runs/a", 1.0)]


@pytest.mark.parametrize(
    ("baseline_digest", "day", "n"),
    [("old", 1, 1), ("new", 3, 2), (None, 3, 1), ("moved", 1, 2)],
)
def test_differences_are_from_the_network_that_the_baseline_is(baseline_digest, day, n):
    delta = {"baseline": "runs/0", "baseline_digest": baseline_digest}
    delta |= {"stage": "analyze"}
    frame = rows(
        ("runs/a", "a", day, delta),
        ("runs/0", "old", 1),
        ("runs/0", "new", 2),
        ("elsewhere", "moved", 1),
    )
    resolved = resolve_networks(frame)
    found = resolved.rows[resolved.rows["stage"] == "analyze"]
    assert len(resolved.rows) == n + 1
    if baseline_digest == "moved":
        assert list(found["baseline"]) == ["elsewhere"]
    again = [note for note in resolved.notes() if "run `ce-align analyze`" in note]
    assert len(again) == (baseline_digest in ("old", None))


def test_a_baseline_of_one_network_needs_no_digest():
    delta = {"baseline": "runs/0", "baseline_digest": None}
    assert len(kept(rows(("runs/a", "a", 3, delta), ("runs/0", "z", 1)))) == 2


def test_no_rows_are_no_networks():
    resolved = resolve_networks(pd.DataFrame())
    assert resolved.rows.empty
    assert resolved.notes("score") == []
