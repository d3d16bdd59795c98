"""What each of several networks adds to the others, from networks to rows."""

import numpy as np
import pytest
from test_overlap_stage import N, eye, recording

from ce_align.data.joining import equal_files, join_equal_images
from ce_align.metrics.banded_ridge import banded_ridge
from ce_align.models.given import FeatureArray
from ce_align.report.terminal import row_sheets
from ce_align.results import ResultStore
from ce_align.runner import run
from ce_align.stages.unique import UniqueConfig

EYES = {"red": (0,), "green": (1,), "yellow": (0, 1)}


def configs(*names, **settings):
    return [
        UniqueConfig(
            model=name,
            layer="pool",
            beside=tuple(other for other in names if other != name),
            beside_layers=("pool",) * (len(names) - 1),
            recording="x",
            **settings,
        )
        for name in names
    ]


def outcome(asked, planted, folder):
    given = {("network", name): eye(name, *EYES[name]) for name in EYES}
    return run(asked, folder / "results", given=given | {("recording", "x"): planted})


@pytest.fixture
def planted(rng):
    return recording(rng)  # of red


def test_a_copy_has_no_part_of_its_own(planted, tmp_path):
    found = {r.model: r for r in outcome(configs(*EYES), planted, tmp_path).rows}
    assert abs(found["red"].value) < 0.05  # yellow sees red, too
    assert abs(found["green"].value) < 0.05
    assert found["red"].alone > 0.8 > 0.1 > found["green"].alone
    parts = sum(row.part for row in found.values())
    assert parts == pytest.approx(found["red"].joint)
    pair = {
        row.model: row
        for row in outcome(configs("red", "green"), planted, tmp_path).rows
    }
    assert pair["red"].value > 0.8
    assert pair["red"].low < pair["red"].value < pair["red"].high
    assert pair["red"].p == pytest.approx(2 / 2**6)  # of six neuroids of one sign
    assert (pair["red"].n_networks, pair["red"].interval) == (2, "neuroids")


def test_rows_are_those_of_the_regression(planted, tmp_path):
    asked = configs("red", "green", folds=4, seed=3)
    rows = outcome(asked, planted, tmp_path).rows
    joined = join_equal_images(planted, equal_files(planted.images))
    assert len(joined.images) == N
    pixels = np.stack([np.asarray(joined.images.load(k)) for k in range(N)])
    coarse = pixels.reshape(N, 2, 8, 2, 8, 3).mean(axis=(2, 4)) / 255
    order = np.random.default_rng(3).permutation(np.arange(N) % 4)
    features = {name: coarse[..., list(EYES[name])].reshape(N, -1) for name in EYES}
    both = {name: features[name] for name in ("green", "red")}
    expected = banded_ridge(both, joined.averaged(), order)
    by_name = {row.model: row for row in rows}
    for place, name in enumerate(both):
        row = by_name[name]
        assert row.value == pytest.approx(expected.unique[place].mean(), abs=1e-3)
        assert row.alone == pytest.approx(expected.alone[place].mean(), abs=1e-3)


def test_what_is_stored_is_not_computed_again_however_it_is_asked(planted, tmp_path):
    first = outcome(configs(*EYES), planted, tmp_path)
    assert (first.n_done, first.n_stored) == (3, 0)
    turned = [
        UniqueConfig(
            model="red",
            layer="pool",
            beside=beside,
            beside_layers=("pool", "pool"),
            recording="x",
        )
        for beside in (("green", "yellow"), ("yellow", "green"))
    ]
    assert turned[0] == turned[1]
    again = outcome(turned, planted, tmp_path)
    assert (again.n_done, again.n_stored) == (0, 1)
    assert again.rows[0].value == first.rows[0].value


def test_networks_of_one_regression_are_one_table(planted, tmp_path):
    rows = outcome(configs(*EYES), planted, tmp_path).rows
    rows += outcome(configs("red", "green"), planted, tmp_path).rows
    titles = [sheet.title for sheet in row_sheets(rows)]
    assert titles == [
        "x: what each of 3 networks adds, mean over neuroids",
        "x: what each of 2 networks adds, mean over neuroids",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beside": ()}, "expected 2 to 6 networks, found 1"),
        ({"beside": tuple("bcdefg")}, "expected 2 to 6 networks, found 7"),
        ({"beside": ("a",)}, "stands beside itself"),
        ({"beside": ("b",), "beside_layers": ("x", "y")}, "one for each of 1 networks"),
    ],
)
def test_networks_that_make_no_set_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        UniqueConfig(model="a", recording="x", **settings)


def test_features_that_were_given_take_part(rng, planted, tmp_path):
    noise = rng.normal(size=(N, 4)).astype(np.float32)
    given = {
        ("network", "red"): eye("red", 0),
        ("network", "noise"): FeatureArray("noise", {"pool": noise}),
        ("recording", "x"): planted,
    }
    found = run(configs("red", "noise"), tmp_path / "results", given=given)
    assert not found.failures
    assert found.rows[0].value > 0.7 > 0.1 > abs(found.rows[1].value)


def test_networks_in_folders_that_were_renamed_have_their_new_names(
    planted, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    before, after = ("apple", "green"), ("rose", "green")
    for names in (before, after):
        for name in names:
            (tmp_path / name).mkdir(exist_ok=True)
        given = {("network", name): eye(name, k) for k, name in enumerate(names)}
        found = run(
            configs(*names), "results", given=given | {("recording", "x"): planted}
        )
        if names == before:
            values = [row.value for row in found.rows]
            (tmp_path / "apple").rmdir()
    assert (found.n_done, found.n_stored) == (0, 2)
    assert [row.value for row in found.rows] == values
    assert [row.model for row in found.rows] == list(after)
    stored = ResultStore(tmp_path / "results").load("unique")
    for rows in (found.frame, stored):
        assert [set(among.split(", ")) for among in rows["among"]] == [{*after}] * 2
    assert set(stored["model"]) == {*after}
