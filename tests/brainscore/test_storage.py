"""Recordings through a stand-in of the storage: open, private, damaged, torn."""

import importlib

import numpy as np
import pytest
from standins import OF_IT, make_files, make_stimuli, register_files
from storage import READER, Storage, serving

from ce_align.brainscore import register
from ce_align.brainscore.datasets import BUCKET, DATASETS, is_cached, load
from ce_align.brainscore.upstream import ask_storage, storage_client
from ce_align.data import named
from ce_align.errors import AccessError

pytestmark = [pytest.mark.brainscore, pytest.mark.slow]

PUBLIC = "majajhong2015-public"

#: The real numbers of images, scaled down.
N_IMAGES = {name: max(5, DATASETS[name].images // 256) for name in OF_IT}


@pytest.fixture
def storage(brainio, monkeypatch, tmp_path):
    """Storage that botocore asks, on a machine without credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    # boto3 keeps the credentials that it found first.
    monkeypatch.setattr("boto3.DEFAULT_SESSION", None)
    with serving(Storage()) as stand_in:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", stand_in.address)
        # Open recordings come without the ways of S3.
        bucket = f"{stand_in.address}/brainscore-storage"
        monkeypatch.setenv("CE_ALIGN_RECORDINGS_URL", bucket)
        yield stand_in


@pytest.fixture
def credentials(monkeypatch):
    def of(key):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    return of


@pytest.fixture
def stored(storage, rng, tmp_path, monkeypatch):
    """Put the stand-in of a recording into the storage."""

    def put(name, *, digests=None, **kwargs):
        dataset = DATASETS[name]
        settings = {"n": N_IMAGES[name], **kwargs}
        files = make_files(rng, dataset, tmp_path / f"made-{name}", **settings)
        storage.add(files, private=dataset.private)
        register_files(monkeypatch, dataset, files, digests=digests)
        return files

    return put


def one_line(raised) -> str:
    message = str(raised.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", OF_IT)
def test_who_may_read_gets_the_recording_and_the_next_time_nothing_is_asked(
    name, storage, stored, credentials
):
    stored(name)
    if DATASETS[name].private:
        credentials(READER)
    assert not is_cached(DATASETS[name])
    recording = load(name)
    assert len(recording.images) == N_IMAGES[name]
    assert recording.n_repetitions == (DATASETS[name].repetitions or 6)
    assert len(recording.neuroid_ids) == 4
    assert recording.region == "IT"
    assert is_cached(DATASETS[name])
    storage.requests.clear()
    assert load(name).digest == recording.digest
    assert storage.requests == []
    register()
    assert named.RECORDINGS[name].access == "cached"


@pytest.mark.parametrize("key", [None, "AKIASTRANGER"])
def test_a_private_recording_is_refused_with_what_to_do(
    key, storage, stored, credentials, brainio
):
    stored("sanghavimurty2020")
    if key:
        credentials(key)
    with pytest.raises(AccessError) as raised:
        load("sanghavimurty2020")
    message = one_line(raised)
    for part in (
        *("sanghavimurty2020 is private", "SanghaviMurty2020 in Brain-Score", "403"),
        *("ask the Brain-Score team", "MajajHong2015public.IT-pls", "which is open"),
        "ce-align submit",
    ):
        assert part in message
    assert ("no AWS credentials" in message) == (key is None)
    assert not [path for path in brainio.rglob("*") if path.is_file()]


def test_the_open_recording_needs_no_credentials_nor_minds_strange_ones(
    stored, credentials
):
    stored(PUBLIC)
    credentials("AKIASTRANGER")
    assert len(load(PUBLIC).images) == N_IMAGES[PUBLIC]


def test_no_server_is_told_from_a_refusal(storage, stored, monkeypatch):
    stored("sanghavimurty2020")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    with pytest.raises(AccessError, match="cannot be reached from here"):
        load("sanghavimurty2020")
    key = DATASETS[PUBLIC].storage_key
    assert ask_storage(storage_client(signed=False), BUCKET, key) == "unreachable"


def test_asking_for_access_reads_no_byte(storage, stored, credentials):
    stored("sanghavimurty2020")
    key = DATASETS["sanghavimurty2020"].storage_key
    assert ask_storage(storage_client(signed=False), BUCKET, key) == "refused"
    credentials(READER)
    assert ask_storage(storage_client(signed=True), BUCKET, key) == "granted"
    assert {method for method, _ in storage.requests} == {"HEAD"}


def test_images_that_both_hvm_recordings_show_are_computed_once(
    stored, rng, tmp_path, credentials
):
    import torch

    from ce_align.models.features import extract
    from ce_align.models.networks import Network
    from ce_align.models.preprocessing import Preprocessing

    credentials(READER)
    everything = make_stimuli(rng, 12, tmp_path / "hvm", "hvm")
    private = everything[:5].copy()
    private.identifier = "hvm-private"
    private.stimulus_paths = {
        key: everything.stimulus_paths[key] for key in private["stimulus_id"]
    }
    stored("majajhong2015", stimuli=private)
    stored("sanghavi2020", stimuli=everything)
    first, second = (load(name).images for name in ("majajhong2015", "sanghavi2020"))
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())
    network = Network("net", module, Preprocessing(input_size=12))

    def features(images, **settings):
        found = extract(network, images, ["1"], device="cpu", batch_size=1, **settings)
        return found["1"].values

    features(first)
    told = []
    both = features(second, progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 12) for done in range(6, 13)]
    np.testing.assert_allclose(both, features(second, cache=None), atol=1e-6)


@pytest.mark.parametrize("name", DATASETS)
def test_the_storage_of_the_installed_brainscore_is_where_we_look(
    name, monkeypatch, brainio
):
    """Names of files, bucket and digests are stated twice; they must agree."""
    s3 = importlib.import_module("brainscore_core.supported_data_standards.brainio.s3")
    package = importlib.import_module("brainscore_vision")
    dataset, asked = DATASETS[name], set()

    def ask(location_type, location, sha1=None, version_id=None):
        asked.add((location, sha1, version_id))
        return brainio / location.rsplit("/", 1)[1]

    monkeypatch.setattr(s3, "fetch_file", ask)
    for plugin in dataset.plugins:
        importlib.import_module(f"brainscore_vision.data.{plugin}")
    keys = {dataset.registry_id, dataset.registry_id.replace("_train", "_test")}
    for key in keys:
        with pytest.raises(OSError, match="No such file"):
            package.data_registry[key]()
    base = f"https://{BUCKET}.s3.amazonaws.com"
    assert f"{base}/{dataset.storage_key}" in {location for location, _, _ in asked}
    if dataset.stored:
        stated = {
            (f"{base}/{file.folder}/{file.name}", file.sha1, file.version)
            for file in dataset.stored
        }
        assert stated == asked
