"""A sample of the damaged and hostile inputs; `make hostile` tries all."""

import os
import tempfile
from pathlib import Path

import pytest

from .harness import attempt, cases_of, families, faults

pytestmark = pytest.mark.slow

#: So many of each family, spread over what it makes.
SAMPLE = 6


@pytest.mark.parametrize("family", families())
def test_damaged_and_hostile_input_is_answered_in_a_line(family, tmp_path, monkeypatch):
    monkeypatch.delenv("CE_ALIGN_IMAGENET", raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("MPLCONFIGDIR", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    found = cases_of(family, seed=1)
    folders = [tmp_path, Path(os.environ["CE_ALIGN_HOME"]).parent]
    wrong = {}
    for place, case in enumerate(found[:: max(1, len(found) // SAMPLE)]):
        outcome = attempt(case, tmp_path / str(place))
        if told := list(faults(case, outcome, folders)):
            wrong[case.name] = told
    assert not wrong
