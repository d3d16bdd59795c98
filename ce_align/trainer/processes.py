"""What the processes of one training decide together, and which of them speaks."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_only

from ce_align.errors import CeAlignError, ConfigError
from ce_align.trainer.gather import Group
from ce_align.trainer.stopping import Interrupted

__all__ = ["Council", "Elsewhere", "one_voice"]

#: Where the store of the processes says which of them speaks, and its exit status.
VOICE = "ce_align/voice"
#: As long as it may take until it says so.
PATIENCE = timedelta(seconds=10)


class Elsewhere(CeAlignError):
    """Another process has failed, and tells why."""


class Council(Callback):
    """Lets all processes of a training know what one of them knows.

    They meet over the network, not over the GPUs, so that no GPU is waited for and no
    process is left in an exchange that another will never join.
    """

    def __init__(self) -> None:
        self._group: Group = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Meet, once the processes know one another."""
        if trainer.world_size > 1:
            group = dist.new_group(backend="gloo")
            self._group = None if isinstance(group, int) else group

    def highest(self, value: int) -> int:
        """The highest value of all processes."""
        if self._group is None:
            return value
        values = torch.tensor(value)
        dist.all_reduce(values, op=dist.ReduceOp.MAX, group=self._group)
        return int(values)

    def on_train_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Stop all processes before a step of which one has no images."""
        failed = isinstance(batch, CeAlignError)
        if self.highest(failed):
            raise batch if isinstance(batch, CeAlignError) else Elsewhere()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Claim to speak at once: the others will fail because this one did."""
        _speaks(exception)


@contextmanager
def one_voice() -> Iterator[None]:
    """Let one process tell what went wrong, and end the others without a word.

    Raises
    ------
    CeAlignError
        In place of what a network library says when a process has vanished.
    SystemExit
        In processes that do not speak. Their status is 0, because the one that does
        must not be ended before it has spoken; that of the first is the speaker's.
    """
    try:
        yield
    except Exception as error:
        if not _speaks(error):
            raise SystemExit(_status_of_speaker()) from None
        if isinstance(error, CeAlignError) or not _of_connection(error):
            raise
        raise CeAlignError(
            "another process of this training has died (killed, or out of memory); run "
            "the same command again to go on from the last checkpoint"
        ) from error


def _speaks(error: BaseException) -> bool:
    """Whether this process is the first that failed."""
    if isinstance(error, Interrupted):  # all stop at once
        return _rank() == 0
    if isinstance(error, Elsewhere):
        return False
    if not dist.is_initialized():
        # Settings are the same everywhere; machines and their files may differ.
        return not isinstance(error, ConfigError) or _rank() == 0
    own = f"{_rank()}:{getattr(error, 'exit_status', 1)}"
    try:
        found: bytes = _store().compare_set(VOICE, "", own)
    except RuntimeError:  # the first process keeps the store, and has gone
        return False
    return found.decode().partition(":")[0] == own.partition(":")[0]


def _status_of_speaker() -> int:
    """Exit status of a silent process."""
    if not dist.is_initialized() or _rank():
        return 0
    try:
        _store().wait([VOICE], PATIENCE)
        return int(_store().get(VOICE).decode().partition(":")[2])
    except RuntimeError:
        return 1


def _rank() -> int:
    """Number of this process, also before the processes have met."""
    return int(getattr(rank_zero_only, "rank", 0))


def _store() -> Any:
    """Where the processes keep what all may read, which torch hands out only here."""
    return dist.distributed_c10d._get_default_store()


def _of_connection(error: BaseException) -> bool:
    """Whether an exchange between processes failed."""
    text = str(error)
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError)
        and dist.is_initialized()
        and any(name in text for name in ("gloo", "NCCL", "Connection"))
    )
