from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import atomic_path
from ce_align.models import checkpoints
from ce_align.models.architectures import build_architecture
from ce_align.models.checkpoints import (
    backbone_state,
    convert,
    read_checkpoint,
    save_safetensors,
)

ARCHITECTURE = "shufflenet_v2_x0_5"


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    return shufflenet_v2_x0_5(num_classes=10).eval()


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def composer_file(network, tmp_path):
    """File in the authors' layout: backbone, momentum copy, heads and probe."""
    model = {}
    for key, values in network.state_dict().items():
        if key.startswith("fc."):
            model[f"module.lin_cls.{key[3:]}"] = values
        else:
            model[f"module.f.{key}"] = values
            model[f"module.mom_f.{key}"] = torch.zeros_like(values)
    model["module.g.0.weight"] = torch.randn(4, 512)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1).state_dict()
    path = tmp_path / "ep100-ba62500-rank0"
    torch.save({"state": {"model": model, "optimizers": optimizer}, "rng": []}, path)
    return path


def test_authors_checkpoint_gives_backbone_and_probe(composer_file, network):
    checkpoint = read_checkpoint(composer_file)
    own = network.state_dict()
    assert set(checkpoint.state) == {k for k in own if not k.startswith("fc.")}
    assert torch.equal(checkpoint.state["conv1.0.weight"], own["conv1.0.weight"])
    assert torch.equal(checkpoint.probe["bias"], own["fc.bias"])


def test_converted_checkpoint_is_the_same_network(
    composer_file, network, images, tmp_path
):
    target = tmp_path / "converted.safetensors"
    metadata = {"architecture": ARCHITECTURE, "layers": {"IT": "conv5"}}
    convert(composer_file, target, metadata)
    checkpoint = read_checkpoint(target)
    assert checkpoint.metadata["layers"] == {"IT": "conv5"}
    rebuilt = build_architecture(ARCHITECTURE, checkpoint.state, "converted")
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network(images))


def test_keys_without_a_backbone_are_refused_with_what_was_found():
    with pytest.raises(DataError, match=r"component 'f'.*found g\.weight, mom_f\.x"):
        backbone_state({"g.weight": torch.ones(1), "mom_f.x": torch.ones(1)})


@pytest.mark.parametrize(
    ("container", "prefix"),
    [
        *((None, p) for p in ("", "module.", "model.encoder.", "_orig_mod.module.")),
        *((c, "backbone.") for c in ("state_dict", "model_state", "model")),
    ],
)
def test_trainers_containers_and_prefixes_are_understood(
    container, prefix, network, images, tmp_path
):
    state = {f"{prefix}{key}": v for key, v in network.state_dict().items()}
    if prefix:
        state |= {"head.0.weight": torch.ones(3, 512)}
        state |= {prefix[:-1] + "_momentum." + k: v for k, v in state.items()}
    path = tmp_path / "trainer.pt"
    torch.save({container: state, "epoch": 3} if container else state, path)
    rebuilt = build_architecture(ARCHITECTURE, read_checkpoint(path).state, "trainer")
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network(images))


def test_backbone_without_classifier_ends_in_its_features(network, images):
    state = {k: v for k, v in network.state_dict().items() if k[:3] != "fc."}
    rebuilt = build_architecture(ARCHITECTURE, state, "backbone")
    with torch.no_grad():
        assert rebuilt(images).shape == (2, 1024)


def test_two_networks_in_one_file_are_refused(network):
    state = {}
    for name in ("student", "teacher"):
        state |= {f"{name}.{key}": v for key, v in network.state_dict().items()}
    with pytest.raises(DataError, match=r"several networks, below student\., teac"):
        build_architecture(ARCHITECTURE, state, "distilled")


def test_weights_that_do_not_fit_are_named(network):
    state = dict(network.state_dict())
    state["stage2.0.branch1.0.weight"] = torch.zeros(1, 1, 3, 1)
    state["extra"] = state.pop("conv1.0.weight")
    with pytest.raises(DataError) as refusal:
        build_architecture(ARCHITECTURE, state, "mine.pt")
    message = str(refusal.value)
    for part in (
        "shufflenet_v2_x0_5 (mine.pt)",
        "1 missing (conv1.0.weight)",
        "left over (extra)",
    ):
        assert part in message
    assert "stage2.0.branch1.0.weight (1, 1, 3, 1) instead of (24, 1, 3, 3)" in message


def test_unknown_architecture_lists_the_nearest(network):
    with pytest.raises(ConfigError, match="nearest: resnet18"):
        build_architecture("resnet-18", network.state_dict(), "mine.pt")


def test_conversion_needs_an_architecture(composer_file, tmp_path):
    with pytest.raises(ConfigError, match="name the architecture"):
        convert(composer_file, tmp_path / "a.safetensors", {})


def test_file_without_weights_is_refused_with_what_it_holds(tmp_path):
    torch.save({"epoch": 3, "history": [1.0]}, tmp_path / "log.pt")
    with pytest.raises(DataError, match=r"holds no weights.*found epoch, history"):
        read_checkpoint(tmp_path / "log.pt")


def test_other_values_among_weights_are_refused(tmp_path):
    torch.save({"a": torch.ones(1), "b": [3]}, tmp_path / "mixed.pt")
    with pytest.raises(DataError, match="found others at b"):
        read_checkpoint(tmp_path / "mixed.pt")


def test_damaged_safetensors_are_refused(tmp_path):
    path = save_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(99)}, {})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match="damaged"):
        read_checkpoint(path)
    save_safetensors(path, {"a": torch.ones(1)}, {"input_size": "large"})
    with pytest.raises(DataError, match="metadata input_size should be JSON"):
        read_checkpoint(path)


def test_strided_and_shared_tensors_can_be_saved(tmp_path):
    whole = torch.arange(12.0).view(3, 4)
    path = tmp_path / "a.safetensors"
    save_safetensors(path, {"whole": whole, "turned": whole.t()}, {})
    assert torch.equal(read_checkpoint(path).state["turned"], whole.t())
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_others_may_read_what_is_saved_in_a_shared_folder(tmp_path):
    path = save_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {})
    (tmp_path / "usual").touch()
    assert path.stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is full")
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path, monkeypatch):
    @contextmanager
    def full_disk(path):
        with atomic_path(path) as temporary:
            temporary.symlink_to("/dev/full")
            yield temporary

    monkeypatch.setattr(checkpoints, "atomic_path", full_disk)
    with pytest.raises(CeAlignError, match="No space left on device; free some"):
        save_safetensors(tmp_path / "a.safetensors", {"a": torch.ones(1)}, {})
    assert list(tmp_path.iterdir()) == []
