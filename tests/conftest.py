"""Fixtures that every room shares."""

import gc
import os
import shutil
import signal
import tempfile
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from forked import Forked
from hypothesis import settings

# Machines differ in speed; a slow one must not fail a property.
settings.register_profile("ce_align", deadline=None)
settings.load_profile("ce_align")

# A shell's background jobs ignore Ctrl-C, and so would every process of a test.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent

#: Brain-Score's folders. Some are read as its modules are imported, which happens
#: while tests are collected: they must not be the user's even then.
_FOLDERS = ("BRAINIO_HOME", "BRAINSCORE_HOME", "RESULTCACHING_HOME")
_COLLECTION = Path(tempfile.mkdtemp(prefix="ce_align-tests-"))
for _name in _FOLDERS:
    os.environ[_name] = str(_COLLECTION / _name.lower())


#: They take a minute each, and no worker should have one left at the end.
LONGEST = (
    "test_every_block_of_every_page_runs",
    "test_a_cluster_trains_before_it_scores_and_names_what_failed",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name not in LONGEST)


def pytest_collection_finish():
    """Search for garbage less often, and never among libraries, which stay."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def pytest_unconfigure():
    gc.unfreeze()  # some libraries report what is left at the end
    shutil.rmtree(_COLLECTION, ignore_errors=True)


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20240607)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real recordings, images and networks; skips where it is absent."""
    stated = os.environ.get("CE_ALIGN_TEST_DATA")
    folder = Path(stated) if stated else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            "no real data: set CE_ALIGN_TEST_DATA to the developers' data folder"
        )
    return folder


@pytest.fixture
def python():
    """Start `python ARGUMENTS`, forked from a process that knows the libraries."""
    started = []

    def start(*arguments, **options) -> Forked:
        started.append(Forked(*arguments, **options))
        return started[-1]

    yield start
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def letters_as_outlines():
    """Put no fonts into PDFs: to take out their glyphs takes long."""
    from ce_align.report import style

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(style._SETTINGS, "pdf.fonttype", 3)
        yield


#: Counted here: looking for a free name among thousands takes milliseconds.
_COUNTER = count()


@pytest.fixture(autouse=True)
def own_caches(tmp_path_factory, monkeypatch):
    """Keep every test out of the user's caches, and Brain-Score off the network."""
    home = tmp_path_factory.getbasetemp() / "caches" / str(next(_COUNTER))
    home.mkdir(parents=True)
    monkeypatch.setenv("CE_ALIGN_HOME", str(home / "ce_align"))
    for name in _FOLDERS:
        monkeypatch.setenv(name, str(home / name.lower()))
    monkeypatch.setenv("BS_INSTALL_DEPENDENCIES", "no")
    # What was compiled for another kind of processor must not be met.
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(home / "inductor"))
    yield
    shutil.rmtree(home, ignore_errors=True)
    for name in _FOLDERS:
        shutil.rmtree(_COLLECTION / name.lower(), ignore_errors=True)
