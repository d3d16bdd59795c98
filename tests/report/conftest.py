"""Synthetic inputs of every table and figure, for every test of them."""

from functools import cache

import pytest
from synthetic_rows import (
    OWN_INPUTS,
    REMARK,
    all_rows,
    histories,
    other_inputs,
    other_scores,
    store_arrays,
)

from ce_align.report.inputs import Inputs
from ce_align.report.page import parts
from ce_align.report.paper import FIGURES, draw
from ce_align.results import ResultStore


@pytest.fixture
def otherwise():
    return other_inputs()


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory):
    store = ResultStore(tmp_path_factory.mktemp("synthetic"))
    store_arrays(store)
    return store


def inputs_of(store):
    histories_by_name = dict(histories())
    return Inputs(all_rows(), store, other_scores(), histories_by_name, REMARK)


@pytest.fixture
def synthetic(synthetic_store):
    """Rows of every stage, with arrays, other scores and histories."""
    return inputs_of(synthetic_store)


@pytest.fixture(scope="session")
def drawn(synthetic_store):
    """Every figure of synthetic rows, by name and columns, drawn once; to look at."""

    @cache
    def figure(name, columns=2):
        own = OWN_INPUTS.get(("figure", name))
        return draw(name, own() if own else inputs_of(synthetic_store), columns)

    return figure


@pytest.fixture
def few_figures(monkeypatch):
    """Three figures, for tests of what else is in the page."""
    few = {name: FIGURES[name] for name in ("1", "3", "forest")}
    monkeypatch.setattr(parts, "FIGURES", few)


@pytest.fixture
def no_figures(monkeypatch):
    """None, for tests of what a page says of its rows."""
    monkeypatch.setattr(parts, "FIGURES", {})
