"""Rows know of which network and of which data they are, from birth or when read."""

import dataclasses
import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from earlier_toys import measure_all, toy_images, toy_recording, toy_splits
from toys import toy_config, toy_network

from ce_align.data.scenes import find_images, procedural_scenes
from ce_align.data.simulation import simulated_recording
from ce_align.models import load
from ce_align.models.catalogue import EXPORTED, PUBLISHED
from ce_align.models.checkpoints import save_safetensors
from ce_align.models.load import load_network
from ce_align.results import FACTS, NetworkFacts, ResultStore
from ce_align.runner import run
from ce_align.stages.imported import ImportConfig
from ce_align.stages.overlap import OverlapConfig
from ce_align.stages.same_network import load_rows, resolve_networks
from ce_align.stages.scores import ScoreConfig
from ce_align.stages.train import OnlineConfig, train
from ce_align.stages.transfer import TransferConfig
from ce_align.trainer.presets import preset_config

#: Documents that an earlier version wrote, see `earlier_toys`.
EARLIER = Path(__file__).parent / "earlier"

OWN = NetworkFacts("barlow", 0.25, "tiny", 8, "my/images", "tiny", 3)


def facts_of_row(row):
    """What a row says of how its network came to be."""
    told = [name for name in FACTS if name != "label"]
    return NetworkFacts(**{name: getattr(row, name) for name in told})


def run_toys(store, network, config, given):
    given = {("network", "toy"): network, **given}
    outcome = run([config], store, given=given, responses=store.folder / "views")
    assert not outcome.failures
    return outcome


def toy_score(network, recording, store):
    names = {"model": "toy", "recording": "toy recording", "layer": "1"}
    config = ScoreConfig(**names, regression="ridge", alpha=1.0, splits=2)
    return run_toys(store, network, config, {("recording", "toy recording"): recording})


@pytest.fixture
def store(tmp_path):
    return ResultStore(tmp_path / "results")


@pytest.fixture
def network():
    return dataclasses.replace(toy_network(), facts=OWN)


def test_a_score_says_how_its_network_was_trained_and_that_it_was_recorded(
    network, store
):
    (row,) = toy_score(network, toy_recording(), store).rows
    assert facts_of_row(row) == OWN
    assert (row.stage, row.origin) == ("score", "recorded")
    (stored,) = toy_score(network, toy_recording(), store).rows
    assert stored == row
    (document,) = store.documents("score")
    assert document["rows"] == [row.model_dump(mode="json")]


@pytest.mark.parametrize("origin", ["recorded", "imported", "simulated"])
def test_the_origin_of_a_score_is_that_of_its_recording(origin, network, store):
    recording = dataclasses.replace(toy_recording(), origin=origin)
    assert toy_score(network, recording, store).rows[0].origin == origin


def test_what_is_known_of_a_network_is_no_part_of_what_it_is(network, store):
    (first,) = toy_score(toy_network(), toy_recording(), store).rows
    outcome = toy_score(network, toy_recording(), store)
    assert outcome.n_stored == 1
    assert outcome.rows[0].config_id == first.config_id
    assert outcome.rows[0].value == first.value
    # Stored without facts, they are those of the network at hand.
    assert facts_of_row(first) == NetworkFacts()
    assert facts_of_row(outcome.rows[0]) == OWN


def test_measures_say_what_their_network_and_its_baseline_are(network, store):
    zero = dataclasses.replace(OWN, equivariance_weight=0.0)
    baseline = dataclasses.replace(toy_network(1, "zero"), facts=zero)
    images = dataclasses.replace(toy_images(), origin="simulated")
    config = toy_config(baseline="zero")
    rows = run_toys(
        store,
        network,
        config,
        {("network", "zero"): baseline, ("images", "toys"): images},
    ).rows
    assert {row.stage for row in rows} == {"analyze"}
    assert {row.origin for row in rows} == {"simulated"}
    assert all(facts_of_row(row) == OWN for row in rows)
    for row in rows:
        known = row.baseline_objective, row.baseline_equivariance_weight
        assert known == (("barlow", 0.0) if row.baseline else (None, None))
    assert {row.baseline for row in rows} == {None, "zero"}


def test_an_overlap_says_what_both_networks_are(network, store):
    other = dataclasses.replace(
        toy_network(1, "other"), facts=NetworkFacts("mmcr", 0.1)
    )
    layers = {"layer_a": "1", "layer_b": "1"}
    config = OverlapConfig(
        model_a="toy", model_b="other", recording="toy recording", **layers
    )
    given = {
        ("network", "other"): other,
        ("recording", "toy recording"): toy_recording(),
    }
    rows = run_toys(store, network, config, given).rows
    for row in rows:
        assert facts_of_row(row) == OWN
        known = row.other_objective, row.other_equivariance_weight
        assert (*known, row.origin, row.stage) == ("mmcr", 0.1, "recorded", "overlap")


def test_an_accuracy_says_how_its_network_was_trained(network, store):
    config = TransferConfig(model="toy", dataset="toys", layer="1", size=16, runs=1)
    (row,) = run_toys(store, network, config, {("dataset", "toys"): toy_splits()}).rows
    assert facts_of_row(row) == OWN
    assert (row.stage, row.origin) == ("transfer", "files")


def test_a_training_and_the_network_that_it_gives_say_the_same(tmp_path):
    changes = {"epochs": 0, "images": "simulated", "seed": 3, "pairs_per_step": 4}
    config = preset_config("tiny", "barlow", equivariance_weight=0.25, **changes)
    folder = tmp_path / "run"
    images = procedural_scenes(8, size=32)
    rows = train(config, images, folder, notify=lambda _: None)
    expected = NetworkFacts("barlow", 0.25, "tiny", 0, "simulated", "tiny", 3)
    assert rows
    for row in rows:
        assert facts_of_row(row) == expected
        assert (row.stage, row.origin) == ("train", "simulated")
    assert load_network(str(folder)).facts == expected
    assert load_network(str(folder / EXPORTED)).facts == expected


def test_a_published_network_says_what_the_catalogue_does(tmp_path, monkeypatch):
    entry = dataclasses.replace(PUBLISHED["ce_mmcr_l0.1"], architecture="resnet18")
    weights = tmp_path / "weights.safetensors"
    state = load.torchvision_network("resnet18").state_dict()
    save_safetensors(weights, state, {})
    monkeypatch.setattr(load, "fetch", lambda *args, **options: weights)
    monkeypatch.setattr(load, "find_published", lambda name: entry)
    facts = load_network("ce_mmcr_l0.1").facts
    expected = NetworkFacts("mmcr", 0.1, "resnet18", 100, "ImageNet-1k", "strong")
    assert facts == expected


def test_networks_of_libraries_and_of_users_say_what_is_known(tmp_path):
    named = load_network("torchvision/shufflenet_v2_x0_5:none", seed=4)
    assert named.facts == NetworkFacts(
        backbone="shufflenet_v2_x0_5", epochs=0, pretraining="none", network_seed=4
    )
    assert load_network("pixels").facts == NetworkFacts()
    file = tmp_path / "mine.py"
    file.write_text("import torch\ndef net():\n    return torch.nn.Conv2d(3, 4, 5)\n")
    assert load_network(f"{file}:net").facts == NetworkFacts()
    weights = tmp_path / "plain.safetensors"
    state = load.torchvision_network("shufflenet_v2_x0_5").state_dict()
    save_safetensors(weights, state, {})
    found = load_network(f"{weights}:shufflenet_v2_x0_5").facts
    assert found == NetworkFacts(backbone="shufflenet_v2_x0_5")


def test_images_and_recordings_know_whether_they_are_simulated():
    assert find_images("simulated").origin == "simulated"
    assert find_images("simulated").select([0, 1]).origin == "simulated"
    assert toy_images().on_screen(8.0, 4.0).origin == "files"
    simulated = simulated_recording(n_images=4, n_neuroids=2, image_size=32).recording
    assert simulated.origin == "simulated"
    assert simulated.images.origin == "simulated"


def test_an_imported_score_says_what_is_known_of_its_network(tmp_path, store):
    lines = "model,benchmark,score\nCE-MMCR_lmda_01,{0},0.4\nother,{0},0.5\n"
    table = tmp_path / "board.csv"
    table.write_text(lines.format("MajajHong2015.IT-pls"))
    rows = run([ImportConfig(file=str(table))], store).rows
    assert [facts_of_row(row) for row in rows] == [
        PUBLISHED["ce_mmcr_l0.1"].facts,
        NetworkFacts(),
    ]
    assert {(row.stage, row.origin) for row in rows} == {("imported", "imported")}


def earlier_store(tmp_path):
    shutil.copytree(EARLIER, tmp_path / "earlier")
    return ResultStore(tmp_path / "earlier")


def test_rows_of_an_earlier_version_are_recalled_and_completed(tmp_path):
    store = earlier_store(tmp_path)
    before = {row["config_id"] for row in load_rows(store).to_dict("records")}
    rows, n_stored = measure_all(store)
    # Probes are fitted by another algorithm since, and are computed anew.
    assert n_stored == 3
    assert {row.config_id for row in rows if row.stage != "transfer"} <= before
    for row in rows:
        images = row.stage in ("analyze", "transfer")
        assert row.origin == ("files" if images else "recorded")
        assert facts_of_row(row) == NetworkFacts()


def test_rows_of_an_earlier_version_are_completed_when_they_are_read(tmp_path):
    rows = load_rows(earlier_store(tmp_path))
    by_stage = dict(iter(rows.groupby("stage")))
    trained = by_stage["train"].iloc[0]
    expected = ("barlow", 0.0, "tiny", 0, "simulated", "tiny", 1)
    # Rows of then know no `weighting`.
    assert tuple(trained[name] for name in FACTS) == (*expected, "l0", None)
    assert trained["origin"] == "simulated"
    imported = by_stage["imported"].iloc[0]
    assert tuple(imported[["objective", "backbone", "origin"]]) == (
        *("mmcr", "resnet50"),
        "imported",
    )
    scores = by_stage["score"].set_index(["model", "recording"])["origin"]
    assert scores["pixels", "simulated"] == "simulated"
    assert scores["pixels", "toy"] == "recorded"
    assert set(by_stage["analyze"]["origin"]) == {"files"}
    # The folder of the training is not at hand, but its rows are.
    resolved = resolve_networks(rows)
    known = resolved.rows[resolved.rows["model"] == "runs/l0"]
    assert {"score", "train"} == set(known["stage"])
    assert set(known["objective"]) == {"barlow"}
    assert resolved.facts["runs/l0"] == NetworkFacts(*expected, label="l0")
    assert resolved.facts["pixels"] == NetworkFacts(label="pixels")


def test_numbers_and_identities_of_an_earlier_version_stay(tmp_path):
    rows = load_rows(earlier_store(tmp_path))
    for path in EARLIER.glob("*/*.json"):
        for row in json.loads(path.read_text())["rows"]:
            same = rows[
                (rows["config_id"] == row["config_id"])
                & (rows["metric"] == row["metric"])
            ]
            (found,) = same.to_dict("records")
            for name, value in row.items():
                assert value is None or name == "strengths" or found[name] == value


def test_a_training_of_an_earlier_version_joins_the_results_completed(tmp_path, store):
    folder = tmp_path / "moved"
    shutil.copytree(EARLIER / "train", folder / "train")
    rows = run([OnlineConfig(model=str(folder))], store).rows
    expected = NetworkFacts("barlow", 0.0, "tiny", 0, "simulated", "tiny", 1)
    for row in rows:
        assert (row.model, row.origin) == (str(folder), "simulated")
        assert facts_of_row(row) == expected


def test_what_one_row_says_all_rows_of_its_network_say():
    common = {"stage": "score", "metric": "predictivity", "value": 1.0}
    told = {"origin": "recorded", "objective": "mmcr", "equivariance_weight": 0.1}
    rows = pd.DataFrame(
        [
            {**common, "model": "a", "model_digest": "d", "created": "1", **told},
            {**common, "model": "b.pt", "model_digest": "d", "created": "2"},
            {**common, "model": "c", "model_digest": "e", "created": "3"},
        ]
    )
    found = resolve_networks(rows)
    assert list(found.rows["model"]) == ["a", "a", "c"]
    assert list(found.rows["objective"]) == ["mmcr", "mmcr", None]
    assert found.facts["a"] == NetworkFacts("mmcr", 0.1, label="a")
