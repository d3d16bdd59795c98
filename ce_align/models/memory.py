"""Memory that a job will take, and that there is: a refusal instead of a kill."""

import os
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ce_align.errors import CeAlignError, ConfigError, DataError
from ce_align.models.activations import ActivationReader

__all__ = ["available_memory", "check_memory", "pass_bytes"]

#: States in GB how much memory may be taken, where the system does not know.
VARIABLE = "CE_ALIGN_MEMORY"

#: Where the system tells of control groups, and of those of this process.
GROUPS, OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")

#: A control group without a limit states one near the largest number.
UNLIMITED = 1 << 60


def available_memory() -> int | None:
    """Bytes that this process can still take; None if the system does not tell.

    The least of what the machine has and of what its control groups (containers, jobs
    of SLURM) leave; what only caches files counts as free.

    Raises
    ------
    ConfigError
        If ``$CE_ALIGN_MEMORY``, which goes before, is no number.
    """
    stated = os.environ.get(VARIABLE)
    if stated:
        try:
            return int(float(stated) * 1e9)
        except ValueError:
            raise ConfigError(
                f"{VARIABLE} should be memory in GB, such as 16, found {stated!r}"
            ) from None
    return min([*_of_machine(), *_of_groups()], default=None)


def _of_machine() -> Iterator[int]:
    with suppress(OSError, ValueError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                yield int(value.split()[0]) * 1024


def _of_groups() -> Iterator[int]:
    """What is left in each control group that this process is in."""
    try:
        lines = OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, kinds, name = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        root = GROUPS / kinds
        limit, used = (
            ("memory.limit_in_bytes", "memory.usage_in_bytes")
            if kinds
            else ("memory.max", "memory.current")
        )
        # A container sees its own group as the root, whatever its name outside is.
        place = root / name.lstrip("/")
        for group in (place, *place.parents):
            with suppress(OSError, ValueError):  # "max" is no number
                most = int((group / limit).read_text())
                if most < UNLIMITED:
                    taken = int((group / used).read_text())
                    yield max(most - taken + _caches(group), 0)
            if group == root:
                break


def _caches(group: Path) -> int:
    """Bytes of a group that cache files and can be given up."""
    for line in (group / "memory.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name in ("inactive_file", "total_inactive_file"):
            return int(value)
    return 0


def check_memory(needs: Mapping[str, int], what: str, remedy: str) -> None:
    """Raise CeAlignError if the parts of a job, in bytes, are more than there is."""
    total, free = sum(needs.values()), available_memory()
    if free is None or total <= free:
        return
    parts = [f"{name} {size / 1e9:.3g}" for name, size in needs.items() if size]
    raise CeAlignError(
        f"{what} needs about {total / 1e9:.3g} GB of memory ({', '.join(parts)}), but "
        f"{free / 1e9:.3g} GB are free; {remedy} ({VARIABLE} states another limit)"
    )


def pass_bytes(
    module: torch.nn.Module, layers: Sequence[str], inputs: torch.Tensor
) -> int:
    """Most bytes that one pass of inputs holds at a time, without the weights.

    A network that cannot be watched, such as TorchScript, counts nothing.
    """
    counter = _LiveBytes([*module.parameters(), *module.buffers()])
    with (
        suppress(DataError),
        ActivationReader(module, layers, on_error=lambda layer, error: None) as read,
        counter,
    ):
        read(inputs)
    return counter.most


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that are alive, but for those that were before."""

    def __init__(self, before: Sequence[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.most = self._now = 0
        self._known = {t.untyped_storage().data_ptr() for t in before}

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """No: skipping imports torch's compiler, which takes as long as torch."""
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor.layout == torch.strided:
                self._note(tensor.untyped_storage())
        return found

    def _note(self, storage: torch.UntypedStorage) -> None:
        place, n_bytes = storage.data_ptr(), storage.nbytes()
        if place in self._known:
            return
        self._known.add(place)
        self._now += n_bytes
        self.most = max(self.most, self._now)
        weakref.finalize(storage, self._forget, place, n_bytes)

    def _forget(self, place: int, n_bytes: int) -> None:
        self._known.discard(place)
        self._now -= n_bytes
