import numpy as np
import pytest

from ce_align.data.imagesets import ImageSet
from ce_align.data.presentations import Presentations
from ce_align.data.recordings import Recording
from ce_align.report.recordings import summarise, summary_figure, summary_sheets


@pytest.fixture
def make(rng):
    """Two animals, 12 images once and 8 of them five times more; signal or noise."""
    array = rng.integers(0, 255, (12, 20, 30, 3), np.uint8)

    def build(noise, **fields):
        stimulus = np.concatenate([np.arange(12), np.repeat(np.arange(8), 5)])
        repetition = np.concatenate([np.zeros(12, int), np.tile(np.arange(1, 6), 8)])
        signal = rng.normal(size=(12, 6))[stimulus]
        values = (1 - noise) * signal + noise * rng.normal(size=(52, 6))
        columns = {
            "animal": np.repeat(["F", "N"], 3),
            "region": np.array(["IT", "IT", "V4"] * 2),
        }
        return Recording(
            "made",
            ImageSet.from_array("made", array),
            Presentations(values, stimulus, repetition),
            tuple(f"u{k}" for k in range(6)),
            neuroids=columns | fields.pop("neuroids", {}),
            **fields,
        )

    return build


def printed(tables, capsys):
    from rich.console import Console

    for table in tables:
        Console(width=100).print(table)
    return capsys.readouterr().out


def test_a_summary_counts_what_there_is(make, capsys):
    found = summarise(make(0.1, split=np.array(["train"] * 9 + ["test"] * 3)))
    assert found.neuroids == {"F IT": 2, "F V4": 1, "N IT": 2, "N V4": 1}
    assert found.repetitions == {1: 4, 6: 8}
    assert found.split == {"train": 9, "test": 3}
    assert found.reliability_kind == "measured"
    assert min(found.reliability) > 0.9
    text = printed(summary_sheets(found), capsys)
    for word in ("4 images × 1, 8 images × 6", "2 F IT", "signal", "yes", "median 0.9"):
        assert word in text


def test_noise_has_no_signal_and_signal_has(make):
    assert summarise(make(1.0)).signal > 0.05
    assert summarise(make(0.3)).signal < 0.05


def test_stated_reliability_is_shown_as_stated(make):
    stated = np.array([0.1, 0.2, 0.3, 0.4, np.nan, 0.6])
    found = summarise(make(0.1, neuroids={"reliability": stated}))
    assert (found.reliability_kind, found.ceiling) == ("stated", 0.3)
    assert found.reliability == [0.1, 0.2, 0.3, 0.4, None, 0.6]


def test_without_repetitions_the_signal_is_not_guessed(make, capsys):
    once = make(0.1)
    shown = once.presentations()
    first = shown.repetition == 0
    found = summarise(
        Recording(
            "once",
            once.images,
            shown.values[first][:, np.newaxis],
            once.neuroid_ids,
            "IT",
        )
    )
    assert (found.signal, found.reliability) == (None, None)
    assert found.neuroids == {"IT": 6}
    assert "cannot be told" in printed(summary_sheets(found), capsys)


def test_the_figure_shows_images_reliability_and_repetitions(make):
    recording = make(0.1, origin="simulated")
    figure = summary_figure(recording, summarise(recording))
    titles = [ax.get_title(loc="left") for ax in figure.axes]
    assert titles == ["12 images at 8°", "Reliability (measured)", "Repetitions"]
    assert any("SIMULATED" in text.get_text() for text in figure.texts)
    heights = [patch.get_height() for patch in figure.axes[2].patches]
    assert heights == [4, 8]
