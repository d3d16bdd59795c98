"""A network with all that is needed to read its features."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from ce_align.checks import named_some, nearest_names
from ce_align.digests import combine_digests, digest_array, digest_bytes
from ce_align.errors import ConfigError, DataError
from ce_align.models.preprocessing import Preprocessing

__all__ = ["Network", "module_digest"]


@dataclass(frozen=True, eq=False)
class Network:
    """A network, how to feed it, and which layer stands for which region.

    Attributes
    ----------
    name : as commands name it; never trusted as an identity
    module : in evaluation mode
    preprocessing : from images to its input
    layers : region (V1, V2, V4, IT) to layer
    source_digest : of the Python file that builds it, if one does
    """

    name: str
    module: nn.Module
    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    layers: Mapping[str, str] = field(default_factory=dict)
    source_digest: str = ""

    def __post_init__(self) -> None:
        self.module.eval()
        for region, layer in self.layers.items():
            if layer not in self._modules:
                raise DataError(
                    f"{self.name} commits layer {layer!r} to {region}, but has no such "
                    f"layer{self._nearest(layer)}"
                )

    @property
    def _modules(self) -> dict[str, nn.Module]:
        return {name: m for name, m in self.module.named_modules() if name}

    @property
    def digest(self) -> str:
        """Digest of architecture, weights, preprocessing and source, as they are now.

        It is computed at every call, so that it is right after weights have changed.
        """
        return combine_digests(
            module_digest(self.module),
            self.preprocessing.fingerprint,
            self.source_digest,
        )

    def layer_for(self, region: str) -> str:
        """Layer committed to a region.

        Raises
        ------
        ConfigError
            If there is none.
        """
        if region in self.layers:
            return self.layers[region]
        committed = ", ".join(f"{r}: {layer}" for r, layer in self.layers.items())
        raise ConfigError(
            f"{self.name} commits no layer to region {region} "
            f"({committed or 'nor to any other'}); name one with --layer, such as "
            f"{named_some(self.block_names()[::-1])}"
        )

    def layer_names(self) -> list[str]:
        """Names of all layers."""
        return list(self._modules)

    def check_layers(self, layers: list[str]) -> None:
        """Raise ConfigError, with the nearest names, unless every layer exists."""
        for layer in layers:
            if layer not in self._modules:
                raise ConfigError(
                    f"{self.name} has no layer {layer!r}{self._nearest(layer)}"
                )

    def _nearest(self, layer: str) -> str:
        near = nearest_names(layer, self._modules)
        return f"; nearest: {', '.join(near)}" if near else ""

    def block_names(self) -> list[str]:
        """Names of the network's blocks, in order: what ``--layer all`` means.

        Blocks are the modules with parts of their own that are not mere sequences of
        others: ``layer1.0`` of a ResNet, ``encoder.layers.encoder_layer_0`` of a vision
        transformer. In a network without any, such as AlexNet, they are its leaves
        except dropout and reshaping.
        """
        found = [(name, m) for name, m in _blocks(self.module, "") if name]
        composed = [name for name, m in found if any(m.children())]
        silent = (nn.Dropout, nn.Identity, nn.Flatten)
        audible = [name for name, m in found if not isinstance(m, silent)]
        return composed or audible or [name for name, _ in found]


def _blocks(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    """Blocks below `module`, itself if it is one."""
    top = "." not in name
    if name and not _is_expanded(module, top):
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _blocks(child, f"{name}.{child_name}" if name else child_name)


def _is_sequence(module: nn.Module) -> bool:
    # Exactly these: a subclass, such as convolution with norm, is a block.
    return type(module) in (nn.Sequential, nn.ModuleList)


def _is_expanded(module: nn.Module, top: bool) -> bool:
    """Whether a module only arranges blocks."""
    children = list(module.children())
    if _is_sequence(module):
        return top or any(any(child.children()) for child in children)
    # Such as the encoder of a transformer, around its one sequence of equal blocks.
    sequences = [child for child in children if _is_sequence(child)]
    return len(sequences) == 1 and _repeats_blocks(sequences[0])


def _repeats_blocks(sequence: nn.Module) -> bool:
    blocks = list(sequence.children())
    composed = [any(b.children()) and not isinstance(b, nn.Sequential) for b in blocks]
    return len(blocks) > 1 and len(set(map(type, blocks))) == 1 and all(composed)


def module_digest(module: nn.Module) -> str:
    """Digest of a module: architecture, parameters, buffers and plain attributes.

    Values that are neither parameters nor buffers enter too, because a layer may keep
    a stride or a table of numbers as a mere attribute.
    """
    # Addresses of functions differ from process to process.
    architecture = re.sub(r" at 0x[0-9a-f]+", "", repr(module))
    digests = [digest_bytes(f"{type(module).__qualname__}\n{architecture}".encode())]
    for tensors in (module.named_parameters(), module.named_buffers()):
        for name, tensor in tensors:
            digests += [digest_bytes(name.encode()), _tensor_digest(tensor)]
    for name, part in module.named_modules():
        for key, value in sorted(vars(part).items()):
            if isinstance(value, torch.Tensor):
                content = _tensor_digest(value)
            elif isinstance(value, np.ndarray) and value.dtype != object:
                content = digest_array(value)
            elif _is_plain(value) and key != "training":
                content = digest_bytes(repr(value).encode())
            else:
                continue
            digests += [digest_bytes(f"{name}.{key}".encode()), content]
    return combine_digests(*digests)


def _is_plain(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return isinstance(value, bool | int | float | str | bytes | None)


def _tensor_digest(tensor: torch.Tensor) -> str:
    values = tensor.detach().cpu().contiguous()
    header = f"{values.dtype}{tuple(values.shape)}".encode()
    # By bytes: NumPy has no bfloat16.
    flat = values.reshape(-1).view(torch.uint8).numpy()
    return digest_bytes(header, flat.data)
