"""Fixtures for the bridge to Brain-Score."""

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from standins import make_presentations, make_stimuli, merged


@pytest.fixture
def stand_in(rng, tmp_path) -> Callable[..., Any]:
    """Maker of assemblies as Brain-Score's data registry returns them."""
    pytest.importorskip("brainscore_vision")

    def make(n_stimuli=80, n_repetitions=6, n_it=7, extra=None, **kwargs) -> Any:
        name = f"set-{uuid.uuid4().hex}"
        stimuli = make_stimuli(rng, n_stimuli, tmp_path / name, name, extra)
        presentations = make_presentations(rng, stimuli, n_repetitions, n_it, **kwargs)
        return merged(presentations, stimuli)

    return make


@pytest.fixture
def brainio(tmp_path, monkeypatch) -> Path:
    """Brain-Score's folder, which it otherwise looks up once a process."""
    fetch = pytest.importorskip(
        "brainscore_core.supported_data_standards.brainio.fetch"
    )
    folder = tmp_path / "brainio"
    monkeypatch.setenv("BRAINIO_HOME", str(folder))
    monkeypatch.setattr(fetch, "_local_data_path", str(folder))
    return folder
