"""The same network, faster: folded batch norms and channels-last memory."""

import copy
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from typing import Any, cast

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ce_align.errors import DataError
from ce_align.models.activations import ActivationReader, first_tensor
from ce_align.progress import quiet_stdout

__all__ = ["accelerated", "channels_last", "folded"]

#: Folding moves outputs by rounding, relative to the largest; more is another network.
TOLERANCE = 1e-5


def accelerated(
    module: nn.Module, layers: Sequence[str], example: torch.Tensor
) -> nn.Module:
    """Faster copy of `module`, or itself where a copy would give other features.

    Parameters
    ----------
    module : in evaluation mode; it is not changed
    layers : names of the parts whose outputs are read
    example : input with which the copies are compared

    Raises
    ------
    DataError
        If the network's own code fails.
    """
    expected = _answers(module, layers, example)
    # Where folding fails or shows, the memory order alone may still help.
    for names in (layers, None):
        fast = channels_last(folded(module, names) if names else _copied(module))
        if fast is None:
            continue
        with suppress(DataError):
            found = _answers(
                fast, layers, example.contiguous(memory_format=torch.channels_last)
            )
            if _equal(expected, found):
                return fast
    return module


def channels_last(module: nn.Module | None) -> nn.Module | None:
    """A module whose weights lie in memory as maps of pixels do, or None if it can't.

    Weights of three-dimensional convolutions, for example, have no such order.
    """
    if module is None:
        return None
    try:
        return module.to(memory_format=torch.channels_last)
    except Exception:  # any code can run where weights are computed
        return None


def _answers(
    module: nn.Module, layers: Sequence[str], example: torch.Tensor
) -> dict[str, torch.Tensor]:
    """First tensor that each layer returned last, whatever its axes mean."""
    kept: dict[str, torch.Tensor] = {}

    def keep(layer: str) -> Any:
        def read(_module: nn.Module, _inputs: Any, output: Any) -> None:
            with suppress(DataError):
                # A copy: later layers may work in place.
                kept[layer] = first_tensor(output, layer).clone()

        return read

    with ExitStack() as hooks:
        for layer in layers:
            with suppress(RuntimeError):  # such as a part that is TorchScript
                handle = module.get_submodule(layer).register_forward_hook(keep(layer))
                hooks.callback(handle.remove)
        with ActivationReader(module, []) as run:
            run(example)
    return kept


def _equal(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> bool:
    return expected.keys() == found.keys() and all(
        _close(values, found[layer]) for layer, values in expected.items()
    )


def _close(expected: torch.Tensor, found: torch.Tensor) -> bool:
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return False
    if not (expected.is_floating_point() and expected.numel()):
        return torch.equal(expected, found)
    return bool((found - expected).abs().max() <= TOLERANCE * expected.abs().max())


def _copied(module: nn.Module) -> nn.Module | None:
    try:
        return copy.deepcopy(module)
    except Exception:  # such as a module that holds a lock, or weights with a history
        return None


def folded(module: nn.Module, layers: Sequence[str]) -> nn.Module | None:
    """Copy of `module` with batch norms folded, except where it would show.

    A batch norm is folded if it alone reads the output of a convolution and no layer of
    `layers` ends between the two; the outputs of `layers` stay the same to rounding.
    Convolutions whose weights are computed at each pass (weight or spectral norm,
    parametrised, pruned) are left as they are.

    Parameters
    ----------
    module : in evaluation mode
    layers : names of the parts whose outputs are read

    Returns
    -------
    copy : None of a module that cannot be traced or copied
    """
    fast = _copied(module)
    if fast is None:
        return None
    try:
        with quiet_stdout():
            pairs = list(_pairs(fast))
        for conv, norm in pairs:
            if not any(_contains(x, conv) and not _contains(x, norm) for x in layers):
                _fold(fast, conv, norm)
    except Exception:  # any code can run in a forward pass that is traced
        return None
    return fast


def _fold(module: nn.Module, conv: str, norm: str) -> None:
    fused = fuse_conv_bn_eval(
        cast(nn.Conv2d, module.get_submodule(conv)),
        cast(nn.BatchNorm2d, module.get_submodule(norm)),
    )
    module.set_submodule(conv, fused)
    module.set_submodule(norm, nn.Identity())


def _contains(layer: str, part: str) -> bool:
    return f"{part}.".startswith(f"{layer}.")


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of each convolution whose output only a batch norm reads, and of that."""
    graph = fx.Tracer().trace(module)
    parts = dict(module.named_modules(remove_duplicate=False))
    # The same module may be called twice, under one name or two.
    calls = Counter(
        id(parts[str(node.target)]) for node in graph.nodes if node.op == "call_module"
    )
    reached = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    for node in graph.nodes:
        source = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(source, fx.Node) or source.op != "call_module":
            continue
        names = str(source.target), str(node.target)
        conv, norm = parts[names[0]], parts[names[1]]
        if (
            # Exactly these: what derives from them may do more.
            type(conv) is nn.Conv2d
            and type(norm) is nn.BatchNorm2d
            and norm.track_running_stats
            and len(source.users) == 1
            and calls[id(conv)] == calls[id(norm)] == 1
            and not any(_contains(name, attr) for name in names for attr in reached)
            and not (_hooked(conv) or _hooked(norm))
            and isinstance(norm.running_mean, torch.Tensor)
        ):
            yield names


def _hooked(module: nn.Module) -> bool:
    # Weight norm, spectral norm and pruning compute the weight in such a hook.
    return bool(module._forward_hooks or module._forward_pre_hooks)
