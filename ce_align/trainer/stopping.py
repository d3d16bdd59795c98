"""Signals that ask a training to stop, and what is told when it did."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from ce_align.errors import CeAlignError
from ce_align.trainer.slurm import SlurmJob

__all__ = ["Interrupted", "StopSignals"]

#: What SLURM sends before a job's time is up, as its option --signal says.
ANNOUNCEMENTS = (signal.SIGUSR1, signal.SIGUSR2)


class Interrupted(CeAlignError):
    """Training was asked to stop, and can be resumed."""

    def __init__(self, text: str, signum: int) -> None:
        super().__init__(text)
        self.exit_status = 128 + signum


class StopSignals:
    """SIGTERM and Ctrl-C as a wish to stop after the step; a second Ctrl-C is obeyed.

    Parameters
    ----------
    job : in which SIGUSR1 and SIGUSR2 are such a wish, too: to stop and start again
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
        self, step: int, path: Path, signum: int, *, speaks: bool
    ) -> Interrupted:
        """What to raise once `path` holds `step`; asks SLURM to go on if it is to.

        Parameters
        ----------
        step, path : of the checkpoint
        signum : that was received
        speaks : whether this process is the one that asks SLURM
        """
        rest = "run the same command again to go on"
        job = self._job
        if job and speaks:
            announced = signum in ANNOUNCEMENTS
            if announced or (signum == signal.SIGTERM and job.time_is_up()):
                rest = job.requeue()
        return Interrupted(
            f"stopped after step {step}, which {path} holds; {rest}", signum
        )
