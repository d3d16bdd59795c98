"""Brain-Score's recordings: what is listed, loading in place, and refusals."""

import dataclasses
import importlib
import os
import subprocess
import sys

import numpy as np
import pytest
from standins import OF_IT, make_presentations, make_stimuli

from ce_align.brainscore import register
from ce_align.brainscore.datasets import DATASETS, Dataset, entries, is_cached, load
from ce_align.brainscore.upstream import import_brainscore
from ce_align.data import named
from ce_align.errors import AccessError, DataError

PRIVATE = ["majajhong2015", "sanghavi2020", "sanghavijozwik2020", "sanghavimurty2020"]


@pytest.fixture
def no_storage(monkeypatch):
    """Make every contact with the storage raise the stated errors."""
    fetch = importlib.import_module(
        "brainscore_core.supported_data_standards.brainio.fetch"
    )

    def refuse_with(*errors):
        waiting = list(errors)

        def refuse(self, config):
            raise waiting.pop(0) if waiting else errors[-1]

        monkeypatch.setattr(fetch.BotoFetcher, "download_boto_config", refuse)

    return refuse_with


def place(dataset: Dataset, folder, rng, monkeypatch, **kwargs) -> None:
    """Write a small stand-in in the real file format where the loader looks."""
    packaging = importlib.import_module(
        "brainscore_core.supported_data_standards.brainio.packaging"
    )
    fetch = importlib.import_module(
        "brainscore_core.supported_data_standards.brainio.fetch"
    )
    # The stand-ins cannot have the digests of the real files.
    monkeypatch.setattr(fetch, "verify_sha1", lambda path, sha1: None)

    def fetch_file(location_type, location, sha1=None, version_id=None):
        path = folder / sha1 / location.rsplit("/", 1)[1]
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            write(path)
        return str(path)

    stimuli = make_stimuli(
        rng, 24, folder / "originals" / dataset.registry_id, dataset.stimulus_set_id
    )
    n_repetitions = dataset.repetitions or 6
    assembly = make_presentations(
        rng, stimuli, n_repetitions, n_it=4, missing=0.5, **kwargs
    )
    assembly.attrs["image_size_degree"] = dataset.degrees

    def write(path):
        if path.suffix == ".nc":
            packaging.write_netcdf(assembly, path)
        elif path.suffix == ".zip":
            packaging.create_stimulus_zip(stimuli, str(path))
        else:
            table = stimuli.copy()
            table["filename"] = [f"{key}.png" for key in table["stimulus_id"]]
            table.to_csv(path, index=False)

    s3 = importlib.import_module("brainscore_core.supported_data_standards.brainio.s3")
    with monkeypatch.context() as patched:
        patched.setattr(s3, "fetch_file", fetch_file)
        brainscore = importlib.import_module("brainscore_vision")
        for plugin in dataset.plugins:
            importlib.import_module(f"brainscore_vision.data.{plugin}")
        brainscore.data_registry[dataset.registry_id]()


def test_registering_lists_what_there_is_and_imports_nothing_heavy():
    code = (
        "import sys; from ce_align.brainscore import register; register();"
        "from ce_align.data.named import expand_recordings as e;"
        "print(*e(('it',)), *e(('majajhong2015-public',)), *e(('li2026',)));"
        "print({'torch', 'brainscore_vision', 'xarray', 'pandas'} & set(sys.modules))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    names, heavy = run.stdout.splitlines()
    li = [f"li2026-{region}" for region in ("v1", "v2", "v4", "it")]
    assert names.split() == [*PRIVATE, "majajhong2015-public", *li]
    assert heavy == "set()"


def test_access_is_shown_before_a_byte_is_asked_for():
    listed = entries()
    private = {n for n, entry in listed.items() if entry.access.startswith("private")}
    assert private == {*PRIVATE}
    assert listed["sanghavi2020"].access == "private: needs Brain-Score credentials"
    assert listed["li2026-v4"].region == "V4"
    assert listed["li2026-it"].neuroids == 21059
    assert listed["papale2025-it"].licence == "CC-BY"
    # Who publishes with open data cites them.
    assert all(listed[name].citation for name in listed.keys() - private)


@pytest.mark.slow
@pytest.mark.brainscore
@pytest.mark.parametrize("name", OF_IT)
def test_pre_placed_files_load_as_brainscores_benchmark_loads_them(
    name, brainio, rng, monkeypatch
):
    dataset = DATASETS[name]
    assert not is_cached(dataset)
    # The Sanghavi recordings have further time bins; the first is used.
    n_bins = 1 if name.startswith("majaj") else 2
    place(dataset, brainio, rng, monkeypatch, n_bins=n_bins)
    assert is_cached(dataset)
    monkeypatch.setattr(named, "RECORDINGS", {})
    register()
    assert named.RECORDINGS[name].access == "cached"
    recording = named.load_recording(name)
    theirs = official_assembly(name)
    assert list(recording.images.ids) == list(theirs["stimulus_id"].values)
    assert list(recording.neuroid_ids) == list(theirs["neuroid_id"].values)
    np.testing.assert_allclose(recording.averaged(), theirs.values, rtol=1e-12)
    assert recording.stratify == official_stratification(name)
    assert recording.degrees == official_degrees(name)


def official_module(name):
    package = "brainscore_vision.benchmarks."
    if name.startswith("majaj"):
        return importlib.import_module(package + "majajhong2015.benchmark")
    return importlib.import_module(f"{package}sanghavi2020.benchmarks.{name}_benchmark")


def official_assembly(name):
    module = official_module(name)
    if name.startswith("majaj"):
        access = "public" if name.endswith("public") else "private"
        return module.load_assembly(True, region="IT", access=access)
    return module.load_assembly(True, region="IT")


def official_degrees(name):
    return official_module(name).VISUAL_DEGREES


def official_stratification(name):
    module = official_module(name)
    if name.startswith("majaj"):
        return module.crossvalidation_kwargs["stratification_coord"]
    makers = {
        "sanghavi2020": "DicarloSanghavi2020ITPLS",
        "sanghavijozwik2020": "DicarloSanghaviJozwik2020ITPLS",
        "sanghavimurty2020": "DicarloSanghaviMurty2020ITPLS",
    }
    benchmark = getattr(module, makers[name])()
    return benchmark._similarity_metric.cross_validation._stratification_coord


def client_error(code):
    from botocore.exceptions import ClientError

    return ClientError({"Error": {"Code": code, "Message": "no"}}, "HeadObject")


@pytest.mark.brainscore
@pytest.mark.parametrize("name", PRIVATE)
def test_refused_private_set_says_what_to_do(name, brainio, no_storage):
    no_storage(client_error("403"), client_error("404"))
    with pytest.raises(AccessError) as raised:
        load(name)
    message = str(raised.value)
    assert "\n" not in message
    for part in (name, "private", "403, 404", "credentials", "-public", "submit"):
        assert part in message


@pytest.mark.brainscore
def test_no_credentials_and_no_network_are_told_apart_from_refusal(brainio, no_storage):
    from botocore.exceptions import EndpointConnectionError, NoCredentialsError

    unreachable = EndpointConnectionError(endpoint_url="storage")
    no_storage(NoCredentialsError(), unreachable)
    with pytest.raises(AccessError, match=r"private .* cannot be reached from here"):
        load("majajhong2015")


@pytest.mark.brainscore
def test_files_of_another_content_are_refused(brainio, rng, monkeypatch):
    fetch = importlib.import_module(
        "brainscore_core.supported_data_standards.brainio.fetch"
    )
    genuine = fetch.verify_sha1
    place(DATASETS["sanghavimurty2020"], brainio, rng, monkeypatch)
    monkeypatch.setattr(fetch, "verify_sha1", genuine)
    with pytest.raises(DataError, match=r"SHA1 mismatch.*delete the folders"):
        load("sanghavimurty2020")


@pytest.mark.brainscore
def test_other_number_of_repetitions_is_refused(brainio, rng, monkeypatch):
    fewer = dataclasses.replace(DATASETS["sanghavi2020"], repetitions=5)
    place(fewer, brainio, rng, monkeypatch)
    with pytest.raises(DataError, match=r"should have 28 repetitions .* has 5"):
        load("sanghavi2020")


@pytest.mark.brainscore
def test_importing_brainscore_keeps_pip_out_unless_the_user_wants_it(monkeypatch):
    monkeypatch.delenv("BS_INSTALL_DEPENDENCIES")
    import_brainscore()
    assert os.environ["BS_INSTALL_DEPENDENCIES"] == "no"
    monkeypatch.setenv("BS_INSTALL_DEPENDENCIES", "newenv")
    import_brainscore()
    assert os.environ["BS_INSTALL_DEPENDENCIES"] == "newenv"
