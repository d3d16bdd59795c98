"""Weights of a network from a file: which of its tensors they are, and safetensors."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ce_align.checks import named_some
from ce_align.errors import ConfigError, DataError
from ce_align.files import atomic_path
from ce_align.models.architectures import build_architecture
from ce_align.models.torchfiles import read_torch_file

__all__ = [
    "Checkpoint",
    "backbone_state",
    "convert",
    "read_checkpoint",
    "save_safetensors",
]

State = dict[str, torch.Tensor]

#: Where trainers keep the weights inside a checkpoint; () is the file itself.
CONTAINERS = (
    ("state", "model"),
    *(("state_dict",), ("model_state_dict",), ("model_state",), ("model",), ()),
)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights of one network.

    Attributes
    ----------
    state : tensors in the key layout of the architecture
    probe : ``weight`` and ``bias`` of a linear classifier trained along, if any
    metadata : what the file says about itself (architecture, input_size, …)
    """

    state: State
    probe: State = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def full_state(self) -> State:
        """The backbone with the probe as its classifier ``fc``."""
        probe = {f"fc.{name}": values for name, values in self.probe.items()}
        return {**self.state, **probe}


def backbone_state(model_state: Mapping[str, Any]) -> Checkpoint:
    """Backbone and probe of a checkpoint in the authors' layout.

    Parameters
    ----------
    model_state
        tensors by key; the backbone's keys have a component ``f``, followed by
        torchvision's key; ``lin_cls`` is the probe; the momentum copy (``mom_f``) and
        the heads are left out

    Raises
    ------
    DataError
        If no key has the component ``f``.
    """
    state: State = {}
    probe: State = {}
    for key, values in model_state.items():
        parts = key.split(".")
        if "f" in parts[:-1]:
            state[".".join(parts[parts.index("f") + 1 :])] = values
        elif any(part.startswith("lin_cls") for part in parts):
            probe[parts[-1]] = values
    if not state:
        raise DataError(
            "expected keys of a backbone with the component 'f' (…f.conv1.weight), "
            f"found {named_some(list(model_state))}"
        )
    return Checkpoint(state, probe)


def read_checkpoint(path: Path) -> Checkpoint:
    """Weights from safetensors, or from a file of ``torch.save`` without executing it.

    Plain state dicts, the usual containers of trainers, and the authors' Composer
    checkpoints are understood.

    Raises
    ------
    DataError
        If the file is damaged, names other objects than tensors and plain data, or
        holds no weights.
    """
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    found = read_torch_file(path, select=lambda content: _weights(content, path))
    state = _only_tensors(found, path)
    # Only the authors' networks keep their backbone under the bare letter f.
    if any("f" in key.split(".")[:-1] for key in state):
        return backbone_state(state)
    return Checkpoint(state)


def _weights(content: Any, path: Path) -> dict[str, Any]:
    """The mapping from names to tensors (still records), wherever a trainer put it."""
    for container in CONTAINERS:
        found = content
        for key in container:
            found = found.get(key) if isinstance(found, dict) else None
        if isinstance(found, dict) and _is_state(found):
            return found
    keys = [str(key) for key in content] if isinstance(content, dict) else []
    raise DataError(
        f"{path} holds no weights: expected a state_dict, or one under "
        f"{', '.join('.'.join(c) for c in CONTAINERS if c)}; found "
        f"{named_some(keys) if keys else type(content).__name__}"
    )


def _is_state(found: dict[Any, Any]) -> bool:
    plain = (str, int, float, bool, type(None), dict, list, tuple)
    has_tensors = any(not isinstance(value, plain) for value in found.values())
    return has_tensors and all(isinstance(key, str) for key in found)


def _only_tensors(state: Mapping[str, Any], path: Path) -> State:
    other = [key for key, value in state.items() if not isinstance(value, torch.Tensor)]
    if other:
        raise DataError(
            f"{path}: expected only tensors among the weights, found others at "
            f"{named_some(other)}"
        )
    return dict(state)


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path} is damaged or no safetensors file: {error}") from error
    return Checkpoint(state, {}, _decoded(metadata, path))


def _decoded(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    decoded: dict[str, Any] = dict(metadata)
    for name in ("input_size", "mean", "std", "layers"):
        if name in metadata:
            try:
                decoded[name] = json.loads(metadata[name])
            except ValueError:
                raise DataError(
                    f"{path}: metadata {name} should be JSON, found "
                    f"{metadata[name][:40]!r}"
                ) from None
    return decoded


def save_safetensors(
    path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> Path:
    """Write weights and what is needed to use them, whole or not at all.

    Parameters
    ----------
    path : ends in ``.safetensors``
    state : tensors by name
    metadata
        ``architecture`` (torchvision's name), ``input_size``, ``mean``, ``std``,
        ``layers`` (region to layer) and anything else worth keeping

    Raises
    ------
    ConfigError
        If `path` has another suffix.
    """
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise ConfigError(f"expected a name ending in .safetensors, found {path.name}")
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in metadata.items()
    }
    # Shared or strided tensors are not part of the format.
    whole = {
        name: values.detach().cpu().clone().contiguous()
        for name, values in state.items()
    }
    with atomic_path(path) as temporary:
        # Its own writer keeps the file from all other users of a shared folder, and
        # tells of a full disk with an error of its own.
        temporary.write_bytes(save(whole, texts))
        _order_metadata(temporary)
    return path


def _order_metadata(path: Path) -> None:
    """Sort the metadata, so that equal content makes equal files.

    The writer of safetensors leaves them in another order at every call.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = dict(sorted(header.pop("__metadata__", {}).items()))
        ordered = {"__metadata__": metadata, **header} if metadata else header
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)
        file.seek(8)
        file.write(text.encode().ljust(length))


def convert(source: Path, target: Path, metadata: Mapping[str, Any]) -> Path:
    """Rewrite any readable checkpoint as safetensors in torchvision's key layout.

    The probe becomes the classifier ``fc``.

    Parameters
    ----------
    source, target : checkpoint to read, safetensors to write
    metadata : names the ``architecture``; see :func:`save_safetensors`

    Raises
    ------
    ConfigError
        If no architecture is named.
    DataError
        If the weights cannot be read, or do not fit the architecture.
    """
    checkpoint = read_checkpoint(source)
    combined = {**checkpoint.metadata, **metadata}
    if "architecture" not in combined:
        raise ConfigError(f"name the architecture of {source}, such as resnet50")
    state = checkpoint.full_state
    network = build_architecture(combined["architecture"], state, str(source))
    return save_safetensors(target, network.state_dict(), combined)
