import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from ce_align.errors import ConfigError
from ce_align.files import cache_folder
from ce_align.models.catalogue import (
    EXPORTED,
    GROUPS,
    PUBLISHED,
    expand,
    facts_of,
    is_cached,
    label_of,
)
from ce_align.models.checkpoints import save_safetensors
from ce_align.results import NetworkFacts


def test_paper_group_is_three_objectives_at_seven_weights():
    entries = [PUBLISHED[name] for name in GROUPS["paper"]]
    pairs = {(entry.objective, entry.equivariance_weight) for entry in entries}
    assert len(entries) == len(pairs) == 21
    assert {weight for _, weight in pairs} == {0, 0.001, 0.1, 0.2, 0.3, 0.4, 0.5}


def test_name_states_the_entry_that_it_names():
    for name, entry in PUBLISHED.items():
        ending = "_ep1000" if entry.epochs == 1000 else ""
        weight = f"{entry.equivariance_weight:g}"
        assert name == f"ce_{entry.objective}_l{weight}{ending}"


def test_every_weight_has_the_authors_and_brainscores_spelling():
    entry = PUBLISHED["ce_simclr_l0.001"]
    assert entry.brainscore_id == "CE-SimCLR_lmda_0001"
    assert entry.path == "SimCLR/lmda_0.001/ep100-ba62500-rank0"
    assert PUBLISHED["ce_mmcr_l0"].path == "MMCR/lmda_0.0/ep100-ba62500-rank0"
    assert PUBLISHED["ce_barlow_l0.2_ep1000"].brainscore_id is None


@pytest.mark.brainscore
def test_brainscore_identifiers_are_those_of_its_registry():
    from pathlib import Path

    import brainscore_vision

    folder = Path(brainscore_vision.__file__).parent / "models"
    text = "".join(p.read_text() for p in folder.glob("CE-*/__init__.py"))
    for name in GROUPS["paper"]:
        assert f'model_registry["{PUBLISHED[name].brainscore_id}"]' in text


def test_address_of_checkpoints_can_be_replaced(monkeypatch):
    monkeypatch.setenv("CE_ALIGN_CHECKPOINTS_URL", "https://mirror.example/ce/")
    url = PUBLISHED["ce_barlow_l0.2_ep1000"].address()
    assert url == "https://mirror.example/ce/Barlow/1000_epoch/ep1000-ba625000-rank0"


def test_expand_keeps_order_and_names_each_network_once():
    patterns = ["ce_barlow_l0.2", "ce_barlow_*", "CE-Barlow_lmda_02", "pixels"]
    names = expand(patterns)
    assert names[0] == "ce_barlow_l0.2"
    assert names[-1] == "pixels"
    assert len(names) == len(set(names)) == 9


def test_expand_passes_names_of_other_sources_through():
    others = ["torchvision/resnet50", "nets/mine.pt:resnet18", "mine.py:build", "gabor"]
    assert expand(others) == others


def test_unknown_name_lists_the_nearest_ones():
    with pytest.raises(ConfigError, match=r"ce_mmcr_l0\.[35]"):
        expand(["ce_mmcr_l0.6"])
    with pytest.raises(ConfigError, match="no network is called 'ce_vicreg_"):
        expand(["ce_vicreg_*"])


def test_network_is_cached_once_its_file_is_in_place():
    entry = PUBLISHED["ce_mmcr_l0.1"]
    assert not is_cached(entry)
    path = cache_folder("checkpoints") / "ce_mmcr_l0.1.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"")
    assert is_cached(entry)


def test_catalogue_imports_without_torch():
    code = "import sys, ce_align.models.catalogue; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_facts_are_known_of_published_networks_and_of_own_trainings(tmp_path):
    facts = facts_of("ce_mmcr_l0.1")
    assert (facts.objective, facts.equivariance_weight) == ("mmcr", 0.1)
    assert (facts.backbone, facts.epochs) == ("resnet50", 100)
    assert (facts.pretraining, facts.augmentation) == ("ImageNet-1k", "strong")
    assert facts.network_seed is None
    found = facts_of("CE-Barlow_lmda_02")
    expected = PUBLISHED["ce_barlow_l0.2"].facts
    assert found == replace(expected, label="Barlow Twins, λ = 0.2")
    weights = tmp_path / "run" / EXPORTED
    config = {"objective": "simclr", "equivariance_weight": 0.25, "backbone": "tiny"}
    config |= {"epochs": 8, "images": "simulated", "families": ["tiny_a", "tiny_b"]}
    save_safetensors(weights, {"w": torch.zeros(2)}, {"config": {**config, "seed": 3}})
    expected = NetworkFacts("simclr", 0.25, "tiny", 8, "simulated", "tiny", 3, "run")
    for name in (str(tmp_path / "run"), str(weights)):
        assert facts_of(name) == expected
    weights.write_bytes(b"damaged")
    for name in (str(tmp_path / "run"), "pixels", "torchvision/resnet50"):
        assert facts_of(name) == NetworkFacts(label=name.rpartition("/")[2])


def test_the_published_networks_are_called_as_in_the_paper():
    labels = {name: entry.label for name, entry in PUBLISHED.items()}
    assert labels["ce_simclr_l0.001"] == "SimCLR, λ = 0.001"
    assert labels["ce_barlow_l0.2_ep1000"] == "Barlow Twins, λ = 0.2, 1000 epochs"
    assert len(set(labels.values())) == len(labels) == 22


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("CE-MMCR_lmda_03", "MMCR, λ = 0.3"),
        ("/data/runs/a", "a"),
        ("runs/a/model.safetensors", "a"),
        ("runs/a/checkpoints/last.ckpt", "a"),
        ("nets/mine.pt:resnet50", "mine"),
        ("nets/mine.pt@teacher+timm", "mine@teacher"),
        ("model.safetensors", "model"),
        ("timm/vit_small_patch16_224", "vit_small_patch16_224"),
        ("torchvision/resnet50:IMAGENET1K_V2", "resnet50:IMAGENET1K_V2"),
        ("hf-hub:lab/net@v2@visual", "net@v2@visual"),
        ("local-dir:hub/mine", "mine"),
        ("features:out/mine.npy:ids.csv", "mine"),
        ("code/nets.py:build", "nets.py:build"),
    ],
)
def test_a_network_without_a_label_is_called_by_the_end_of_its_name(name, label):
    assert label_of(name) == label
