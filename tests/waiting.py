"""Waiting for events, never for times: a machine may be as slow as it likes."""

import subprocess
import time
from collections.abc import Callable

#: Seconds after which a test that waits has certainly failed.
LIMIT = 1800


def wait_until(
    happened: Callable[[], object], process: "subprocess.Popen[str] | None" = None
) -> None:
    """Return once something has happened; fail if the process that does it has ended.

    Parameters
    ----------
    happened : is asked again and again
    process : whose doing is waited for
    """
    given_up = time.monotonic() + LIMIT
    while not happened():
        ended = None if process is None else process.poll()
        # It may have happened between the two questions.
        assert ended is None or happened(), f"the process ended with {ended} before"
        assert time.monotonic() < given_up, f"nothing happened within {LIMIT} s"
        time.sleep(0.01)
