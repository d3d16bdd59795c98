"""Synthetic inputs of every table and figure, for every test of them."""

import pytest
from synthetic_rows import (
    REMARK,
    all_rows,
    histories,
    other_inputs,
    other_scores,
    store_arrays,
)

from ce_align.report.inputs import Inputs
from ce_align.results import ResultStore


@pytest.fixture
def otherwise():
    return other_inputs()


@pytest.fixture(scope="session")
def synthetic_store(tmp_path_factory):
    store = ResultStore(tmp_path_factory.mktemp("synthetic"))
    store_arrays(store)
    return store


@pytest.fixture
def synthetic(synthetic_store):
    """Rows of every stage, with arrays, other scores and histories."""
    histories_by_name = dict(histories())
    return Inputs(
        all_rows(), synthetic_store, other_scores(), histories_by_name, REMARK
    )
