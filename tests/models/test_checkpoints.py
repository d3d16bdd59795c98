from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torchvision.models import shufflenet_v2_x0_5

from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.files import atomic_path
from ce_align.models import checkpoints
from ce_align.models.architectures import (
    build_architecture,
    fitting_architecture,
    torchvision_network,
)
from ce_align.models.checkpoints import (
    convert,
    read_checkpoint,
    save_safetensors,
)
from ce_align.models.load import load_network

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
    assert set(checkpoint.state) == set(own)
    assert torch.equal(checkpoint.state["conv1.0.weight"], own["conv1.0.weight"])
    assert torch.equal(checkpoint.state["fc.bias"], own["fc.bias"])


@pytest.mark.slow
def test_shapes_tell_a_residual_network_below_any_prefix():
    with torch.device("meta"):
        state = torchvision_network("resnet34", 7).state_dict()
    below = {f"module.encoder.{key}": values for key, values in state.items()}
    assert fitting_architecture(below) == "resnet34"
    changed = {**state, "layer4.1.conv2.weight": torch.empty(8, 8, device="meta")}
    assert fitting_architecture(changed) is None


@pytest.mark.slow
def test_a_file_without_an_architecture_is_told_the_one_that_fits(tmp_path):
    network = torchvision_network("resnet18", 5)
    torch.save(network.state_dict(), tmp_path / "mine.pt")
    with pytest.raises(ConfigError, match=r"shapes of resnet18: .*mine\.pt:resnet18$"):
        load_network(f"{tmp_path}/mine.pt")
    torch.save({"a.weight": torch.ones(3)}, tmp_path / "other.pt")
    with pytest.raises(ConfigError, match="such as resnet50"):
        load_network(f"{tmp_path}/other.pt")


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


@pytest.mark.slow
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


def copies(network, names):
    """The network below each name, with other weights below each further one."""
    return {
        f"{name}{key}": values + index if values.is_floating_point() else values
        for index, name in enumerate(names)
        for key, values in network.state_dict().items()
    }


def is_copy(rebuilt, network, index):
    own = network.state_dict()
    return torch.equal(
        rebuilt.state_dict()["conv1.0.weight"], own["conv1.0.weight"] + index
    )


PAIRS = [
    ("student.", "teacher.", 1),
    ("teacher.module.backbone.", "student.module.backbone.", 0),
    ("student_backbone.", "teacher_backbone.", 1),
    ("module.encoder_q.", "module.encoder_k.", 0),
    ("module.momentum_encoder.", "module.base_encoder.", 1),
    ("online_encoder.net.", "target_encoder.net.", 0),
    ("target_network.", "online_network.", 1),
    ("backbone.", "momentum_backbone.", 0),
    ("backbone_momentum.", "backbone.", 1),
    ("encoder.", "target_encoder.", 0),
    ("state_dict.", "state_dict_ema.", 1),
    ("", "ema.", 1),
    ("momentum.", "", 1),
]


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second", "usual"), PAIRS)
def test_of_two_networks_the_usual_one_is_taken_and_said(
    first, second, usual, network, caplog
):
    state = copies(network, (first, second))
    rebuilt = build_architecture(ARCHITECTURE, state, "mine.pt")
    assert is_copy(rebuilt, network, usual)
    (said,) = caplog.messages
    names = (first[:-1] or "top", second[:-1] or "top")
    assert f"mine.pt holds several networks: that below {names[usual]} is taken" in said
    assert all(f"@{name}" in said for name in names)
    caplog.clear()
    for index, name in enumerate(names):
        chosen = build_architecture(ARCHITECTURE, state, "mine.pt", name)
        assert is_copy(chosen, network, index)
    assert not caplog.messages


@pytest.mark.parametrize(
    ("choice", "index"),
    [("teacher", 1), ("student", 0), ("backbone", None), ("tutor", None)],
)
def test_a_part_of_a_name_chooses_one_network_or_is_refused(choice, index, network):
    state = copies(network, ("student.module.backbone.", "teacher.backbone."))
    if index is None:
        message = f"no single network called '{choice}'; it has weights below"
        with pytest.raises(ConfigError, match=message):
            build_architecture(ARCHITECTURE, state, "dino.pt", choice)
    else:
        chosen = build_architecture(ARCHITECTURE, state, "dino.pt", choice)
        assert is_copy(chosen, network, index)


def test_a_whole_name_is_preferred_to_a_part_of_one(network):
    state = copies(network, ("momentum_backbone.", "backbone."))
    chosen = build_architecture(ARCHITECTURE, state, "mine.pt", "backbone")
    assert is_copy(chosen, network, 1)


def test_networks_of_which_none_is_usual_are_refused_with_their_names(network):
    state = copies(network, ("left.", "right."))
    message = r"several networks, below left, right; choose one .*: @left, @right"
    with pytest.raises(DataError, match=message):
        build_architecture(ARCHITECTURE, state, "twins.pt")


def test_the_same_network_twice_is_one(network, caplog):
    """As of robust training, which keeps its attacker's copy."""
    own = network.state_dict()
    names = ("module.model.", "module.attacker.model.")
    state = {f"{name}{key}": v for name in names for key, v in own.items()}
    assert is_copy(build_architecture(ARCHITECTURE, state, "robust.pt"), network, 0)
    assert not caplog.messages


def test_a_network_that_does_not_fit_is_no_choice(network, caplog):
    state = copies(network, ("student.", "teacher."))
    del state["teacher.conv1.0.weight"]
    assert is_copy(build_architecture(ARCHITECTURE, state, "mine.pt"), network, 0)
    with pytest.raises(ConfigError, match="no single network called 'teacher'"):
        build_architecture(ARCHITECTURE, state, "mine.pt", "teacher")


@pytest.mark.parametrize(
    "container",
    [
        *("net", "encoder", "weights", "teacher", "network", "params"),
        *("classy_state_dict.base_model.model.trunk", "state_dict_ema", "ema.model"),
    ],
)
def test_weights_are_found_in_any_dictionary(container, network, images, tmp_path):
    content = {f"_feature_blocks.{k}": v for k, v in network.state_dict().items()}
    for name in reversed(container.split(".")):
        content = {name: content, "epoch": 3, "loss": {"center": torch.ones(3)}}
    optimizer = torch.optim.Adam(network.parameters()).state_dict()
    named = {f"{k}.exp_avg": v for k, v in network.state_dict().items()}
    content |= {"optimizer": optimizer, "optim_state": named, "args": Namespace(lr=1)}
    torch.save(content, tmp_path / "trainer.pt")
    state = read_checkpoint(tmp_path / "trainer.pt").state
    assert not any("exp_avg" in key for key in state)
    rebuilt = build_architecture(ARCHITECTURE, state, "trainer")
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network(images))


def test_student_and_teacher_in_two_dictionaries_can_be_chosen(network, tmp_path):
    """As DINO saves them, with heads below and settings beside them."""
    parts = {}
    for index, (name, prefix) in enumerate(
        [("student", "module.backbone."), ("teacher", "backbone.")]
    ):
        parts[name] = {
            f"{prefix}{key}": values + index if values.is_floating_point() else values
            for key, values in network.state_dict().items()
            if not key.startswith("fc.")
        }
        parts[name][prefix.replace("backbone", "head") + "mlp.0.weight"] = torch.ones(2)
    extra = {
        "args": Namespace(arch="x"),
        "epoch": 3,
        "dino_loss": {"center": torch.ones(2)},
    }
    torch.save(parts | extra, tmp_path / "dino.pt")
    state = read_checkpoint(tmp_path / "dino.pt").state
    for choice, index in (("", 1), ("teacher", 1), ("student", 0)):
        rebuilt = build_architecture(ARCHITECTURE, state, "dino.pt", choice)
        assert is_copy(rebuilt, network, index)
        assert isinstance(rebuilt.fc, torch.nn.Identity)


PROJECTORS = [
    {"fc.0.weight": (64, 1024), "fc.0.bias": (64,), "fc.2.weight": (16, 64)},
    {"fc.weight": (16, 64)},
    {"fc.layers.0.weight": (64, 1024), "fc.layers.1.running_mean": (64,)},
]


@pytest.mark.parametrize("projector", PROJECTORS)
def test_a_projector_in_the_place_of_the_classifier_is_left_out_and_said(
    projector, network, images, caplog
):
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("fc.")}
    own = build_architecture(ARCHITECTURE, state, "backbone")
    heads = {key: torch.ones(shape) for key, shape in projector.items()}
    rebuilt = build_architecture(ARCHITECTURE, state | heads, "moco.pt")
    with torch.no_grad():
        assert torch.equal(rebuilt(images), own(images))
    (said,) = caplog.messages
    assert "moco.pt: its weights below fc (fc." in said
    assert "left out" in said


def test_projectors_and_queues_beside_the_backbone_are_left_out(network, images):
    """As SwAV and MoCo save them, in the same module."""
    state = {f"module.{k}": v for k, v in network.state_dict().items()}
    state |= {
        "module.projection_head.0.weight": torch.ones(3, 3),
        "module.prototypes.weight": torch.ones(3, 3),
        "module.queue_ptr": torch.ones(1),
    }
    rebuilt = build_architecture(ARCHITECTURE, state, "swav.pt")
    with torch.no_grad():
        assert torch.equal(rebuilt(images), network(images))


def test_a_classifier_of_more_classes_is_kept(network, images):
    state = network.state_dict()
    state["fc.weight"], state["fc.bias"] = torch.ones(21, 1024), torch.ones(21)
    assert build_architecture(ARCHITECTURE, state, "x")(images).shape == (2, 21)


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
