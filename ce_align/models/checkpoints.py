"""Weights of a network from a file: which of its tensors they are, and safetensors."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from zlib import crc32

import torch

from ce_align.checks import named_some
from ce_align.errors import ConfigError, DataError
from ce_align.files import atomic_path, check_regular
from ce_align.models.architectures import build_architecture
from ce_align.models.torchfiles import TensorRecord, read_torch_file

__all__ = [
    "Checkpoint",
    "convert",
    "read_checkpoint",
    "save_safetensors",
]

State = dict[str, torch.Tensor]

#: What trainers keep beside the weights, by the beginning of its name: their shapes are
#: those of the weights.
BESIDES = ("optim", "scheduler", "lr_", "scaler", "grad")

#: Metadata with a checksum of the file, in which so many zeros stand for it.
CHECKSUM, UNSTATED = "checksum", "0" * 8

#: Dictionaries deeper than this hold no network.
MAX_DEPTH = 8


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """Weights of a network, or of several beside one another."""

    #: In the key layout of the architecture, possibly below a prefix; of several
    #: networks, below the names of the dictionaries that they were in.
    state: State
    #: What the file says about itself (architecture, input_size, …).
    metadata: Mapping[str, Any] = field(default_factory=dict)


def read_checkpoint(path: Path) -> Checkpoint:
    """Weights from safetensors, or from a file of ``torch.save`` without executing it.

    Plain state dicts, dictionaries in which trainers keep one or several, and the
    authors' Composer checkpoints are understood.

    Raises
    ------
    DataError
        If the file is damaged, names other objects than tensors and plain data, or
        holds no weights.
    """
    if check_regular(path).suffix == ".safetensors":
        return _read_safetensors(path)
    found = read_torch_file(path, select=lambda content: _weights(content, path))
    other = [key for key, value in found.items() if not torch.is_tensor(value)]
    if other:
        raise DataError(
            f"{path}: expected only tensors among the weights, found others at "
            f"{named_some(other)}"
        )
    # Only the authors' networks keep their backbone under the bare letter f.
    if any("f" in key.split(".")[:-1] for key in found):
        found = _authors_state(found)
    return Checkpoint(found)


def _authors_state(state: State) -> State:
    """Backbone of the authors' layout, with the probe as its classifier ``fc``.

    The backbone's keys have a component ``f``, followed by torchvision's key;
    ``lin_cls`` is the probe. The momentum copy (``mom_f``) and the heads are left out.
    """
    found: State = {}
    for key, values in state.items():
        parts = key.split(".")
        if "f" in parts[:-1]:
            found[".".join(parts[parts.index("f") + 1 :])] = values
        elif any(part.startswith("lin_cls") for part in parts):
            found[f"fc.{parts[-1]}"] = values
    return found


def _weights(content: Any, path: Path) -> dict[str, Any]:
    """Names and tensors (still records), wherever a trainer put them."""
    states = list(_states(content, (), set()))
    if not states:
        keys = [str(key) for key in content] if isinstance(content, dict) else []
        raise DataError(
            f"{path} holds no weights: expected a state_dict, or one in a dictionary "
            f"such as model or state_dict; found "
            f"{named_some(keys) if keys else type(content).__name__}"
        )
    if ("state", "model") in dict(states):  # the authors' trainer
        return dict(states)["state", "model"]
    # What holds other objects is no network, unless it is the largest.
    states.sort(key=lambda state: len(state[1]), reverse=True)
    if not _is_pure(states[0][1]):
        return states[0][1]
    pure = {names: state for names, state in states if _is_pure(state)}
    if len(pure) == 1:
        return next(iter(pure.values()))
    return {
        ".".join((*names, key)): value
        for names, state in pure.items()
        for key, value in state.items()
    }


def _states(
    found: Any, names: tuple[str, ...], seen: set[int]
) -> Iterator[tuple[tuple[str, ...], dict[str, Any]]]:
    """Dictionaries with tensors, without their plain numbers and dictionaries."""
    if type(found) is not dict or id(found) in seen or len(names) > MAX_DEPTH:
        return
    seen.add(id(found))
    plain = (str, int, float, bool, type(None), dict)
    values = {key: value for key, value in found.items() if type(value) not in plain}
    has_tensors = any(type(value) is TensorRecord for value in values.values())
    if has_tensors and all(type(key) is str for key in values):
        yield names, values
    for key, value in found.items():
        if type(key) is str and not key.lower().startswith(BESIDES):
            yield from _states(value, (*names, key), seen)


def _is_pure(state: dict[str, Any]) -> bool:
    return all(type(value) is TensorRecord for value in state.values())


def _read_safetensors(path: Path) -> Checkpoint:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise DataError(f"there is no file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise DataError(
            f"{path} is damaged or no safetensors file: {error}; copy or make it again"
        ) from error
    stated = metadata.pop(CHECKSUM, None)
    if stated is not None and stated != _checksum(path, stated):
        raise DataError(
            f"{path} is damaged: its checksum is another than when it was written; "
            "copy or make it again, or, if it was changed on purpose, without "
            f"{CHECKSUM!r} in its metadata"
        )
    return Checkpoint(state, _decoded(metadata, path))


def _checksum(path: Path, stated: str) -> str:
    """CRC-32 of a file, in which zeros stand for the checksum that it states."""
    with check_regular(path).open("rb") as file:
        length = file.read(8)
        header = file.read(int.from_bytes(length, "little"))
        of, by = (f'"{CHECKSUM}":"{value}"'.encode() for value in (stated, UNSTATED))
        found = crc32(length + header.replace(of, by, 1))
        while block := file.read(2**20):
            found = crc32(block, found)
    return f"{found:08x}"


def _decoded(metadata: Mapping[str, str], path: Path) -> dict[str, Any]:
    decoded: dict[str, Any] = dict(metadata)
    for name in ("input_size", "mean", "std", "layers"):
        if name in metadata:
            try:
                decoded[name] = json.loads(metadata[name])
            except (ValueError, RecursionError):
                raise DataError(
                    f"{path}: metadata {name} should be JSON, found "
                    f"{metadata[name][:40]!r}"
                ) from None
    return decoded


def save_safetensors(
    path: Path, state: Mapping[str, torch.Tensor], metadata: Mapping[str, Any]
) -> Path:
    """Write weights and what is needed to use them, whole or not at all.

    The metadata are ``architecture`` (torchvision's name), ``input_size``, ``mean``,
    ``std``, ``layers`` (region to layer) and anything else worth keeping.

    Raises
    ------
    ConfigError
        If `path` does not end in ``.safetensors``.
    """
    from safetensors.torch import save

    if path.suffix != ".safetensors":
        raise ConfigError(f"expected a name ending in .safetensors, found {path.name}")
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in {**metadata, CHECKSUM: UNSTATED}.items()
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
        _write_metadata(temporary, UNSTATED)
        _write_metadata(temporary, _checksum(temporary, UNSTATED))
    return path


def _write_metadata(path: Path, checksum: str) -> None:
    """Write a checksum, and sort the metadata: equal content makes equal files.

    The writer of safetensors leaves them in another order at every call.
    """
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        metadata = {**header.pop("__metadata__"), CHECKSUM: checksum}
        ordered = {"__metadata__": dict(sorted(metadata.items())), **header}
        text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False)
        file.seek(8)
        file.write(text.encode().ljust(length))


def convert(source: Path, target: Path, metadata: Mapping[str, Any]) -> Path:
    """Rewrite any readable checkpoint as safetensors in torchvision's key layout.

    Raises
    ------
    ConfigError
        If neither the file nor `metadata` names the ``architecture``.
    DataError
        If the weights cannot be read, or do not fit the architecture.
    """
    checkpoint = read_checkpoint(source)
    combined = {**checkpoint.metadata, **metadata}
    if "architecture" not in combined:
        raise ConfigError(f"name the architecture of {source}, such as resnet50")
    state = checkpoint.state
    network = build_architecture(combined["architecture"], state, str(source))
    return save_safetensors(target, network.state_dict(), combined)
