"""Rows are found however the paths to their network and images are spelled."""

import pytest
from toys import toy_config, toy_images, toy_network

from ce_align.results import ResultStore
from ce_align.runner import run


@pytest.fixture
def analysed(tmp_path, monkeypatch):
    """Measure networks by the paths that they have from a folder."""
    store = ResultStore(tmp_path / "results")

    def measure(here, *names, images="toys"):
        monkeypatch.chdir(here)
        configs = [
            toy_config("dimensionality", model=name, images=images) for name in names
        ]
        given = {("network", c.model): toy_network(name=c.model) for c in configs}
        given["images", configs[0].images] = toy_images()
        found = run(configs, store, given=given, responses=tmp_path / "views")
        assert not found.failures
        return found

    return measure


def make_folders(root, *names):
    for name in names:
        (root / name).mkdir(parents=True)


def test_rows_are_there_once_under_the_names_that_were_asked_for_last(
    analysed, tmp_path
):
    make_folders(tmp_path, "runs/a", "toys", "notebooks")
    first = analysed(tmp_path, "runs/a")
    again = analysed(tmp_path / "notebooks", "../runs/a", images="../toys")
    assert (again.n_stored, again.n_done) == (1, 0)
    assert {row.config_id for row in again.rows} == {r.config_id for r in first.rows}
    expected = {(f"{tmp_path}/runs/a", "a", f"{tmp_path}/toys")}
    assert {(row.model, row.label, row.images) for row in again.rows} == expected
    (document,) = again.store.documents("analyze")
    stored = {(r["model"], r["label"], r["images"]) for r in document["rows"]}
    assert stored == expected
    assert again.arrays.keys() == first.arrays.keys()


def test_rows_that_lie_under_the_spelling_of_a_path_stay_there(analysed, tmp_path):
    # Nothing is there yet, so that the identity is that of release 0.1.
    first = analysed(tmp_path, "runs/a")
    make_folders(tmp_path, "runs/a", "toys")
    again = analysed(tmp_path, "runs/a")
    assert again.n_stored == 1
    assert again.rows == first.rows
    assert len(list(again.store.documents("analyze"))) == 1


def test_two_names_of_one_network_have_rows_of_their_own(analysed, tmp_path):
    make_folders(tmp_path, "runs/a", "runs/b", "toys")
    for _ in range(2):
        found = analysed(tmp_path, "runs/a", "runs/b")
        first, second = (
            {r.metric: r.value for r in found.rows if r.model == f"runs/{name}"}
            for name in "ab"
        )
        assert first == second != {}
    assert found.n_stored == 2
