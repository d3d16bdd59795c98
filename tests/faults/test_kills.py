"""Commands that are killed at a random moment: the next run finishes what they began.

``python -m benchmarks.faults.kills`` does that hundreds of times, with every command.
"""

import os
import shutil
import signal
import time

import numpy as np
import pytest
from small_commands import COMMANDS, products, unfinished

pytestmark = pytest.mark.slow


def kill(moment, command, ce_align):
    """Fork a process that executes a command, and kill it after so many seconds."""
    # Of commands without torch, whose threads would be missing.
    child = os.fork()
    if not child:
        try:
            ce_align(*COMMANDS[command])
        finally:
            os._exit(0)
    time.sleep(moment)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


@pytest.mark.parametrize("command", ["import", "pack", "tables"])
def test_what_a_killed_command_began_is_finished_by_the_next(
    command, place, ce_align, tmp_path
):
    start = place(tmp_path / "start")
    whole = shutil.copytree(start, tmp_path / "whole")
    os.chdir(whole)
    began = time.monotonic()
    assert ce_align(*COMMANDS[command])[0] == 0
    seconds = time.monotonic() - began
    for number in range(2):
        folder = shutil.copytree(start, tmp_path / f"killed {number}")
        os.chdir(folder)
        # No seed: every run of the tests tries other moments.
        kill(np.random.default_rng().uniform(0, seconds), command, ce_align)
        status, _, err = ce_align(*COMMANDS[command])
        assert status == 0, err
        assert products(folder) == products(whole)
        assert unfinished(folder) == []
