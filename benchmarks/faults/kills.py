"""Commands that are killed at random moments and given again, until they are done.

    python -m benchmarks.faults.kills [KILLS] [SEED]

Each runs in a process that is forked when the libraries are there already, and is ended
by SIGKILL at a moment drawn over the time that it takes. Then it is given once more: it
must end well, with the rows and files of a run that nobody disturbed, and nothing of
what was left unfinished.
"""

import importlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import torch
from pytest import MonkeyPatch

from benchmarks.faults.sweeps import TESTS
from ce_align.cli.app import main as ce_align
from ce_align.files import scratch_folder

sys.path[:0] = [str(TESTS), str(TESTS / "faults")]

#: What commands import when they are used.
LIBRARIES = (
    *("ce_align.report.page", "ce_align.stages.train", "ce_align.stages.analyze"),
    *("ce_align.stages.score", "ce_align.stages.transfer", "ce_align.sweeps.start"),
    *("ce_align.cli.score", "ce_align.cli.output", "ce_align.models.load"),
    *("ce_align.brainscore", "matplotlib.backends.backend_agg"),
    *("matplotlib.backends.backend_pdf", "matplotlib.backends.backend_svg", "netCDF4"),
)


def main(n_kills: int = 200, seed: int = 0) -> int:
    """Kill as often as is asked, and print what came of it; 1 if anything differs."""
    for name in LIBRARIES:
        importlib.import_module(name)
    torch.set_num_threads(1)  # a fork would wait for ever for threads that it lacks
    from checkpoint_server import CheckpointServer  # type: ignore[import-not-found]
    from small_commands import (  # type: ignore[import-not-found]
        BEFORE,
        COMMANDS,
        prepare,
        products,
        serve_a_network,
        unfinished,
    )

    rng, server = random.Random(seed), CheckpointServer()
    with closing(server), scratch_folder("kills") as folder:
        inputs = folder / "inputs"
        prepare(inputs)
        commands = {"fetch": serve_a_network(server, folder, MonkeyPatch()), **COMMANDS}
        starts, wanted, seconds = {}, {}, {}
        for name, arguments in commands.items():
            starts[name] = folder / name
            shutil.copytree(inputs, starts[name])
            for before in BEFORE.get(name, ()):
                _expect(starts[name], COMMANDS[before])
            whole = folder / f"{name} whole"
            shutil.copytree(starts[name], whole)
            began = time.monotonic()
            _expect(whole, arguments)
            seconds[name] = time.monotonic() - began
            wanted[name] = products(whole)
        counts: dict[str, Counter[str]] = {name: Counter() for name in commands}
        with suppress(KeyboardInterrupt):  # what is done by then is printed
            for number in range(n_kills):
                name = list(commands)[number % len(commands)]
                place, count = folder / f"killed {number}", counts[name]
                shutil.copytree(starts[name], place)
                child = _begin(place, commands[name])
                moment = rng.uniform(0, seconds[name])
                time.sleep(moment)
                os.kill(child, signal.SIGKILL)
                killed = os.WIFSIGNALED(os.waitpid(child, 0)[1])
                count["killed" if killed else "ended before"] += 1
                if not killed:  # the machine has less to do than it had at first
                    seconds[name] = min(seconds[name], moment)
                count["left files"] += bool(unfinished(place))
                status = _wait(_begin(place, commands[name]))
                found = products(place)
                faults = {
                    "failed": status != 0,
                    "differ": found != wanted[name],
                    "still left": bool(unfinished(place)),
                }
                for fault in [fault for fault, there in faults.items() if there]:
                    count[fault] += 1
                    differing = {
                        path
                        for path in found.keys() | wanted[name].keys()
                        if found.get(path) != wanted[name].get(path)
                    }
                    print(
                        f"{name}, killed after {moment:.2f} s (kill {number}): {fault}",
                        *sorted(differing)[:4],
                        *(str(path.relative_to(place)) for path in unfinished(place)),
                        (place / "log.txt").read_text()[-400:],
                        sep="\n  ",
                        flush=True,
                    )
                shutil.rmtree(place)
        return _print(counts, seconds)


def _print(counts: "dict[str, Counter[str]]", seconds: dict[str, float]) -> int:
    faults = ("failed", "differ", "still left")
    columns = ("killed", "ended before", "left files", *faults)
    print(f"{'command':12}{'seconds':>9}" + "".join(f"{c:>14}" for c in columns))
    for name, count in counts.items():
        cells = "".join(f"{count[column]:14}" for column in columns)
        print(f"{name:12}{seconds[name]:9.2f}{cells}")
    whole = sum(counts.values(), Counter[str]())
    print(f"{'all':21}" + "".join(f"{whole[column]:14}" for column in columns))
    return int(any(whole[fault] for fault in faults))


def _begin(place: Path, arguments: tuple[Any, ...]) -> int:
    """Fork a process that executes the command in a folder; its number."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        os.chdir(place)
        log = os.open("log.txt", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.environ["CE_ALIGN_HOME"] = str(place / "home")
        tempfile.tempdir = str(place / "temporary")
        Path(tempfile.tempdir).mkdir(exist_ok=True)
        sys.argv = ["ce-align", *map(str, arguments)]
        ce_align()
    except SystemExit as end:
        status = int(end.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _expect(place: Path, arguments: tuple[Any, ...]) -> None:
    if status := _wait(_begin(place, arguments)):
        raise SystemExit(f"status {status}: {(place / 'log.txt').read_text()}")


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
