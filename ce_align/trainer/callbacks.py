"""Stopping a training at any step, and files to resume it from.

Checkpoints are written whole and read without running code. Lightning's own callback
for them knows neither of processes that must agree nor of a signal within an epoch.
"""

import io
import os
import pickle
import signal
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO
from pydantic import ValidationError

from ce_align.augment import TRANSFORMS_VERSION
from ce_align.errors import CeAlignError, ConfigError, DataError, explained
from ce_align.files import DAMAGE, atomic_path, check_regular, reason
from ce_align.trainer.distributed import (
    FailedElsewhere,
    Group,
    Interrupted,
    SlurmJob,
    claims_report,
)
from ce_align.trainer.module import PairedTraining
from ce_align.trainer.presets import TrainConfig

__all__ = [
    "CheckpointWriter",
    "Consensus",
    "DirectIO",
    "StopSignals",
    "checkpoint_paths",
    "starting_point",
]


#: Checkpoints that are kept: the newest, and some to fall back to.
KEPT = 3
#: Where a checkpoint says which training it belongs to.
IDENTITY = "ce_align"
#: What SLURM sends before a job's time is up, as its option --signal says.
ANNOUNCEMENTS = (signal.SIGUSR1, signal.SIGUSR2)


class StopSignals:
    """SIGTERM and Ctrl-C as a wish to stop after the step; a second Ctrl-C is obeyed.

    In a job SIGUSR1 and SIGUSR2 are such a wish, too: to stop and start again.
    """

    def __init__(self, job: SlurmJob | None = None) -> None:
        self.received = 0
        self._job = job
        self._caught = (signal.SIGTERM, signal.SIGINT, *(ANNOUNCEMENTS if job else ()))

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.received and signum == signal.SIGINT:
            raise Interrupted(
                "stopped within a step; run the same command again to go on from the "
                "last checkpoint",
                signum,
            )
        if signum == signal.SIGINT and os.isatty(2):
            # Not through Python's streams, which may be in the middle of a line.
            os.write(2, b"\nstopping after this step; Ctrl-C again ends it at once\n")
        # SLURM announces the end of a job, and later ends it.
        self.received = self.received or signum

    def listen(self) -> None:
        """Handle the signals, also after someone else has claimed them."""
        for signum in self._caught:
            signal.signal(signum, self._note)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals, and leave them as they were.

        In a job that is being ended they stay handled: the next one would cut off the
        last words.
        """
        before = {signum: signal.getsignal(signum) for signum in self._caught}
        try:
            self.listen()
            yield
        finally:
            ending = self._job is not None and self.received
            for signum, handler in before.items():
                if not ending:
                    signal.signal(signum, handler)

    def stopped(
        self, step: int, path: Path, signum: int, *, reports: bool
    ) -> Interrupted:
        """What to raise once the checkpoint `path` holds `step`.

        The process that reports asks SLURM to start the job again, if it is to.
        """
        rest = "run the same command again to go on"
        job = self._job
        if job and reports:
            announced = signum in ANNOUNCEMENTS
            if announced or (signum == signal.SIGTERM and job.time_is_up()):
                rest = job.requeue()
        return Interrupted(
            f"stopped after step {step}, which {path} holds; {rest}", signum
        )


class Consensus(Callback):
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
            raise batch if isinstance(batch, CeAlignError) else FailedElsewhere()

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Claim the report at once: the others will fail because this one did."""
        claims_report(exception)


def checkpoint_paths(folder: Path) -> list[Path]:
    """Checkpoints in a folder, the newest first."""
    return sorted(folder.glob("step-*.ckpt"), reverse=True)


def _check_resumable(path: Path, config: TrainConfig, data: str) -> None:
    """Read a checkpoint of these settings and images, without running code.

    DataError if it is damaged or no such file, ConfigError if of another training.
    """
    try:
        # torch does not look at the checksums that it writes.
        with zipfile.ZipFile(check_regular(path)) as archive:
            if damaged := archive.testzip():
                raise DataError(f"{path} cannot be resumed from: {damaged} is damaged")
        content = torch.load(path, map_location="cpu", weights_only=True)
        identity = content[IDENTITY]
        settings = TrainConfig.model_validate_json(identity["config"])
    except DataError:
        raise
    except ValidationError as error:  # what is damaged has not come so far
        raise ConfigError(
            f"{path} is of another version of ce_align: {explained(error)}; use that "
            "version, or another --out"
        ) from error
    except (*DAMAGE, pickle.UnpicklingError) as error:
        raise DataError(f"{path} cannot be resumed from: {reason(error)}") from error
    found, wanted = settings.model_dump(mode="json"), config.model_dump(mode="json")
    differing = [
        f"{name} {found[name]!r} instead of {wanted[name]!r}"
        for name in wanted
        # The same images may have moved; their digest is what counts.
        if name != "images" and found[name] != wanted[name]
    ]
    if identity["data"] != data:
        differing.append("other images")
    if identity.get("transforms", 1) != TRANSFORMS_VERSION:
        differing.append("crops as an earlier version of ce_align sampled them")
    if differing:
        raise ConfigError(
            f"{path} was trained with {', '.join(differing)}; use the same settings or "
            "another --out"
        )


def starting_point(
    folder: Path,
    config: TrainConfig,
    data: str,
    resume: str,
    notify: Callable[[str], None],
) -> Path | None:
    """The checkpoint that a training in this folder resumes from, or None.

    Parameters
    ----------
    config, data : settings, and digest of the images, that it must have been of
    resume : ``auto``, ``never``, or a checkpoint
    notify : told of every file that cannot be read

    Raises
    ------
    ConfigError, DataError
        If there is no such checkpoint, it belongs to another training or is damaged,
        or the folder has checkpoints that are not to be resumed from.
    """
    found = checkpoint_paths(folder / "checkpoints")
    if resume == "auto":
        for path, before in zip_longest(found, found[1:]):
            try:
                _check_resumable(path, config, data)
            except DataError as error:
                then = f"falling back to {before.name}" if before else "begun anew"
                notify(f"{error}; {then}")
            else:
                return path
        return None
    if resume == "never":
        if found:
            raise ConfigError(
                f"{folder} holds a training already; choose another --out, delete it, "
                "or use --resume auto"
            )
        return None
    path = Path(resume)
    if not path.is_file():
        raise ConfigError(
            f"there is no checkpoint {path}; use --resume auto, never or a file"
        )
    _check_resumable(path, config, data)
    return path


class DirectIO(TorchCheckpointIO):
    """Writes where it is told, not by way of the system's temporary folder."""

    def save_checkpoint(
        self,
        checkpoint: dict[str, Any],
        path: str | Path,
        storage_options: Any | None = None,
    ) -> None:
        """Write a file, and wait until the disk has it: it is renamed next."""
        content = io.BytesIO()
        torch.save(checkpoint, content)
        with Path(path).open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class CheckpointWriter(Checkpoint):
    """Writes a checkpoint after every epoch, and when a signal asks to stop.

    `data` is the digest of the images.
    """

    def __init__(
        self, folder: Path, data: str, stop: StopSignals, consensus: Consensus
    ) -> None:
        super().__init__()
        self.folder, self.data = folder, data
        self.stop, self.consensus = stop, consensus

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the signals back from Lightning, which would end inside a step."""
        self.stop.listen()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add which training this is, and the state of torch's random numbers."""
        if isinstance(pl_module, PairedTraining):
            checkpoint[IDENTITY] = {
                "config": pl_module.config.model_dump_json(),
                "data": self.data,
                "transforms": TRANSFORMS_VERSION,
                "random_state": torch.get_rng_state(),
                "latest": pl_module.latest,
                "probed": pl_module.probed,
                "running": pl_module.running,
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Restore the state of torch's random numbers."""
        torch.set_rng_state(checkpoint[IDENTITY]["random_state"])
        if isinstance(pl_module, PairedTraining):
            pl_module.latest = dict(checkpoint[IDENTITY]["latest"])
            # Those of ce_align 0.1 have neither.
            pl_module.probed = checkpoint[IDENTITY].get("probed")
            pl_module.running = dict(checkpoint[IDENTITY].get("running", {}))

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Write and stop after the step if any process was asked to."""
        signum = self.consensus.highest(self.stop.received)
        if signum:
            if isinstance(pl_module, PairedTraining):
                pl_module.guard.flush(pl_module.last_checkpoint)
            path = self.write(trainer, pl_module)
            raise self.stop.stopped(
                trainer.global_step, path, signum, reports=trainer.is_global_zero
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write after every epoch."""
        self.write(trainer, pl_module)

    def write(self, trainer: Trainer, pl_module: LightningModule) -> Path:
        """Write a checkpoint, whole or not at all, and delete old ones.

        Raises
        ------
        CeAlignError
            If the system refuses to write there.
        """
        path = self.folder / f"step-{trainer.global_step:09d}.ckpt"
        if trainer.is_global_zero:
            with atomic_path(path) as temporary:
                trainer.save_checkpoint(temporary)
            for old in checkpoint_paths(self.folder)[KEPT:]:
                old.unlink(missing_ok=True)
        else:  # takes part in gathering the state, and writes nothing
            trainer.save_checkpoint(path)
        if isinstance(pl_module, PairedTraining):
            pl_module.last_checkpoint = str(path)
        return path
